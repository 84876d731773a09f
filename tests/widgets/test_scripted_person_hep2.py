"""A person at the HEp-2 dock: classify, correct, retrain, read the report, use the new model.

The parent is the starter with its head refitted without one pattern (`tests.support.blinding`). The
cells are the starter's reserve: no model was ever trained on them. Slow; ``make test-all`` runs it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from napari_cellpath.backend.inline import InlineBackend
from napari_cellpath.core.vocabulary import System
from napari_cellpath.models import find_model, read_info
from napari_cellpath.models.registry import DEFAULT_MODELS
from napari_cellpath.samples.data import data_folder
from napari_cellpath.widgets.hep2 import Hep2Dock
from napari_cellpath.widgets.train import TrainDock
from tests.support.blinding import write_blinded_to_pattern
from tests.support.teaching import put_on_sides, train, turn_to
from training.datasets import CellRecord
from training.hep2.data import read_cells
from training.hep2.recipe import Hep2Data

BLIND_TO = "Centromere"
CORRECTIONS, FROZEN = 40, 96
pytestmark = [
    pytest.mark.gui,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        data_folder() is None or not (data_folder() / "hep2_i3a" / "labels.csv").is_file(),
        reason="needs the I3A cells: set CELLPATH_DATA to the folder that holds hep2_i3a/",
    ),
]


@pytest.fixture(scope="module")
def parent(tmp_path_factory) -> Path:
    starter = find_model(DEFAULT_MODELS[System.HEP2]).folder
    return write_blinded_to_pattern(
        starter, BLIND_TO, tmp_path_factory.mktemp("models") / "blinded"
    )


def reserve_cells(parent: Path) -> tuple[list[CellRecord], list[CellRecord]]:
    """Cells to correct and cells to be measured on: of each pattern, of different groups."""
    data = read_cells(Hep2Data(folder="hep2_i3a"))
    reserve = set(read_info(parent).reserve)
    rng = np.random.default_rng(0)
    learn, frozen = [], []
    for number in range(len(data.fine_classes)):
        cells = [r for r in data.records if r.fine_class == number and r.group in reserve]
        groups = sorted({r.group for r in cells})
        assert len(groups) > 1, f"{data.fine_classes[number].name} has one group in the reserve"
        first = [r for r in cells if r.group == groups[0]]
        others = [r for r in cells if r.group != groups[0]]
        share = (
            CORRECTIONS // 2 if data.fine_classes[number].name == BLIND_TO else CORRECTIONS // 10
        )
        learn += [first[i] for i in rng.permutation(len(first))[:share]]
        frozen += [others[i] for i in rng.permutation(len(others))[: FROZEN // 6]]
    return learn, frozen


class Person:
    """Sits at a HEp-2 dock and a train dock of one viewer."""

    def __init__(self, viewer, qtbot, parent: Path) -> None:
        self.viewer, self.qtbot = viewer, qtbot
        entry = find_model(parent, System.HEP2)
        self.dock = Hep2Dock(viewer, backend=InlineBackend("cpu"), models=lambda: [entry])
        viewer.window.add_dock_widget(self.dock, name="HEp-2")
        self.session = self.dock.session
        self.train = TrainDock(viewer)
        viewer.window.add_dock_widget(self.train, name="Train")

    def label(self, cell: CellRecord, said: str) -> None:
        """Open an image of one cell, press the button, look at the pattern, say what it is."""
        viewer, session = self.viewer, self.session
        viewer.layers.clear()
        viewer.open(str(cell.image))
        self.qtbot.waitUntil(lambda: session.source is not None, timeout=20_000)
        assert session.given is session.image, "an image of 78 pixels is one cell"
        self.dock.frame.action.primary.click()
        self.qtbot.waitUntil(
            lambda: session.cells is not None and len(session.cells) == 1
            and bool(session.cells.table.final.all()), timeout=20_000,
        )  # fmt: skip
        (uid,) = session.cells.table.uids.tolist()
        session.select([uid])
        self.dock.frame.correct.buttons[session.method.classes.index(said)].click()
        assert session.cells.table.features["correction"][0] == said

    def close(self) -> None:
        self.train.close_run()
        self.session.close()


@pytest.fixture
def person(make_napari_viewer, qtbot, parent, monkeypatch):
    monkeypatch.setenv("CELLPATH_MODELS", str(parent.parent))
    person = Person(make_napari_viewer(), qtbot, parent)
    yield person
    person.close()


def test_forty_corrections_teach_the_missing_pattern(person, qtbot, tmp_path, parent):
    """The paired interval of the gain on specimens never seen excludes 0; the dock turns to it."""
    learn, frozen = reserve_cells(parent)
    assert len(learn) == CORRECTIONS
    names = read_info(parent).class_names
    for cell in (*learn, *frozen):
        person.label(cell, names[cell.fine_class])
    keeper = person.session.keeper
    groups = {c.image.stem: c.group for c in (*learn, *frozen)}
    project = put_on_sides(keeper, tmp_path / "loop", groups, {c.group for c in frozen})
    dock = person.train
    report = train(dock, qtbot, System.HEP2, f"Learns from {len(learn)} cells", within=300)
    low, high = report["paired"]["mca"]["interval"]
    assert 0 < low < high
    assert report["gate"]["passed"]
    turn_to(dock, qtbot, project, System.HEP2)
    assert person.session.method.entry.label == report["child"]
