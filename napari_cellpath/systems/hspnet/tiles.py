"""Where the tiles of a region lie, and how much each of their pixels counts (papers.md 3.6).

NumPy only: the plan on the client and the predictor on the worker cut alike.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.core.vocabulary import Blend

TILE = 400
"""Side of the paper's tiles, pixels."""
STRIDE = 100
"""Between the paper's tiles."""
LEAST_WEIGHT = 1e-3
"""Floor of the importance map: ``cos`` is 0 at the corners, which one tile alone may cover."""


def tile_starts(length: int, side: int, stride: int) -> list[int]:
    """First pixels of the tiles along one axis: every ``stride``, the last one at the border.

    400 of 400 is [0]; 401 [0, 1]; 500 [0, 100] (papers.md 3.10, fact 8). What is shorter than a
    tile has one, which is to be filled up.
    """
    last = length - side
    if last <= 0:
        return [0]
    starts = list(range(0, last, stride))
    return [*starts, last]


def importance_map(blend: Blend, side: int | tuple[int, int]) -> NDArray[np.float32]:
    """Weights of a tile's pixels, 1 at its middle, falling with the distance from it.

    Parameters
    ----------
    blend
        ``rbf``: exp(-d2 / 2 s2) with s half a side, the default reading of "Gauss-weighted";
        ``exp``: exp(-d / D) and ``cos``: cos(pi/2 d / D) with D half a diagonal; ``none``: 1.
    side
        Of the tile, or its height and width.

    Returns
    -------
    ndarray
        (height, width) float32, symmetric, at least `LEAST_WEIGHT`.
    """
    height, width = (side, side) if isinstance(side, int) else side
    middle_row, middle_col = (height - 1) / 2, (width - 1) / 2
    rows = np.arange(height)[:, None] - middle_row
    cols = np.arange(width)[None, :] - middle_col
    if blend is Blend.NONE:
        return np.ones((height, width), np.float32)
    if blend is Blend.RBF:
        # exp(-1/2) at the middle of each edge, exp(-1) at the corners.
        squares = (rows / max(middle_row, 0.5)) ** 2 + (cols / max(middle_col, 0.5)) ** 2
        weights = np.exp(-squares / 2)
    else:
        reach = max(math.hypot(middle_row, middle_col), 0.5)
        away = np.hypot(rows, cols) / reach
        weights = np.exp(-away) if blend is Blend.EXP else np.cos(np.pi / 2 * away)
    return np.maximum(weights, LEAST_WEIGHT).astype(np.float32)


def ramp_map(tile: tuple[int, int], overlap: tuple[int, int]) -> NDArray[np.float32]:
    """Weights of a preview's super-tile: 1, falling to the border where tiles overlap.

    Two neighbours' ramps are mirror images, so one tile fades into the next.

    Parameters
    ----------
    tile
        Height and width.
    overlap
        Rows and columns that neighbours share.
    """
    ramps = []
    for side, shared in zip(tile, overlap, strict=True):
        away = np.minimum(np.arange(side) + 0.5, side - np.arange(side) - 0.5)
        ramps.append(np.clip(away / max(shared, 1), LEAST_WEIGHT, 1.0))
    return (ramps[0][:, None] * ramps[1][None, :]).astype(np.float32)
