"""The journal on disk: damage is found, refusals change nothing, replay gives the same again."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from napari_cellpath.core.annotations import Annotation
from napari_cellpath.core.errors import CellpathError, MissingFileError, OutputError, ProjectError
from napari_cellpath.project import Kind, Project, Stroke
from napari_cellpath.project.journal import DATABASE
from napari_cellpath.project.replay import as_json, log, replay


@contextmanager
def raw(path: Path) -> Iterator[sqlite3.Connection]:
    """The file as any program may open it; closed and committed at the end."""
    with closing(sqlite3.connect(path)) as connection, connection:
        yield connection


def filled(folder: Path, count: int = 20) -> Project:
    project = Project.create(folder, author="a")
    for n in range(count):
        project.add([Annotation(f"{n:016x}", "im", geometry=(float(n), 2.0))])
    project.record(Kind.LABEL, {"objects": {f"{3:016x}": {"labels": ["normal"]}}})
    stroke = Stroke(
        "im/hspnet", 500, 500, np.zeros((40, 40), np.uint8), np.full((40, 40), 3, np.uint8)
    )
    project.record(Kind.PAINT, {}, [stroke])
    project.undo()
    project.redo()
    project.flush()
    return project


def test_replay_gives_the_same_project(tmp_path: Path) -> None:
    project = filled(tmp_path / "p")
    project.close()
    count, state, damage = replay(project.folder, tmp_path / "q")
    assert (count, damage) == (project.events, "")
    assert state == project.state
    with Project.open(tmp_path / "q.cellpath") as again:
        assert again.state == project.state
        assert again.id == project.id
        assert again.undo_kind is project.undo_kind
    before, after = (list(map(as_json, log(p))) for p in (project.folder, again.folder))
    assert before == after
    assert before[0]["author"] == "a"
    assert before[-1]["strokes"][0]["pixels"] == 1600


def test_any_changed_bit_of_an_event_is_found(tmp_path: Path) -> None:
    project = filled(tmp_path / "p")
    project.close()
    database = project.folder / DATABASE
    whole = database.read_bytes()
    with raw(database) as connection:
        rows = connection.execute("SELECT seq, payload, author, at, kind FROM events").fetchall()
    rng = np.random.default_rng(0)
    found = 0
    for seq, payload, author, _at, _kind in rows[:: len(rows) // 8]:
        place, bit = int(rng.integers(len(payload))), int(rng.integers(8))
        bad = bytearray(payload)
        bad[place] ^= 1 << bit
        for column, value in (("payload", bytes(bad)), ("author", author + "x")):
            database.write_bytes(whole)
            with raw(database) as connection:
                connection.execute("DROP TRIGGER no_update")
                connection.execute(f"UPDATE events SET {column} = ? WHERE seq = ?", (value, seq))  # noqa: S608
            with pytest.raises(ProjectError, match=f"damaged at event {seq};.*replay"):
                Project.open(project.folder)
            found += 1
            count, _, damage = replay(project.folder, tmp_path / f"r{found}")
            assert count == seq - 1
            assert "damaged" in damage
    assert found >= 16


def test_the_journal_cannot_be_rewritten(tmp_path: Path) -> None:
    project = filled(tmp_path / "p", 2)
    project.close()
    with raw(project.folder / DATABASE) as connection:
        for statement in ("DELETE FROM events WHERE seq = 1", "UPDATE events SET author = 'x'"):
            with pytest.raises(sqlite3.DatabaseError, match="append-only"):
                connection.execute(statement)


def test_refusals_name_the_project(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"nowhere is no project.*project create"):
        Project.open(tmp_path / "nowhere")
    project = filled(tmp_path / "p", 1)
    project.close()
    with pytest.raises(OutputError, match="exists already"):
        Project.create(tmp_path / "p")
    with pytest.raises(OutputError, match="exists already"):
        replay(project.folder, tmp_path / "p")
    with raw(project.folder / DATABASE) as connection:
        connection.execute("UPDATE meta SET value = '99' WHERE key = 'format'")
    with pytest.raises(ProjectError, match=r"newer version.*update napari-cellpath"):
        Project.open(project.folder)
    other = tmp_path / "other.cellpath"
    other.mkdir()
    (other / DATABASE).write_bytes(b"SQLite format 3\0" + bytes(range(256)) * 16)
    with pytest.raises(ProjectError, match=r"is no project of napari-cellpath, or is damaged"):
        Project.open(other)
    (other / DATABASE).write_text("nothing of the sort")
    with pytest.raises(ProjectError, match=r"is no project"):
        Project.open(other)


def test_a_full_disk_loses_nothing_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    project = filled(tmp_path / "p", 3)
    events = project.events
    project.close()
    # SQLite's own limit on pages gives exactly the error of a full disk.
    limit = {"pages": 1}
    project = Project.open(project.folder)

    def on_connect(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute(f"PRAGMA max_page_count = {limit['pages']}")

    import sqlalchemy as sa

    project._journal._engine.dispose()
    sa.event.listen(project._journal._engine, "connect", on_connect)
    for n in range(400):
        project.add([Annotation(f"f{n:015x}", "im", geometry=(float(n), 2.0))])
    with pytest.raises(OutputError, match=r"the disk is full. What was saved before is intact"):
        project.flush(20)
    assert "disk is full" in project.trouble
    assert project.unsaved > 0
    with Project.open(project.folder, read_only=True) as as_saved:
        assert as_saved.events >= events
    limit["pages"] = 2**30
    project._journal._engine.dispose()
    project.flush(20)
    assert project.trouble == ""
    project.close()
    with Project.open(project.folder, read_only=True) as again:
        assert again.state == project.state
        assert len(again.state.objects) == 403


@pytest.mark.skipif(os.name != "posix", reason="permissions work otherwise on Windows")
def test_a_read_only_project_can_be_read_and_says_why_it_cannot_be_changed(tmp_path: Path) -> None:
    project = filled(tmp_path / "p", 3)
    project.close()
    with Project.open(project.folder, read_only=True) as reader:
        assert len(reader.state.objects) == 3
        with pytest.raises(OutputError, match="open for reading only; save a copy"):
            reader.add([Annotation("f" * 16, "im", geometry=(1.0, 1.0))])
        assert "f" * 16 not in reader.state.objects


def test_an_edit_that_cannot_be_written_does_not_take_others_with_it(tmp_path):
    """It is told and dropped; what came before and after it is on disk."""
    project = filled(tmp_path / "p.cellpath", count=4)
    before = len(project.state.objects)
    project.record(Kind.MOVE, {"objects": {f"{1:016x}": {"geometry": [float("nan"), 2.0]}}})
    with pytest.raises(CellpathError, match="1 edit could not be written"):
        project.flush()
    project.add([Annotation("a" * 16, "im", geometry=(1.0, 2.0))])
    project.flush()
    project.close()
    with Project.open(tmp_path / "p.cellpath", read_only=True) as again:
        assert len(again.state.objects) == before + 1
        assert again.state.objects[f"{1:016x}"]["geometry"] == [1.0, 2.0]
