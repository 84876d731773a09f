"""Fitting one network to rows of labelled cells: what the systems' trainers have in common."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from training.checkpoint import write_whole
from training.fit import Fit, Metrics, StopCheck, cosine_factor, make_fabric, step_factor
from training.progress import ProgressLog
from training.recipe import CommonRecipe

Rows = NDArray[np.intp]
R = TypeVar("R", bound=CommonRecipe)
HUGE_LOSS = 1e4


class Learner(nn.Module):
    """A network while it learns; `network` is what is kept. It has a ``trunk`` and a ``head``."""

    network: Any


def epoch_batches(
    rows: Rows, views: NDArray[np.int64], batch: int, epoch: int, seed: int
) -> list[Tensor]:
    """Shuffle one epoch's rows into batches; depends on the seed and the epoch alone.

    ``views`` says of every cell how often it is seen (see `views_of_cells`).

    A last batch less than half full is left out (unless it is the only one): its gradient is
    mostly noise.
    """
    repeated = np.repeat(rows, views[rows])
    np.random.default_rng([seed, epoch]).shuffle(repeated)
    batches = list(torch.from_numpy(repeated.astype(np.int64)).split(batch))
    if len(batches) > 1 and len(batches[-1]) * 2 < batch:
        batches.pop()
    return batches


@dataclass
class Trainer(ABC, Generic[R]):
    """Fits one network after the other on rows of the same cells.

    Parameters
    ----------
    recipe
        What was asked.
    device
        For Lightning Fabric.
    say
        Takes one line of text an epoch.
    should_stop
        Asked before every step.
    log
        Takes a line an epoch too, for whoever watches the run.
    """

    recipe: R
    device: str = field(default="auto", kw_only=True)
    say: Callable[[str], None] = field(default=print, kw_only=True)
    should_stop: StopCheck | None = field(default=None, kw_only=True)
    log: ProgressLog = field(default_factory=ProgressLog, kw_only=True)
    origin: str = field(default="", init=False)
    seconds_per_epoch: list[float] = field(default_factory=list, init=False)
    further_seconds: float = field(default=0.0, init=False)
    """Of what a run trains beside this network."""

    @property
    @abstractmethod
    def input_shape(self) -> tuple[int, int, int]:
        """Of one network input: channels, height, width."""

    @abstractmethod
    def start(self, rows: Rows, seed: int) -> Learner:
        """Build the network with its initial weights, seeded."""

    @abstractmethod
    def batches(self, rows: Rows, epoch: int, seed: int) -> Sequence[Tensor]:
        """One epoch's rows, shuffled into batches; depends on seed and epoch alone."""

    @abstractmethod
    def make_loss(
        self, rows: Rows, generator: torch.Generator, device: torch.device
    ) -> Callable[[nn.Module, Tensor], Tensor]:
        """The loss of a batch; it draws its own views from ``generator``."""

    @abstractmethod
    def validation_loss(self, rows: Rows) -> Callable[[nn.Module], Metrics]:
        """Cross-entropy of unvaried views of ``rows``, for keeping the best epoch."""

    def further_loss(
        self, _module: nn.Module, _inputs: Tensor, _logits: Tensor, _rng: torch.Generator
    ) -> Tensor | float:
        """What else counts beside the labels; fine-tuning adds staying near the parent."""
        return 0.0

    def optimiser(self, module: Learner) -> torch.optim.Optimizer:
        """Two learning rates: what was transferred, and what starts from nothing."""
        trunk = [p for p in module.network.trunk.parameters() if p.requires_grad]
        of_trunk = {id(p) for p in module.network.trunk.parameters()}
        head = [p for p in module.parameters() if id(p) not in of_trunk]
        o = self.recipe.optimiser
        groups = [{"params": trunk, "lr": o.lr_trunk}, {"params": head, "lr": o.lr_head}]
        if o.name == "sgd":
            return torch.optim.SGD(groups, momentum=o.momentum, weight_decay=o.weight_decay)
        return torch.optim.AdamW(groups, weight_decay=o.weight_decay)

    def factor(self, steps_per_epoch: int, epochs: int) -> Callable[[int], float]:
        """How the learning rates change over the steps."""
        s = self.recipe.schedule
        if s.kind == "constant":
            return lambda _step: 1.0
        if s.kind == "step":
            return step_factor(steps_per_epoch, s.step_epochs, s.step_factor)
        return cosine_factor(
            epochs * steps_per_epoch, round(s.warmup_epochs * steps_per_epoch), s.floor
        )

    def fit(
        self,
        rows: Rows,
        seed: int,
        name: str,
        checkpoints: Path | None,
        *,
        resume: bool = False,
        validate: Callable[[nn.Module], Metrics] | None = None,
        each_epoch: Callable[[Learner, int], None] | None = None,
        epochs: int = 0,
        start_from: dict[str, Tensor] | None = None,
        enough: Callable[[list[Metrics]], bool] | None = None,
    ) -> tuple[Any, Fit]:
        """Train one network on ``rows``; return it in evaluation mode, and the finished fit.

        ``epochs`` 0 takes the recipe's; ``start_from`` is a state of the whole training
        network, instead of the recipe's initial weights. ``each_epoch`` is given what is to be
        kept so far and the number of the epoch, from 1, before its checkpoint is made. ``enough``
        is `Fit`'s.

        Raises
        ------
        JobCancelledError
            Stopped; ``checkpoints`` holds where to go on.
        """
        module = self.start(rows, seed)
        if start_from is not None:
            module.load_state_dict(start_from)
        epochs = epochs or self.recipe.epochs
        fabric = make_fabric(self.device, self.recipe.precision)
        generator = torch.Generator().manual_seed(seed)

        def batches(epoch: int) -> Sequence[Tensor]:
            return self.batches(rows, epoch, seed)

        def after_epoch(module: nn.Module) -> Metrics:
            if each_epoch is not None:
                assert isinstance(module, Learner)  # what went in  # noqa: S101
                each_epoch(module, run.epoch + 1)
            return {} if validate is None else validate(module)

        def on_epoch(metrics: Metrics) -> None:
            self.seconds_per_epoch.append(metrics["seconds"])
            extra = "".join(
                f", {k} {v:.4f}" for k, v in metrics.items() if k.startswith("validation")
            )
            self.say(
                f"{name}: epoch {metrics['epoch'] + 1} of {epochs}, "
                f"loss {metrics['loss']:.4f}{extra}, {metrics['seconds']:.0f} s"
            )
            validation = {k: v for k, v in metrics.items() if k.startswith("validation")}
            self.log.write(name, metrics["epoch"] + 1, epochs, metrics["loss"], validation)

        run = Fit(
            fabric=fabric,
            module=module,
            optimizer=self.optimiser(module),
            factor=self.factor(len(batches(0)), epochs),
            batches=batches,
            loss=self.make_loss(rows, generator, fabric.device),
            epochs=epochs,
            validate=None if validate is None and each_epoch is None else after_epoch,
            checkpoints=checkpoints,
            generators={"views": generator},
            ema=self.recipe.optimiser.ema,
            clip_norm=self.recipe.optimiser.clip_norm,
            on_epoch=on_epoch,
            should_stop=self.should_stop,
            enough=enough,
        )
        result = run.run(resume)
        assert isinstance(result, Learner)  # what went in  # noqa: S101
        return result.network.eval(), run

    def fit_keeping_best(
        self,
        rows: Rows,
        held_back: Rows,
        seed: int,
        checkpoints: Path,
        *,
        resume: bool = False,
        start_from: dict[str, Tensor] | None = None,
    ) -> tuple[Any, list[Metrics]]:
        """Train on ``rows``; return the weights of the epoch with the lowest validation loss.

        The paper's rule (papers.md 1.8), on cells held back for it, not on those reported.
        """
        best_file = checkpoints / "best.safetensors"
        measure = self.validation_loss(held_back)
        lowest = HUGE_LOSS
        if resume and (checkpoints / "best.json").is_file() and best_file.is_file():
            lowest = float(json.loads((checkpoints / "best.json").read_text())["loss"])

        def validate(module: nn.Module) -> Metrics:
            nonlocal lowest
            metrics = measure(module)
            if metrics["validation_loss"] <= lowest:
                lowest = metrics["validation_loss"]
                checkpoints.mkdir(parents=True, exist_ok=True)
                assert isinstance(module, Learner)  # what went in  # noqa: S101
                write_whole(best_file, packed(module.network))
                write_whole(checkpoints / "best.json", json.dumps({"loss": lowest}).encode())
            return metrics

        network, run = self.fit(
            rows,
            seed,
            "final",
            checkpoints,
            resume=resume,
            validate=validate,
            start_from=start_from,
        )
        network.load_state_dict(load_safetensors(best_file.read_bytes()))
        return network, run.history


def class_weights(targets: Tensor, n_classes: int, power: float) -> Tensor:
    """(1 / frequency) ** power, scaled so that the mean over the cells is 1."""
    counts = torch.bincount(targets, minlength=n_classes).float()
    weights = torch.where(counts > 0, counts.clamp(min=1.0) ** -power, torch.zeros(()))
    return weights * counts.sum() / (weights * counts).sum()


def packed(module: nn.Module) -> bytes:
    """A module's state as the bytes of a safetensors file."""
    return save_safetensors(
        {k: v.detach().cpu().contiguous() for k, v in module.state_dict().items()}
    )


def mean_state(states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Mean of several states of one network, tensor by tensor."""
    return {k: torch.stack([s[k].float() for s in states]).mean(dim=0) for k in states[0]}


def halved(values: Tensor) -> Tensor:
    """Weights in float16, or as they are where a value is too large for it.

    Variances that a batch normalisation keeps may be: of a large input they reach millions.
    """
    if not values.is_floating_point():
        return values
    short = values.half()
    return short if bool(torch.isfinite(short).all()) else values.float()


def network_arrays(network: nn.Module, half: bool) -> dict[str, NDArray[Any]]:
    """Weights as NumPy arrays, in float16 if ``half``; see `halved`."""

    def stored(v: Tensor) -> Tensor:
        return halved(v) if half else v.float() if v.is_floating_point() else v

    return {
        k: stored(v.detach().cpu()).contiguous().numpy() for k, v in network.state_dict().items()
    }
