"""Tiles of a region on a grid fixed to the image, so that two regions find the same objects."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.core.errors import OutsideImageError, ScaleError
from napari_cellpath.core.geometry import plausible_mpp
from napari_cellpath.core.requests import FileImage, Image

Box = tuple[int, int, int, int]
"""Top, left, bottom, right in level-0 pixels, half-open."""


def check_mpp(mpp: float) -> float:
    """The pixel size itself; raises `ScaleError` where it is none."""
    if plausible_mpp(mpp) is None:
        raise ScaleError(
            f"{mpp:g} is no pixel size; give micrometres per pixel between 0.01 and 100."
        )
    return mpp


def name_of(image: Image) -> str:
    """What a request's image is told apart by: its path, or the name of the array."""
    return image.path if isinstance(image, FileImage) else image.name


def clip_region(region: tuple[int, int, int, int] | None, shape: tuple[int, int]) -> Box:
    """The part of a region (row, column, height, width) that lies on the image; None is all.

    Raises
    ------
    OutsideImageError
        It does not meet the image, or is no region at all.
    """
    height, width = shape
    if region is None:
        return 0, 0, height, width
    if not all(map(math.isfinite, region)):
        raise OutsideImageError(f"The region {region} holds what is not a finite number.")
    top, left, high, wide = region
    box = max(top, 0), max(left, 0), min(top + high, height), min(left + wide, width)
    if box[0] >= box[2] or box[1] >= box[3]:
        raise OutsideImageError(
            f"The region (row {top}, column {left}, {high} x {wide}) does not meet the image "
            f"({height} x {width} pixels)."
        )
    return box


def cores_of(region: Box, side: int, block: int = 1) -> list[Box]:
    """Tiles of about ``side`` pixels, whole blocks, that together are the region."""
    side = max(1, side // block) * block
    top, left, bottom, right = region
    return [
        (max(r, top), max(c, left), min(r + side, bottom), min(c + side, right))
        for r in range(top // side * side, bottom, side)
        for c in range(left // side * side, right, side)
    ]


def window_round(core: Box, margin: int, block: int, shape: tuple[int, int]) -> Box:
    """A core and the margin round it, in whole blocks, clipped to the image."""
    return (
        max(0, (core[0] - margin) // block * block),
        max(0, (core[1] - margin) // block * block),
        min(shape[0], -(-(core[2] + margin) // block) * block),
        min(shape[1], -(-(core[3] + margin) // block) * block),
    )


def owned(places: NDArray[np.float64], core: Box) -> NDArray[np.bool_]:
    """Which places (..., 2), napari convention, lie in a core.

    The same half-open comparison on every side: what lies on a seam belongs to one tile.
    """
    edges = np.array(core, dtype=float) - 0.5
    return np.asarray(((places >= edges[:2]) & (places < edges[2:])).all(axis=-1))
