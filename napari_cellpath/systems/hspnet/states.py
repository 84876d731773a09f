"""The worker's states of running regions: found by name, taken by one task at a time, in order.

A state is a cache. One that is gone (another process, a cancel, too many regions, freed memory)
is built again from the source; the plan sees to it.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from napari_cellpath.core.errors import JobCancelledError
from napari_cellpath.systems.hspnet.payloads import RegionPayload
from napari_cellpath.systems.hspnet.strips import Strips
from napari_cellpath.systems.protocol import StopCheck

MAX_STATES = 4
PATIENCE = 10.0
"""Seconds a task waits for the one before it, which another thread has."""


class _State:
    def __init__(self, epoch: int, strips: Strips) -> None:
        self.epoch = epoch
        self.strips = strips
        self.next = 0
        self.busy = False


class States:
    """Region states by run; safe to use from several threads."""

    def __init__(self) -> None:
        self._held: OrderedDict[str, _State] = OrderedDict()
        self._changed = threading.Condition()

    @property
    def memory_bytes(self) -> int:
        """Of all of them."""
        with self._changed:
            return sum(state.strips.memory_bytes for state in self._held.values())

    @contextmanager
    def taken(
        self, payload: RegionPayload, make: Callable[[], Strips], stop: StopCheck
    ) -> Iterator[Strips | None]:
        """The sums a task goes on with, for it alone; None if they are not here.

        Whatever ends the block by an exception (a cancel among them) also ends the state: its
        sums may hold a part of the task.
        """
        state = self._take(payload, make, stop)
        if state is None:
            yield None
            return
        done = False
        try:
            yield state.strips
            done = True
        finally:
            with self._changed:
                state.busy = False
                if done:
                    state.next = payload.number + 1
                elif self._held.get(payload.run) is state:
                    del self._held[payload.run]
                self._changed.notify_all()

    def end(self, run: str) -> None:
        """Forget a run that is finished."""
        with self._changed:
            self._held.pop(run, None)

    def _take(
        self, payload: RegionPayload, make: Callable[[], Strips], stop: StopCheck
    ) -> _State | None:
        deadline = time.monotonic() + PATIENCE
        with self._changed:
            if payload.number == 0:
                self._held.pop(payload.run, None)
                state: _State | None = _State(payload.epoch, make())
                assert state is not None  # noqa: S101
                self._held[payload.run] = state
                while len(self._held) > MAX_STATES:
                    self._held.popitem(last=False)
            while True:
                state = self._held.get(payload.run)
                if state is None or state.epoch != payload.epoch or state.next > payload.number:
                    return None
                if state.next == payload.number and not state.busy:
                    state.busy = True
                    self._held.move_to_end(payload.run)
                    return state
                if time.monotonic() > deadline:
                    return None
                self._changed.wait(0.02)
                if stop():
                    raise JobCancelledError("The job was cancelled.")
