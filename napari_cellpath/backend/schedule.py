"""Which task goes to the worker next. Pure bookkeeping: no threads, no Dask, no clock.

Dask blames every task a dead worker had, waiting ones included, so few are handed over at a
time and the rest stay here, where cancelling is free:

* urgent tasks at once (a handful at a time: the worker has two threads), without the bulk
  resource, so that they find the thread that is kept free;
* at most two bulk tasks over all jobs, from the job with the highest priority that has one,
  first come first served among equals;
* a task that was on the worker at two deaths is suspect: it runs again with nothing beside it,
  and a further death is its own.
"""

from __future__ import annotations

import itertools
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from napari_cellpath.backend.job import Job
from napari_cellpath.systems.protocol import Plan, Task

BULK_WINDOW = 2
URGENT_WINDOW = 4

_order = itertools.count()


@dataclass(eq=False)
class Ticket:
    """One task on its way: which job it is for and what has happened to it."""

    owner: RunningJob
    task: Task
    key: str = ""
    handle: Future[Any] | None = None
    losses: int = 0
    alone: bool = False

    @property
    def priority(self) -> int:
        """The submitter's priority if one was given, else the plan's own for this task."""
        asked = self.owner.priority
        return int(self.task.priority if asked is None else asked)


@dataclass(eq=False)
class RunningJob:
    """A job whose plan is made."""

    job: Job
    plan: Plan
    priority: int | None
    ready: deque[Ticket] = field(default_factory=deque)
    out: set[Ticket] = field(default_factory=set)
    dry: bool = False
    collect_after: float = 0.0  # time.monotonic(); see `DaskBackend`
    order: int = field(default_factory=lambda: next(_order))

    def stalled(self) -> bool:
        """Whether nothing is out, nothing is left to take, and so nothing will ever come."""
        return self.dry and not self.ready and not self.out

    def peek(self) -> Ticket | None:
        """The job's next task; the plan is asked only when it may have one."""
        if not self.ready and not self.dry:
            task = self.plan.take()
            if task is None:
                self.dry = True
            else:
                self.ready.append(Ticket(self, task))
        return self.ready[0] if self.ready else None


class Schedule:
    """All running jobs, and what of theirs is out."""

    asking: RunningJob | None = None
    """The job whose plan was asked last: the one an error of `hand_over` belongs to."""

    def __init__(self) -> None:
        self.jobs: dict[Job, RunningJob] = {}
        self.bulk_window = BULK_WINDOW
        self._suspects: deque[Ticket] = deque()
        self._out: set[Ticket] = set()

    @property
    def outstanding(self) -> frozenset[Ticket]:
        """Tickets handed over and not yet back."""
        return frozenset(self._out)

    def add(self, job: Job, plan: Plan, priority: int | None) -> RunningJob:
        """Take in a job whose plan is made."""
        running = RunningJob(job, plan, priority)
        self.jobs[job] = running
        return running

    def remove(self, job: Job) -> frozenset[Ticket]:
        """Forget a job; returns its tickets that are out and are now to be cancelled."""
        running = self.jobs.pop(job, None)
        if running is None:
            return frozenset()
        self._suspects = deque(t for t in self._suspects if t.owner is not running)
        self._out -= running.out
        running.ready.clear()
        return frozenset(running.out)

    def of_target(self, target: str) -> Job | None:
        """The running job for a target."""
        return next((j for j, r in self.jobs.items() if r.plan.target == target), None)

    def back(self, ticket: Ticket) -> bool:
        """A ticket came back; False if nobody waits for it any more."""
        wanted = ticket in self._out
        self._out.discard(ticket)
        ticket.owner.out.discard(ticket)
        ticket.owner.dry = False
        return wanted

    def again(self, ticket: Ticket) -> None:
        """Queue a ticket again, before its job's other tasks (the whole cluster was lost)."""
        ticket.owner.ready.appendleft(ticket)

    def suspect(self, ticket: Ticket) -> None:
        """Queue a ticket again, to be run alone."""
        ticket.alone = True
        self._suspects.append(ticket)

    def stalled_jobs(self) -> list[RunningJob]:
        """Jobs that wait for nothing: finished, or with a plan that lost count."""
        suspects = {t.owner for t in self._suspects}
        return [r for r in self.jobs.values() if r.stalled() and r not in suspects]

    def hand_over(self) -> Ticket | None:
        """The next ticket that may go now, or None. Asks plans, whose errors come through."""
        ticket = self._choose()
        if ticket is not None:
            self._out.add(ticket)
            ticket.owner.out.add(ticket)
        return ticket

    def _choose(self) -> Ticket | None:
        if self._suspects:
            return None if self._out else self._suspects.popleft()
        if any(t.alone for t in self._out):
            return None
        urgent = sum(t.task.urgent for t in self._out)
        bulk = len(self._out) - urgent
        best: Ticket | None = None
        for running in self.jobs.values():
            self.asking = running
            ticket = running.peek()
            if ticket is None:
                continue
            free = URGENT_WINDOW - urgent if ticket.task.urgent else self.bulk_window - bulk
            if free > 0 and (best is None or _rank(ticket) < _rank(best)):
                best = ticket
        if best is not None:
            best.owner.ready.popleft()
        return best


def _rank(ticket: Ticket) -> tuple[bool, int, int]:
    return (not ticket.task.urgent, -ticket.priority, ticket.owner.order)
