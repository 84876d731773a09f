"""``cellpath reproduce rbc``: Models A, A* and B, the booster, the detector beside a watershed."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import yaml

import training
from napari_cellpath.core.errors import OutputError, RecipeError
from tests.training.rbc.smears import recipe_content, write_smears

pytestmark = pytest.mark.filterwarnings("ignore:.*random weights.*")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, smears: Path) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "r.yaml"
    path.write_text(yaml.safe_dump(recipe_content(smears, epochs=6)))
    return path


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, smears: Path, recipe: Path) -> Path:
    out = tmp_path_factory.mktemp("protocol") / "out"
    training.reproduce("rbc", smears, out, recipe_path=recipe, folds=3, run_folds=2, device="cpu")
    return out


def test_report(done: Path) -> None:
    report = json.loads((done / "results.json").read_text())
    models = report["models"]
    assert set(models) == {"A", "A*", "A, several cells", "B", "B, several cells"}
    assert (
        models["A"]["n"] == models["A*"]["n"] + models["A, several cells"]["n"] == models["B"]["n"]
    )
    assert len(models["A"]["by_type"]) == 12
    assert {"exact_match", "hamming", "macro_auc"} <= set(models["A"])
    assert 0 <= report["booster"]["accuracy"] <= 1
    assert set(report["detector"]) >= {"cells", "regions"}
    assert "watershed" in report["detector"]["cells"]
    assert report["folds_run"] == 2
    assert report["multi_of_several_types"] > 0
    assert report["paper"]["A"]["exact_match"] == 0.722


def test_no_group_is_on_both_sides(done: Path) -> None:
    with (done / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    folds: dict[str, set[str]] = {}
    for row in rows:
        folds.setdefault(row["group"], set()).add(row["fold"])
    assert all(len(f) == 1 for f in folds.values())
    assert len(rows) > 20


def test_it_goes_on_and_refuses_others(done: Path, smears: Path, recipe: Path) -> None:
    same = {"recipe_path": recipe, "folds": 3, "run_folds": 2, "device": "cpu"}
    before = json.loads((done / "results.json").read_text())
    after = training.reproduce("rbc", smears, done, resume=True, **same)
    assert after["models"] == before["models"]
    assert after["seconds"] < before["seconds"]
    with pytest.raises(OutputError, match="holds a run already"):
        training.reproduce("rbc", smears, done, **same)
    with pytest.raises(OutputError, match="other settings"):
        training.reproduce("rbc", smears, done, resume=True, **{**same, "iou": 0.7})


def test_a_budget_is_kept_honestly(smears: Path, recipe: Path, tmp_path: Path) -> None:
    content = yaml.safe_load(recipe.read_text()) | {"epochs": 1000}
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(content))
    report = training.reproduce(
        "rbc", smears, tmp_path / "out", recipe_path=path, folds=3, run_folds=1, budget=2,
        device="cpu",
    )  # fmt: skip
    assert report["epochs"] < report["asked_epochs"] == 1000
    assert report["budget_seconds"] == 2


def test_single_cells_alone_are_refused(tmp_path: Path, recipe: Path) -> None:
    folder = write_smears(tmp_path / "s", blocks=3, untyped=0.0)
    table = folder / "boxes_derived.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join([lines[0], *lines[3::7]]) + "\n")  # cells that touch no other
    with pytest.raises(RecipeError, match="no region of several"):
        training.reproduce("rbc", folder, tmp_path / "o", recipe_path=recipe, folds=2)
