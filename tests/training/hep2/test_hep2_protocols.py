"""HEp-2's protocols: what they write, whom they test, and what they refuse."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import training
from napari_cellpath.core.errors import CellpathError, OutputError, RecipeError
from napari_cellpath.models import verify
from tests.training.hep2.cells import PATTERNS, recipe_content, write_cells
from training.hep2.protocols import WARNING

Run = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six specimens of three patterns, five cells each."""
    return write_cells(tmp_path_factory.mktemp("p") / "made", per_specimen=5, specimens=2)


@pytest.fixture
def protocol(small: Path, tmp_path: Path) -> Run:
    """Run a protocol with a shrunken network, two epochs."""
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(recipe_content(small, epochs=2, split={"run_folds": 2})))

    def run(name: str = "hep2-loso", folder: Path = small, out: str = "out", **options: Any) -> Any:
        return training.reproduce(name, folder, tmp_path / out, recipe_path=recipe, **options)

    return run


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_loso_tests_every_specimen_once(protocol: Run, tmp_path: Path) -> None:
    """One fold a specimen, all cells pooled into one matrix, errors by specimen, figures."""
    said: list[str] = []
    report = protocol(on_progress=said.append)
    out = tmp_path / "out"
    assert report["folds"] == report["folds_run"] == 6
    assert report["n"] == 30
    assert np.sum(report["confusion"]) == 30
    assert np.sum(report["confusion"], axis=1).tolist() == [10, 10, 10]
    recalls = [report["by_class"][p]["recall"] for p in PATTERNS]
    assert report["mca"] == pytest.approx(np.mean(recalls), abs=1e-4)
    assert report["paper_mca_percent"]["set-1"] == 70.52
    assert not any("flatters" in line for line in said)
    scores = rows_of(out / "scores.csv")
    assert len({r["image"] for r in scores}) == 30
    folds: dict[str, set[str]] = {}
    for row in scores:
        folds.setdefault(row["group"], set()).add(row["fold"])
    assert sorted(folds.values(), key=str) == [{str(k)} for k in range(1, 7)]
    specimens = rows_of(out / "specimens.csv")
    assert {r["specimen"] for r in specimens} == set(folds)
    assert sum(int(r["wrong"]) for r in specimens) == 30 - np.trace(report["confusion"])
    for fold in range(1, 7):
        trained = set(verify(out / "specimen" / f"fold-{fold}-model").data["trained_on"])
        tested = {g for g, f in folds.items() if str(fold) in f}
        assert len(trained) == 5
        assert not trained & tested
    for name in ("confusion.png", "specimens.png"):
        assert (out / name).read_bytes()[:4] == b"\x89PNG"
    assert json.loads((out / "results.json").read_text()) == json.loads(json.dumps(report))


def test_loso_refuses_what_only_stands_in_for_specimens(protocol: Run, tmp_path: Path) -> None:
    """A pseudo group is no specimen; the sentence says so, and no folder is left."""
    folder = write_cells(tmp_path / "d", per_specimen=2, specimens=2, column="pseudo_group")
    with pytest.raises(RecipeError, match=r"does not say which specimen.*pseudo group.*stand-in"):
        protocol(folder=folder)
    assert not (tmp_path / "out").exists()


def test_kfold_by_cell_warns_that_it_flatters(protocol: Run) -> None:
    """The paper's own numbers are the warning; by group there is none."""
    said: list[str] = []
    report = protocol("hep2-kfold", folds=2, run_folds=1, on_progress=said.append)
    assert WARNING in said
    assert "91.16" in report["warning"]
    assert "70.52" in report["warning"]
    assert report["folds_run"] == 1
    assert report["n"] < 30
    said.clear()
    report = protocol("hep2-kfold", out="by-group", folds=2, split="group", on_progress=said.append)
    assert WARNING not in said
    assert report["warning"] == ""
    assert report["n"] == 30


def test_the_papers_sets(protocol: Run) -> None:
    """set-3 learns from n of each specimen and tests them whole; set-2 keeps all cells."""
    third = protocol(sampling=3, run_folds=1)
    assert third["cells_learnt_from"] == 25  # five specimens of five: fewer than 41 each
    assert set(third["groups_with_fewer_cells"].values()) == {5}
    second = protocol(out="two", sampling=2, run_folds=1)
    assert second["cells_learnt_from"] == 25
    assert second["groups_with_fewer_cells"] == {}


def test_extra_specimens_are_learnt_from_and_never_tested(protocol: Run, tmp_path: Path) -> None:
    """They stand on every training side; one that is also tested is refused."""
    extra = write_cells(tmp_path / "extra", per_specimen=4, specimens=1, seed=9)
    report = protocol(extra=[extra], run_folds=2)
    assert report["extra_cells"] == 12
    assert report["n"] == 10
    assert not any(r["group"].startswith("extra") for r in rows_of(tmp_path / "out/scores.csv"))
    for fold in (1, 2):
        trained = verify(tmp_path / "out" / "specimen" / f"fold-{fold}-model").data["trained_on"]
        assert sum(g.startswith("extra") for g in trained) == 3
    with pytest.raises(RecipeError, match="are also among those tested"):
        protocol(out="no", extra=[write_cells(tmp_path / "same", 5, 2)])
    assert not (tmp_path / "no").exists()


def test_a_learning_curve_over_specimens(protocol: Run, tmp_path: Path) -> None:
    """More specimens at each point; the last point is the whole."""
    report = protocol("hep2-kfold", folds=2, run_folds=1, split="group", curve=True)
    points = [p["groups_learnt_from"] for p in report["curve_points"]]
    assert points == sorted(points)
    assert len(points) == 4
    assert report["mca"] == report["curve_points"][-1]["mca"]
    assert (tmp_path / "out" / "curve.png").read_bytes()[:4] == b"\x89PNG"


def test_finished_folds_are_not_trained_again(protocol: Run) -> None:
    """Resumed, the same numbers and no epoch; other settings and no resume are refused."""
    first = protocol(run_folds=2)
    with pytest.raises(OutputError, match="holds a run"):
        protocol(run_folds=2)
    said: list[str] = []
    again = protocol(run_folds=2, resume=True, on_progress=said.append)
    assert again["confusion"] == first["confusion"]
    assert not any("epoch" in line for line in said)
    with pytest.raises(OutputError, match="other settings"):
        protocol(run_folds=2, resume=True, sampling=2)


def test_a_budget_is_kept_or_said_to_be_too_small(protocol: Run) -> None:
    """One epoch is the least."""
    said: list[str] = []
    report = protocol(run_folds=1, budget=0.01, on_progress=said.append)
    assert report["epochs"] == 1
    assert report["budget_seconds"] == 0.01
    assert any("that is the least" in line for line in said)


def test_foreign_options_and_unknown_protocols_are_refused(protocol: Run, small: Path) -> None:
    """Each in one sentence."""
    with pytest.raises(CellpathError, match=r"hep2-kfold.*hep2-loso"):
        protocol("hep2")
    with pytest.raises(RecipeError, match="has no option 'views'"):
        protocol(views="fast")
    with pytest.raises(RecipeError, match="has no option 'curve'"):
        training.reproduce("herlev", small, small / "x", curve=True)
    with pytest.raises(RecipeError, match="not by both"):
        protocol("hep2-kfold", split="both")


def test_the_command_line_gives_pythons_numbers(
    protocol: Run, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`cellpath reproduce` and `training.reproduce`: one matrix; the paper's beside it."""
    from napari_cellpath.cli import main

    mine = protocol(run_folds=1, device="cpu")
    words = ["reproduce", "hep2-loso", "--data", str(small), "--run-folds", "1"]
    words += ["--recipe", str(tmp_path / "recipe.yaml"), "--device", "cpu"]
    assert main([*words, "--out", str(tmp_path / "cli")]) == 0
    theirs = json.loads((tmp_path / "cli" / "results.json").read_text())
    assert theirs["confusion"] == mine["confusion"]
    assert theirs["mca"] == mine["mca"]
    assert "70.52 (set-1)" in capsys.readouterr().out
