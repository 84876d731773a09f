"""A person at the red-cell dock: draw or detect, flip, retrain heads and booster, read the report.

The parent is the starter with heads and booster refitted without one type
(`tests.support.blinding`). The fields are the starter's reserve: no model was ever trained on
them. Slow; ``make test-all`` runs it.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from napari_cellpath.backend.inline import InlineBackend
from napari_cellpath.bridge.box_recording import corners_of
from napari_cellpath.core.errors import UnknownNameError
from napari_cellpath.core.vocabulary import System
from napari_cellpath.models import find_model, read_info
from napari_cellpath.models.registry import DEFAULT_MODELS
from napari_cellpath.samples.data import data_folder
from napari_cellpath.widgets.red_cells import RedCellDock
from napari_cellpath.widgets.train import TrainDock
from tests.support.blinding import write_blinded_to_type
from tests.support.teaching import put_on_sides, train, turn_to
from training.rbc.chula import read_chula
from training.rbc.table import RegionRecord

BLIND_TO = "target"
CORRECTIONS, FROZEN = 40, 160
FOLDER = "chula_rbc12"


def _missing() -> str:
    """Why this cannot be run here; empty if it can."""
    folder = data_folder()
    if folder is None or not (folder / FOLDER / "boxes_derived.csv").is_file():
        return f"needs the Chula fields: set CELLPATH_DATA to the folder that holds {FOLDER}/"
    try:
        find_model(DEFAULT_MODELS[System.RBC], System.RBC)
    except (KeyError, UnknownNameError):
        return "needs the starter weights of red cells"
    return ""


pytestmark = [
    pytest.mark.gui,
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(bool(_missing()), reason=_missing() or "it can be run"),
]


@pytest.fixture(scope="module")
def parent(tmp_path_factory) -> Path:
    starter = find_model(DEFAULT_MODELS[System.RBC]).folder
    return write_blinded_to_type(starter, BLIND_TO, tmp_path_factory.mktemp("models") / "blinded")


def reserve_boxes(parent: Path) -> tuple[list[RegionRecord], list[RegionRecord]]:
    """Boxes to correct and boxes to be measured on, of different blocks of the reserve.

    Half of those to correct hold the type that the parent never saw.
    """
    folder = data_folder()
    assert folder is not None
    info = read_info(parent)
    column = info.class_names.index(BLIND_TO)
    data = read_chula(folder / FOLDER)
    reserve = set(info.reserve)
    records = [r for r in data.records if r.group in reserve and min(r.targets) >= 0]
    rng = np.random.default_rng(0)
    holding = Counter(r.group for r in records if r.targets[column] == 1)
    first: set[str] = set()
    for group, _ in holding.most_common():  # as few blocks as there are boxes to correct
        if sum(holding[g] for g in first) < CORRECTIONS // 2:
            first.add(group)
    learn, frozen = [], []
    for there in (True, False):
        some = [r for r in records if (r.targets[column] == 1) is there]
        mine = [r for r in some if r.group in first]
        theirs = [r for r in some if r.group not in first]
        assert len(mine) >= CORRECTIONS // 2, f"{len(mine)} boxes to correct are too few"
        learn += [mine[i] for i in rng.permutation(len(mine))[: CORRECTIONS // 2]]
        frozen += [theirs[i] for i in rng.permutation(len(theirs))[: FROZEN // 2]]
    return learn, frozen


class Person:
    """Sits at a red-cell dock and a train dock of one viewer."""

    def __init__(self, viewer, qtbot, parent: Path) -> None:
        self.viewer, self.qtbot = viewer, qtbot
        entry = find_model(parent, System.RBC)
        self.names = entry.info.class_names
        self.dock = RedCellDock(viewer, backend=InlineBackend("cpu"), models=lambda: [entry])
        viewer.window.add_dock_widget(self.dock, name="Red cells")
        self.session = self.dock.session
        self.train = TrainDock(viewer)
        viewer.window.add_dock_widget(self.train, name="Train")
        self.flips = 0

    def label(self, image: Path, boxes: list[RegionRecord]) -> None:
        """Open a field, draw its boxes, and flip every type that is wrong."""
        viewer, session = self.viewer, self.session
        viewer.layers.clear()
        viewer.open(str(image))
        self.qtbot.waitUntil(lambda: session.source is not None, timeout=60_000)
        self.dock.draw.click()
        regions = session.cells
        edited = session.shown.edited(regions)
        for record in boxes:
            edited.layer.add_rectangles(corners_of(record.box))
            self.qtbot.wait(1)
        self.qtbot.waitUntil(
            lambda: len(regions) == len(boxes) and not regions.unscored()
            and not len(session.inquiry.jobs), timeout=300_000,
        )  # fmt: skip
        for uid, record in zip(list(regions.table.uids), boxes, strict=True):
            session.select([str(uid)])
            wanted = {n for n, t in zip(self.names, record.targets, strict=True) if t == 1}
            wrong = wanted ^ set(regions.types_of(str(uid)))
            self.flips += bool(wrong)
            for name in sorted(wrong):
                self.dock.bars.flipped.emit(name)
            if not wrong:
                session.accept()
            assert set(regions.types_of(str(uid))) == wanted
        self.dock.draw.click()

    def close(self) -> None:
        self.train.close_run()
        self.session.close()


@pytest.fixture
def person(make_napari_viewer, qtbot, parent, monkeypatch):
    monkeypatch.setenv("CELLPATH_MODELS", str(parent.parent))
    person = Person(make_napari_viewer(), qtbot, parent)
    yield person
    person.close()


def test_forty_boxes_teach_the_missing_type(person, qtbot, tmp_path, parent):
    """The paired interval of the gain on fields never seen excludes 0; the gate has its say."""
    learn, frozen = reserve_boxes(parent)
    assert len(learn) == CORRECTIONS
    by_image: dict[Path, list[RegionRecord]] = {}
    for record in (*learn, *frozen):
        by_image.setdefault(record.image, []).append(record)
    for image, boxes in by_image.items():
        person.label(image, boxes)
    keeper = person.session.keeper
    groups = {r.image.stem: r.group for r in (*learn, *frozen)}
    project = put_on_sides(keeper, tmp_path / "loop", groups, {r.group for r in frozen})
    dock = person.train
    report = train(dock, qtbot, System.RBC, f"Learns from {len(learn)} regions", within=300)
    assert dock.preset.currentText() == "fast · heads and booster"
    print(f"{person.flips} flipped")
    low, high = report["paired"]["macro_auc"]["interval"]
    assert 0 < low < high
    low, high = report["paired"][f"auc of {BLIND_TO}"]["interval"]
    assert 0 < low < high
    assert report["gate"]["passed"], report["gate"]["why"]
    turn_to(dock, qtbot, project, System.RBC)
    assert person.session.method.entry.label == report["child"]
