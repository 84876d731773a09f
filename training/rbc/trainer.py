"""Fitting trunk and heads to labelled regions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from napari_cellpath.systems import catalogue
from napari_cellpath.systems.rbc.boxes import RegionInput
from napari_cellpath.systems.rbc.network import LabelHeads
from training.fit import Metrics
from training.rbc.initial import load_imagenet
from training.rbc.objective import masked_loss, mean_loss, positive_weights
from training.rbc.patches import RbcPatches, random_views
from training.rbc.recipe import RbcNetwork, RbcRecipe
from training.rbc.table import RedCells
from training.trainer import HUGE_LOSS, Learner, Rows, Trainer, epoch_batches

SCORED_AT_ONCE = 128


def input_of(recipe: RbcRecipe) -> RegionInput:
    """How the model of a recipe wants its boxes."""
    wants = recipe.network
    return RegionInput.of(
        {
            "patch": wants.size, "fit": wants.fit, "least": wants.least,
            "score": recipe.detector.score, "scale": recipe.detector.scale,
            "average": recipe.evaluation,
        },
        recipe.name,
    )  # fmt: skip


class PatchNetwork(nn.Module):
    """Trunk and heads, as fine-tuning and fitting of all systems know them."""

    def __init__(self, trunk: nn.Module, head: LabelHeads) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = head

    def forward(self, patches: Tensor) -> Tensor:
        """Logits (n, n_types) of patches (n, 3, S, S) in 0..1."""
        logits: Tensor = self.head(self.trunk(patches))
        return logits


def build(settings: RbcNetwork, n_types: int, learning: str) -> tuple[PatchNetwork, str]:
    """Trunk and heads of a recipe with their initial weights, and what the trunk's are.

    A trunk that is to learn is let free; its batch normalisation, where it has any, stays as it
    came.
    """
    trunk: Any = catalogue.build(settings.trunk)
    origin = load_imagenet(trunk.body, settings.trunk, settings.weights)
    trunk.requires_grad_(learning == "trunk")
    heads = LabelHeads(trunk.n_features, n_types, settings.hidden, settings.dropout)
    return PatchNetwork(trunk, heads), origin


class Learning(Learner):
    """A network while it learns."""

    def __init__(self, network: PatchNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, patches: Tensor) -> Tensor:
        """Logits (n, n_types)."""
        logits: Tensor = self.network(patches)
        return logits


@dataclass
class RbcTrainer(Trainer[RbcRecipe]):
    """A `Trainer` of RBC's trunk and heads; ``patches`` are those of the records of ``data``."""

    data: RedCells
    patches: RbcPatches
    weights: Tensor | None = field(default=None, init=False)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Of one patch: channels, height, width."""
        _, channels, height, width = self.patches.pictures.shape
        return channels, height, width

    @property
    def n_types(self) -> int:
        """Heads of the network."""
        return self.patches.targets.shape[1]

    def start(self, _rows: Rows, seed: int) -> Learner:
        """Build the network with its initial weights, seeded."""
        torch.manual_seed(seed)
        network, self.origin = build(self.recipe.network, self.n_types, self.recipe.learning)
        return Learning(network).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def optimiser(self, module: Learner) -> torch.optim.Optimizer:
        """Two learning rates; Adam with plain L2 where the recipe says so, as the paper."""
        o = self.recipe.optimiser
        if o.name != "adam":
            return super().optimiser(module)
        trunk = [p for p in module.network.trunk.parameters() if p.requires_grad]
        groups = [{"params": module.network.head.parameters(), "lr": o.lr_head}]
        groups += [{"params": trunk, "lr": o.lr_trunk}] if trunk else []
        return torch.optim.Adam(groups, weight_decay=o.weight_decay)

    def batches(self, rows: Rows, epoch: int, seed: int) -> Sequence[Tensor]:
        """One epoch's rows, each once."""
        once = np.ones(int(rows.max()) + 1, dtype=np.int64)
        return epoch_batches(np.sort(rows), once, self.recipe.batch, epoch, seed)

    def make_loss(
        self, rows: Rows, generator: torch.Generator, device: torch.device
    ) -> Callable[[nn.Module, Tensor], Tensor]:
        """Masked cross-entropy of the labels on random views."""
        r, patches = self.recipe, self.patches
        weights = positive_weights(patches.targets[rows], r.balance).to(device)

        def loss(module: nn.Module, batch: Tensor) -> Tensor:
            views = random_views(patches.pictures[batch], r.augmentation, generator).to(device)
            views = views.contiguous(memory_format=torch.channels_last)
            logits: Tensor = module(views)
            total = masked_loss(
                logits, patches.targets[batch].to(device), weights, r.label_smoothing
            )
            return total + self.further_loss(module, views, logits, generator)

        return loss

    def validation_loss(self, rows: Rows) -> Callable[[nn.Module], Metrics]:
        """`mean_loss` of ``rows`` as they are, for keeping the best epoch."""

        def validate(module: nn.Module) -> Metrics:
            assert isinstance(module, Learner)  # what went in  # noqa: S101
            logits = logits_of(module.network, self.patches.pictures[rows])
            found = mean_loss(logits, self.patches.targets[rows])
            return {"validation_loss": min(found, HUGE_LOSS)}

        return validate


def logits_of(network: nn.Module, pictures: Tensor) -> Tensor:
    """Logits (n, n_types) of patches (n, 3, S, S) uint8."""
    device = next(network.parameters()).device
    found = []
    with torch.inference_mode():
        for some in pictures.split(SCORED_AT_ONCE):
            x = (some.float() / 255).to(device).contiguous(memory_format=torch.channels_last)
            found.append(network(x).float().cpu())
    return torch.cat(found)
