"""Plan of a search for nuclei: tiles of the region, each searched by the worker.

A tile keeps what lies in its own core; its margin is wide enough that no neighbour would have
found it elsewhere, so the answer does not depend on the tiles.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.core.requests import FileImage, FindNucleiRequest, PixelWindow
from napari_cellpath.core.results import FoundNucleus
from napari_cellpath.core.vocabulary import Priority, System
from napari_cellpath.models import find_model
from napari_cellpath.slides.windows import image_mpp, image_shape, read, source_of
from napari_cellpath.systems.deeppap.find import FindSettings, block_size, find_nuclei
from napari_cellpath.systems.deeppap.presets import USUAL_MPP
from napari_cellpath.systems.protocol import ModelRef, Task
from napari_cellpath.systems.tiling import (
    check_mpp,
    clip_region,
    cores_of,
    name_of,
    owned,
    window_round,
)

CORE_PIXELS = 1024  # side of a tile's core: with its margin 5 MB, and 0.1 s of work


@dataclass(frozen=True, eq=False)
class FindPayload:
    """One tile: the window to read and the core whose nuclei are kept.

    Both are (top, left, bottom, right) in level-0 pixels.
    """

    source: FileImage | PixelWindow
    window: tuple[int, int, int, int]
    core: tuple[int, int, int, int]
    mpp: float
    settings: FindSettings


class FindPlan:
    """Plan of a `FindNucleiRequest` (see `napari_cellpath.systems.protocol.Plan`).

    Raises
    ------
    CellpathError
        The model or the image cannot be used, or the region does not meet the image.
    """

    def __init__(self, request: FindNucleiRequest) -> None:
        entry = find_model(request.model, System.DEEPPAP)
        self.request = request
        self.model = ModelRef(entry.name, str(entry.folder), entry.info.sha256)
        image = request.image
        self.target = f"find:{name_of(image)}"
        self._settings = FindSettings(request.smallest, request.largest, request.contrast)
        self._mpp = check_mpp(image_mpp(image) or entry.info.mpp or USUAL_MPP)
        self._shape = image_shape(image)
        region = clip_region(request.region, self._shape)
        self._block = block_size(self._mpp, self._settings)
        self._cores = deque(cores_of(region, CORE_PIXELS, self._block))
        self._total, self._done = len(self._cores), 0
        self._found: list[FoundNucleus] = []

    def take(self) -> Task | None:
        """The next tile."""
        if not self._cores:
            return None
        core = self._cores.popleft()
        margin = math.ceil(self._settings.margin_um / self._mpp)
        window = window_round(core, margin, self._block, self._shape)
        high, wide = window[2] - window[0], window[3] - window[1]
        source = source_of(self.request.image, window[0], window[1], high, wide)
        return Task(
            system=System.DEEPPAP,
            model=self.model,
            payload=FindPayload(source, window, core, self._mpp, self._settings),
            priority=Priority.SEARCH,
        )

    def give(self, task: Task, output: NDArray[np.float64]) -> Sequence[FoundNucleus]:
        """Take in a tile's nuclei, (n, 4); they are final."""
        found = [FoundNucleus(*map(float, row)) for row in output]
        self._found += found
        self._done += 1
        return found

    @property
    def finished(self) -> bool:
        """Whether every tile was searched."""
        return self._done == self._total

    @property
    def progress(self) -> float:
        """Fraction of the tiles searched."""
        return self._done / self._total

    def results(self) -> list[FoundNucleus]:
        """All nuclei so far; once it is finished by row, then column, whatever came first."""
        if self.finished:
            self._found.sort(key=lambda n: (n.row, n.col))
        return self._found


def search_tile(payload: FindPayload) -> NDArray[np.float64]:
    """Nuclei of a tile's core in level-0 pixels: row, column, diameter (um), strength (worker)."""
    top, left, bottom, right = payload.window
    pixels = read(payload.source, top, left, bottom - top, right - left)
    found = find_nuclei(pixels, payload.mpp, payload.settings)
    found[:, :2] += (top, left)
    return found[owned(found[:, :2], payload.core)]
