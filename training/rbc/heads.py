"""Heads on features that stay: the paper's way (papers.md 2.3). Features are computed once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from napari_cellpath.core.vocabulary import Average
from training.fit import Fit
from training.rbc.objective import masked_loss, mean_loss, positive_weights
from training.rbc.patches import RbcPatches
from training.rbc.recipe import RbcRecipe
from training.rbc.scoring import trunk_features
from training.rbc.table import RedCells
from training.rbc.trainer import Learning, RbcTrainer
from training.splits import make_split
from training.trainer import HUGE_LOSS, Learner, Rows, epoch_batches


def trainer_of(
    recipe: RbcRecipe, data: RedCells, patches: RbcPatches, **options: Any
) -> RbcTrainer:
    """The trainer of a recipe: of trunk and heads, or of heads on features that stay."""
    kind = RbcTrainer if recipe.learning == "trunk" else HeadsOnFeatures
    return kind(recipe, data, patches, **options)


class _HeadAlone(Learner):
    """Takes features where others take patches; its network is the whole."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, features: Tensor) -> Tensor:
        """Logits (n, n_types) of features (n, d)."""
        logits: Tensor = self.network.head(features)
        return logits


@dataclass
class HeadsOnFeatures(RbcTrainer):
    """An `RbcTrainer` whose trunk never changes."""

    _features: Tensor | None = field(default=None, init=False)
    _trunk: nn.Module | None = field(default=None, init=False)

    def start(self, rows: Rows, seed: int) -> Learner:
        """New heads on the one trunk."""
        learner = super().start(rows, seed)
        assert isinstance(learner, Learning)  # what it makes  # noqa: S101
        if self._trunk is None:
            self._trunk = learner.network.trunk
        learner.network.trunk = self._trunk
        return _HeadAlone(learner.network)

    def features(self, network: Any) -> Tensor:
        """Features (n, looks, d) of every box; computed once."""
        if self._features is None:
            turned = self.recipe.augmentation.rotation != "none"
            found = trunk_features(
                network, self.patches.pictures, Average.D4 if turned else Average.NONE,
                should_stop=self.should_stop,
            )  # fmt: skip
            self._features = torch.from_numpy(found)
        return self._features

    def batches(self, rows: Rows, epoch: int, seed: int) -> Sequence[Tensor]:
        """One epoch's looks at ``rows``: row x looks + look."""
        looks = 1 if self._features is None else self._features.shape[1]
        entries = (np.sort(rows)[:, None] * looks + np.arange(looks)).ravel()
        once = np.ones(int(entries.max()) + 1, dtype=np.int64)
        return epoch_batches(entries, once, self.recipe.batch, epoch, seed)

    def make_loss(
        self, rows: Rows, generator: torch.Generator, device: torch.device
    ) -> Callable[[nn.Module, Tensor], Tensor]:
        """Masked cross-entropy of the labels on features."""
        r, targets = self.recipe, self.patches.targets
        weights = positive_weights(targets[rows], r.balance).to(device)

        def loss(module: nn.Module, batch: Tensor) -> Tensor:
            features = self._seen(module)
            looks = features.shape[1]
            flat = features.flatten(0, 1)[batch].to(device)
            wanted = targets[batch // looks].to(device)
            return masked_loss(module(flat), wanted, weights, r.label_smoothing)

        return loss

    def _seen(self, module: Any) -> Tensor:
        return self.features(module.network)

    def fit(
        self, rows: Rows, seed: int, name: str, checkpoints: Path | None, **options: Any
    ) -> tuple[Any, Fit]:
        """Fit heads; with ``patience`` a tenth of the groups says when it is enough."""
        if self._features is None:
            self.features(self.start(rows, seed).network)
        if not self.recipe.patience or checkpoints is None:
            return super().fit(rows, seed, name, checkpoints, **options)
        groups = [self.data.groups[int(i)] for i in rows]
        if len(set(groups)) < 10:
            return super().fit(rows, seed, name, checkpoints, **options)
        inner = make_split(
            groups, self.data.labels[rows].tolist(), reserve=0.0, folds=10, seed=seed
        )
        held, learn = rows[inner.folds[0]], rows[inner.training(0)]
        losses: list[float] = []

        def validate(module: nn.Module) -> dict[str, Any]:
            assert isinstance(module, Learner)  # what went in  # noqa: S101
            with torch.inference_mode():
                logits = module.network.head(self._seen(module)[torch.from_numpy(held)][:, 0])
            losses.append(min(mean_loss(logits.cpu(), self.patches.targets[held]), HUGE_LOSS))
            return {"validation_loss": losses[-1]}

        patience = self.recipe.patience

        def enough(history: Sequence[dict[str, Any]]) -> bool:
            return len(history) - 1 - _best(history) >= patience

        options |= {
            "validate": validate,
            "enough": enough,
        }
        return super().fit(learn, seed, name, checkpoints, **options)


def _best(history: Sequence[dict[str, Any]]) -> int:
    return int(np.argmin([h["validation_loss"] for h in history]))
