"""Plan of a description: the trunk's features of every box, to compare neighbours by.

The boxes are pooled and cut as to be given an answer, and looked at once, as they lie.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.core.requests import CellBox, FeaturesRequest
from napari_cellpath.core.results import CellFeatures
from napari_cellpath.systems.protocol import Task


class Pooling(Protocol):
    """The plan that would give the boxes an answer: here it only pools them."""

    target: str

    def take(self) -> Task | None:
        """The next boxes."""


@dataclass(frozen=True, eq=False)
class FeaturesPayload:
    """Boxes to describe: ``boxes`` is the payload of the plan that would give them an answer."""

    boxes: Any


class BoxedFeaturesPlan:
    """Plan of a `FeaturesRequest` (see `napari_cellpath.systems.protocol.Plan`).

    ``pooling`` makes the plan that pools boxes, and raises as that one does.
    """

    def __init__(
        self, request: FeaturesRequest, pooling: Callable[[tuple[CellBox, ...]], Pooling]
    ) -> None:
        self.request = request
        self._pooling = pooling(tuple(b for b in request.objects if isinstance(b, CellBox)))
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
