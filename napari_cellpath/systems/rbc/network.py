"""Features and label heads of RBC, and the whole cascade that a model folder holds.

A patch (3, S, S) in 0..1 becomes a feature vector by a frozen trunk; each type has a head of its
own on it, which gives one logit. Probabilities are the sigmoids: they are independent and do not
sum to one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import models as tv

from napari_cellpath.systems.rbc.imagenet import MEAN, STD, Weights, backbone_of

PATCH = 224
"""Side of the square a box becomes, pixels (papers.md 2.2)."""
HIDDEN = 512
N_TYPES = 6


class FrozenFeatures(nn.Module):
    """An ImageNet network as a fixed measuring instrument (papers.md 2.3).

    Its weights take no gradient and its batch normalisation stays as in evaluation, in training
    too: the features of a patch never change.

    Parameters
    ----------
    body
        Maps normalised (N, 3, S, S) to (N, d), or to a map that is averaged over places.
    n_features
        d.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, body: nn.Module, n_features: int) -> None:
        super().__init__()
        self.body = body
        self.n_features = n_features
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1))
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> FrozenFeatures:
        """Stay in evaluation mode, whatever is asked."""
        del mode
        return super().train(False)

    def forward(self, patches: Tensor) -> Tensor:
        """Features (N, d) of RGB patches (N, 3, S, S) in 0..1."""
        features: Tensor = self.body((patches - self.mean) / self.std)
        return features.mean(dim=(2, 3)) if features.ndim == 4 else features


def resnet50_features(n_classes: int = 0, *, weights: Weights = None) -> FrozenFeatures:
    """ResNet-50 without its classifier, 2048 features: 23,508,032 parameters (papers.md 2.3).

    Parameters
    ----------
    n_classes
        Not used: features tell nothing apart.
    weights
        ``"torchvision"`` downloads ImageNet's.
    """
    del n_classes
    body = tv.resnet50(weights=None)
    body.fc = nn.Identity()  # type: ignore[assignment]
    backbone_of("resnet50", weights, body)
    return FrozenFeatures(body, 2048)


def resnet18_features(n_classes: int = 0, *, weights: Weights = None) -> FrozenFeatures:
    """ResNet-18 without its classifier, 512 features; arguments of `resnet50_features`."""
    del n_classes
    body = tv.resnet18(weights=None)
    body.fc = nn.Identity()  # type: ignore[assignment]
    backbone_of("resnet18", weights, body)
    return FrozenFeatures(body, 512)


def squeezenet_features(n_classes: int = 0, *, weights: Weights = None) -> FrozenFeatures:
    """SqueezeNet 1.0 without its classifier, 512 features, for a CPU; not of the paper."""
    del n_classes
    body = tv.squeezenet1_0(weights=None).features
    backbone_of("squeezenet1_0", weights, body)
    return FrozenFeatures(body, 512)


class LabelHeads(nn.Module):
    """One head ``d -> hidden -> 1`` for each type, all in one pass (papers.md 2.3).

    Equal to as many separate networks of two layers: no head sees another's hidden units.

    Parameters
    ----------
    n_features
        d.
    n_types
        Heads.
    hidden
        Units of each, ReLU.
    dropout
        Of the hidden units, in training; the paper has none.
    """

    def __init__(
        self, n_features: int, n_types: int, hidden: int = HIDDEN, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.weight1 = nn.Parameter(torch.empty(n_types, hidden, n_features))
        self.bias1 = nn.Parameter(torch.empty(n_types, hidden))
        self.weight2 = nn.Parameter(torch.empty(n_types, hidden))
        self.bias2 = nn.Parameter(torch.empty(n_types))
        self.dropout = nn.Dropout(dropout)
        for parameter, fan_in in (
            (self.weight1, n_features), (self.bias1, n_features),
            (self.weight2, hidden), (self.bias2, hidden),
        ):  # as nn.Linear does  # fmt: skip
            nn.init.uniform_(parameter, -1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in))

    @property
    def n_types(self) -> int:
        """How many heads there are."""
        return len(self.bias2)

    @property
    def n_features(self) -> int:
        """How many features each takes."""
        return self.weight1.shape[2]

    def forward(self, features: Tensor) -> Tensor:
        """Logits (N, n_types) of features (N, d); N may be 0."""
        hidden = torch.einsum("nd,thd->nth", features, self.weight1) + self.bias1
        hidden = self.dropout(torch.relu(hidden))
        return torch.einsum("nth,th->nt", hidden, self.weight2) + self.bias2

    def probabilities(self, features: Tensor) -> Tensor:
        """Probability of each type, (N, n_types) in 0..1."""
        return torch.sigmoid(self(features))

    @classmethod
    def of(cls, heads: Sequence[tuple[nn.Linear, nn.Linear]]) -> LabelHeads:
        """Join separate networks: (d -> hidden, hidden -> 1) of each type."""
        first, _ = heads[0]
        joined = cls(first.in_features, len(heads), first.out_features)
        with torch.no_grad():
            for i, (one, two) in enumerate(heads):
                joined.weight1[i], joined.bias1[i] = one.weight, one.bias
                joined.weight2[i], joined.bias2[i] = two.weight[0], two.bias[0]
        return joined


def rbc_heads(
    n_classes: int = N_TYPES,
    *,
    n_features: int = 2048,
    hidden: int = HIDDEN,
    dropout: float = 0.0,
) -> LabelHeads:
    """Six heads 2048 -> 512 -> 1: 6,297,606 parameters (papers.md 2.3)."""
    return LabelHeads(n_features, n_classes, hidden, dropout)


class Cascade(nn.Module):
    """Detector, trunk and heads: what the weights of an ``rbc-cascade`` folder fill.

    The folder's ``booster.*`` arrays are not weights of a network; `beside` names them to the
    loader, and `napari_cellpath.systems.rbc.verdict` reads them.
    """

    beside = ("booster.",)

    def __init__(
        self, detector: nn.Module | None, trunk: FrozenFeatures, heads: LabelHeads
    ) -> None:
        super().__init__()
        self.detector = detector
        self.trunk = trunk
        self.heads = heads

    def forward(self, patches: Tensor) -> Tensor:
        """Logits (N, n_types) of patches (N, 3, S, S) in 0..1; the detector is called apart."""
        logits: Tensor = self.heads(self.trunk(patches))
        return logits


def rbc_cascade(
    n_classes: int = N_TYPES,
    *,
    detector: str | None = "resnet101-fpn",
    detector_arguments: Mapping[str, Any] | None = None,
    trunk: str = "resnet50-features",
    hidden: int = HIDDEN,
    dropout: float = 0.0,
) -> Cascade:
    """The whole of RBC, by the names of its parts.

    Parameters
    ----------
    n_classes
        Types, one head each.
    detector, detector_arguments
        An architecture of this system that detects and what it is built with; None: the model
        labels boxes and finds none.
    trunk
        An architecture of this system that gives features.
    hidden, dropout
        Of the heads.
    """
    from napari_cellpath.systems.catalogue import build

    features = build(trunk)
    return Cascade(
        None if detector is None else build(detector, **(detector_arguments or {})),
        features,
        LabelHeads(features.n_features, n_classes, hidden, dropout),
    )
