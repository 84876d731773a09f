"""Pixels of a box to the square that the trunk sees. Torch; training cuts its patches here too."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from napari_cellpath.core.vocabulary import Fit
from napari_cellpath.systems.rbc.boxes import square_of

LEAST_CONTRAST = 10 / 255
"""Between places of a patch; below it nothing is to be seen there. The least of 1,706 derived Chula
boxes is 15 grey levels of 255, of 982 BCCD cells 28; the glass between cells has 7."""
_PLACES = 8  # along a side of the patch


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
    edge = np.sort(np.concatenate([crop[0], crop[-1], crop[1:-1, 0], crop[1:-1, -1]]), axis=0)
    middle = (edge[(len(edge) - 1) // 2].astype(np.float32) + edge[len(edge) // 2]) / 2  # median
    colour = torch.from_numpy(middle / np.float32(255))
    square = colour[:, None, None].repeat(1, patch, patch)
    rows = slice(place.top, place.top + place.height)
    cols = slice(place.left, place.left + place.width)
    square[:, rows, cols] = pixels[0]
    return square


def are_blank(patches: Tensor) -> NDArray[np.bool_]:
    """In which of the patches (N, 3, S, S) nothing is to be seen, (N,).

    No plane's places, squares of an eighth of the side, differ by `LEAST_CONTRAST` once each is
    averaged: noise and the lamp are no contrast.
    """
    places = F.avg_pool2d(patches, patches.shape[-1] // _PLACES).flatten(2)
    contrast = (places.amax(dim=2) - places.amin(dim=2)).amax(dim=1)
    return (contrast < LEAST_CONTRAST).numpy()
