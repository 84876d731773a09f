"""The network while it learns, with heads beside the one that is kept."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from napari_cellpath.systems.deeppap.measuring import MeasuredTrunk, beside
from napari_cellpath.systems.deeppap.network import DeepPapNetwork
from napari_cellpath.systems.deeppap.views import CROP
from training.augment import mix_styles
from training.trainer import Learner


class TrainingNetwork(Learner):
    """The network, and beside its head the auxiliary ones that share its trunk.

    A multi-task trunk learns what the fine classes and the published sizes have in common;
    only `network` is kept.
    """

    def __init__(
        self,
        network: DeepPapNetwork,
        n_fine: int,
        n_features: int,
        n_maps: int = 0,
        mix_style: float = 0.0,
    ) -> None:
        super().__init__()
        self.network = network
        self.n_fine = n_fine
        self.mix_style = mix_style
        with torch.no_grad():
            was = network.training
            channels = network.eval().trunk(torch.zeros(1, 3, CROP, CROP)).shape[1]
            network.train(was)
        self.dropout = nn.Dropout(0.5)
        self.auxiliary = nn.Linear(channels, n_fine + n_features)
        self.dense = nn.Conv2d(channels, n_maps, 1) if n_maps else None
        for layer in (self.auxiliary, self.dense):
            if layer is not None:
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def _maps(self, crops: Tensor) -> Tensor:
        """Run the trunk; in training, mix styles after its first two poolings."""
        if not (self.training and self.mix_style > 0 and torch.rand(()) < self.mix_style):
            maps: Tensor = self.network.trunk(crops)
            return maps
        maps, mixed = crops, 0
        trunk = self.network.trunk
        for layer in (trunk.look if isinstance(trunk, MeasuredTrunk) else trunk).children():
            maps = layer(maps)
            if mixed < 2 and isinstance(layer, nn.MaxPool2d):
                maps, mixed = mix_styles(maps), mixed + 1
        # Outlines do not hang on the style; they are taken of the crops as they are.
        return beside(maps, trunk.measurer(crops)) if isinstance(trunk, MeasuredTrunk) else maps

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Logits of the classes and fine classes, features' estimates, logits of the parts."""
        maps = self._maps(crops)
        side: Tensor = self.auxiliary(self.dropout(maps.mean(dim=(2, 3))))
        parts = None if self.dense is None else self.dense(maps)
        return self.network.head(maps), side[:, : self.n_fine], side[:, self.n_fine :], parts


def freeze_first(trunk: nn.Module, layers: int) -> None:
    """Have the first layers of a trunk keep their weights."""
    look = trunk.look if isinstance(trunk, MeasuredTrunk) else trunk
    for layer in list(look.children())[:layers]:
        layer.requires_grad_(False)
