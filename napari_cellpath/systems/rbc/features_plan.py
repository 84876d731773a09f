"""Plan of a description: the trunk's features of every box, to compare neighbours by.

The boxes are pooled and cut as to be labelled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.core.requests import CellBox, FeaturesRequest, LabelRegionsRequest
from napari_cellpath.core.results import CellFeatures
from napari_cellpath.core.vocabulary import Average
from napari_cellpath.systems.protocol import Task
from napari_cellpath.systems.rbc.plan import LabelPayload, LabelRegionsPlan


@dataclass(frozen=True, eq=False)
class FeaturesPayload:
    """Boxes to describe, pooled as to be labelled."""

    boxes: LabelPayload


class FeaturesPlan:
    """Plan of a `FeaturesRequest` (see `napari_cellpath.systems.protocol.Plan`).

    Raises
    ------
    CellpathError
        As `LabelRegionsPlan`.
    """

    def __init__(self, request: FeaturesRequest) -> None:
        self.request = request
        boxes = tuple(box for box in request.objects if isinstance(box, CellBox))
        self._pooling = LabelRegionsPlan(
            LabelRegionsRequest(request.image, boxes, request.model, average=Average.NONE)
        )
        self.target = f"features of {self._pooling.target}"
        self._vectors: dict[int, NDArray[np.float32]] = {}

    def take(self) -> Task | None:
        """The next boxes."""
        task = self._pooling.take()
        return None if task is None else replace(task, payload=FeaturesPayload(task.payload))

    def give(self, task: Task, output: NDArray[np.float32]) -> Sequence[CellFeatures]:
        """Take in features, (n boxes, d); not a number where nothing is to be seen."""
        numbers = task.payload.boxes.numbers
        self._vectors.update(zip(numbers, output, strict=True))
        return [CellFeatures(self.request.objects[n].uid, self._vectors[n]) for n in numbers]

    @property
    def finished(self) -> bool:
        """Whether every box was described."""
        return len(self._vectors) == len(self.request.objects)

    @property
    def progress(self) -> float:
        """Fraction of the boxes done."""
        return len(self._vectors) / max(len(self.request.objects), 1)

    def results(self) -> list[CellFeatures]:
        """Features so far, in the request's order."""
        objects = self.request.objects
        return [CellFeatures(objects[n].uid, self._vectors[n]) for n in sorted(self._vectors)]
