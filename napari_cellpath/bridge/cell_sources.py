"""Cells from other layers: masks, rectangles and points of the user's, as boxes of an image."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.layers import Image, Labels, Layer, Points, Shapes
from numpy.typing import NDArray

from napari_cellpath.bridge.box_recording import box_of
from napari_cellpath.bridge.boxed import boxes_round
from napari_cellpath.bridge.conventions import facts_of, image_shape, to_image_pixels
from napari_cellpath.bridge.kinds import kind_of
from napari_cellpath.core.errors import CellpathError
from napari_cellpath.core.geometry import boxes_of_labels
from napari_cellpath.systems.rbc.boxes import boxes_of_mask


@dataclass(frozen=True, eq=False)
class Given:
    """Cells that another layer marks.

    Attributes
    ----------
    boxes
        (n, 4) half-open level-0 pixel edges, on the image.
    names
        What each is called there; empty text where it has no name.
    masks
        (H, W) int32, label i + 1 for cell i, where the layer has masks of the image's own pixels.
    """

    boxes: NDArray[np.int64]
    names: tuple[str, ...]
    masks: NDArray[np.int32] | None = None


def layers_with_cells(layers: Iterable[Layer]) -> list[Layer]:
    """Layers of the user's that may mark cells, topmost first."""
    return [
        layer
        for layer in reversed(list(layers))
        if type(layer) in (Labels, Shapes, Points)
        and kind_of(layer) is None
        and facts_of(layer).get("role") is None
    ]


def cells_of_layer(layer: Layer, image: Image, side: int) -> Given:
    """The cells that a layer marks on an image. May take a second where it has masks.

    Parameters
    ----------
    layer
        Labels: one cell a value. Shapes: the box round each. Points: a square round each. The
        image itself: it is one cell.
    image
        Whose pixels are meant.
    side
        Of the squares round points, pixels.

    Raises
    ------
    CellpathError
        The layer is a stack, marks nothing, or nothing on this image.
    """
    if layer is image:
        return Given(np.array([[0, 0, *image_shape(image)]], dtype=np.int64), ("",), None)
    if layer.ndim != 2:
        raise CellpathError(f"'{layer.name}' is a stack; select a 2-D plane of it first.")
    masks: NDArray[np.int32] | None = None
    if isinstance(layer, Labels):
        boxes, names, masks = _of_labels(layer, image)
    elif isinstance(layer, Shapes):
        boxes, names = _of_shapes(layer, image)
    else:
        places = to_image_pixels(np.asarray(layer.data, dtype=float).reshape(-1, 2), layer, image)
        places = places[np.isfinite(places).all(axis=1)]
        boxes, names = boxes_round(places, side), ("",) * len(places)
    if not len(boxes):
        raise CellpathError(f"'{layer.name}' marks no cells; choose another layer or find them.")
    boxes = np.clip(boxes, 0, np.tile(image_shape(image), 2))
    on = np.asarray((boxes[:, 2:] > boxes[:, :2]).all(axis=1))
    if not on.any():
        raise CellpathError(f"Nothing that '{layer.name}' marks lies on '{image.name}'.")
    kept = tuple(name for name, is_on in zip(names, on.tolist(), strict=True) if is_on)
    return Given(boxes[on], kept, masks if on.all() else None)


def regions_of_layer(layer: Layer, image: Image, side: int) -> NDArray[np.int64]:
    """Boxes (n, 4) of the regions that a layer marks; see `cells_of_layer`.

    Of a labels layer over the image's own pixels they are its connected components, so that cells
    that touch are one region however they were painted.

    Raises
    ------
    CellpathError
        The layer is a stack, marks nothing, or nothing on this image.
    """
    if isinstance(layer, Labels) and layer.ndim == 2 and not layer.multiscale:
        corners = np.array([[0.0, 0.0], np.array(image_shape(image)) - 1.0])
        same = np.allclose(to_image_pixels(corners, layer, image), corners)
        mask = np.asarray(layer.data)
        if same and mask.shape == image_shape(image) and mask.any():
            found = boxes_of_mask(mask)
            if found:
                return np.array([(b.row0, b.col0, b.row1, b.col1) for b in found], dtype=np.int64)
    return cells_of_layer(layer, image, side).boxes


def _of_labels(
    layer: Labels, image: Image
) -> tuple[NDArray[np.int64], tuple[str, ...], NDArray[np.int32] | None]:
    labels = np.asarray(layer.data[0] if layer.multiscale else layer.data)
    values, boxes = boxes_of_labels(labels)
    names = tuple(str(v) for v in values)
    if not len(values):
        return boxes, names, None
    corners = to_image_pixels(boxes.reshape(-1, 2).astype(np.float64) - 0.5, layer, image) + 0.5
    placed = np.round(corners).astype(np.int64).reshape(-1, 4)
    placed = np.hstack([np.minimum(placed[:, :2], placed[:, 2:]),
                        np.maximum(placed[:, :2], placed[:, 2:])])  # fmt: skip
    same = labels.shape == image_shape(image) and np.array_equal(placed, boxes)
    masks = None
    if same:
        number = np.searchsorted(values, labels)
        number[number == len(values)] = 0
        masks = np.where(values[number] == labels, number + 1, 0).astype(np.int32)
    return placed, names, masks


def _of_shapes(layer: Shapes, image: Image) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    boxes: list[tuple[int, ...]] = []
    for corners in layer.data:
        box = box_of(to_image_pixels(np.asarray(corners, dtype=float), layer, image))
        if box is not None:
            boxes.append(tuple(round(edge) for edge in box))
    return np.array(boxes, dtype=np.int64).reshape(-1, 4), ("",) * len(boxes)


def new_boxes(boxes: NDArray[Any], known: NDArray[Any]) -> NDArray[np.bool_]:
    """Which of boxes (n, 4) are new, (n,): their middle lies in none of the known boxes (m, 4)."""
    if not len(boxes) or not len(known):
        return np.ones(len(boxes), dtype=bool)
    from scipy.spatial import cKDTree

    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    centres, reach = (known[:, :2] + known[:, 2:]) / 2, (known[:, 2:] - known[:, :2]) / 2
    around = cKDTree(centres).query_ball_point(middles, float(reach.max()), p=np.inf)
    return np.array(
        [
            not any((np.abs(middles[i] - centres[k]) <= reach[k]).all() for k in near)
            for i, near in enumerate(around)
        ],
        dtype=bool,
    )
