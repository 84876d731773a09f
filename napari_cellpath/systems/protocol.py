"""How a system plugs into the backend: a plan on the client, a predictor on the worker.

::

    request ──► Plan.take() ──► Task ──► Predictor.run(task) ──► output ──► Plan.give() ──► results
                (client, no torch)        (worker, torch)                    (client, NumPy)

A plan cuts a request into tasks of 0.2-0.5 s and reduces their outputs. The same plan runs in
the viewer, on the command line and in Python, so equal requests give equal numbers by
construction: which inputs share a batch is decided by the plan alone and never depends on
what else is queued.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Protocol

from napari_cellpath.core.errors import UnknownNameError
from napari_cellpath.core.vocabulary import Priority, System

StopCheck = Callable[[], bool]
"""True once the task should end; polled between batches."""


@dataclass(frozen=True)
class ModelRef:
    """Which weights a task needs: the folder and the hash the worker must find there."""

    name: str
    folder: str
    sha256: str

    @property
    def label(self) -> str:
        """Name and short hash, as written beside results."""
        return f"{self.name}@{self.sha256[:8]}"


@dataclass(frozen=True, eq=False)
class Task:
    """One short piece of work for the engine.

    ``urgent`` tasks answer a waiting person: they may use the worker's reserved thread and
    must take no longer than about 0.1 s. ``payload`` is the system's own and must pickle.
    """

    system: System
    model: ModelRef
    payload: Any
    priority: int = Priority.BATCH
    urgent: bool = False


class Plan(Protocol):
    """The state of one request on the client's side. Not thread-safe; one driver calls it."""

    target: str
    """What the answer is for (uid, box, region): a newer job for it makes this one stale."""

    def take(self) -> Task | None:
        """The next task, or None while outputs are awaited or all tasks are out."""

    def give(self, task: Task, output: Any) -> Sequence[Any]:
        """Take in a task's output; return the results it changed, latest first estimate last."""

    @property
    def finished(self) -> bool:
        """Whether every result is final."""

    @property
    def progress(self) -> float:
        """Fraction done, 0..1, never falling."""

    def results(self) -> Sequence[Any]:
        """All results so far, in the request's order."""


class Predictor(Protocol):
    """A loaded model on a device (worker side)."""

    memory_bytes: int
    """Memory its weights hold, for the engine's budget."""

    def run(self, payload: Any, forward: Forward, stop: StopCheck) -> Any:
        """Compute one task's output; arrays in it are NumPy."""

    def warm_up(self, forward: Forward) -> None:
        """One pass on zeros, so that the first click does not pay for it."""


class Forward(Protocol):
    """The engine's way to run a module over a batch: device, precision, out-of-memory, cancel."""

    def __call__(self, module: Any, batch: Any, stop: StopCheck) -> Any:
        """Run ``module`` on ``batch``; raises JobCancelledError once ``stop()`` is true."""


@dataclass(frozen=True)
class SystemEntry:
    """Where a system's two halves live, as ``module:name``, imported when first needed.

    ``n_classes`` is what its paper tells apart (``classes_of`` an architecture, where that is
    another number), and ``input`` what its networks take, as ``models show`` says it of an
    architecture without weights.
    """

    plan: str
    predictor: str
    architectures: Mapping[str, str] = field(default_factory=dict)
    n_classes: int = 2
    classes_of: Mapping[str, int] = field(default_factory=dict)
    input: Mapping[str, Any] = field(default_factory=dict)


def load_object(target: str) -> Any:
    """Import ``module:name``."""
    module, _, name = target.partition(":")
    return getattr(import_module(module), name)


def make_plan(request: Any) -> Plan:
    """Plan for a request, by its ``system``. Reads the model's card and opens the image.

    Raises
    ------
    CellpathError
        The model or image cannot be used, a point lies outside: nothing has been started.
    """
    plan: Plan = load_object(entry(request.system).plan)(request)
    return plan


def entry(system: System | str) -> SystemEntry:
    """The catalogue entry of a system."""
    from napari_cellpath.systems.catalogue import SYSTEMS

    try:
        return SYSTEMS[System(system)]
    except (KeyError, ValueError):
        known = ", ".join(SYSTEMS)
        raise UnknownNameError(f"There is no system '{system}'. Known: {known}.") from None
