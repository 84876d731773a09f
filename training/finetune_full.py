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
from torch import Tensor, nn

from training.finetune_head import Replay
from training.objective import Objective, OneClass
from training.trainer import R, Trainer


@dataclass
class NearParent(Trainer[R]):
    """What makes a `Trainer` start from a parent and stay near it; goes before it as a base.

    Parameters
    ----------
    parent
        The parent's network; it is not changed.
    parent_classes
        How many it knows.
    shipped
        Its features as `napari_cellpath.models.read_features` gives them, or None.
    objective
        What its head is fitted by.
    """

    parent: nn.Module | None = field(default=None, kw_only=True)
    parent_classes: int = field(default=2, kw_only=True)
    shipped: dict[str, NDArray[Any]] | None = field(default=None, kw_only=True)
    objective: Objective = field(default_factory=OneClass, kw_only=True)
    _teacher: nn.Module | None = field(default=None, init=False)

    @property
    def n_classes(self) -> int:
        """As many as the parent's."""
        return self.parent_classes

    def copied(self, seed: int) -> Any:
        """Copy the parent, all of it free to learn, seeded."""
        assert self.parent is not None and self.recipe.finetune is not None  # noqa: S101, PT018
        torch.manual_seed(seed)
        self.origin = self.recipe.finetune.parent
        return copy.deepcopy(self.parent).requires_grad_(True)

    def further_loss(
        self, module: nn.Module, inputs: Tensor, logits: Tensor, rng: torch.Generator
    ) -> Tensor | float:
        """Replay through the head, or distillation."""
        settings = self.recipe.finetune
        assert settings is not None  # a FineTuner has one  # noqa: S101
        if self.shipped is not None and settings.replay > 0:
            replay = Replay(self.shipped, rng, logits.device, self.objective)
            head = module.get_submodule("network.head")
            return settings.replay * replay.loss(head, len(logits), self.recipe.label_smoothing)
        if settings.distil == 0:
            return 0.0
        if self._teacher is None:
            self._teacher = copy.deepcopy(self.parent).to(logits.device).eval()  # type: ignore[union-attr]
        with torch.inference_mode():
            wanted = self._teacher(inputs)
        near = self.objective.near(logits, wanted.clone(), settings.distil_temperature)
        return settings.distil * near
