"""Which job answers for which object: late answers of superseded jobs are dropped by uid.

Used on the main thread only; events arrive through the door.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from napari_cellpath.backend.job import Job, JobEvent, JobState
from napari_cellpath.bridge.objects import ObjectLayer
from napari_cellpath.bridge.timing import timed
from napari_cellpath.core.errors import CellpathError

MOST_WRITTEN = 120  # answers written at once: 8 to 10 ms with the journal; more would be felt


@dataclass(eq=False)
class Asked:
    """One job under way and what it was asked."""

    objects: ObjectLayer
    uids: set[str]
    settings: tuple[Any, ...]
    many: bool
    job: Job | None = None
    progress: float = 0.0
    seconds_left: float | None = None


@dataclass
class Outcome:
    """What a delivery of events amounted to; ``more`` if answers are still to be written."""

    failures: list[CellpathError] = field(default_factory=list)
    ended: list[Asked] = field(default_factory=list)
    more: bool = False


class JobBook:
    """Jobs under way for one dock.

    Parameters
    ----------
    submit
        Hands a request to the backend, with the door as listener.
    """

    def __init__(self, submit: Callable[[Any], Job]) -> None:
        self._submit = submit
        self._by_job: dict[Job, Asked] = {}
        self._owner: dict[str, Asked] = {}
        self._unwritten: dict[str, tuple[Asked, Any]] = {}
        self._ending: list[tuple[Asked, JobEvent]] = []

    def __len__(self) -> int:
        return len(self._by_job) + len(self._ending)

    @property
    def under_way(self) -> int:
        """How many objects an answer or a better one is expected for."""
        return len(self._owner)

    @property
    def progress(self) -> float:
        """Fraction done of all that is under way, each object counting the same."""
        total = sum(len(a.uids) for a in self._by_job.values())
        return sum(len(a.uids) * a.progress for a in self._by_job.values()) / max(total, 1)

    @property
    def seconds_left(self) -> float | None:
        """Time until the last of them ends, as far as it can be told."""
        known = [a.seconds_left for a in self._by_job.values() if a.seconds_left is not None]
        return max(known) if known else None

    def busy_with_many(self, objects: ObjectLayer) -> bool:
        """Whether a job for a whole field of this layer runs; a second would end the first."""
        return any(a.many and a.objects is objects for a in self._by_job.values())

    def ask(
        self,
        objects: ObjectLayer,
        uids: Iterable[str],
        request: Any,
        settings: tuple[Any, ...],
        job: Job | None = None,
    ) -> None:
        """Submit a request; from now on only its job answers for these objects.

        ``job`` is given where the request was submitted before.
        """
        uids = set(uids)
        asked = Asked(objects, uids, settings, many=len(uids) > 1)
        self.forget(uids)
        for uid in uids:
            self._owner[uid] = asked
        asked.job = self._submit(request) if job is None else job
        self._by_job[asked.job] = asked

    def forget(self, uids: Iterable[str]) -> None:
        """Nobody waits for these any more; a job that nobody waits for is cancelled."""
        touched: set[Asked] = set()
        for uid in uids:
            asked = self._owner.pop(uid, None)
            if asked is not None:
                asked.uids.discard(uid)
                touched.add(asked)
        for asked in touched:
            if not asked.uids and asked.job is not None:
                self._by_job.pop(asked.job, None)
                asked.job.cancel()

    def drop(self, objects: ObjectLayer) -> None:
        """A layer is gone: cancel what was asked for it."""
        self.forget([uid for uid, asked in self._owner.items() if asked.objects is objects])

    def cancel_all(self) -> None:
        """Ask every job to stop; they leave when their last event has come."""
        for asked in list(self._by_job.values()):
            if asked.job is not None:
                asked.job.cancel()

    @timed
    def deliver(self, events: Sequence[JobEvent]) -> Outcome:
        """Take in what arrived and write a part of it, then close jobs that left nothing."""
        for event in events:
            asked = self._by_job.get(event.job)
            if asked is None:
                continue
            asked.progress, asked.seconds_left = event.progress, event.seconds_left
            for call in event.results:
                if self._owner.get(call.uid) is asked:
                    self._unwritten[call.uid] = asked, call  # the latest estimate only
            if event.state.final:
                self._ending.append((asked, event))
                del self._by_job[event.job]
        self._write()
        outcome = Outcome(more=bool(self._unwritten))
        if self._unwritten:
            return outcome
        ending, self._ending = self._ending, []
        for asked, event in ending:
            waiting = [uid for uid in asked.uids if self._owner.get(uid) is asked]
            for uid in waiting:
                del self._owner[uid]
            asked.objects.mark_pending(waiting, pending=False)
            outcome.ended.append(asked)
            if event.state is JobState.FAILED and event.error is not None:
                outcome.failures.append(event.error)
        return outcome

    def _write(self) -> None:
        calls: dict[tuple[ObjectLayer, tuple[Any, ...]], list[Any]] = defaultdict(list)
        for uid in list(islice(self._unwritten, MOST_WRITTEN)):
            asked, call = self._unwritten.pop(uid)
            if self._owner.get(uid) is asked:
                calls[asked.objects, asked.settings].append(call)
        for (objects, settings), theirs in calls.items():
            objects.write(theirs, settings)
