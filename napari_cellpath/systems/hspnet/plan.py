"""The client's half of HSP-Net: cut a region into short tasks, write the rows that come back.

::

    begin ──► first look (if asked for) ──► tile rows, a few tiles a task ──► store

The sums of a region live on the worker; tasks advance them in order, at most two of them under way.
A worker that has lost them says so, and the plan starts again with the tile rows that reach into
the first row that is not in the store: four at most with the paper's stride. Rows are added up
from nothing in the same order, tiles share batches as before, so the answer is the same to the bit
wherever it was interrupted.
"""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.core.errors import BackendError, OutputError, UnreadableImageError
from napari_cellpath.core.requests import FileImage, Image, MemoryImage, PixelWindow, SegmentRequest
from napari_cellpath.core.results import SegmentedRows
from napari_cellpath.core.vocabulary import Priority, System
from napari_cellpath.models import ModelEntry, find_model
from napari_cellpath.slides.planes import Box
from napari_cellpath.slides.region_store import (
    UNREADABLE,
    UNSEEN,
    RegionFacts,
    RegionStore,
    fingerprint,
)
from napari_cellpath.slides.scaled import Grid, source_for, thumbnail_grid
from napari_cellpath.slides.windows import image_mpp, image_shape, slide_of
from napari_cellpath.systems.hspnet.layout import Layout, Polygon, frame_window, layout_of
from napari_cellpath.systems.hspnet.payloads import (
    BeginOutput,
    BeginPayload,
    LookOutput,
    LookPayload,
    RegionOutput,
    RegionPayload,
    Step,
)
from napari_cellpath.systems.hspnet.tissue import THUMBNAIL, tissue_mask
from napari_cellpath.systems.protocol import ModelRef, Task
from napari_cellpath.systems.tiling import name_of

TASK_SECONDS = 0.3
"""What a task aims at."""
LOOK_SECONDS = 2.0
"""What a first look may take; then the region itself goes on."""
WINDOW = 2
"""Tasks under way: the worker must not wait for the client."""
MOST_BYTES = 32 << 20
"""Of the rows that one task brings back."""
MOST_LOSSES = 50
"""Times in a row that the worker's state may be lost without a row being finished."""
MOST_DAMAGE = 0.05
"""Share of a region's tiles in the file that may be unreadable."""


class SegmentPlan:
    """Plan of a `SegmentRequest` (see `napari_cellpath.systems.protocol.Plan`).

    Raises
    ------
    CellpathError
        The model is not to be found or not an HSP-Net one; the image cannot be read or states no
        pixel size; the region does not meet it; the store holds another request.
    """

    def __init__(self, request: SegmentRequest) -> None:
        entry = find_model(request.model, System.HSPNET)
        self.request = request
        self.info = entry.info
        self.model = ModelRef(entry.name, str(entry.folder), entry.info.sha256)
        self.target = f"region:{request.store}"
        self.layout = layout_of(request, entry.info)
        self.facts = facts_of(request, entry, self.layout)
        self.store = RegionStore.resume(request.store, self.facts, self.layout.stride[0])
        self._polygon = Polygon(request.polygon, self.layout.grid) if request.polygon else None
        self._tiles = _Tiles(request.image, self.layout, self._polygon)
        self._segments = segments_of(request.image, self.layout)
        self._begun = self._asked = False
        self._batch = 1
        self._seconds = 0.0  # a tile takes; 0 while there is nothing to go by
        self._look = _Look(self.layout) if request.first_estimate else None
        self._cursor = _Cursor(self.layout, self._rows_final())
        self._progress = 0.0
        self._losses = 0

    # ------------------------------------------------------------------ tasks

    def take(self) -> Task | None:
        """The next task; None while two are under way, or an answer decides what comes."""
        if self.finished:
            return None
        if not self._begun:
            if self._asked:
                return None
            self._asked = True
            return self._task(self._begin())
        if self._look is not None and self._cursor.fresh:
            if self._look.out:
                return None
            looked = self._look_on()
            if looked is not None:
                return self._task(looked)
            self._look = None
        if self._cursor.under_way >= WINDOW or self._cursor.dry:
            return None
        return self._task(self._cursor.payload(self))

    def _task(self, payload: BeginPayload | LookPayload | RegionPayload) -> Task:
        return Task(System.HSPNET, self.model, payload, Priority.REGION)

    def _begin(self) -> BeginPayload:
        image = self.request.image
        grid: Grid | None = None
        if self.request.skip_empty and isinstance(image, FileImage):
            grid = thumbnail_grid(image, THUMBNAIL)
        source = image if isinstance(image, FileImage) else _nothing_of(image)
        return BeginPayload(source, grid)

    def _look_on(self) -> LookPayload | None:
        assert self._look is not None  # noqa: S101 - the caller has asked
        left = self._seconds * self._tiles.total
        if self._look.tried and left <= LOOK_SECONDS:
            return None  # the answer itself is as near
        places = self._look.take(self._tiles)
        if not places:
            return None
        sources = tuple(self.source((r, c, r + self.layout.tile[0], c + self.layout.tile[1]))
                        for r, c in places)  # fmt: skip
        return LookPayload(self.layout, places, sources)

    def source(self, box: Box) -> FileImage | PixelWindow:
        """What a task carries to read a box of the padded frame."""
        return source_for(self.request.image, self.layout.grid, frame_window(self.layout, box))

    @property
    def tiles(self) -> _Tiles:
        """Which tiles are computed."""
        return self._tiles

    @property
    def batch(self) -> int:
        """Tiles that share a network batch."""
        return self._batch

    def tiles_a_task(self) -> int:
        """Whole batches that take about `TASK_SECONDS`."""
        if self._seconds <= 0:
            return self._batch
        return max(1, round(TASK_SECONDS / self._seconds / self._batch)) * self._batch

    # ------------------------------------------------------------------ answers

    def give(self, task: Task, output: object) -> list[SegmentedRows]:
        """Take in a task's output; return the rows that are new in the store."""
        if isinstance(output, BeginOutput):
            self._take_begin(output)
            return []
        if isinstance(output, LookOutput):
            return self._take_look(task.payload, output)
        assert isinstance(output, RegionOutput)  # noqa: S101 - there is no other
        return self._take_rows(task.payload, output)

    def _take_begin(self, output: BeginOutput) -> None:
        held = self.store.progress
        if held.rows_done and (held.precision, held.device) != (output.precision, output.device):
            raise OutputError(
                f"{self.store.path} was begun on {held.device} in {held.precision}; going on "
                f"on {output.device} in {output.precision} would give other numbers. Use "
                f"--device {held.device} --precision {held.precision}, or another store."
            )
        if not held.rows_done:
            self.store.note(
                precision=output.precision, device=output.device, segments=self._segments
            )
        self._batch = output.batch
        if self.request.skip_empty:
            tissue = output.tissue
            if isinstance(self.request.image, MemoryImage):
                tissue = _tissue_in_memory(self.request.image)
            self._tiles.keep_tissue(tissue)
        self._begun = True
        self._cursor.restart(self._rows_final())

    def _take_look(self, payload: LookPayload, output: LookOutput) -> list[SegmentedRows]:
        if self._look is None:
            return []
        self._look.back(output.seconds)
        self._seconds = output.seconds / len(payload.places)
        changed = []
        (high, wide), (top, left) = self.layout.shape, self.layout.offset
        for (row, col), labels in zip(payload.places, output.labels, strict=True):
            first_row, first_col = max(row - top, 0), max(col - left, 0)
            last_row = min(row - top + labels.shape[0], high)
            last_col = min(col - left + labels.shape[1], wide)
            if first_row >= last_row or first_col >= last_col:
                continue
            part = labels[
                first_row + top - row : last_row + top - row,
                first_col + left - col : last_col + left - col,
            ].copy()
            self._outside_unseen(part, first_row, first_col)
            self.store.look(first_row, first_col, part)
            changed.append(
                SegmentedRows(self.request.store, first_row, last_row, high, provisional=True)
            )
        return changed

    def _take_rows(self, payload: RegionPayload, output: RegionOutput) -> list[SegmentedRows]:
        if not self._cursor.back(payload):
            return []
        if output.lost:
            self._losses += 1
            if self._losses > MOST_LOSSES:
                raise BackendError(
                    "The sums of the region were lost again and again (is the worker short of "
                    "memory, or are there several?); the rows done so far are kept."
                )
            self._cursor.restart(self._rows_final())
            return []
        if payload.n_tiles:
            self._seconds = output.seconds / payload.n_tiles
        self._note_damage(output.damaged)
        changed = []
        top, high = self.layout.offset[0], self.layout.shape[0]
        for band in output.bands:
            first, last = max(band.row - top, 0), min(band.row - top + len(band.labels), high)
            if first >= last:
                continue
            rows = slice(first + top - band.row, last + top - band.row)
            labels = band.labels[rows].copy()
            self._mark(labels, first)
            probabilities = None if band.probabilities is None else band.probabilities[:, rows]
            self.store.write_rows(first, labels, probabilities)
            self._losses = 0
            changed.append(SegmentedRows(self.request.store, first, last, high))
        self._progress = max(self._progress, self._cursor.share(self._tiles))
        return changed

    def _mark(self, labels: NDArray[np.uint8], row: int) -> None:
        """Write what is no class into rows of the store: damage, and what the polygon leaves out."""
        top, left = self.layout.kept[0] + row, self.layout.kept[1]
        for box in self.store.progress.damaged:
            rows = slice(max(box[0] - top, 0), max(box[2] - top, 0))
            cols = slice(max(box[1] - left, 0), max(box[3] - left, 0))
            labels[rows, cols] = UNREADABLE
        self._outside_unseen(labels, row, 0)

    def _outside_unseen(self, labels: NDArray[np.uint8], row: int, col: int) -> None:
        if self._polygon is None:
            return
        top, left = self.layout.kept[0] + row, self.layout.kept[1] + col
        window = top, left, top + labels.shape[0], left + labels.shape[1]
        labels[~self._polygon.mask(window)] = UNSEEN

    def _note_damage(self, damaged: tuple[Box, ...]) -> None:
        held = self.store.progress.damaged
        new = sorted(set(damaged) - set(held))
        if not new:
            return
        self.store.note(damaged=[*held, *new])
        bad = len(held) + len(new)
        if bad > MOST_DAMAGE * max(self._segments, 1):
            raise UnreadableImageError(
                f"{name_of(self.request.image)}: {bad} of {self._segments} tiles of the file are "
                f"unreadable ({bad / max(self._segments, 1):.1%}), more than "
                f"{MOST_DAMAGE:.0%}; the region was stopped. Is the file complete?"
            )

    # ------------------------------------------------------------------ state

    def _rows_final(self) -> int:
        """Tile rows whose bands are in the store."""
        done = self.store.progress.rows_done
        if done >= self.layout.shape[0]:
            return len(self.layout.row_starts)
        line = done + self.layout.offset[0]
        return next(
            n for n in range(len(self.layout.row_starts)) if self.layout.band(n)[1] > line
        )

    @property
    def finished(self) -> bool:
        """Whether the store is complete."""
        return self.store.progress.complete

    @property
    def progress(self) -> float:
        """Fraction of the tiles added."""
        return 1.0 if self.finished else self._progress

    def results(self) -> list[SegmentedRows]:
        """The rows that are final, as one."""
        done = self.store.progress.rows_done
        if not done:
            return []
        return [SegmentedRows(self.request.store, 0, done, self.layout.shape[0])]


class _Tiles:
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

    def _keep(self, met: object) -> None:
        assert callable(met)  # noqa: S101
        high, wide = self._layout.tile
        self._rows = [
            tuple(
                col
                for col in cols
                if met(frame_window(self._layout, (row, col, row + high, col + wide)))
            )
            for row, cols in zip(self._layout.row_starts, self._rows, strict=True)
        ]


class _Look:
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
        self._started = time.monotonic()
        self._a_task = 1
        self._n = 0
        self.out = False
        self.tried = False

    def take(self, tiles: _Tiles) -> tuple[tuple[int, int], ...]:
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
class _Cursor:
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

    def share(self, tiles: _Tiles) -> float:
        """Fraction of the tiles handed out."""
        return (tiles.before(self.row) + self.tile) / max(tiles.total, 1)

    def payload(self, plan: SegmentPlan) -> RegionPayload:
        """The next task's work."""
        steps = tuple(self._steps(plan))
        payload = RegionPayload(
            self.run, self.epoch, self.number, self.layout, steps, plan.batch,
            plan.request.probabilities,
        )  # fmt: skip
        self.number += 1
        return payload

    def _steps(self, plan: SegmentPlan) -> Iterator[Step]:
        left = plan.tiles_a_task()
        a_row = self.layout.shape[1] * (1 + len(plan.facts.class_names) * plan.request.probabilities)
        most_rows = max(1, MOST_BYTES // a_row)
        while not self.dry and left > 0 and most_rows > 0:
            cols = plan.tiles.of_row(self.row)
            taken = cols[self.tile : self.tile + left]
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


def facts_of(request: SegmentRequest, entry: ModelEntry, layout: Layout) -> RegionFacts:
    """What the store of a request is of."""
    image, grid, info = request.image, layout.grid, entry.info
    name = Path(image.path).name if isinstance(image, FileImage) else image.name
    return RegionFacts(
        image={
            "name": name,
            "shape": list(image_shape(image)),
            "fingerprint": fingerprint(image),
            "mpp": image_mpp(image),
        },
        model=entry.label,
        sha256=info.sha256,
        class_names=info.class_names,
        colours=tuple(c.colour for c in info.classes),
        abnormal=tuple(c.abnormal for c in info.classes),
        shape=layout.shape,
        step=grid.step,
        corner=grid.to_level0(layout.kept[0], layout.kept[1]),
        mpp=grid.mpp,
        layout={
            "level": grid.level,
            "ratio": grid.ratio,
            "kept": list(layout.kept),
            "tile": list(layout.tile),
            "stride": list(layout.stride),
            "blend": str(layout.blend),
            "mode": str(layout.mode),
            "skip_empty": request.skip_empty,
        },
        polygon=tuple((float(r), float(c)) for r, c in request.polygon),
        probabilities=request.probabilities,
    )  # fmt: skip


def segments_of(image: Image, layout: Layout) -> int:
    """Tiles of the file that the region lies on; 1 for what is read as a whole."""
    if not isinstance(image, FileImage):
        return 1
    slide = slide_of(image)
    if layout.grid.level == 0 and slide.held_pixels() is not None:
        return 1
    high, wide = slide.tile_shape(layout.grid.level)
    top, left, bottom, right = layout.grid.needed(layout.frame)
    return (-(-bottom // high) - top // high) * (-(-right // wide) - left // wide)


def _nothing_of(image: MemoryImage) -> PixelWindow:
    return PixelWindow(np.zeros((0, 0, 3), np.uint8), 0, 0, image.shape, image.mpp)


def _tissue_in_memory(image: MemoryImage) -> NDArray[np.bool_]:
    """The tissue mask of an image in memory, on every k-th pixel of it."""
    from napari_cellpath.slides.convert import dtype_range, to_rgb8

    step = max(1, -(-max(image.shape) // THUMBNAIL))
    picked = np.asarray(image.pixels[::step, ::step])
    value_range = image.value_range or dtype_range(picked.dtype, name=image.name)
    return tissue_mask(to_rgb8(picked, value_range, name=image.name))
