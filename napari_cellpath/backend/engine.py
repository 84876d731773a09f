"""The worker's side: loaded models, the device, and the one way a network is run.

One engine serves all threads of a process. It never raises the batch again after memory ran
out once, and it never lets the batch composition depend on anything but the task itself.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from typing import Any
from weakref import WeakKeyDictionary

import psutil
import torch

from napari_cellpath.backend.device import choose_device, cpu_threads
from napari_cellpath.backend.job import WorkerStatus
from napari_cellpath.core.errors import BackendError, JobCancelledError
from napari_cellpath.core.vocabulary import System
from napari_cellpath.systems.protocol import (
    ModelRef,
    Predictor,
    StopCheck,
    Task,
    entry,
    load_object,
)

log = logging.getLogger(__name__)

CPU_SHARE, CUDA_SHARE = 0.25, 0.5
"""Default memory budget of loaded models, as a share of what the machine or the card has."""


class Engine:
    """Runs tasks with the models they name; safe to use from several threads.

    Parameters
    ----------
    device, precision
        See `napari_cellpath.backend.device.choose_device`.
    memory_budget_bytes
        What loaded models may hold together; the least recently used go first. One model is
        always kept, however large. None takes a quarter of the machine's memory, or half of
        the graphics card's.
    notify
        Called with sentences the user must read, e.g. that the graphics card was lost.

    Raises
    ------
    CellpathError
        The device or precision does not exist or does not work.
    """

    def __init__(
        self,
        device: str = "auto",
        precision: str = "auto",
        memory_budget_bytes: int | None = None,
        notify: Callable[[str], None] = log.warning,
    ) -> None:
        self._asked = (device, precision)
        self._notify = notify
        self._lock = threading.Lock()
        self._models: OrderedDict[tuple[System, ModelRef], Predictor] = OrderedDict()
        self._loading: dict[tuple[System, ModelRef], threading.Lock] = {}
        self._way = RightOfWay()
        self._use(device, precision)
        self._budget = memory_budget_bytes or self._default_budget()

    def _use(self, device: str, precision: str) -> None:
        self._choice = choose_device(device, precision)
        self.forward = BatchedForward(self._choice.device, self._choice.precision)
        if self._choice.notice:
            self._notify(self._choice.notice)

    def _default_budget(self) -> int:
        if self._choice.device.type == "cuda":
            total = torch.cuda.get_device_properties(self._choice.device).total_memory
            return int(total * CUDA_SHARE)
        return int(psutil.virtual_memory().total * CPU_SHARE)

    def execute(self, task: Task, stop: StopCheck) -> Any:
        """Compute one task's output.

        Raises
        ------
        JobCancelledError
            ``stop()`` became true.
        CellpathError
            The model cannot be loaded, the image cannot be read.
        """
        with self._way.urgent() if task.urgent else nullcontext():
            check = stop if task.urgent else self._way.courteous(stop)
            return self._guarded(
                lambda: self.predictor(task.system, task.model).run(
                    task.payload, self.forward, check
                )
            )

    def warm_up(self, system: System, model: ModelRef) -> None:
        """Load a model and run it once, so that the first request does not pay for it."""
        self._guarded(lambda: self.predictor(system, model).warm_up(self.forward))

    def _guarded(self, compute: Callable[[], Any]) -> Any:
        # Per task, because torch.set_num_threads does not reach a thread that has already
        # computed, and the pool hands tasks to whichever thread is free.
        torch.set_num_threads(cpu_threads())
        try:
            return compute()
        except RuntimeError as error:
            if isinstance(error, BackendError) or not self._device_lost(error):
                raise
            self._leave_device(error)
        return compute()

    def _device_lost(self, error: RuntimeError) -> bool:
        if self._choice.device.type != "cuda" or _out_of_memory(error):
            return False
        return isinstance(error, getattr(torch, "AcceleratorError", ())) or "CUDA error" in str(
            error
        )

    def _leave_device(self, error: RuntimeError) -> None:
        """After a lost graphics card: go on with the CPU if the user left us the choice."""
        if self._asked[0] != "auto":
            first_line = str(error).splitlines()[0]
            raise BackendError(
                f"The device '{self._asked[0]}' was lost while computing ({first_line}). "
                "Restart, or use --device cpu."
            ) from error
        with self._lock:
            if self._choice.device.type == "cpu":
                return  # the other thread has done it
            self._models.clear()
            self._use("cpu", self._asked[1])
            self._budget = self._default_budget()
        self._notify("The graphics card was lost while computing; computing on the CPU instead.")

    def predictor(self, system: System, model: ModelRef) -> Predictor:
        """The loaded model, from the cache or from disk; two threads never load the same one."""
        key = (system, model)
        with self._lock:
            loading = self._loading.setdefault(key, threading.Lock())
        with loading:
            with self._lock:
                if key in self._models:
                    self._models.move_to_end(key)
                    return self._models[key]
            kind = load_object(entry(system).predictor)
            loaded: Predictor = kind.load(model, self._choice.device, self._choice.precision)
            with self._lock:
                self._models[key] = loaded
                self._evict()
        return loaded

    def _evict(self) -> None:
        held = sum(p.memory_bytes for p in self._models.values())
        while held > self._budget and len(self._models) > 1:
            _, dropped = self._models.popitem(last=False)
            held -= dropped.memory_bytes

    def free_memory(self) -> None:
        """Drop every loaded model and give the device's memory back."""
        with self._lock:
            self._models.clear()
            self._loading = {k: v for k, v in self._loading.items() if v.locked()}
        gc.collect()
        if self._choice.device.type == "cuda":
            torch.cuda.empty_cache()
        elif self._choice.device.type == "mps":
            torch.mps.empty_cache()
        _return_freed_pages()

    def status(self) -> WorkerStatus:
        """What this process holds and computes with."""
        with self._lock:
            models = tuple(model.label for _, model in self._models)
        if self._choice.device.type == "cuda":
            memory = torch.cuda.memory_allocated(self._choice.device)
        else:
            memory = psutil.Process().memory_info().rss
        return WorkerStatus(
            alive=True,
            device=str(self._choice.device),
            precision=self._choice.precision,
            device_name=self._choice.name,
            memory_bytes=int(memory),
            models=models,
        )


class RightOfWay:
    """Bulk tasks pause between batches while somebody waits for an urgent one.

    Both would otherwise share the cores, and a click's first answer would take twice as long
    while a field is being scored.
    """

    LONGEST = 2.0  # seconds a bulk task waits at a time, so that clicks cannot starve it

    def __init__(self) -> None:
        self._free = threading.Condition()
        self._urgent = 0

    @contextmanager
    def urgent(self) -> Iterator[None]:
        """Have the way while the block runs."""
        with self._free:
            self._urgent += 1
        try:
            yield
        finally:
            with self._free:
                self._urgent -= 1
                self._free.notify_all()

    def courteous(self, stop: StopCheck) -> StopCheck:
        """Wrap a bulk task's stop check, polled between batches, so that it gives way first."""

        def check() -> bool:
            deadline = time.monotonic() + self.LONGEST
            with self._free:
                while self._urgent and time.monotonic() < deadline and not stop():
                    self._free.wait(0.05)
            return stop()

        return check


class BatchedForward:
    """Run a module over a batch (`napari_cellpath.systems.protocol.Forward`).

    The batch is a tensor or NumPy array, or a tuple, list or mapping of them, all with the
    same first dimension; the output stays on the device. When memory runs out, the batch is
    halved and stays halved for that module: the parts' outputs are joined, so the answer is
    that of the whole batch.
    """

    def __init__(self, device: torch.device, precision: str) -> None:
        self.device = device
        self.precision = precision
        self._largest: WeakKeyDictionary[Any, int] = WeakKeyDictionary()

    def __call__(self, module: Any, batch: Any, stop: StopCheck) -> Any:
        """Run ``module`` on ``batch``; raises JobCancelledError once ``stop()`` is true."""
        total = _length(batch)
        outputs: list[Any] = []
        done = 0
        while done < total or not outputs:
            if stop():
                raise JobCancelledError("The job was cancelled.")
            size = min(total - done, self._largest.get(module, total))
            try:
                outputs.append(self._run(module, _part(batch, done, done + size)))
            except (RuntimeError, MemoryError) as error:
                if not _out_of_memory(error) or size <= 1:
                    raise
                self._largest[module] = max(1, size // 2)
            else:
                done += size
                continue
            # Outside the except block: the traceback holds the failed batch's activations.
            gc.collect()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
        return outputs[0] if len(outputs) == 1 else _join(outputs)

    def _run(self, module: Any, part: Any) -> Any:
        part = _map(part, lambda t: torch.as_tensor(t).to(self.device, non_blocking=True))
        bf16 = self.precision == "bf16"
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=bf16),
        ):
            return module(part)


def _return_freed_pages() -> None:
    """Hand what malloc keeps back to the system; the worker's malloc is told to keep a lot."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # no glibc, no such function
            ctypes.CDLL("libc.so.6").malloc_trim(0)


def _out_of_memory(error: BaseException) -> bool:
    # The CPU's allocator raises a plain RuntimeError; only its words tell.
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


def _map(value: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, Mapping):
        return {k: _map(v, change) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_map(v, change) for v in value)
    return change(value)


def _length(batch: Any) -> int:
    while isinstance(batch, Mapping | tuple | list):
        batch = next(iter(batch.values() if isinstance(batch, Mapping) else batch))
    return int(batch.shape[0])


def _part(batch: Any, start: int, stop: int) -> Any:
    if start == 0 and stop == _length(batch):
        return batch
    return _map(batch, lambda t: t[start:stop])


def _join(parts: list[Any]) -> Any:
    first = parts[0]
    if isinstance(first, Mapping):
        return {k: _join([p[k] for p in parts]) for k in first}
    if isinstance(first, tuple | list):
        return type(first)(_join(list(group)) for group in zip(*parts, strict=True))
    return torch.cat(parts)
