"""Cells that were found or marked, made ready for the layers. Runs on a thread of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.bridge.boxed import centres_of
from napari_cellpath.bridge.cell_sources import Given, new_boxes
from napari_cellpath.bridge.masks import with_cells
from napari_cellpath.bridge.regions import Area
from napari_cellpath.core.requests import new_uid
from napari_cellpath.core.results import FoundCell


class Before:
    """What a masks layer held before cells are added."""

    def __init__(
        self, shape: tuple[int, int], data: NDArray[np.int32] | None, uids: Sequence[str]
    ) -> None:
        self.shape, self.data, self.uids = shape, data, list(uids)


class Placed:
    """New cells, ready to be put on the layers; ``total`` counts those that were there too."""

    def __init__(
        self,
        boxes: NDArray[np.int64],
        names: Sequence[str] | None,
        total: int,
        before: Before,
        masks: NDArray[np.int32] | None,
    ) -> None:
        self.boxes, self.names, self.total, self.masks = boxes, names, total, masks
        self.uids = [new_uid() for _ in range(len(boxes))]
        self.mask_uids = [*before.uids, *self.uids]


def place_found(
    found: Sequence[FoundCell], area: Area | None, known: NDArray[Any], before: Before
) -> Placed:
    """Cells that were found, without those outside the area and those that are known, (m, 4)."""
    boxes = np.array([cell.box for cell in found], dtype=np.int64).reshape(-1, 4)
    new = new_boxes(boxes, known)
    if area is not None and len(boxes):
        new &= area.holds(centres_of(boxes))
    cells = [cell for cell, is_new in zip(found, new, strict=True) if is_new]
    masks = with_cells(before.data, before.shape, cells, len(before.uids) + 1)
    return Placed(boxes[new], None, len(found), before, masks if cells else None)


def place_given(given: Given, known: NDArray[Any], before: Before) -> Placed:
    """Cells that another layer marks, without those that are known, (m, 4)."""
    new = new_boxes(given.boxes, known)
    names = [name for name, is_new in zip(given.names, new, strict=True) if is_new]
    masks = None
    if given.masks is not None and new.any():
        number = np.zeros(len(new) + 1, dtype=np.int32)
        number[1:][new] = len(before.uids) + 1 + np.arange(int(new.sum()))
        masks = number[given.masks]
        if before.data is not None:
            masks = np.where(before.data != 0, before.data, masks).astype(np.int32)
    return Placed(given.boxes[new], names, len(given.boxes), before, masks)
