"""Exact outlines of labels: they run along pixel edges, so that filling them gives the labels back.

Each pixel of a label has up to four edges to something else. An edge leads on to the next one
round its label by looking at two neighbours only, so all are linked at once; a walk along the
links then gives the rings.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.measure import label as connected

from napari_cellpath.core.annotations import Geometry

Ring = tuple[tuple[float, float], ...]

# Top, right, bottom, left edge of a pixel, walked clockwise: across the edge lies `_ACROSS`,
# ahead lies `_AHEAD`, and the edge begins at the corner `_CORNER` of the pixel. (row, col).
_ACROSS = ((-1, 0), (0, 1), (1, 0), (0, -1))
_AHEAD = ((0, 1), (1, 0), (0, -1), (-1, 0))
_CORNER = np.array(((0, 0), (0, 1), (1, 1), (1, 0)))


def trace(labels: NDArray[Any]) -> Iterator[tuple[int, list[Geometry]]]:
    """Outlines of every value but 0, in ascending order.

    Parameters
    ----------
    labels
        (height, width) of integers.

    Yields
    ------
    Value and its parts, from the top left on. Pixels that only touch at a corner are two parts.
    A part is rings of (row, col) pixel edges, the outline first; no ring meets itself.
    """
    parts, count = connected(labels, background=0, connectivity=1, return_num=True)
    outlines: list[list[Ring]] = [[] for _ in range(count + 1)]
    holes: list[list[Ring]] = [[] for _ in range(count + 1)]
    values = np.zeros(count + 1, np.int64)
    values[parts.ravel()] = labels.ravel()
    for part, corners in _rings(np.pad(parts, 1)):
        for ring in _simple(corners):
            (outlines if _clockwise(ring) else holes)[part].append(ring)
    shapes: dict[int, list[Geometry]] = {}
    for part in range(1, count + 1):  # numbered from the top left on
        shapes.setdefault(int(values[part]), []).append((*outlines[part], *holes[part]))
    for value in sorted(shapes):
        yield value, shapes[value]


def _rings(parts: NDArray[np.int64]) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """Number of a part and the corners of one of its rings, in walking order; parts are padded."""
    width = parts.shape[1]
    flat = parts.ravel()
    inside = np.flatnonzero(flat)
    edges, onward = [], []
    for side in range(4):
        across, ahead = (d[side][0] * width + d[side][1] for d in (_ACROSS, _AHEAD))
        pixels = inside[flat[inside] != flat[inside + across]]
        part = flat[pixels]
        closed = flat[pixels + ahead] != part  # turn right, round the same pixel
        straight = ~closed & (flat[pixels + ahead + across] != part)
        to_pixel = np.where(closed, pixels, pixels + ahead + np.where(straight, 0, across))
        to_side = np.where(closed, (side + 1) % 4, np.where(straight, side, (side - 1) % 4))
        edges.append(pixels * 4 + side)
        onward.append(to_pixel * 4 + to_side)
    known = np.concatenate(edges)
    order = np.argsort(known)
    known = known[order]
    following = np.searchsorted(known, np.concatenate(onward)[order]).tolist()
    pixel, side_of = np.divmod(known, 4)
    row, col = np.divmod(pixel, width)
    corner = np.stack([row, col], axis=1) - 1 + _CORNER[side_of]
    begins = [tuple(c) for c in corner.tolist()]
    sides, owner = side_of.tolist(), flat[pixel].tolist()
    visited = bytearray(len(sides))
    for first in range(len(sides)):
        if visited[first]:
            continue
        corners, edge = [], first
        while not visited[edge]:
            visited[edge] = 1
            to = following[edge]
            if sides[to] != sides[edge]:
                corners.append(begins[to])
            edge = to
        yield owner[first], corners


def _simple(corners: list[tuple[int, int]]) -> Iterator[Ring]:
    """Cut a ring that passes a corner twice into rings that do not."""
    if len(set(corners)) == len(corners):
        yield tuple((float(r), float(c)) for r, c in corners)
        return
    path: dict[tuple[int, int], None] = {}
    for corner in corners:
        if corner in path:
            loop = [corner]
            while (last := path.popitem()[0]) != corner:
                loop.append(last)
            yield tuple((float(r), float(c)) for r, c in (loop[0], *reversed(loop[1:])))
        path[corner] = None
    yield tuple((float(r), float(c)) for r, c in path)


def _clockwise(ring: Ring) -> bool:
    """Whether the ring runs clockwise as seen on the screen, as outlines do and holes do not."""
    doubled = sum(
        c0 * r1 - c1 * r0 for (r0, c0), (r1, c1) in zip(ring, (*ring[1:], ring[0]), strict=True)
    )
    return doubled > 0
