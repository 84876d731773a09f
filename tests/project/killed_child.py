"""A program that is going to be killed: it works on a project and says what is on disk.

``python -m tests.project.killed_child TASK FOLDER``; one line on stdout for every acknowledged
thing, never before it is on disk.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from napari_cellpath.core.annotations import Annotation
from napari_cellpath.core.requests import new_uid
from napari_cellpath.core.tables import write_calls
from napari_cellpath.project import Kind, Project, Stroke, unsaved


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def annotate(folder: Path) -> None:
    """Add, label, delete, paint and undo without end."""
    rng = np.random.default_rng()
    with Project.open(folder) as project:
        say("ready")
        while True:
            uid = new_uid()
            project.add([Annotation(uid, "im", geometry=(float(rng.integers(99)), 1.0))])
            project.flush()
            say(f"added {uid}")
            project.label({uid: ["normal"]})
            row, col = (int(n) for n in rng.integers(0, 600, 2))
            before = np.zeros((30, 30), np.uint32)
            raster = project.state.rasters.get("im/hspnet")
            if raster is not None:
                before = raster.read(row, col, 30, 30)
            painted = [Stroke("im/hspnet", row, col, before, before + 1)]
            project.record(Kind.PAINT, {}, painted)
            project.flush()
            say(f"labelled {uid}")
            if rng.random() < 0.3:
                project.undo()


def save(folder: Path) -> None:
    """Save a session under a name, again and again."""
    project = unsaved.begin()
    project.add([Annotation(new_uid(), "im", geometry=(float(n), 1.0)) for n in range(500)])
    project.flush()
    number = int(np.random.default_rng().integers(2**40))
    say("ready")
    while True:
        number += 1
        copy = unsaved.save_as(project, folder / f"n{number}")
        say(f"saved {copy.folder.name}")
        project = copy


def export(folder: Path) -> None:
    """Write a table over itself without end."""
    path = folder / "out.csv"
    size = 0
    say("ready")
    while True:
        size = size % 50 + 1
        rows = [
            {"image": "a.png", "id": str(n), "row": float(n), "col": float(size)}
            for n in range(size * 100)
        ]
        write_calls(path, [*rows, {"image": "end", "id": str(len(rows))}])
        say(f"wrote {len(rows)}")


if __name__ == "__main__":
    {"annotate": annotate, "save": save, "export": export}[sys.argv[1]](Path(sys.argv[2]))
