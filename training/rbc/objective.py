"""The loss of several independent labels a region: binary cross-entropy, unknown labels masked."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from training.objective import Objective, logits_of_views
from training.rbc.regions import UNKNOWN
from training.trainer import HUGE_LOSS
from training.trunk_features import Features


def masked_loss(
    logits: Tensor, targets: Tensor, weights: Tensor | None = None, smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy of each label (papers.md 2.3), summed over labels, a mean over regions.

    Parameters
    ----------
    logits
        (n, n_types).
    targets
        (n, n_types) of 1, 0 and -1; -1 takes no part, whatever the logit.
    weights
        (n_types,) of labels that are there; None: 1.
    smoothing
        Targets move by half of this towards the middle.
    """
    known = (targets != UNKNOWN).to(logits.dtype)
    wanted = targets.clamp(min=0).to(logits.dtype) * (1 - smoothing) + smoothing / 2
    each = F.binary_cross_entropy_with_logits(
        logits, wanted, weight=known, pos_weight=weights, reduction="none"
    )
    return each.sum() / max(len(logits), 1)


def positive_weights(targets: Tensor, power: float) -> Tensor:
    """(absent / present) ** power of each label over the regions where it is known, 20 at most."""
    there = (targets == 1).sum(dim=0).float()
    absent = (targets == 0).sum(dim=0).float()
    ratio = torch.where((there > 0) & (absent > 0), absent / there.clamp(min=1), torch.ones(()))
    return (ratio**power).clamp(max=20.0)


def mean_loss(logits: Tensor, targets: Tensor) -> float:
    """Mean over labels, those there and those not having equal say, of the cross-entropy.

    What an epoch is chosen by: a label of which few regions are known counts as much as others.
    Infinite logits count as a huge loss, no labels as none.
    """
    each = F.binary_cross_entropy_with_logits(
        logits.double(), targets.clamp(min=0).double(), reduction="none"
    )
    parts = [
        each[targets[:, k] == value, k].mean()
        for k in range(targets.shape[1])
        for value in (0, 1)
        if (targets[:, k] == value).any()
    ]
    return min(float(torch.stack(parts).mean()), HUGE_LOSS) if parts else 0.0


class SeveralLabels(Objective):
    """Masked cross-entropy; targets (n, n_types) of 1, 0 and -1."""

    def tensor(self, targets: NDArray[Any]) -> Tensor:
        """A byte a label."""
        return torch.from_numpy(targets.astype(np.int8))

    def weights(self, targets: Tensor, _n_classes: int, power: float) -> Tensor:
        """See `positive_weights`."""
        return positive_weights(targets, power)

    def loss(
        self, logits: Tensor, targets: Tensor, weights: Tensor | None, smoothing: float
    ) -> Tensor:
        """See `masked_loss`."""
        return masked_loss(logits, targets, weights, smoothing)

    def near(self, logits: Tensor, wanted: Tensor, temperature: float) -> Tensor:
        """Cross-entropy of the softened answers, label by label, less what is least."""
        aim = (wanted / temperature).sigmoid()
        each = F.binary_cross_entropy_with_logits(logits / temperature, aim, reduction="none")
        least = F.binary_cross_entropy(aim, aim, reduction="none")
        return temperature**2 * (each - least).sum() / max(len(logits), 1)

    def chosen_by(self, head: nn.Module, features: Features, targets: NDArray[Any]) -> float:
        """See `mean_loss`; the mean probability over a box's views counts."""
        mean = logits_of_views(head, features).double().sigmoid().mean(dim=1)
        return mean_loss(torch.logit(mean, eps=1e-7), self.tensor(targets))
