"""The shared backend on Dask distributed: a local process by default, or the lab's machine.

Threads, and who may wait for what:

* the caller of `DaskBackend.submit`, mostly the GUI: waits for nothing, only queues;
* ``cellpath-plan`` makes plans: reads model cards, opens images, may download a model;
* ``cellpath-dispatch`` owns the schedule, asks plans for tasks, gives them outputs, and calls
  every listener; a slow listener delays all jobs;
* ``cellpath-start`` starts the process and connects, then ends;
* ``cellpath-client`` runs Dask's event loop and only passes messages on.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from napari_cellpath.backend.cluster import Link
from napari_cellpath.backend.device import check_names
from napari_cellpath.backend.failures import as_user_error, from_worker
from napari_cellpath.backend.job import Job, JobState, Listener, WorkerStatus
from napari_cellpath.backend.planning import Action, find_to_warm, plan_job, run_actions
from napari_cellpath.backend.schedule import RunningJob, Schedule, Ticket
from napari_cellpath.core.errors import (
    BackendAddressError,
    BackendError,
    CellpathError,
    JobCancelledError,
)
from napari_cellpath.core.vocabulary import System
from napari_cellpath.systems.protocol import ModelRef, Plan

if TYPE_CHECKING:
    from napari_cellpath.backend.worker import TaskFailure

log = logging.getLogger(__name__)

RESTARTED = "The inference process ended unexpectedly and was restarted."
RUN_AGAIN = (
    "The inference process ended unexpectedly and was restarted; your request is being run again."
)
RECONNECTING = "The connection to the inference backend was lost; connecting again."
MAX_LOSSES = 1  # a task that was out at two losses of the whole process is not tried again
MAX_SILENT_LOSSES = 2  # losses in a row without one answer in between
STATUS_TIMEOUT = 10.0  # the first answer imports torch
COLLECT_SHARE = 20  # all results are gathered again after 20 times what gathering took


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
        self._engine = (device, precision, memory_budget_bytes)
        self._address = address
        self._credentials = credentials
        self._lock = threading.Lock()
        self._closed = False
        self._live: set[Job] = set()
        self._notice_listeners: list[Callable[[str], None]] = []
        self._inbox: SimpleQueue[Action | None] = SimpleQueue()
        self._planning: SimpleQueue[Action | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._opening: Link | None = None
        self._link: Link | None = None
        self._schedule = Schedule()
        self._silent_losses = 0
        self._dead_workers: set[str] = set()
        self._to_warm: list[tuple[System, ModelRef]] = []
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
        job = Job(request, "", self._cancel_soon)
        if listener is not None:
            job.add_listener(listener)
        planning = partial(plan_job, job, self._inbox, partial(self._planned, priority), self._end)
        if not self._post(self._planning, planning, job):
            job.ended(JobState.FAILED, BackendError("The inference backend has been closed."))
        return job

    def warm_up(self, model: str) -> None:
        """Start the process and load a model in the background; returns at once."""
        self._post(self._inbox, self._start)
        self._post(self._planning, partial(find_to_warm, model, self._inbox, self._warm))

    def free_memory(self) -> None:
        """Drop every loaded model; the next request loads what it needs. Returns at once."""
        self._post(self._inbox, self._free_memory)

    def status(self) -> WorkerStatus:
        """Ask the worker how it is; may take a second, so never on the GUI thread.

        A backend that has not been started is not started by this: ``alive`` is False.
        """
        answer: SimpleQueue[WorkerStatus] = SimpleQueue()
        if not self._threads or not self._post(self._inbox, partial(self._ask_status, answer)):
            return WorkerStatus(alive=False)
        try:
            return answer.get(timeout=STATUS_TIMEOUT)
        except Empty:
            return WorkerStatus(alive=False)

    def add_notice_listener(self, listener: Callable[[str], None]) -> None:
        """Call ``listener`` with sentences for the user, on the dispatcher's thread."""
        self._notice_listeners.append(listener)

    def close(self) -> None:
        """Cancel everything and end the process; takes two seconds at most."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._planning.put(None)
        self._inbox.put(self._cancel_everything)
        self._inbox.put(None)
        for thread in self._threads:
            # A listener may be waiting for the very thread that closes us: do not insist.
            if thread is not threading.current_thread():
                thread.join(0.3)
        for link in (self._opening, self._link):
            if link is not None:
                link.close()

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
                self._live.add(job)
            queue.put(action)
            return True

    def _cancel_soon(self, job: Job) -> None:
        self._inbox.put(partial(self._end, job, JobState.CANCELLED))

    # ---------------------------------------------------------------- on the dispatcher: jobs

    def _dispatch(self) -> None:
        while (action := self._inbox.get()) is not None:
            try:
                action()
                self._hand_over()
            except Exception:
                log.exception("An action of the backend failed.")

    def _planned(self, priority: int | None, job: Job, plan: Plan) -> None:
        if job.state.final:
            return
        job.target = plan.target
        stale = self._schedule.of_target(plan.target)
        if stale is not None:
            self._end(stale, JobState.CANCELLED)
        self._schedule.add(job, plan, priority)
        self._start()

    def _hand_over(self) -> None:
        """Give the worker what it may have now; end the jobs that have nothing more to come."""
        if self._link is None:
            return
        while True:
            try:
                ticket = self._schedule.hand_over()
            except Exception as error:  # a plan's trouble ends its own job only
                assert self._schedule.asking is not None  # noqa: S101
                failure = as_user_error(error, "A task could not be prepared")
                self._end(self._schedule.asking.job, JobState.FAILED, failure)
                continue
            if ticket is None:
                break
            self._send(ticket, self._link)
        for running in self._schedule.stalled_jobs():
            if running.plan.finished:
                self._end(running.job, JobState.DONE)
            else:
                lost = BackendError("The request has no task left but is not finished.")
                self._end(running.job, JobState.FAILED, lost)

    def _send(self, ticket: Ticket, link: Link) -> None:
        ticket.key = link.connection.new_key()
        if ticket.owner.job.state is JobState.QUEUED:
            ticket.owner.job.started()
        ticket.handle = link.connection.call(self._compute(ticket, link))

    async def _compute(self, ticket: Ticket, link: Link) -> None:
        from napari_cellpath.backend.worker import TaskFailure

        try:
            output = await link.run_task(ticket.task, key=ticket.key, priority=ticket.priority)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._inbox.put(partial(self._failed, link, ticket, error))
        else:
            if isinstance(output, TaskFailure):
                self._inbox.put(partial(self._refused, link, ticket, output))
            else:
                self._inbox.put(partial(self._answered, ticket, output))

    def _answered(self, ticket: Ticket, output: Any) -> None:
        self._silent_losses = 0
        if not self._schedule.back(ticket):
            return
        running = ticket.owner
        try:
            changed = running.plan.give(ticket.task, output)
            self._tell(running, changed)
        except Exception as error:
            failure = as_user_error(error, "An answer could not be taken in")
            self._end(running.job, JobState.FAILED, failure)
        else:
            if running.plan.finished:
                self._end(running.job, JobState.DONE)

    def _tell(self, running: RunningJob, changed: Any) -> None:
        """Deliver what changed; gather all results only as often as that is cheap."""
        now = time.monotonic()
        everything = running.job.partial_results
        if now >= running.collect_after:
            everything = running.plan.results()
            end = time.monotonic()
            running.collect_after = end + COLLECT_SHARE * (end - now)
        running.job.advanced(changed, everything, running.plan.progress)

    def _end(self, job: Job, state: JobState, error: CellpathError | None = None) -> None:
        """Move a job to a final state and take its tasks off the worker."""
        running = self._schedule.jobs.get(job)
        for ticket in self._schedule.remove(job):
            if ticket.handle is not None:
                ticket.handle.cancel()
        self._live.discard(job)
        if job.state.final:
            return
        if running is not None:
            try:
                job.advanced((), running.plan.results(), running.plan.progress)
            except Exception as bug:
                failure = as_user_error(bug, "The results could not be gathered")
                if state is JobState.DONE:
                    state, error = JobState.FAILED, failure
        job.ended(state, error)

    def _cancel_everything(self) -> None:
        for job in list(self._live):
            self._end(job, JobState.CANCELLED)

    # ---------------------------------------------------------------- on the dispatcher: trouble

    def _refused(self, link: Link, ticket: Ticket, failure: TaskFailure) -> None:
        """The task raised an exception in a worker that lives on."""
        if not self._schedule.back(ticket):
            return
        what = f"A {ticket.task.system} task failed inside the inference process"
        error = from_worker(failure, what, link.log)
        if isinstance(error, JobCancelledError):
            self._try_again(ticket)  # not cancelled by us: the worker was shutting down
        else:
            self._end(ticket.owner.job, JobState.FAILED, error)

    def _failed(self, link: Link, ticket: Ticket, error: BaseException) -> None:
        """The task got no answer from its worker."""
        from distributed import CancelledError, KilledWorker
        from distributed.comm import CommClosedError

        killed = isinstance(error, KilledWorker)
        if isinstance(error, KilledWorker):
            self._worker_died(str(error.last_worker.address), not ticket.alone)
        if not self._schedule.back(ticket):
            return
        if killed and not ticket.alone:
            self._schedule.suspect(ticket)
        elif killed:
            self._end(ticket.owner.job, JobState.FAILED, _killer(ticket))
        elif isinstance(error, CancelledError | CommClosedError):
            self._try_again(ticket)  # not cancelled by us: the scheduler is gone
            self._lost(link)
        else:
            failure = as_user_error(error, "A task could not be sent or answered", link.log)
            self._end(ticket.owner.job, JobState.FAILED, failure)

    def _try_again(self, ticket: Ticket) -> None:
        ticket.losses += 1
        if ticket.losses > MAX_LOSSES:
            self._end(ticket.owner.job, JobState.FAILED, _killer(ticket))
        elif ticket.alone:
            self._schedule.suspect(ticket)
        else:
            self._schedule.again(ticket)

    def _worker_lost(self, link: Link, address: str, keys: frozenset[str]) -> None:
        """A worker is gone; Dask runs what it had again once the nanny has made a new one."""
        if link is not self._link:
            return
        ours = [t for t in self._schedule.outstanding if t.key in keys]
        # Compared with the known dead, lest late news of an earlier death blame this task.
        guilty = [t for t in ours if t.alone and address not in self._dead_workers]
        if ours or link.server is not None:  # on a shared cluster, others' losses are theirs
            self._worker_died(address, bool(ours) and not guilty)
        for ticket in guilty:
            self._end(ticket.owner.job, JobState.FAILED, _killer(ticket))

    def _worker_died(self, address: str, run_again: bool) -> None:
        """Tell once, whether the scheduler's event or a blamed task brings the news."""
        if address not in self._dead_workers:
            self._dead_workers.add(address)
            self._notify(RUN_AGAIN if run_again else RESTARTED)

    def _lost(self, link: Link) -> None:
        """The scheduler is gone, and with it everything that was out: start over."""
        if link is not self._link:
            return
        self._link = None
        threading.Thread(target=link.close, name="cellpath-close", daemon=True).start()
        for ticket in self._schedule.outstanding:
            self._schedule.back(ticket)
            self._try_again(ticket)
        if link.server is None:
            self._notify(RECONNECTING)
        else:
            self._notify(RUN_AGAIN if self._schedule.jobs else RESTARTED)
        self._silent_losses += 1
        if self._silent_losses > MAX_SILENT_LOSSES:
            self._silent_losses = 0
            see = f"; see the log {link.log}" if link.log else ""
            self._fail_all(BackendError(f"The inference process keeps ending{see}."))
        if self._schedule.jobs:
            self._start()

    def _fail_all(self, error: CellpathError) -> None:
        for job in list(self._schedule.jobs):
            self._end(job, JobState.FAILED, error)

    def _notify(self, sentence: str) -> None:
        log.info(sentence)
        for listener in list(self._notice_listeners):
            try:
                listener(sentence)
            except Exception:
                log.exception("A notice listener failed.")

    # ---------------------------------------------------------------- on the dispatcher: start

    def _start(self) -> None:
        if self._link is not None or self._opening is not None:
            return
        link = Link(
            self._address,
            self._credentials,
            self._engine,
            on_lost=lambda gone: self._inbox.put(partial(self._lost, gone)),
            on_worker_lost=lambda *news: self._inbox.put(partial(self._worker_lost, *news)),
            on_notice=lambda sentence: self._inbox.put(partial(self._notify, sentence)),
        )
        with self._lock:
            if self._closed:
                return
            self._opening = link
        opener = threading.Thread(target=self._open, args=(link,), name="cellpath-start")
        opener.daemon = True
        opener.start()

    def _open(self, link: Link) -> None:
        try:
            link.open()
        except Exception as error:
            link.close()
            failure = as_user_error(error, "The inference process could not be started", link.log)
            self._inbox.put(partial(self._start_failed, failure))
        else:
            self._inbox.put(partial(self._started, link))

    def _started(self, link: Link) -> None:
        self._opening, self._link = None, link
        self._schedule.bulk_window = link.bulk_window
        if not link.alive:
            self._lost(link)
            return
        for system, model in self._to_warm:
            self._warm(system, model)
        self._to_warm.clear()

    def _start_failed(self, error: CellpathError) -> None:
        self._opening = None
        self._to_warm.clear()
        if not self._schedule.jobs:
            self._notify(str(error))  # nobody else would hear of it
        self._fail_all(error)

    # ---------------------------------------------------------------- on the dispatcher: upkeep

    def _warm(self, system: System, model: ModelRef) -> None:
        if self._link is not None:
            self._link.warm_up(system, model)
        else:
            self._to_warm.append((system, model))
            self._start()

    def _free_memory(self) -> None:
        if self._link is not None:
            self._link.free_memory()

    def _ask_status(self, answer: SimpleQueue[WorkerStatus]) -> None:
        if self._link is not None:
            self._link.ask_status(answer.put)
        else:
            answer.put(WorkerStatus(alive=False))


def _killer(ticket: Ticket) -> BackendError:
    name = type(ticket.owner.job.request).__name__
    return BackendError(
        f"The inference process ended each time it worked on this {name} (job "
        f"{ticket.owner.job.number}); it is not tried again. Other requests are not affected."
    )


def _close_if_there(backend: weakref.ref[DaskBackend]) -> None:
    there = backend()
    if there is not None:
        there.close()
