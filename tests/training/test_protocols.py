"""Protocols: what they write, that finished folds are kept, and what they refuse."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import training
from napari_cellpath.core.errors import (
    CellpathError,
    MissingFileError,
    OutputError,
    UnknownNameError,
)
from napari_cellpath.models import verify
from training import metrics as m
from training.plots import roc_curve
from training.protocol_folds import nested_thresholds


@pytest.fixture
def herlev(cells_folder, small_recipe, tmp_path):
    """Run a protocol with a shrunken network, two folds."""

    def run(protocol="herlev", **options):
        options = {"folds": 2, "views": "fast", "recipe_path": small_recipe()} | options
        return training.reproduce(protocol, cells_folder, tmp_path / "out", **options)

    return run


def test_herlev_reports_both_splits_all_looks_and_figures(herlev, tmp_path):
    """By cell and by slide; as marked, off by 5 px and three borders; figures; a row a cell."""
    said = []
    report = herlev(on_progress=said.append)
    out = tmp_path / "out"
    assert set(report["splits"]) == {"cell", "group"}
    for measured in report["splits"].values():
        looks = {k for k, v in measured.items() if isinstance(v, dict)}
        assert looks == {"as_marked", "off_by_5_px", "border_reflect", "border_background"}
        marked = measured["as_marked"]
        assert marked["n"] == 40
        assert 0 <= marked["auc"] <= 1
        assert set(marked["by_class"]) >= {"severe dysplasia", "normal superficial"}
        assert len(marked["over_folds"]["accuracy"]) == 2
        assert set(marked) >= {"h_mean", "f_measure", "accuracy_interval", "auc_interval"}
    with (out / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 80
    assert {r["split"] for r in rows} == {"cell", "group"}
    for name in ("roc.png", "boxes.png"):
        assert (out / name).read_bytes()[:4] == b"\x89PNG"
    assert json.loads((out / "report.json").read_text())["splits"] == report["splits"]
    assert verify(out / "group" / "fold-1-model").data["split_by"] == "group"
    assert any("group-wise fold 2 of 2: accuracy" in line for line in said)


def test_group_wise_folds_share_no_slide(herlev, tmp_path):
    """A slide lies in one fold only; split by cell it does not."""
    herlev()
    with (tmp_path / "out" / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    folds = {"cell": {}, "group": {}}
    for row in rows:
        folds[row["split"]].setdefault(row["group"], set()).add(row["fold"])
    assert all(len(f) == 1 for f in folds["group"].values())
    assert any(len(f) > 1 for f in folds["cell"].values())


def test_finished_folds_are_not_trained_again(herlev, tmp_path):
    """Resumed, the report is the same and nothing is trained; without resume it is refused."""
    first = herlev(split="group")
    with pytest.raises(OutputError, match="holds a run"):
        herlev(split="group")
    said = []
    again = herlev(split="group", resume=True, on_progress=said.append)
    assert again["splits"] == first["splits"]
    assert not any("epoch" in line for line in said)
    with pytest.raises(OutputError, match="other settings"):
        herlev(split="cell", resume=True)


def test_jitter_and_run_folds(herlev):
    """Centres off by 5 and 10 px; one of the folds only, and the report says how many."""
    report = herlev("herlev-jitter", split="group", run_folds=1)
    assert report["folds_run"] == 1
    measured = report["splits"]["group"]
    assert {"off_by_5_px", "off_by_10_px"} <= set(measured)
    assert measured["as_marked"]["n"] < 40
    assert measured["thresholds_of_folds"] == [0.5]


def test_a_budget_shrinks_the_run_and_is_reported(herlev):
    """No machine does an epoch in a twentieth of a second: one is done, and it says so."""
    said = []
    report = herlev(split="group", budget=0.05, run_folds=1, on_progress=said.append)
    assert report["epochs"] == 1
    assert report["budget_seconds"] == 0.05
    assert any("a budget of 0.05 s" in line for line in said)
    assert any("that is the least" in line for line in said)


def test_unknown_protocols_and_unfit_data_are_refused(herlev, cells_folder, tmp_path):
    """The name is told with the known ones; seven classes need seven."""
    with pytest.raises(UnknownNameError, match="herlev-jitter"):
        herlev("pap")
    with pytest.raises(MissingFileError, match=r"points\.csv"):
        training.reproduce("hemlbc", cells_folder, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_hemlbc_takes_a_users_own_folder(cells_folder, small_recipe, tmp_path):
    """One folder of images a class and points.csv; without slides it is split by cell only."""
    lines = ["file,row,col"]
    with (cells_folder / "labels.csv").open() as file:
        for row in csv.DictReader(file):
            kind = "abnormal" if row["abnormal"] == "1" else "normal"
            target = tmp_path / "mine" / kind / Path(row["file"]).name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(cells_folder / row["file"], target)
            lines.append(f"{kind}/{target.name},{row['nucleus_y']},{row['nucleus_x']}")
    (tmp_path / "mine" / "points.csv").write_text("\n".join(lines) + "\n")
    said = []
    report = training.reproduce(
        "hemlbc", tmp_path / "mine", tmp_path / "out", recipe_path=small_recipe(), folds=2,
        views="fast", run_folds=1, on_progress=said.append,
    )  # fmt: skip
    assert list(report["splits"]) == ["cell"]
    assert any("split by cell only" in line for line in said)
    assert "off_by_10_px" in report["splits"]["cell"]


def test_folds_of_the_default_recipe_are_trained_long(herlev, tmp_path):
    """As the starter's folds are, in bfloat16 where it helps; a recipe that is given stays."""
    herlev()
    given = json.loads((tmp_path / "out" / "protocol.json").read_text())["recipe"]
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(CellpathError):  # stopped, or without ImageNet's weights on this machine
        herlev(recipe_path=None, should_stop=lambda: True)
    usual = json.loads((tmp_path / "out" / "protocol.json").read_text())["recipe"]
    assert (usual["fold_epochs"], usual["precision"]) == (48, "auto")
    assert given["precision"] == "fp32"
    assert given["fold_epochs"] < 48


def test_thresholds_of_a_fold_come_from_the_others():
    """A fold with turned labels cannot bend its own threshold."""
    scores = np.tile(np.linspace(0.02, 0.98, 50), 2)
    truth = np.concatenate([scores[:50] > 0.3, scores[50:] > 0.7])
    fold_of = np.repeat([0, 1], 50)
    first, second = nested_thresholds(truth, scores, fold_of)
    assert first == pytest.approx(0.7, abs=0.06)
    assert second == pytest.approx(0.3, abs=0.06)


def test_over_folds_is_mean_and_deviation():
    """Two folds, one perfect and one useless."""
    truth = np.array([0, 1, 0, 1], dtype=bool)
    scores = np.array([0.1, 0.9, 0.9, 0.1])
    found = m.over_folds(truth, scores, [0, 0, 1, 1], 0.5)
    assert found["accuracy"] == [0.5, 0.5]
    assert found["auc"] == [0.5, 0.5]


def test_roc_curve_of_known_scores():
    """A perfect ranking is 1 everywhere; a tie goes along the diagonal; area fits the AUC."""
    truth = np.array([0, 0, 1, 1], dtype=bool)
    assert roc_curve(truth, np.array([0.1, 0.2, 0.8, 0.9]))[1:].min() == 1.0
    np.testing.assert_allclose(roc_curve(truth, np.full(4, 0.5)), np.linspace(0, 1, 101))
    rng = np.random.default_rng(0)
    many, given = rng.random(400) > 0.5, rng.random(400)
    given[many] += 0.4
    area = np.trapezoid(roc_curve(many, given), np.linspace(0, 1, 101))
    assert area == pytest.approx(m.auc(many, given), abs=0.01)
