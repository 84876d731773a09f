"""The journal again: as text, and as a project rebuilt from its events."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from napari_cellpath.core.errors import OutputError, ProjectError
from napari_cellpath.project.events import Event
from napari_cellpath.project.journal import Journal
from napari_cellpath.project.project import project_folder
from napari_cellpath.project.state import State

_CHUNK = 5000


def log(folder: Path | str) -> Iterator[Event]:
    """Every event of a project, oldest first.

    Raises
    ------
    CellpathError
        There is no project, or it is damaged (after the events before the damage).
    """
    journal = Journal.existing(Path(folder), read_only=True)
    try:
        journal.meta()
        yield from journal.read()
    finally:
        journal.close()


def replay(folder: Path | str, out: Path | str) -> tuple[int, State, str]:
    """Build a new project from the events of another, event by event.

    A damaged journal is rebuilt up to the damage.

    Returns
    -------
    events, state, damage
        How many events were taken over, what the new project holds, and what stopped it; empty
        where nothing did.

    Raises
    ------
    OutputError
        ``out`` exists already or cannot be written.
    """
    source = Journal.existing(Path(folder), read_only=True)
    target_folder = project_folder(out)
    if target_folder.exists():
        source.close()
        raise OutputError(f"{target_folder} exists already; choose another name.")
    state, count, damage = State(), 0, ""
    try:
        meta = source.meta()
        target = Journal.create(target_folder, meta["name"], meta["id"])
        try:
            for events in _chunks(source.read()):
                if isinstance(events, ProjectError):
                    damage = str(events)
                    break
                target.append(events)
                for event in events:
                    state.apply(event)
                count += len(events)
        except BaseException:
            target.close()
            shutil.rmtree(target_folder, ignore_errors=True)
            raise
        target.close()
    finally:
        source.close()
    return count, state, damage


def _chunks(events: Iterator[Event]) -> Iterator[list[Event] | ProjectError]:
    chunk: list[Event] = []
    while True:
        try:
            event = next(events, None)
        except ProjectError as error:
            if chunk:
                yield chunk
            yield error
            return
        if event is None:
            break
        chunk.append(event)
        if len(chunk) == _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def as_json(event: Event) -> dict[str, Any]:
    """An event for people and programs: pixels are given by their place and number."""
    return {
        "seq": event.seq, "at": event.at, "author": event.author, "kind": str(event.kind),
        "gesture": event.gesture, "target": event.target, "window": event.window,
        "changes": [
            {"table": c.table, "uid": c.uid, "was": c.was, "now": c.now} for c in event.changes
        ],
        "strokes": [
            {
                "raster": s.raster, "row": s.row, "col": s.col,
                "height": s.after.shape[0], "width": s.after.shape[1],
                "pixels": int((s.before != s.after).sum()),
            }
            for s in event.strokes
        ],
    }  # fmt: skip
