"""A region as it stands: what a person painted counts for what the model said.

Summaries, exports and reports read a `CorrectedStore` as they read a store. The store itself is
never written to: a prediction and a person's word stay apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.bridge.painting import sampled
from napari_cellpath.bridge.tissue import Plane
from napari_cellpath.project.state import TILE, Raster
from napari_cellpath.slides.region_store import UNSEEN, Progress, RegionFacts, RegionStore

_NOT_OURS = 255


class CorrectedLevel(Plane):
    """Classes of one level of a store, painted ones on top of predicted ones."""

    def __init__(self, store: RegionStore, level: int, raster: Raster, numbers: Any) -> None:
        super().__init__(store.levels[level].shape, np.uint8)
        self._array, self._raster, self._numbers = store.levels[level], raster, numbers
        self._corner, self._step, self._stride = store.facts.corner, store.facts.step, 1 << level

    def read(self, rows: slice, cols: slice) -> NDArray[np.uint8]:
        """Classes of a window; what lies outside the polygon, or is not done, stays `UNSEEN`."""
        pixels = np.asarray(self._array[rows, cols]).copy()
        at = []
        for part, corner, step in zip((rows, cols), self._corner, self._step, strict=True):
            index = np.arange(part.start, part.stop, part.step) * self._stride
            at.append(np.floor(corner + (index + 0.5) * step).astype(np.intp))
        said = self._numbers[sampled(self._raster, at[0], at[1])]
        standing = (said != _NOT_OURS) & (pixels != UNSEEN)
        pixels[standing] = said[standing]
        return pixels


class CorrectedStore:
    """Looks like a `RegionStore` that is open for reading.

    Parameters
    ----------
    store
        The model's answer.
    raster
        What was painted over the image; None for nothing.
    painted_classes
        Names that painted numbers count in.
    """

    def __init__(
        self, store: RegionStore, raster: Raster | None, painted_classes: Sequence[str]
    ) -> None:
        self.path: Path = store.path
        self.facts: RegionFacts = store.facts
        self.probabilities = store.probabilities
        self.provisional = None
        self.store = store
        names = list(store.facts.class_names)
        numbers = np.full(256, _NOT_OURS, np.uint8)
        for number, name in enumerate(painted_classes):
            if name in names:
                numbers[number + 1] = names.index(name)
        self.raster = raster or Raster()
        if self.raster.tiles:
            note = {**self.facts.layout, "note": "painted corrections included"}
            self.facts = replace(self.facts, layout=note)
        self.levels: list[Any] = [
            CorrectedLevel(store, k, self.raster, numbers) for k in range(len(store.levels))
        ]

    @cached_property
    def _difference(self) -> tuple[NDArray[np.int64], int]:
        """What painting adds to the counts of values, and how many pixels it changed."""
        added, changed = np.zeros(256, np.int64), 0
        facts, done = self.store.facts, self.store.progress.rows_done
        for tile in self.raster.tiles:
            window = []
            limits = (done, facts.shape[1])
            for place, corner, step, limit in zip(
                tile, facts.corner, facts.step, limits, strict=True
            ):
                # Store pixels whose middle may lie in the tile; one more on each side.
                first = int((place * TILE - corner) / step) - 1
                last = int(((place + 1) * TILE - corner) / step) + 1
                window.append((max(first, 0), min(last, limit), place, corner, step))
            if any(w[0] >= w[1] for w in window):
                continue
            inside = [
                np.floor(corner + (np.arange(first, last) + 0.5) * step) // TILE == place
                for first, last, place, corner, step in window
            ]
            box = tuple(slice(first, last) for first, last, *_ in window)
            before = np.asarray(self.store.levels[0][box])[np.ix_(*inside)]
            after = self.levels[0][box][np.ix_(*inside)]
            added += np.bincount(after.ravel(), minlength=256)
            added -= np.bincount(before.ravel(), minlength=256)
            changed += int((before != after).sum())
        return added, changed

    @cached_property
    def progress(self) -> Progress:
        """How far the store is; the counts are of the region as it stands."""
        now = self.store.progress
        return replace(now, counts=(np.asarray(now.counts) + self._difference[0]).tolist())

    @property
    def changed(self) -> int:
        """Pixels of which a person says something else than the model."""
        return self._difference[1]

    def rows(self, row0: int, row1: int) -> NDArray[np.uint8]:
        """Class numbers of rows of the full level."""
        return np.asarray(self.levels[0][row0:row1])

    def entropy(self, row0: int, row1: int, level: int = 0) -> NDArray[np.float32]:
        """How undecided the model was; see `RegionStore.entropy`."""
        return self.store.entropy(row0, row1, level)


def frozen(raster: Raster | None) -> Raster:
    """A copy that a thread can read while the person paints on."""
    copy = Raster()
    for key, tile in list(({} if raster is None else raster.tiles).items()):
        copy.tiles[key] = tile.copy()
    return copy
