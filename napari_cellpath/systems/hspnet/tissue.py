"""Where a thumbnail shows tissue: coloured or dark, with a margin.

Glass is bright and colourless. The limits are low, so that pale stroma counts as tissue; what is
left out is reported all the same.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

LEAST_CHROMA = 12
"""Grey levels between a pixel's largest and smallest channel."""
GLASS = 200
"""Darker pixels are something, colourless or not."""
THUMBNAIL = 1024
"""Longer side of the thumbnail, pixels."""


def tissue_mask(thumbnail: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(H, W) bool of a (H, W, 3) thumbnail: tissue, and one pixel round it."""
    chroma = thumbnail.max(axis=2).astype(np.int16) - thumbnail.min(axis=2)
    tissue = (chroma >= LEAST_CHROMA) | (thumbnail.max(axis=2) < GLASS)
    return np.asarray(ndimage.binary_dilation(tissue, np.ones((3, 3))))
