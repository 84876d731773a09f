"""Smears and a finished run that the tests of this folder share."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import training
from tests.training.rbc.smears import recipe_content, write_smears
from training.recipe import check_recipe


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other would be most of the time of networks this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def smears(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen synthetic fields of eight blocks."""
    return write_smears(tmp_path_factory.mktemp("smears") / "made")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, smears: Path) -> tuple[Path, Path]:
    """One finished run: its folder and the model's."""
    out = tmp_path_factory.mktemp("run") / "out"
    recipe = check_recipe(recipe_content(smears), "the test")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*random weights.*")
        return out, training.run("rbc", recipe, out, device="cpu")
