"""Teaching a measurer outlines, and weighing what it measures against what a network sees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn import functional as F

from napari_cellpath.core.errors import JobCancelledError, RecipeError
from napari_cellpath.core.vocabulary import Border
from napari_cellpath.systems.deeppap.measuring import GRID, Measurer, areas
from napari_cellpath.systems.deeppap.network import DeepPapNetwork
from training.augment import random_crops
from training.datasets import CellRecord
from training.deeppap import DeepPapTrainer
from training.initial import imagenet_squeezenet
from training.scoring import ScoredViews, crops_of_cell
from training.trainer import Learner, Rows

FUSION_PARTS = 5
"""Parts of the slides by which weights are chosen on the others."""
_SLACK = 0.1
"""Differences of log areas below this are punished by their square."""


class Outlining(Learner):
    """A measurer while it learns; ``network`` is the measurer."""

    def __init__(self, measurer: Measurer, normalise: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network = measurer
        self.normalise = normalise

    def forward(self, crops: Tensor) -> Tensor:
        """Logits of the outlines."""
        outlines: Tensor = self.network.outlines(crops)
        return outlines


@dataclass
class MeasurerTrainer(DeepPapTrainer):
    """Fits measurers to the masks of the same cells, with the same views."""

    def start(self, rows: Rows, seed: int) -> Outlining:
        """Build a measurer with SqueezeNet's ImageNet weights, seeded.

        Raises
        ------
        RecipeError
            The data have no masks.
        """
        if not self.cells.has_masks:
            raise RecipeError("network.measures needs masks of every cell, and there are none.")
        torch.manual_seed(seed)
        look = super().start(rows, seed)
        measurer = Measurer()
        measurer.take_trunk(imagenet_squeezenet(self.recipe.network))
        measurer.entry.requires_grad_(False)
        whole = Outlining(measurer, look.network.normalise)
        return whole.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def optimiser(self, module: Learner) -> torch.optim.Optimizer:
        """Two learning rates: layers of SqueezeNet, and the decoder."""
        measurer: Measurer = module.network
        decoder = {id(p) for p in measurer.decoder_parameters()}
        o = self.recipe.optimiser
        learning = [p for p in measurer.parameters() if p.requires_grad]
        return torch.optim.AdamW(
            [
                {"params": [p for p in learning if id(p) not in decoder], "lr": o.lr_trunk},
                {"params": [p for p in learning if id(p) in decoder], "lr": o.lr_head},
            ],
            weight_decay=o.weight_decay,
        )

    def make_loss(
        self, _rows: Rows, generator: torch.Generator, device: torch.device
    ) -> Callable[[nn.Module, Tensor], Tensor]:
        """Cross-entropy and overlap of the outlines, and the difference of the areas."""

        def loss(module: nn.Module, batch: Tensor) -> Tensor:
            normalise: Any = module.normalise
            views = self._views(batch, generator, device)
            views = torch.cat([normalise(views[:, :3]), views[:, 3:]], dim=1)
            cut = random_crops(views, generator)
            logits = module(cut[:, :3].contiguous(memory_format=torch.channels_last))
            return outline_loss(logits, F.adaptive_avg_pool2d(cut[:, 3:], (GRID, GRID)))

        return loss


def outline_loss(logits: Tensor, wanted: Tensor) -> Tensor:
    """How far outlines (N, 2, h, w) lie from the shares of each place that are nucleus and cell."""
    found = logits.sigmoid()
    both, either = (found * wanted).sum((2, 3)), (found + wanted).sum((2, 3))
    overlap = (2 * both + 1.0) / (either + 1.0)
    return (
        2.0 * F.binary_cross_entropy_with_logits(logits, wanted)
        + (1.0 - overlap).mean()
        + 0.5 * F.smooth_l1_loss(areas(found), areas(wanted), beta=_SLACK)
    )


def evidence_of_cells(
    network: DeepPapNetwork,
    records: Sequence[CellRecord],
    *,
    looked_at: ScoredViews,
    border: Border = Border.ZERO,
    jitter: int = 0,
    seed: int = 0,
    should_stop: Callable[[], bool] | None = None,
) -> NDArray[np.float64]:
    """What a network of two classes goes by, (n, inputs, 1 + measures): logit, then measures."""
    found = []
    with torch.inference_mode():
        for record in records:
            pieces = []
            for crops in crops_of_cell(network, record, looked_at, border, jitter, seed):
                if should_stop is not None and should_stop():
                    raise JobCancelledError("Scoring was cancelled.")
                maps = network.trunk(crops)
                logits = network.head(maps)
                measures = maps[:, -2:, 0, 0]
                pieces.append(torch.cat([logits[:, 1:] - logits[:, :1], measures], dim=1))
            found.append(torch.cat(pieces).double().cpu().numpy())
    return np.stack(found)


@dataclass(frozen=True)
class Fusion:
    """Weights of what a network goes by: logit = scale * look + weights @ measures + bias."""

    scale: float
    weights: tuple[float, ...]
    bias: float

    @classmethod
    def fit(cls, evidence: NDArray[np.float64], abnormal: NDArray[np.bool_]) -> Fusion:
        """Logistic regression on each cell's mean evidence (n, inputs, 1 + measures)."""
        means = evidence.mean(axis=1)
        scaler = StandardScaler().fit(means)
        model = LogisticRegression().fit(scaler.transform(means), abnormal)
        weights = model.coef_[0] / scaler.scale_
        bias = float(model.intercept_[0] - weights @ scaler.mean_)
        return cls(float(weights[0]), tuple(float(w) for w in weights[1:]), bias)

    def scores(self, evidence: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mean probability of abnormal over each cell's inputs, (n,)."""
        logits = evidence @ np.array([self.scale, *self.weights]) + self.bias
        return np.asarray((1.0 / (1.0 + np.exp(-logits))).mean(axis=1))


def scores_by_others(
    pooled: dict[str, NDArray[np.float64]],
    abnormal: NDArray[np.bool_],
    groups: Sequence[str],
    fitted_on: str,
) -> dict[str, NDArray[np.float64]]:
    """Scores of cells by weights that were fitted to cells of other groups.

    Parameters
    ----------
    pooled
        Evidence (n, inputs, 1 + measures) of the same cells, by the way they were looked at.
    abnormal, groups
        Of each cell.
    fitted_on
        Which way the weights are fitted on.
    """
    scores = {way: np.full(len(abnormal), np.nan) for way in pooled}
    parts = GroupKFold(min(FUSION_PARTS, len(set(groups))))
    for train, test in parts.split(pooled[fitted_on], abnormal, groups):
        fusion = Fusion.fit(pooled[fitted_on][train], abnormal[train])
        for way, evidence in pooled.items():
            scores[way][test] = fusion.scores(evidence[test])
    return scores
