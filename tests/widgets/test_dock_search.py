"""Nuclei without clicks, seen and unseen, and why: the dock with a backend that answers at once."""

import json

import numpy as np
import pytest
from napari.utils.notifications import notification_manager

from napari_cellpath.bridge import regions
from napari_cellpath.core.requests import FindNucleiRequest, OcclusionRequest
from napari_cellpath.widgets.nuclei import NucleiDock
from napari_cellpath.widgets.search import Where

NUCLEI = 24  # dark discs of the field


@pytest.fixture
def viewer(make_napari_viewer):
    return make_napari_viewer()


@pytest.fixture
def dock(viewer, qtbot, backend, models, field):
    viewer.add_image(field, name="field")
    dock = NucleiDock(viewer, backend=backend, models=models)
    viewer.window.add_dock_widget(dock, name="Nuclei")
    qtbot.waitUntil(lambda: dock.session.source is not None, timeout=10000)
    yield dock
    backend.hold.set()
    backend.hold_second.set()
    dock.session.close()


def choose(dock, text):
    """Pick an entry of the button's menu, as a person does."""
    action = next(a for a in dock.find.menu().actions() if a.text() == text)
    action.trigger()


def all_scored(dock, count):
    nuclei = dock.session.nuclei
    return nuclei is not None and len(nuclei) == count and bool(nuclei.table.final.all())


def last_notice():
    return notification_manager.records[-1].message


def test_whole_image_is_searched_and_scored(dock, qtbot, backend):
    """Every disc becomes a nucleus with a score; nothing stays selected; worst first."""
    choose(dock, "In the whole image")
    qtbot.waitUntil(lambda: all_scored(dock, NUCLEI), timeout=20000)
    assert isinstance(backend.requests[0], FindNucleiRequest)
    assert backend.requests[0].region is None
    assert dock.session.nuclei.selected() == []
    qtbot.waitUntil(lambda: not dock.frame.job.cancel.isEnabled(), timeout=5000)
    columns = dock.frame.result.table.columns
    scores = dock.session.nuclei.table.features["score"]
    shown = [scores[columns.row_at(i)] for i in range(len(scores))]
    assert shown == sorted(shown, reverse=True)


def test_searching_again_doubles_nothing(dock, qtbot):
    """What is on the layer already is not added a second time, and the user is told."""
    choose(dock, "In the whole image")
    qtbot.waitUntil(lambda: all_scored(dock, NUCLEI), timeout=20000)
    choose(dock, "In the whole image")
    qtbot.waitUntil(lambda: "24 were there already" in last_notice(), timeout=10000)
    assert len(dock.session.nuclei) == NUCLEI


def test_drawn_shapes_bound_the_search(dock, qtbot, viewer, backend):
    """A rectangle over the left third: its discs only. Without a shape a sentence says so."""
    choose(dock, "In the drawn shapes")
    assert "Draw a rectangle" in last_notice()
    viewer.add_shapes([np.array([[0, 0], [0, 100], [200, 100], [200, 0]])])
    choose(dock, "In the drawn shapes")
    qtbot.waitUntil(lambda: all_scored(dock, 8), timeout=20000)
    assert backend.requests[0].region == (0, 0, 200, 100)


def test_search_in_view_asks_for_what_is_shown(dock, qtbot, backend, monkeypatch):
    """What `regions.visible_area` gives is searched; with nothing in view a sentence says so."""
    monkeypatch.setattr(regions, "visible_area", lambda _image: None)
    choose(dock, "In view")
    assert "in view" in last_notice()
    monkeypatch.setattr(regions, "visible_area", lambda _image: regions.Area((0, 0, 100, 300)))
    choose(dock, "In view")
    qtbot.waitUntil(lambda: len(backend.requests) > 0, timeout=10000)
    assert backend.requests[0].region == (0, 0, 100, 300)


def test_a_stopped_search_keeps_what_it_found_unscored(dock, qtbot, backend):
    """Half was found when it was cancelled: half is there, waiting for 'Score all'."""
    backend.hold_second.clear()
    choose(dock, "In the whole image")
    qtbot.waitUntil(lambda: dock.session.inquiry.errands.latest is not None, timeout=5000)
    qtbot.waitUntil(
        lambda: dock.session.inquiry.errands.latest.progress == pytest.approx(0.5), timeout=5000
    )
    assert dock.frame.job.bar.format().startswith("Finding nuclei")
    dock.frame.job.cancel.click()
    qtbot.waitUntil(
        lambda: dock.session.nuclei is not None and len(dock.session.nuclei) == NUCLEI // 2,
        timeout=10000,
    )
    assert dock.score_all.text() == "Score all (12)"
    assert "stopped" in last_notice()


def test_settings_of_the_search_reach_the_request(dock, qtbot, backend):
    """Diameters and contrast as typed; one end pushes the other."""
    settings = dock.frame.method.findChildren(type(dock._find_settings()))[0]
    settings.smallest.setValue(20.0)
    assert settings.largest.value() > 20.0
    settings.largest.setValue(30.0)
    settings.contrast.setValue(0.3)
    choose(dock, "In the whole image")
    qtbot.waitUntil(lambda: len(backend.requests) > 0, timeout=5000)
    asked = backend.requests[0]
    assert (asked.smallest, asked.largest, asked.contrast) == (20.0, 30.0, 0.3)


def test_a_closed_image_takes_no_found_nuclei(dock, qtbot, backend, viewer):
    """The search ends with its image: nothing is added, nothing raises."""
    backend.hold_second.clear()
    choose(dock, "In the whole image")
    qtbot.waitUntil(lambda: dock.session.inquiry.errands.latest is not None, timeout=5000)
    viewer.layers.clear()  # ends the search, too: the backend was never let go on
    qtbot.waitUntil(lambda: dock.session.inquiry.errands.latest is None, timeout=10000)
    assert len(viewer.layers) == 0


def test_unseen_are_walked_from_the_most_abnormal(dock, qtbot):
    """Each visit marks one as seen; corrected ones count as seen; at the end it says so."""
    choose(dock, "In the whole image")
    qtbot.waitUntil(lambda: all_scored(dock, NUCLEI), timeout=20000)
    table = dock.session.nuclei.table
    assert dock.unseen.text() == "Next unseen (24)"
    visited = []
    for _ in range(3):
        dock.unseen.click()
        row = int(table.rows(dock.session.nuclei.selected())[0])
        visited.append(float(table.features["score"][row]))
    assert visited == sorted(visited, reverse=True)
    assert visited[0] == table.features["score"].max()
    assert dock.unseen.text() == "Next unseen (21)"
    unseen = table.uids[~table.features["seen"]]
    dock.session.nuclei.correct([str(u) for u in unseen], "normal")
    assert not dock.unseen.isEnabled()
    dock.session.go_to_unseen()
    assert "has been looked at" in last_notice()


def test_many_selected_at_once_are_not_seen(dock, qtbot):
    """A lasso over the field is no look at each cell."""
    choose(dock, "In the whole image")
    qtbot.waitUntil(lambda: all_scored(dock, NUCLEI), timeout=20000)
    nuclei = dock.session.nuclei
    nuclei.select([str(u) for u in nuclei.table.uids[:5]])
    assert not nuclei.table.features["seen"].any()
    nuclei.select([str(nuclei.table.uids[7])])
    assert nuclei.table.features["seen"].sum() == 1


def test_show_why_puts_a_map_below_the_nuclei(dock, qtbot, viewer, backend):
    """One map a nucleus, replaced when asked again, never taken for an image to analyse."""
    choose(dock, "In the whole image")
    qtbot.waitUntil(lambda: all_scored(dock, NUCLEI), timeout=20000)
    assert not dock.why.isEnabled()
    dock.unseen.click()
    for _ in range(2):
        dock.why.click()
        qtbot.waitUntil(lambda: dock.session.inquiry.errands.latest is None, timeout=10000)
    names = [layer.name for layer in viewer.layers]
    assert names.count("occlusion · field") == 1
    assert names.index("occlusion · field") < names.index("nuclei · field")
    assert viewer.layers.selection.active is dock.session.nuclei.layer
    assert [image.name for image in dock.session.images] == ["field"]
    assert isinstance(backend.requests[-1], OcclusionRequest)
    viewer.layers.selection.active = viewer.layers["occlusion · field"]
    assert dock.session.image.name == "field"


def test_no_map_of_a_cell_that_is_gone_moved_or_unscored(dock, qtbot, viewer, backend):
    """A map of another place explains nothing, and nothing can be said of no score."""
    choose(dock, "In the whole image")
    qtbot.waitUntil(lambda: all_scored(dock, NUCLEI), timeout=20000)
    nuclei = dock.session.nuclei
    for change in ("move", "delete"):
        dock.unseen.click()
        row = int(nuclei.table.rows(nuclei.selected())[0])
        backend.hold.clear()
        dock.why.click()
        if change == "move":
            data = np.array(nuclei.layer.data)
            data[row] += 7
            nuclei.layer.data = data
        else:
            nuclei.layer.remove_selected()
        backend.hold.set()
        qtbot.waitUntil(lambda: dock.session.inquiry.errands.latest is None, timeout=10000)
        assert "occlusion · field" not in [layer.name for layer in viewer.layers]
    qtbot.waitUntil(lambda: all_scored(dock, NUCLEI - 1), timeout=20000)
    nuclei.table.features["score"][0] = np.nan
    nuclei.select([str(nuclei.table.uids[0])])
    sent = len(backend.requests)
    dock.search.explain()
    assert len(backend.requests) == sent
    assert "no score" in last_notice()


def test_export_writes_a_summary_with_seen_and_unseen(dock, qtbot, tmp_path):
    """Beside the table lies a page of JSON."""
    choose(dock, "In the whole image")
    qtbot.waitUntil(lambda: all_scored(dock, NUCLEI), timeout=20000)
    dock.unseen.click()
    dock.export_to(str(tmp_path / "slide.csv"))
    summary = json.loads((tmp_path / "slide.summary.json").read_text())
    assert summary["cells"] == NUCLEI
    assert summary["seen"] == {"seen": 1, "unseen": NUCLEI - 1}
    assert sum(summary["bands"].values()) == NUCLEI
    assert summary["most_abnormal"][0]["score"] == pytest.approx(
        float(dock.session.nuclei.table.features["score"].max())
    )


def test_without_a_model_or_image_find_is_off(viewer, qtbot, backend, models):
    """Nothing to search in: the button is off."""
    dock = NucleiDock(viewer, backend=backend, models=models)
    qtbot.addWidget(dock)
    assert not dock.find.isEnabled()
    dock.search.find(Where.IMAGE)
    assert not backend.requests
    dock.session.close()
