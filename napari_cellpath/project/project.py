"""A project: what it holds now, and every way to change it."""

from __future__ import annotations

import getpass
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from napari_cellpath.core.annotations import Annotation
from napari_cellpath.core.errors import OutputError
from napari_cellpath.core.requests import new_uid
from napari_cellpath.core.vocabulary import System
from napari_cellpath.project.events import UNDOABLE, Change, Event, Facts, Kind, Stroke
from napari_cellpath.project.journal import Journal
from napari_cellpath.project.state import State
from napari_cellpath.project.writer import Writer

SUFFIX = ".cellpath"
Wanted = Mapping[str, Mapping[str, Facts | None]]
"""Table -> uid -> facts to set, or None to remove it."""


@dataclass(frozen=True)
class Step:
    """One entry of the undo or redo list: which event, and what sort of gesture it was."""

    gesture: str
    kind: Kind


@dataclass(frozen=True)
class Undone:
    """What an undo or redo did.

    ``kind`` is that of the gesture taken back or made again; ``event`` the new event, None if
    nothing could be changed; ``left`` how many things others have changed since, which were
    left as they are.
    """

    kind: Kind
    event: Event | None
    left: int


def author_name() -> str:
    """The name of the account, as the author of gestures."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # no such account: containers
        return "unknown"


class Project:
    """An open project.

    All methods belong to one thread (the main one); a thread of its own writes. Made with
    `create` or `open`; a context manager that closes itself.

    Attributes
    ----------
    folder, name, id
        Where it lies, what it is called, and its identity (16 hex digits).
    state
        What it holds now. Read it freely; change it through `record` only.
    author
        Whose name goes with the gestures.
    last_event
        The last one made in this window.
    on_activity
        Called, from another thread, when something was written, when others have written, or
        when writing fails; then `settle` has news.
    """

    def __init__(self, journal: Journal, author: str | None = None) -> None:
        self.folder = journal.folder
        meta = journal.meta()
        self.name, self.id = meta["name"], meta["id"]
        self.author = author or author_name()
        self.window = secrets.token_hex(6)
        self.read_only = journal.read_only
        self.state = State()
        self.events = 0
        self.last_event: Event | None = None
        self.on_activity: Callable[[], None] | None = None
        self._journal = journal
        self._undo: list[Step] = []
        self._redo: list[Step] = []
        self._unsettled: dict[str, Event] = {}
        self._closed = False
        for event in journal.read():
            self.state.apply(event)
            self._remember(event)
            self.events = event.seq
        self._writer = None if journal.read_only else Writer(journal, self._tell)

    @classmethod
    def create(
        cls, folder: Path | str, name: str | None = None, author: str | None = None
    ) -> Project:
        """Make an empty project; ``.cellpath`` is added to the folder's name where it lacks it.

        Raises
        ------
        OutputError
            There is something already, or it cannot be written.
        """
        path = project_folder(folder)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise OutputError(f"{path} exists already; open it, or choose another name.")
        return cls(Journal.create(path, name or path.stem), author)

    @classmethod
    def open(
        cls, folder: Path | str, author: str | None = None, *, read_only: bool = False
    ) -> Project:
        """Open a project; other windows may have it open too.

        Raises
        ------
        MissingFileError
            There is no project.
        ProjectError
            It is damaged, or made by a newer version.
        OutputError
            It cannot be written and ``read_only`` is false.
        """
        journal = Journal.existing(Path(folder), read_only=read_only)
        try:
            return cls(journal, author)
        except BaseException:
            journal.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Write what is left and let go of the file; safe to call twice."""
        if not self._closed:
            self._closed = True
            if self._writer is not None:
                self._writer.close()
            self._journal.close()

    # What is known.

    def annotations(
        self, image: str | None = None, system: System | None = None
    ) -> Iterator[Annotation]:
        """Objects of one image (key) and system, or all, in the order they were made."""
        for uid, facts in self.state.objects.items():
            if image is not None and facts["image"] != image:
                continue
            if system is not None and facts.get("system", System.DEEPPAP) != system:
                continue
            yield Annotation.from_facts(uid, facts)

    @property
    def unsaved(self) -> int:
        """Gestures that are not on disk yet."""
        return 0 if self._writer is None else self._writer.waiting

    @property
    def trouble(self) -> str:
        """Why the last gesture could not be written yet; empty when all is well."""
        return "" if self._writer is None else self._writer.trouble

    @property
    def undo_kind(self) -> Kind | None:
        """What the next undo would take back."""
        return self._undo[-1].kind if self._undo else None

    @property
    def redo_kind(self) -> Kind | None:
        """What the next redo would make again."""
        return self._redo[-1].kind if self._redo else None

    # Changing it.

    def record(self, kind: Kind, wanted: Wanted, strokes: Iterable[Stroke] = ()) -> Event | None:
        """Make a gesture: change the state now, and line it up to be written.

        Returns the event, or None where everything was so already.

        Raises
        ------
        OutputError
            The project is open for reading only.
        """
        changes = []
        for table, things in wanted.items():
            for uid, facts in things.items():
                change = self.state.towards(table, uid, None if facts is None else plain(facts))
                if change is not None:
                    changes.append(change)
        painted = tuple(s for s in strokes if (s.before != s.after).any())
        if not changes and not painted:
            return None
        return self._commit(kind, tuple(changes), painted)

    def add(self, annotations: Iterable[Annotation], kind: Kind = Kind.ADD) -> Event | None:
        """Add objects in one gesture."""
        return self.record(kind, {"objects": {a.uid: a.to_facts() for a in annotations}})

    def label(self, labels: Mapping[str, Iterable[str]]) -> Event | None:
        """Write what a person says of objects, uid -> labels; none takes it back."""
        objects = {}
        for uid, said in labels.items():
            names = list(said) or None
            if self.state.objects.get(uid, {}).get("labels") != names:
                objects[uid] = {"labels": names, "author": self.author, "at": _now(), "seen": True}
        return self.record(Kind.LABEL, {"objects": objects})

    def undo(self) -> Undone | None:
        """Take the last gesture back; None if there is none."""
        return self._step(self._undo, Kind.UNDO)

    def redo(self) -> Undone | None:
        """Make the last gesture that was taken back again; None if there is none."""
        return self._step(self._redo, Kind.REDO)

    def _step(self, steps: list[Step], kind: Kind) -> Undone | None:
        if not steps:
            return None
        self._check_writable()
        step = steps.pop()
        event = self._unsettled.get(step.gesture) or self._journal.event(step.gesture)
        changes, strokes, left = self.state.way_back(event)
        if not changes and not strokes:
            return Undone(step.kind, None, left)
        new = self._commit(kind, changes, strokes, target=step.gesture, sort=step.kind)
        return Undone(step.kind, new, left)

    def _commit(
        self,
        kind: Kind,
        changes: tuple[Change, ...],
        strokes: tuple[Stroke, ...],
        target: str = "",
        sort: Kind | None = None,
    ) -> Event:
        self._check_writable()
        event = Event(kind, changes, strokes, new_uid(), target, self.author, _now(), self.window)
        self.state.apply(event)
        self.last_event = event
        self._remember(event, sort)
        self._unsettled[event.gesture] = event
        assert self._writer is not None  # _check_writable  # noqa: S101
        self._writer.put(event)
        return event

    def _check_writable(self) -> None:
        if self._writer is None:
            raise OutputError(f"{self.folder} is open for reading only; save a copy to change it.")

    def _remember(self, event: Event, sort: Kind | None = None) -> None:
        """Keep the undo and redo lists, from new events and from those of the journal alike."""
        if event.kind in UNDOABLE:
            self._undo.append(Step(event.gesture, event.kind))
            self._redo.clear()
        elif event.kind in (Kind.UNDO, Kind.REDO):
            back = event.kind is Kind.UNDO
            source, other = (self._undo, self._redo) if back else (self._redo, self._undo)
            for place in range(len(source) - 1, -1, -1):
                if source[place].gesture == event.target:
                    sort = source.pop(place).kind
                    break
            if sort is not None:
                other.append(Step(event.gesture, sort))

    # Disk.

    def settle(self) -> list[Event]:
        """Take in what the writing thread has to tell; returns the events of other windows."""
        if self._writer is None:
            return []
        foreign: list[Event] = []
        for others, written in self._writer.news():
            if others:  # ours follow theirs in the journal
                ours = list(self._unsettled.values())
                for event in reversed(ours):
                    self.state.take_back(event)
                for event in others + ours:
                    self.state.apply(event)
                foreign += others
            for event in written:
                self._unsettled.pop(event.gesture, None)
            last = (others + written)[-1]
            self.events = last.seq
        return foreign

    def flush(self, seconds: float = 30.0) -> None:
        """Wait until every gesture is on disk, and settle.

        Raises
        ------
        OutputError
            They cannot be written; they stay in memory and are tried again.
        """
        if self._writer is not None:
            self._writer.flush(seconds)
            self.settle()

    def copy_to(self, folder: Path, name: str) -> None:
        """Write a copy of what is on disk into an empty folder, under another name.

        Raises
        ------
        OutputError
            It cannot be written.
        """
        self._journal.copy_to(folder, name)

    def _tell(self) -> None:
        if self.on_activity is not None:
            self.on_activity()


def project_folder(name: Path | str) -> Path:
    """The folder of a project by that name: with ``.cellpath`` at its end."""
    path = Path(name)
    return path if path.suffix == SUFFIX else path.with_name(path.name + SUFFIX)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


_PLAIN = frozenset({str, int, float, bool, type(None)})


def plain(value: Any) -> Any:
    """As it will come back from JSON: lists for tuples, so that equal things compare equal."""
    if type(value) in _PLAIN:  # most are, and asking for a Mapping first takes ten times as long
        return value
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, str):
        return str(value)
    return value.item() if hasattr(value, "item") else value
