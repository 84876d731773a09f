"""Plan of an occlusion map: cover one place of the patch after the other and score what is left.

The map shows what the upright view's score hangs on (Zeiler and Fergus 2014, section 4.2, for
any network). It says where the network looked, not that it was right.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.core.geometry import check_inside, edge_of_point, scale_between
from napari_cellpath.core.requests import FileImage, OcclusionRequest, PixelWindow
from napari_cellpath.core.results import OcclusionMap
from napari_cellpath.core.vocabulary import Border, Priority, System
from napari_cellpath.models import find_model
from napari_cellpath.slides.windows import image_mpp, image_shape, source_of
from napari_cellpath.systems.deeppap.presets import PATCH, WINDOW
from napari_cellpath.systems.protocol import ModelRef, Task

COVER = 16  # side of what is covered, patch pixels: about 3 um, a third of a nucleus
STEP = 8
AT_ONCE = 32  # inputs a task


@dataclass(frozen=True, eq=False)
class OcclusionPayload:
    """Places to cover, (top, left) in the patch; None stands for the patch as it is."""

    source: FileImage | PixelWindow
    row: int
    col: int
    half: int
    border: Border
    places: tuple[tuple[int, int] | None, ...]


class OcclusionPlan:
    """Plan of an `OcclusionRequest` (see `napari_cellpath.systems.protocol.Plan`).

    Raises
    ------
    CellpathError
        The model or the image cannot be used, or the nucleus lies outside it.
    """

    def __init__(self, request: OcclusionRequest) -> None:
        entry = find_model(request.model, System.DEEPPAP)
        self.request = request
        self.model = ModelRef(entry.name, str(entry.folder), entry.info.sha256)
        self.target = f"occlusion:{request.nucleus.uid}"
        self._abnormal = np.array([c.abnormal for c in entry.info.classes])
        nucleus, image = request.nucleus, request.image
        check_inside(nucleus.row, nucleus.col, image_shape(image), "The nucleus")
        self._row, self._col = edge_of_point(nucleus.row, nucleus.col)
        self._half = round(WINDOW / 2 * scale_between(image_mpp(image), entry.info.mpp))
        starts = range(0, PATCH - COVER + 1, STEP)
        places = [(top, left) for top in starts for left in starts]
        batches = [places[i : i + AT_ONCE] for i in range(0, len(places), AT_ONCE)]
        self._ready: deque[tuple[tuple[int, int] | None, ...]] = deque(
            [(None,), *(tuple(b) for b in batches)]
        )
        self._total, self._done = len(places) + 1, 0
        self._score = float("nan")
        self._scores: dict[tuple[int, int], float] = {}

    def take(self) -> Task | None:
        """The patch as it is first, then the places row by row."""
        if not self._ready:
            return None
        half = self._half
        source = source_of(
            self.request.image, self._row - half, self._col - half, 2 * half, 2 * half
        )
        payload = OcclusionPayload(
            source, self._row, self._col, half, Border(self.request.border), self._ready.popleft()
        )
        return Task(System.DEEPPAP, self.model, payload, priority=Priority.REFINE)

    def give(self, task: Task, output: NDArray[np.float64]) -> Sequence[OcclusionMap]:
        """Take in class probabilities, (n places, n classes); return the map as far as known."""
        scores = output[:, self._abnormal].sum(axis=1)
        for place, score in zip(task.payload.places, scores, strict=True):
            if place is None:
                self._score = float(score)
            else:
                self._scores[place] = float(score)
        self._done += len(scores)
        return self.results() if self.finished else []

    @property
    def finished(self) -> bool:
        """Whether every place was covered once."""
        return self._done == self._total

    @property
    def progress(self) -> float:
        """Fraction of the places done."""
        return self._done / self._total

    def results(self) -> list[OcclusionMap]:
        """The map; each pixel is the mean over the covers that lay on it."""
        total = np.zeros((PATCH, PATCH), dtype=np.float64)
        count = np.zeros((PATCH, PATCH), dtype=np.int64)
        for (top, left), score in sorted(self._scores.items()):
            total[top : top + COVER, left : left + COVER] += self._score - score
            count[top : top + COVER, left : left + COVER] += 1
        with np.errstate(invalid="ignore"):
            drop = (total / count).astype(np.float32)
        pixel = 2 * self._half / WINDOW
        corner = PATCH / 2 * pixel
        return [
            OcclusionMap(
                row=self._row - corner + pixel / 2 - 0.5,
                col=self._col - corner + pixel / 2 - 0.5,
                pixel=pixel,
                drop=drop,
                score=self._score,
                model=self.model.label,
            )
        ]
