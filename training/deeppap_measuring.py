"""Teaching a measurer outlines, and weighing what it measures against what a network sees."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn import functional as F

from napari_cellpath.core.errors import RecipeError
from napari_cellpath.systems.deeppap.measuring import GRID, Measurer, areas
from training.augment import random_crops, random_views
from training.deeppap import DeepPapTrainer
from training.deeppap_recipe import Augmentation, Borders
from training.initial import imagenet_squeezenet
from training.trainer import Learner, Rows

LOOK = 1.0
"""Weight of the look beside the areas: two opinions, added. On Herlev 0.5 to 2 were alike."""
VIEWS_OF_MASKS = 3
BORDERS = Borders(zero=0.4, reflect=0.3, background=0.3)
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
    """Fits measurers to the masks of the same cells.

    Views are those of the look, but their borders are more evenly shared, and what a border
    mirrors is no part of the cell: told otherwise, a measurer calls a nucleus at the image's edge
    twice its size, and on mirrored borders the area of the nucleus says half as much.
    """

    mirrored_parts: ClassVar[bool] = False

    def _augmentation(self) -> Augmentation:
        return self.recipe.augmentation.model_copy(update={"borders": BORDERS})

    def start(self, rows: Rows, seed: int) -> Outlining:  # type: ignore[override]
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


@dataclass(frozen=True)
class Fusion:
    """How a look and two areas become one call: logit = scale * look + weights @ areas + bias."""

    scale: float
    weights: tuple[float, ...]
    bias: float

    @classmethod
    def fit(cls, measured: NDArray[np.float64], abnormal: NDArray[np.bool_]) -> Fusion:
        """Logistic regression on areas (n, measures) of masks, beside the look as it is.

        Masks, because a network's measures of the cells it was taught on flatter.
        """
        model = LogisticRegression().fit(measured, abnormal)
        weights = tuple(float(w) for w in model.coef_[0])
        return cls(LOOK, weights, float(model.intercept_[0]))


def mask_areas(trainer: DeepPapTrainer, rows: Rows) -> NDArray[np.float64]:
    """Areas (n, measures) of the masks of cells, means over a few views with centres off."""
    settings = trainer.recipe.augmentation.model_copy(
        update={
            "angles": 0, "max_shift": float(trainer.recipe.evaluation_jitter), "scale": 0.0,
            "stain": 0.0, "parts": 0.0, "colour": 0.0, "blur": 0.0,
            "borders": Borders(zero=1.0, reflect=0.0, background=0.0),
        }
    )  # fmt: skip
    generator = torch.Generator().manual_seed(trainer.recipe.seed)
    cells, found = trainer.cells, []
    for some in torch.from_numpy(rows).split(32):
        windows, grounds = cells.windows[some], cells.backgrounds[some]
        looks = []
        for _ in range(VIEWS_OF_MASKS):
            views = random_views(windows, grounds, settings, generator)[:, 3:]
            cut = random_crops(views, generator, at_random=False)
            looks.append(areas(F.adaptive_avg_pool2d(cut, (GRID, GRID))))
        found.append(torch.stack(looks).mean(dim=0))
    return np.asarray(torch.cat(found).double().numpy())
