"""Fitting one DeepPap network to rows of labelled cells; the run round it is `deeppap_run`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from napari_cellpath.core.errors import RecipeError
from napari_cellpath.systems.deeppap.views import CROP, VIEW
from training.augment import random_crops, random_views
from training.cells import Cells
from training.datasets import CellData
from training.deeppap_network import TrainingNetwork, freeze_first
from training.deeppap_recipe import Augmentation, Recipe
from training.fit import Metrics
from training.initial import build_network
from training.trainer import HUGE_LOSS, Rows, Trainer, class_weights, epoch_batches


def views_of_cells(recipe: Recipe, data: CellData) -> NDArray[np.int64]:
    """How often each cell, (n,), is seen in an epoch.

    Raises
    ------
    RecipeError
        ``more_views`` names a class that the data do not have.
    """
    views = np.where(data.abnormal, recipe.views_per_epoch[1], recipe.views_per_epoch[0])
    names = [c.name for c in data.fine_classes]
    for name, times in recipe.more_views.items():
        if name not in names:
            raise RecipeError(f"more_views: there is no class '{name}'; known: {', '.join(names)}.")
        views = np.where(data.labels == names.index(name), views * times, views)
    return views.astype(np.int64)


@dataclass
class DeepPapTrainer(Trainer[Recipe]):
    """A `Trainer` of DeepPap; ``data`` and ``cells`` are the records and their pixels."""

    data: CellData
    cells: Cells
    mirrored_parts: ClassVar[bool] = True

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Of one crop: channels, height, width."""
        return 3, CROP, CROP

    @property
    def n_classes(self) -> int:
        """Outputs of the network."""
        return self.recipe.data.classes

    def batches(self, rows: Rows, epoch: int, seed: int) -> Sequence[Tensor]:
        """One epoch's rows; see `epoch_batches`."""
        views = views_of_cells(self.recipe, self.data)
        return epoch_batches(rows, views, self.recipe.batch, epoch, seed)

    def start(self, rows: Rows, seed: int) -> TrainingNetwork:
        """Build the network with its initial weights, seeded."""
        torch.manual_seed(seed)
        network, self.origin = build_network(self.recipe.network, self.n_classes)
        freeze_first(network.trunk, self.recipe.network.frozen_layers)
        if self.recipe.network.mean_image:
            network.mean.copy_(self._mean_image(rows, seed))
        fine = self.cells.n_fine if self._weight_of_classes() > 0 else 0
        features = self.cells.features.shape[1] if self.recipe.auxiliary.features > 0 else 0
        maps = 2 if self.cells.has_masks and self.recipe.auxiliary.masks > 0 else 0
        whole = TrainingNetwork(network, fine, features, maps, self.recipe.augmentation.mix_style)
        return whole.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def _weight_of_classes(self) -> float:
        same = self.recipe.data.classes != 2 or self.cells.n_fine <= 2
        return 0.0 if same else self.recipe.auxiliary.classes

    def _mean_image(self, rows: Rows, seed: int) -> Tensor:
        """Mean of one augmented view of every training cell (papers.md 1.2)."""
        generator = torch.Generator().manual_seed(seed)
        total = torch.zeros(3, VIEW, VIEW)
        for some in torch.from_numpy(rows).split(64):
            total += self._views(some, generator, torch.device("cpu"))[:, :3].sum(dim=0)
        return total / len(rows)

    def _augmentation(self) -> Augmentation:
        return self.recipe.augmentation

    def _views(self, batch: Tensor, generator: torch.Generator, device: torch.device) -> Tensor:
        return random_views(
            self.cells.windows[batch].to(device),
            self.cells.backgrounds[batch].to(device),
            self._augmentation(),
            generator,
            mirrored_parts=self.mirrored_parts,
        )

    def make_loss(
        self, rows: Rows, generator: torch.Generator, device: torch.device
    ) -> Callable[[nn.Module, Tensor], Tensor]:
        """Cross-entropy of the classes, and the auxiliary losses; draws its own views."""
        r, cells = self.recipe, self.cells
        weights = class_weights(cells.targets[rows], self.n_classes, r.balance).to(device)
        weight_of_classes = self._weight_of_classes()

        def loss(module: nn.Module, batch: Tensor) -> Tensor:
            normalise: Any = module.get_submodule("network").normalise
            views = self._views(batch, generator, device)
            views = torch.cat([normalise(views[:, :3]), views[:, 3:]], dim=1)
            cut = random_crops(views, generator, at_random=r.augmentation.random_crop)
            crops = cut[:, :3].contiguous(memory_format=torch.channels_last)
            logits, fine, features, parts = module(crops)
            total = F.cross_entropy(
                logits, cells.targets[batch].to(device),
                weight=weights, label_smoothing=r.label_smoothing,
            )  # fmt: skip
            total = total + self.further_loss(module, crops, logits, generator)  # type: ignore[arg-type]
            if fine.shape[1]:
                total = total + weight_of_classes * F.cross_entropy(
                    fine, cells.fine[batch].to(device), label_smoothing=r.label_smoothing
                )
            if features.shape[1]:
                total = total + r.auxiliary.features * F.smooth_l1_loss(
                    features, cells.features[batch].to(device)
                )
            if parts is not None:
                wanted = F.adaptive_avg_pool2d(cut[:, 3:], (parts.shape[-2], parts.shape[-1]))
                total = total + r.auxiliary.masks * F.binary_cross_entropy_with_logits(
                    parts, wanted
                )
            return total

        return loss

    def validation_loss(self, rows: Rows) -> Callable[[nn.Module], Metrics]:
        """Cross-entropy of the upright centre crop of ``rows``, for keeping the best epoch."""

        def validate(module: nn.Module) -> Metrics:
            assert isinstance(module, TrainingNetwork)  # what went in  # noqa: S101
            network = module.network
            device = next(network.parameters()).device
            calm = self.recipe.augmentation.model_copy(
                update={
                    "angles": 1,
                    "max_shift": 0.0,
                    "scale": 0.0,
                    "stain": 0.0,
                    "colour": 0.0,
                    "blur": 0.0,
                }
            )
            generator = torch.Generator().manual_seed(0)
            total = 0.0
            with torch.inference_mode():
                for some in torch.from_numpy(rows).split(64):
                    views = random_views(
                        self.cells.windows[some].to(device),
                        self.cells.backgrounds[some].to(device), calm, generator,
                    )  # fmt: skip
                    crops = random_crops(
                        network.normalise(views[:, :3]), generator, at_random=False
                    )
                    wanted = self.cells.targets[some].to(device)
                    total += float(F.cross_entropy(network(crops), wanted, reduction="sum"))
            return {"validation_loss": min(total / len(rows), HUGE_LOSS)}

        return validate
