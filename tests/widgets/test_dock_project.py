"""The dock and its project: every gesture is kept, undone, recovered, and comes back."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from napari.utils.notifications import notification_manager
from PIL import Image

from napari_cellpath.project import Kind, Project, unsaved
from napari_cellpath.widgets.nuclei import NucleiDock


@pytest.fixture
def file(tmp_path, field) -> Path:
    path = tmp_path / "slide.png"
    Image.fromarray(field).save(path)
    return path


@pytest.fixture
def make_dock(make_napari_viewer, backend, models, qtbot):
    docks = []

    def make(path: Path | None = None) -> NucleiDock:
        viewer = make_napari_viewer()
        dock = NucleiDock(viewer, backend=backend, models=models)
        viewer.window.add_dock_widget(dock, name="Nuclei")
        if path is not None:
            viewer.open(str(path))
            session = dock.session
            qtbot.waitUntil(lambda: session.inquiry.latest_source(session.image) is not None)
        docks.append(dock)
        return dock

    yield make
    backend.hold.set()
    for dock in docks:
        dock.session.close()


def click(dock, qtbot, *positions) -> list[str]:
    dock.session.set_clicking(True)
    uids = dock.session.nuclei.add(np.array(positions, dtype=float))
    qtbot.waitUntil(lambda: bool(dock.session.nuclei.table.final.all()), timeout=10000)
    return uids


def project_of(dock) -> Project:
    project = dock.session.keeper.project
    assert project is not None
    return project


def press(dock, action: str) -> None:
    dock.session._actions[action]()


def test_first_click_begins_a_session_that_holds_everything(make_dock, file, qtbot):
    """Click, call, correction and look are in the journal, with author, time and model."""
    dock = make_dock(file)
    assert dock.session.keeper.project is None
    assert list(unsaved.sessions_folder().glob("*")) == []
    (uid, other) = click(dock, qtbot, (40, 270), (80, 20))
    dock.session.select([uid])
    dock.session.correct("normal")
    project = project_of(dock)
    project.flush()
    qtbot.waitUntil(lambda: "kept" in dock.project.state.text())
    with Project.open(project.folder, read_only=True) as kept:
        first, second = kept.annotations()
    assert (first.uid, second.uid) == (uid, other)
    assert first.labels == ("normal",)
    assert first.author == project.author
    assert first.at.endswith("Z")
    assert first.seen
    assert first.prediction.label == "abnormal"
    assert first.prediction.model == "deeppap-herlev@00000000"
    assert first.prediction.n_views == 100
    assert first.prediction.at == (40.0, 270.0)
    assert second.labels == ()


def test_undo_and_redo_by_key_follow_the_layer(make_dock, file, qtbot):
    """Label, move, delete and add go back one by one and come again; nothing is scored for it."""
    dock = make_dock(file)
    uid, other = click(dock, qtbot, (40, 270), (80, 20))
    session, nuclei = dock.session, dock.session.nuclei
    session.select([uid])
    session.correct("normal")
    data = np.array(nuclei.layer.data)
    data[1] = (90, 30)
    nuclei.layer.data = data
    qtbot.waitUntil(lambda: bool(nuclei.table.final.all() and not nuclei.table.pending.any()))
    nuclei.layer.selected_data = {0}
    nuclei.layer.remove_selected()
    assert [str(u) for u in nuclei.table.uids] == [other]
    asked = len(dock.session.inquiry.backend.requests)

    press(dock, "undo")  # the deletion
    assert set(nuclei.table.uids) == {uid, other}
    row = nuclei.table.rows([uid])[0]
    assert nuclei.table.features["correction"][row] == "normal"
    assert nuclei.table.features["score"][row] == pytest.approx(0.9)
    assert not nuclei.table.features["stale"][row]
    press(dock, "undo")  # the move
    row = nuclei.table.rows([other])[0]
    assert tuple(nuclei.layer.data[row]) == (80, 20)
    press(dock, "undo")  # the label
    assert nuclei.table.features["correction"][nuclei.table.rows([uid])[0]] == ""
    press(dock, "undo")  # both clicks were one gesture
    assert len(nuclei) == 0
    assert len(nuclei.layer.data) == 0
    press(dock, "undo")
    assert notification_manager.records[-1].message == "Nothing to undo."
    for _ in range(4):
        press(dock, "redo")
    assert [str(u) for u in nuclei.table.uids] == [other]
    assert tuple(nuclei.layer.data[0]) == (90, 30)
    assert len(dock.session.inquiry.backend.requests) == asked
    project = project_of(dock)
    project.flush()
    with Project.open(project.folder, read_only=True) as kept:
        assert kept.state == project.state


def test_a_session_is_recovered_after_a_crash(make_dock, file, qtbot, monkeypatch):
    """What a killed napari had is offered, opens its image, and comes back whole."""
    dock = make_dock(file)
    uid, _ = click(dock, qtbot, (40, 270), (80, 20))
    dock.session.select([uid])
    dock.session.correct("normal")
    folder = project_of(dock).folder
    dock.session.close()
    monkeypatch.setattr(unsaved, "_is_open", lambda _folder: False)  # as if this process had died
    again = make_dock()
    assert "can be recovered" in again.project.state.text()
    again.project._fill_menu()
    (session,) = again.project._lost()
    assert (session.folder, session.objects, session.images) == (folder, 2, ("slide.png",))
    assert again.session.keeper.recover(session)
    qtbot.waitUntil(lambda: again.session.nuclei is not None, timeout=10000)
    table = again.session.nuclei.table
    assert len(table) == 2
    assert table.features["correction"][table.rows([uid])[0]] == "normal"
    assert np.allclose(np.sort(table.features["score"]), [20 / 300, 270 / 300])
    assert again.session.keeper.project.undo_kind is Kind.LABEL
    assert not again.session.nuclei.unscored()


def test_save_as_moves_the_session_and_goes_on_there(make_dock, file, qtbot, tmp_path):
    """Save as gives a project beside the image; further edits go there; the session is gone."""
    dock = make_dock(file)
    (uid,) = click(dock, qtbot, (40, 270))
    session = project_of(dock).folder
    assert dock.session.keeper.save_as(tmp_path / "cells")
    project = project_of(dock)
    assert project.folder == tmp_path / "cells.cellpath"
    assert not session.exists()
    dock.session.select([uid])
    dock.session.correct("normal")
    project.flush()
    qtbot.waitUntil(lambda: dock.project.state.text() == "cells.cellpath · saved")
    (image,) = project.state.images.values()
    assert image["path"] == "../slide.png"
    assert not dock.session.keeper.save_as(tmp_path / "cells")
    assert "exists already" in notification_manager.records[-1].message
    dock.session.close()
    # Opening the image alone does not bring nuclei of a project that is not open.
    again = make_dock(file)
    assert again.session.nuclei is None
    assert again.session.keeper.open(tmp_path / "cells.cellpath")
    again.session._on_source_known(again.session.image)
    table = again.session.nuclei.table
    assert list(table.features["correction"]) == ["normal"]


def test_two_windows_show_each_others_edits(make_dock, file, qtbot, tmp_path):
    """A project open twice: a click here appears there."""
    one, two = make_dock(file), make_dock(file)
    click(one, qtbot, (40, 270))
    assert one.session.keeper.save_as(tmp_path / "cells")
    assert two.session.keeper.open(tmp_path / "cells.cellpath")
    two.session._on_source_known(two.session.image)
    assert len(two.session.nuclei) == 1
    (uid,) = click(two, qtbot, (80, 20))[:1]
    qtbot.waitUntil(lambda: uid in one.session.nuclei.table, timeout=10000)
    qtbot.waitUntil(lambda: one.session.keeper.project.state == project_of(two).state, timeout=9000)


def test_a_second_layer_of_an_image_is_not_kept_and_says_so(make_dock, file, qtbot):
    """One image has one set of nuclei in a project."""
    dock = make_dock(file)
    click(dock, qtbot, (40, 270))
    viewer, layer = dock.session.viewer, dock.session.nuclei.layer
    data, state, _kind = layer.as_layer_data_tuple()
    state["name"] = "copy"
    viewer.add_layer(type(layer)(data, **state))
    assert "'copy' is a second nuclei layer" in notification_manager.records[-1].message
    assert len(project_of(dock).state.objects) == 1


def test_complete_rectangles_are_kept_and_undone(make_dock, file, qtbot):
    """Complete here: rectangles drawn on a layer of their own stand in the project."""
    dock = make_dock(file)
    dock.project.complete_wanted.emit()
    layer = dock.session.viewer.layers.selection.active
    assert str(layer.mode) == "add_rectangle"
    layer.add_rectangles(np.array([[9.5, 9.5], [9.5, 49.5], [59.5, 49.5], [59.5, 9.5]]))
    (area,) = project_of(dock).annotations()
    assert area.complete
    assert area.bounds == (10, 10, 60, 50)
    dock.session.keeper.undo()
    assert len(layer.data) == 0
    dock.session.keeper.redo()
    assert len(layer.data) == 1
    click(dock, qtbot, (40, 270))
    assert len(dock.session.nuclei) == 1


def test_annotations_come_in_and_go_out(make_dock, file, qtbot, tmp_path):
    """Import joins the layer in one undoable gesture; export and import again changes nothing."""
    dock = make_dock(file)
    keeper = dock.session.keeper
    table = tmp_path / "cells.csv"
    table.write_text("row,col,label\n40,270,normal\n80,20,abnormal\n")
    dock.project.import_wanted.emit(table)
    nuclei = dock.session.nuclei
    assert list(nuclei.table.features["correction"]) == ["normal", "abnormal"]
    assert "2 added" in notification_manager.records[-1].message
    for name in ("a.geojson", "a.json", "a.csv", "a.tif"):
        dock.project.export_wanted.emit(tmp_path / name)
        assert "2 objects written" in notification_manager.records[-1].message
    dock.project.import_wanted.emit(tmp_path / "a.geojson")
    assert "2 as they were" in notification_manager.records[-1].message
    assert len(nuclei) == 2
    keeper.undo()
    assert len(nuclei) == 0
    keeper.redo()
    assert len(nuclei) == 2
    dock.project.export_wanted.emit(tmp_path / "a.docx")
    assert "the ending decides the format" in notification_manager.records[-1].message


def test_without_a_place_to_write_the_dock_works_and_says_so(make_dock, file, qtbot, monkeypatch):
    """An unwritable state folder costs the journal, not the work."""
    blocked = file.parent / "blocked"
    blocked.write_text("")
    monkeypatch.setenv("CELLPATH_STATE", str(blocked))
    dock = make_dock(file)
    click(dock, qtbot, (40, 270))
    assert dock.session.keeper.project is None
    assert any("Edits are not kept" in record.message for record in notification_manager.records)


def test_another_project_takes_nothing_of_the_one_before(make_dock, file, qtbot, tmp_path):
    """Two readers' projects of one image stay apart; what was shown stays where it was."""
    dock = make_dock(file)
    keeper = dock.session.keeper
    click(dock, qtbot, (40, 270))
    dock.project.complete_wanted.emit()
    area = dock.session.viewer.layers.selection.active
    area.add_rectangles(np.array([[9.5, 9.5], [9.5, 49.5], [59.5, 49.5], [59.5, 9.5]]))
    assert keeper.save_as(tmp_path / "one")
    area.add_rectangles(np.array([[99.5, 9.5], [99.5, 49.5], [159.5, 49.5], [159.5, 9.5]]))
    assert len(project_of(dock).state.objects) == 3
    with Project.create(tmp_path / "two", author="second"):
        pass
    assert keeper.open(tmp_path / "two.cellpath")
    assert "stay in one.cellpath" in notification_manager.records[-1].message
    assert len(dock.session.nuclei) == 0
    assert len(area.data) == 0
    assert not project_of(dock).state.images
    click(dock, qtbot, (80, 20))
    assert len(project_of(dock).state.objects) == 1
    assert keeper.open(tmp_path / "one.cellpath")
    assert [tuple(p) for p in dock.session.nuclei.layer.data] == [(40, 270)]
    assert len(area.data) == 2
    with Project.open(tmp_path / "two.cellpath", read_only=True) as two:
        assert len(two.state.objects) == 1


def test_complete_rectangles_come_back_with_their_image(make_dock, file, qtbot, tmp_path):
    dock = make_dock(file)
    dock.project.complete_wanted.emit()
    dock.session.viewer.layers.selection.active.add_rectangles(
        np.array([[9.5, 9.5], [9.5, 49.5], [59.5, 49.5], [59.5, 9.5]])
    )
    assert dock.session.keeper.save_as(tmp_path / "one")
    dock.session.close()
    again = make_dock()
    assert again.session.keeper.open(tmp_path / "one.cellpath")
    qtbot.waitUntil(
        lambda: any("complete here" in x.name for x in again.session.viewer.layers), timeout=10000
    )


def test_nothing_is_undone_while_it_is_held_back(make_dock, file, qtbot):
    dock = make_dock(file)
    click(dock, qtbot, (40, 270))
    keeper = dock.session.keeper
    keeper.held_back = "Not now."
    dock.project.undo.click()
    assert len(dock.session.nuclei) == 1
    assert notification_manager.records[-1].message == "Not now."
    keeper.held_back = ""
    dock.project.undo.click()
    assert len(dock.session.nuclei) == 0


def test_a_saved_project_goes_on_when_the_dock_is_opened_again(
    make_dock, file, qtbot, backend, models, tmp_path
):
    """What was done in between and after goes to it, and the last decision is undone first."""
    dock = make_dock(file)
    viewer = dock.session.viewer
    first, _gone, third = click(dock, qtbot, (40, 270), (80, 20), (120, 100))
    folder = tmp_path / "mine.cellpath"
    assert dock.session.keeper.save_as(folder)
    dock.session.select([first])
    dock.session.correct("normal")
    layer = dock.session.nuclei.layer
    viewer.window.remove_dock_widget(dock)
    qtbot.waitUntil(lambda: dock.session.keeper.project is None)
    layer.selected_data = {1}
    layer.remove_selected()
    layer.data = np.array([layer.data[0], layer.data[1] + 9.0])
    again = NucleiDock(viewer, backend=backend, models=models)
    viewer.window.add_dock_widget(again, name="Nuclei")
    try:
        qtbot.waitUntil(lambda: bool(again.session.keeper._recorders), timeout=10000)
        project = project_of(again)
        assert project.folder == folder
        project.flush()
        kept = {a.uid: a for a in project.annotations()}
        assert set(kept) == {first, third}
        assert kept[third].geometry == (129.0, 109.0)
        assert kept[first].labels == ("normal",)
        again.session.select([third])
        again.session.correct("abnormal")
        project.flush()
        assert project.state.objects[third]["labels"] == ["abnormal"]
        again.session.keeper.undo()
        assert list(again.session.nuclei.table.features["correction"]) == ["normal", ""]
        assert len(again.session.nuclei) == 2
    finally:
        again.session.close()


def test_a_project_that_is_gone_is_not_gone_on_with_silently(
    make_dock, file, qtbot, backend, models, tmp_path
):
    """Its folder was removed while no dock was open: it is said, and a session begins."""
    dock = make_dock(file)
    viewer = dock.session.viewer
    click(dock, qtbot, (40, 270))
    assert dock.session.keeper.save_as(tmp_path / "mine.cellpath")
    viewer.window.remove_dock_widget(dock)
    qtbot.waitUntil(lambda: dock.session.keeper.project is None)
    shutil.rmtree(tmp_path / "mine.cellpath")
    again = NucleiDock(viewer, backend=backend, models=models)
    viewer.window.add_dock_widget(again, name="Nuclei")
    try:
        said = [r.message for r in notification_manager.records]
        assert any("mine.cellpath is not gone on with" in line for line in said)
        qtbot.waitUntil(lambda: again.session.keeper.project is not None, timeout=10000)
        assert unsaved.is_session(project_of(again).folder)
        assert len(list(project_of(again).annotations())) == 1
    finally:
        again.session.close()
