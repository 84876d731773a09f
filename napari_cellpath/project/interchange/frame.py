"""From the coordinates of a file to level-0 pixels and back.

Annotations place points by pixel centres and boxes and outlines by pixel edges, (row, col).
GeoJSON and COCO know edges only, as x, y: the point (r, c) is x = c + 0.5, y = r + 0.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from napari_cellpath.core.annotations import Geometry, ImageFacts, Shape
from napari_cellpath.core.errors import ScaleError, TableError
from napari_cellpath.core.geometry import plausible_mpp

UNITS = ("px", "um")

Offset = tuple[float, float]
XY = tuple[float, float]


@dataclass(frozen=True)
class Frame:
    """Where the coordinates of a file begin and how long their unit is.

    Attributes
    ----------
    offset
        (row, col) of the file's origin on level 0, pixels.
    mpp
        Micrometres per pixel where the file is in micrometres; None where it is in pixels.
    """

    offset: Offset = (0.0, 0.0)
    mpp: float | None = None

    def edge(self, x: float, y: float) -> tuple[float, float]:
        """(row, col) on level 0, pixel edges, of a file's x, y."""
        return self.length(y) + self.offset[0], self.length(x) + self.offset[1]

    def centre(self, x: float, y: float) -> tuple[float, float]:
        """(row, col) on level 0, pixel centres, of a file's x, y."""
        return self.length(y) - 0.5 + self.offset[0], self.length(x) - 0.5 + self.offset[1]

    def length(self, value: float) -> float:
        """A length of the file in pixels; a millionth of a pixel is the noise of a division."""
        return value if self.mpp is None else round(value / self.mpp, 6)

    def edge_to_file(self, row: float, col: float) -> XY:
        """Inverse of `edge`, for files in pixels."""
        return col - self.offset[1], row - self.offset[0]

    def centre_to_file(self, row: float, col: float) -> XY:
        """Inverse of `centre`, for files in pixels."""
        return col + 0.5 - self.offset[1], row + 0.5 - self.offset[0]


def frame_for(image: ImageFacts, unit: str, offset: Offset) -> Frame:
    """How a file given for this image with this unit is to be read.

    Raises
    ------
    TableError
        No such unit.
    ScaleError
        It is in micrometres and the pixel size of the image is not known.
    """
    if unit not in UNITS:
        raise TableError(f"There is no unit '{unit}'; coordinates are in px or um.")
    if unit == "px":
        return Frame(offset)
    mpp = plausible_mpp(image.mpp)
    if mpp is None:
        raise ScaleError(
            f"Coordinates in um need the pixel size of {image.name}; give its um per pixel."
        )
    return Frame(offset, mpp)


def moved(shape: Shape, geometry: Geometry, by: Offset) -> Geometry:
    """The geometry, so many rows and columns further."""
    if by == (0.0, 0.0) or not geometry:
        return geometry
    rows, cols = by
    if shape is Shape.POINT:
        return geometry[0] + rows, geometry[1] + cols
    if shape is Shape.BOX:
        return geometry[0] + rows, geometry[1] + cols, geometry[2] + rows, geometry[3] + cols
    return tuple(tuple((p[0] + rows, p[1] + cols) for p in ring) for ring in geometry)


def rectangle(rings: tuple[tuple[tuple[float, float], ...], ...]) -> Geometry | None:
    """(row0, col0, row1, col1) where an outline is exactly an upright rectangle, else None."""
    if len(rings) != 1 or len(rings[0]) != 4:
        return None
    ring = rings[0]
    rows, cols = sorted({p[0] for p in ring}), sorted({p[1] for p in ring})
    if len(rows) != 2 or len(cols) != 2:
        return None
    turns = all(
        (a[0] == b[0]) != (a[1] == b[1]) for a, b in zip(ring, (*ring[1:], ring[0]), strict=True)
    )
    return (rows[0], cols[0], rows[1], cols[1]) if turns and len(set(ring)) == 4 else None


def shape_of(geometry: Any) -> Shape | None:
    """The shape a geometry read from a file has by its form, None where it is none."""
    if not isinstance(geometry, tuple) or not geometry:
        return None
    if all(map(_is_number, geometry)):
        return {2: Shape.POINT, 4: Shape.BOX}.get(len(geometry))
    for ring in geometry:
        if not isinstance(ring, tuple):
            return None
        if not all(isinstance(p, tuple) and len(p) == 2 and all(map(_is_number, p)) for p in ring):
            return None
    return Shape.POLYGON


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e15
