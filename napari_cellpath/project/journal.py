"""The journal on disk: one SQLite file, one append-only table of events.

Every append is one transaction, on disk before it is acknowledged. Two processes may append to
one journal: SQLite orders them. Each event's digest covers all before it, so a changed bit is
found when the project is opened.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy as sa

from napari_cellpath.core.errors import CellpathError, MissingFileError, OutputError, ProjectError
from napari_cellpath.project.events import Event, Kind, chain, decode, encode

FORMAT = 1
DATABASE = "project.db"
_BUSY_SECONDS = 10
_NETWORK = {"nfs", "nfs4", "cifs", "smb", "smbfs", "smb3", "afpfs", "fuse.sshfs", "9p", "ceph"}

_tables = sa.MetaData()
_meta = sa.Table(
    "meta", _tables,
    sa.Column("key", sa.String, primary_key=True),
    sa.Column("value", sa.String, nullable=False),
)  # fmt: skip
_events = sa.Table(
    "events", _tables,
    sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("at", sa.String, nullable=False),
    sa.Column("author", sa.String, nullable=False),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("gesture", sa.String, nullable=False, unique=True),
    sa.Column("target", sa.String, nullable=False),
    sa.Column("window", sa.String, nullable=False),
    sa.Column("payload", sa.LargeBinary, nullable=False),
    sa.Column("pixels", sa.LargeBinary, nullable=False),
    sa.Column("digest", sa.LargeBinary, nullable=False),
    sqlite_autoincrement=True,
)  # fmt: skip
_NO_REWRITING = [
    f"CREATE TRIGGER IF NOT EXISTS no_{what} BEFORE {what} ON events "
    "BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END"
    for what in ("update", "delete")
]


class Journal:
    """An open journal.

    Every method opens a connection of its own, so it may be used from any thread.

    Parameters
    ----------
    folder
        The project folder.
    read_only
        Nothing will be written.
    """

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        self.folder = folder
        self.path = folder / DATABASE
        self.read_only = read_only
        self._engine = _engine(self.path, read_only=read_only)
        self._last: tuple[int, bytes] = (0, b"")

    @classmethod
    def existing(cls, folder: Path, *, read_only: bool = False) -> Journal:
        """Open the journal of a project.

        Raises
        ------
        MissingFileError
            There is no project.
        """
        if not (folder / DATABASE).is_file():
            raise MissingFileError(
                f"{folder} is no project (it has no {DATABASE}). Make one with "
                "'cellpath project create NAME.cellpath', or with Save project in napari."
            )
        return cls(folder, read_only=read_only)

    @classmethod
    def create(cls, folder: Path, name: str, identity: str | None = None) -> Journal:
        """Make an empty journal; the folder must not hold one.

        ``identity`` is that of a project that is being rebuilt.

        Raises
        ------
        OutputError
            It cannot be written there.
        """
        if (folder / DATABASE).exists():
            raise OutputError(f"{folder} exists already; open it, or choose another name.")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{folder} cannot be made ({error.strerror}).") from None
        # Made under another name: a killed start must not leave half a journal.
        draft = folder / f".{secrets.token_hex(6)}.db"
        engine = _engine(draft, read_only=False)
        try:
            with _spoken(folder), engine.begin() as connection:
                _tables.create_all(connection)
                for trigger in _NO_REWRITING:
                    connection.execute(sa.text(trigger))
                connection.execute(
                    _meta.insert(),
                    [
                        {"key": "format", "value": str(FORMAT)},
                        {"key": "name", "value": name},
                        {"key": "id", "value": identity or secrets.token_hex(8)},
                    ],
                )
        except CellpathError:
            _remove(draft)
            raise
        finally:
            engine.dispose()
        try:
            os.link(draft, folder / DATABASE)  # fails where one has appeared meanwhile
        except FileExistsError:
            raise OutputError(f"{folder} exists already; open it instead.") from None
        except OSError:  # a file system without links
            draft.replace(folder / DATABASE)
        finally:
            _remove(draft)
        return cls(folder)

    def close(self) -> None:
        """Let go of the file."""
        self._engine.dispose()

    def copy_to(self, folder: Path, name: str) -> None:
        """Write a whole copy of what is on disk into an empty folder; its project has ``name``.

        Raises
        ------
        OutputError
            It cannot be written.
        """
        target = _engine(folder / DATABASE, read_only=False)
        try:
            with (
                _spoken(folder),
                self._engine.connect() as ours,
                target.connect() as theirs,
            ):
                source: Any = ours.connection.driver_connection
                source.backup(theirs.connection.driver_connection)
                theirs.execute(_meta.update().where(_meta.c.key == "name").values(value=name))
                theirs.commit()
        finally:
            target.dispose()

    def meta(self) -> dict[str, str]:
        """Name, id and format of the project.

        Raises
        ------
        ProjectError
            It is no project, is damaged, or was made by a newer version.
        """
        with _spoken(self.folder), self._engine.connect() as connection:
            meta = {row.key: row.value for row in connection.execute(sa.select(_meta))}
        if not {"format", "name", "id"} <= meta.keys() or not meta["format"].isdecimal():
            raise ProjectError(f"{self.path} is no project of napari-cellpath.")
        if int(meta["format"]) > FORMAT:
            raise ProjectError(
                f"{self.folder} was made by a newer version of napari-cellpath (format "
                f"{meta['format']}, this one reads {FORMAT}); update napari-cellpath."
            )
        return meta

    def changed(self) -> bool:
        """Whether anybody has appended since the last `read` or `append`; cheap."""
        with _spoken(self.folder), self._engine.connect() as connection:
            newest = connection.execute(sa.select(sa.func.max(_events.c.seq))).scalar() or 0
        return bool(newest > self._last[0])

    def read(self) -> Iterator[Event]:
        """Events that have not been read or appended through this object, in order.

        Raises
        ------
        ProjectError
            The journal cannot be read, or an event was changed since it was written.
        """
        with _spoken(self.folder), self._engine.connect() as connection:
            rows = connection.execution_options(yield_per=2000).execute(
                sa.select(_events).where(_events.c.seq > self._last[0]).order_by(_events.c.seq)
            )
            for row in rows:
                yield self._event(row)

    def _event(self, row: Any) -> Event:
        number, at, author, kind, gesture, target, window, payload, pixels, written = row
        seq, before = self._last
        try:
            event = Event(
                Kind(kind), *decode(payload, pixels), gesture, target, author, at, window, number
            )
            digest = chain(before, event, payload, pixels)
        except (ProjectError, ValueError, TypeError):
            digest = b""
        if digest != written or number != seq + 1:
            raise ProjectError(
                f"{self.path} is damaged at event {number}; 'cellpath project replay' can "
                f"rebuild the {seq} events before it."
            )
        self._last = number, digest
        return event

    def event(self, gesture: str) -> Event:
        """One event that was read or appended before.

        Raises
        ------
        ProjectError
            It is not there or cannot be read.
        """
        with _spoken(self.folder), self._engine.connect() as connection:
            row = connection.execute(
                sa.select(_events).where(_events.c.gesture == gesture)
            ).one_or_none()
        if row is None:
            raise ProjectError(f"{self.path} has no event {gesture}.")
        changes, strokes = decode(row.payload, row.pixels)
        return Event(
            Kind(row.kind), changes, strokes,
            row.gesture, row.target, row.author, row.at, row.window, row.seq,
        )  # fmt: skip

    def append(self, events: Sequence[Event]) -> tuple[list[Event], list[Event]]:
        """Write events in one transaction.

        Returns
        -------
        others, written
            What other windows had appended before, and the events with their ``seq``. When this
            returns they are on disk.

        Raises
        ------
        OutputError
            Nothing was written: full disk, read-only, or another process holds it too long.
        """
        packed = [(event, *encode(event)) for event in events]
        mark = self._last
        try:
            with _spoken(self.folder), self._engine.connect() as connection:
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                try:
                    rows = connection.execute(
                        sa.select(_events)
                        .where(_events.c.seq > self._last[0])
                        .order_by(_events.c.seq)
                    )
                    others = [self._event(row) for row in rows]
                    seq, digest = self._last
                    written, values = [], []
                    for event, payload, pixels in packed:
                        seq, digest = seq + 1, chain(digest, event, payload, pixels)
                        written.append(event._replace(seq=seq))
                        values.append(_row(event, seq, payload, pixels, digest))
                    connection.execute(_events.insert(), values)
                    connection.commit()
                except BaseException:
                    connection.rollback()
                    raise
        except BaseException:
            self._last = mark
            raise
        self._last = seq, digest
        return others, written


def _row(event: Event, seq: int, payload: bytes, pixels: bytes, digest: bytes) -> dict[str, Any]:
    return {
        "seq": seq, "at": event.at, "author": event.author, "kind": str(event.kind),
        "gesture": event.gesture, "target": event.target, "window": event.window,
        "payload": payload, "pixels": pixels, "digest": digest,
    }  # fmt: skip


def _engine(path: Path, *, read_only: bool) -> sa.Engine:
    def connect() -> Any:
        import sqlite3

        uri = path.resolve().as_uri()
        if read_only:
            # A write-ahead log cannot be opened where nothing may be written; without one
            # beside it the file is whole by itself.
            alone = not path.with_name(f"{path.name}-wal").exists()
            locked = not os.access(path.parent, os.W_OK)
            uri += "?mode=ro" + ("&immutable=1" if alone and locked else "")
        else:
            uri += "?mode=rwc"
        connection = sqlite3.connect(
            uri, uri=True, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        if not read_only:
            mode = "DELETE" if _on_network(path) else "WAL"
            connection.execute(f"PRAGMA journal_mode = {mode}")
            connection.execute("PRAGMA synchronous = FULL")
        return connection

    return sa.create_engine(
        "sqlite://", creator=connect, poolclass=sa.pool.QueuePool, pool_size=2, max_overflow=4
    )


def _on_network(path: Path) -> bool:
    """Whether a file lies on a network drive, where SQLite's shared memory does not work."""
    real = os.path.realpath(path)
    best, kind = "", ""
    for partition in psutil.disk_partitions(all=True):
        point = partition.mountpoint.rstrip(os.sep) + os.sep
        if real.startswith(point) and len(point) > len(best):
            best, kind = point, partition.fstype.lower()
    return kind in _NETWORK


def _remove(draft: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        draft.with_name(draft.name + suffix).unlink(missing_ok=True)


_REASONS = {
    "full": "the disk is full",
    "readonly": "it is read-only",
    "read-only": "it is read-only",
    "locked": "another program holds it",
    "unable to open": "it cannot be opened (is it read-only, or gone?)",
    "disk i/o": "the disk does not answer",
}


@contextmanager
def _spoken(folder: Path) -> Iterator[None]:
    """Say what SQLite says in our words."""
    try:
        yield
    except sa.exc.DatabaseError as error:
        text = str(error.orig).lower()
        for word, reason in _REASONS.items():
            if word in text:
                raise OutputError(
                    f"{folder} could not be used: {reason}. What was saved before is intact."
                ) from error
        raise ProjectError(
            f"{folder / DATABASE} is no project of napari-cellpath, or is damaged ({error.orig})."
        ) from error
