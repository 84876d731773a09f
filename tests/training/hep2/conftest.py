"""Cells and a finished run that the tests of this folder share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import training
from tests.training.hep2.cells import recipe_content, write_cells
from training.recipe import check_recipe


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other would be most of the time of networks this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def patterns_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred synthetic cells of eighteen specimens."""
    return write_cells(tmp_path_factory.mktemp("patterns") / "made")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, patterns_folder: Path) -> tuple[Path, Path]:
    """One finished run: its folder and the model's."""
    out = tmp_path_factory.mktemp("run") / "out"
    content = recipe_content(patterns_folder, split={"run_folds": 2})
    recipe = check_recipe(content, "the test")
    return out, training.run("hep2", recipe, out, device="cpu")
