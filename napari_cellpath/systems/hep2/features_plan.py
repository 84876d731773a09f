"""Plan of a description: the trunk's features of every cell, to compare neighbours by.

The cells are pooled and cut as to be classified, and looked at once, as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.core.requests import CellBox, FeaturesRequest, PatternRequest
from napari_cellpath.core.results import CellFeatures
from napari_cellpath.core.vocabulary import Average
from napari_cellpath.systems.hep2.plan import PatternPayload, PatternPlan
from napari_cellpath.systems.protocol import Task


@dataclass(frozen=True, eq=False)
class FeaturesPayload:
    """Cells to describe, pooled as to be classified."""

    cells: PatternPayload


class FeaturesPlan:
    """Plan of a `FeaturesRequest` (see `napari_cellpath.systems.protocol.Plan`).

    Raises
    ------
    CellpathError
        As `PatternPlan`.
    """

    def __init__(self, request: FeaturesRequest) -> None:
        self.request = request
        cells = tuple(cell for cell in request.objects if isinstance(cell, CellBox))
        self._pooling = PatternPlan(
            PatternRequest(request.image, cells, request.model, average=Average.NONE)
        )
        self.target = f"features of {self._pooling.target}"
        self._vectors: dict[int, NDArray[np.float32]] = {}

    def take(self) -> Task | None:
        """The next cells."""
        task = self._pooling.take()
        return None if task is None else replace(task, payload=FeaturesPayload(task.payload))

    def give(self, task: Task, output: NDArray[np.float32]) -> Sequence[CellFeatures]:
        """Take in features, (n cells, d); not a number where nothing is to be seen."""
        numbers = task.payload.cells.numbers
        self._vectors.update(zip(numbers, output, strict=True))
        return [CellFeatures(self.request.objects[n].uid, self._vectors[n]) for n in numbers]

    @property
    def finished(self) -> bool:
        """Whether every cell was described."""
        return len(self._vectors) == len(self.request.objects)

    @property
    def progress(self) -> float:
        """Fraction of the cells done."""
        return len(self._vectors) / max(len(self.request.objects), 1)

    def results(self) -> list[CellFeatures]:
        """Features so far, in the request's order."""
        objects = self.request.objects
        return [CellFeatures(objects[n].uid, self._vectors[n]) for n in sorted(self._vectors)]
