"""A click's answer, asked for when the mouse button goes down.

napari adds a point when the button comes up, and its own work for that (50 to 120 ms here) is as
long as the network's first answer takes: so both are done at once. What was asked for is taken up
by the point that appears at that very place, and cancelled where none does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from napari_cellpath.backend.job import Job, JobEvent


@dataclass(eq=False)
class Early:
    """One job that no object stands for yet, and what came of it meanwhile."""

    uid: str
    settings: tuple[Any, ...]
    job: Job
    events: list[JobEvent] = field(default_factory=list)


class Ahead:
    """The one request of a dock that is ahead of its object.

    Used on the main thread only. ``submit`` hands a request to the backend.
    """

    def __init__(self, submit: Callable[[Any], Job]) -> None:
        self._submit = submit
        self._early: Early | None = None

    def ask(self, uid: str, request: Any, settings: tuple[Any, ...]) -> None:
        """Ask for what a click on this place would; an earlier one is cancelled."""
        self.drop()
        self._early = Early(uid, settings, self._submit(request))

    def hold(self, events: Sequence[JobEvent]) -> list[JobEvent]:
        """Keep the events that are ahead of their object; returns the others."""
        early = self._early
        if early is None:
            return list(events)
        early.events += [e for e in events if e.job is early.job]
        return [e for e in events if e.job is not early.job]

    def take(self, uid: str, settings: tuple[Any, ...]) -> Early | None:
        """What was asked for this object with these settings; it is the caller's from now on."""
        early = self._early
        if early is None or (early.uid, early.settings) != (uid, settings):
            return None
        self._early = None
        return early

    def drop(self) -> None:
        """Cancel what nobody took."""
        if self._early is not None:
            self._early.job.cancel()
            self._early = None
