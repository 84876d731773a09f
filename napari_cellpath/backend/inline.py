"""The same interface in the same process, without threads: for unit tests and scripts."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from napari_cellpath.backend.device import check_names
from napari_cellpath.backend.failures import as_user_error
from napari_cellpath.backend.job import Job, JobState, Listener, WorkerStatus
from napari_cellpath.core.errors import BackendError, JobCancelledError
from napari_cellpath.systems.protocol import ModelRef, Plan, Task, make_plan

AHEAD = 2  # tasks looked at together, so that an urgent one need not wait behind another


class InlineBackend:
    """Runs every request to its end inside `submit`, on the caller's thread.

    Events come on that thread, too. A listener may cancel the job, or submit another.

    Parameters
    ----------
    device, precision, memory_budget_bytes
        As for `napari_cellpath.backend.dask_backend.DaskBackend`.
    """

    def __init__(
        self,
        device: str = "auto",
        precision: str = "auto",
        *,
        memory_budget_bytes: int | None = None,
    ) -> None:
        check_names(device, precision)
        self._options = (device, precision, memory_budget_bytes)
        self._engine: Any = None
        self._lock = threading.RLock()  # reentrant: a listener may submit
        self._running: dict[str, Job] = {}
        self._cancelled: set[Job] = set()
        self._notice_listeners: list[Callable[[str], None]] = []
        self._closed = False

    def submit(
        self, request: Any, *, priority: int | None = None, listener: Listener | None = None
    ) -> Job:
        """Run a request; the job that is returned has ended. ``priority`` changes nothing."""
        job = Job(request, "", self._cancelled.add)
        if listener is not None:
            job.add_listener(listener)
        with self._lock:
            try:
                self._run(job)
            except JobCancelledError:
                job.ended(JobState.CANCELLED)
            except Exception as error:
                what = f"The {type(request).__name__} failed"
                job.ended(JobState.FAILED, as_user_error(error, what))
            finally:
                self._cancelled.discard(job)
                if self._running.get(job.target) is job:
                    del self._running[job.target]
        return job

    def _run(self, job: Job) -> None:
        if self._closed:
            raise BackendError("The inference backend has been closed.")
        plan = make_plan(job.request)
        job.target = plan.target
        stale = self._running.get(plan.target)
        if stale is not None:
            stale.cancel()
        self._running[plan.target] = job
        engine = self._make_engine()
        job.started()
        waiting: list[Task] = []

        def stop() -> bool:
            return job in self._cancelled

        while not plan.finished:
            if stop():
                raise JobCancelledError("The job was cancelled.")
            task = _next_task(plan, waiting)
            if task is None:
                raise BackendError("The request has no task left but is not finished.")
            changed = plan.give(task, engine.execute(task, stop))
            job.advanced(changed, plan.results(), plan.progress)
        job.advanced((), plan.results(), 1.0)
        job.ended(JobState.DONE)

    def _make_engine(self) -> Any:
        if self._engine is None:
            from napari_cellpath.backend.engine import Engine

            self._engine = Engine(*self._options, notify=self._notify)
        return self._engine

    def warm_up(self, model: str) -> None:
        """Load a model now.

        Raises
        ------
        CellpathError
            There is no such model, or it cannot be loaded.
        """
        from napari_cellpath.models import find_model

        found = find_model(model)
        ref = ModelRef(found.name, str(found.folder), found.info.sha256)
        with self._lock:
            self._make_engine().warm_up(found.info.system, ref)

    def free_memory(self) -> None:
        """Drop every loaded model."""
        if self._engine is not None:
            self._engine.free_memory()

    def status(self) -> WorkerStatus:
        """What this process holds; ``alive`` once a request has been run."""
        if self._engine is None:
            return WorkerStatus(alive=False)
        status: WorkerStatus = self._engine.status()
        return status

    def add_notice_listener(self, listener: Callable[[str], None]) -> None:
        """Call ``listener`` with sentences for the user."""
        self._notice_listeners.append(listener)

    def _notify(self, sentence: str) -> None:
        for listener in self._notice_listeners:
            listener(sentence)

    def close(self) -> None:
        """Drop the models; later requests fail."""
        for job in list(self._running.values()):
            job.cancel()
        self._closed = True
        self.free_memory()


def _next_task(plan: Plan, waiting: list[Task]) -> Task | None:
    while len(waiting) < AHEAD and (task := plan.take()) is not None:
        waiting.append(task)
    if not waiting:
        return None
    chosen = max(waiting, key=lambda t: (t.urgent, t.priority))
    waiting.remove(chosen)
    return chosen
