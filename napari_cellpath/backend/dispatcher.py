"""The dispatcher of `DaskBackend`: one thread that owns the schedule and the link to the workers.

It asks plans for tasks, sends them, gives plans the outputs, calls every listener, and mends what
breaks: a worker that dies, a scheduler that is gone. Everything here runs on its thread but where
something else is said; others put actions into `Dispatcher.inbox`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from napari_cellpath.backend.cluster import Link
from napari_cellpath.backend.failures import as_user_error, from_worker
from napari_cellpath.backend.job import Job, JobState, WorkerStatus
from napari_cellpath.backend.planning import Action
from napari_cellpath.backend.schedule import RunningJob, Schedule, Ticket
from napari_cellpath.core.errors import BackendError, CellpathError, JobCancelledError
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
COLLECT_SHARE = 20  # all results are gathered again after 20 times what gathering took


class Dispatcher:
    """Schedule, link and listeners of one backend.

    Parameters
    ----------
    engine
        Device, precision and memory budget, as `Link` takes them.
    address, credentials
        Of `DaskBackend`.

    Attributes
    ----------
    inbox
        Actions for this thread; None ends it. Any thread may put some in.
    live
        Jobs that have not ended, those still being planned too. Any thread may add one.
    notice_listeners
        Called with sentences for the user.
    """

    def __init__(
        self,
        engine: tuple[str, str, int | None],
        address: str | None,
        credentials: Path | str | None,
    ) -> None:
        self._engine = engine
        self._address = address
        self._credentials = credentials
        self.inbox: SimpleQueue[Action | None] = SimpleQueue()
        self.live: set[Job] = set()
        self.notice_listeners: list[Callable[[str], None]] = []
        self.schedule = Schedule()
        self.link: Link | None = None
        self._opening: Link | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._silent_losses = 0
        self._dead_workers: set[str] = set()
        self._to_warm: list[tuple[System, ModelRef]] = []

    def stop(self) -> None:
        """Cancel everything, then end the thread; no link is opened any more. From any thread."""
        with self._lock:
            self._closed = True
        self.inbox.put(self.cancel_everything)
        self.inbox.put(None)

    def close_links(self) -> None:
        """End the process, or the one that is being started. From any thread."""
        for link in (self._opening, self.link):
            if link is not None:
                link.close()

    # ---------------------------------------------------------------- jobs

    def run(self) -> None:
        """Take actions from the inbox until there is a None: the dispatcher's thread."""
        while (action := self.inbox.get()) is not None:
            try:
                action()
                self._hand_over()
            except Exception:
                log.exception("An action of the backend failed.")

    def planned(self, priority: int | None, job: Job, plan: Plan) -> None:
        """A job has its plan: take it up, in the place of one with the same target."""
        if job.state.final:
            return
        job.target = plan.target
        stale = self.schedule.of_target(plan.target)
        if stale is not None:
            self.end(stale, JobState.CANCELLED)
        self.schedule.add(job, plan, priority)
        self.start()

    def _hand_over(self) -> None:
        """Give the worker what it may have now; end the jobs that have nothing more to come."""
        if self.link is None:
            return
        while True:
            try:
                ticket = self.schedule.hand_over()
            except Exception as error:  # a plan's trouble ends its own job only
                assert self.schedule.asking is not None  # noqa: S101
                failure = as_user_error(error, "A task could not be prepared")
                self.end(self.schedule.asking.job, JobState.FAILED, failure)
                continue
            if ticket is None:
                break
            self._send(ticket, self.link)
        for running in self.schedule.stalled_jobs():
            if running.plan.finished:
                self.end(running.job, JobState.DONE)
            else:
                lost = BackendError("The request has no task left but is not finished.")
                self.end(running.job, JobState.FAILED, lost)

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
            self.inbox.put(partial(self._failed, link, ticket, error))
        else:
            if isinstance(output, TaskFailure):
                self.inbox.put(partial(self._refused, link, ticket, output))
            else:
                self.inbox.put(partial(self._answered, ticket, output))

    def _answered(self, ticket: Ticket, output: Any) -> None:
        self._silent_losses = 0
        if not self.schedule.back(ticket):
            return
        running = ticket.owner
        try:
            changed = running.plan.give(ticket.task, output)
            self._tell(running, changed)
        except Exception as error:
            failure = as_user_error(error, "An answer could not be taken in")
            self.end(running.job, JobState.FAILED, failure)
        else:
            if running.plan.finished:
                self.end(running.job, JobState.DONE)

    def _tell(self, running: RunningJob, changed: Any) -> None:
        """Deliver what changed; gather all results only as often as that is cheap."""
        now = time.monotonic()
        everything = running.job.partial_results
        if now >= running.collect_after:
            everything = running.plan.results()
            end = time.monotonic()
            running.collect_after = end + COLLECT_SHARE * (end - now)
        running.job.advanced(changed, everything, running.plan.progress)

    def end(self, job: Job, state: JobState, error: CellpathError | None = None) -> None:
        """Move a job to a final state and take its tasks off the worker."""
        running = self.schedule.jobs.get(job)
        for ticket in self.schedule.remove(job):
            if ticket.handle is not None:
                ticket.handle.cancel()
        self.live.discard(job)
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

    def cancel_everything(self) -> None:
        """End all jobs, those still being planned too."""
        for job in list(self.live):
            self.end(job, JobState.CANCELLED)

    # ---------------------------------------------------------------- trouble

    def _refused(self, link: Link, ticket: Ticket, failure: TaskFailure) -> None:
        """The task raised an exception in a worker that lives on."""
        if not self.schedule.back(ticket):
            return
        what = f"A {ticket.task.system} task failed inside the inference process"
        error = from_worker(failure, what, link.log)
        if isinstance(error, JobCancelledError):
            self._try_again(ticket)  # not cancelled by us: the worker was shutting down
        else:
            self.end(ticket.owner.job, JobState.FAILED, error)

    def _failed(self, link: Link, ticket: Ticket, error: BaseException) -> None:
        """The task got no answer from its worker."""
        from distributed import CancelledError, KilledWorker
        from distributed.comm import CommClosedError

        killed = isinstance(error, KilledWorker)
        if isinstance(error, KilledWorker):
            self._worker_died(str(error.last_worker.address), not ticket.alone)
        if not self.schedule.back(ticket):
            return
        if killed and not ticket.alone:
            self.schedule.suspect(ticket)
        elif killed:
            self.end(ticket.owner.job, JobState.FAILED, _killer(ticket))
        elif isinstance(error, CancelledError | CommClosedError):
            self._try_again(ticket)  # not cancelled by us: the scheduler is gone
            self._lost(link)
        else:
            failure = as_user_error(error, "A task could not be sent or answered", link.log)
            self.end(ticket.owner.job, JobState.FAILED, failure)

    def _try_again(self, ticket: Ticket) -> None:
        ticket.losses += 1
        if ticket.losses > MAX_LOSSES:
            self.end(ticket.owner.job, JobState.FAILED, _killer(ticket))
        elif ticket.alone:
            self.schedule.suspect(ticket)
        else:
            self.schedule.again(ticket)

    def _worker_lost(self, link: Link, address: str, keys: frozenset[str]) -> None:
        """A worker is gone; Dask runs what it had again once the nanny has made a new one."""
        if link is not self.link:
            return
        ours = [t for t in self.schedule.outstanding if t.key in keys]
        # Compared with the known dead, lest late news of an earlier death blame this task.
        guilty = [t for t in ours if t.alone and address not in self._dead_workers]
        if ours or link.server is not None:  # on a shared cluster, others' losses are theirs
            self._worker_died(address, bool(ours) and not guilty)
        for ticket in guilty:
            self.end(ticket.owner.job, JobState.FAILED, _killer(ticket))

    def _worker_died(self, address: str, run_again: bool) -> None:
        """Tell once, whether the scheduler's event or a blamed task brings the news."""
        if address not in self._dead_workers:
            self._dead_workers.add(address)
            self._notify(RUN_AGAIN if run_again else RESTARTED)

    def _lost(self, link: Link) -> None:
        """The scheduler is gone, and with it everything that was out: start over."""
        if link is not self.link:
            return
        self.link = None
        threading.Thread(target=link.close, name="cellpath-close", daemon=True).start()
        for ticket in self.schedule.outstanding:
            self.schedule.back(ticket)
            self._try_again(ticket)
        if link.server is None:
            self._notify(RECONNECTING)
        else:
            self._notify(RUN_AGAIN if self.schedule.jobs else RESTARTED)
        self._silent_losses += 1
        if self._silent_losses > MAX_SILENT_LOSSES:
            self._silent_losses = 0
            see = f"; see the log {link.log}" if link.log else ""
            self._fail_all(BackendError(f"The inference process keeps ending{see}."))
        if self.schedule.jobs:
            self.start()

    def _fail_all(self, error: CellpathError) -> None:
        for job in list(self.schedule.jobs):
            self.end(job, JobState.FAILED, error)

    def _notify(self, sentence: str) -> None:
        log.info(sentence)
        for listener in list(self.notice_listeners):
            try:
                listener(sentence)
            except Exception:
                log.exception("A notice listener failed.")

    # ---------------------------------------------------------------- start

    def start(self) -> None:
        """Begin to open a link, on a thread, unless there is one or one is being opened."""
        if self.link is not None or self._opening is not None:
            return
        link = Link(
            self._address,
            self._credentials,
            self._engine,
            on_lost=lambda gone: self.inbox.put(partial(self._lost, gone)),
            on_worker_lost=lambda *news: self.inbox.put(partial(self._worker_lost, *news)),
            on_notice=lambda sentence: self.inbox.put(partial(self._notify, sentence)),
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
            self.inbox.put(partial(self._start_failed, failure))
        else:
            self.inbox.put(partial(self._started, link))

    def _started(self, link: Link) -> None:
        self._opening, self.link = None, link
        self.schedule.bulk_window = link.bulk_window
        if not link.alive:
            self._lost(link)
            return
        for system, model in self._to_warm:
            self.warm(system, model)
        self._to_warm.clear()

    def _start_failed(self, error: CellpathError) -> None:
        self._opening = None
        self._to_warm.clear()
        if not self.schedule.jobs:
            self._notify(str(error))  # nobody else would hear of it
        self._fail_all(error)

    # ---------------------------------------------------------------- upkeep

    def warm(self, system: System, model: ModelRef) -> None:
        """Have a model loaded, once there is a link."""
        if self.link is not None:
            self.link.warm_up(system, model)
        else:
            self._to_warm.append((system, model))
            self.start()

    def free_memory(self) -> None:
        """Have the worker drop its models, if there is one."""
        if self.link is not None:
            self.link.free_memory()

    def ask_status(self, answer: SimpleQueue[WorkerStatus]) -> None:
        """Have the worker's status put into ``answer``."""
        if self.link is not None:
            self.link.ask_status(answer.put)
        else:
            answer.put(WorkerStatus(alive=False))


def _killer(ticket: Ticket) -> BackendError:
    name = type(ticket.owner.job.request).__name__
    return BackendError(
        f"The inference process ended each time it worked on this {name} (job "
        f"{ticket.owner.job.number}); it is not tried again. Other requests are not affected."
    )
