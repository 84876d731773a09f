"""Boxes without a network: Otsu's threshold and a watershed, what learning is to be measured by.

papers.md 2.6 (Fig. 8): a watershed splits touching cells at their necks and cannot tell an overlap
from a cell. scikit-image; no torch.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage as ndi
from skimage.feature import peak_local_max
from skimage.filters import gaussian, threshold_otsu
from skimage.measure import regionprops
from skimage.segmentation import watershed

from training.rbc.detection_metrics import Found
from training.rbc.detector import pixels_of, truth_of
from training.rbc.table import Field

BACKGROUND = 40.0
"""Deviation of the blur that stands for the background's brightness, pixels."""
LEAST_APART = 10
"""Pixels between two cells' middles."""
MIN_AREA = 150


def segment(
    pixels: NDArray[np.uint8], split: bool = True
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Boxes of dark regions on a bright background, and how dark each is.

    Parameters
    ----------
    pixels
        (H, W, 3).
    split
        Cut touching cells apart at their necks.

    Returns
    -------
    boxes
        (n, 4) row0, col0, row1, col1.
    scores
        (n,) 0..1: how much darker than its background a region is.
    """
    green = pixels[..., 1].astype(np.float64) / 255
    bright = ndi.percentile_filter(green[::8, ::8], 90, size=int(2 * BACKGROUND / 8) + 1)
    bright = gaussian(ndi.zoom(bright, np.array(green.shape) / bright.shape, order=1), 8)
    dark = gaussian(np.clip(bright - green, 0, None), 1)
    mask = ndi.binary_fill_holes(ndi.binary_opening(dark > threshold_otsu(dark), iterations=2))
    if split:
        depth = gaussian(ndi.distance_transform_edt(mask), 2, preserve_range=True)
        peaks = peak_local_max(depth, min_distance=LEAST_APART, labels=mask.astype(int))
        seeds = np.zeros(mask.shape, dtype=int)
        seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
        labels = watershed(-depth, seeds, mask=mask)
    else:
        labels, _ = ndi.label(mask, structure=np.ones((3, 3)))
    found = [r for r in regionprops(labels, intensity_image=dark) if r.area >= MIN_AREA]
    boxes = np.array([r.bbox for r in found], dtype=np.intp).reshape(-1, 4)
    return boxes, np.clip([r.intensity_mean for r in found], 0, 1)


def found_by_watershed(field: Field, truth: str) -> Found:
    """What the watershed finds on a field, or its regions uncut where ``truth`` is regions."""
    boxes, scores = segment(pixels_of(field), split=truth == "cells")
    return Found(truth_of(field, truth), boxes, scores, field.group)
