"""A request on its way: state, progress, partial results, cancel, error.

Events are delivered in order on a backend thread, never on the GUI thread: a listener that
touches Qt or napari must hand them over (see `napari_cellpath.widgets`).
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from napari_cellpath.core.errors import CellpathError, JobCancelledError


class JobState(StrEnum):
    """Where a job stands. The last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether nothing more will come."""
        return self in (JobState.DONE, JobState.FAILED, JobState.CANCELLED)


@dataclass(frozen=True)
class JobEvent:
    """Something happened to a job.

    Attributes
    ----------
    job
        The job itself.
    state
        Its state at the time of the event.
    results
        Results that are new or changed; empty for pure progress.
    progress
        Fraction done, 0..1.
    seconds_left
        Estimate, or None while there is nothing to go by.
    error
        Set when ``state`` is FAILED.
    """

    job: Job
    state: JobState
    results: Sequence[Any] = ()
    progress: float = 0.0
    seconds_left: float | None = None
    error: CellpathError | None = None


Listener = Callable[[JobEvent], None]
log = logging.getLogger(__name__)
_numbers = itertools.count(1)


class Job:
    """Handle on one submitted request. Made by a backend; safe to use from any thread."""

    PROGRESS_INTERVAL = 0.1  # seconds: pure progress events come at most ten times a second

    def __init__(self, request: Any, target: str, cancel: Callable[[Job], None]) -> None:
        self.number = next(_numbers)
        self.request = request
        self.target = target
        self.state = JobState.QUEUED
        self.error: CellpathError | None = None
        self.progress = 0.0
        self._results: Sequence[Any] = ()
        self._cancel = cancel
        self._listeners: list[Listener] = []
        self._lock = threading.RLock()
        self._final = threading.Event()
        self._started = 0.0
        self._last_progress = 0.0

    def add_listener(self, listener: Listener) -> None:
        """Call ``listener`` with every later event; at once if the job is already final."""
        with self._lock:
            self._listeners.append(listener)
            replay = self.state.final
        if replay:
            listener(self._event(self._results))

    def cancel(self) -> None:
        """Stop as soon as the running batch ends; does nothing to a finished job."""
        if not self.state.final:
            self._cancel(self)

    def result(self, timeout: float | None = None) -> Sequence[Any]:
        """Wait for the job to end and return its results, in the request's order.

        Raises
        ------
        CellpathError
            The job's error, or `JobCancelledError`.
        TimeoutError
            Not finished within ``timeout`` seconds.
        """
        if not self._final.wait(timeout):
            raise TimeoutError(f"Job {self.number} did not finish within {timeout} s.")
        if self.state is JobState.CANCELLED:
            raise JobCancelledError("The job was cancelled.")
        if self.error is not None:
            raise self.error
        return self._results

    @property
    def partial_results(self) -> Sequence[Any]:
        """Everything delivered so far, also after a cancel."""
        return self._results

    # Called by backends only, from one thread at a time.

    def started(self) -> None:
        """Tell that the first task has been handed to the worker."""
        self._started = time.monotonic()
        self._move(JobState.RUNNING)

    def advanced(self, changed: Sequence[Any], all_results: Sequence[Any], progress: float) -> None:
        """Deliver changed results at once; pure progress at most at `PROGRESS_INTERVAL`."""
        with self._lock:
            if self.state.final:
                return
            self._results = all_results
            self.progress = max(self.progress, progress)
            now = time.monotonic()
            if not changed and now - self._last_progress < self.PROGRESS_INTERVAL:
                return
            self._last_progress = now
        self._emit(self._event(changed))

    def ended(self, state: JobState, error: CellpathError | None = None) -> None:
        """Move to a final state; later calls are ignored."""
        if state is JobState.DONE:
            self.progress = 1.0
        self._move(state, error)

    def _move(self, state: JobState, error: CellpathError | None = None) -> None:
        with self._lock:
            if self.state.final:
                return
            self.state, self.error = state, error
            event = self._event(())
        self._emit(event)
        if state.final:
            self._final.set()

    def _event(self, changed: Sequence[Any]) -> JobEvent:
        left = None
        if self._started and 0.02 < self.progress < 1.0:
            left = (time.monotonic() - self._started) * (1.0 - self.progress) / self.progress
        return JobEvent(self, self.state, changed, self.progress, left, self.error)

    def _emit(self, event: JobEvent) -> None:
        for listener in list(self._listeners):
            try:
                listener(event)
            except Exception:  # one listener's bug must not keep the job from ending
                log.exception("A listener of job %d failed.", self.number)


@dataclass(frozen=True)
class WorkerStatus:
    """What the inference process says of itself.

    Attributes
    ----------
    alive
        Whether it answers.
    device, precision
        E.g. ``cpu`` and ``fp32``.
    device_name
        The processor's or graphics card's own name.
    memory_bytes
        Memory the process holds (resident; on CUDA, allocated on the device).
    models
        Labels of the models it holds loaded.
    """

    alive: bool
    device: str = ""
    precision: str = ""
    device_name: str = ""
    memory_bytes: int = 0
    models: tuple[str, ...] = ()


class Backend(Protocol):
    """The one door to inference, the same for widgets, command line and notebooks."""

    def submit(
        self, request: Any, *, priority: int | None = None, listener: Listener | None = None
    ) -> Job:
        """Queue a request; returns at once. A bad request gives a job that has failed.

        ``listener`` is connected before anything can happen. A running job with the same
        target is superseded: cancelled, its late answers dropped.
        """

    def warm_up(self, model: str) -> None:
        """Start the process and load a model in the background; returns at once."""

    def free_memory(self) -> None:
        """Drop every loaded model; the next request loads what it needs."""

    def status(self) -> WorkerStatus:
        """Ask the worker how it is; may take a second, so never on the GUI thread."""

    def add_notice_listener(self, listener: Callable[[str], None]) -> None:
        """Call ``listener`` with sentences for the user, e.g. that the worker was restarted."""

    def close(self) -> None:
        """Cancel everything and end the process."""
