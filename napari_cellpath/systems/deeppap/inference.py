"""Which module computes a network's logits fastest."""

from __future__ import annotations

from torch import nn
from torchvision.models.squeezenet import Fire

from napari_cellpath.systems.deeppap.measuring import MeasuredInference, MeasuredTrunk
from napari_cellpath.systems.deeppap.network import DeepPapNetwork
from napari_cellpath.systems.deeppap.squeeze_inference import SqueezeInference


def inference_form(network: DeepPapNetwork) -> nn.Module:
    """Give the module that computes the network's logits fastest; equal but for rounding."""
    trunk, head = network.trunk, network.head
    if isinstance(trunk, MeasuredTrunk):
        return MeasuredInference(trunk, head)
    if (
        isinstance(trunk, nn.Sequential)
        and isinstance(head, nn.Sequential)
        and any(isinstance(layer, Fire) for layer in trunk)
    ):
        return SqueezeInference(trunk, next(m for m in head if isinstance(m, nn.Conv2d)))
    return network
