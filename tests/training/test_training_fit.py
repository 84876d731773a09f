"""The fit loop learns, stops, resumes, and leaves whole files."""

from __future__ import annotations

import json
import logging
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_cellpath.core.errors import JobCancelledError, ModelError
from tests.training.conftest import draw_cell
from training import checkpoint
from training.augment import cut_window, random_views
from training.deeppap_recipe import Augmentation
from training.fit import Fit, cosine_factor, make_fabric, step_factor


def small_net() -> nn.Module:
    """A few thousand weights, with dropout so that the random state matters."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3), nn.ReLU(),
        nn.Dropout(0.2), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, 2),
    )  # fmt: skip


class Task:
    """Synthetic cells, seen through the real augmentation at 32 x 32."""

    def __init__(self, n: int = 48) -> None:
        rng = np.random.default_rng(0)
        self.truth = torch.arange(n) % 2
        windows = [cut_window(draw_cell(rng, bool(t))[0], (32, 32)) for t in self.truth]
        self.windows = torch.from_numpy(np.stack([w.pixels for w in windows]))
        self.grounds = torch.from_numpy(np.stack([w.background for w in windows]))
        self.generator = torch.Generator().manual_seed(1)
        self.settings = Augmentation()

    def look(self, rows: Tensor) -> Tensor:
        views = random_views(self.windows[rows], self.grounds[rows], self.settings, self.generator)
        return F.avg_pool2d(views[:, :3], 8) / 128 - 1

    def loss(self, module: nn.Module, rows: Tensor) -> Tensor:
        return F.cross_entropy(module(self.look(rows)), self.truth[rows])

    def batches(self, epoch: int) -> list[Tensor]:
        order = np.random.default_rng([7, epoch]).permutation(len(self.truth))
        return list(torch.from_numpy(order).split(12))


def make_fit(task: Task, folder: Path | None = None, **settings: Any) -> Fit:
    net = small_net()
    return Fit(
        fabric=make_fabric("cpu"),
        module=net,
        optimizer=torch.optim.AdamW(net.parameters(), lr=4e-3),
        batches=task.batches,
        loss=task.loss,
        checkpoints=folder,
        generators={"views": task.generator},
        **{"factor": lambda _: 1.0, "epochs": 3, "ema": 0.9, **settings},
    )


def test_fit_learns_synthetic_cells() -> None:
    """A shrunken network tells large from small nuclei on more than 90 % of fresh views."""
    task = Task()
    fit = make_fit(task, epochs=15, factor=cosine_factor(60, 4, 0.02), clip_norm=2.0)
    net = fit.run().eval()
    rows = torch.arange(len(task.truth))
    with torch.inference_mode():
        right = (net(task.look(rows)).argmax(1) == task.truth).float().mean()
    assert right > 0.9


@pytest.mark.parametrize("stop_at", [1, 4, 6])
def test_resumed_run_gives_the_same_curve(tmp_path: Path, stop_at: int) -> None:
    """Stopped at any step, mid-epoch too, and resumed in a new process: the same losses."""
    whole = make_fit(Task())
    whole.run()

    task = Task()
    first = make_fit(task, tmp_path)
    first.should_stop = lambda: first.step >= stop_at
    with pytest.raises(JobCancelledError, match="checkpoint was kept"):
        first.run()
    torch.manual_seed(999)  # another process would not have our random state
    second = make_fit(Task(), tmp_path)
    torch.manual_seed(999)
    second.run(resume=True)
    np.testing.assert_allclose(second.losses, whole.losses, atol=1e-6)
    for mine, wanted in zip(second.result.parameters(), whole.result.parameters(), strict=True):
        torch.testing.assert_close(mine, wanted, atol=1e-6, rtol=1e-5)


def test_sgd_momentum_survives_a_checkpoint(tmp_path: Path) -> None:
    """Momentum is part of the checkpoint, not only Adam's moments."""

    def make(folder: Path | None) -> Fit:
        fit = make_fit(Task(), folder, epochs=2)
        net = small_net()
        return Fit(
            fabric=fit.fabric, module=net, factor=lambda _: 1.0, batches=fit.batches,
            optimizer=torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9),
            loss=fit.loss, epochs=2, checkpoints=folder, generators=fit.generators,
        )  # fmt: skip

    whole = make(None)
    whole.run()
    stopped = make(tmp_path)
    stopped.should_stop = lambda: stopped.step >= 3
    with pytest.raises(JobCancelledError):
        stopped.run()
    again = make(tmp_path)
    again.run(resume=True)
    np.testing.assert_allclose(again.losses, whole.losses, atol=1e-6)


def test_interrupted_write_keeps_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the two files, the folder still holds the checkpoint before."""
    make_fit(Task(), tmp_path, epochs=1).run()
    before = json.loads((tmp_path / checkpoint.POINTER).read_text())
    real = checkpoint.write_whole

    def fail_on_pointer(path: Path, content: bytes) -> None:
        if path.name == checkpoint.POINTER:
            raise KeyboardInterrupt
        real(path, content)

    monkeypatch.setattr(checkpoint, "write_whole", fail_on_pointer)
    with pytest.raises(KeyboardInterrupt):
        make_fit(Task(), tmp_path, epochs=2).run(resume=True)
    monkeypatch.undo()
    assert json.loads((tmp_path / checkpoint.POINTER).read_text()) == before
    resumed = make_fit(Task(), tmp_path, epochs=2)
    resumed.run(resume=True)
    assert resumed.step == 8
    assert len(list(tmp_path.glob("step-*"))) == 1
    assert not list(tmp_path.glob(".*partial"))


def test_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    """One changed byte is an error, not a slightly different run."""
    make_fit(Task(), tmp_path, epochs=1).run()
    file = next(tmp_path.glob("step-*"))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(ModelError, match="damaged"):
        make_fit(Task(), tmp_path).run(resume=True)


def test_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    """A checkpoint of another network says so in one sentence."""
    make_fit(Task(), tmp_path, epochs=1).run()
    task = Task()
    other = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2))
    fit = Fit(
        fabric=make_fabric("cpu"), module=other, factor=lambda _: 1.0, batches=task.batches,
        optimizer=torch.optim.AdamW(other.parameters(), lr=1e-3), loss=task.loss, epochs=1,
        checkpoints=tmp_path,
    )  # fmt: skip
    with pytest.raises(ModelError, match="does not fit"):
        fit.run(resume=True)


def test_average_follows_the_weights() -> None:
    """With decay 0 there is no average; with one, it lags behind the weights."""
    assert make_fit(Task(), ema=0.0).average is None
    fit = make_fit(Task(), epochs=2)
    start = [p.clone() for p in fit.result.parameters()]
    fit.run()
    moved = [
        (float((a - s).norm()), float((w - s).norm()))
        for a, w, s in zip(fit.result.parameters(), fit._plain.parameters(), start, strict=True)
    ]
    assert all(average > 0 for average, _ in moved)
    assert sum(a for a, _ in moved) < sum(w for _, w in moved)


def test_paper_step_schedule() -> None:
    """papers.md 1.12 fact 6: rates fall tenfold after epochs 9 and 19."""
    factor = step_factor(steps_per_epoch=5, every=10, by=0.1)
    for epoch in range(30):
        share = {0: 1.0, 1: 0.1, 2: 0.01}[epoch // 10]
        for step in (epoch * 5, epoch * 5 + 4):
            assert 1e-3 * factor(step) == pytest.approx(1e-3 * share)
            assert 1e-2 * factor(step) == pytest.approx(1e-2 * share)


def test_fit_applies_the_schedule_to_both_groups() -> None:
    """Two learning rates are scaled by the same share at each step."""
    task, net = Task(12), small_net()
    layers = list(net.children())
    optimizer = torch.optim.SGD(
        [{"params": layers[0].parameters(), "lr": 1e-3},
         {"params": layers[-1].parameters(), "lr": 1e-2}]
    )  # fmt: skip
    seen: list[list[float]] = []
    Fit(
        fabric=make_fabric("cpu"), module=net, optimizer=optimizer, batches=task.batches,
        factor=step_factor(1, 2, 0.1), loss=task.loss, epochs=5,
        on_epoch=lambda metrics: seen.append(metrics["lr"]),
    ).run()  # fmt: skip
    wanted = [[1e-3, 1e-2]] * 2 + [[1e-4, 1e-3]] * 2 + [[1e-5, 1e-4]]
    np.testing.assert_allclose(seen, wanted, rtol=1e-12)


def test_cosine_rises_then_falls_to_the_floor() -> None:
    """Warm-up ends at the full rate; the last step is at the floor."""
    factor = cosine_factor(100, 10, 0.02)
    values = [factor(s) for s in range(101)]
    assert values[0] < 0.2
    assert max(values) == pytest.approx(1.0, abs=0.03)
    assert all(a >= b for a, b in pairwise(values[10:]))
    assert values[-1] == pytest.approx(0.02)


def test_on_epoch_tells_what_happened() -> None:
    """Each epoch reports loss, images, rates and the validation's own measures."""
    seen: list[dict[str, Any]] = []
    make_fit(Task(), validate=lambda _: {"validation_loss": 1.5}, on_epoch=seen.append).run()
    assert [m["epoch"] for m in seen] == [0, 1, 2]
    assert all(m["images"] == 48 and m["validation_loss"] == 1.5 for m in seen)


def test_training_in_bf16_says_nothing_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    """What a user reads during a training is ours; the library's notes do not get between."""
    with caplog.at_level(logging.INFO):
        make_fabric("cpu", "bf16")
    assert not caplog.records
