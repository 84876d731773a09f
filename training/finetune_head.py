"""The fast way of fine-tuning: the trunk stays, the head learns from cached features.

Every step sees a batch of the new cells' features and, beside it, as many of those the parent
carries of its own training cells, drawn evenly over their classes (see `drawn_as_often`). With a
validation part the share of the old and the epoch are chosen on it, the parent's own head (epoch
0) among the choices; without one the recipe's values stand.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from napari_cellpath.models.format import STANDS_FOR
from training.checkpoint import write_whole
from training.fit import Fit, Metrics, StopCheck, cosine_factor, make_fabric
from training.objective import Objective, OneClass
from training.progress import ProgressLog
from training.recipe import CommonRecipe
from training.trainer import epoch_batches, packed
from training.trunk_features import Features, through_head

MIXES = (0.5, 1.0, 2.0)
"""Shares of the old features that are tried on the validation part, times the recipe's."""
BETTER = 0.005
"""Validation loss a trial must save over the one before it: less is luck."""


@dataclass(frozen=True, eq=False)
class Examples:
    """Features (n, views, d) of cells and their classes (n,), or several labels of each."""

    features: Features
    targets: NDArray[Any]


@dataclass
class HeadTrainer:
    """Trains the head of one parent.

    Parameters
    ----------
    recipe
        Of the run; ``finetune.replay``, ``epochs``, ``optimiser.lr_head`` and
        ``optimiser.weight_decay``, ``batch``, ``balance``, ``label_smoothing`` and ``seed`` count.
    head
        The parent's; it is not changed.
    new
        Cells to learn.
    validation
        Cells to choose on, or None.
    shipped
        The parent's features as `napari_cellpath.models.read_features` gives them, or None.
    folder
        For checkpoints and trials.
    device
        For Lightning Fabric.
    objective
        What the head is fitted by.
    """

    recipe: CommonRecipe
    head: nn.Module
    n_classes: int
    new: Examples
    validation: Examples | None
    shipped: dict[str, NDArray[Any]] | None
    folder: Path
    device: str = "cpu"
    say: Callable[[str], None] = print
    should_stop: StopCheck | None = None
    log: ProgressLog = field(default_factory=ProgressLog)
    objective: Objective = field(default_factory=OneClass)

    def run(self, resume: bool = False) -> tuple[nn.Module, dict[str, Any]]:
        """Train; return the head and what was chosen, ready for JSON.

        Raises
        ------
        JobCancelledError
            Stopped; a later run with ``resume`` goes on.
        """
        asked = self.recipe.finetune.replay if self.recipe.finetune else 0.0
        old = self.shipped is not None and asked > 0
        mixes = [asked * mix for mix in MIXES] if old and self.validation else [asked * old]
        trials = [self._trial(k, mix, len(mixes), resume) for k, mix in enumerate(mixes)]
        best = trials[0]
        for trial in trials[1:]:
            if trial["validation_loss"] < best["validation_loss"] - BETTER:
                best = trial
        head = copy.deepcopy(self.head)
        head.load_state_dict(load_safetensors((self.folder / best["weights"]).read_bytes()))
        chosen = {k: v for k, v in best.items() if k != "weights"}
        return head.eval(), {"chosen": chosen, "trials": [_brief(t) for t in trials]}

    def _trial(self, number: int, mix: float, of: int, resume: bool) -> dict[str, Any]:
        """One share of old features, from the parent's head; a finished one is not done twice."""
        record = self.folder / f"trial-{number}.json"
        stage = f"head {number + 1} of {of}"
        if record.is_file():
            self.log.skip(stage)
            done: dict[str, Any] = json.loads(record.read_text())
            return done
        torch.manual_seed(self.recipe.seed)
        module = copy.deepcopy(self.head)
        weights = f"trial-{number}.safetensors"
        fabric = make_fabric(self.device)
        generator = torch.Generator().manual_seed(self.recipe.seed)
        batches = self._batches()
        o = self.recipe.optimiser
        lowest = {"loss": np.inf, "epoch": -1}
        if resume and (self.folder / f"best-{number}.json").is_file():
            lowest = json.loads((self.folder / f"best-{number}.json").read_text())

        def keep(module: nn.Module, loss: float, epoch: int) -> None:
            lowest.update(loss=loss, epoch=epoch)
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(self.folder / weights, packed(module))
            write_whole(self.folder / f"best-{number}.json", json.dumps(lowest).encode())

        def on_epoch(metrics: Metrics) -> None:
            self.log.write(
                stage, metrics["epoch"] + 1, self.recipe.epochs, metrics["loss"],
                {k: v for k, v in metrics.items() if k.startswith("validation")},
            )  # fmt: skip

        def validate(module: nn.Module) -> Metrics:
            if self.validation is None:
                return {}
            loss = self._chosen_by(module, self.validation)
            if loss < lowest["loss"] or fit.epoch + 1 == lowest["epoch"]:
                keep(module, loss, fit.epoch + 1)
            return {"validation_loss": loss}

        fit = Fit(
            fabric=fabric,
            module=module,
            optimizer=torch.optim.AdamW(
                module.parameters(), lr=o.lr_head, weight_decay=o.weight_decay
            ),
            factor=cosine_factor(
                self.recipe.epochs * len(batches(0)), 0, self.recipe.schedule.floor
            ),
            batches=batches,
            loss=self._loss(mix, generator, fabric.device),
            epochs=self.recipe.epochs,
            validate=validate,
            checkpoints=self.folder / f"trial-{number}",
            generators={"replay": generator},
            clip_norm=o.clip_norm,
            on_epoch=on_epoch,
            should_stop=self.should_stop,
        )
        if self.validation is not None and lowest["epoch"] < 0:
            keep(self.head, self._chosen_by(self.head, self.validation), 0)
        trained = fit.run(resume)
        if self.validation is None:
            keep(trained, fit.history[-1]["loss"], self.recipe.epochs)
        done = {
            "replay": mix,
            "epoch": lowest["epoch"],
            "validation_loss": None if self.validation is None else lowest["loss"],
            "loss_by_epoch": [round(h["loss"], 5) for h in fit.history],
            "validation_by_epoch": [round(h.get("validation_loss", 0.0), 5) for h in fit.history],
            "weights": weights,
        }
        write_whole(record, json.dumps(done).encode())
        self.say(f"{stage}: weight {mix:g} of the parent's cells, kept epoch {lowest['epoch']}")
        return done

    def _chosen_by(self, head: nn.Module, cells: Examples) -> float:
        return self.objective.chosen_by(head, cells.features, cells.targets)

    def _batches(self) -> Callable[[int], Sequence[Tensor]]:
        n, views = self.new.features.shape[:2]
        rows, once = np.arange(n * views), np.ones(n * views, dtype=np.int64)
        return lambda epoch: epoch_batches(rows, once, self.recipe.batch, epoch, self.recipe.seed)

    def _loss(
        self, mix: float, generator: torch.Generator, device: torch.device
    ) -> Callable[[nn.Module, Tensor], Tensor]:
        """Cross-entropy of a batch of new views and, ``mix`` times, of as many old ones."""
        r = self.recipe
        n, views = self.new.features.shape[:2]
        features = torch.from_numpy(self.new.features.reshape(n * views, -1)).to(device)
        wanted = self.objective.tensor(np.repeat(self.new.targets, views, axis=0))
        weights = self.objective.weights(wanted, self.n_classes, r.balance).to(device)
        targets = wanted.to(device)
        replay = None
        if self.shipped and mix > 0:
            replay = Replay(self.shipped, generator, device, self.objective)

        def loss(module: nn.Module, batch: Tensor) -> Tensor:
            here = batch.to(device)
            total = self.objective.loss(
                through_head(module, features[here]), targets[here], weights, r.label_smoothing
            )
            if replay is not None:
                total = total + mix * replay.loss(module, len(batch), r.label_smoothing)
            return total / (1 + mix)

        return loss


def drawn_as_often(shipped: dict[str, NDArray[Any]]) -> NDArray[np.float64]:
    """How often to draw each row a parent carries, (n,), as a share of all.

    Evenly over classes of any fineness; where the parent says what its rows stand for, half of
    them as often as that: labels that are judged one by one else learn from a world in which all
    that is rare is common.
    """
    fine = shipped["fine"].astype(np.int64)
    even = 1.0 / np.bincount(fine)[fine]
    even /= even.sum()
    if STANDS_FOR not in shipped:
        return even
    fair = shipped[STANDS_FOR].astype(np.float64)
    return (even + fair / fair.sum()) / 2


class Replay:
    """Draws from the features a parent carries: see `drawn_as_often`."""

    def __init__(
        self,
        shipped: dict[str, NDArray[Any]],
        generator: torch.Generator,
        device: torch.device,
        objective: Objective,
    ) -> None:
        self.features = torch.from_numpy(shipped["features"].astype(np.float32))
        self.targets = objective.tensor(shipped["targets"])
        self.weights = torch.from_numpy(drawn_as_often(shipped))
        self.generator = generator
        self.device = device
        self.objective = objective

    def draw(self, n: int) -> tuple[Tensor, Tensor]:
        """Features (n, d) and targets (n,), with repeats, on the device."""
        rows = torch.multinomial(self.weights, n, replacement=True, generator=self.generator)
        return self.features[rows].to(self.device), self.targets[rows].to(self.device)

    def loss(self, head: nn.Module, n: int, smoothing: float) -> Tensor:
        """The objective's of ``n`` drawn views."""
        features, targets = self.draw(n)
        return self.objective.loss(through_head(head, features), targets, None, smoothing)


def _brief(trial: dict[str, Any]) -> dict[str, Any]:
    return {k: trial[k] for k in ("replay", "epoch", "validation_loss")}
