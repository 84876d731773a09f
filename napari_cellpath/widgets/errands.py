"""Jobs about no object of a table: a search for nuclei, an occlusion map, a region of tissue.

Used on the main thread only; events arrive through the door. At most one errand of each kind
runs: a second of the same kind ends the first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from napari_cellpath.backend.job import Job, JobEvent, JobState
from napari_cellpath.core.errors import CellpathError


@dataclass(eq=False)
class Errand:
    """One job under way.

    ``done`` takes the results and whether they are all; a search that was cancelled still gives
    what it had found. ``some`` takes results that are new, as they come.
    """

    kind: str
    title: str
    done: Callable[[Sequence[Any], bool], None]
    some: Callable[[Sequence[Any]], None] | None = None
    job: Job | None = None
    progress: float = 0.0
    seconds_left: float | None = None


class Errands:
    """Errands under way for one dock.

    Parameters
    ----------
    submit
        Hands a request to the backend, with the door as listener.
    """

    def __init__(self, submit: Callable[[Any], Job]) -> None:
        self._submit = submit
        self._by_job: dict[Job, Errand] = {}

    def __len__(self) -> int:
        return len(self._by_job)

    @property
    def under_way(self) -> list[Errand]:
        """Errands that run, in the order in which they were begun."""
        return list(self._by_job.values())

    @property
    def latest(self) -> Errand | None:
        """The errand begun last, to be shown."""
        return next(reversed(self._by_job.values()), None)

    def send(
        self,
        kind: str,
        title: str,
        request: Any,
        done: Callable[[Sequence[Any], bool], None],
        some: Callable[[Sequence[Any]], None] | None = None,
    ) -> None:
        """Submit a request; an errand of the same kind under way is cancelled and forgotten."""
        for job, errand in list(self._by_job.items()):
            if errand.kind == kind:
                del self._by_job[job]
                job.cancel()
        errand = Errand(kind, title, done, some)
        errand.job = self._submit(request)
        self._by_job[errand.job] = errand

    def cancel_all(self) -> None:
        """Ask every errand to stop; they leave when their last event has come."""
        for job in list(self._by_job):
            job.cancel()

    def deliver(self, events: Sequence[JobEvent]) -> list[CellpathError]:
        """Take in events; returns what failed."""
        failures: list[CellpathError] = []
        for event in events:
            errand = self._by_job.get(event.job)
            if errand is None:
                continue
            errand.progress, errand.seconds_left = event.progress, event.seconds_left
            if event.results and errand.some is not None:
                errand.some(event.results)
            if not event.state.final:
                continue
            del self._by_job[event.job]
            if event.state is JobState.FAILED and event.error is not None:
                failures.append(event.error)
            else:
                errand.done(event.job.partial_results, event.state is JobState.DONE)
        return failures
