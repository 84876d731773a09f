"""A segmented region cut into tiles, so that a person can look through the undecided ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.bridge.painting import sampled
from napari_cellpath.project.state import Raster
from napari_cellpath.slides.region_store import (
    FIRST_NO_CLASS,
    UNREADABLE,
    RegionFacts,
    RegionStore,
)

SIDE = 256
"""Of a tile, pixels of the store."""
EVERY = 8
"""Of a tile's rows and columns, every as many are looked at for what was painted."""
MOSTLY = 0.5
"""A tile is what a person says of at least this share of it."""


@dataclass(frozen=True, eq=False)
class Tiles:
    """What a model says of n tiles of a region, in rows from the top left.

    Attributes
    ----------
    boxes
        (n, 4) intp: row, column, height and width in pixels of the store.
    called
        (n,) intp: the class of most of a tile's pixels.
    score
        (n,) mean probability of each pixel's class; without probabilities the share of the
        tile that is of the class called.
    margin
        (n,) mean lead of each pixel's class over the next; without probabilities that of the
        class called over the next most frequent.
    damaged
        (n,) bool: some pixels could not be read.
    """

    boxes: NDArray[np.intp]
    called: NDArray[np.intp]
    score: NDArray[np.float64]
    margin: NDArray[np.float64]
    damaged: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.boxes)


def read_tiles(store: RegionStore, side: int = SIDE) -> Tiles:
    """Look through a store tile by tile; those without any class are left out."""
    height, width = store.facts.shape
    classes = len(store.facts.class_names)
    boxes, called, score, margin, damaged = [], [], [], [], []
    for top in range(0, height, side):
        band = store.rows(top, min(top + side, height))
        chances = (
            np.asarray(store.probabilities[0][:, top : top + side]) if store.probabilities else None
        )
        for left in range(0, width, side):
            labels = band[:, left : left + side]
            there = labels < FIRST_NO_CLASS
            if there.sum() * 4 < labels.size:  # a sliver at the border, or outside the polygon
                continue
            counts = np.bincount(labels[there], minlength=classes)[:classes]
            shares = np.sort(counts)[::-1] / there.sum()
            boxes.append((top, left, *labels.shape))
            called.append(int(counts.argmax()))
            damaged.append(bool((labels == UNREADABLE).any()))
            if chances is None:
                score.append(shares[0])
                margin.append(shares[0] - shares[1])
            else:
                part = chances[:, :, left : left + side][:, there].astype(np.float32) / 255
                leading = np.sort(part, axis=0)
                score.append(float(leading[-1].mean()))
                margin.append(float((leading[-1] - leading[-2]).mean()))
    return Tiles(
        np.array(boxes, np.intp).reshape(-1, 4), np.array(called, np.intp),
        np.array(score, float), np.array(margin, float), np.array(damaged, bool),
    )  # fmt: skip


def painted_tiles(tiles: Tiles, facts: RegionFacts, raster: Raster | None) -> NDArray[np.intp]:
    """(n,) the class that a person painted over most of each tile, -1 for none."""
    found = np.full(len(tiles), -1, np.intp)
    if raster is None or not raster.tiles or not len(tiles):
        return found
    at = [
        np.floor(corner + (np.arange(EVERY // 2, side, EVERY) + 0.5) * step).astype(np.intp)
        for side, corner, step in zip(facts.shape, facts.corner, facts.step, strict=True)
    ]
    said = sampled(raster, at[0], at[1])
    for number, (row, col, height, width) in enumerate(tiles.boxes.tolist()):
        part = said[
            (row + EVERY // 2) // EVERY : (row + height) // EVERY,
            (col + EVERY // 2) // EVERY : (col + width) // EVERY,
        ]
        painted = part[part > 0]
        if len(painted) and len(painted) >= MOSTLY * part.size:
            found[number] = int(np.bincount(painted).argmax()) - 1
    return found


def tile_window(box: NDArray[np.intp], facts: RegionFacts) -> tuple[int, int, int, int]:
    """(row, column, height, width) of a tile in level-0 pixels; neighbours share no pixel."""
    ends = []
    for start, length, corner, step in zip(box[:2], box[2:], facts.corner, facts.step, strict=True):
        # Level-0 pixels whose middle lies in the tile.
        first = int(np.ceil(corner + start * step - 0.5 - 1e-9))
        last = int(np.ceil(corner + (start + length) * step - 0.5 - 1e-9))
        ends.append((max(first, 0), max(last, first + 1)))
    (row, bottom), (col, right) = ends
    return row, col, bottom - row, right - col
