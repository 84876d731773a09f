"""Losses of a class map, over the pixels that count (papers.md 3.5).

The paper's own AE-Loss ("adaptive elastic loss", Meng et al., ICASSP 2020) was not available to us:
neither paper nor code gives its formula. ``ordinal_elastic`` is a reconstruction of the idea: a
spring between the grade called and the true one, stiffer the worse the pixel is known. It must
not be taken for the published loss, nor its results for a reproduction of the paper's.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from training.hspnet.recipe import Loss

IGNORE = 255
"""Class of a pixel that does not count."""

PixelLoss = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""Logits (N, K, H, W), classes (N, H, W), weights (K,) or None, to a scalar."""


def grade_distances(n_classes: int) -> Tensor:
    """Squared distance in grades between classes, (K, K) in 0..1.

    Class 0 is the background, at distance 1 from every tissue; tissue classes are grades in their
    order, the outermost at distance 1 from each other.
    """
    grades = torch.arange(n_classes - 1, dtype=torch.float32) / max(n_classes - 2, 1)
    distances = torch.ones(n_classes, n_classes)
    distances[1:, 1:] = (grades[:, None] - grades[None]) ** 2
    return distances.fill_diagonal_(0.0)


def _counted(logits: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (n, K) and classes (n,) of the pixels that count."""
    kept = classes != IGNORE
    return logits.movedim(1, -1)[kept], classes[kept]


def _mean(each: Tensor, classes: Tensor, weights: Tensor | None) -> Tensor:
    """Weighted mean as cross-entropy takes it; 0 (with a gradient) where no pixel counts."""
    if weights is None:
        return each.sum() / max(len(each), 1)
    share = weights[classes]
    return (each * share).sum() / share.sum().clamp(min=1e-12)


def cross_entropy(
    logits: Tensor, classes: Tensor, weights: Tensor | None = None, smoothing: float = 0.0
) -> Tensor:
    """Pixel cross-entropy; the paper's CE-Loss."""
    given, wanted = _counted(logits, classes)
    if not len(wanted):
        return logits.sum() * 0.0
    return F.cross_entropy(given, wanted, weight=weights, label_smoothing=smoothing)


def ordinal_elastic(
    logits: Tensor, classes: Tensor, weights: Tensor | None = None, elasticity: float = 1.0
) -> Tensor:
    """Cross-entropy and the energy of a spring between the grades called and the true one.

    ``CE + elasticity * k * E`` with ``E = sum_c p_c D[t, c]``, in 0..1, and the stiffness
    ``k = 1 - p_t``, through which no gradient runs. Elasticity 0 is cross-entropy exactly.
    """
    given, wanted = _counted(logits, classes)
    if not len(wanted):
        return logits.sum() * 0.0
    logs = F.log_softmax(given, dim=1)
    own = logs.gather(1, wanted[:, None])[:, 0]
    distances = grade_distances(given.shape[1]).to(given)
    energy = (logs.exp() * distances[wanted]).sum(dim=1)
    stiffness = (1.0 - own.exp()).detach()
    return _mean(elasticity * stiffness * energy - own, wanted, weights)


def cdw_ce(
    logits: Tensor, classes: Tensor, weights: Tensor | None = None, power: float = 5.0
) -> Tensor:
    """Class-distance-weighted cross-entropy (Polat et al., arXiv 2412.01246).

    ``-sum_c |c - t|^power log(1 - p_c)`` over the tissue classes in their order; the background
    is one step from each of them.
    """
    given, wanted = _counted(logits, classes)
    if not len(wanted):
        return logits.sum() * 0.0
    steps = torch.arange(given.shape[1], dtype=given.dtype, device=given.device)
    far = (steps[:, None] - steps[None]).abs()
    far[0, 1:] = far[1:, 0] = 1.0
    # log(1 - p) from the logits of all others: exact where p is near 1.
    logs = F.log_softmax(given, dim=1)
    rest = torch.log1p(-logs.exp().clamp(max=1.0 - 1e-6))
    return _mean(-(far[wanted] ** power * rest).sum(dim=1), wanted, weights)


def make_pixel_loss(settings: Loss, smoothing: float = 0.0) -> PixelLoss:
    """The loss that a recipe asks for."""
    if settings.name == "ordinal_elastic":
        return lambda x, t, w: ordinal_elastic(x, t, w, settings.elasticity)
    if settings.name == "cdw_ce":
        return lambda x, t, w: cdw_ce(x, t, w, settings.distance_power)
    return lambda x, t, w: cross_entropy(x, t, w, smoothing)
