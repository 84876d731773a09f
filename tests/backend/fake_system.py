"""A system for tests of the backend: each step says what the worker is to do.

Nothing in the product knows of it. The client's side is registered by a fixture; in the
worker a payload registers it when it is unpickled, which is before the engine looks it up.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from napari_cellpath.core.errors import JobCancelledError, OutsideImageError
from napari_cellpath.core.vocabulary import Priority, System
from napari_cellpath.systems.catalogue import SYSTEMS
from napari_cellpath.systems.protocol import ModelRef, SystemEntry, Task

SYSTEM = System.HSPNET  # stands in for it in these tests, and is put back
ENTRY = SystemEntry(plan="fake_system:FakePlan", predictor="fake_system:FakePredictor")
MODEL = ModelRef("fake", "/nowhere", "0" * 64)


@dataclass(frozen=True)
class Step:
    """One task: ``do`` names the action below, ``value`` is its argument."""

    do: str
    value: Any = None
    urgent: bool = False
    priority: int = Priority.BATCH
    model: ModelRef = MODEL


class Payload:
    """A step that brings its system along."""

    def __init__(self, step: Step) -> None:
        self.step = step

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrive, (self.step,)


def _arrive(step: Step) -> Payload:
    SYSTEMS[SYSTEM] = ENTRY
    return Payload(step)


@dataclass(frozen=True, eq=False)
class FakeRequest:
    """Run these steps; the results are their outputs, in order."""

    steps: tuple[Step, ...]
    target: str = ""
    system: System = SYSTEM
    log: list[str] = field(default_factory=list)


def request(*steps: Step, target: str = "") -> FakeRequest:
    return FakeRequest(tuple(steps), target)


def bulk(seconds: float, number: int, target: str = "") -> FakeRequest:
    return request(*[Step("sleep", seconds) for _ in range(number)], target=target)


class FakePlan:
    """Hands the steps out in order; a value of "bad plan" cannot be planned."""

    def __init__(self, request: FakeRequest) -> None:
        if any(s.do == "bad plan" for s in request.steps):
            raise OutsideImageError("Point 0 lies outside the image a.png.")
        if any(s.do == "slow plan" for s in request.steps):
            time.sleep(0.3)
        self.request = request
        self.target = request.target or f"request:{id(request)}"
        self._taken = 0
        self._outputs: dict[int, Any] = {}
        self._numbers: dict[int, int] = {}
        self.most_out = 0
        PLANS.append(self)

    def take(self) -> Task | None:
        if self._taken == len(self.request.steps):
            return None
        step = self.request.steps[self._taken]
        task = Task(SYSTEM, step.model, Payload(step), step.priority, step.urgent)
        self._numbers[id(task)] = self._taken
        self._taken += 1
        return task

    def give(self, task: Task, output: Any) -> list[Any]:
        self._outputs[self._numbers[id(task)]] = output
        return [output]

    @property
    def finished(self) -> bool:
        return len(self._outputs) == len(self.request.steps)

    @property
    def progress(self) -> float:
        return len(self._outputs) / max(1, len(self.request.steps))

    def results(self) -> list[Any]:
        return [self._outputs[i] for i in sorted(self._outputs)]


PLANS: list[FakePlan] = []


class FakePredictor:
    """Does what the step says; a model named ``slow`` takes a while to load."""

    loads = 0
    memory_bytes = 100
    _running = 0
    _most_running = 0
    _lock = threading.Lock()

    def __init__(self, device: Any, precision: str) -> None:
        self.device, self.precision = device, precision

    @classmethod
    def load(cls, ref: ModelRef, device: Any, precision: str) -> FakePredictor:
        if ref.name == "slow":
            time.sleep(0.3)
        FakePredictor.loads += 1
        return cls(device, precision)

    def warm_up(self, forward: Any) -> None:
        import torch

        forward(torch.nn.Linear(4, 2), torch.zeros(3, 4), lambda: False)

    def run(self, payload: Payload, forward: Any, stop: Any) -> Any:
        with FakePredictor._lock:
            FakePredictor._running += 1
            FakePredictor._most_running = max(FakePredictor._most_running, FakePredictor._running)
        try:
            action = getattr(self, "do_" + payload.step.do.replace(" ", "_"))
            return action(payload.step.value, forward, stop)
        finally:
            with FakePredictor._lock:
                FakePredictor._running -= 1

    def do_square(self, value: Any, forward: Any, stop: Any) -> Any:
        return value**2

    def do_sleep(self, seconds: float, forward: Any, stop: Any) -> float:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if stop():
                raise JobCancelledError("The job was cancelled.")
            time.sleep(min(0.02, seconds))
        return time.time()

    def do_now(self, value: Any, forward: Any, stop: Any) -> float:
        return time.time()

    def do_slow_plan(self, value: Any, forward: Any, stop: Any) -> float:
        return time.time()

    def do_pid(self, value: Any, forward: Any, stop: Any) -> int:
        return os.getpid()

    def do_threads(self, value: Any, forward: Any, stop: Any) -> int:
        import torch

        return torch.get_num_threads()

    def do_running(self, value: Any, forward: Any, stop: Any) -> int:
        """How many tasks run at this moment, this one not counted."""
        return FakePredictor._running - 1

    def do_fail(self, error: tuple[type[Exception], str], forward: Any, stop: Any) -> None:
        kind, message = error
        raise kind(message)

    def do_hold_the_interpreter(self, value: Any, forward: Any, stop: Any) -> None:
        """Keep the GIL for a minute: no other thread of the worker can notice anything."""
        sum(range(10**11))

    def do_die(self, value: Any, forward: Any, stop: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def do_die_once(self, marker: str, forward: Any, stop: Any) -> str:
        with contextlib.suppress(FileExistsError):
            os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
            os.kill(os.getpid(), signal.SIGKILL)
        return "survived"

    def do_network(self, values: Any, forward: Any, stop: Any) -> Any:
        import torch

        torch.manual_seed(0)
        with torch.no_grad():
            return forward(torch.nn.Linear(4, 2), torch.tensor(values), stop).cpu().numpy()
