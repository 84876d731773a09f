"""A region as it stands: what a person painted counts for what the model said.

Summaries, exports and reports read a `CorrectedStore` as they read a store. The store itself is
never written to: a prediction and a person's word stay apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.bridge.painting import sampled
from napari_cellpath.bridge.tissue import Plane
from napari_cellpath.project.state import Raster
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
        self.levels: list[Any] = [
            CorrectedLevel(store, k, self.raster, numbers) for k in range(len(store.levels))
        ]

    @property
    def progress(self) -> Progress:
        """How far the store is; the counts are of the model's answer alone."""
        return self.store.progress

    @property
    def corrected(self) -> bool:
        """Whether anything was painted at all."""
        return bool(self.raster.tiles)

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
