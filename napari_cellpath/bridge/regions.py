"""Where on an image something is to be searched for: what is on screen, or what was drawn."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from napari.layers import Image, Layer, Shapes
from numpy.typing import NDArray

from napari_cellpath.bridge.conventions import facts_of, image_shape, to_image_pixels
from napari_cellpath.core.results import FoundNucleus

Polygon = NDArray[np.float64]
_AREAS = ("rectangle", "polygon", "ellipse")


@dataclass(frozen=True, eq=False)
class Area:
    """A part of an image: its bounding box, and polygons if it is not the box itself.

    ``box`` is (row, column, height, width) in level-0 pixels; ``polygons`` are (n, 2) of the
    same.
    """

    box: tuple[int, int, int, int]
    polygons: tuple[Polygon, ...] = ()

    def holds(self, places: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which of (n, 2) places lie in the area."""
        if not self.polygons:
            return np.ones(len(places), dtype=bool)
        from skimage.measure import points_in_poly

        inside = np.zeros(len(places), dtype=bool)
        for polygon in self.polygons:
            inside |= np.asarray(points_in_poly(places, polygon), dtype=bool)
        return inside


def visible_area(image: Image) -> Area | None:
    """What of an image is on the canvas now; None if nothing of it is."""
    corners = np.asarray(image.corner_pixels, dtype=float)[:, -2:]
    if image.multiscale:
        corners = corners * np.asarray(image.downsample_factors[image.data_level])[-2:]
    return _clipped(np.vstack([corners[0], corners[1] + 1]), image)


def drawn_area(layers: Iterable[Layer], image: Image, *, one: bool = False) -> Area | None:
    """The selected shapes of the topmost shapes layer that shows any, else all of its shapes.

    Lines and paths enclose nothing and are left out, as are shapes that we drew. With ``one`` the
    last of them is taken.
    """
    for layer in reversed(list(layers)):
        if not isinstance(layer, Shapes) or layer.ndim != 2 or not layer.visible:
            continue
        if facts_of(layer).get("role") is not None:
            continue
        chosen = sorted(layer.selected_data) or range(layer.nshapes)
        outlines = [
            _outline(layer.data[i], str(layer.shape_type[i]))
            for i in chosen
            if str(layer.shape_type[i]) in _AREAS
        ]
        if outlines:
            outlines = outlines[-1:] if one else outlines
            polygons = tuple(to_image_pixels(o, layer, image) for o in outlines)
            area = _clipped(np.vstack(polygons), image)
            return None if area is None else Area(area.box, polygons)
    return None


def _outline(data: NDArray[np.float64], kind: str) -> Polygon:
    corners = np.asarray(data, dtype=float)
    if kind != "ellipse":
        return corners
    middle = corners.mean(axis=0)
    along, across = (corners[1] - corners[0]) / 2, (corners[3] - corners[0]) / 2
    turn = np.linspace(0, 2 * np.pi, 64, endpoint=False)[:, None]
    return np.asarray(middle + np.cos(turn) * along + np.sin(turn) * across)


def _clipped(corners: NDArray[np.float64], image: Image) -> Area | None:
    height, width = image_shape(image)
    low, high = corners.min(axis=0), corners.max(axis=0)
    top, left = max(0, math.floor(low[0])), max(0, math.floor(low[1]))
    bottom, right = min(height, math.ceil(high[0])), min(width, math.ceil(high[1]))
    return Area((top, left, bottom - top, right - left)) if bottom > top and right > left else None


def new_places(
    found: Sequence[FoundNucleus],
    area: Area | None,
    known: NDArray[np.float64],
    mpp: float,
) -> NDArray[np.float64]:
    """Places (n, 2) of found nuclei in the area that are not on the layer yet.

    One that lies within half its diameter of a known nucleus is that nucleus.
    """
    places = np.array([(n.row, n.col) for n in found], dtype=float).reshape(-1, 2)
    if area is not None and len(places):
        inside = area.holds(places)
        places, found = places[inside], [n for n, i in zip(found, inside, strict=True) if i]
    if not len(places) or not len(known):
        return places
    from scipy.spatial import cKDTree

    distance, _ = cKDTree(known).query(places)
    radius = np.array([n.diameter for n in found]) / 2 / mpp
    return np.asarray(places[distance > radius])
