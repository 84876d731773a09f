"""Ten thousand patterns that come back at once do not hold up the viewer."""

import threading

import numpy as np
import pytest

from napari_cellpath.backend.job import Job, JobState, WorkerStatus
from napari_cellpath.bridge import timing
from napari_cellpath.core.requests import PatternRequest
from napari_cellpath.core.results import PatternCall
from napari_cellpath.core.vocabulary import CLASS_COLOURS, PATTERNS, System
from napari_cellpath.models import ClassInfo, ModelEntry, ModelInfo
from napari_cellpath.widgets.hep2 import Hep2Dock

MANY = 10_000


class AtOnce:
    """Answers every request with all its patterns in one event, from a thread."""

    def submit(self, request, *, priority=None, listener=None):
        job = Job(request, "cells", lambda job: job.ended(JobState.CANCELLED))
        job.add_listener(listener)
        threading.Thread(target=self._answer, args=(job, request), daemon=True).start()
        return job

    def _answer(self, job, request):
        assert isinstance(request, PatternRequest)
        p = np.random.default_rng(0).dirichlet(np.ones(len(PATTERNS)), len(request.cells))
        calls = [
            PatternCall(cell.uid, *cell.centre, PATTERNS[int(q.argmax())], tuple(q.tolist()), 1,
                        "hep2-many@00000000")
            for cell, q in zip(request.cells, p, strict=True)
        ]  # fmt: skip
        job.started()
        job.advanced(calls, calls, 1.0)
        job.ended(JobState.DONE)

    def warm_up(self, model): ...

    def free_memory(self): ...

    def status(self):
        return WorkerStatus(alive=False)

    def add_notice_listener(self, listener): ...


@pytest.mark.slow
def test_ten_thousand_patterns_at_once(make_napari_viewer, qtbot, tmp_path):
    """Every cell gets its pattern, is recorded, and no callback of ours takes long (CPU time)."""
    classes = tuple(ClassInfo(name=n, colour=c) for n, c in zip(PATTERNS, CLASS_COLOURS,
                                                                strict=False))  # fmt: skip
    info = ModelInfo(name="hep2-many", system=System.HEP2, architecture="nin10", classes=classes,
                     sha256="0" * 64)  # fmt: skip
    entry = ModelEntry("hep2-many", tmp_path, info)
    viewer = make_napari_viewer()
    viewer.add_image(np.zeros((2000, 2000), np.uint8), name="large")
    dock = Hep2Dock(viewer, backend=AtOnce(), models=lambda: [entry])
    viewer.window.add_dock_widget(dock, name="HEp-2")
    session = dock.session
    qtbot.waitUntil(lambda: session.source is not None, timeout=20000)
    cells = session.ready()
    corner = np.random.default_rng(1).integers(0, 1980, (MANY, 2))
    cells.add_boxes(np.hstack([corner, corner + 20]), score=False)
    timing.reset()
    session.score_all()
    qtbot.waitUntil(lambda: not cells.unscored() and not len(session.inquiry.jobs),
                    timeout=240000)  # fmt: skip
    assert set(cells.layer.features["call"]) == set(PATTERNS)
    project = session.keeper.project
    assert sum("prediction" in o for o in project.state.objects.values()) == MANY
    report = timing.report()
    for name in ("ObjectLayer.write", "JobBook.deliver", "ObjectDock._show_rows",
                 "Hep2Dock.show_facts"):  # fmt: skip
        assert report[name]["p99"] <= 16.0, (name, report[name])
    assert report["ObjectLayer.write"]["calls"] >= 40
    dock.session.close()
