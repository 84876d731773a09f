"""Sessions without a project: which are offered after a crash, and which are swept away."""

from __future__ import annotations

import numpy as np
import pytest

from napari_cellpath.project import Kind, Project, Stroke, unsaved
from napari_cellpath.project.painted import raster_name


@pytest.fixture(autouse=True)
def nobody_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the programs that made the sessions had died."""
    monkeypatch.setattr(unsaved, "_is_open", lambda _folder: False)


def painted_session(value: int = 2) -> Project:
    """A session in which nothing was done but to paint."""
    project = unsaved.begin()
    facts = {"name": "slide.svs", "path": "", "height": 40, "width": 40, "group": "s1"}
    project.record(Kind.IMAGE, {"images": {"k": facts}})
    before, after = np.zeros((9, 9), np.uint32), np.full((9, 9), value, np.uint32)
    project.record(Kind.PAINT, {}, [Stroke(raster_name("k"), 0, 0, before, after)])
    return project


def test_paint_alone_is_worth_recovering() -> None:
    """Strokes are no objects, and hours of work all the same."""
    project = painted_session()
    project.close()
    for _ in range(2):  # looking must not remove it either
        (session,) = unsaved.abandoned()
        assert session.folder == project.folder
        assert (session.objects, session.painted) == (0, 1)
        assert session.images == ("slide.svs",)
    with unsaved.recover(session.folder) as back:
        assert back.state.rasters[raster_name("k")].read(0, 0, 9, 9).all()


def test_a_session_with_nothing_in_it_is_removed() -> None:
    """Nothing was done, or all of it was taken back."""
    empty = unsaved.begin()
    empty.close()
    undone = painted_session()
    undone.undo()
    undone.close()
    assert unsaved.abandoned() == []
    assert not empty.folder.exists()
    assert not undone.folder.exists()
