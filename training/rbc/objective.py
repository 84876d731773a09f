"""The loss of several independent labels a region: binary cross-entropy, unknown labels masked."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from training.rbc.regions import UNKNOWN


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
    """(absent / present) ** power of each label over the regions where it is known, at most 20."""
    there = (targets == 1).sum(dim=0).float()
    absent = (targets == 0).sum(dim=0).float()
    return ((absent / there.clamp(min=1)).clamp(min=1e-3, max=1e6) ** power).clamp(max=20.0)


def mean_loss(logits: Tensor, targets: Tensor) -> float:
    """Mean over labels, equal say for those there and those not, of the cross-entropy.

    What an epoch is chosen by: a label of which few regions are known counts as much as others.
    """
    each = F.binary_cross_entropy_with_logits(
        logits.double(), targets.clamp(min=0).double(), reduction="none"
    )
    parts = []
    for k in range(targets.shape[1]):
        for value in (0, 1):
            here = targets[:, k] == value
            if here.any():
                parts.append(each[here, k].mean())
    return float(torch.stack(parts).mean()) if parts else float("nan")
