"""Engine: loading, memory budget, batches that do not fit, devices."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import fake_system
import pytest
import torch
from fake_system import MODEL, SYSTEM, FakePredictor, Payload, Step

from napari_cellpath.backend import device as device_module
from napari_cellpath.backend.device import choose_device
from napari_cellpath.backend.engine import BatchedForward, Engine
from napari_cellpath.core.errors import (
    DeviceError,
    JobCancelledError,
    UnknownNameError,
)
from napari_cellpath.systems.protocol import ModelRef, Task


def task(step: Step) -> Task:
    return Task(SYSTEM, step.model, Payload(step))


def never() -> bool:
    return False


def ref(name: str) -> ModelRef:
    return ModelRef(name, f"/{name}", "1" * 64)


def test_two_threads_load_a_model_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks that want the same model at the same time wait for one loading."""
    monkeypatch.setattr(FakePredictor, "loads", 0)
    engine = Engine("cpu", "fp32")
    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(engine.execute, task(Step("square", 3, model=ref("slow"))), never)
                for _ in range(4)]  # fmt: skip
        assert [j.result() for j in jobs] == [9, 9, 9, 9]
    assert FakePredictor.loads == 1


def test_a_failed_load_can_be_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that could not be loaded is not remembered as loading."""
    engine = Engine("cpu", "fp32")
    with monkeypatch.context() as patch:
        patch.setattr(FakePredictor, "load", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            engine.execute(task(Step("square", 3)), never)
    assert engine.execute(task(Step("square", 3)), never) == 9


def test_least_recently_used_model_goes_first() -> None:
    """Beyond the budget the model not used for longest is dropped, never the newest."""
    engine = Engine("cpu", "fp32", memory_budget_bytes=2 * FakePredictor.memory_bytes)
    for name in "abac":
        engine.execute(task(Step("square", 1, model=ref(name))), never)
    assert engine.status().models == ("a@11111111", "c@11111111")
    tight = Engine("cpu", "fp32", memory_budget_bytes=1)
    assert tight.execute(task(Step("square", 2)), never) == 4
    assert tight.status().models == (MODEL.label,)


def test_free_memory_drops_all_models() -> None:
    """After freeing, no model is held and the next task loads again."""
    engine = Engine("cpu", "fp32")
    engine.execute(task(Step("square", 3)), never)
    engine.free_memory()
    assert engine.status().models == ()
    assert engine.execute(task(Step("square", 3)), never) == 9


class Greedy(torch.nn.Module):
    """Runs out of memory above ``limit`` rows."""

    def __init__(self, limit: int, error: type[Exception], words: str = "") -> None:
        super().__init__()
        self.linear = torch.nn.Linear(8, 3)
        self.limit, self.error, self.words = limit, error, words
        self.sizes: list[int] = []

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(rows))
        if len(rows) > self.limit:
            raise self.error(self.words)
        return self.linear(rows)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (torch.OutOfMemoryError, "CUDA out of memory"),
        (MemoryError, ""),
        (RuntimeError, "DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
    ],
)
def test_a_batch_that_does_not_fit_is_halved(error: type[Exception], words: str) -> None:
    """Out of memory halves the batch until it fits, for good, and the answer stays the same."""
    forward = BatchedForward(torch.device("cpu"), "fp32")
    module, rows = Greedy(3, error, words), torch.randn(13, 8)
    expected = module.linear(rows).detach()
    torch.testing.assert_close(forward(module, rows, never), expected, atol=1e-6, rtol=0)
    assert module.sizes == [13, 6, 3, 3, 3, 3, 1]
    module.sizes.clear()
    forward(module, rows, never)
    assert module.sizes == [3, 3, 3, 3, 1]


def test_a_real_refusal_of_the_allocator_is_understood() -> None:
    """The CPU allocator's own error, not only our imitation, halves the batch."""

    class Huge(torch.nn.Module):
        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            torch.empty(2**50 if len(rows) > 1 else 1)
            return rows * 2

    rows = torch.arange(4.0)[:, None]
    answer = BatchedForward(torch.device("cpu"), "fp32")(Huge(), rows, never)
    assert torch.equal(answer, rows * 2)


def test_a_single_row_that_does_not_fit_fails() -> None:
    """With a batch of one there is nothing to halve: the error comes through."""
    forward = BatchedForward(torch.device("cpu"), "fp32")
    with pytest.raises(torch.OutOfMemoryError):
        forward(Greedy(0, torch.OutOfMemoryError), torch.zeros(5, 8), never)


def test_other_errors_are_not_taken_for_memory() -> None:
    """A wrong shape is reported at once, not tried again in halves."""
    module = Greedy(99, RuntimeError)
    with pytest.raises(RuntimeError, match="shapes"):
        BatchedForward(torch.device("cpu"), "fp32")(module, torch.zeros(4, 5), never)
    assert module.sizes == [4]


def test_cancel_between_parts_of_a_batch() -> None:
    """Once stop says so, no further part of the batch is run."""
    forward = BatchedForward(torch.device("cpu"), "fp32")
    module = Greedy(2, torch.OutOfMemoryError)
    forward(module, torch.zeros(8, 8), never)
    module.sizes.clear()
    with pytest.raises(JobCancelledError):
        forward(module, torch.zeros(8, 8), lambda: len(module.sizes) >= 2)
    assert module.sizes == [2, 2]


def test_structured_batches_and_outputs_are_split_and_joined() -> None:
    """Mappings and tuples of arrays go through the halving like a single tensor."""

    class Pair(torch.nn.Module):
        def forward(self, batch: dict[str, Any]) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
            if len(batch["a"]) > 2:
                raise torch.OutOfMemoryError
            return batch["a"] + 1, {"b": batch["b"][0] * 2}

    batch = {"a": torch.arange(5), "b": (torch.arange(5).numpy(),)}
    first, second = BatchedForward(torch.device("cpu"), "fp32")(Pair(), batch, never)
    assert first.tolist() == [1, 2, 3, 4, 5]
    assert second["b"].tolist() == [0, 2, 4, 6, 8]


def test_bf16_computes_in_bf16_only_when_asked() -> None:
    """The precision named is the one the network's products are computed in."""
    rows, module = torch.randn(4, 8), torch.nn.Linear(8, 3)
    device = torch.device("cpu")
    assert BatchedForward(device, "bf16")(module, rows, never).dtype == torch.bfloat16
    assert BatchedForward(device, "fp32")(module, rows, never).dtype == torch.float32


def test_every_task_sets_its_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that computed before with one thread still computes with all cores."""
    engine = Engine("cpu", "fp32")
    monkeypatch.setattr("napari_cellpath.backend.engine.cpu_threads", lambda: 2)
    seen = []

    def work() -> None:
        torch.set_num_threads(1)
        torch.ones(100) @ torch.ones(100)
        seen.append(engine.execute(task(Step("threads")), never))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [2]


def test_unknown_names_are_refused() -> None:
    """A device or precision that does not exist is an error that names those that do."""
    with pytest.raises(UnknownNameError, match=r"'gpu'.*auto, cpu, cuda, mps"):
        choose_device("gpu")
    with pytest.raises(UnknownNameError, match=r"'fp8'.*auto, fp32, bf16"):
        choose_device("cpu", "fp8")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_a_named_device_is_never_replaced() -> None:
    """Asking for CUDA where there is none fails and says so."""
    with pytest.raises(DeviceError, match="'cuda' is not available here"):
        choose_device("cuda")


def test_auto_passes_over_a_broken_card_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """With ``auto``, a card that is there but does not compute costs one notice, not the work."""
    real = device_module._problem
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        device_module, "_problem", lambda d: "CUDA error: no" if d.type == "cuda" else real(d)
    )
    heard: list[str] = []
    engine = Engine("auto", "fp32", notify=heard.append)
    assert heard == ["The graphics card cannot be used (CUDA error: no); "
                     "computing on the CPU instead."]  # fmt: skip
    assert engine.status().device == "cpu"


def test_auto_survives_the_loss_of_the_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """A card lost in the middle of a task: the task is run on the CPU, with one notice."""
    heard: list[str] = []
    engine = Engine("auto", "fp32", notify=heard.append)
    cuda = device_module.DeviceChoice(torch.device("cuda"), "fp32", "card")
    monkeypatch.setattr(engine, "_choice", cuda)
    lost = [RuntimeError("CUDA error: unspecified launch failure")]
    real = FakePredictor.do_square

    def do_square(self: Any, *args: Any) -> Any:
        if lost:
            raise lost.pop()
        return real(self, *args)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(FakePredictor, "do_square", do_square)
    assert engine.execute(task(Step("square", 3)), never) == 9
    assert len(heard) == 1
    assert engine.status().device == "cpu"


@pytest.mark.parametrize(("features", "precision"), [({"avx512_bf16": True}, "bf16"), ({}, "fp32")])
def test_precision_follows_the_processor(
    features: dict[str, bool], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``auto`` computes in bfloat16 exactly where the CPU has instructions for it."""
    monkeypatch.setattr(device_module, "_cpu_features", lambda: features)
    assert choose_device("cpu", "auto").precision == precision
    assert choose_device("cpu", "fp32").precision == "fp32"


def test_the_predictor_comes_from_the_catalogue() -> None:
    """The engine finds the predictor through the catalogue."""
    assert isinstance(Engine("cpu", "fp32").predictor(SYSTEM, MODEL), fake_system.FakePredictor)
