"""The one fit loop of all systems: plain, resumable at any step, on Lightning Fabric.

A `Fit` is given a module, an optimiser, how rates change, how an epoch is cut into batches,
and what the loss is. It knows nothing of cells. Equal inputs give equal curves, and a run that
was stopped and resumed gives the curve of one that was not (CPU, fp32: to the last digit).
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn

from napari_cellpath.backend.device import choose_device
from napari_cellpath.core.errors import JobCancelledError
from training.checkpoint import read_checkpoint, write_checkpoint

Metrics = dict[str, Any]
StopCheck = Callable[[], bool]

# Fabric says which precision it uses, in the middle of ours; the recipe and the card say it.
for _name in ("lightning.fabric", "lightning.pytorch"):  # whichever was imported last speaks
    logging.getLogger(_name).setLevel(logging.WARNING)


def make_fabric(device: str = "auto", precision: str = "fp32") -> Fabric:
    """Fabric for one device.

    Parameters
    ----------
    device
        ``auto`` takes a GPU if there is one; else ``cpu``, ``cuda`` or ``mps``.
    precision
        ``fp32``; ``bf16`` for steps in bfloat16 with float32 weights; ``auto`` for that where
        the device computes it.
    """
    if precision == "auto":
        precision = choose_device(device).precision
    kind = "bf16-mixed" if precision == "bf16" else "32-true"
    fabric = Fabric(accelerator=device, devices=1, precision=kind)  # type: ignore[arg-type]
    fabric.launch()
    return fabric


def cosine_factor(steps: int, warmup: int, floor: float) -> Callable[[int], float]:
    """Share of the learning rate at a step: a linear rise, then half a cosine down to ``floor``."""

    def factor(step: int) -> float:
        rise = min((step + 1) / warmup, 1.0) if warmup > 0 else 1.0
        fall = 0.5 * (1 + math.cos(math.pi * min(step / max(steps, 1), 1.0)))
        return rise * (floor + (1 - floor) * fall)

    return factor


def step_factor(steps_per_epoch: int, every: int, by: float) -> Callable[[int], float]:
    """Share of the learning rate at a step: times ``by`` after every ``every`` epochs."""

    def factor(step: int) -> float:
        return float(by ** (step // steps_per_epoch // every))

    return factor


@dataclass
class Fit:
    """One training run of one module.

    Parameters
    ----------
    fabric
        Device and precision.
    module
        Any ``nn.Module``; ``loss`` calls it.
    optimizer
        Over the module's parameters; the groups' learning rates are those at factor 1.
    factor
        Step to share of the learning rates.
    batches
        Epoch to that epoch's batches (row numbers). Must depend on the epoch alone, so that a
        resumed run sees the rest of the same epoch.
    loss
        (module, batch) to a scalar.
    epochs
        How many.
    validate
        Averaged (or plain) module to metrics, after every epoch.
    checkpoints
        Folder for the checkpoint; None: none is kept.
    generators
        Further generators that ``loss`` draws from, by name: their state is part of a
        checkpoint, as is torch's own.
    ema
        Decay of the moving average of the weights, 0 for none. Early on the average is taken
        over fewer steps, (1 + n) / (10 + n).
    clip_norm
        Largest gradient norm, 0 for no limit.
    save_every
        Steps between checkpoints; the end of an epoch always makes one.
    on_epoch
        Called with {epoch, loss, seconds, images, lr, ...validation}.
    should_stop
        Asked before every step.
    at_once
        Rows of a batch that are looked at together; the gradients of its parts add up to those
        of the whole, where ``loss`` is a mean over rows. 0: the whole batch.
    enough
        Asked after every epoch, with the metrics of all so far, whether to end before the last.
    """

    fabric: Fabric
    module: nn.Module
    optimizer: torch.optim.Optimizer
    factor: Callable[[int], float]
    batches: Callable[[int], Sequence[Tensor]]
    loss: Callable[[nn.Module, Tensor], Tensor]
    epochs: int
    validate: Callable[[nn.Module], Metrics] | None = None
    checkpoints: Path | None = None
    generators: dict[str, torch.Generator] = field(default_factory=dict)
    ema: float = 0.0
    clip_norm: float = 0.0
    save_every: int = 0
    on_epoch: Callable[[Metrics], None] | None = None
    should_stop: StopCheck | None = None
    at_once: int = 0
    enough: Callable[[list[Metrics]], bool] | None = None

    step: int = field(default=0, init=False)
    epoch: int = field(default=0, init=False)
    losses: list[float] = field(default_factory=list, init=False)
    history: list[Metrics] = field(default_factory=list, init=False)
    average: nn.Module | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._place = 0  # batches of the current epoch already done
        self._plain = self.module
        self._rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        self.module, self.optimizer = self.fabric.setup(self.module, self.optimizer)
        if self.ema > 0:
            self.average = copy.deepcopy(self._plain).requires_grad_(False)

    @property
    def result(self) -> nn.Module:
        """The module to use: the average where there is one."""
        return self._plain if self.average is None else self.average

    def run(self, resume: bool = False) -> nn.Module:
        """Train to the end, from the checkpoint if ``resume`` and there is one.

        Raises
        ------
        JobCancelledError
            ``should_stop`` said so; the checkpoint holds everything up to the last step.
        """
        if resume and self.checkpoints is not None:
            self._load()
        while self.epoch < self.epochs and not self._is_enough():
            self._run_epoch()
        return self.result

    def _is_enough(self) -> bool:
        return self.enough is not None and bool(self.history) and self.enough(self.history)

    def _run_epoch(self) -> None:
        batches = self.batches(self.epoch)
        self.module.train()
        started, images = time.perf_counter(), 0
        for batch in batches[self._place :]:
            if self.should_stop is not None and self.should_stop():
                self._save()
                raise JobCancelledError(
                    f"Training was cancelled in epoch {self.epoch + 1} of {self.epochs}; "
                    "the checkpoint was kept."
                )
            self.losses.append(self._train_step(batch))
            images += len(batch)
            self._place += 1
            if self.save_every and self.step % self.save_every == 0:
                self._save()
        metrics: Metrics = {
            "epoch": self.epoch,
            "loss": sum(self.losses[-len(batches) :]) / max(len(batches), 1),
            "lr": [group["lr"] for group in self.optimizer.param_groups],
            "seconds": round(time.perf_counter() - started, 2),
            "images": images,
        }
        if self.validate is not None:
            self.result.eval()
            metrics.update(self.validate(self.result))
        self.history.append(metrics)
        self.epoch, self._place = self.epoch + 1, 0
        self._save()
        if self.on_epoch is not None:
            self.on_epoch(metrics)

    def _train_step(self, batch: Tensor) -> float:
        share = self.factor(self.step)
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * share
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for part in batch.split(self.at_once or len(batch)):
            loss = self.loss(self.module, part)
            if len(part) < len(batch):
                loss = loss * (len(part) / len(batch))
            self.fabric.backward(loss)
            total += float(loss.detach())
        if self.clip_norm > 0:
            nn.utils.clip_grad_norm_(
                [p for p in self._plain.parameters() if p.grad is not None], self.clip_norm
            )
        self.optimizer.step()
        self.step += 1
        self._follow()
        return total

    def _follow(self) -> None:
        """Move the average a little towards the weights."""
        if self.average is None:
            return
        decay = min(self.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            weights = zip(self.average.parameters(), self._plain.parameters(), strict=True)
            for mean, now in weights:
                mean.lerp_(now, 1 - decay)
            buffers = zip(self.average.buffers(), self._plain.buffers(), strict=True)
            for kept, current in buffers:
                if kept.is_floating_point():  # statistics of layers that normalise, say
                    kept.lerp_(current, 1 - decay)
                else:
                    kept.copy_(current)

    def _save(self) -> None:
        if self.checkpoints is None:
            return
        write_checkpoint(
            self.checkpoints,
            module=self._plain,
            average=self.average,
            optimizer=self.optimizer,
            generators=self.generators,
            progress={
                "step": self.step, "epoch": self.epoch, "place": self._place,
                "losses": self.losses, "history": self.history,
            },
        )  # fmt: skip

    def _load(self) -> None:
        assert self.checkpoints is not None  # run() asked  # noqa: S101
        progress = read_checkpoint(
            self.checkpoints,
            module=self._plain,
            average=self.average,
            optimizer=self.optimizer,
            generators=self.generators,
        )
        if progress is None:
            return
        self.step, self.epoch, self._place = (progress[k] for k in ("step", "epoch", "place"))
        self.losses, self.history = list(progress["losses"]), list(progress["history"])
