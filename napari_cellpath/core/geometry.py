"""Where a pixel is: point and edge coordinates, level 0 and other levels, the model's scale.

Two conventions meet here. napari puts the *centre* of pixel i at i; views are cut in
*edge* coordinates, in which pixel i spans [i, i + 1). All public coordinates are level-0
``(row, col)`` points in napari's convention.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.core.errors import OutsideImageError, ScaleError

COARSEST = 0.1
"""Image pixels per model pixel below which a nucleus is a few pixels wide."""


def edge_of_point(row: float, col: float) -> tuple[int, int]:
    """Nearest pixel edge to a napari point, ties down (papers.md 1.3).

    An integer point (cy, cx) gives itself: its 128-px patch is rows cy-64 .. cy+63. ``round``
    would send ties to the even edge and move every second cell by one pixel.
    """
    return math.ceil(row), math.ceil(col)


def check_inside(
    row: float, col: float, shape: tuple[int, int], what: str, image: str = "the image"
) -> None:
    """Raise `OutsideImageError` unless the point lies on the image.

    Parameters
    ----------
    row, col
        Level-0 pixels, napari convention: the image covers [-0.5, height - 0.5].
    shape
        Height and width of level 0.
    what
        How the message names the point, e.g. ``"points.csv line 3"``.
    image
        How the message names the image.
    """
    height, width = shape
    if not (math.isfinite(row) and math.isfinite(col)):
        raise OutsideImageError(f"{what}: the coordinates ({row}, {col}) are not finite numbers.")
    if not (-0.5 <= row <= height - 0.5 and -0.5 <= col <= width - 0.5):
        raise OutsideImageError(
            f"{what}: ({row:g}, {col:g}) lies outside {image} of {height} x {width} "
            "pixels (rows x columns); correct it or leave it out."
        )


def check_box(
    edges: tuple[int, int, int, int], shape: tuple[int, int], what: str, largest: int, kind: str
) -> None:
    """Raise `OutsideImageError` unless a box can be one of an object on an image.

    Parameters
    ----------
    edges
        (row0, col0, row1, col1), half-open level-0 pixels.
    shape
        Height and width of level 0.
    what
        How the message names the box.
    largest
        Pixels of a side that no such object has.
    kind
        How the message names the object.
    """
    row0, col0, row1, col1 = edges
    where = f"{what} (rows {row0} to {row1}, columns {col0} to {col1})"
    if not all(map(math.isfinite, edges)):
        raise OutsideImageError(f"{where} has edges that are not finite numbers; correct it.")
    if row0 >= row1 or col0 >= col1:
        raise OutsideImageError(
            f"{where} is inverted or has no area; row0 and col0 must be less than row1 and col1."
        )
    if row1 <= 0 or col1 <= 0 or row0 >= shape[0] or col0 >= shape[1]:
        raise OutsideImageError(
            f"{where} lies outside the image of {shape[0]} x {shape[1]} pixels; correct it or "
            "leave it out."
        )
    if max(row1 - row0, col1 - col0) > largest:
        raise OutsideImageError(
            f"{where} is larger than {largest} pixels, and no {kind} is; give a box for each "
            f"{kind}."
        )


def scale_between(image_mpp: float | None, model_mpp: float | None) -> float:
    """Image pixels per model pixel; 1 where either scale is unknown or they agree to 2 %.

    Within 2 % nothing is resampled: the difference is smaller than that between two cells and
    an untouched patch keeps its sharpness.

    Raises
    ------
    ScaleError
        The image's pixel size is absurd, or so coarse that nothing of a cell would be left.
    """
    if image_mpp is None or model_mpp is None:
        return 1.0
    if plausible_mpp(image_mpp) is None:
        raise ScaleError(
            f"{image_mpp:g} is no pixel size; give micrometres per pixel between 0.01 and 100."
        )
    ratio = model_mpp / image_mpp
    if ratio < COARSEST:
        raise ScaleError(
            f"At {image_mpp:g} um per pixel the image is too coarse for this model "
            f"({model_mpp:g} um); use a finer image, or correct the pixel size."
        )
    return 1.0 if abs(ratio - 1.0) <= 0.02 else ratio


def plausible_mpp(value: Any) -> float | None:
    """Micrometres per pixel as a float, or None where a file's claim is absurd.

    Files claim 0, -1, NaN and 1e9 (reliability.md 4). Light microscopy lies within
    0.01 .. 100 um per pixel.
    """
    try:
        mpp = float(value)
    except (TypeError, ValueError):
        return None
    return mpp if math.isfinite(mpp) and 0.01 <= mpp <= 100.0 else None


def centroids(labels: NDArray[Any]) -> NDArray[np.float64]:
    """Centroid (row, col) of every non-zero label, in label order; shape (n, 2).

    Works on one pass of bincounts, so 10,000 cells of a field cost milliseconds.
    """
    if labels.ndim != 2:
        raise ValueError(f"labels must be 2-D, got shape {labels.shape}")
    flat = labels.ravel()
    rows, cols = np.divmod(np.flatnonzero(flat), labels.shape[1])
    values, index = np.unique(flat[flat != 0], return_inverse=True)
    if values.size == 0:
        return np.zeros((0, 2))
    count = np.bincount(index)
    return np.stack(
        [np.bincount(index, weights=rows) / count, np.bincount(index, weights=cols) / count], axis=1
    )


def boxes_of_labels(labels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Box of every non-zero label, in label order.

    Parameters
    ----------
    labels
        (H, W) whole numbers; values may be as sparse as they like.

    Returns
    -------
    tuple
        The values (n,), and (n, 4) row0, col0, row1, col1, half-open pixel edges; of a value that
        stands in several places, the box round all of them.
    """
    if labels.ndim != 2:
        raise ValueError(f"labels must be 2-D, got shape {labels.shape}")
    flat = labels.ravel()
    rows, cols = np.divmod(np.flatnonzero(flat), labels.shape[1])
    values, index = np.unique(flat[flat != 0], return_inverse=True)
    boxes = np.empty((values.size, 4), np.int64)
    boxes[:, :2] = max(labels.shape)
    boxes[:, 2:] = 0
    for column, places in enumerate((rows, cols)):
        np.minimum.at(boxes[:, column], index, places)
        np.maximum.at(boxes[:, column + 2], index, places + 1)
    return values, boxes
