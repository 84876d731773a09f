"""The outlines of very many boxes as one light layer: a mesh of thin frames, a colour a box.

napari's shapes take 1.9 s for 10,000 rectangles and its vectors 0.7 s of processor time, with a
quarter of a second for each change; a mesh takes 15 ms (decisions.md). It is only looked at:
boxes are selected and changed on the layers above it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.layers import Image, Surface
from numpy.typing import NDArray

from napari_cellpath.bridge.conventions import image_facts, image_shape, layers_of, placing
from napari_cellpath.bridge.timing import napari_call
from napari_cellpath.core.vocabulary import Role

THIN = 0.035
"""Width of a frame, of its box's shorter side."""
_CORNERS = np.array([[0, 1], [0, 3], [2, 3], [2, 1]])  # (row, column) of a box (r0, c0, r1, c1)
_FACES = np.array([[0, 1, 5], [0, 5, 4], [1, 2, 6], [1, 6, 5],
                   [2, 3, 7], [2, 7, 6], [3, 0, 4], [3, 4, 7]])  # fmt: skip
_NONE = np.zeros((1, 4)), np.zeros((1, 4))


def create_outlines_layer(image: Image) -> Surface:
    """Layer without outlines for an image, not yet in a viewer."""
    image_shape(image)
    vertices, faces, colours = frames(*_NONE, 1.0)
    return Surface(
        (vertices, faces, np.ones(len(vertices), np.float32)),
        vertex_colors=colours,
        shading="none",
        name=f"outlines · {image.name}",
        metadata=image_facts(image, Role.FIELD_REGIONS),
        **placing(image),
    )


def outlines_layer_of(image: Image, layers: Any) -> Surface | None:
    """The layer of outlines of an image, or None."""
    found = [x for x in layers_of(image, Role.FIELD_REGIONS, layers) if isinstance(x, Surface)]
    return found[-1] if found else None


def frames(
    boxes: NDArray[Any], colours: NDArray[np.float64], widths: NDArray[np.float64] | float
) -> tuple[NDArray[np.float32], NDArray[np.intp], NDArray[np.float32]]:
    """A mesh of frames just inside boxes.

    Parameters
    ----------
    boxes
        (n, 4) half-open pixel edges.
    colours
        (n, 4) of the frames.
    widths
        (n,) of the frames, pixels.

    Returns
    -------
    tuple
        Vertices (8 n, 2) in napari's coordinates, faces (8 n, 3), colours (8 n, 4).
    """
    outer = (np.asarray(boxes, dtype=np.float32) - 0.5)[:, _CORNERS]
    inwards = np.array([[1, 1], [1, -1], [-1, -1], [-1, 1]], np.float32)
    width = np.broadcast_to(np.asarray(widths, np.float32), (len(outer),))
    inner = outer + inwards * width[:, None, None]
    vertices = np.concatenate([outer, inner], axis=1).reshape(-1, 2)
    faces = (_FACES + 8 * np.arange(len(outer))[:, None, None]).reshape(-1, 3)
    return vertices, faces, np.repeat(np.asarray(colours, np.float32), 8, axis=0)


def widths_of(boxes: NDArray[Any]) -> NDArray[np.float64]:
    """Widths (n,) of the frames of boxes (n, 4): to be seen, and not to hide what lies inside."""
    sides = np.asarray(boxes[:, 2:] - boxes[:, :2], dtype=float)
    return np.clip(THIN * sides.min(axis=1), 1.0, 40.0) if len(sides) else np.zeros(0)


class Outlines:
    """One layer of outlines.

    Parameters
    ----------
    layer
        See `create_outlines_layer`.
    """

    def __init__(self, layer: Surface) -> None:
        self.layer = layer
        self._shown: tuple[bytes, bytes] | None = None

    def show(
        self, boxes: NDArray[Any], colours: NDArray[np.float64], bold: NDArray[np.bool_]
    ) -> bool:
        """Show these boxes (n, 4) in these colours (n, 4), some bold; whether anything changed."""
        if not len(boxes):
            boxes, colours = _NONE
            bold = np.zeros(1, dtype=bool)
        now = np.asarray(boxes).tobytes(), colours.tobytes() + bold.tobytes()
        if now == self._shown:
            return False
        self._shown = now
        widths = widths_of(boxes) * np.where(bold, 1.8, 1.0)
        vertices, faces, vertex_colours = frames(boxes, colours, widths)
        with napari_call():
            # Told once, when vertices and colours fit each other again.
            with self.layer.events.blocker_all():
                self.layer.data = (vertices, faces, np.ones(len(vertices), np.float32))
            self.layer.vertex_colors = vertex_colours
        return True
