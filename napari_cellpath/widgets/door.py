"""The one way from backend threads to the main thread.

Threads may call `Door.post` and `Door.call` at any time, also after the door was closed. The
receiver runs on the thread the door lives on, in order. Bursts of job events are delivered
together, at most thirty times a second and, where delivering is slow (redrawing 100,000 points
takes napari half a second), no more than a fifth of the time. The first event after a pause is
delivered at once: a click's answer never waits for a clock. A receiver that returns true has more
to do, and is called again, without events if there are none, as if some had come.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from qtpy.QtCore import QObject, Qt, QTimer, Signal

from napari_cellpath.backend.job import JobEvent
from napari_cellpath.core.errors import CellpathError

log = logging.getLogger(__name__)

INTERVAL = 1 / 30
SHARE = 0.2  # of the main thread's time, at most, for delivering


class Door(QObject):
    """Hands job events and calls over to the main thread."""

    _knocked = Signal()

    def __init__(
        self, deliver: Callable[[list[JobEvent]], bool | None], parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self._deliver = deliver
        self._lock = threading.Lock()
        self._events: list[JobEvent] = []
        self._calls: list[Callable[[], None]] = []
        self._has_knocked = False
        self._closed = False
        self._earliest = 0.0
        self._has_more = False
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._open)
        self._knocked.connect(self._on_knock, Qt.ConnectionType.QueuedConnection)

    def post(self, event: JobEvent) -> None:
        """Take a job event; from any thread. It fits as a job's listener."""
        with self._lock:
            if self._closed:
                return
            self._events.append(event)
            self._knock()

    def call(self, function: Callable[..., Any], *args: Any) -> None:
        """Call a function on the main thread, soon and once; from any thread."""
        with self._lock:
            if self._closed:
                return
            self._calls.append(lambda: function(*args))
            self._knock()

    def fetch(
        self,
        work: Callable[[], Any],
        done: Callable[[Any], None],
        failed: Callable[[CellpathError], None],
    ) -> None:
        """Run ``work`` on a thread of its own; its result or error comes to the main thread."""

        def run() -> None:
            try:
                result = work()
            except CellpathError as error:
                self.call(failed, error)
            except Exception as error:
                log.exception("Work in the background failed.")
                self.call(failed, CellpathError(f"That failed: {error}."))
            else:
                self.call(done, result)

        threading.Thread(target=run, name="cellpath-dock", daemon=True).start()

    def close(self) -> None:
        """Let nothing through any more, not even what is waiting."""
        with self._lock:
            self._closed = True
            self._events.clear()
            self._calls.clear()
        with suppress(RuntimeError):  # Qt may have deleted it before us, on the way out
            self._timer.stop()

    def _knock(self) -> None:
        if not self._has_knocked:
            self._has_knocked = True
            self._knocked.emit()

    def _on_knock(self) -> None:
        with self._lock:
            calls, self._calls = self._calls, []
            waiting = bool(self._events)
            self._has_knocked = False
        for function in calls:
            function()
        if not waiting or self._timer.isActive():
            return
        delay = self._earliest - time.monotonic()
        if delay <= 0:
            self._open()
        else:
            self._timer.start(max(1, round(delay * 1000)))

    def _open(self) -> None:
        with self._lock:
            if self._closed:
                return
            events, self._events = self._events, []
        if not events and not self._has_more:
            return
        start = time.monotonic()
        self._has_more = False
        try:
            self._has_more = bool(self._deliver(events))
        finally:
            now = time.monotonic()
            self._earliest = now + max(INTERVAL, (now - start) * (1 - SHARE) / SHARE)
            if self._has_more and not self._timer.isActive():
                self._timer.start(max(1, round((self._earliest - now) * 1000)))
