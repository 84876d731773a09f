"""An image at a model's pixel size, on a grid that is fixed to its level 0.

::

    grid pixel (y, x)  covers level-0 rows  y * step .. (y + 1) * step,  columns likewise

The level read is the coarsest whose pixels are at most a tenth larger than the model's; where they
agree to 2 % it is taken as it is. Otherwise each grid pixel is a weighted mean of the level's
pixels round it: a triangle as wide as two grid pixels (or two of the level's, where that is
coarser), cut off at the image's border. Its weights depend on the grid pixel alone, so a grid
pixel has the same value whatever window it is read in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.core.errors import ScaleError
from napari_cellpath.core.geometry import COARSEST, plausible_mpp
from napari_cellpath.core.requests import FileImage, Image, MemoryImage, PixelWindow
from napari_cellpath.slides.planes import Box
from napari_cellpath.slides.windows import image_mpp, image_shape, read, slide_of, source_of

AS_IS = 0.02
"""Levels whose pixel size differs by less are not resampled."""
_COARSER = 1.1
"""A level's pixels may be this much larger than the model's."""


@dataclass(frozen=True)
class Grid:
    """The pixels of an image at a model's scale.

    Attributes
    ----------
    level
        Level of the image that is read.
    ratio
        Pixels of that level a grid pixel spans; 1 where it is taken as it is.
    step
        Level-0 pixels (rows, columns) a grid pixel spans; they differ by the rounding of a
        pyramid's sizes only.
    shape
        Rows and columns of the whole image on the grid.
    source_shape
        Rows and columns of the level.
    mpp
        Micrometres a grid pixel, or None where the image's scale is not known.
    """

    level: int
    ratio: float
    step: tuple[float, float]
    shape: tuple[int, int]
    source_shape: tuple[int, int]
    mpp: float | None

    def from_level0(self, row: float, col: float) -> tuple[float, float]:
        """Level-0 pixel edges in grid pixel edges."""
        return row / self.step[0], col / self.step[1]

    def to_level0(self, row: float, col: float) -> tuple[float, float]:
        """Grid pixel edges in level-0 pixel edges."""
        return row * self.step[0], col * self.step[1]

    def covering(self, region: Box) -> Box:
        """The grid pixels that a region of level 0 (half-open edges) touches, on the image."""
        top, left = self.from_level0(region[0], region[1])
        bottom, right = self.from_level0(region[2], region[3])
        row0, col0 = math.floor(top + 1e-9), math.floor(left + 1e-9)
        row0, col0 = min(row0, self.shape[0] - 1), min(col0, self.shape[1] - 1)
        row1, col1 = math.ceil(bottom - 1e-9), math.ceil(right - 1e-9)
        return (
            row0, col0, min(max(row1, row0 + 1), self.shape[0]),
            min(max(col1, col0 + 1), self.shape[1]),
        )  # fmt: skip

    def needed(self, window: Box) -> Box:
        """Pixels of the level that a window of the grid is made of."""
        if self.ratio == 1.0:
            return window
        rows = _taps(window[0], window[2], self.ratio, self.source_shape[0])[0]
        cols = _taps(window[1], window[3], self.ratio, self.source_shape[1])[0]
        return int(rows.min()), int(cols.min()), int(rows.max()) + 1, int(cols.max()) + 1


def grid_of(image: Image, mpp: float | None, name: str = "The model") -> Grid:
    """The grid of an image at ``mpp`` micrometres per pixel; None takes level 0 as it is.

    Raises
    ------
    ScaleError
        A scale is wanted and the image states none, or it is so coarse that nothing is left.
    CellpathError
        The image cannot be opened.
    """
    shape = image_shape(image)
    image_um = image_mpp(image)
    if mpp is None:
        return Grid(0, 1.0, (1.0, 1.0), shape, shape, image_um)
    if image_um is None:
        where = image.path if isinstance(image, FileImage) else f"The image {image.name}"
        raise ScaleError(
            f"{where} states no pixel size, and {name} sees {mpp:g} um per pixel: give the "
            "image's micrometres per pixel (--mpp UM, or the field in the window)."
        )
    if plausible_mpp(image_um) is None:
        raise ScaleError(
            f"{image_um:g} is no pixel size; give micrometres per pixel between 0.01 and 100."
        )
    wanted = mpp / image_um
    if wanted < COARSEST:
        raise ScaleError(
            f"At {image_um:g} um per pixel the image is too coarse for {name} ({mpp:g} um); use "
            "a finer image, or correct the pixel size."
        )
    return _grid(image, wanted, image_um)


def thumbnail_grid(image: Image, side: int) -> Grid:
    """The grid on which the longer side of an image has about ``side`` pixels, or fewer."""
    return _grid(image, max(1.0, max(image_shape(image)) / side), image_mpp(image))


def _grid(image: Image, wanted: float, image_um: float | None) -> Grid:
    """The grid whose pixels span ``wanted`` level-0 pixels."""
    shape = image_shape(image)
    level, source, factor = _level_for(image, wanted)
    ratio = wanted / factor
    down, across = shape[0] / source[0], shape[1] / source[1]
    if abs(ratio - 1.0) <= AS_IS:
        mpp = None if image_um is None else image_um * (down + across) / 2
        return Grid(level, 1.0, (down, across), source, source, mpp)
    size = max(1, round(source[0] / ratio)), max(1, round(source[1] / ratio))
    mpp = None if image_um is None else image_um * wanted
    return Grid(level, ratio, (ratio * down, ratio * across), size, source, mpp)


def _level_for(image: Image, wanted: float) -> tuple[int, tuple[int, int], float]:
    """Number, shape and downsampling of the coarsest level that is fine enough."""
    if isinstance(image, MemoryImage):
        return 0, image.shape, 1.0
    levels = slide_of(image).levels
    good = [n for n, level in enumerate(levels) if level.downsample <= wanted * _COARSER]
    number = max(good, default=0)
    return number, levels[number].shape, levels[number].downsample


def source_for(image: Image, grid: Grid, window: Box) -> FileImage | PixelWindow:
    """What a task carries to read a window of the grid: the file's name, or the pixels."""
    top, left, bottom, right = grid.needed(window)
    return source_of(image, top, left, bottom - top, right - left)


def read_grid(
    source: FileImage | PixelWindow, grid: Grid, window: Box, damaged: list[Box] | None = None
) -> NDArray[np.uint8]:
    """Read a window of the grid that lies on the image.

    Parameters
    ----------
    source
        From `source_for`.
    grid
        From `grid_of`.
    window
        Top, left, bottom, right in grid pixels.
    damaged
        Where given, tiles of the file that cannot be decoded are zero instead of an error, and
        their boxes (grid pixels, half-open, those touched in part included) are added to it.

    Returns
    -------
    ndarray
        uint8 (rows, columns, 3).
    """
    top, left, bottom, right = grid.needed(window)
    found: list[Box] = []
    if isinstance(source, PixelWindow):
        pixels = read(source, top, left, bottom - top, right - left)
    else:
        pixels = slide_of(source).read_region(
            top, left, bottom - top, right - left, grid.level, None if damaged is None else found
        )
    if damaged is not None:
        damaged += [_touched(grid, box) for box in found]
    if grid.ratio == 1.0:
        return pixels
    rows, row_weights = _taps(window[0], window[2], grid.ratio, grid.source_shape[0])
    cols, col_weights = _taps(window[1], window[3], grid.ratio, grid.source_shape[1])
    # Rows first: they are contiguous, and what is left for the columns is smaller.
    half = _weighted(pixels, rows - top, row_weights, axis=0)
    whole = _weighted(half, cols - left, col_weights, axis=1)
    return np.clip(np.rint(whole), 0, 255).astype(np.uint8)


def _touched(grid: Grid, box: Box) -> Box:
    """Grid pixels that pixels of the level have a part in."""
    if grid.ratio == 1.0:
        return box
    reach = max(1.0, grid.ratio)
    return (
        max(0, math.floor((box[0] - reach) / grid.ratio)),
        max(0, math.floor((box[1] - reach) / grid.ratio)),
        min(grid.shape[0], math.ceil((box[2] + reach) / grid.ratio)),
        min(grid.shape[1], math.ceil((box[3] + reach) / grid.ratio)),
    )


def _taps(
    start: int, stop: int, ratio: float, length: int
) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Pixels that grid pixels start..stop are made of along one axis, and their weights.

    Both are (stop - start, taps). Weights sum to one; a tap beyond the border has none.
    """
    reach = max(1.0, ratio)
    centres = (np.arange(start, stop) + 0.5) * ratio - 0.5
    first = np.ceil(centres - reach).astype(np.intp)
    count = math.floor(2 * reach) + 1
    places = first[:, None] + np.arange(count)
    weights = np.maximum(0.0, 1.0 - np.abs(places - centres[:, None]) / reach)
    weights[(places < 0) | (places >= length)] = 0.0
    sums = weights.sum(axis=1, keepdims=True)
    # A last grid pixel may lie beyond the last pixel's centre by a rounding: the nearest stands.
    lonely = sums[:, 0] <= 0
    places = np.clip(places, 0, length - 1)
    weights[lonely, 0] = sums[lonely, 0] = 1.0
    return places, (weights / sums).astype(np.float32)


def _weighted(
    pixels: NDArray[np.uint8] | NDArray[np.float32],
    places: NDArray[np.intp],
    weights: NDArray[np.float32],
    axis: int,
) -> NDArray[np.float32]:
    """Weighted sums of rows (axis 0) or columns, tap by tap in a fixed order."""
    spread = (slice(None), None, None) if axis == 0 else (None, slice(None), None)
    total = np.zeros((), np.float32)
    for tap in range(places.shape[1]):
        picked = np.asarray(np.take(pixels, places[:, tap], axis=axis), np.float32)
        part = picked * weights[:, tap][spread]
        total = part if tap == 0 else np.add(total, part, out=total)
    return total
