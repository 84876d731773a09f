"""Random edits, undos and redos over points, boxes and painted labels equal a plain model."""

from __future__ import annotations

import copy
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_cellpath.core.annotations import Annotation, Prediction, Shape
from napari_cellpath.project import Kind, Project, Stroke

SEQUENCES = int(os.environ.get("CELLPATH_SEQUENCES", "150"))
"""1000 in ``make stress``."""
SIDE = 700  # strokes cross tile edges
RASTER = "im/hspnet"

point = st.tuples(st.floats(0, SIDE - 1), st.floats(0, SIDE - 1))
edits = st.one_of(
    st.tuples(st.just("point"), point),
    st.tuples(st.just("box"), point, st.floats(1, 40)),
    st.tuples(st.just("delete"), st.integers(0, 99)),
    st.tuples(st.just("move"), st.integers(0, 99), point),
    st.tuples(st.just("label"), st.integers(0, 99), st.sampled_from(["", "normal", "abnormal"])),
    st.tuples(
        st.just("paint"), st.integers(0, SIDE - 1), st.integers(0, SIDE - 1),
        st.integers(1, 60), st.integers(0, 9),
    ),
    st.tuples(st.just("undo")),
    st.tuples(st.just("redo")),
)  # fmt: skip


class Plain:
    """The model: whole copies of everything, and a place among them."""

    def __init__(self) -> None:
        self.history: list[tuple[dict[str, Any], np.ndarray]] = [({}, np.zeros((SIDE, SIDE), int))]
        self.place = 0

    def edit(self) -> tuple[dict[str, Any], np.ndarray]:
        objects, pixels = copy.deepcopy(self.history[self.place])
        self.history = [*self.history[: self.place + 1], (objects, pixels)]
        self.place += 1
        return objects, pixels


def play(project: Project, plain: Plain, edit: tuple[Any, ...], number: int) -> None:
    name, *given_ = edit
    objects, pixels = plain.history[plain.place]
    uids = list(objects)
    if name in ("point", "box"):
        (row, col), uid = given_[0], f"{number:016x}"
        if name == "point":
            new = Annotation(uid, "im", geometry=(row, col))
        else:
            new = Annotation(
                uid, "im", shape=Shape.BOX, geometry=(row, col, row + given_[1], col + 2.0)
            )
        project.add([new])
        plain.edit()[0][uid] = {"geometry": list(new.geometry), "labels": None}
    elif name == "paint":
        row, col, size, label = given_
        after = np.full((min(size, SIDE - row), min(size, SIDE - col)), label, np.uint8)
        window = np.s_[row : row + after.shape[0], col : col + after.shape[1]]
        before = pixels[window].astype(np.uint8)
        if project.record(Kind.PAINT, {}, [Stroke(RASTER, row, col, before, after)]):
            plain.edit()[1][window] = label
    elif name == "undo":
        assert (project.undo() is not None) == (plain.place > 0)
        plain.place = max(0, plain.place - 1)
    elif name == "redo":
        assert (project.redo() is not None) == (plain.place < len(plain.history) - 1)
        plain.place = min(len(plain.history) - 1, plain.place + 1)
    elif uids:
        uid = uids[given_[0] % len(uids)]
        if name == "delete":
            project.record(Kind.DELETE, {"objects": {uid: None}})
            del plain.edit()[0][uid]
        elif name == "move":
            before = objects[uid]["geometry"]
            geometry = [*given_[1], *before[2:]]
            if project.record(Kind.MOVE, {"objects": {uid: {"geometry": geometry}}}):
                plain.edit()[0][uid]["geometry"] = geometry
        else:
            labels = [given_[1]] if given_[1] else None
            if project.record(Kind.LABEL, {"objects": {uid: {"labels": labels}}}):
                plain.edit()[0][uid]["labels"] = labels


def seen(project: Project) -> tuple[dict[str, Any], np.ndarray]:
    objects = {
        uid: {"geometry": facts["geometry"], "labels": facts.get("labels")}
        for uid, facts in project.state.objects.items()
    }
    raster = project.state.rasters.get(RASTER)
    pixels = np.zeros((SIDE, SIDE), int) if raster is None else raster.read(0, 0, SIDE, SIDE)
    return objects, pixels


@settings(max_examples=SEQUENCES, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(edits, max_size=25))
def test_random_sequences_equal_a_plain_model(sequence: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        project, plain = Project.create(Path(folder) / "p"), Plain()
        with project:
            for number, edit in enumerate(sequence):
                play(project, plain, edit, number)
            objects, pixels = seen(project)
            assert objects == plain.history[plain.place][0]
            assert np.array_equal(pixels, plain.history[plain.place][1])
        with Project.open(project.folder, read_only=True) as again:
            assert again.state == project.state


def test_undo_goes_on_after_reopening(tmp_path: Path) -> None:
    with Project.create(tmp_path / "p") as project:
        project.add([Annotation("a" * 16, "im", geometry=(1.0, 2.0))])
        project.record(Kind.LABEL, {"objects": {"a" * 16: {"labels": ["normal"]}}})
        project.record(Kind.MOVE, {"objects": {"a" * 16: {"geometry": [5.0, 6.0]}}})
        project.undo()
    with Project.open(project.folder) as project:
        assert (project.undo_kind, project.redo_kind) == (Kind.LABEL, Kind.MOVE)
        project.redo()
        assert project.state.objects["a" * 16]["geometry"] == [5.0, 6.0]
        for _ in range(3):
            assert project.undo() is not None
        assert project.state.objects == {}
        assert project.undo() is None
        assert project.redo() is not None


def test_a_prediction_is_no_gesture_and_goes_and_comes_with_its_object(tmp_path: Path) -> None:
    said = Prediction("abnormal", 0.9, model="m@1", at=(1.0, 2.0)).to_facts()
    with Project.create(tmp_path / "p") as project:
        project.add([Annotation("a" * 16, "im", geometry=(1.0, 2.0))])
        project.record(Kind.PREDICT, {"objects": {"a" * 16: {"prediction": said}}})
        assert project.undo_kind is Kind.ADD
        project.undo()
        assert not project.state.objects
        project.redo()
        (annotation,) = project.annotations()
        assert annotation.prediction is not None
        assert annotation.prediction.score == 0.9


def test_two_windows_see_each_other_and_agree_with_the_disk(tmp_path: Path) -> None:
    one = Project.create(tmp_path / "p", author="one")
    two = Project.open(one.folder, author="two")
    uid = "a" * 16
    one.add([Annotation(uid, "im", geometry=(1.0, 2.0))])
    one.flush()
    two.flush()
    wait_for(lambda: bool(two.settle()) or uid in two.state.objects)
    # Both speak of one object before either has heard of the other.
    one.record(Kind.LABEL, {"objects": {uid: {"labels": ["normal"], "author": "one"}}})
    two.record(Kind.LABEL, {"objects": {uid: {"labels": ["abnormal"], "author": "two"}}})
    two.add([Annotation("b" * 16, "im", geometry=(3.0, 4.0))])
    one.flush()
    two.flush()
    wait_for(lambda: settled(one, two))
    assert one.state == two.state
    last = one.state.objects[uid]["author"]
    # Whoever came first cannot undo the other's word, and is told so.
    first, second = (two, one) if last == "one" else (one, two)
    while first.undo_kind is Kind.ADD and len(first.state.objects) > 1:
        first.undo()
    one.close()
    two.close()
    with Project.open(one.folder, read_only=True) as again:
        assert again.state.objects[uid]["author"] == last or second is first


def test_undo_leaves_what_another_window_has_changed(tmp_path: Path) -> None:
    one = Project.create(tmp_path / "p", author="one")
    uid = "a" * 16
    one.add([Annotation(uid, "im", geometry=(1.0, 2.0))])
    one.record(Kind.LABEL, {"objects": {uid: {"labels": ["normal"], "author": "one"}}})
    one.flush()
    with Project.open(one.folder, author="two") as two:
        two.record(Kind.LABEL, {"objects": {uid: {"labels": ["abnormal"], "author": "two"}}})
    wait_for(lambda: bool(one.settle()))
    undone = one.undo()
    assert undone is not None
    assert (undone.event, undone.left) == (None, 1)
    assert one.state.objects[uid]["labels"] == ["abnormal"]
    one.close()


def settled(*projects: Project) -> bool:
    for project in projects:
        project.settle()
    return projects[0].state == projects[1].state


def wait_for(condition: Any) -> None:
    import time

    until = time.monotonic() + 20
    while not condition():
        if time.monotonic() > until:
            pytest.fail("waited 20 s in vain")
        time.sleep(0.02)
