"""The tissue dock with real widgets and a real, small model: segment, paint, review, export."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from napari.utils.notifications import notification_manager
from qtpy.QtGui import QGuiApplication

from napari_cellpath.backend.inline import InlineBackend
from napari_cellpath.bridge.conventions import complete_layer_of, facts_of
from napari_cellpath.bridge.painting import painted_layer_of
from napari_cellpath.cli import main
from napari_cellpath.core.doubt import Order, Show
from napari_cellpath.core.vocabulary import CIN_CLASSES, Blend, RegionMode, System
from napari_cellpath.models import ModelEntry, read_info
from napari_cellpath.project.painted import painted, raster_name
from napari_cellpath.samples.tissue import TissueField, tissue_field
from napari_cellpath.slides.region_store import UNSEEN, RegionStore
from napari_cellpath.widgets.review import ReviewDock
from napari_cellpath.widgets.search import Where
from napari_cellpath.widgets.tissue import TissueDock
from tests.support.models import write_tissue_model

PATIENCE = 120_000
"""ms: waits end when what they wait for is there; a busy machine makes them long."""


@pytest.fixture(scope="module")
def field() -> TissueField:
    whole = tissue_field(shape=(500, 500), n_benign=2, n_malignant=1)
    return TissueField(whole.image[110:390, 90:420], whole.labels[110:390, 90:420])


@pytest.fixture(scope="module")
def slide(field, tmp_path_factory):
    """An image file at half the model's pixel size, as a pyramid."""
    path = tmp_path_factory.mktemp("slides") / "tissue.ome.tif"
    return TissueField(field.image, field.labels, mpp=0.5).save(path, levels=2)


@pytest.fixture(scope="module")
def entries(tmp_path_factory):
    folder = write_tissue_model(tmp_path_factory.mktemp("models") / "tissue-test")
    return [ModelEntry("tissue-test", folder, read_info(folder))]


@pytest.fixture(scope="module")
def inline():
    backend = InlineBackend("cpu", "fp32")
    yield backend
    backend.close()


@pytest.fixture
def viewer(make_napari_viewer):
    return make_napari_viewer()


@pytest.fixture
def image(viewer, slide):
    return viewer.open(str(slide), plugin="napari-cellpath")[0]


# A viewer takes seconds to be made: each test goes a whole way through the dock.


@pytest.fixture
def dock(viewer, image, inline, entries, qtbot):
    dock = make_dock(viewer, inline, entries)
    qtbot.waitUntil(lambda: dock.session.source is not None, timeout=PATIENCE)
    yield dock
    dock.session.close()


def make_dock(viewer, inline, entries):
    dock = TissueDock(viewer, backend=inline, models=lambda: list(entries))
    viewer.window.add_dock_widget(dock, name="Tissue")
    return dock


def run(dock, qtbot, where=Where.IMAGE):
    """Press the button and wait until the table is filled."""
    choose(dock.where, where)
    before = dock.session.region
    dock.frame.action.primary.click()
    qtbot.waitUntil(
        lambda: (
            dock.session.region not in (None, before)
            and not dock.session.running
            and dock.session.region.store.progress.complete
            and dock.summary.reading is not None
        ),
        timeout=PATIENCE,
    )
    return dock.session.region


def choose(combo, value) -> None:
    index = combo.findData(value)
    assert index >= 0
    combo.setCurrentIndex(index)
    combo.activated.emit(index)


def last_notice() -> str:
    return notification_manager.records[-1].message


def look_at(image, row, col, height, width) -> None:
    """Have a part of the image on the canvas, in level-0 pixels: a hidden one draws nothing."""
    factor = np.asarray(image.downsample_factors[image.data_level])[:2]
    corners = np.array([[row, col], [row + height - 1, col + width - 1]])
    image.corner_pixels = np.floor(corners / factor).astype(int)


def stroke(dock, row, col, size=20):
    dock.session.painted.brush_size = size
    dock.session.painted.paint((row, col), dock.session.painted.selected_label)


def test_segment_here_and_there(dock, viewer, qtbot, image, entries):
    """The whole image, what is in view, a polygon, a rectangle; another mode; maps; sentences."""
    region = run(dock, qtbot)
    layer = region.layer
    assert viewer.layers.index(layer) == viewer.layers.index(image) + 1
    assert region.facts.shape == (140, 165)
    np.testing.assert_allclose(image.world_to_data(layer.data_to_world((0, 0))), (0.5, 0.5))
    labels = region.store.rows(0, 140)
    assert len(np.unique(labels)) > 2
    assert labels.max() < len(CIN_CLASSES)
    counts = np.bincount(labels.ravel(), minlength=5)
    np.testing.assert_array_equal(dock.summary.values("pixels"), counts)
    table = dock.frame.result.table.columns
    assert table.rowCount() == 5
    assert table.data(table.index(1, 0)) == CIN_CLASSES[1]
    text = dock.frame.result.summary.text()
    assert "assessed" in text
    assert "LSIL" in text, "the model's classes are CIN grades"
    assert entries[0].label in dock.frame.result.detail.text()
    assert facts_of(layer)["model"] == entries[0].label
    dock.session.show_map(None)
    assert "Keep probabilities" in last_notice()

    look_at(image, 40, 60, 120, 160)
    dock.probabilities.setChecked(True)
    region = run(dock, qtbot, Where.VIEW)
    assert region.box == (40, 60, 120, 160)
    dock.session.show_map(2)
    dock.session.show_map(None)
    assert any(x.name.startswith("probability of CIN1") for x in viewer.layers)
    entropy = next(x for x in viewer.layers if x.name.startswith("undecided"))
    assert viewer.layers.index(entropy) == viewer.layers.index(region.layer) + 1
    assert 0 < float(np.asarray(entropy.data).max()) <= 1
    choose(dock.frame.method.preset, RegionMode.PREVIEW)
    look_at(image, 40, 60, 120, 160)
    again = run(dock, qtbot, Where.VIEW)
    assert again.box == (40, 60, 120, 160)
    assert again.facts.layout["mode"] == RegionMode.PREVIEW
    assert region.layer not in viewer.layers, "one answer a place"
    assert not dock.blend.isEnabled()
    assert "preview" in dock.frame.result.detail.text()

    choose(dock.where, Where.DRAWN)
    dock.segment()
    assert "Draw a rectangle" in last_notice()
    viewer.add_shapes(
        [np.array([[20.0, 20.0], [20.0, 220.0], [220.0, 20.0]])], shape_type="polygon",
        scale=image.scale, units=image.units,
    )  # fmt: skip
    viewer.layers.selection.active = image
    region = run(dock, qtbot, Where.DRAWN)
    labels = region.store.rows(0, region.facts.shape[0])
    assert region.box[:2] == (20, 20)
    assert (labels[:40, :40] != UNSEEN).all()
    assert (labels[-10:, -10:] == UNSEEN).all()
    viewer.layers["Shapes"].data = []
    viewer.layers["Shapes"].add_rectangles(np.array([[40, 40], [40, 160], [140, 160], [140, 40]]))
    region = run(dock, qtbot, Where.DRAWN)
    assert not region.facts.polygon
    assert region.box[:2] == (40, 40)
    viewer.layers["Shapes"].data = []
    crossed = np.array([[40, 40], [140, 160], [40, 160], [140, 40]])
    viewer.layers["Shapes"].add_polygons(crossed)
    bow = run(dock, qtbot, Where.DRAWN)
    assert bow.facts.polygon, "corners of a box, and not a box"
    viewer.layers["Shapes"].data = []
    viewer.layers["Shapes"].add_rectangles(np.array([[40, 40], [40, 160], [140, 160], [140, 40]]))
    region.layer.visible = False
    assert run(dock, qtbot, Where.DRAWN) is region, "segmented before: it is turned to"
    assert region.layer.visible
    assert viewer.layers.index(region.layer) > viewer.layers.index(bow.layer)
    look_at(image, 5000, 5000, 100, 100)
    choose(dock.where, Where.VIEW)
    dock.segment()
    assert "in view" in last_notice()
    assert not dock.session.running


def test_a_second_region_says_what_becomes_of_the_first(dock, viewer, qtbot, field):
    """Pressed for another image, the first region's end is said, and how to go on with it."""

    class Endless:
        def __init__(self, request):
            self.request, self.cancelled = request, False
            jobs.append(self)

        def cancel(self):
            self.cancelled = True

    jobs: list[Endless] = []
    dock.session.inquiry.errands._submit = Endless
    choose(dock.where, Where.IMAGE)
    dock.segment()
    dock.segment()
    assert not notification_manager.records or "One region" not in last_notice()
    other = viewer.add_image(field.image, name="other", scale=(0.5, 0.5), units=("um", "um"))
    dock.session.choose_image(other)
    qtbot.waitUntil(lambda: not dock.session.missing(), timeout=PATIENCE)
    dock.segment()
    assert "One region is segmented at a time" in last_notice()
    assert "‘Go on’" in last_notice()
    assert [job.cancelled for job in jobs] == [True, True, False]


def test_an_image_still_being_read_is_waited_for(viewer, qtbot, inline, entries, slide):
    """Pressed too early, the button's wish is kept and told."""
    dock = make_dock(viewer, inline, entries)
    choose(dock.where, Where.IMAGE)
    viewer.open(str(slide), plugin="napari-cellpath")
    assert dock.session.source is None
    dock.segment()
    assert "as soon as it can be" in last_notice()
    qtbot.waitUntil(lambda: dock.session.region is not None, timeout=PATIENCE)
    dock.session.close()


def test_a_layer_removed_while_it_grows_does_not_come_back(dock, viewer, qtbot):
    """Its rows are kept; the same place gone on with is the same region."""
    session = dock.session
    choose(dock.where, Where.IMAGE)
    send, ends = session.inquiry.send, []

    def held_back(kind, title, request, done, some):
        """As if the last rows were still to come."""
        send(kind, title, request, lambda rows, complete: ends.append((rows, done)), some)

    session.inquiry.send = held_back
    dock.segment()
    qtbot.waitUntil(lambda: bool(ends) and session.region is not None, timeout=PATIENCE)
    layer, request = session.region.layer, session._requests[session.region.layer]
    type(session).under_way, kept = property(lambda _self: request), type(session).under_way
    try:
        viewer.layers.remove(layer)
    finally:
        type(session).under_way = kept
    ((rows, done),) = ends
    done(rows, False)
    assert "its layer was removed" in last_notice()
    assert session.region is None
    session.inquiry.send = send
    assert run(dock, qtbot).store.path == Path(request.store)


def test_a_missing_pixel_size_is_asked_for_once(viewer, qtbot, inline, entries, field):
    """Asked before anything is computed, taken, and known the next time the image is open."""
    viewer.add_image(field.image, rgb=True, name="photo")
    dock = make_dock(viewer, inline, entries)
    qtbot.waitUntil(lambda: dock.session.source is not None, timeout=PATIENCE)
    choose(dock.where, Where.IMAGE)
    dock.frame.action.primary.click()
    assert dock.session.region is None
    assert "µm / pixel" in dock.frame.action.hint.text()
    dock.frame.subject.mpp.setText("0.5")
    dock.frame.subject.mpp.setModified(True)
    dock.frame.subject.mpp.editingFinished.emit()
    assert not dock.session.missing()
    assert run(dock, qtbot).facts.image["mpp"] == 0.5
    dock.session.close()
    viewer.layers.clear()
    viewer.add_image(field.image.copy(), rgb=True, name="the same photo")
    again = make_dock(viewer, inline, entries)
    qtbot.waitUntil(
        lambda: again.session.source is not None and again.session.source.mpp == 0.5,
        timeout=PATIENCE,
    )
    assert not again.session.missing()
    again.session.close()


def test_painting(dock, viewer, qtbot, image, entries, slide, tmp_path):
    """Strokes are kept, undone, never overwritten; accepted views; what comes back."""
    region = run(dock, qtbot)
    look_at(image, 0, 0, 280, 330)
    session = dock.session
    model = region.store.rows(0, 140).copy()
    # A class that the model does not see there, so that painting it changes something.
    number = int(np.bincount(model[40:60, 50:70].ravel(), minlength=5)[1:].argmin()) + 1
    value = number + 1
    dock.frame.correct.buttons[number].click()
    layer = session.painted
    assert layer is painted_layer_of(image, viewer.layers)
    assert layer.data.shape == (280, 330)
    assert viewer.layers.selection.active is layer
    assert str(layer.mode) == "paint"
    assert dock.frame.correct.buttons[number].isChecked()
    stroke(dock, 100, 120, 40)
    project = session.keeper.project
    raster = project.state.rasters[raster_name(session.source.key)]
    count = int((layer.data == value).sum())
    assert count > 1000
    np.testing.assert_array_equal(raster.read(0, 0, 280, 330), layer.data)
    qtbot.waitUntil(
        lambda: bool(dock.summary.reading and dock.summary.reading["corrected"]["pixels"] > 100),
        timeout=PATIENCE,
    )
    assert "as you painted it" in dock.frame.result.summary.text()
    session.segment()
    qtbot.waitUntil(lambda: not session.running, timeout=PATIENCE)
    assert int((layer.data == value).sum()) == count
    np.testing.assert_array_equal(session.region.store.rows(0, 140), model)
    session.keeper.undo()
    assert not layer.data.any()
    assert "painting" in last_notice()
    session.keeper.redo()
    assert int((layer.data == value).sum()) == count

    mine = layer.data == value
    session.accept()
    assert (layer.data[mine] == value).all()
    expected = np.kron(model, np.ones((2, 2), int)) + 1
    np.testing.assert_array_equal(layer.data[~mine], expected[~mine])
    session.accept()
    assert "Nothing in view is left to accept" in last_notice()
    session.keeper.undo()
    assert (layer.data > 0).sum() == mine.sum()
    dock.rub_out.click()
    assert str(layer.mode) == "erase"
    layer.brush_size = 11
    layer.paint((100, 120), 0)
    assert int((layer.data == value).sum()) < count

    held = int(layer.selected_label)
    layer.selected_label = len(CIN_CLASSES) + 4
    assert "is no class" in last_notice()
    assert int(layer.selected_label) == held

    bound = {str(key) for key in layer.keymap}
    assert {"Alt+2", "Ctrl+Z", "Shift+S", "Shift+C"} <= bound
    layer.keymap[next(k for k in layer.keymap if str(k) == "Alt+5")](layer)
    assert session.brush == "CIN3"
    dock.show_keys()
    dock.project.complete_wanted.emit()
    complete = complete_layer_of(image, viewer.layers, System.HSPNET)
    assert "painted" in last_notice()
    complete.add_rectangles(np.array([[10, 10], [10, 90], [60, 90], [60, 10]]))
    (facts,) = project.state.objects.values()
    assert facts["complete"]
    assert facts["system"] == System.HSPNET
    assert complete_layer_of(image, viewer.layers) is None

    other = entries[0].info.model_copy(
        update={"classes": tuple(reversed(entries[0].info.classes)), "name": "other"}
    )
    session.use(entry=ModelEntry("other", entries[0].folder, other))
    session.set_painting(True)
    assert "choose a model of the same classes" in last_notice()

    shown = layer.data.copy()
    assert session.keeper.save_as(tmp_path / "painted")
    data = painted(tmp_path / "painted.cellpath")
    assert data.classes == CIN_CLASSES
    np.testing.assert_array_equal(data.images[0].raster.read(0, 0, 280, 330), shown)
    viewer.layers.clear()
    viewer.open(str(slide), plugin="napari-cellpath")
    qtbot.waitUntil(lambda: session.painted is not None, timeout=PATIENCE)
    back = session.painted
    top, left, height, width = facts_of(back)["window"]
    np.testing.assert_array_equal(back.data, shown[top : top + height, left : left + width])
    assert back.data.any()


def test_export_and_command_agree(dock, qtbot, tmp_path, entries, monkeypatch):
    """The copied command writes the very pixels and areas that the window shows."""
    monkeypatch.setenv("CELLPATH_MODELS", str(entries[0].folder.parent))
    choose(dock.blend, Blend.COS)
    dock.stride.setValue(24)
    region = run(dock, qtbot)
    zarr = tmp_path / "window.ome.zarr"
    dock.export_to(str(zarr))
    qtbot.waitUntil((tmp_path / "window.summary.json").is_file, timeout=PATIENCE)
    dock.copy_command()
    words = shlex.split(QGuiApplication.clipboard().text())
    assert words[:3] == ["cellpath", "predict", "hspnet"]
    out = Path(words[words.index("--out") + 1])
    assert out == tmp_path / "window-command.ome.zarr"
    assert main([*words[1:], "--precision", "fp32"]) == 0  # the test's window computes in it
    shown = region.store.rows(0, 140)
    np.testing.assert_array_equal(RegionStore.open(out).rows(0, 140), shown)
    np.testing.assert_array_equal(RegionStore.open(zarr).rows(0, 140), shown)
    by_window = json.loads((tmp_path / "window.summary.json").read_text())
    by_command = json.loads((tmp_path / "window-command.summary.json").read_text())
    for key in ("classes", "worst_grade", "merged", "classified", "stride", "blend"):
        assert by_window[key] == by_command[key]


def test_review_by_tile_and_layers_that_go(dock, viewer, qtbot, inline, entries):
    """Undecided tiles first; agreeing paints; a second dock; nothing is left of what is gone."""
    dock.probabilities.setChecked(True)
    region = run(dock, qtbot)
    review = ReviewDock(viewer)
    qtbot.addWidget(review)
    session = review.session
    qtbot.waitUntil(lambda: region.tiles is not None and len(session.deck) > 0, timeout=PATIENCE)
    assert session.deck.kind == "tiles"
    session.start(Order.DOUBT, Show.ALL)
    margins = session.deck.facts.margin[session.round.rows]
    assert (np.diff(margins) >= 0).all()
    row = session.round.rows[0]
    call = session.deck.facts.call[row]
    assert session.deck.agree(session.deck.uids(session.round.rows[:1])) == 1
    qtbot.waitUntil(lambda: session.deck.facts.label[row] == call, timeout=PATIENCE)
    assert dock.session.painted.data.any()
    dock.session.keeper.undo()
    qtbot.waitUntil(lambda: session.deck.facts.label[row] == "", timeout=PATIENCE)
    review.close_session()

    second = make_dock(viewer, inline, entries)
    qtbot.waitUntil(lambda: second.summary.reading is not None, timeout=PATIENCE)
    assert second.session.region is region
    second.session.close()
    assert dock.session.region is region
    assert region.raster() is None, "nothing is painted, and the first dock knows"
    viewer.layers.remove(dock.session.painted)
    assert dock.session.painted is None
    viewer.layers.remove(region.layer)
    assert dock.session.region is None
    viewer.layers.clear()
    assert dock.session.image is None
    dock.segment()
    assert "Open an image" in last_notice()
    assert not dock.frame.action.primary.isEnabled()
