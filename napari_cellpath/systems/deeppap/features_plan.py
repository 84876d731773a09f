"""Plan of a description: the trunk's features of every nucleus, to compare neighbours by.

One look at each, upright and in the middle: enough to say which cells look alike.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.core.geometry import check_inside, edge_of_point, scale_between
from napari_cellpath.core.requests import FeaturesRequest, FileImage, Nucleus, PixelWindow
from napari_cellpath.core.results import CellFeatures
from napari_cellpath.core.vocabulary import Border, Priority, System
from napari_cellpath.models import find_model
from napari_cellpath.slides.windows import image_mpp, image_shape, source_of
from napari_cellpath.systems.deeppap.presets import WINDOW
from napari_cellpath.systems.protocol import ModelRef, Task

AT_ONCE = 16  # nuclei a task: about 0.1 s on two CPU cores


@dataclass(frozen=True, eq=False)
class FeaturesPayload:
    """Where each nucleus' window is: its source and integer level-0 edge (row, col)."""

    uids: tuple[str, ...]
    places: tuple[tuple[FileImage | PixelWindow, int, int], ...]
    half: int
    border: Border


class FeaturesPlan:
    """Plan of a `FeaturesRequest` (see `napari_cellpath.systems.protocol.Plan`).

    Raises
    ------
    CellpathError
        The model or the image cannot be used, or a nucleus lies outside it.
    """

    def __init__(self, request: FeaturesRequest) -> None:
        entry = find_model(request.model, System.DEEPPAP)
        self.request = request
        nuclei = tuple(n for n in request.objects if isinstance(n, Nucleus))
        self.model = ModelRef(entry.name, str(entry.folder), entry.info.sha256)
        image = request.image
        name = image.path if isinstance(image, FileImage) else image.name
        self.target = f"features:{name}"
        shape = image_shape(image)
        for number, nucleus in enumerate(nuclei, start=1):
            check_inside(nucleus.row, nucleus.col, shape, f"Nucleus {number}")
        self._half = round(WINDOW / 2 * scale_between(image_mpp(image), entry.info.mpp))
        self._ready = deque(nuclei[i : i + AT_ONCE] for i in range(0, len(nuclei), AT_ONCE))
        self._vectors: dict[str, NDArray[np.float32]] = {}

    def take(self) -> Task | None:
        """The next few nuclei."""
        if not self._ready:
            return None
        some = self._ready.popleft()
        payload = FeaturesPayload(
            tuple(n.uid for n in some), tuple(map(self._place, some)), self._half,
            Border.ZERO,
        )  # fmt: skip
        return Task(System.DEEPPAP, self.model, payload, priority=Priority.FIELD)

    def _place(self, nucleus: Nucleus) -> tuple[FileImage | PixelWindow, int, int]:
        row, col = edge_of_point(nucleus.row, nucleus.col)
        half = self._half
        source = source_of(self.request.image, row - half, col - half, 2 * half, 2 * half)
        return source, row, col

    def give(self, task: Task, output: NDArray[np.float32]) -> Sequence[CellFeatures]:
        """Take in features, (n nuclei, d)."""
        found = [CellFeatures(u, v) for u, v in zip(task.payload.uids, output, strict=True)]
        self._vectors.update((f.uid, f.vector) for f in found)
        return found

    @property
    def finished(self) -> bool:
        """Whether every nucleus was described."""
        return len(self._vectors) == len(self.request.objects)

    @property
    def progress(self) -> float:
        """Fraction of the nuclei done."""
        return len(self._vectors) / max(len(self.request.objects), 1)

    def results(self) -> list[CellFeatures]:
        """Features so far, in the request's order."""
        there = (n.uid for n in self.request.objects if n.uid in self._vectors)
        return [CellFeatures(uid, self._vectors[uid]) for uid in there]
