"""Which job answers for which nucleus: late answers of superseded jobs are dropped by uid.

Used on the main thread only; events arrive through the door.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from napari_cellpath.backend.job import Job, JobEvent, JobState
from napari_cellpath.bridge.nuclei import NucleiLayer
from napari_cellpath.bridge.timing import timed
from napari_cellpath.core.errors import CellpathError
from napari_cellpath.core.requests import NucleusRequest
from napari_cellpath.core.results import NucleusCall


@dataclass(eq=False)
class Asked:
    """One job under way and what it was asked."""

    nuclei: NucleiLayer
    uids: set[str]
    settings: tuple[Any, ...]
    many: bool
    job: Job | None = None
    progress: float = 0.0
    seconds_left: float | None = None


@dataclass
class Outcome:
    """What a delivery of events amounted to."""

    failures: list[CellpathError] = field(default_factory=list)
    ended: list[Asked] = field(default_factory=list)


class JobBook:
    """Jobs under way for one dock.

    Parameters
    ----------
    submit
        Hands a request to the backend, with the door as listener.
    """

    def __init__(self, submit: Callable[[NucleusRequest], Job]) -> None:
        self._submit = submit
        self._by_job: dict[Job, Asked] = {}
        self._owner: dict[str, Asked] = {}

    def __len__(self) -> int:
        return len(self._by_job)

    @property
    def nuclei_under_way(self) -> int:
        """How many nuclei an answer or a better one is expected for."""
        return len(self._owner)

    @property
    def progress(self) -> float:
        """Fraction done of all that is under way, each nucleus counting the same."""
        total = sum(len(a.uids) for a in self._by_job.values())
        return sum(len(a.uids) * a.progress for a in self._by_job.values()) / max(total, 1)

    @property
    def seconds_left(self) -> float | None:
        """Time until the last of them ends, as far as it can be told."""
        known = [a.seconds_left for a in self._by_job.values() if a.seconds_left is not None]
        return max(known) if known else None

    def busy_with_many(self, nuclei: NucleiLayer) -> bool:
        """Whether a job for a whole field of this layer runs; a second would end the first."""
        return any(a.many and a.nuclei is nuclei for a in self._by_job.values())

    def ask(self, nuclei: NucleiLayer, request: NucleusRequest, settings: tuple[Any, ...]) -> None:
        """Submit a request; from now on only its job answers for its nuclei."""
        uids = {nucleus.uid for nucleus in request.nuclei}
        asked = Asked(nuclei, uids, settings, many=len(uids) > 1)
        self.forget(uids)
        for uid in uids:
            self._owner[uid] = asked
        asked.job = self._submit(request)
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

    def drop(self, nuclei: NucleiLayer) -> None:
        """A layer is gone: cancel what was asked for it."""
        self.forget([uid for uid, asked in self._owner.items() if asked.nuclei is nuclei])

    def cancel_all(self) -> None:
        """Ask every job to stop; they leave when their last event has come."""
        for asked in list(self._by_job.values()):
            if asked.job is not None:
                asked.job.cancel()

    @timed
    def deliver(self, events: list[JobEvent]) -> Outcome:
        """Write what arrived, latest estimate of each nucleus only, and close ended jobs."""
        outcome = Outcome()
        calls: dict[tuple[NucleiLayer, tuple[Any, ...]], dict[str, NucleusCall]] = defaultdict(dict)
        ended: list[tuple[Asked, JobEvent]] = []
        for event in events:
            asked = self._by_job.get(event.job)
            if asked is None:
                continue
            asked.progress, asked.seconds_left = event.progress, event.seconds_left
            for call in event.results:
                if self._owner.get(call.uid) is asked:
                    calls[asked.nuclei, asked.settings][call.uid] = call
            if event.state.final:
                ended.append((asked, event))
                del self._by_job[event.job]
        for (nuclei, settings), by_uid in calls.items():
            nuclei.write(list(by_uid.values()), settings)
        for asked, event in ended:
            waiting = [uid for uid in asked.uids if self._owner.get(uid) is asked]
            for uid in waiting:
                del self._owner[uid]
            asked.nuclei.mark_pending(waiting, pending=False)
            outcome.ended.append(asked)
            if event.state is JobState.FAILED and event.error is not None:
                outcome.failures.append(event.error)
        return outcome
