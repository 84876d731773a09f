"""A project of 100,000 single clicks opens in seconds; each test prints its number."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from napari_cellpath.core.annotations import Annotation
from napari_cellpath.project import Kind, Project
from napari_cellpath.project.events import Change, Event
from napari_cellpath.project.journal import Journal

CLICKS = 100_000


@pytest.mark.slow
def test_a_hundred_thousand_clicks(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path / "p.cellpath", "p")
    journal.append([
        Event(
            Kind.ADD,
            (Change("objects", f"{n:016x}", None, {"image": "im", "geometry": [float(n), 2.0]}),),
            gesture=f"g{n}", author="a", at="2026-01-01T00:00:00Z", window="w",
        )
        for n in range(CLICKS)
    ])  # fmt: skip
    journal.close()
    started = time.perf_counter()
    with Project.open(tmp_path / "p.cellpath") as project:
        opened = time.perf_counter() - started
        assert len(project.state.objects) == CLICKS
        saved = []
        for n in range(50):
            started = time.perf_counter()
            project.add([Annotation(f"x{n:015x}", "im", geometry=(1.0, 2.0))])
            project.flush()
            saved.append(time.perf_counter() - started)
    middle = sorted(saved)[len(saved) // 2]
    print(
        f"\n{CLICKS:,} clicks: opened in {opened:.2f} s, one edit on disk in {middle * 1e3:.1f} ms"
    )
    assert opened < 3 * 3  # three times the goal: other work may share the machine
    assert middle < 0.02
