"""Pixels of a box to the square that the trunk sees. Torch; training cuts its patches here too."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from napari_cellpath.core.vocabulary import Fit
from napari_cellpath.systems.rbc.boxes import square_of


def patch_of(crop: NDArray[np.uint8], patch: int, fit: Fit = Fit.STRETCH, least: int = 0) -> Tensor:
    """A box's pixels as the trunk takes them.

    Parameters
    ----------
    crop
        (H, W, 3) uint8, at least one pixel.
    patch
        Side of the square.
    fit
        ``stretch`` scales the sides apart (the paper's); ``letterbox`` keeps their proportions and
        fills the rest with the median colour along the crop's edge.
    least
        ``letterbox``: the square shows at least so many pixels of the image a side.

    Returns
    -------
    Tensor
        (3, patch, patch) float32 in 0..1: bilinear, averaging where it shrinks.
    """
    place = square_of(crop.shape[0], crop.shape[1], patch, fit, least)
    pixels = torch.from_numpy(np.ascontiguousarray(crop)).permute(2, 0, 1)[None].float() / 255
    size = (place.height, place.width)
    if pixels.shape[2:] != size:
        pixels = F.interpolate(
            pixels, size=size, mode="bilinear", align_corners=False, antialias=True
        )
    if size == (patch, patch):
        return pixels[0]
    edge = np.concatenate([crop[0], crop[-1], crop[1:-1, 0], crop[1:-1, -1]])
    colour = torch.from_numpy(np.median(edge, axis=0).astype(np.float32) / np.float32(255))
    square = colour[:, None, None].repeat(1, patch, patch)
    rows = slice(place.top, place.top + place.height)
    cols = slice(place.left, place.left + place.width)
    square[:, rows, cols] = pixels[0]
    return square
