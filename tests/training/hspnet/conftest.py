"""One small data set and one finished run, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

import training
from tests.training.hspnet.tissue import recipe_content, write_glas
from training.recipe import check_recipe


@pytest.fixture(scope="session")
def glas_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images of six patients."""
    return write_glas(tmp_path_factory.mktemp("hsp-data") / "glas")


@pytest.fixture(scope="session")
def finished(glas_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run that has learnt its colours."""
    out = tmp_path_factory.mktemp("hsp-run") / "run"
    content = recipe_content(glas_folder, epochs=18, fold_epochs=2, crops={"per_epoch": 16})
    training.run("hspnet", check_recipe(content, "the test"), out, device="cpu")
    return out
