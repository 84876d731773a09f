"""How a region is walked: which tiles, which are looked at first, where the next task begins."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.core.requests import Image
from napari_cellpath.slides.planes import Box
from napari_cellpath.slides.windows import image_shape
from napari_cellpath.systems.hspnet.layout import Layout, Polygon, frame_window
from napari_cellpath.systems.hspnet.payloads import RegionPayload, Step

if TYPE_CHECKING:
    from napari_cellpath.systems.hspnet.plan import SegmentPlan

TASK_SECONDS = 0.3
"""What a task aims at."""
LOOK_SECONDS = 2.0
"""What a first look may take; then the region itself goes on."""
MOST_BYTES = 32 << 20
"""Of the rows that one task brings back."""


class Tiles:
    """Which tiles of which row are computed: all, less those without polygon or tissue."""

    def __init__(self, image: Image, layout: Layout, polygon: Polygon | None) -> None:
        self._image = image
        self._layout = layout
        self._rows: list[tuple[int, ...]] = [layout.col_starts] * len(layout.row_starts)
        if polygon is not None:
            self._keep(polygon.meets)

    @property
    def total(self) -> int:
        """How many there are."""
        return sum(map(len, self._rows))

    def before(self, row: int) -> int:
        """How many lie in the tile rows before ``row``."""
        return sum(map(len, self._rows[:row]))

    def of_row(self, row: int) -> tuple[int, ...]:
        """Columns of a tile row's tiles."""
        return self._rows[row]

    def holds(self, place: tuple[int, int]) -> bool:
        """Whether a tile of the first look overlaps one that is computed."""
        high, wide = self._layout.tile
        rows = zip(self._layout.row_starts, self._rows, strict=True)
        return any(
            abs(place[1] - col) < wide
            for start, cols in rows if abs(place[0] - start) < high
            for col in cols
        )  # fmt: skip

    def keep_tissue(self, tissue: NDArray[np.bool_] | None) -> None:
        """Leave out tiles where the thumbnail shows none."""
        if tissue is None:
            return
        shape = image_shape(self._image)
        scale = tissue.shape[0] / shape[0], tissue.shape[1] / shape[1]

        def met(window: Box) -> bool:
            top, left = self._layout.grid.to_level0(window[0], window[1])
            bottom, right = self._layout.grid.to_level0(window[2], window[3])
            rows = slice(int(top * scale[0]), int(np.ceil(bottom * scale[0])))
            cols = slice(int(left * scale[1]), int(np.ceil(right * scale[1])))
            return bool(tissue[rows, cols].any())

        self._keep(met)

    def _keep(self, met: Callable[[Box], bool]) -> None:
        high, wide = self._layout.tile
        self._rows = [
            tuple(
                col
                for col in cols
                if met(frame_window(self._layout, (row, col, row + high, col + wide)))
            )
            for row, cols in zip(self._layout.row_starts, self._rows, strict=True)
        ]


class Look:
    """The first look: tiles side by side from the region's middle outwards, for a short while."""

    def __init__(self, layout: Layout) -> None:
        (high, wide), (height, width) = layout.tile, layout.padded
        rows = range(0, max(height - high, 0) + high, high)
        cols = range(0, max(width - wide, 0) + wide, wide)
        places = {(min(r, height - high), min(c, width - wide)) for r in rows for c in cols}
        middle = (height - high) / 2, (width - wide) / 2
        self._places = deque(
            sorted(places, key=lambda p: (np.hypot(p[0] - middle[0], p[1] - middle[1]), p))
        )
        self._spent = 0.0
        self._a_task = 1
        self._n = 0
        self.out = False
        self.tried = False

    def take(self, tiles: Tiles) -> tuple[tuple[int, int], ...]:
        """The next places, or none once the time is used up."""
        if self._spent >= LOOK_SECONDS:
            return ()
        taken: list[tuple[int, int]] = []
        while self._places and len(taken) < self._a_task:
            place = self._places.popleft()
            if tiles.holds(place):
                taken.append(place)
        self._n = len(taken)
        self.out = bool(taken)
        return tuple(taken)

    def back(self, seconds: float) -> None:
        """A task of them took so long."""
        self.out, self.tried = False, True
        self._spent += seconds
        self._a_task = max(1, min(16, int(TASK_SECONDS * self._n / max(seconds, 1e-6))))


@dataclass
class Cursor:
    """Where the next task begins, and which are under way."""

    layout: Layout
    row: int = 0
    tile: int = 0
    final: int = 0
    read_to: int = 0
    run: str = field(default_factory=lambda: uuid.uuid4().hex)
    epoch: int = 0
    number: int = 0
    returned: int = 0

    def restart(self, final: int) -> None:
        """Begin with the tile rows that reach into the first row that is not in the store."""
        starts = self.layout.row_starts
        self.final = final
        self.epoch += 1
        self.number = self.returned = self.tile = 0
        if final >= len(starts):
            self.row = len(starts)
            return
        first = self.layout.band(final)[0]
        self.row = next(n for n, start in enumerate(starts) if start + self.layout.tile[0] > first)
        self.read_to = starts[self.row]

    @property
    def fresh(self) -> bool:
        """Whether nothing of this run has been asked for yet."""
        return self.number == 0

    @property
    def dry(self) -> bool:
        """Whether all tasks are out."""
        return self.row >= len(self.layout.row_starts)

    @property
    def under_way(self) -> int:
        """Tasks that are not back."""
        return self.number - self.returned

    def back(self, payload: RegionPayload) -> bool:
        """A task came back; False if it is of an epoch that is over."""
        if payload.epoch != self.epoch:
            return False
        self.returned += 1
        return True

    def share(self, tiles: Tiles) -> float:
        """Fraction of the tiles handed out."""
        return (tiles.before(self.row) + self.tile) / max(tiles.total, 1)

    def payload(self, plan: SegmentPlan, whole: bool = False) -> RegionPayload:
        """The next task's work; ``whole`` needs nothing that an earlier one left on the worker.

        Such a task rebuilds the sums and finishes as many rows as it had to rebuild: it takes
        long, and twice as much is computed, but workers need not remember anything.
        """
        rebuilt = max(1, self.final - self.row)
        steps = tuple(self._steps(plan, rebuilt if whole else 0))
        payload = RegionPayload(
            self.run, self.epoch, self.number, self.layout, steps, plan.batch,
            plan.request.probabilities,
        )  # fmt: skip
        self.number += 1
        return payload

    def _steps(self, plan: SegmentPlan, new_rows: int) -> Iterator[Step]:
        """Steps of about the usual length, or until ``new_rows`` tile rows are finished."""
        until = self.final + new_rows
        left = plan.tiles_a_task()
        planes = len(plan.facts.class_names) if plan.request.probabilities else 0
        a_row = self.layout.shape[1] * (1 + planes)
        most_rows = max(1, MOST_BYTES // a_row)
        while not self.dry and (self.row < until if new_rows else left > 0 and most_rows > 0):
            cols = plan.tiles.of_row(self.row)
            taken = cols[self.tile :] if new_rows else cols[self.tile : self.tile + left]
            last = self.tile + len(taken) == len(cols)
            read, source = None, None
            if self.tile == 0 and cols:
                start = self.layout.row_starts[self.row]
                begin, end = max(self.read_to, start), start + self.layout.tile[0]
                if begin < end:
                    read = begin, end
                    source = plan.source((begin, 0, end, self.layout.padded[1]))
                    self.read_to = end
            yield Step(
                row=self.row,
                cols=taken,
                all_cols=cols if self.tile == 0 else None,
                read=read,
                source=source,
                last=last,
                emit=self.row >= self.final,
            )
            left -= len(taken)
            if last:
                band = self.layout.band(self.row)
                most_rows -= band[1] - band[0]
                self.row, self.tile = self.row + 1, 0
            else:
                self.tile += len(taken)
