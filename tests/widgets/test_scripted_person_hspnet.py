"""A person at the tissue dock: segment, paint what is wrong in three regions, retrain, look again.

The parent is the starter with its last convolution refitted without malignant glands
(`tests.support.blinding`). The images are the starter's reserve: no model was ever trained on
them. Slow; ``make test-all`` runs it.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from scipy import ndimage

from napari_cellpath.backend.inline import InlineBackend
from napari_cellpath.core.vocabulary import RegionMode, System
from napari_cellpath.models import find_model, read_info
from napari_cellpath.models.registry import DEFAULT_MODELS
from napari_cellpath.project.painted import painted_value
from napari_cellpath.samples.data import data_folder
from napari_cellpath.widgets.search import Where
from napari_cellpath.widgets.tissue import TissueDock
from napari_cellpath.widgets.train import TrainDock
from tests.support.blinding import write_blinded_to_tissue
from tests.support.teaching import put_on_sides, train, turn_to

BLIND_TO = "malignant gland"
MPP = "0.62"
"""Of the images, which state none."""
REGIONS, FROZEN = 3, 6
STROKES, BRUSH = 40, 24
pytestmark = [
    pytest.mark.gui,
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(
        data_folder() is None or not (data_folder() / "glas" / "labels.csv").is_file(),
        reason="needs the gland images: set CELLPATH_DATA to the folder that holds glas/",
    ),
]


@pytest.fixture(scope="module")
def parent(tmp_path_factory) -> Path:
    starter = find_model(DEFAULT_MODELS[System.HSPNET]).folder
    return write_blinded_to_tissue(starter, BLIND_TO, tmp_path_factory.mktemp("models") / "blinded")


def reserve_images(parent: Path) -> tuple[list[dict], list[dict]]:
    """Images to correct, and others to be measured on."""
    with (data_folder() / "glas" / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    reserve = set(read_info(parent).reserve)
    mine = [r for r in rows if r["patient_id"] in reserve]
    assert mine, f"none of the images is of the reserve {sorted(reserve)}"
    bad = [r for r in mine if r["grade_glas"] == "malignant"]
    learn = bad[:REGIONS]
    taught = {r["name"] for r in learn}
    others = [r for r in mine if r["name"] not in taught]
    frozen = sorted(others, key=lambda r: r["grade_glas"] != "malignant")[:FROZEN]
    assert len(learn) == REGIONS
    assert len(frozen) == FROZEN
    return learn, frozen


def truth_of(row: dict) -> np.ndarray:
    """Class of each pixel: 0 none, 1 benign, 2 malignant gland."""
    mask = data_folder() / "glas" / "masks3" / Path(row["file"]).name
    return np.asarray(Pillow.open(mask))


class Person:
    """Sits at a tissue dock and a train dock of one viewer."""

    def __init__(self, viewer, qtbot, parent: Path) -> None:
        self.viewer, self.qtbot = viewer, qtbot
        entry = find_model(parent, System.HSPNET)
        self.dock = TissueDock(viewer, backend=InlineBackend("cpu"), models=lambda: [entry])
        viewer.window.add_dock_widget(self.dock, name="Tissue")
        self.session = self.dock.session
        self.train = TrainDock(viewer)
        viewer.window.add_dock_widget(self.train, name="Train")

    def open(self, row: dict) -> None:
        """Open an image, and say how large its pixels are where that is asked."""
        self.viewer.layers.clear()
        self.viewer.open(str(data_folder() / "glas" / row["file"]))
        session, mpp = self.session, self.dock.frame.subject.mpp
        self.qtbot.waitUntil(lambda: session.source is not None, timeout=20_000)
        if session.needs_scale:
            mpp.setText(MPP)
            mpp.setModified(True)
            mpp.editingFinished.emit()
        assert not session.missing()

    def segment(self) -> np.ndarray:
        """Segment the whole image; its classes at the image's own resolution."""
        session = self.session
        session.where = Where.IMAGE
        self.dock.frame.action.primary.click()
        self.qtbot.waitUntil(
            lambda: session.region is not None and not session.running
            and session.region.store.progress.complete, timeout=600_000,
        )  # fmt: skip
        region = session.region
        facts = region.facts
        high, wide = session.image.data.shape[:2]
        at = [
            np.clip(np.floor((np.arange(n) + 0.5 - c) / s).astype(int), 0, side - 1)
            for n, c, s, side in zip(
                (high, wide), facts.corner, facts.step, facts.shape, strict=True
            )
        ]
        return region.store.rows(0, facts.shape[0])[np.ix_(*at)]

    def correct(self, called: np.ndarray, truth: np.ndarray, rng: np.random.Generator) -> int:
        """Paint with the brush where the model is wrong, and some where it is right."""
        names = self.session.method.classes
        strokes = 0
        for number in range(len(names)):
            core = ndimage.binary_erosion(truth == number, iterations=BRUSH // 2)
            wrong = core & (called != number)
            places = np.argwhere(wrong if wrong.any() else core)
            if not len(places):
                continue
            self.dock.frame.correct.buttons[number].click()
            layer = self.session.painted
            layer.brush_size = BRUSH
            share = STROKES if number == names.index(BLIND_TO) else STROKES // 2
            for row, col in places[rng.permutation(len(places))[:share]]:
                layer.paint((int(row), int(col)), layer.selected_label)
                strokes += 1
        return strokes

    def say_all(self, truth: np.ndarray) -> None:
        """Say of every pixel what it is."""
        said = truth.astype(np.uint32) + painted_value(0)
        assert self.session.paint_pieces(self.session.image, [(0, 0, said)])

    def close(self) -> None:
        self.train.close_run()
        self.session.close()


@pytest.fixture
def person(make_napari_viewer, qtbot, parent, monkeypatch):
    monkeypatch.setenv("CELLPATH_MODELS", str(parent.parent))
    person = Person(make_napari_viewer(), qtbot, parent)
    yield person
    person.close()


def test_three_painted_regions_teach_the_missing_class(person, qtbot, tmp_path, parent):
    """The paired interval of the gain on images never seen excludes 0; the dock turns to it."""
    learn, frozen = reserve_images(parent)
    rng = np.random.default_rng(0)
    person.session.use(mode=RegionMode.PREVIEW)
    strokes = 0
    for row in learn:
        person.open(row)
        called, truth = person.segment(), truth_of(row)
        blind = called[truth == 2] == 2
        assert blind.mean() < 0.2, "the parent is to be blind to it"
        strokes += person.correct(called, truth, rng)
    for row in frozen:
        person.open(row)
        person.say_all(truth_of(row))
    keeper = person.session.keeper
    names = {r["name"]: r["name"] for r in (*learn, *frozen)}
    project = put_on_sides(keeper, tmp_path / "loop", names, {r["name"] for r in frozen})
    dock = person.train
    assert dock.system.currentData() == System.HSPNET, "most of what was said is painted"
    report = train(dock, qtbot, System.HSPNET, f"of {REGIONS} slides", within=480)
    print(f"{strokes} strokes")
    assert any(0 < low < high for low, high in (p["interval"] for p in report["paired"].values()))
    assert report["gate"]["passed"]
    turn_to(dock, qtbot, project, System.HSPNET)
    assert person.session.method.entry.label == report["child"]
