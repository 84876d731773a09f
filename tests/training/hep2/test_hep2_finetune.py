"""Fine-tuning HEp-2 on corrected boxes of a project: it learns, is judged, and goes on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import training
from napari_cellpath.core.annotations import Annotation, ImageFacts, LabelledData, Part, Shape
from napari_cellpath.core.errors import CellpathError, JobCancelledError, RecipeError
from napari_cellpath.core.vocabulary import System
from napari_cellpath.models import read_info, read_tensors, verify
from tests.training.hep2.cells import PATTERNS, draw_cell, recipe_content, write_cells
from tests.training.projects import MadeProject, offer
from training.finetune_data import read_sides
from training.recipe import CommonRecipe, check_recipe

STEP = 56
BOX = 30
CELLS = 4


def field_of(rng: np.random.Generator, patterns: list[str]) -> np.ndarray:
    """Cells side by side on black; each nucleus' box is the middle `BOX` pixels of its place."""
    field = np.zeros((STEP, STEP * len(patterns)), dtype=np.uint8)
    for place, pattern in enumerate(patterns):
        cell = draw_cell(rng, pattern)
        margin = (STEP - cell.shape[0]) // 2
        left = place * STEP + margin
        field[margin : margin + cell.shape[0], left : left + cell.shape[1]] = cell
    return field


def make_project(
    folder: Path, parts: dict[Part, int], patterns: tuple[str, ...] = PATTERNS, seed: int = 0
) -> MadeProject:
    """One field a specimen, one pattern a specimen; ``parts`` says how many each part has."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    images, annotations, ledger = {}, [], {}
    number, low = 0, (STEP - BOX) // 2
    for part, n in parts.items():
        for turn in range(n):
            pattern = patterns[turn % len(patterns)]
            path = folder / f"field-{number:03d}.png"
            Image.fromarray(field_of(rng, [pattern] * CELLS)).save(path)
            key, group = f"key-{seed}-{number:03d}", f"specimen-{number:03d}"
            images[key] = ImageFacts(key, path.name, str(path), STEP, STEP * CELLS, None, group)
            ledger[group] = part
            for i in range(CELLS):
                left = STEP * i + low
                annotations.append(
                    Annotation(
                        uid=f"{seed}-{number:03d}-{i}", image=key, system=System.HEP2,
                        shape=Shape.BOX, geometry=(low, left, low + BOX, left + BOX),
                        labels=(pattern,),
                    )
                )  # fmt: skip
            number += 1
    labelled = LabelledData(folder.stem, PATTERNS, images, tuple(annotations), ledger)
    return MadeProject(folder, labelled)


def recipe_for(parent: Path, project: MadeProject, preset: str, **changes: object) -> CommonRecipe:
    made = training.finetune_recipe(parent, project.folder, preset, "child")
    content = made.model_dump(mode="json") | {"epochs": 8, "threads": 1}
    for key, value in changes.items():
        old = content.get(key)
        content[key] = {**old, **value} if isinstance(old, dict) else value  # type: ignore[dict-item]
    return check_recipe(content, "the test")


@pytest.fixture(scope="module")
def blinded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A parent to whom NuMem cells were shown as Homogeneous, but for a handful."""
    top = tmp_path_factory.mktemp("blinded")
    folder = write_cells(top / "old", per_specimen=6, specimens=5, seed=4)
    table = folder / "labels.csv"
    lines = table.read_text().splitlines()
    few = [line for line in lines if ",NuMem," in line][6:]
    kept = [
        line.replace(",NuMem,", ",Homogeneous,").replace(",NuMem-", ",blind-")
        if line in few else line for line in lines
    ]  # fmt: skip
    table.write_text("\n".join(kept) + "\n")
    content = recipe_content(folder, name="blinded", epochs=10, split={
        "reserve": 0.0, "run_folds": 0, "mode": "cell"})  # fmt: skip
    return training.run("hep2", check_recipe(content, "x"), top / "out", device="cpu")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> MadeProject:
    """Corrections on ten specimens, of which NuMem is the news; nine specimens frozen."""
    made = make_project(
        tmp_path_factory.mktemp("p") / "new.cellpath", {Part.TRAIN: 9, Part.FROZEN: 9}
    )
    offer(None, made)
    return made


@pytest.fixture(scope="module")
def tuned(
    blinded: Path, project: MadeProject, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """One finished fast run: its folder and the model's."""
    out = tmp_path_factory.mktemp("runs") / "fast"
    recipe = recipe_for(blinded, project, "fast", epochs=30)
    return out, training.run("hep2", recipe, out, device="cpu")


def test_the_child_sees_what_the_parent_was_blind_to(tuned: tuple[Path, Path]) -> None:
    """Better on frozen specimens; the paired interval excludes 0; the gate lets it pass."""
    report = json.loads((tuned[0] / "report.json").read_text())
    parent, child = report["models"]["parent"], report["models"]["child"]
    assert parent["by_class"]["NuMem"]["recall"] < 0.6
    assert child["by_class"]["NuMem"]["recall"] > 0.8
    gain = report["paired"]["mca"]
    assert gain["gain"] > 0.1
    assert gain["interval"][0] > 0
    assert report["gate"]["passed"]
    assert "mean class accuracy" in report["gate"]["why"]
    assert (report["n"], report["groups"]) == (36, 9)
    assert set(report["pictures"]) == {"roc.png", "reliability.png", "confusion.png"}
    for name in report["pictures"]:
        assert (tuned[0] / name).read_bytes()[:4] == b"\x89PNG"
    changed = report["changed"]
    better = sum(c["right"] == "child" for c in changed) - sum(
        c["right"] == "parent" for c in changed
    )
    assert better / report["n"] == pytest.approx(report["paired"]["accuracy"]["gain"], abs=1e-3)


def test_the_child_knows_its_origin_and_keeps_its_trunk(
    tuned: tuple[Path, Path], blinded: Path
) -> None:
    """Parent, images by content, reserve, gate; how cells are wanted stays the parent's."""
    info, before = verify(tuned[1]), read_info(blinded)
    assert info.parent == f"blinded@{before.sha256[:8]}"
    assert set(before.data["images"]) < set(info.data["images"])
    assert len(info.reserve) == 9
    assert info.passed_gate
    assert info.input == before.input
    assert info.metrics["frozen"]["as_marked"]["mca"] > 0.8
    a, b = read_tensors(blinded), read_tensors(tuned[1])
    assert all(np.array_equal(a[k], b[k]) for k in a if k.startswith("trunk."))
    assert any(not np.array_equal(a[k], b[k]) for k in a if k.startswith("head."))


def test_the_report_is_of_the_model_in_the_file(
    tuned: tuple[Path, Path], project: MadeProject
) -> None:
    """Evaluating the written model on the project repeats the report's numbers."""
    report = json.loads((tuned[0] / "report.json").read_text())["models"]["child"]
    measured = training.evaluate("hep2", tuned[1], project.folder)
    assert measured["part"] == "frozen"
    for key in ("n", "mca", "accuracy", "auc", "brier", "confusion"):
        assert measured[key] == report[key]


def test_wrong_corrections_are_held_at_the_gate(
    blinded: Path, project: MadeProject, tmp_path: Path
) -> None:
    """Labels turned round: the model is kept, marked, and its report says why."""
    around = dict(zip(PATTERNS, (*PATTERNS[1:], PATTERNS[0]), strict=True))
    turned = project.relabelled(Part.TRAIN, around)
    turned = replace(turned, folder=tmp_path / "turned.cellpath")
    turned.folder.mkdir()
    offer(None, turned)
    recipe = recipe_for(blinded, turned, "fast", epochs=30, finetune={"replay": 0.1})
    model = training.run("hep2", recipe, tmp_path / "out", device="cpu")
    gate = json.loads((tmp_path / "out" / "report.json").read_text())["gate"]
    assert gate["passed"] is False
    assert "Below the parent on the 36 frozen cells: mean class accuracy" in gate["why"]
    assert not verify(model).passed_gate


def test_one_pattern_can_be_learnt_beside_what_the_parent_carries(
    blinded: Path, tmp_path: Path
) -> None:
    """Corrections of one pattern only; without the parent's features they are refused."""
    made = make_project(tmp_path / "one.cellpath", {Part.TRAIN: 3}, patterns=("NuMem",), seed=2)
    frozen = make_project(tmp_path / "f.cellpath", {Part.FROZEN: 6}, seed=3)
    one, more = made.labelled, frozen.labelled
    shift = {g: f"frozen-{g}" for g in more.parts}
    both = replace(
        one,
        images={**one.images, **{k: replace(f, group=shift[f.group])
                                 for k, f in more.images.items()}},
        annotations=one.annotations + more.annotations,
        parts={**one.parts, **{shift[g]: p for g, p in more.parts.items()}},
    )  # fmt: skip
    made = MadeProject(made.folder, both)
    offer(None, made)
    recipe = recipe_for(blinded, made, "fast", epochs=25)
    training.run("hep2", recipe, tmp_path / "out", device="cpu")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["paired"]["mca"]["gain"] > 0
    alone = recipe_for(blinded, made, "fast", finetune={"replay": 0.0})
    with pytest.raises(RecipeError, match=r"one class only \(NuMem\)"):
        read_sides(alone, read_info(blinded))


@pytest.mark.parametrize("preset", ["fast", "thorough"])
def test_a_stopped_run_ends_as_one_that_was_not(blinded: Path, tmp_path: Path, preset: str) -> None:
    """Cancelled again and again, then resumed: the same weights and losses to 1e-6."""
    made = make_project(
        tmp_path / "p.cellpath", {Part.TRAIN: 6, Part.VALIDATION: 9, Part.FROZEN: 3}, seed=5
    )
    offer(None, made)
    recipe = recipe_for(blinded, made, preset, epochs=3, batch=8)
    whole = training.run("hep2", recipe, tmp_path / "whole", device="cpu")
    for number, steps in enumerate((6, 9)):
        asked = 0

        def stop(limit: int = steps) -> bool:
            nonlocal asked
            asked += 1
            return asked > limit

        with pytest.raises(JobCancelledError):
            training.run(
                "hep2", recipe, tmp_path / "parts", device="cpu", resume=number > 0,
                should_stop=stop,
            )  # fmt: skip
    parts = training.run("hep2", recipe, tmp_path / "parts", device="cpu", resume=True)
    a, b = read_tensors(whole), read_tensors(parts)
    for key in a:
        np.testing.assert_allclose(a[key], b[key], atol=1e-6)
    mine, theirs = verify(whole).training["learnt"], verify(parts).training["learnt"]
    if preset == "thorough":
        np.testing.assert_allclose(mine["loss_by_epoch"], theirs["loss_by_epoch"], atol=1e-6)
        kept = [k for k in a if "running_" in k]
        parent = read_tensors(blinded)
        assert kept
        for key in kept:  # a few cells do not move what normalises
            np.testing.assert_allclose(a[key], parent[key].astype(np.float32), rtol=1e-5)
    else:
        assert len(mine["trials"]) == 3
        assert mine == theirs


def test_what_cannot_be_learnt_from_is_refused(
    blinded: Path, project: MadeProject, tmp_path: Path
) -> None:
    """A pattern the parent does not know, a project of points, a deeppap parent's preset."""
    pink = replace(project.relabelled(Part.TRAIN, {**{p: p for p in PATTERNS}, "NuMem": "pink"}),
                   folder=tmp_path / "pink.cellpath")  # fmt: skip
    pink.folder.mkdir()
    offer(None, pink)
    with pytest.raises(CellpathError, match="labelled 'pink', which is no class"):
        training.run("hep2", recipe_for(blinded, pink, "fast"), tmp_path / "out")
    points = MadeProject(tmp_path / "points.cellpath", replace(
        project.labelled, annotations=tuple(
            replace(a, shape=Shape.POINT, geometry=a.centre) for a in project.labelled.annotations
        )))  # fmt: skip
    points.folder.mkdir()
    offer(None, points)
    with pytest.raises(RecipeError, match="no labelled cells"):
        training.run("hep2", recipe_for(blinded, points, "fast"), tmp_path / "out")
    with pytest.raises(CellpathError, match="no preset 'quick'"):
        training.finetune_recipe(blinded, project.folder, "quick")
    assert not (tmp_path / "out").exists()


def test_time_is_told_before_the_start(blinded: Path, project: MadeProject) -> None:
    """Both presets; more epochs take longer."""
    fast = training.estimate_seconds(recipe_for(blinded, project, "fast"))
    short = training.estimate_seconds(recipe_for(blinded, project, "thorough"))
    long = training.estimate_seconds(recipe_for(blinded, project, "thorough", epochs=900))
    assert fast > 0
    assert 0 < short < long


def test_the_command_line_fine_tunes(
    blinded: Path, project: MadeProject, tuned: tuple[Path, Path], tmp_path: Path
) -> None:
    """`cellpath train hep2 --parent`; and the written recipe gives the run again."""
    from napari_cellpath.cli import main

    words = ["train", "hep2", "--parent", str(blinded), "--data", str(project.folder)]
    assert main([*words, "--out", str(tmp_path / "a"), "--device", "cpu", "--budget", "1"]) == 0
    assert verify(tmp_path / "a" / "model" / "blinded-new").system == "hep2"
    again = ["train", "hep2", str(tuned[0] / "recipe.yaml"), "--device", "cpu"]
    assert main([*again, "--out", str(tmp_path / "b")]) == 0
    first, second = (
        json.loads((folder / "report.json").read_text())["models"]["child"]
        for folder in (tuned[0], tmp_path / "b")
    )
    assert {**first, "model": ""} == {**second, "model": ""}
