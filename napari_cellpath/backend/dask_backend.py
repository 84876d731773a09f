"""The shared backend on Dask distributed: a local process by default, or the lab's machine.

Threads, and who may wait for what:

* the caller of `DaskBackend.submit`, mostly the GUI: waits for nothing, only queues;
* ``cellpath-plan`` makes plans: reads model cards, opens images, may download a model;
* ``cellpath-dispatch`` (`Dispatcher`) owns the schedule, asks plans for tasks, gives them outputs,
  and calls every listener; a slow listener delays all jobs;
* ``cellpath-start`` starts the process and connects, then ends;
* ``cellpath-client`` runs Dask's event loop and only passes messages on.
"""

from __future__ import annotations

import atexit
import threading
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from napari_cellpath.backend.device import check_names
from napari_cellpath.backend.dispatcher import Dispatcher
from napari_cellpath.backend.job import Job, JobState, Listener, WorkerStatus
from napari_cellpath.backend.planning import Action, find_to_warm, plan_job, run_actions
from napari_cellpath.core.errors import BackendAddressError, BackendError

STATUS_TIMEOUT = 10.0  # the first answer imports torch


class DaskBackend:
    """One client of one scheduler (see `napari_cellpath.backend.job.Backend`).

    Nothing is started before the first `submit` or `warm_up`.

    Parameters
    ----------
    device, precision
        See `napari_cellpath.backend.device.choose_device`.
    address
        A scheduler's ``tls://host:port``; None starts a process on this machine.
    credentials
        Folder with ``ca.pem``, ``cert.pem`` and ``key.pem``; needed with an address.
    memory_budget_bytes
        What the engine's loaded models may hold together; None lets the engine decide.

    Raises
    ------
    CellpathError
        Unknown device or precision; an address without credentials.
    """

    def __init__(
        self,
        device: str = "auto",
        precision: str = "auto",
        *,
        address: str | None = None,
        credentials: Path | str | None = None,
        memory_budget_bytes: int | None = None,
    ) -> None:
        check_names(device, precision)
        if address is not None and (credentials is None or not address.startswith("tls://")):
            raise BackendAddressError(
                f"The backend address '{address}' must be tls://HOST:PORT and come with a folder "
                "of credentials (--credentials FOLDER with ca.pem, cert.pem, key.pem)."
            )
        self._dispatcher = Dispatcher(
            (device, precision, memory_budget_bytes), address, credentials
        )
        self._planning: SimpleQueue[Action | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._closed = False
        atexit.register(_close_if_there, weakref.ref(self))

    # ---------------------------------------------------------------- called by users

    def submit(
        self, request: Any, *, priority: int | None = None, listener: Listener | None = None
    ) -> Job:
        """Queue a request; returns at once. A bad request gives a job that has failed.

        ``listener`` is connected before anything can happen. A running job with the same
        target is superseded: cancelled, its late answers dropped.

        Parameters
        ----------
        request
            E.g. a `NucleusRequest`.
        priority
            Replaces the priorities that the plan gives its tasks (`Priority`; larger first).
            Whether a task is urgent, and so may use the worker's reserved thread, stays the
            plan's to say.
        listener
            Called with every `JobEvent`, on the dispatcher's thread.
        """
        dispatcher = self._dispatcher
        job = Job(request, "", self._cancel_soon)
        if listener is not None:
            job.add_listener(listener)
        planned = partial(dispatcher.planned, priority)
        planning = partial(plan_job, job, dispatcher.inbox, planned, dispatcher.end)
        if not self._post(self._planning, planning, job):
            job.ended(JobState.FAILED, BackendError("The inference backend has been closed."))
        return job

    def warm_up(self, model: str) -> None:
        """Start the process and load a model in the background; returns at once."""
        dispatcher = self._dispatcher
        self._post(dispatcher.inbox, dispatcher.start)
        warm = partial(find_to_warm, model, dispatcher.inbox, dispatcher.warm)
        self._post(self._planning, warm)

    def free_memory(self) -> None:
        """Drop every loaded model; the next request loads what it needs. Returns at once."""
        self._post(self._dispatcher.inbox, self._dispatcher.free_memory)

    def status(self) -> WorkerStatus:
        """Ask the worker how it is; may take a second, so never on the GUI thread.

        A backend that has not been started is not started by this: ``alive`` is False.
        """
        answer: SimpleQueue[WorkerStatus] = SimpleQueue()
        ask = partial(self._dispatcher.ask_status, answer)
        if not self._threads or not self._post(self._dispatcher.inbox, ask):
            return WorkerStatus(alive=False)
        try:
            return answer.get(timeout=STATUS_TIMEOUT)
        except Empty:
            return WorkerStatus(alive=False)

    def add_notice_listener(self, listener: Callable[[str], None]) -> None:
        """Call ``listener`` with sentences for the user, on the dispatcher's thread."""
        self._dispatcher.notice_listeners.append(listener)

    def close(self) -> None:
        """Cancel everything and end the process; takes two seconds at most."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._planning.put(None)
        self._dispatcher.stop()
        for thread in self._threads:
            # A listener may be waiting for the very thread that closes us: do not insist.
            if thread is not threading.current_thread():
                thread.join(0.3)
        self._dispatcher.close_links()

    def _post(
        self, queue: SimpleQueue[Action | None], action: Action, job: Job | None = None
    ) -> bool:
        """Queue an action, starting the threads with the first one; False once closed."""
        with self._lock:
            if self._closed:
                return False
            if not self._threads:
                for name, run in (
                    ("dispatch", self._dispatch),
                    ("plan", partial(run_actions, self._planning)),
                ):
                    thread = threading.Thread(target=run, name=f"cellpath-{name}", daemon=True)
                    thread.start()
                    self._threads.append(thread)
            if job is not None:
                self._dispatcher.live.add(job)
            queue.put(action)
            return True

    def _dispatch(self) -> None:
        # A thread that held the dispatcher alone would let the backend go, and its process stay.
        self._dispatcher.run()

    def _cancel_soon(self, job: Job) -> None:
        dispatcher = self._dispatcher
        dispatcher.inbox.put(partial(dispatcher.end, job, JobState.CANCELLED))


def _close_if_there(backend: weakref.ref[DaskBackend]) -> None:
    there = backend()
    if there is not None:
        there.close()
