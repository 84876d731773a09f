"""The tissue dock with the real backend: it grows, gives way to a click, stops, and goes on."""

import time

import numpy as np
import pytest

from napari_cellpath.backend import connect
from napari_cellpath.bridge import timing
from napari_cellpath.core.vocabulary import Preset
from napari_cellpath.models import ModelEntry, read_info
from napari_cellpath.samples.tissue import TissueField, tissue_field
from napari_cellpath.slides.region_store import UNSEEN, RegionStore
from napari_cellpath.widgets.nuclei import NucleiDock
from napari_cellpath.widgets.search import Where
from napari_cellpath.widgets.tissue import TissueDock
from tests.support.models import write_random_model, write_tissue_model

SLACK = 4
"""Region events that may come while a click is answered: two tasks are out, their rows in two."""


@pytest.fixture(scope="module")
def backend():
    backend = connect(device="cpu", precision="fp32")
    yield backend
    backend.close()


@pytest.fixture(scope="module")
def entries(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    tissue = write_tissue_model(folder / "tissue-test")
    nuclei = write_random_model(folder / "nuclei-test")
    return [ModelEntry(p.name, p, read_info(p)) for p in (tissue, nuclei)]


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    field = tissue_field(shape=(400, 450), n_benign=2, n_malignant=1)
    large = TissueField(field.image, field.labels, mpp=1.0).repeated(4)
    return large.save(tmp_path_factory.mktemp("slides") / "large.ome.tif", levels=3)


@pytest.mark.slow  # minutes: a whole region by the real process
def test_a_region_gives_way_stops_and_goes_on(make_napari_viewer, qtbot, backend, entries, slide):
    """One region, as a person meets it: grow, click a nucleus, cancel, look, go on, compare."""
    viewer = make_napari_viewer()
    image = viewer.open(str(slide), plugin="napari-cellpath")[0]
    tissue, nuclei = entries
    dock = TissueDock(viewer, backend=backend, models=lambda: [tissue])
    clicks = NucleiDock(viewer, backend=backend, models=lambda: [nuclei])
    for widget, name in ((dock, "Tissue"), (clicks, "Nuclei")):
        viewer.window.add_dock_widget(widget, name=name)
    session = dock.session
    qtbot.waitUntil(
        lambda: session.source is not None and clicks.session.source is not None, timeout=20_000
    )
    clicks.session.use(preset=Preset.FAST)
    clicks.session.set_clicking(True)
    # A first click loads its model, so that the one that counts meets a running worker.
    clicks.session.nuclei.add(np.array([[50.0, 60.0]]))
    qtbot.waitUntil(lambda: bool(clicks.session.nuclei.table.final.all()), timeout=120_000)
    timing.reset()
    session.where = Where.IMAGE
    dock.segment()
    grown = []
    session.grew.connect(lambda: grown.append(time.monotonic()))
    qtbot.waitUntil(lambda: len(grown) > 1 and session.running, timeout=120_000)
    assert session.region.layer in viewer.layers

    job = next(e.job for e in session.inquiry.errands.under_way)
    events = []
    job.add_listener(events.append)
    clicks.session.nuclei.add(np.array([[80.0, 90.0]]))
    qtbot.waitUntil(lambda: bool(clicks.session.nuclei.table.final.all()), timeout=60_000)
    assert session.running, "the region was to be larger"
    assert len([e for e in events if e.results]) <= SLACK

    # The first look is only provisional: what is kept is what was finished.
    path = session.region.store.path
    qtbot.waitUntil(lambda: RegionStore.open(path).progress.rows_done > 0, timeout=120_000)
    assert session.running, "the region was to be larger"
    asked = time.monotonic()
    dock.frame.job.cancel.click()
    qtbot.waitUntil(lambda: not session.running, timeout=10_000)
    assert time.monotonic() - asked < 1.0
    qtbot.waitUntil(lambda: session.unfinished, timeout=10_000)
    time.sleep(1.0)
    store = RegionStore.open(path)
    done = store.progress.rows_done
    assert 0 < done < store.facts.shape[0]
    assert (store.rows(0, done) != UNSEEN).all()
    time.sleep(0.5)
    assert RegionStore.open(store.path).progress.rows_done == done, "it goes on unasked"
    first = store.rows(0, done).copy()

    dock.go_on.click()
    qtbot.waitUntil(
        lambda: not session.running and session.region.store.progress.complete, timeout=240_000
    )
    whole = session.region.store.rows(0, store.facts.shape[0])
    np.testing.assert_array_equal(whole[:done], first)
    assert (whole != UNSEEN).all()
    shown = np.asarray(session.region.layer.data[0])
    np.testing.assert_array_equal(shown, whole)
    assert image in viewer.layers
    ours = {
        name: row["p99"] for name, row in timing.report().items() if name not in timing.NOT_OURS
    }
    print({name: round(ms, 1) for name, ms in ours.items()})
    growing = [ours[n] for n in ("TissueSession._grow", "TissueSession._refresh",
                                 "TissueDock._show_growth", "TissueDock._show_jobs")]  # fmt: skip
    assert max(growing) < 16
    for widget in (dock, clicks):
        widget.session.close()
