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
)
from napari_cellpath.systems.hspnet.tissue import THUMBNAIL, tissue_mask
from napari_cellpath.systems.hspnet.walk import LOOK_SECONDS, TASK_SECONDS, Cursor, Look, Tiles
from napari_cellpath.systems.protocol import ModelRef, Task
from napari_cellpath.systems.tiling import name_of

WINDOW = 2
"""Tasks under way: the worker must not wait for the client."""
MOST_LOSSES = 50
"""Times in a row that the worker's state may be lost without a row being finished."""
SCATTERED = 3
"""After as many, tasks are taken to go to several workers, and each brings all it needs."""
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
        self._tiles = Tiles(request.image, self.layout, self._polygon)
        self._segments = segments_of(request.image, self.layout)
        self._begun = self._asked = False
        self._batch = 1
        self._seconds = 0.0  # a tile takes; 0 while there is nothing to go by
        self._look = Look(self.layout) if request.first_estimate else None
        self._cursor = Cursor(self.layout, self._rows_final())
        self._progress = self._tiles.before(self._rows_final()) / max(self._tiles.total, 1)
        self._losses = 0
        self._scattered = False

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
        if self._cursor.under_way >= (1 if self._scattered else WINDOW) or self._cursor.dry:
            return None
        return self._task(self._cursor.payload(self, whole=self._scattered))

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
    def tiles(self) -> Tiles:
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
        last = held.device.rpartition(" ")[2]
        if held.rows_done and (held.precision, last) != (output.precision, output.device):
            raise OutputError(
                f"{self.store.path} was begun on {held.device} in {held.precision}; going on "
                f"on {output.device} in {output.precision} would give other numbers. Use "
                f"--device {last} --precision {held.precision}, or another store."
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
            self._scattered = self._scattered or self._losses >= SCATTERED
            if self._losses > MOST_LOSSES:
                raise BackendError(
                    "The sums of the region were lost again and again (is the worker short of "
                    "memory?); the rows done so far are kept."
                )
            self._cursor.restart(self._rows_final())
            return []
        if payload.n_tiles:
            self._seconds = output.seconds / payload.n_tiles
        self._note_damage(output.damaged)
        held = self.store.progress.device
        if held.rpartition(" ")[2] != output.device:  # a graphics card was lost on the way
            self.store.note(device=f"{held}, then {output.device}")
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
        if self._scattered:
            self._cursor.restart(self._rows_final())
        return changed

    def _mark(self, labels: NDArray[np.uint8], row: int) -> None:
        """Write what is no class into rows of the store: damage, and outside the polygon."""
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
                f"{MOST_DAMAGE:.0%}; the region was stopped. Is the file complete? If so, "
                "choose a region without them."
            )

    # ------------------------------------------------------------------ state

    def _rows_final(self) -> int:
        """Tile rows whose bands are in the store."""
        done = self.store.progress.rows_done
        if done >= self.layout.shape[0]:
            return len(self.layout.row_starts)
        line = done + self.layout.offset[0]
        return next(n for n in range(len(self.layout.row_starts)) if self.layout.band(n)[1] > line)

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
