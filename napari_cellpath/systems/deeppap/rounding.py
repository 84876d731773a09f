"""A first convolution that stays true in bfloat16."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def rounded_kernels(weight: Tensor) -> Tensor:
    """Round kernels to bfloat16 so that each keeps its sum.

    Images are smooth: over a stretch of even colour a kernel answers its sum times that colour,
    so weights rounded each for itself answer wrong by the sum of their errors, everywhere alike,
    and no average over views takes that away. Here each error is handed on to the weight beside
    it, row after row to and fro (the error diffusion of Floyd and Steinberg, with one
    neighbour), and all but the last one's are made good within the kernel.

    Parameters
    ----------
    weight
        (out, in, height, width) float32.

    Returns
    -------
    Tensor
        The same shape, float32 numbers that bfloat16 holds exactly.
    """
    wanted = weight.detach().double()
    rounded = torch.empty_like(wanted)
    owed = torch.zeros_like(wanted[..., 0, 0])
    height, width = wanted.shape[-2:]
    for row in range(height):
        for col in range(width) if row % 2 == 0 else reversed(range(width)):
            whole = wanted[..., row, col] + owed
            rounded[..., row, col] = whole.to(torch.bfloat16)
            owed = whole - rounded[..., row, col]
    return rounded.to(weight.dtype)


class EntryConvolution(nn.Module):
    """A convolution on an image: exact in float32, with `rounded_kernels` in bfloat16.

    Parameters
    ----------
    convolution
        The trained layer. It is kept, and its weights must not change any more.
    """

    rounded: Tensor

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution
        self.register_buffer("rounded", rounded_kernels(convolution.weight), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """What the convolution gives, in the precision of the autocast round it."""
        own = self.convolution
        kind = images.device.type
        if not (
            torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) is torch.bfloat16
        ):
            answer: Tensor = own(images)
            return answer
        return F.conv2d(
            images, self.rounded, own.bias, own.stride, own.padding, own.dilation, own.groups
        )
