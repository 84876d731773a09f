"""Outlines: mending those of other programs, filling ours. A pixel counts by its centre."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from napari_cellpath.core.annotations import Annotation, Geometry, Shape, check_geometry
from napari_cellpath.core.errors import TableError
from napari_cellpath.project.interchange.frame import rectangle

Parts = list[tuple[Shape, Geometry]]

_WHOLE = 0.999
"""Share of an outline's area that must be in one piece for a crossing to be mended silently."""


def mended(parts: Parts, what: str) -> Parts:
    """Foreign shapes as we keep them: upright rectangles as boxes, outlines that do not cross.

    Where an outline crosses itself by a hair (a rounded corner, a spike), the hair is cut off;
    napari could not draw it.

    Raises
    ------
    TableError
        An outline that is no outline, or crosses itself for good.
    """
    return [
        _mended(geometry, what) if shape is Shape.POLYGON else (shape, geometry)
        for shape, geometry in parts
    ]


def _mended(geometry: Geometry, what: str) -> tuple[Shape, Geometry]:
    box = rectangle(geometry)
    if box is not None:
        return Shape.BOX, box
    check_geometry(Shape.POLYGON, geometry, what)
    polygon = shapely.Polygon(geometry[0], geometry[1:])
    if polygon.is_valid:
        return Shape.POLYGON, geometry
    pieces = list(polygons_in(shapely.make_valid(polygon, method="structure")))
    largest = max(pieces, key=lambda piece: piece.area, default=None)
    total = sum(piece.area for piece in pieces)
    if largest is None or largest.area < _WHOLE * total:
        reason = shapely.is_valid_reason(polygon).split("[")[0].lower()
        raise TableError(f"{what}: the outline is not one ({reason}); draw it again.")
    return Shape.POLYGON, rings_of(largest)


def polygons_in(geometry: Any) -> Iterator[shapely.Polygon]:
    """The polygons a shapely geometry is made of; lines and points are left out."""
    if isinstance(geometry, shapely.Polygon):
        if not geometry.is_empty:
            yield geometry
    else:
        for part in getattr(geometry, "geoms", ()):
            yield from polygons_in(part)


def rings_of(polygon: shapely.Polygon) -> Geometry:
    """Rings of (row, col), the outline first, none closed by repeating its first point."""
    return tuple(
        tuple((float(row), float(col)) for row, col in ring.coords[:-1])
        for ring in (polygon.exterior, *polygon.interiors)
    )


def fill(annotation: Annotation, target: NDArray[Any], value: int) -> None:
    """Set the pixels of an object to a value; what lies outside is cut off.

    Parameters
    ----------
    annotation
        With geometry in pixels of ``target``. A point is the one pixel it lies in.
    target
        (height, width), changed in place.
    value
        What to set.
    """
    height, width = target.shape
    if annotation.shape is Shape.POINT:
        row, col = (int(np.floor(x + 0.5)) for x in annotation.geometry)
        if 0 <= row < height and 0 <= col < width:
            target[row, col] = value
        return
    row0, col0, row1, col1 = annotation.bounds
    # The first pixel whose centre is not before the edge.
    first_row, last_row = (int(np.clip(np.ceil(x - 0.5), 0, height)) for x in (row0, row1))
    first_col, last_col = (int(np.clip(np.ceil(x - 0.5), 0, width)) for x in (col0, col1))
    part = target[first_row:last_row, first_col:last_col]
    if annotation.shape is Shape.BOX:
        part[...] = value
    elif part.size:
        part[_inside(annotation.geometry, part.shape, (first_row, first_col))] = value


def _inside(rings: Geometry, shape: tuple[int, int], corner: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels whose centre an odd number of edges separates from the left: holes are left out."""
    height, width = shape
    arrays = [np.asarray(ring, float) - corner - 0.5 for ring in rings]  # centres are integers
    points = np.concatenate(arrays)
    others = np.concatenate([np.roll(ring, -1, axis=0) for ring in arrays])
    down = (points[:, 0] <= others[:, 0])[:, None]
    upper, lower = np.where(down, points, others), np.where(down, others, points)
    first, last = (np.clip(np.ceil(ends[:, 0]), 0, height) for ends in (upper, lower))
    crossed = (last - first).astype(np.intp)  # rows whose centres an edge crosses
    edge = np.repeat(np.arange(len(points)), crossed)
    rows = first[edge] + np.arange(edge.size) - (np.cumsum(crossed) - crossed)[edge]
    (r0, c0), (r1, c1) = upper[edge].T, lower[edge].T
    cols = np.clip(np.ceil(c0 + (rows - r0) * (c1 - c0) / (r1 - r0)), 0, width)
    at = (rows * (width + 1) + cols).astype(np.intp)
    odd = (np.bincount(at, minlength=height * (width + 1)) % 2 == 1).reshape(height, width + 1)
    return np.logical_xor.accumulate(odd, axis=1)[:, :-1]
