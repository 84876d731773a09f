"""Plan of a search for cells: a coarse look at the whole field, then its tiles.

::

    survey tiles ──► ground (threshold, background) ──► tiles of the region ──► cells

A tile keeps the cells whose centre lies in its own core. All of them go by one threshold and one
background, and their margins hold a clump of cells, so the answer does not depend on the tiles.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.core.geometry import boxes_of_labels
from napari_cellpath.core.requests import FileImage, FindCellsRequest, PixelWindow
from napari_cellpath.core.results import FoundCell
from napari_cellpath.core.vocabulary import Channel, Priority, System
from napari_cellpath.models import find_model
from napari_cellpath.slides.windows import image_mpp, image_shape, read, source_of
from napari_cellpath.systems.hep2.cells import USUAL_MPP, plane_of
from napari_cellpath.systems.hep2.segment import (
    FloatPlane,
    Ground,
    SegmentSettings,
    average_blocks,
    label_cells,
    survey,
)
from napari_cellpath.systems.protocol import ModelRef, Task
from napari_cellpath.systems.tiling import (
    Box,
    check_mpp,
    clip_region,
    cores_of,
    name_of,
    owned,
    window_round,
)

CORE_PIXELS = 1024  # side of a tile's core: 0.2 s of work
SURVEY_PIXELS = 2048  # only averaged


@dataclass(frozen=True, eq=False)
class SurveyPayload:
    """One tile of the coarse look: a window, whole blocks."""

    source: FileImage | PixelWindow
    window: Box
    block: int
    channel: Channel


@dataclass(frozen=True, eq=False)
class GroundPayload:
    """The coarse picture of the field, to measure background and threshold on."""

    coarse: FloatPlane
    block: int
    mpp: float
    settings: SegmentSettings


@dataclass(frozen=True, eq=False)
class TilePayload:
    """One tile: the window to read and the core whose cells are kept."""

    source: FileImage | PixelWindow
    window: Box
    core: Box
    mpp: float
    channel: Channel
    settings: SegmentSettings
    ground: Ground


class FindCellsPlan:
    """Plan of a `FindCellsRequest` (see `napari_cellpath.systems.protocol.Plan`).

    Raises
    ------
    CellpathError
        The model or the image cannot be used, or the region does not meet the image.
    """

    def __init__(self, request: FindCellsRequest) -> None:
        entry = find_model(request.model, System.HEP2)
        self.request = request
        self.model = ModelRef(entry.name, str(entry.folder), entry.info.sha256)
        image = request.image
        self.target = f"find:{name_of(image)}"
        self._settings = SegmentSettings(request.smallest, request.largest, request.sensitivity)
        self._mpp = check_mpp(image_mpp(image) or entry.info.mpp or USUAL_MPP)
        self._shape = image_shape(image)
        self._coarse_block = self._settings.coarse_block(self._mpp)
        self._surveys = deque(
            cores_of((0, 0, *self._shape), SURVEY_PIXELS, self._coarse_block)
        )  # fmt: skip
        coarse = tuple(-(-side // self._coarse_block) for side in self._shape)
        self._coarse = np.zeros(coarse, np.float32)
        self._unseen = len(self._surveys)
        self._measuring = False
        self._ground: Ground | None = None
        region = clip_region(request.region, self._shape)
        self._cores = deque(cores_of(region, CORE_PIXELS, self._settings.block(self._mpp)))
        self._tiles_left = len(self._cores)
        self._total, self._done = len(self._surveys) + 1 + len(self._cores), 0
        self._found: list[FoundCell] = []

    def take(self) -> Task | None:
        """The next tile of the survey; the ground, once all are in; then the tiles."""
        payload: SurveyPayload | GroundPayload | TilePayload
        if self._surveys:
            window = self._surveys.popleft()
            payload = SurveyPayload(
                self._source(window), window, self._coarse_block, Channel(self.request.channel)
            )
        elif self._unseen:
            return None
        elif self._ground is None:
            if self._measuring:
                return None
            self._measuring = True
            payload = GroundPayload(self._coarse, self._coarse_block, self._mpp, self._settings)
        elif self._cores:
            payload = self._tile(self._cores.popleft(), self._ground)
        else:
            return None
        return Task(System.HEP2, self.model, payload, Priority.SEARCH)

    def _source(self, window: Box) -> FileImage | PixelWindow:
        top, left, bottom, right = window
        return source_of(self.request.image, top, left, bottom - top, right - left)

    def _tile(self, core: Box, ground: Ground) -> TilePayload:
        margin = math.ceil(self._settings.margin_um / self._mpp)
        window = window_round(core, margin, self._settings.block(self._mpp), self._shape)
        return TilePayload(
            self._source(window), window, core, self._mpp, Channel(self.request.channel),
            self._settings, ground,
        )  # fmt: skip

    def give(self, task: Task, output: FloatPlane | Ground | list[FoundCell]) -> list[FoundCell]:
        """Take in a task's output; return the cells it brought, which are final."""
        self._done += 1
        if isinstance(output, Ground):
            self._ground = output
        elif isinstance(output, list):
            self._tiles_left -= 1
            self._found += output
            return output
        else:
            row, col = (edge // self._coarse_block for edge in task.payload.window[:2])
            self._coarse[row : row + output.shape[0], col : col + output.shape[1]] = output
            self._unseen -= 1
        return []

    @property
    def finished(self) -> bool:
        """Whether every tile was searched."""
        return not self._tiles_left

    @property
    def progress(self) -> float:
        """Fraction of the tasks done."""
        return self._done / self._total

    def results(self) -> Sequence[FoundCell]:
        """All cells so far; once it is finished by row, then column, whatever came first."""
        if self.finished:
            self._found.sort(key=lambda c: (c.row, c.col))
        return self._found


def search(
    payload: SurveyPayload | GroundPayload | TilePayload,
) -> FloatPlane | Ground | list[FoundCell]:
    """Do what a task of a `FindCellsPlan` asks (worker)."""
    if isinstance(payload, GroundPayload):
        return survey(payload.coarse, payload.block, payload.mpp, payload.settings)
    top, left, bottom, right = payload.window
    rgb = read(payload.source, top, left, bottom - top, right - left)
    plane = plane_of(rgb, payload.channel)
    if isinstance(payload, SurveyPayload):
        return average_blocks(plane, payload.block)
    labels = label_cells(plane, payload.ground, payload.mpp, payload.settings, (top, left))
    return cells_of(labels, payload.core, (top, left))


def cells_of(labels: NDArray[np.int32], core: Box, origin: tuple[int, int]) -> list[FoundCell]:
    """The labelled cells whose centre lies in a core.

    Parameters
    ----------
    labels
        (H, W): a window of the field.
    core
        In level-0 pixels.
    origin
        Row and column of the field at which the window begins.
    """
    found = []
    for value, (row0, col0, row1, col1) in zip(*boxes_of_labels(labels), strict=True):
        mask = labels[row0:row1, col0:col1] == value
        box = (
            int(row0) + origin[0], int(col0) + origin[1],
            int(row1) + origin[0], int(col1) + origin[1],
        )  # fmt: skip
        # Whole numbers until the last division: the same centre from whichever window.
        row, col = (
            (int(places.sum()) + places.size * start) / places.size
            for places, start in zip(np.nonzero(mask), box[:2], strict=True)
        )
        if owned(np.array((row, col)), core):
            found.append(FoundCell(row, col, box, mask))
    return found


def mask_image(cells: Sequence[FoundCell], shape: tuple[int, int]) -> NDArray[np.int32]:
    """Label image of found cells: cell i has label i + 1; (H, W) int32."""
    labels = np.zeros(shape, np.int32)
    for number, cell in enumerate(cells, start=1):
        row0, col0, row1, col1 = cell.box
        labels[row0:row1, col0:col1][cell.mask] = number
    return labels
