"""Fine-tuning a parent on a project: it learns, remembers, is judged, and goes on after a stop."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

import training
from napari_cellpath.core.annotations import Part
from napari_cellpath.core.errors import CellpathError, JobCancelledError, RecipeError
from napari_cellpath.models import read_features, read_info, read_tensors, verify
from napari_cellpath.systems.deeppap.predict import load_network
from tests.training.projects import MadeProject, make_project, offer, write_parent
from training.deeppap_recipe import Recipe
from training.finetune_data import read_sides
from training.progress import read_progress
from training.project_data import cells_of
from training.provenance import image_hash, image_hashes
from training.recipe import check_recipe
from training.scoring import score_cells

SPLIT = {Part.TRAIN: 7, Part.FROZEN: 9}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other would be most of the time of networks this small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, MadeProject, MadeProject]:
    """A parent to whom reddish cells are normal, its cells, and a project that knows better."""
    top = tmp_path_factory.mktemp("finetune")
    blind = {0: "normal", 1: "abnormal", 2: "normal"}
    old = make_project(top / "old.cellpath", {Part.TRAIN: 6}, names=blind, seed=5)
    taught = cells_of(old.labelled, old.folder, _classes())
    parent = write_parent(
        top / "models" / "parent", list(taught.records), taught.labels.tolist(),
        ship=[kind != 2 for kind in _kinds(old)],
        data={"name": "old", "images": image_hashes(taught.records)},
    )  # fmt: skip
    return parent, old, make_project(top / "new.cellpath", SPLIT)


def _classes() -> tuple:
    from napari_cellpath.models import ClassInfo

    return (
        ClassInfo(name="normal", colour="#000000"),
        ClassInfo(name="abnormal", colour="#ffffff", abnormal=True),
    )


def _kinds(project: MadeProject) -> list[int]:
    """What was drawn for each annotation."""
    return [(int(a.uid[:3]) + int(a.uid[4:])) % 3 for a in project.labelled.annotations]


def recipe_of(parent: Path, project: MadeProject, **changes: object) -> Recipe:
    """The fast preset, shortened."""
    made = training.finetune_recipe(parent, project.folder, "fast", "child")
    content = made.model_dump(mode="json")
    content |= {"epochs": 12, "evaluation": "rotations", "threads": 1}
    for key, value in changes.items():
        old = content.get(key)
        content[key] = {**old, **value} if isinstance(old, dict) else value  # type: ignore[dict-item]
    return check_recipe(content, "the test")


@pytest.fixture(scope="module")
def finished(
    world: tuple[Path, MadeProject, MadeProject], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """One finished fast run: its folder and the model's."""
    parent, _, project = world
    out = tmp_path_factory.mktemp("runs") / "fast"
    with pytest.MonkeyPatch.context() as patch:
        offer(patch, project)
        model = training.run("deeppap", recipe_of(parent, project), out, device="cpu")
    return out, model


def test_the_head_learns_what_the_parent_was_blind_to(finished: tuple[Path, Path]) -> None:
    """Frozen cells are called better than by the parent, the paired interval says so."""
    out, _ = finished
    report = json.loads((out / "report.json").read_text())
    gain = report["paired"]["accuracy"]
    assert report["models"]["parent"]["accuracy"] < 0.8
    assert gain["gain"] > 0.15
    assert gain["interval"][0] > 0
    assert report["paired"]["resampled"] == "groups"
    assert report["gate"]["passed"]
    assert report["n"] == 36
    for name in report["pictures"]:
        assert (out / name).read_bytes()[:4] == b"\x89PNG"
    assert set(report["pictures"]) == {"roc.png", "reliability.png", "confusion.png"}


def test_changed_cells_are_those_whose_call_changed(
    finished: tuple[Path, Path], world: tuple[Path, MadeProject, MadeProject]
) -> None:
    """Every changed case names its object and who was right; together they are the gain."""
    report = json.loads((finished[0] / "report.json").read_text())
    uids = {a.uid for a in world[2].labelled.annotations}
    changed = report["changed"]
    assert {c["uid"] for c in changed} <= uids
    assert all(c["parent_call"] != c["child_call"] for c in changed)
    better = sum(c["right"] == "child" for c in changed)
    worse = sum(c["right"] == "parent" for c in changed)
    assert (better - worse) / report["n"] == pytest.approx(
        report["paired"]["accuracy"]["gain"], abs=1e-3
    )


def test_the_child_says_what_it_comes_from(
    finished: tuple[Path, Path], world: tuple[Path, MadeProject, MadeProject]
) -> None:
    """Parent, images by content (the parent's too), gate, metrics; the trunk is the parent's."""
    parent, old, project = world
    info = verify(finished[1])
    assert info.parent == f"parent@{read_info(parent).sha256[:8]}"
    train = [
        Path(f.path) for f in project.labelled.images.values()
        if project.labelled.parts[f.group] is Part.TRAIN
    ]  # fmt: skip
    wanted = {image_hash(p) for p in train}
    wanted |= {image_hash(Path(f.path)) for f in old.labelled.images.values()}
    assert set(info.data["images"]) == wanted
    assert set(info.reserve) == {
        g for g, part in project.labelled.parts.items() if part is Part.FROZEN
    }
    assert info.training["gate"]["passed"] is True
    assert info.passed_gate
    assert info.metrics["frozen"]["as_marked"]["accuracy"] > 0.8
    before, after = read_tensors(parent), read_tensors(finished[1])
    assert all(np.array_equal(before[k], after[k]) for k in before if k.startswith("trunk."))
    assert any(not np.array_equal(before[k], after[k]) for k in before if k.startswith("head."))


def test_the_report_is_of_the_model_in_the_file(
    finished: tuple[Path, Path], world: tuple[Path, MadeProject, MadeProject],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Evaluating the written model on the project gives the report's numbers."""
    offer(monkeypatch, world[2])
    report = json.loads((finished[0] / "report.json").read_text())
    network, info = load_network(finished[1])
    cells = cells_of(world[2].labelled, world[2].folder, info.classes)
    frozen = [r for r in cells.records if cells.parts[r.group] is Part.FROZEN]
    scores = score_cells(network, frozen, looked_at="rotations")[:, 1]
    called = scores > info.threshold
    right = float(np.mean(called == [r.abnormal for r in frozen]))
    assert right == pytest.approx(report["models"]["child"]["accuracy"], abs=1e-4)
    measured = training.evaluate("deeppap", finished[1], world[2].folder, preset="fast")
    assert measured["n"] == len(frozen)
    assert measured["part"] == "frozen"


def test_replay_keeps_what_was_known(
    world: tuple[Path, MadeProject, MadeProject], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taught only reddish cells (and a few large), the child with replay forgets less."""
    parent, old, _ = world
    names = {0: "normal", 1: "normal", 2: "abnormal"}  # large nuclei contradict the parent
    project = make_project(tmp_path / "odd.cellpath", SPLIT, kinds=(1, 2), names=names, seed=9)
    offer(monkeypatch, project)
    cells = cells_of(old.labelled, old.folder, _classes())
    known = np.array(_kinds(old)) != 2
    right = {}
    for replay in (0.0, 4.0):
        recipe = recipe_of(parent, project, finetune={"replay": replay})
        model = training.run("deeppap", recipe, tmp_path / f"r{replay}", device="cpu")
        scores = score_cells(load_network(model)[0], cells.records, looked_at="fast")[:, 1]
        right[replay] = float(np.mean((scores > 0.5)[known] == cells.abnormal[known]))
    assert right[4.0] >= 0.8
    assert right[0.0] <= right[4.0] - 0.2


def test_wrong_corrections_do_not_pass_the_gate(
    world: tuple[Path, MadeProject, MadeProject], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels turned round: the model is written, marked, and its report says why."""
    parent, _, project = world
    turned = project.relabelled(Part.TRAIN, {"normal": "abnormal", "abnormal": "normal"})
    offer(monkeypatch, turned)
    lines: list[str] = []
    model = training.run(
        "deeppap", recipe_of(parent, turned, finetune={"replay": 0.2}), tmp_path / "out",
        device="cpu", on_progress=lines.append,
    )  # fmt: skip
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["gate"]["passed"] is False
    assert "Below the parent on the 36 frozen cells" in report["gate"]["why"]
    assert not verify(model).passed_gate
    assert any("not made a default" in line for line in lines)


def test_nothing_frozen_nothing_shown(
    world: tuple[Path, MadeProject, MadeProject], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a frozen part, or with one class there, the gate is shut and says why."""
    parent = world[0]
    project = make_project(tmp_path / "a.cellpath", {Part.TRAIN: 3}, kinds=(0, 1))
    offer(monkeypatch, project)
    recipe = recipe_of(parent, project, epochs=1)
    model = training.run("deeppap", recipe, tmp_path / "a", device="cpu")
    assert not verify(model).passed_gate
    assert "no frozen part" in verify(model).training["gate"]["why"]
    project = make_project(tmp_path / "b.cellpath", {Part.TRAIN: 3, Part.FROZEN: 2}, kinds=(0, 1))
    one = project.relabelled(Part.FROZEN, {"normal": "normal", "abnormal": "normal"})
    offer(monkeypatch, one)
    model = training.run("deeppap", recipe_of(parent, one, epochs=1), tmp_path / "b", device="cpu")
    assert "only normal cells" in verify(model).training["gate"]["why"]


def _stopping_after(n: int):
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > n

    return stop


@pytest.mark.parametrize("method", ["head", "full"])
def test_a_stopped_run_ends_as_one_that_was_not(
    world: tuple[Path, MadeProject, MadeProject], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, method: str,
) -> None:  # fmt: skip
    """Cancelled again and again, then resumed: the same losses and weights to 1e-6."""
    parent = world[0]
    project = make_project(
        tmp_path / "p.cellpath", {Part.TRAIN: 3, Part.VALIDATION: 4, Part.FROZEN: 2}, seed=3
    )
    offer(monkeypatch, project)
    recipe = recipe_of(
        parent, project, epochs=3, batch=8, finetune={"method": method},
        optimiser={"lr_trunk": 1e-3}, views_per_epoch=[1, 1],
    )  # fmt: skip
    whole = training.run("deeppap", recipe, tmp_path / "whole", device="cpu")
    for stop, asked in enumerate((5, 30, 2, 3)):  # while features are computed, and in steps
        with pytest.raises(JobCancelledError):
            training.run(
                "deeppap", recipe, tmp_path / "parts", device="cpu", resume=stop > 0,
                should_stop=_stopping_after(asked),
            )  # fmt: skip
    model = training.run("deeppap", recipe, tmp_path / "parts", device="cpu", resume=True)
    a, b = read_tensors(whole), read_tensors(model)
    for key in a:
        np.testing.assert_allclose(a[key], b[key], atol=1e-6)
    mine, theirs = verify(whole).training["learnt"], verify(model).training["learnt"]
    if method == "full":
        np.testing.assert_allclose(mine["loss_by_epoch"], theirs["loss_by_epoch"], atol=1e-6)
    else:
        assert mine == theirs


@pytest.mark.slow
def test_distillation_stands_in_for_missing_features(
    world: tuple[Path, MadeProject, MadeProject], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A parent without features: held to its own answers, the child moves less."""
    _, old, project = world
    taught = cells_of(old.labelled, old.folder, _classes())
    bare = write_parent(
        tmp_path / "bare", list(taught.records), taught.labels.tolist(), with_features=False
    )
    offer(monkeypatch, project)
    assert read_features(bare) is None
    moved = {}
    for distil in (0.0, 20.0):
        recipe = recipe_of(
            bare, project, epochs=2, batch=8, views_per_epoch=[1, 1],
            finetune={"method": "full", "distil": distil},
            optimiser={"lr_trunk": 3e-4, "lr_head": 3e-4, "ema": 0.0},
        )  # fmt: skip
        model = training.run("deeppap", recipe, tmp_path / f"d{distil}", device="cpu")
        given = [
            score_cells(load_network(m)[0], taught.records[:8], looked_at="fast")[:, 1]
            for m in (bare, model)
        ]
        moved[distil] = float(np.abs(given[0] - given[1]).mean())
    assert moved[20.0] < 0.7 * moved[0.0]


def test_frozen_cells_the_parent_learnt_from_are_refused(
    world: tuple[Path, MadeProject, MadeProject], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By content: a copy under another name and slide is still the same image."""
    parent, old, _ = world
    project = make_project(tmp_path / "p.cellpath", {Part.TRAIN: 3, Part.FROZEN: 2})
    victim = next(
        f for f in project.labelled.images.values()
        if project.labelled.parts[f.group] is Part.FROZEN
    )  # fmt: skip
    source = next(iter(old.labelled.images.values()))
    Path(victim.path).write_bytes(Path(source.path).read_bytes())
    offer(monkeypatch, project)
    with pytest.raises(RecipeError, match=rf"frozen part .*training of parent .*{victim.name}"):
        training.run("deeppap", recipe_of(parent, project), tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()
    with pytest.raises(RecipeError, match=rf"training of parent .*{victim.name}"):
        training.evaluate("deeppap", parent, project.folder, preset="fast")


def test_one_image_on_both_sides_is_refused(
    world: tuple[Path, MadeProject, MadeProject], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frozen image that is a renamed copy of a training image is named."""
    project = make_project(tmp_path / "p.cellpath", {Part.TRAIN: 3, Part.FROZEN: 2})
    first, last = (list(project.labelled.images.values())[i] for i in (0, -1))
    Path(last.path).write_bytes(Path(first.path).read_bytes())
    offer(monkeypatch, project)
    with pytest.raises(RecipeError, match=rf"{first.name}, {last.name}\) is on two sides"):
        read_sides(recipe_of(world[0], project), read_info(world[0]))


def test_what_cannot_be_learnt_from_is_refused(
    world: tuple[Path, MadeProject, MadeProject], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unknown class, one class, nothing to train on: one sentence each, no folder left."""
    parent = world[0]
    project = make_project(tmp_path / "p.cellpath", {Part.TRAIN: 3, Part.FROZEN: 2}, kinds=(0, 1))
    cases = {
        "labelled 'pink', which is no class": project.relabelled(
            Part.TRAIN, {"normal": "pink", "abnormal": "abnormal"}
        ),
        r"one class only \(normal\)": project.relabelled(
            Part.TRAIN, {"normal": "normal", "abnormal": "normal"}
        ),
        "no labelled cell is in the training part": make_project(
            tmp_path / "q.cellpath", {Part.FROZEN: 2}
        ),
    }
    for sentence, bad in cases.items():
        offer(monkeypatch, bad)
        with pytest.raises(CellpathError, match=sentence):
            training.run("deeppap", recipe_of(parent, bad), tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()


def test_progress_can_be_followed(finished: tuple[Path, Path]) -> None:
    """Every stage writes lines that say how far it is and how long is left."""
    lines = read_progress(finished[0])
    assert lines[-1]["stage"] == "done"
    epochs = [line for line in lines if line["stage"].startswith("head")]
    assert [line["epoch"] for line in epochs] == list(range(1, 13))
    assert all(line["loss"] > 0 for line in epochs)
    assert all(line["seconds_left"] >= 0 for line in lines if line["seconds_left"] is not None)
    assert epochs[-1]["seconds"] >= epochs[0]["seconds"]


def test_time_is_told_before_the_start(
    world: tuple[Path, MadeProject, MadeProject], monkeypatch: pytest.MonkeyPatch
) -> None:
    """More epochs take longer; both methods and training from nothing have an estimate."""
    parent, _, project = world
    offer(monkeypatch, project)
    short = training.estimate_seconds(recipe_of(parent, project, finetune={"method": "full"}))
    long = training.estimate_seconds(
        recipe_of(parent, project, finetune={"method": "full"}, epochs=400)
    )
    assert 0 < short < long
    assert training.estimate_seconds(recipe_of(parent, project)) > 0


def test_a_budget_shrinks_epochs(
    world: tuple[Path, MadeProject, MadeProject], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no time at all one epoch is trained, the report is still made, and it is recorded."""
    parent, _, project = world
    offer(monkeypatch, project)
    model = training.run(
        "deeppap", recipe_of(parent, project, epochs=500), tmp_path / "out", device="cpu",
        budget=0.5,
    )  # fmt: skip
    assert verify(model).training["recipe"]["epochs"] == 1
    assert (tmp_path / "out" / "report.json").is_file()


@pytest.mark.slow
def test_the_command_line_needs_no_recipe_file(
    world: tuple[Path, MadeProject, MadeProject], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, finished: tuple[Path, Path],
) -> None:  # fmt: skip
    """--parent, --data, --preset: the recipe is written into the run, and gives the run again."""
    from napari_cellpath.cli import main
    from training.recipe import read_recipe

    parent, _, project = world
    offer(monkeypatch, project)
    words = [
        "train", "deeppap", "--parent", str(parent), "--data", str(project.folder),
        "--preset", "fast", "--name", "child", "--device", "cpu", "--budget", "1",
    ]  # fmt: skip
    assert main([*words, "--out", str(tmp_path / "short")]) == 0
    written = tmp_path / "short" / "recipe.yaml"
    assert read_recipe(written) == training.finetune_recipe(parent, project.folder, "fast", "child")
    words = ["train", "deeppap", str(finished[0] / "recipe.yaml"), "--device", "cpu"]
    assert main([*words, "--out", str(tmp_path / "again")]) == 0
    first = json.loads((finished[0] / "report.json").read_text())
    again = json.loads((tmp_path / "again" / "report.json").read_text())
    assert again["models"] == first["models"] | {
        "child": {**first["models"]["child"], "model": again["models"]["child"]["model"]}
    }


@pytest.mark.slow
def test_validation_chooses_the_epoch_and_calibrates(
    world: tuple[Path, MadeProject, MadeProject], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a validation part: three trials, the parent's head among the choices, a calibration."""
    parent = world[0]
    split = {Part.TRAIN: 4, Part.VALIDATION: 10, Part.FROZEN: 4}
    project = make_project(tmp_path / "p.cellpath", split, seed=4)
    wrong = project.relabelled(Part.TRAIN, {"normal": "abnormal", "abnormal": "normal"})
    epochs = {}
    for name, data in (("right", project), ("wrong", wrong)):
        offer(monkeypatch, data)
        model = training.run("deeppap", recipe_of(parent, data), tmp_path / name, device="cpu")
        learnt = verify(model).training["learnt"]
        assert len(learnt["trials"]) == 3
        epochs[name] = learnt["chosen"]["epoch"]
        if name == "right":
            calibration = verify(model).calibration
            assert calibration is not None
            assert calibration.n == 40
    assert epochs["wrong"] <= 2 < epochs["right"]  # what misleads is left early
