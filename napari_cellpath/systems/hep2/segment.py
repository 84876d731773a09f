"""Cells of a fluorescence field: threshold, distance transform, watershed (scikit-image).

Lengths are micrometres. One threshold serves a whole field. It is measured on a coarse picture
of it (`survey`), so that tiles agree; the picture also says how bright the background is at each
place. A tile is smoothed over a sixth of the smallest nucleus before it is thresholded: the dots
of a centromere or nucleolar cell then lie on one dim nucleus instead of being cells themselves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_cellpath.core.errors import ScaleError
from napari_cellpath.core.requests import CELL_UM

WORKING_UM = 0.7
COARSE_UM = 4.0
"""Side of a pixel of the picture that the threshold is measured on."""
GROUND_DIAMETERS = 4.0
"""Side of the squares the background is measured in, in diameters of the largest nucleus."""
GROUND_QUANTILE = 10.0  # per cent of a square's pixels that are taken for background
NOISE_SIGMAS = 6.0
"""What is no brighter than this many deviations of the background is background."""
LEAST_LEVEL = 2.0
"""...nor is anything fewer grey levels (of 255) above it."""
NECK = 0.12
"""Two summits of the distance to the edge are two nuclei if the pass between them lies deeper
than this share of the smallest diameter."""
EDGE = 0.5
"""A nucleus ends where it is this share of its own median brightness."""

FloatPlane = NDArray[np.float32]


@dataclass(frozen=True)
class SegmentSettings:
    """What counts as a cell.

    Attributes
    ----------
    smallest, largest
        Diameters of nuclei looked for, micrometres.
    sensitivity
        Above 1 the automatic threshold is lowered, below 1 raised.

    Raises
    ------
    ScaleError
        They make no sense.
    """

    smallest: float = CELL_UM[0]
    largest: float = CELL_UM[1]
    sensitivity: float = 1.0

    def __post_init__(self) -> None:
        if not 1.0 <= self.smallest <= self.largest <= 200.0:
            raise ScaleError(
                f"Cells of {self.smallest:g} to {self.largest:g} um cannot be searched for; give "
                "a smallest and a larger largest diameter within 1 to 200."
            )
        if not 0.1 <= self.sensitivity <= 10.0:
            raise ScaleError(f"A sensitivity of {self.sensitivity:g} is not between 0.1 and 10.")

    @property
    def smoothing_um(self) -> float:
        """Standard deviation of the smoothing: dots merge, outlines stay where they are."""
        return min(self.smallest / 6.0, 1.5)

    @property
    def gap_um(self) -> float:
        """Dots this far apart are of one nucleus."""
        return min(0.4 * self.smallest, 4.0)

    @property
    def margin_um(self) -> float:
        """How far round a tile's core it is looked at: a clump of nuclei, and the smoothing."""
        return 2.5 * self.largest

    def block(self, mpp: float) -> int:
        """Side of the blocks of pixels that are averaged before anything else."""
        return max(1, round(min(WORKING_UM, self.smallest / 10) / mpp))

    def coarse_block(self, mpp: float) -> int:
        """Side of a pixel of the survey, a multiple of `block`."""
        block = self.block(mpp)
        return max(1, round(min(COARSE_UM, self.smallest / 2) / mpp / block)) * block


def average_blocks(plane: NDArray[np.uint8], block: int) -> FloatPlane:
    """Mean of each block x block square; the last ones may hold fewer pixels."""
    if block == 1:
        return plane.astype(np.float32)
    height, width = plane.shape
    rows, cols = np.arange(0, height, block), np.arange(0, width, block)
    total = np.add.reduceat(
        np.add.reduceat(plane, cols, axis=1, dtype=np.uint32), rows, axis=0, dtype=np.uint32
    )
    high = np.minimum(block, height - rows)
    wide = np.minimum(block, width - cols)
    return (total / (high[:, None] * wide[None, :])).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Ground:
    """What a survey says of a field: its background and the threshold above it.

    Attributes
    ----------
    threshold
        Grey levels (of 255) above the background from which on there are cells; infinite where
        the field holds nothing.
    levels
        Background, grey levels, at the middles of squares of ``side`` pixels.
    side
        Side of those squares, level-0 pixels.
    """

    threshold: float
    levels: FloatPlane
    side: float

    @cached_property
    def _middles(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return tuple((np.arange(n) + 0.5) * self.side for n in self.levels.shape)  # type: ignore[return-value]

    def background(self, rows: NDArray[Any], cols: NDArray[Any]) -> FloatPlane:
        """Background at level-0 edge coordinates, (rows, cols), between the squares' middles."""
        down, across = self._middles
        at_rows = np.stack([np.interp(rows, down, column) for column in self.levels.T], axis=1)
        return np.stack([np.interp(cols, across, row) for row in at_rows]).astype(np.float32)


def survey(coarse: FloatPlane, pixel: int, mpp: float, settings: SegmentSettings) -> Ground:
    """Measure a field's background and threshold.

    Parameters
    ----------
    coarse
        Means of blocks of ``pixel`` x ``pixel`` level-0 pixels of the whole field.
    pixel
        `SegmentSettings.coarse_block`.
    mpp
        Micrometres a level-0 pixel.
    settings
        What is looked for.

    Returns
    -------
    Ground
        By Otsu's threshold of the square root of what lies above the background: photon noise
        then is the same everywhere, and dim cells beside bright ones are not lost.
    """
    from skimage.filters import threshold_otsu

    step = max(4, round(GROUND_DIAMETERS * settings.largest / (pixel * mpp)))
    levels = _low_levels(coarse, step)
    ground = Ground(math.inf, levels, float(step * pixel))
    rows, cols = ((np.arange(n) + 0.5) * pixel for n in coarse.shape)
    above = coarse - ground.background(rows, cols)
    # The dimmest tenth is background even where nuclei cover most of the field; of a normal
    # distribution these two quantiles lie 0.68 deviations apart.
    low, dim = np.percentile(above, (2.5, 10.0))
    noise = float(dim - low) / 0.68
    least = max(LEAST_LEVEL, NOISE_SIGMAS * noise)
    if float(above.max(initial=0.0)) <= least:
        return ground
    otsu = float(threshold_otsu(np.sqrt(np.maximum(above, 0.0)))) ** 2
    return Ground(max(otsu, least) / settings.sensitivity, levels, ground.side)


def _low_levels(coarse: FloatPlane, step: int) -> FloatPlane:
    """A low quantile of each square of ``step`` pixels, the lowest of it and its neighbours."""
    height, width = coarse.shape
    low = np.array(
        [
            [
                np.percentile(coarse[r : r + step, c : c + step], GROUND_QUANTILE)
                for c in range(0, width, step)
            ]
            for r in range(0, height, step)
        ],
        dtype=np.float32,
    )
    return np.asarray(ndimage.median_filter(low, 3, mode="nearest"))


def label_cells(
    plane: NDArray[np.uint8],
    ground: Ground,
    mpp: float,
    settings: SegmentSettings,
    origin: tuple[int, int] = (0, 0),
) -> NDArray[np.int32]:
    """Label the nuclei of a plane.

    Parameters
    ----------
    plane
        (H, W) uint8: a field, or a window of it.
    ground
        What `survey` says of the field.
    mpp
        Micrometres a pixel.
    settings
        What is looked for.
    origin
        Row and column of the field at which ``plane`` begins; multiples of `block`.

    Returns
    -------
    ndarray
        (H, W) int32: 1, 2, ... each nucleus that is not too large, 0 elsewhere; what is too small
        is left in where it touches the plane's edge, for it may be cut.
    """
    from skimage.segmentation import watershed

    if not math.isfinite(ground.threshold) or plane.size == 0:
        return np.zeros(plane.shape, np.int32)
    block = settings.block(mpp)
    pixel_um = block * mpp
    work = average_blocks(plane, block)
    rows, cols = (
        (np.arange(n) + 0.5) * block + start for n, start in zip(work.shape, origin, strict=True)
    )
    work -= ground.background(rows, cols)
    smooth = ndimage.gaussian_filter(
        work, settings.smoothing_um / pixel_um, mode="nearest", truncate=4.0
    )
    # The dark between the dots of one nucleus is filled up to their level.
    smooth = ndimage.grey_closing(smooth, footprint=_disc(settings.gap_um / 2 / pixel_um))
    cells = _filled(smooth > ground.threshold, settings.smallest / pixel_um)
    # Padded: beyond the image nobody knows, and a cut nucleus is not thinner for it.
    distance = np.pad(cells, 1, mode="edge")
    distance = ndimage.distance_transform_edt(distance)[1:-1, 1:-1].astype(np.float32)
    distance = ndimage.gaussian_filter(distance, settings.smallest / 12 / pixel_um, truncate=4.0)
    summits = _summits(distance, cells, NECK * settings.smallest / pixel_um)
    labels = _trimmed(watershed(-distance, summits, mask=cells), smooth, settings, pixel_um)
    labels = _of_right_size(labels, settings, pixel_um)
    whole = np.repeat(np.repeat(labels, block, axis=0), block, axis=1)
    return np.ascontiguousarray(whole[: plane.shape[0], : plane.shape[1]], dtype=np.int32)


def _filled(cells: NDArray[np.bool_], diameter: float) -> NDArray[np.bool_]:
    """Without holes smaller than a nucleus, without specks and threads."""
    from skimage.morphology import remove_small_holes

    filled = remove_small_holes(cells, max_size=math.ceil(math.pi / 4 * diameter**2))
    return np.asarray(ndimage.binary_opening(filled, _disc(diameter / 8)))


def _disc(radius: float) -> NDArray[np.bool_]:
    """A disc of at least one pixel round the middle one."""
    around = max(1, round(radius))
    rows, cols = np.ogrid[-around : around + 1, -around : around + 1]
    return np.asarray(rows**2 + cols**2 <= around**2)


def _summits(distance: FloatPlane, cells: NDArray[np.bool_], height: float) -> NDArray[np.int32]:
    """Numbered summits of the distance to the edge that rise by ``height`` over every pass."""
    from skimage.morphology import reconstruction

    flooded = reconstruction(np.maximum(distance - height, 0), distance)
    # What stands above the flood by nearly its depth is the top of a summit.
    tops = (distance - flooded > 0) & cells
    inner = ndimage.label(tops, np.ones((3, 3)))[0]
    return np.asarray(inner, dtype=np.int32)


def _trimmed(
    labels: NDArray[np.int32], smooth: FloatPlane, settings: SegmentSettings, pixel_um: float
) -> NDArray[np.int32]:
    """Take the glow off: a bright nucleus' light spreads farther than the field's threshold."""
    from skimage.measure import label

    medians = ndimage.median(smooth, labels, np.arange(labels.max() + 1))
    within = (smooth > EDGE * np.asarray(medians)[labels]) & (labels > 0)
    within = _filled(within, settings.smallest / pixel_um)
    return np.asarray(label(np.where(within, labels, 0), connectivity=1), dtype=np.int32)


def _of_right_size(
    labels: NDArray[np.int32], settings: SegmentSettings, pixel_um: float
) -> NDArray[np.int32]:
    area = np.bincount(labels.ravel()) * pixel_um**2
    diameter = np.sqrt(4 / math.pi * area)
    good = (diameter >= settings.smallest) & (diameter <= settings.largest)
    edge = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    good[edge] |= (diameter[edge] >= settings.smallest / 2) & (diameter[edge] <= settings.largest)
    good[0] = False
    numbers = np.where(good, np.cumsum(good), 0)
    return np.asarray(numbers[labels], dtype=np.int32)
