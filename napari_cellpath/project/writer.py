"""The thread that writes: gestures go to disk one after the other, the screen never waits."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from napari_cellpath.core.errors import CellpathError
from napari_cellpath.project.events import Event, encode
from napari_cellpath.project.journal import Journal

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""How often an idle window looks for what others have written, and retries what failed."""


class Writer:
    """Appends events to a journal from a thread of its own.

    Parameters
    ----------
    journal
        Used by the thread alone from now on (reading single events excepted).
    on_activity
        Called from the thread when something was written, seen or refused.

    Attributes
    ----------
    trouble
        Why the last attempt to write failed; empty when all is well. What could not be written
        stays in line and is tried again.
    """

    def __init__(self, journal: Journal, on_activity: Callable[[], None]) -> None:
        self.trouble = ""
        self._error: CellpathError | None = None
        self._journal = journal
        self._on_activity = on_activity
        self._queue: deque[Event] = deque()
        self._news: deque[tuple[list[Event], list[Event]]] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._attempts = 0
        self._thread = threading.Thread(target=self._run, name="cellpath-journal", daemon=True)
        self._thread.start()

    def put(self, event: Event) -> None:
        """Line an event up; returns at once."""
        with self._wake:
            self._queue.append(event)
            self._wake.notify_all()

    @property
    def waiting(self) -> int:
        """Events that are not on disk yet."""
        return len(self._queue)

    def news(self) -> list[tuple[list[Event], list[Event]]]:
        """What others appended, and ours that followed, since the last call; in journal order."""
        with self._wake:
            news = list(self._news)
            self._news.clear()
        return news

    def flush(self, seconds: float) -> None:
        """Wait until everything is on disk.

        Raises
        ------
        OutputError
            It cannot be written; it stays in line.
        CellpathError
            It took longer than ``seconds``, or an edit is none that a journal can hold.
        """
        until = time.monotonic() + seconds
        with self._wake:
            attempts = self._attempts
            self._wake.notify_all()
            while self._queue:
                if self._error is not None and self._attempts > attempts:
                    raise self._error
                if not self._wake.wait(timeout=max(0.0, until - time.monotonic())):
                    raise self._error or CellpathError(
                        f"{self._journal.folder} did not take the last edits within "
                        f"{seconds:.0f} s; they are kept in memory and tried again."
                    )
            if self._error is not None and self._attempts > attempts:
                raise self._error  # nothing is in line any more, but something was dropped

    def close(self) -> None:
        """Stop after one last attempt; what is still in line then is lost."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._wake:
                if not self._queue and not self._closing:
                    self._wake.wait(timeout=LOOK_SECONDS)
                elif self._error is not None and not self._closing:
                    self._wake.wait(timeout=LOOK_SECONDS)  # do not hammer a full disk
                closing, batch = self._closing, list(self._queue)
            try:
                news = self._step(batch)
                error = None
            except CellpathError as trouble:
                news, error = None, trouble
            except Exception as trouble:
                # An edit that cannot be written must not take those behind it with it.
                log.exception("an edit could not be written")
                news, error = None, self._drop_unwritable(batch, trouble)
            with self._wake:
                self._attempts += 1
                changed = (error is None) != (self._error is None)
                self._error, self.trouble = error, "" if error is None else str(error)
                if news is not None:
                    for _ in range(len(news[1])):
                        self._queue.popleft()
                    if news[0] or news[1]:
                        self._news.append(news)
                        changed = True
                self._wake.notify_all()
            if changed:
                self._on_activity()
            if closing and (not self._queue or error is not None):
                return

    def _drop_unwritable(self, batch: list[Event], trouble: Exception) -> CellpathError:
        bad = {id(event) for event in batch if not _is_writable(event)}
        if not bad:  # a fault of ours or of the disk: they stay in line
            return CellpathError(f"{self._journal.folder} was not written: {trouble}")
        with self._wake:
            kept = [event for event in self._queue if id(event) not in bad]
            self._queue.clear()
            self._queue.extend(kept)
        count = "1 edit" if len(bad) == 1 else f"{len(bad)} edits"
        return CellpathError(
            f"{self._journal.folder}: {count} could not be written; undo and do it again."
        )

    def _step(self, batch: list[Event]) -> tuple[list[Event], list[Event]] | None:
        if batch:
            return self._journal.append(batch)
        if self._journal.changed():
            return list(self._journal.read()), []
        return None


def _is_writable(event: Event) -> bool:
    try:
        encode(event)
    except (TypeError, ValueError):
        return False
    return True
