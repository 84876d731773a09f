"""A plain U-Net (Ronneberger et al. 2015), to be measured beside HSP-Net, trained the same way."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_cellpath.systems.hspnet.network import IMAGENET_MEAN, IMAGENET_STD

LEVELS = 5
CHANNELS = 64
"""Of the first level at width 1; each next has twice as many: 31 M parameters, as the paper's."""


def _twice(inputs: int, outputs: int) -> nn.Sequential:
    """Two 3x3 convolutions, each normalised."""
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [
            nn.Conv2d(channels, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """Five levels down and up again, from random weights; any image size.

    Parameters
    ----------
    n_classes
        Outputs.
    width
        Scales all channels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, n_classes: int, width: float = 1.0) -> None:
        super().__init__()
        channels = [max(4, round(CHANNELS * width * 2**level)) for level in range(LEVELS)]
        before = [3, *channels[:-1]]
        self.down = nn.ModuleList(_twice(i, o) for i, o in zip(before, channels, strict=True))
        self.up = nn.ModuleList(
            nn.Conv2d(channels[k], channels[k - 1], 1) for k in range(LEVELS - 1, 0, -1)
        )
        self.join = nn.ModuleList(
            _twice(2 * channels[k - 1], channels[k - 1]) for k in range(LEVELS - 1, 0, -1)
        )
        self.head = nn.Conv2d(channels[0], n_classes, 1)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1) * 255)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, n_classes, H, W) of images (N, 3, H, W) in 0..255."""
        x = (images - self.mean) / self.std
        levels: list[Tensor] = []
        for level in self.down:
            x = level(F.max_pool2d(x, 2, ceil_mode=True) if levels else x)
            levels.append(x)
        for narrow, join, beside in zip(self.up, self.join, levels[-2::-1], strict=True):
            wide = F.interpolate(narrow(x), beside.shape[2:], mode="bilinear")
            x = join(torch.cat([wide, beside], dim=1))
        logits: Tensor = self.head(x)
        return logits
