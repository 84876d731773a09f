"""What a head is fitted by: one class a cell here; several labels in `training.rbc.objective`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from training.trainer import class_weights
from training.trunk_features import Features, probabilities, through_head


class Objective(ABC):
    """Losses of logits (n, n_classes) against targets of one form."""

    @abstractmethod
    def tensor(self, targets: NDArray[Any]) -> Tensor:
        """Targets as the losses take them."""

    @abstractmethod
    def weights(self, targets: Tensor, n_classes: int, power: float) -> Tensor:
        """Weights that lend the rare a voice; ``power`` 0: none."""

    @abstractmethod
    def loss(
        self, logits: Tensor, targets: Tensor, weights: Tensor | None, smoothing: float
    ) -> Tensor:
        """Mean over the rows."""

    @abstractmethod
    def near(self, logits: Tensor, wanted: Tensor, temperature: float) -> Tensor:
        """How far an answer is from another network's; both softened (Hinton et al. 2015)."""

    @abstractmethod
    def chosen_by(self, head: nn.Module, features: Features, targets: NDArray[Any]) -> float:
        """Loss by which an epoch is kept: every class has equal say.

        ``features`` (n, views, d).
        """


class OneClass(Objective):
    """Cross-entropy of classes that exclude each other; targets (n,) are their numbers."""

    def tensor(self, targets: NDArray[Any]) -> Tensor:
        """Whole numbers."""
        return torch.from_numpy(targets.astype(np.int64))

    def weights(self, targets: Tensor, n_classes: int, power: float) -> Tensor:
        """See `training.trainer.class_weights`."""
        return class_weights(targets, n_classes, power)

    def loss(
        self, logits: Tensor, targets: Tensor, weights: Tensor | None, smoothing: float
    ) -> Tensor:
        """Cross-entropy."""
        return F.cross_entropy(logits, targets, weight=weights, label_smoothing=smoothing)

    def near(self, logits: Tensor, wanted: Tensor, temperature: float) -> Tensor:
        """Kullback-Leibler divergence of the softened answers, as large as the loss."""
        apart = F.kl_div(
            F.log_softmax(logits / temperature, dim=1), F.log_softmax(wanted / temperature, dim=1),
            log_target=True, reduction="batchmean",
        )  # fmt: skip
        return temperature**2 * apart

    def chosen_by(self, head: nn.Module, features: Features, targets: NDArray[Any]) -> float:
        """Cross-entropy of the mean probability over a cell's views."""
        given = probabilities(head, features)
        each = -np.log(np.clip(given[np.arange(len(given)), targets], 1e-7, 1.0))
        return float(np.mean([each[targets == t].mean() for t in np.unique(targets)]))


def logits_of_views(head: nn.Module, features: Features) -> Tensor:
    """Logits (n, views, n_classes) of features (n, views, d)."""
    n, views = features.shape[:2]
    device = next(head.parameters()).device
    with torch.inference_mode():
        flat = torch.from_numpy(features.reshape(n * views, -1)).to(device)
        return through_head(head.eval(), flat).reshape(n, views, -1).cpu()
