"""What a request means in pixels: the grid, the frame that is computed, its tiles, what is kept.

::

    region (level 0) ──► kept (grid) ──► frame: kept, grown to a tile where the image allows
                                           │    and filled up by reflection where it does not
                                           └─► tiles of the frame, from its corner on

A region is an image of its own, as in the paper: its tiles begin at its corner. Its *pixels* are
those of the image's one grid, so away from a region's border (by a tile's side) two regions that
are shifted by whole strides give equal classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from shapely import MultiPoint, box, make_valid, prepare
from shapely import Polygon as ShapelyPolygon

from napari_cellpath.core.errors import OutsideImageError, ScaleError
from napari_cellpath.core.requests import FileImage, PixelWindow, SegmentRequest
from napari_cellpath.core.vocabulary import Blend, RegionMode
from napari_cellpath.models import ModelInfo
from napari_cellpath.slides.planes import Box
from napari_cellpath.slides.scaled import Grid, grid_of, read_grid
from napari_cellpath.slides.windows import image_shape
from napari_cellpath.systems.hspnet.tiles import TILE, importance_map, ramp_map, tile_starts
from napari_cellpath.systems.tiling import clip_region, name_of

STAGE = 32
"""Whole strides of the network's deepest stage."""
GLASS = 240
"""Grey level that stands where the file is damaged, for the tiles that reach over it."""


@dataclass(frozen=True)
class Layout:
    """All that decides which pixels are read, computed, weighted and kept.

    Attributes
    ----------
    grid
        The image at the model's scale.
    kept
        Grid pixels that the store holds.
    frame
        Grid pixels that are computed; holds ``kept``.
    pad
        Rows and columns of reflection before the frame, where the image is smaller than a tile.
    padded
        Rows and columns of the frame with its reflections: what tiles lie on.
    tile, stride
        (rows, columns).
    blend, mode
        Of the request.
    """

    grid: Grid
    kept: Box
    frame: Box
    pad: tuple[int, int]
    padded: tuple[int, int]
    tile: tuple[int, int]
    stride: tuple[int, int]
    blend: Blend
    mode: RegionMode

    @cached_property
    def row_starts(self) -> tuple[int, ...]:
        """First rows of the tile rows, in the padded frame."""
        return tuple(tile_starts(self.padded[0], self.tile[0], self.stride[0]))

    @cached_property
    def col_starts(self) -> tuple[int, ...]:
        """First columns of a tile row's tiles, in the padded frame."""
        return tuple(tile_starts(self.padded[1], self.tile[1], self.stride[1]))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns that are kept."""
        return self.kept[2] - self.kept[0], self.kept[3] - self.kept[1]

    @property
    def offset(self) -> tuple[int, int]:
        """Where the kept pixels begin in the padded frame."""
        return (
            self.kept[0] - self.frame[0] + self.pad[0],
            self.kept[1] - self.frame[1] + self.pad[1],
        )

    def band(self, row: int) -> tuple[int, int]:
        """Rows of the padded frame that are final once tile row ``row`` is done."""
        starts = self.row_starts
        end = starts[row + 1] if row + 1 < len(starts) else self.padded[0]
        return starts[row], end

    def weights(self) -> NDArray[np.float32]:
        """How much each pixel of a tile counts."""
        if self.mode is RegionMode.PREVIEW:
            overlap = self.tile[0] - self.stride[0], self.tile[1] - self.stride[1]
            return ramp_map(self.tile, overlap)
        return importance_map(self.blend, self.tile)


def tile_of(info: ModelInfo) -> int:
    """Side of a model's tiles, as its ``model.json`` says."""
    side = info.input.get("tile", TILE)
    return side if isinstance(side, int) and side >= STAGE else TILE


def stride_of(info: ModelInfo) -> int:
    """Between a model's tiles, as its ``model.json`` says; a quarter of a tile by default."""
    side = tile_of(info)
    stride = info.input.get("stride", side // 4)
    return stride if isinstance(stride, int) and 1 <= stride <= side else side // 4


def layout_of(request: SegmentRequest, info: ModelInfo) -> Layout:
    """The layout of a request; equal requests have equal ones.

    Raises
    ------
    CellpathError
        The image cannot be opened or states no pixel size; the region or the polygon does not
        meet it; the stride is none.
    """
    grid = grid_of(request.image, info.mpp, info.name)
    kept = grid.covering(_asked(request))
    side = tile_of(info)
    mode, blend = RegionMode(request.mode), Blend(request.blend)
    tile, stride = (side, side), _stride(request, info)
    if mode is RegionMode.PREVIEW:
        asked = kept[2] - kept[0], kept[3] - kept[1]
        high, wide = (min(2 * side, max(side, -(-n // STAGE) * STAGE)) for n in asked)
        tile, stride = (high, wide), (max(1, high - side // 2), max(1, wide - side // 2))
    rows = _grown(kept[0], kept[2], tile[0], grid.shape[0])
    cols = _grown(kept[1], kept[3], tile[1], grid.shape[1])
    frame = rows[0], cols[0], rows[1], cols[1]
    size = rows[1] - rows[0], cols[1] - cols[0]
    lack = [max(0, t - n) for t, n in zip(tile, size, strict=True)]
    return Layout(
        grid=grid,
        kept=kept,
        frame=frame,
        pad=(lack[0] // 2, lack[1] // 2),
        padded=(size[0] + lack[0], size[1] + lack[1]),
        tile=tile,
        stride=stride,
        blend=blend,
        mode=mode,
    )  # fmt: skip


def _stride(request: SegmentRequest, info: ModelInfo) -> tuple[int, int]:
    side = tile_of(info)
    if Blend(request.blend) is Blend.NONE:
        return side, side
    stride = stride_of(info) if request.stride is None else request.stride
    if not 1 <= stride <= side:
        raise ScaleError(
            f"A stride of {stride} pixels does not go with tiles of {side}; give 1 to {side}."
        )
    return stride, stride


def _grown(start: int, end: int, side: int, length: int) -> tuple[int, int]:
    """A range grown evenly to ``side`` where the image is long enough."""
    lack = min(side, length) - (end - start)
    if lack <= 0:
        return start, end
    start = min(max(0, start - lack // 2), length - min(side, length))
    return start, start + min(side, length)


def _asked(request: SegmentRequest) -> Box:
    """The part of level 0 that a request is about."""
    asked = clip_region(request.region, image_shape(request.image))
    if not request.polygon:
        return asked
    points = np.asarray(request.polygon, float)
    if points.shape[0] < 3 or not np.isfinite(points).all() or _area(points) < 1:
        raise OutsideImageError(
            f"The polygon on {name_of(request.image)} encloses nothing (its corners are fewer "
            "than three, not finite, or lie on a line); draw it again."
        )
    edges = points + 0.5  # napari points are pixel centres
    top, left = (math.floor(v) for v in edges.min(axis=0))
    bottom, right = (math.ceil(v) for v in edges.max(axis=0))
    met = (
        max(asked[0], top), max(asked[1], left), min(asked[2], bottom), min(asked[3], right)
    )  # fmt: skip
    if met[0] >= met[2] or met[1] >= met[3]:
        raise OutsideImageError(
            f"The polygon does not meet {name_of(request.image)} "
            f"({image_shape(request.image)[0]} x {image_shape(request.image)[1]} pixels)."
        )
    return met


def _area(points: NDArray[np.float64]) -> float:
    """Area of the points' convex hull, in square pixels; 0 where they lie on a line."""
    return float(MultiPoint(points).convex_hull.area)


class Polygon:
    """Which grid pixels lie in a request's polygon, by their centres (even-odd)."""

    def __init__(self, corners: tuple[tuple[float, float], ...], grid: Grid) -> None:
        points = np.asarray(corners, float) + 0.5
        self._rows = points[:, 0] / grid.step[0] - 0.5  # grid pixel centres are whole numbers
        self._cols = points[:, 1] / grid.step[1] - 0.5
        corners_on_grid = np.stack([self._rows, self._cols], axis=1)
        self._outline = make_valid(ShapelyPolygon(corners_on_grid))
        prepare(self._outline)

    def mask(self, window: Box) -> NDArray[np.bool_]:
        """(rows, columns) of a window of the grid: True inside."""
        top, left, bottom, right = window
        width = right - left
        inside = np.zeros((bottom - top, width + 1), np.bool_)
        rows0, cols0 = self._rows, self._cols
        rows1, cols1 = np.roll(rows0, -1), np.roll(cols0, -1)
        for at, row in enumerate(range(top, bottom)):
            crossed = (rows0 <= row) != (rows1 <= row)
            r0, r1, c0, c1 = (v[crossed] for v in (rows0, rows1, cols0, cols1))
            crossings = np.ceil(c0 + (row - r0) * (c1 - c0) / (r1 - r0)) - left
            places = np.clip(crossings, 0, width).astype(np.intp)
            np.logical_xor.at(inside[at], places, True)
        return np.logical_xor.accumulate(inside, axis=1)[:, :-1]

    def meets(self, window: Box) -> bool:
        """Whether the window of the grid touches the polygon; True near its border, too."""
        top, left, bottom, right = window
        return bool(self._outline.intersects(box(top - 1, left - 1, bottom, right)))


def read_frame(
    source: FileImage | PixelWindow, layout: Layout, part: Box, damaged: list[Box]
) -> NDArray[np.uint8]:
    """Pixels of a box of the padded frame, reflected where the image ends.

    Parameters
    ----------
    source
        Holds what `frame_window` of the box names.
    layout
        Of the region.
    part
        Top, left, bottom, right in the padded frame.
    damaged
        Boxes of the grid that cannot be read are added; glass stands in their place.
    """
    window = frame_window(layout, part)
    found: list[Box] = []
    pixels = read_grid(source, layout.grid, window, found)
    for top, left, bottom, right in found:
        rows = slice(max(top - window[0], 0), max(bottom - window[0], 0))
        cols = slice(max(left - window[1], 0), max(right - window[1], 0))
        pixels[rows, cols] = GLASS
    damaged += found
    top = max(0, layout.pad[0] - part[0])
    left = max(0, layout.pad[1] - part[1])
    below = part[2] - part[0] - top - pixels.shape[0]
    right = part[3] - part[1] - left - pixels.shape[1]
    if top or left or below or right:
        pixels = np.pad(pixels, ((top, below), (left, right), (0, 0)), mode="reflect")
    return np.ascontiguousarray(pixels)


def frame_window(layout: Layout, part: Box) -> Box:
    """Pixels of the grid that a box of the padded frame shows, reflections left out."""
    top, left, bottom, right = layout.frame
    return (
        min(max(part[0] - layout.pad[0], 0) + top, bottom - 1),
        min(max(part[1] - layout.pad[1], 0) + left, right - 1),
        min(max(part[2] - layout.pad[0], 1) + top, bottom),
        min(max(part[3] - layout.pad[1], 1) + left, right),
    )
