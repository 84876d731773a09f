"""The main thread's CPU time inside our callbacks, napari's own work counted apart.

So is Python's search for garbage: a full one goes through everything that the program holds, 0.1 to
0.4 s with napari and ten thousand objects, once in a while, in whatever callback happens to ask
for memory then. Two clock readings a callback (about 1 us): cheap enough to stay on always, so that
a slow dock can be diagnosed where it is slow. ``report()`` gives the percentiles.
"""

from __future__ import annotations

import functools
import gc
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

import numpy as np

P = ParamSpec("P")
R = TypeVar("R")

KEPT = 4096  # latest calls kept a callback
NOT_OURS = ("napari", "garbage")
"""What `report` gives beside our callbacks."""

_own: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=KEPT))
_napari: deque[float] = deque(maxlen=KEPT)
_garbage: deque[float] = deque(maxlen=KEPT)
_running: list[float] = []  # for each callback now running: seconds that are not its own
_searching = 0.0


def timed(function: Callable[P, R]) -> Callable[P, R]:
    """Record the CPU time of every call, without what `napari_call` and inner callbacks took."""
    name = function.__qualname__

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        start = time.thread_time()
        _running.append(0.0)
        try:
            return function(*args, **kwargs)
        finally:
            elapsed = time.thread_time() - start
            _own[name].append(elapsed - _running.pop())
            if _running:
                _running[-1] += elapsed

    return wrapper


@contextmanager
def napari_call() -> Iterator[None]:
    """Mark napari's own work (uploading vertices, redrawing) inside one of our callbacks."""
    start = time.thread_time()
    _running.append(0.0)
    try:
        yield
    finally:
        elapsed = time.thread_time() - start
        _napari.append(elapsed - _running.pop())
        if _running:
            _running[-1] += elapsed


def _on_garbage(phase: str, _info: dict[str, int]) -> None:
    global _searching
    if not _running or threading.current_thread() is not threading.main_thread():
        return
    if phase == "start":
        _searching = time.thread_time()
        return
    elapsed = time.thread_time() - _searching
    _garbage.append(elapsed)
    _running[-1] += elapsed


gc.callbacks.append(_on_garbage)


def report() -> dict[str, dict[str, float]]:
    """Calls, p50, p99 and maximum in milliseconds for each callback.

    ``napari`` is its share, ``garbage`` that of the search for what nobody uses any more.
    """
    rows = {name: list(seconds) for name, seconds in _own.items()}
    rows |= {"napari": list(_napari), "garbage": list(_garbage)}
    return {
        name: {
            "calls": len(seconds),
            "p50": float(np.percentile(seconds, 50) * 1e3),
            "p99": float(np.percentile(seconds, 99) * 1e3),
            "max": float(max(seconds) * 1e3),
        }
        for name, seconds in rows.items()
        if seconds
    }


def reset() -> None:
    """Forget everything recorded so far."""
    _own.clear()
    _napari.clear()
    _garbage.clear()
