"""What runs inside the worker process, as plain functions Dask can name.

The scheduler imports this module too (it unpickles the functions' names), so it imports
torch and the systems only inside the functions. Tasks travel as bytes, which the scheduler
passes on unopened.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from dataclasses import dataclass
from traceback import format_exc
from typing import TYPE_CHECKING, Any

from distributed import get_worker
from distributed.protocol import deserialize_bytes

from napari_cellpath.backend.job import WorkerStatus
from napari_cellpath.core.errors import CellpathError
from napari_cellpath.core.vocabulary import System
from napari_cellpath.systems.protocol import ModelRef, StopCheck, load_object

if TYPE_CHECKING:
    from napari_cellpath.backend.engine import Engine

log = logging.getLogger(__name__)

NOTICE_TOPIC = "cellpath-notice"


@dataclass(frozen=True)
class EngineOptions:
    """How the client wants its engine; equal options share one."""

    device: str = "auto"
    precision: str = "auto"
    memory_budget_bytes: int | None = None


_engines: dict[EngineOptions, Engine] = {}
_lock = threading.Lock()


@dataclass(frozen=True)
class TaskFailure:
    """An exception as plain strings.

    Exceptions themselves do not travel safely: one that also is a MemoryError (as
    `ImageTooLargeError` is) cannot be unpickled, and would break the client's connection.
    """

    kind: str  # module:name of the class
    message: str
    traceback: str

    @classmethod
    def of(cls, error: Exception) -> TaskFailure:
        """Describe an exception; what is not ours is also written to the worker's log."""
        if not isinstance(error, CellpathError):
            log.error("A task failed.", exc_info=error)
        kind = type(error)
        return cls(f"{kind.__module__}:{kind.__name__}", str(error), format_exc())

    def ours(self) -> CellpathError | None:
        """The user's error again, with its class; None for any other exception."""
        if not self.kind.startswith("napari_cellpath."):
            return None
        kind = load_object(self.kind)
        return kind(self.message) if issubclass(kind, CellpathError) else None


def run_task(task: bytes, options: EngineOptions) -> Any:
    """Execute one serialised `Task`; ends early once its client no longer wants it.

    Returns
    -------
    Any
        The system's output, or a `TaskFailure`.
    """
    try:
        return _engine(options).execute(deserialize_bytes(task), stop_check())
    except Exception as error:
        return TaskFailure.of(error)


def warm_up(system: System, model: ModelRef, options: EngineOptions) -> TaskFailure | None:
    """Load a model and run it once."""
    try:
        _engine(options).warm_up(system, model)
    except Exception as error:
        return TaskFailure.of(error)
    return None


def engine_status(options: EngineOptions) -> WorkerStatus:
    """Status of the engine; makes it if there is none yet, so that the device is known."""
    return _engine(options).status()


async def free_memory() -> None:
    """Drop the loaded models of every engine in this process.

    Called on the worker's event loop, which must not wait for a model being loaded.
    """
    await asyncio.to_thread(_free_all)


def _free_all() -> None:
    with _lock:
        engines = list(_engines.values())
    for engine in engines:
        engine.free_memory()


def stop_check() -> StopCheck:
    """Poll the worker's own record of the running task: no message, about 10 µs a call.

    A cancelled future leaves the state ``executing``. ``worker.state`` is not documented by
    Dask; this is the one place that reads it, and a test watches over it.
    """
    worker = get_worker()
    key = worker.get_current_task()

    def stop() -> bool:
        return getattr(worker.state.tasks.get(key), "state", "gone") != "executing"

    return stop


def _engine(options: EngineOptions) -> Engine:
    from napari_cellpath.backend.engine import Engine

    with _lock:
        if options not in _engines:
            worker = get_worker()
            _engines[options] = Engine(
                options.device,
                options.precision,
                options.memory_budget_bytes,
                notify=lambda sentence: worker.log_event(NOTICE_TOPIC, sentence),
            )
        return _engines[options]
