"""HSP-Net as it is run: batch normalisation folded into the convolutions, probabilities out.

Folding is exact but for the last digits of a float32 sum.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from napari_cellpath.systems.hspnet.network import HSPNet


class TissueInference(nn.Module):
    """Class probabilities of normalised images."""

    def __init__(self, network: HSPNet) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).eval()
        fold(self.network)

    def normalise(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) in 0..255 to what `forward` takes."""
        return self.network.normalise(images)

    def forward(self, normalised: Tensor) -> Tensor:
        """Probabilities (N, n_classes, H, W), float32, of normalised images."""
        return torch.softmax(self.network.classify(normalised).float(), dim=1)


def fold(module: nn.Module) -> None:
    """Fold each batch normalisation into the convolution before it, in place; evaluation mode."""
    last: tuple[nn.Module, str, nn.Conv2d] | None = None
    for name, child in module.named_children():
        if isinstance(child, nn.Conv2d):
            last = module, name, child
        elif isinstance(child, nn.BatchNorm2d) and last is not None:
            parent, key, convolution = last
            if child.num_features == convolution.out_channels:
                setattr(parent, key, fuse_conv_bn_eval(convolution, child))
                setattr(module, name, nn.Identity())
            last = None
        else:
            last = None if list(child.children()) else last
            fold(child)
