"""The HEp-2 dock with real widgets and a real, small model: find, classify, correct, read."""

import csv
import json
import shlex

import numpy as np
import pytest
from napari.utils.notifications import notification_manager
from qtpy.QtGui import QGuiApplication

from napari_cellpath.backend.inline import InlineBackend
from napari_cellpath.bridge.conventions import facts_of
from napari_cellpath.bridge.kinds import CELLS, kind_of
from napari_cellpath.bridge.masks import masks_layer_of
from napari_cellpath.core.annotations import Shape
from napari_cellpath.core.doubt import Order, Show
from napari_cellpath.core.requests import FindCellsRequest
from napari_cellpath.core.vocabulary import PATTERNS, Average, Channel, System
from napari_cellpath.models import ModelEntry, read_info
from napari_cellpath.samples.fluorescence import hep2_field
from napari_cellpath.widgets import cell_words
from napari_cellpath.widgets.hep2 import Hep2Dock
from napari_cellpath.widgets.review import ReviewDock
from napari_cellpath.widgets.search import Where
from napari_cellpath.widgets.specimen_panel import specimen_words
from tests.support.models import write_pattern_model


@pytest.fixture(scope="module")
def field():
    return hep2_field()


@pytest.fixture(scope="module")
def entries(tmp_path_factory):
    folder = write_pattern_model(tmp_path_factory.mktemp("models") / "hep2-test")
    return [ModelEntry("hep2-test", folder, read_info(folder))]


@pytest.fixture(scope="module")
def inline():
    backend = InlineBackend("cpu", "fp32")
    yield backend
    backend.close()


@pytest.fixture
def viewer(make_napari_viewer):
    return make_napari_viewer()


@pytest.fixture
def image(viewer, field):
    return viewer.add_image(
        field.image, name="HEp-2 field", scale=(field.mpp,) * 2, units=("um", "um")
    )


@pytest.fixture
def dock(viewer, image, inline, entries, qtbot):
    dock = Hep2Dock(viewer, backend=inline, models=lambda: list(entries))
    viewer.window.add_dock_widget(dock, name="HEp-2")
    qtbot.waitUntil(lambda: dock.session.source is not None, timeout=20000)
    yield dock
    dock.session.close()


def settled(dock) -> bool:
    session = dock.session
    idle = not session.busy and session.inquiry.errands.latest is None
    return idle and not session.inquiry.waiting and not len(session.inquiry.jobs)


def run(dock, qtbot):
    dock.find_and_classify()
    qtbot.waitUntil(
        lambda: (
            dock.session.cells is not None
            and len(dock.session.cells) > 0
            and settled(dock)
            and not dock.session.cells.unscored()
        ),
        timeout=60000,
    )
    return dock.session.cells


def choose(combo, value) -> None:
    index = combo.findData(value)
    assert index >= 0
    combo.setCurrentIndex(index)
    combo.activated.emit(index)


def last_notice() -> str:
    return notification_manager.records[-1].message


def test_find_and_classify(dock, viewer, qtbot, field, image):
    """One press: cells, masks and a pattern each; the table begins with the least certain."""
    cells = run(dock, qtbot)
    assert len(cells) == len(field.centres)
    frame = cells.layer.features
    assert set(frame["call"]) <= set(PATTERNS)
    per_class = frame[[f"p_{name}" for name in PATTERNS]].to_numpy(float)
    np.testing.assert_allclose(per_class.sum(axis=1), 1.0, atol=1e-6)
    np.testing.assert_allclose(per_class.max(axis=1), frame["score"])
    masks = masks_layer_of(image, viewer.layers)
    assert masks.data.dtype == np.int32
    uids = facts_of(masks)["uids"]
    for row in range(0, len(cells), 7):
        at = tuple(np.round(cells.table.positions[row]).astype(int))
        assert uids[masks.data[at] - 1] == cells.table.uids[row]
    assert viewer.layers.index(masks) < viewer.layers.index(cells.layer)
    table = dock.frame.result.table
    shown = [table.columns.row_at(place) for place in range(len(cells))]
    assert (np.diff(frame["margin"].to_numpy()[shown]) >= 0).all()
    assert "48 classified" in dock.frame.result.summary.text()


def test_masks_take_the_colour_of_the_pattern(dock, viewer, qtbot, image):
    """After a correction the mask has the colour of the class that the person gave."""
    cells = run(dock, qtbot)
    uid = str(cells.table.uids[0])
    dock.session.select([uid])
    dock.session.correct("NuMem")
    masks = masks_layer_of(image, viewer.layers)
    label = facts_of(masks)["uids"].index(uid) + 1
    wanted = cells.table.scheme.colours[PATTERNS.index("NuMem")]
    rgb = [int(wanted[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    qtbot.waitUntil(lambda: np.allclose(masks.colormap.map(label)[:3], rgb), timeout=10000)


def test_again_finds_nothing_new(dock, qtbot):
    """A second press doubles nothing and says so."""
    before = len(run(dock, qtbot))
    dock.find_and_classify()
    qtbot.waitUntil(lambda: "were there already" in last_notice() and settled(dock), timeout=30000)
    assert len(dock.session.cells) == before


def test_find_in_drawn_shapes_only(dock, viewer, qtbot, field, image):
    """With ‘drawn shapes’ only cells inside are taken."""
    viewer.add_shapes(
        [[[0, 0], [0, 500], [400, 500], [400, 0]]], shape_type="rectangle", scale=image.scale
    )
    viewer.layers.selection.active = image
    choose(dock.where, Where.DRAWN)
    cells = run(dock, qtbot)
    inside = ((field.centres < (400, 500)).all(axis=1)).sum()
    assert 0 < len(cells) <= inside
    assert (cells.table.positions < (400, 500)).all()


def test_cells_from_a_labels_layer(dock, viewer, qtbot, field, image):
    """The user's masks give cells, names and masks of our own; theirs stay as they are."""
    labels = viewer.add_labels(field.labels * 3, name="mine", scale=image.scale)
    viewer.layers.selection.active = image
    assert dock.frame.action.primary.text() == "Find and classify"
    choose(dock.source, labels)
    assert dock.frame.action.primary.text() == "Take over and classify"
    assert not dock.where.isEnabled()
    cells = run(dock, qtbot)
    assert len(cells) == len(field.centres)
    assert list(cells.layer.features["id"][:2]) == ["3", "6"]
    ours = masks_layer_of(image, viewer.layers)
    assert np.array_equal(ours.data > 0, field.labels > 0)
    assert labels.data.max() == 3 * field.labels.max()
    viewer.layers.remove(labels)
    assert dock.session.given is None


def test_empty_masks_are_refused_in_a_sentence(dock, viewer, qtbot, field, image):
    """A labels layer without a label is told, and nothing is added."""
    labels = viewer.add_labels(np.zeros_like(field.labels), name="void", scale=image.scale)
    viewer.layers.selection.active = image
    choose(dock.source, labels)
    dock.find_and_classify()
    qtbot.waitUntil(lambda: "'void' marks no cells" in last_notice(), timeout=10000)
    assert len(dock.session.cells) == 0


def test_a_click_classifies_at_once(dock, qtbot, field):
    """A point added with the layer's own tool is classified, with a box of the diameter set."""
    dock.click.click()
    assert str(dock.session.cells.layer.mode) == "add"
    dock.click_um.setValue(20.0)
    dock.session.cells.layer.add(field.centres[0])
    qtbot.waitUntil(lambda: bool((dock.session.cells.layer.features["call"] != "").all()),
                    timeout=10000)  # fmt: skip
    box = dock.session.cells.table.boxes[0]
    assert box[2] - box[0] == box[3] - box[1] == round(20.0 / field.mpp)


def test_rgb_images_say_which_channel_is_read(dock, viewer, qtbot, field):
    """A grey image has no channel to choose; of a colour image the plane is chosen and asked."""
    assert dock.channel.isHidden()
    rgb = np.zeros((*field.image.shape, 3), np.uint8)
    rgb[..., 0] = field.image
    viewer.add_image(rgb, name="red", scale=(field.mpp,) * 2, units=("um", "um"))
    qtbot.waitUntil(lambda: not dock.channel.isHidden(), timeout=10000)
    assert dock.channel.currentText().startswith("green")
    qtbot.waitUntil(lambda: dock.session.source is not None and settled(dock), timeout=20000)
    choose(dock.channel, Channel.RED)
    cells = run(dock, qtbot)
    assert len(cells) == len(field.centres)
    assert cells.table.scheme.settings[-1] == "red"


def test_average_makes_patterns_stale_and_back(dock, qtbot):
    """The mean of eight ways round is another answer; going back makes the old one valid."""
    cells = run(dock, qtbot)
    choose(dock.frame.method.preset, Average.D4)
    assert len(cells.stale()) == len(cells)
    assert dock.classify.text() == f"Re-classify ({len(cells)})"
    choose(dock.frame.method.preset, Average.NONE)
    assert not cells.stale()


def test_cancelled_search_keeps_what_it_found(dock, qtbot, monkeypatch):
    """After a cancel nothing is classified by itself; the button offers it."""
    asked = []
    session = dock.session
    monkeypatch.setattr(
        session.inquiry, "send", lambda kind, title, request, done: asked.append((request, done))
    )
    dock.find_and_classify()
    ((request, done),) = asked
    assert isinstance(request, FindCellsRequest)
    from napari_cellpath.core.results import FoundCell

    cell = FoundCell(50, 60, (30, 40, 70, 80), np.ones((40, 40), bool))
    done([cell], False)
    qtbot.waitUntil(lambda: session.cells is not None and len(session.cells) == 1, timeout=10000)
    assert session.cells.unscored()
    assert "stopped" in last_notice()
    assert dock.classify.text() == "Classify all (1)"


def test_specimen_in_plain_words(dock, qtbot):
    """The sentence counts cells by what stands, and follows corrections."""
    cells = run(dock, qtbot)
    uids = [str(u) for u in cells.table.uids]
    cells.correct(uids, "Centromere")
    cells.correct(uids[:2], "Golgi")
    qtbot.waitUntil(lambda: "Centromere</b>, 46 of 48 cells (96 %" in dock.specimen.sentence.text(),
                    timeout=10000)  # fmt: skip
    assert "95 % interval" in dock.specimen.sentence.text()
    choose(dock.specimen.intensity, "positive")
    assert dock.session.intensity == "positive"
    assert dock.specimen.bars._counts == (0, 0, 0, 46, 0, 2)


def test_abstention_and_mixture_are_said():
    """A withheld reading says why; a second pattern of some weight is named."""
    reading = {
        "reading": None, "abstained": True, "why": "Golgi leads with 40% of 10 cells.",
        "cells": 12, "judged": 10, "votes": {"Golgi": 4, "NuMem": 3}, "mixed": True,
        "mixed_with": ["NuMem"], "majority": {"pattern": "Golgi", "share": 0.4,
        "interval": [0.1, 0.7], "level": 0.95}, "mean": {"probabilities": {"Golgi": 0.5}},
    }  # fmt: skip
    head, notes = specimen_words(reading, "A7")
    assert head.startswith("<b>Specimen A7: no reading.</b> Golgi leads with 40% of 10 cells.")
    assert "4 of 10 cells (40 %, 95 % interval 10–70 %); mean probability 0.50" in head
    assert notes == "Mixed with NuMem. 2 cells without a pattern do not count."
    assert specimen_words(None, "")[0] == "Specimen: no cell has a pattern yet."


def test_keys_and_buttons_correct(dock, viewer, qtbot):
    """Six buttons with digits and counts; Alt-6 is the sixth class; accept takes the call."""
    cells = run(dock, qtbot)
    assert len(dock.frame.correct.buttons) == 6
    dock.session.select([str(cells.table.uids[1])])
    dock.session._actions["class_6"]()
    assert cells.layer.features["correction"][1] == "Golgi"
    dock.session.select([str(cells.table.uids[2])])
    dock.session.accept()
    assert cells.layer.features["correction"][2] == cells.layer.features["call"][2]


def test_without_a_model_the_rest_works(viewer, image, inline, qtbot, field):
    """One line says there is none; cells can still be marked."""
    dock = Hep2Dock(viewer, backend=inline, models=list)
    viewer.window.add_dock_widget(dock, name="HEp-2")
    qtbot.waitUntil(lambda: dock.session.source is not None, timeout=20000)
    assert dock.frame.subject.accuracy.text() == cell_words.NO_MODEL
    assert not dock.frame.action.primary.isEnabled()
    dock.click.click()
    dock.session.cells.layer.add(field.centres[0])
    assert len(dock.session.cells) == 1
    assert "Choose a model first; the cells are not classified." in last_notice()
    dock.session.close()


def test_corrections_are_in_the_project_and_can_be_undone(dock, viewer, qtbot, image):
    """Boxes of system hep2 with label and prediction; Ctrl-Z takes one correction back."""
    cells = run(dock, qtbot)
    uid = str(cells.table.uids[0])
    dock.session.select([uid])
    dock.session.correct("NuMem")
    project = dock.session.keeper.project
    (kept,) = [a for a in project.annotations(system=System.HEP2) if a.uid == uid]
    assert (kept.shape, kept.labels) == (Shape.BOX, ("NuMem",))
    assert kept.prediction is not None
    assert kept.prediction.model.startswith("hep2-test@")
    dock.session.keeper.undo()
    assert cells.layer.features["correction"][0] == ""
    assert last_notice() == "Undid labelling 1 cell."


def test_reopened_image_gets_its_cells_back(dock, viewer, qtbot, image, field):
    """Closing layers and opening the image again restores points, boxes and patterns."""
    cells = run(dock, qtbot)
    frame = cells.layer.features.copy()
    for layer in list(viewer.layers):
        viewer.layers.remove(layer)
    viewer.add_image(field.image, name="again", scale=(field.mpp,) * 2, units=("um", "um"))
    qtbot.waitUntil(lambda: dock.session.cells is not None and len(dock.session.cells) == 48,
                    timeout=20000)  # fmt: skip
    again = dock.session.cells.layer.features
    columns = ["uid", "call", "score", "row0", "col0", "row1", "col1", "p_Golgi"]
    for name in columns:
        assert list(again[name]) == list(frame[name]), name
    assert not again["stale"].any()


def test_export_and_command(dock, qtbot, tmp_path, viewer, field, inline):
    """The CSV is that of `predict hep2` with boxes and corrections; the roll-up lies beside it."""
    cells = run(dock, qtbot)
    cells.correct([str(cells.table.uids[0])], "NuMem")
    dock.export_to(str(tmp_path / "cells.csv"))
    with (tmp_path / "cells.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 48
    assert {"pattern", "p_Golgi", "row0", "col1", "model", "flags"} <= set(rows[0])
    assert rows[0]["correction"] == "NuMem"
    reading = json.loads((tmp_path / "cells.specimen.json").read_text())
    assert reading["votes"]["NuMem"] >= 1
    dock.copy_command()
    assert "only in memory" in last_notice()


def test_command_classifies_the_exported_boxes(dock, qtbot, tmp_path, viewer, field):
    """Of a file the command names image, boxes, model and settings."""
    import tifffile

    path = tmp_path / "field.tif"
    tifffile.imwrite(path, field.image)
    viewer.layers.clear()
    viewer.open(str(path), plugin="napari-cellpath")
    qtbot.waitUntil(lambda: dock.session.source is not None and settled(dock), timeout=20000)
    dock.session.choose_mpp(field.mpp)
    run(dock, qtbot)
    dock.session.use(average=Average.D4)
    dock.export_to(str(tmp_path / "cells.csv"))
    dock.copy_command()
    words = shlex.split(QGuiApplication.clipboard().text())
    assert words[:4] == ["cellpath", "predict", "hep2", str(path)]
    assert words[words.index("--boxes") + 1] == str(tmp_path / "cells.csv")
    assert words[words.index("--average") + 1] == "d4"
    assert words[words.index("--out") + 1].endswith("cells-patterns.csv")


def test_review_by_cell_and_by_specimen(dock, viewer, qtbot):
    """The gallery lists cells by margin, labels them by digit, and can go by specimen."""
    cells = run(dock, qtbot)
    review = ReviewDock(viewer)
    viewer.window.add_dock_widget(review, name="Review")
    qtbot.waitUntil(lambda: len(review.session.round.uids) == 48, timeout=20000)
    facts = review.session.deck.facts
    margins = facts.margin[review.session.round.rows]
    assert (np.diff(margins) >= 0).all()
    assert review.session.deck.kind == "cells"
    review.gallery.select([0])
    review._label_by_key(4)
    row = int(review.session.round.rows[0])
    assert cells.layer.features["correction"][row] == "Centromere"
    review.session.start(Order.SPECIMEN, Show.ALL)
    assert review.session.round.order is Order.SPECIMEN
    assert set(review.session.deck.facts.group) == {"HEp-2 field"}
    pile, at = review.session.deck.pile_of(0)
    box = cells.table.boxes[at]
    assert pile.window(at, None)[2] == pytest.approx(1.5 * max(box[2] - box[0], box[3] - box[1]))
    review.close_session()


def test_nuclei_docks_leave_hep2_models_alone(dock, viewer, qtbot, entries):
    """A new HEp-2 model turns the HEp-2 dock, and no other."""
    dock.session.use(entry=None)
    dock.session.keeper.model_wanted.emit(entries[0].folder)
    assert dock.session.method.entry is not None
    assert kind_of(viewer.layers[0]) is not CELLS
