"""Fine-tuning RBC on boxes a person labelled: it learns, is judged, and carries everything on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import training
from napari_cellpath.core.annotations import Annotation, ImageFacts, LabelledData, Part, Shape
from napari_cellpath.core.errors import RecipeError
from napari_cellpath.core.vocabulary import NO_TYPE, System
from napari_cellpath.models import read_features, read_info, read_tensors, verify
from napari_cellpath.systems.rbc.verdict import read_verdict
from tests.support.blinding import write_blinded_to_type
from tests.training.projects import MadeProject, offer
from tests.training.rbc.smears import HEIGHT, KINDS, WIDTH, draw_smear
from training.progress import read_progress
from training.rbc.project import cells_of
from training.rbc.recipe import RbcRecipe
from training.recipe import check_recipe

pytestmark = pytest.mark.filterwarnings("ignore:.*random weights.*")
NAMES = {0: "normal", 2: "microcyte", 4: "target", 6: "ovalocyte"}


def make_project(folder: Path, parts: dict[Part, int], seed: int = 7) -> MadeProject:
    """Fields of seven labelled cells, one a slide, each marked complete."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    images, annotations, ledger = {}, [], {}
    number = 0
    for part, n in parts.items():
        for _ in range(n):
            types = rng.choice(list(KINDS), 7, p=[0.3, 0.15, 0.4, 0.15]).tolist()
            pixels, boxes = draw_smear(rng, types)
            path = folder / f"field-{number:03d}.png"
            Image.fromarray(pixels).save(path)
            key, group = f"key-{number:03d}", f"slide-{number:03d}"
            images[key] = ImageFacts(key, path.name, str(path), HEIGHT, WIDTH, None, group)
            ledger[group] = part
            for place, ((x1, y1, x2, y2), kind) in enumerate(zip(boxes, types, strict=True)):
                annotations.append(
                    Annotation(
                        uid=f"{number:03d}-{place}", image=key, system=System.RBC, shape=Shape.BOX,
                        geometry=(y1, x1, y2, x2), labels=(NAMES[kind],),
                    )
                )  # fmt: skip
            annotations.append(
                Annotation(
                    uid=f"{number:03d}-all", image=key, system=System.RBC, shape=Shape.BOX,
                    geometry=(0, 0, HEIGHT, WIDTH), complete=True,
                )
            )  # fmt: skip
            number += 1
    labelled = LabelledData(folder.stem, tuple(NAMES.values()), images, tuple(annotations), ledger)
    return MadeProject(folder, labelled)


@pytest.fixture(scope="module")
def blinded(finished: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A parent that was never shown target cells."""
    folder = tmp_path_factory.mktemp("blinded") / "blinded"
    return write_blinded_to_type(finished[1], "target", folder)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> MadeProject:
    """About forty labelled boxes to learn from, and a dozen frozen slides."""
    made = make_project(
        tmp_path_factory.mktemp("p") / "new.cellpath", {Part.TRAIN: 6, Part.FROZEN: 12}
    )
    offer(None, made)
    return made


def recipe_for(parent: Path, project: MadeProject, preset: str, **changes: object) -> RbcRecipe:
    made = training.finetune_recipe(parent, project.folder, preset, "child")
    content = made.model_dump(mode="json") | {"threads": 1}
    for key, value in changes.items():
        old = content.get(key)
        content[key] = {**old, **value} if isinstance(old, dict) else value  # type: ignore[dict-item]
    checked = check_recipe(content, "the test")
    assert isinstance(checked, RbcRecipe)
    return checked


@pytest.fixture(scope="module")
def tuned(
    blinded: Path, project: MadeProject, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """One finished fast run: its folder and the model's."""
    out = tmp_path_factory.mktemp("runs") / "fast"
    return out, training.run("rbc", recipe_for(blinded, project, "fast"), out, device="cpu")


def test_the_child_sees_what_the_parent_was_blind_to(tuned: tuple[Path, Path]) -> None:
    """Better on slides never seen; the paired interval of the gain excludes 0; the gate opens."""
    report = json.loads((tuned[0] / "report.json").read_text())
    parent, child = report["models"]["parent"], report["models"]["child"]
    assert parent["by_type"]["target"]["recall"] < 0.3 < 0.8 < child["by_type"]["target"]["recall"]
    for measure in ("exact_match", "auc of target"):
        gain = report["paired"][measure]
        assert 0 < gain["interval"][0] <= gain["gain"], measure
    # The verdict may have been right all along: other types speak for abnormal, too.
    assert report["paired"]["accuracy"]["interval"][0] >= 0
    assert report["gate"]["passed"], report["gate"]["why"]
    assert {"roc.png", "reliability.png", "confusion.png"} == set(report["pictures"])
    assert all((tuned[0] / name).is_file() for name in report["pictures"])
    changed = report["changed"][0]
    assert changed["truth"] != changed["parent_call"] or changed["truth"] != changed["child_call"]


def test_what_the_child_carries(tuned: tuple[Path, Path], blinded: Path) -> None:
    """Detector and trunk are the parent's to the bit; heads and booster are its own."""
    info = verify(tuned[1])
    before, after = read_tensors(blinded), read_tensors(tuned[1])
    for name, values in before.items():
        if name.startswith(("detector.", "trunk.")):
            np.testing.assert_array_equal(values, after[name])
            assert values.dtype == after[name].dtype
    assert not np.array_equal(before["heads.weight1"], after["heads.weight1"])
    assert read_verdict(tuned[1]).booster is not None
    assert info.training["learnt"]["booster"] == "fitted again"
    old, new = read_features(blinded), read_features(tuned[1])
    assert old is not None
    assert new is not None
    column = info.class_names.index("target")
    assert not (old["targets"][:, column] == 1).any()
    assert (new["targets"][:, column] == 1).any()
    parts = [line for line in read_progress(tuned[0]) if line["stage"] == "booster"]
    assert parts[-1]["epoch"] == parts[-1]["epochs"] == 5
    # The parent's boxes stand for as many as before, and other heads than its own spoke of each.
    assert old["stands_for"].sum() < new["stands_for"].sum()
    for carried in (old, new):
        told = carried["out_of_fold"]
        assert told.shape == carried["targets"].shape
        assert np.isfinite(told).all()
    told = new["out_of_fold"][:, column][new["targets"][:, column] == 1]
    assert np.median(told) > 0.5
    assert "Tells which types" in (tuned[1] / "card.md").read_text()


def test_features_are_kept_between_runs(
    blinded: Path, project: MadeProject, tuned: tuple[Path, Path], tmp_path: Path
) -> None:
    kept = sorted((tuned[0] / "features").glob("*.npy"))
    assert len(kept) == 18 * 7
    recipe = recipe_for(blinded, project, "fast", epochs=1)
    (tmp_path / "out" / "features").mkdir(parents=True)
    for path in kept:
        (tmp_path / "out" / "features" / path.name).write_bytes(path.read_bytes())
    times = {
        path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / "features").iterdir()
    }
    training.run("rbc", recipe, tmp_path / "out", device="cpu")
    after = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out" / "features").iterdir()}
    assert after == times  # nothing was computed again


def test_thorough_moves_the_trunk_and_the_detector(
    blinded: Path, project: MadeProject, tmp_path: Path
) -> None:
    recipe = recipe_for(
        blinded, project, "thorough", epochs=2, finetune={"detector": True},
        detector={"iterations": 3, "proposals": 50, "samples": 16},
    )  # fmt: skip
    folder = training.run("rbc", recipe, tmp_path / "out", device="cpu")
    before, after = read_tensors(blinded), read_tensors(folder)
    assert not np.array_equal(before["trunk.body.0.weight"], after["trunk.body.0.weight"])
    learnt = read_info(folder).training["learnt"]
    assert learnt["detector_fields"] == 6
    assert learnt["detector_child"]["images"] == 12
    moved = "detector.roi_heads.box_predictor.cls_score.weight"
    changed = not np.array_equal(before[moved], after[moved])
    assert changed == (learnt["detector"] == "trained on")


def test_an_estimate_needs_no_run(blinded: Path, project: MadeProject) -> None:
    for preset in ("fast", "thorough"):
        assert 0 < training.estimate_seconds(recipe_for(blinded, project, preset)) < 600


def test_labels_of_a_project(project: MadeProject, finished: tuple[Path, Path]) -> None:
    """All labels of a box count; none at all is a word too; the rectangles are the fields."""
    classes = read_info(finished[1]).classes
    labelled = replace(
        project.labelled,
        annotations=tuple(
            replace(
                a, labels=("normal", "target") if i == 0 else (NO_TYPE,) if i == 1 else a.labels
            )
            for i, a in enumerate(a for a in project.labelled.annotations if not a.complete)
        ),
        boxes=tuple(a for a in project.labelled.annotations if not a.complete),
        complete=tuple(a for a in project.labelled.annotations if a.complete),
    )
    data = cells_of(labelled, project.folder, classes)
    names = [c.name for c in classes]
    first = dict(zip(names, data.targets[0].tolist(), strict=True))
    assert first["normal"] == first["target"] == 1
    assert sum(first.values()) == 2
    assert data.targets[1].sum() == 0
    assert data.verdicts[:2].tolist() == [1, 0]
    assert data.known.all()
    assert len(data.fields) == 18
    assert all(len(f.boxes) == 7 for f in data.fields)
    unknown = replace(
        labelled, annotations=(replace(labelled.annotations[0], labels=("normal", "x")),)
    )
    with pytest.raises(RecipeError, match="'x', which is no type"):
        cells_of(unknown, project.folder, classes)


def test_a_detector_without_rectangles_is_refused(
    blinded: Path, project: MadeProject, tmp_path: Path
) -> None:
    bare = MadeProject(
        tmp_path / "bare.cellpath",
        replace(
            project.labelled,
            annotations=tuple(a for a in project.labelled.annotations if not a.complete),
        ),
    )
    bare.folder.mkdir()
    offer(None, bare)
    recipe = recipe_for(blinded, bare, "fast", epochs=1, finetune={"detector": True})
    with pytest.raises(RecipeError, match="complete here"):
        training.run("rbc", recipe, tmp_path / "out", device="cpu")
