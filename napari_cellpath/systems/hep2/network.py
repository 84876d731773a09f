"""The networks that tell HEp-2 patterns: the paper's, as reconstructed, and a small residual one.

Every network takes (N, 1, 60, 60) single-channel cells in 0..1 and gives one logit a class. It
has a ``trunk``, which gives pooled features (N, members x d), and a ``head`` on them. With
several members (the paper's vote of the last three epochs, papers.md 4.5) the softmax of the
logits is the mean of the members' probabilities.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_cellpath.systems.hep2.cells import SIZE as SIZE  # said here too: what the layers take

PAPER_STD = 1e-3
"""Standard deviation of the paper's initial weights (papers.md 4.4)."""


class Members(nn.Module):
    """Several trunks of one shape side by side; their pooled features are joined."""

    def __init__(self, trunks: list[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(trunks)

    def forward(self, cells: Tensor) -> Tensor:
        """Features (N, members x d) of cells (N, 1, H, W)."""
        return torch.cat([trunk(cells) for trunk in self.members], dim=1)


class VotingHead(nn.Module):
    """A linear classifier a member; members vote by mean probability, not by majority."""

    def __init__(self, members: int, n_features: int, n_classes: int) -> None:
        super().__init__()
        self.classifiers = nn.ModuleList(nn.Linear(n_features, n_classes) for _ in range(members))

    def forward(self, features: Tensor) -> Tensor:
        """Logits (N, n_classes) of features (N, members x d)."""
        parts = features.chunk(len(self.classifiers), dim=1)
        each = [classify(part) for classify, part in zip(self.classifiers, parts, strict=True)]
        if len(each) == 1:
            return each[0]
        mean = torch.stack([F.log_softmax(logits, dim=1) for logits in each])
        return mean.logsumexp(dim=0)  # + a constant, which no softmax sees


class Hep2Network(nn.Module):
    """Trunks and their head."""

    def __init__(self, trunks: list[nn.Module], n_features: int, n_classes: int) -> None:
        super().__init__()
        self.trunk = Members(trunks)
        self.head = VotingHead(len(trunks), n_features, n_classes)

    @property
    def n_members(self) -> int:
        """How many vote."""
        return len(self.trunk.members)

    def forward(self, cells: Tensor) -> Tensor:
        """Logits (N, n_classes) of cells (N, 1, H, W) in 0..1; H and W of at least 7."""
        logits: Tensor = self.head(self.trunk(cells))
        return logits


def _pooled() -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten()]


def _convolution(inputs: int, outputs: int, side: int, batch_norm: bool) -> list[nn.Module]:
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, side, padding=side // 2, bias=not batch_norm)
    ]
    if batch_norm:
        layers.append(nn.BatchNorm2d(outputs))
    return [*layers, nn.ReLU(inplace=True)]


def _initialise(network: Hep2Network, how: Literal["he", "paper"]) -> Hep2Network:
    """He's rule; or the paper's deviation of 0.001, which cannot train this depth (4.4)."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            if how == "paper":
                nn.init.normal_(layer.weight, std=PAPER_STD)
            else:
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return network


def nin10(
    n_classes: int = 6,
    *,
    width: int = 192,
    batch_norm: bool = False,
    members: int = 1,
    init: Literal["he", "paper"] = "he",
) -> Hep2Network:
    """The paper's ten layers, reconstructed: 891,750 parameters (papers.md 4.3).

    The figure that shows them was never found; this is MatConvNet's own network-in-network
    cut to ten layers, as the text describes. Layer 9, a 1x1 convolution to the classes, and
    layer 10, the average over places, are linear and change places here: the same numbers and
    parameters, a hundredth of the work, and the averaged features serve fine-tuning.

    Parameters
    ----------
    n_classes
        Patterns.
    width
        Channels of the wide layers; even.
    batch_norm
        Batch normalisation before each ReLU; not the paper's.
    members
        Networks that vote.
    init
        ``he``, or ``paper``: a deviation of 0.001, kept for demonstration.
    """

    def trunk() -> nn.Module:
        return nn.Sequential(
            *_convolution(1, width, 5, batch_norm),
            *_convolution(width, width // 2, 1, batch_norm),
            nn.MaxPool2d(3, 2), nn.Dropout(0.5),
            *_convolution(width // 2, width, 5, batch_norm),
            *_convolution(width, width, 1, batch_norm),
            nn.AvgPool2d(3, 2), nn.Dropout(0.5),
            *_convolution(width, width, 3, batch_norm),
            *_convolution(width, width, 1, batch_norm),
            *_pooled(),
        )  # fmt: skip

    return _initialise(Hep2Network([trunk() for _ in range(members)], width, n_classes), init)


def nin_matconvnet(
    n_classes: int = 6, *, members: int = 1, init: Literal["he", "paper"] = "he"
) -> Hep2Network:
    """MatConvNet's whole CIFAR network-in-network on one channel: 956,614 parameters (4.3)."""

    def trunk() -> nn.Module:
        return nn.Sequential(
            *_convolution(1, 192, 5, False), *_convolution(192, 160, 1, False),
            *_convolution(160, 96, 1, False), nn.MaxPool2d(3, 2), nn.Dropout(0.5),
            *_convolution(96, 192, 5, False), *_convolution(192, 192, 1, False),
            *_convolution(192, 192, 1, False), nn.AvgPool2d(3, 2), nn.Dropout(0.5),
            *_convolution(192, 192, 3, False), *_convolution(192, 192, 1, False),
            *_pooled(),
        )  # fmt: skip

    return _initialise(Hep2Network([trunk() for _ in range(members)], 192, n_classes), init)


class Residual(nn.Module):
    """Two 3x3 convolutions round a shortcut (He et al. 2016), ``stride`` in the first."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs),
        )  # fmt: skip
        same = stride == 1 and inputs == outputs
        self.shortcut: nn.Module = nn.Identity() if same else nn.Sequential(
            nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        return F.relu(self.body(x) + self.shortcut(x), inplace=True)


def resnet8(n_classes: int = 6, *, width: int = 32, members: int = 1) -> Hep2Network:
    """Three residual blocks at half, quarter and eighth size; not of the paper.

    A twelfth of the time of `nin10` on a CPU at a third of its parameters.
    """

    def trunk() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, width, 5, 2, 2, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
            Residual(width, width, 1),
            Residual(width, 2 * width, 2),
            Residual(2 * width, 4 * width, 2),
            *_pooled(),
        )  # fmt: skip

    return _initialise(Hep2Network([trunk() for _ in range(members)], 4 * width, n_classes), "he")
