"""The dock without a mouse: models, settings, labels, export, errors, layers that come and go."""

import csv
import shlex

import numpy as np
import pytest
from napari.layers._source import Source
from napari.settings import get_settings
from napari.utils.notifications import notification_manager
from qtpy.QtCore import Qt
from qtpy.QtGui import QGuiApplication
from qtpy.QtTest import QTest

from napari_cellpath.core.requests import FileImage
from napari_cellpath.core.tables import read_points
from napari_cellpath.core.vocabulary import Preset
from napari_cellpath.widgets import keys
from napari_cellpath.widgets.nuclei import NucleiDock


@pytest.fixture
def viewer(make_napari_viewer):
    return make_napari_viewer()


@pytest.fixture
def dock(viewer, qtbot, backend, models, field):
    viewer.add_image(field, name="field")
    dock = NucleiDock(viewer, backend=backend, models=models)
    viewer.window.add_dock_widget(dock, name="Nuclei")
    yield dock
    backend.hold.set()
    dock.session.close()


def score(dock, qtbot, *positions):
    session = dock.session
    session.set_clicking(True)
    uids = session.nuclei.add(np.array(positions, dtype=float))
    qtbot.waitUntil(lambda: bool(session.nuclei.table.final.all()), timeout=10000)
    return uids


def choose(combo, value) -> None:
    index = combo.findData(value)
    assert index >= 0
    combo.setCurrentIndex(index)
    combo.activated.emit(index)


def last_notice() -> str:
    return notification_manager.records[-1].message


def test_model_is_warmed_up_when_the_dock_opens(dock, backend):
    """Opening the dock starts the process and loads the model, so that the first click is quick."""
    assert backend.warmed == ["/models/deeppap-herlev"]


def test_without_an_image_the_dock_says_what_to_do(viewer, qtbot, backend, models):
    """Without an image nothing can be pressed wrongly and a sentence tells the next step."""
    dock = NucleiDock(viewer, backend=backend, models=models)
    qtbot.addWidget(dock)
    assert not dock.frame.action.primary.isEnabled()
    assert "Open an image" in dock.frame.action.hint.text()
    assert not dock.frame.out.export.isEnabled()
    dock.session.close()


def test_image_picker_follows_layers(dock, viewer, field):
    """The picker shows images as they come, are renamed and go; renaming keeps the nuclei."""
    dock.session.set_clicking(True)
    picker = dock.frame.subject.image
    first = viewer.layers["field"]
    nuclei = dock.session.nuclei
    second = viewer.add_image(field, name="second")
    assert [picker.itemText(i) for i in range(picker.count())] == ["second", "field"]
    assert dock.session.image is second
    assert dock.session.nuclei is None
    first.name = "renamed"
    assert picker.findText("renamed") >= 0
    choose(picker, first)
    assert dock.session.nuclei is nuclei
    viewer.layers.remove(first)
    assert dock.session.image is second
    assert picker.count() == 1


def test_sentence_on_one_nucleus_names_model_and_accuracy(dock, qtbot):
    """Selecting a nucleus tells score, spread, inputs, model and its measured accuracy."""
    uids = score(dock, qtbot, (75, 225))
    dock.session.select(uids)
    text = dock.frame.result.detail.text()
    for part in ("abnormal", "0.750", "± 0.080", "100 inputs", "@00000000"):
        assert part in text
    assert "0.91" in dock.frame.subject.accuracy.text()
    assert "0.91 (0.85 to 0.96)" in dock.frame.subject.model.toolTip()


def test_another_model_makes_calls_stale_and_offers_to_rescore(dock, qtbot, backend):
    """Changing the model mixes nothing: old calls are marked, and one button scores them again."""
    score(dock, qtbot, (75, 60), (75, 110), (75, 225))
    frame = dock.session.nuclei.layer.features
    asked = len(backend.requests)
    choose(dock.frame.subject.model, "other")
    assert frame["stale"].all()
    assert set(frame["model"]) == {"deeppap-herlev@00000000"}
    assert len(backend.requests) == asked
    assert dock.score_all.text() == "Re-score (3)"
    assert dock.frame.method.threshold.value() == pytest.approx(0.3)
    dock.score_all.click()
    qtbot.waitUntil(lambda: not dock.session.nuclei.layer.features["stale"].any())
    assert set(dock.session.nuclei.layer.features["model"]) == {"other@00000000"}
    assert list(dock.session.nuclei.layer.features["call"]) == ["normal", "abnormal", "abnormal"]


@pytest.mark.parametrize(
    "change", [{"preset": "paper"}, {"border": "reflect"}, {"seed": 7}], ids=lambda c: next(iter(c))
)
def test_settings_that_change_scores_make_them_stale(dock, qtbot, change):
    """Preset, border and seed are part of a score: calls made otherwise are stale until back."""
    score(dock, qtbot, (75, 225))
    before = {name: getattr(dock.session.method, name) for name in change}
    dock.session.use(**change)
    assert dock.session.nuclei.stale()
    dock.session.use(**before)
    assert not dock.session.nuclei.stale()


@pytest.mark.parametrize("typed", ["-1", "0", "1000", "abc"])
def test_an_absurd_pixel_size_is_refused_aloud(dock, qtbot, typed):
    """It is not made into another one: the field shows what is in effect again."""
    field = dock.frame.subject.mpp
    before = field.text(), dock.frame.subject.mpp_origin.text()
    field.setFocus()
    field.clear()
    QTest.keyClicks(field, typed)
    assert field.text() == typed, "no key is swallowed"
    field.editingFinished.emit()
    assert (field.text(), dock.frame.subject.mpp_origin.text()) == before
    assert f"‘{typed}’ is no pixel size" in last_notice()
    assert dock.frame.job.message.text() == last_notice()
    field.clear()
    QTest.keyClicks(field, "0.2")
    field.editingFinished.emit()
    assert not dock.frame.job.message.text(), "it is no longer so"


def test_pixel_size_typed_by_the_user_is_sent(dock, qtbot, backend):
    """A pixel size typed in reaches the request and makes earlier calls stale."""
    score(dock, qtbot, (75, 225))
    assert dock.frame.subject.mpp_origin.text() == "unknown"
    field = dock.frame.subject.mpp
    field.clear()
    QTest.keyClicks(field, "0.25")
    field.editingFinished.emit()
    assert dock.frame.subject.mpp_origin.text() == "from you"
    assert dock.session.nuclei.stale()
    dock.score_all.click()
    qtbot.waitUntil(lambda: not dock.session.nuclei.stale())
    assert backend.requests[-1].image.mpp == 0.25


def test_rescaled_layer_is_looked_at_again(dock, viewer, qtbot):
    """Giving the layer a scale in micrometres shows at once and makes earlier calls stale."""
    score(dock, qtbot, (75, 225))
    layer = viewer.layers["field"]
    layer.units = ("um", "um")
    layer.scale = (0.5, 0.5)
    qtbot.waitUntil(lambda: dock.frame.subject.mpp_origin.text() == "from the layer's scale")
    assert dock.frame.subject.mpp.text() == "0.5"
    assert dock.session.nuclei.stale()


def test_sliders_read_scores_anew_without_scoring(dock, qtbot, backend):
    """Threshold and review band recolour and recount at once and ask the backend nothing."""
    score(dock, qtbot, (75, 60), (75, 140), (75, 225))
    asked = len(backend.requests)
    layer = dock.session.nuclei.layer
    assert list(layer.features["call"]) == ["normal", "normal", "abnormal"]
    faces = layer.face_color.copy()
    dock.frame.method.threshold.setValue(0.4)
    assert list(layer.features["call"]) == ["normal", "abnormal", "abnormal"]
    assert not np.array_equal(faces, layer.face_color)
    dock.frame.method.band.setValue(0.0)
    assert len(dock.session.nuclei.doubtful()) == 0
    assert len(backend.requests) == asked


def test_seven_classes(dock, qtbot):
    """A seven-class model calls by class name and has a button and a key for each class."""
    choose(dock.frame.subject.model, "seven")
    uids = score(dock, qtbot, (75, 5), (75, 290))
    assert list(dock.session.nuclei.layer.features["call"]) == ["superficial", "carcinoma in situ"]
    assert len(dock.frame.correct.buttons) == 7
    dock.session.select(uids[:1])
    dock.session._actions["class_7"]()
    assert dock.session.nuclei.layer.features["correction"][0] == "carcinoma in situ"


def test_nuclei_from_labels(dock, viewer, qtbot, backend):
    """Centroids of a labels layer become nuclei with the labels' numbers, scored as one job."""
    labels = np.zeros((200, 300), dtype=int)
    for n in range(12):
        labels[20:25, 20 * n + 20 : 20 * n + 25] = 100 + n
    viewer.add_labels(labels, name="masks")
    dock.from_labels.click()
    qtbot.waitUntil(
        lambda: (
            dock.session.nuclei is not None
            and len(dock.session.nuclei) == 12
            and bool(dock.session.nuclei.table.final.all())
        ),
        timeout=10000,
    )
    frame = dock.session.nuclei.layer.features
    assert list(frame["id"][:2]) == ["100", "101"]
    np.testing.assert_allclose(dock.session.nuclei.layer.data[0], (22, 22))
    assert [len(r.nuclei) for r in backend.requests] == [12]


def test_second_field_waits_for_the_first(dock, qtbot, backend):
    """Nuclei added in bulk while a field is scored are scored after it, not instead of it."""
    session = dock.session
    session.set_clicking(True)
    backend.hold.clear()
    session.nuclei.add(np.column_stack([np.full(20, 30.0), np.linspace(10, 280, 20)]))
    session.nuclei.add(np.column_stack([np.full(15, 60.0), np.linspace(10, 280, 15)]))
    qtbot.waitUntil(lambda: len(backend.requests) == 1)
    backend.hold.set()
    qtbot.waitUntil(lambda: bool(session.nuclei.table.final.all()), timeout=10000)
    assert [len(r.nuclei) for r in backend.requests] == [20, 15]


def test_failed_job_is_told_without_traceback(dock, qtbot, backend):
    """A failed job gives a notification and a line in the dock; the nucleus stays unscored."""
    backend.fail_with = "The model folder /models/x is damaged; copy it again."
    session = dock.session
    session.set_clicking(True)
    session.nuclei.add(np.array([[30.0, 30.0]]))
    qtbot.waitUntil(lambda: "damaged" in dock.frame.job.message.text())
    assert last_notice() == backend.fail_with
    assert session.nuclei.unscored()


def test_backend_notice_is_shown(dock, qtbot, backend):
    """What the backend has to say, e.g. that the worker was restarted, reaches the user."""
    backend.notices[0]("The inference process was restarted.")
    qtbot.waitUntil(lambda: "restarted" in dock.frame.job.message.text())


def test_stack_is_refused_in_words(viewer, qtbot, backend, models):
    """A stack gives one sentence on what to select instead, and no layer."""
    viewer.add_image(np.zeros((4, 30, 30)), name="stack")
    dock = NucleiDock(viewer, backend=backend, models=models)
    qtbot.addWidget(dock)
    dock.session.set_clicking(True)
    assert "select a 2-D plane" in last_notice()
    assert len(viewer.layers) == 1
    dock.session.close()


def test_export_and_command_give_the_same_question(dock, viewer, qtbot, tmp_path, field):
    """The CSV reads back as points, and the copied command names file, model and settings."""
    from PIL import Image as Pillow

    path = tmp_path / "a field.png"
    Pillow.fromarray(field).save(path)
    viewer.layers.clear()
    viewer.add_image(field, name="from disk", metadata={"napari-cellpath": {"path": str(path)}})
    uids = score(dock, qtbot, (75, 60), (75, 225))
    dock.session.select(uids[:1])
    dock.session.correct("abnormal")
    assert isinstance(dock.session.source.image, FileImage)
    out = tmp_path / "calls.csv"
    dock.export_to(str(out))
    rows = list(csv.DictReader(out.open()))
    assert [r["correction"] for r in rows] == ["abnormal", ""]
    assert [r["label"] for r in rows] == ["normal", "abnormal"]
    assert float(rows[1]["score"]) == pytest.approx(0.75)
    assert rows[0]["image"] == "a field.png"
    assert [(p.row, p.col) for p in read_points(out)] == [(75, 60), (75, 225)]
    dock.frame.out.copy.click()
    words = shlex.split(QGuiApplication.clipboard().text())
    assert words[:4] == ["cellpath", "predict", "deeppap", str(path)]
    assert words[words.index("--points") + 1] == str(out)
    assert words[words.index("--model") + 1] == "deeppap-herlev@00000000"
    assert words[words.index("--views") + 1] == "balanced"
    assert words[words.index("--seed") + 1] == "0"


def test_a_nucleus_dragged_off_the_image_stops_nothing(dock, viewer, qtbot, tmp_path, field):
    """Export and the command still work; the row says outside; dragged back it is scored."""
    from PIL import Image as Pillow

    path = tmp_path / "field.png"
    Pillow.fromarray(field).save(path)
    viewer.layers.clear()
    viewer.add_image(field, name="field", metadata={"napari-cellpath": {"path": str(path)}})
    score(dock, qtbot, (75, 60), (75, 225))
    layer = dock.session.nuclei.layer
    layer.data = np.array([[75.0, 60.0], [75.0, 4000.0]])
    out = tmp_path / "calls.csv"
    dock.export_to(str(out))
    rows = list(csv.DictReader(out.open()))
    assert [r["flags"] for r in rows] == ["", "outside"]
    assert rows[1]["score"] == rows[1]["label"] == "", "that was of another place"
    qtbot.waitUntil(lambda: dock.session.inquiry.source(dock.session.image) is not None)
    dock.frame.out.copy.click()
    assert shlex.split(QGuiApplication.clipboard().text())[3] == str(path)
    layer.data = np.array([[75.0, 60.0], [75.0, 200.0]])
    qtbot.waitUntil(lambda: layer.features["score"][1] == pytest.approx(200 / 300))
    qtbot.waitUntil(lambda: bool(dock.session.nuclei.table.final.all()))


def test_cancelled_rescoring_gives_the_scores_back(dock, qtbot, backend):
    """Another preset, cancelled after its first estimates: what was finished stands again."""
    score(dock, qtbot, (75, 60), (75, 225))
    backend.pause = 5.0
    choose(dock.frame.method.preset, Preset.PAPER)
    assert dock.session.score_all() == 2
    table = dock.session.nuclei.table
    qtbot.waitUntil(lambda: list(table.features["n_views"]) == [10, 10])
    dock.frame.job.cancel.click()
    qtbot.waitUntil(lambda: list(table.features["n_views"]) == [100, 100])
    assert list(table.features["stale"]) == [True, True], "made with the other preset"
    assert dock.score_all.text() == "Re-score (2)"
    choose(dock.frame.method.preset, Preset.BALANCED)
    assert not table.features["stale"].any()


def test_the_threshold_decides_where_adaptive_stops(dock, qtbot):
    """Moving it makes adaptive calls stale, and no others."""
    choose(dock.frame.method.preset, Preset.ADAPTIVE)
    score(dock, qtbot, (75, 60))
    dock.frame.method.threshold.setValue(0.4)
    assert dock.session.nuclei.stale()


def test_command_for_memory_says_to_save_first(dock, qtbot):
    """No command can name an image that is only in memory; the sentence says so."""
    score(dock, qtbot, (75, 60))
    dock.frame.out.copy.click()
    assert "save it" in last_notice()


def test_export_that_fails_is_told(dock, qtbot, tmp_path):
    """A folder that is not there gives a sentence, not a traceback."""
    score(dock, qtbot, (75, 60))
    dock.export_to(str(tmp_path / "nowhere" / "x.csv"))
    assert "could not be written" in last_notice()


def test_an_open_image_is_not_written_over(dock, viewer, qtbot, tmp_path):
    """Not by its name, nor under another ending than the table's."""
    score(dock, qtbot, (75, 60))
    path = tmp_path / "slide.csv"
    path.write_bytes(b"pixels")
    viewer.layers[0]._source = Source(path=str(path))
    dock.export_to(str(path))
    assert "is open as" in last_notice()
    dock.export_to(str(tmp_path / "slide.jpg"))
    assert "give it that ending" in last_notice()
    assert path.read_bytes() == b"pixels"
    assert not (tmp_path / "slide.jpg").exists()


def test_duplicated_layer_answers_do_not_cross(dock, viewer, qtbot):
    """A duplicate of the nuclei layer has its own uids and its own answers."""
    score(dock, qtbot, (75, 60))
    first = dock.session.nuclei
    data, state, _ = first.layer.as_layer_data_tuple()
    state["name"] = "copy"
    copy = viewer.add_points(data, **state)
    second = dock.session._held[copy]
    assert set(second.table.uids).isdisjoint(first.table.uids)
    viewer.layers.selection.active = copy
    copy.add([75, 225])
    qtbot.waitUntil(lambda: bool(second.table.final.all()))
    assert len(first) == 1
    assert copy.features["call"][1] == "abnormal"


def test_reopened_image_gets_its_nuclei_back(dock, viewer, qtbot, tmp_path, field):
    """An image closed and opened again from its file is the image of its nuclei again."""
    from PIL import Image as Pillow

    path = str(tmp_path / "a.png")
    Pillow.fromarray(field).save(path)
    viewer.layers.clear()
    viewer.open(path, plugin="napari")
    (uid,) = score(dock, qtbot, (75, 225))
    layer = dock.session.nuclei.layer
    viewer.layers.remove(viewer.layers[0])
    assert dock.session.nuclei is None
    assert not layer.visible, "it would lie over the next image"
    assert "1 layer is hidden with it" in last_notice()
    viewer.add_image(field, rgb=True, name="another")
    assert not layer.visible
    viewer.layers.remove("another")
    viewer.open(path, plugin="napari")
    assert layer.visible
    qtbot.waitUntil(lambda: viewer.layers.index(layer) == 1)  # the image came on top of it
    assert list(dock.session.nuclei.table.uids) == [uid]
    assert dock.session.nuclei.layer.features["score"][0] == pytest.approx(0.75)
    score(dock, qtbot, (75, 60))
    assert len(viewer.layers) == 2, "no second nuclei layer"


def test_a_layer_its_user_hid_stays_hidden(dock, viewer, qtbot):
    """Closing an image and opening it again shows only what closing hid."""
    score(dock, qtbot, (75, 225))
    layer, image = dock.session.nuclei.layer, dock.session.image
    layer.visible = False
    viewer.layers.remove(image)
    viewer.add_layer(image)
    assert dock.session.nuclei.layer is layer
    assert not layer.visible


def test_an_old_trouble_is_not_told_for_ever(dock, qtbot, backend):
    """What failed stays to be read until something is asked again."""
    backend.fail_with = "The network is ill."
    dock.session.set_clicking(True)
    dock.session.nuclei.add(np.array([[75.0, 60.0]]))
    qtbot.waitUntil(lambda: dock.frame.job.message.text() == "The network is ill.")
    backend.fail_with = None
    dock.score_all.click()
    qtbot.waitUntil(lambda: bool(dock.session.nuclei.table.final.all()))
    assert dock.frame.job.message.text() == ""


def test_an_image_that_cannot_be_read_is_not_offered(dock, viewer, qtbot):
    """Values that are not finite: the reason stays to be had, and nothing waits for ever."""
    values = np.full((60, 60, 3), np.nan, dtype=np.float32)
    viewer.add_image(values, rgb=True, name="bad")
    dock.session.choose_image(viewer.layers["bad"])
    origin = dock.frame.subject.mpp_origin
    qtbot.waitUntil(lambda: origin.text() == "cannot be read")
    assert not dock.frame.action.primary.isEnabled()
    dock.frame.out.copy.click()
    assert "not finite" in last_notice()
    dock.session.choose_image(viewer.layers["field"])
    qtbot.waitUntil(dock.frame.action.primary.isEnabled)


def test_closing_the_dock_lets_go(dock, viewer, qtbot, backend):
    """Closing the dock cancels its jobs; the layer stays and is a plain points layer again."""
    backend.hold.clear()
    dock.session.set_clicking(True)
    layer = dock.session.nuclei.layer
    layer.add([30, 30])
    qtbot.waitUntil(lambda: bool(backend.jobs))
    viewer.window.remove_dock_widget(dock)
    assert backend.jobs[0].state == "cancelled"
    layer.add([40, 40])
    assert len(backend.jobs) == 1
    assert not [k for k in layer.keymap if "Alt" in str(k)]


def test_keys_take_nothing_of_napari(dock, viewer):
    """None of our keys is one that napari's points layers, its viewer or its settings use."""
    from napari.layers import Points
    from napari.utils.key_bindings import coerce_keybinding

    ours = {str(coerce_keybinding(s.key)) for s in keys.SHORTCUTS}
    assert len(ours) == len(keys.SHORTCUTS)
    theirs = {str(k) for p in (Points, type(viewer)) for k in p.class_keymap}
    theirs |= {str(k) for k in viewer.keymap}
    for name, bindings in get_settings().shortcuts.shortcuts.items():
        if not any(kind in name for kind in ("labels", "shapes", "image", "vectors")):
            theirs |= {str(b) for b in bindings}
    assert ours.isdisjoint(theirs)


def test_key_sheet_names_the_classes(dock):
    """The sheet lists every key with the current classes by name."""
    lines = dict(keys.KeySheet.lines(("normal", "abnormal")))
    assert lines["Alt+2"] == "The selected are “abnormal”"
    assert "Alt+3" not in lines
    assert "Shift+S" in lines


def test_unknown_default_model_is_not_replaced(viewer, qtbot, backend, models, field, monkeypatch):
    """A default model that is not there leaves none chosen, and says so."""
    from napari_cellpath.widgets import nuclei as module
    from napari_cellpath.widgets.settings import NucleiDefaults

    monkeypatch.setattr(module, "nuclei_defaults", lambda: NucleiDefaults(model="gone"))
    viewer.add_image(field)
    dock = NucleiDock(viewer, backend=backend, models=models)
    qtbot.addWidget(dock)
    assert dock.session.method.entry is None
    assert "'gone'" in last_notice()
    assert not dock.frame.action.primary.isEnabled()
    dock.session.close()


def test_sorting_keeps_selection_and_puts_blanks_last(dock, qtbot):
    """Sorting the table by score moves rows, not the selection, and unscored ones come last."""
    uids = score(dock, qtbot, (75, 225), (75, 60), (75, 140))
    dock.session.select(uids[1:2])
    table = dock.frame.result.table
    table.sortByColumn(1, Qt.SortOrder.DescendingOrder)
    assert [table.columns.row_at(p) for p in range(3)] == [0, 2, 1]
    assert [i.row() for i in table.selectionModel().selectedRows()] == [2]
