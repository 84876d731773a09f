"""The thorough way of fine-tuning: every layer learns, at low rates, without going far away.

What holds it near the parent is replay of the features the parent carries, through the head,
or, where it carries none, distillation (Hinton et al. 2015): the parent looks at the same views
of the new cells, and its softened answers count beside the labels.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from napari_cellpath.systems.deeppap.network import DeepPapNetwork
from training.deeppap import Rows, Trainer
from training.deeppap_network import TrainingNetwork
from training.finetune_head import Replay


@dataclass
class FineTuner(Trainer):
    """A `Trainer` that starts from a parent and stays near it.

    Parameters
    ----------
    parent
        The parent's network; it is not changed.
    parent_classes
        How many it knows.
    shipped
        Its features as `napari_cellpath.models.read_features` gives them, or None.
    """

    parent: DeepPapNetwork | None = None
    parent_classes: int = 2
    shipped: dict[str, NDArray[Any]] | None = None
    _teacher: DeepPapNetwork | None = field(default=None, init=False)

    @property
    def n_classes(self) -> int:
        """As many as the parent's."""
        return self.parent_classes

    def start(self, _rows: Rows, seed: int) -> TrainingNetwork:
        """Copy the parent, seeded."""
        assert self.parent is not None and self.recipe.finetune is not None  # noqa: S101, PT018
        torch.manual_seed(seed)
        self.origin = self.recipe.finetune.parent
        network = copy.deepcopy(self.parent).requires_grad_(True)
        for layer in list(network.trunk.children())[: self.recipe.network.frozen_layers]:
            layer.requires_grad_(False)
        whole = TrainingNetwork(network, 0, 0, 0, self.recipe.augmentation.mix_style)
        return whole.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def further_loss(
        self, module: TrainingNetwork, crops: Tensor, logits: Tensor, rng: torch.Generator
    ) -> Tensor | float:
        """Replay through the head, or distillation."""
        settings = self.recipe.finetune
        assert settings is not None  # a FineTuner has one  # noqa: S101
        if self.shipped is not None and settings.replay > 0:
            replay = Replay(self.shipped, rng, logits.device)
            head = module.get_submodule("network.head")
            return settings.replay * replay.loss(head, len(logits), self.recipe.label_smoothing)
        if settings.distil == 0:
            return 0.0
        if self._teacher is None:
            self._teacher = copy.deepcopy(self.parent).to(logits.device).eval()  # type: ignore[union-attr]
        with torch.inference_mode():
            wanted = self._teacher(crops)
        soft = settings.distil_temperature
        near = F.kl_div(
            F.log_softmax(logits / soft, dim=1), F.log_softmax(wanted.clone() / soft, dim=1),
            log_target=True, reduction="batchmean",
        )  # fmt: skip
        return settings.distil * soft**2 * near
