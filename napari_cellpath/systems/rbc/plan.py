"""The client's half of labelling: pool the boxes of a request, read the probabilities.

No torch here; see `napari_cellpath.systems.boxed_plan`. The booster is evaluated here too, so that
a verdict is the same whoever flips a label.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.core.requests import FileImage, LabelRegionsRequest, PixelWindow
from napari_cellpath.core.results import RegionCall
from napari_cellpath.core.vocabulary import Average, Fit, Priority, System
from napari_cellpath.models import ModelInfo, find_model
from napari_cellpath.slides.windows import source_of
from napari_cellpath.systems.boxed_plan import BoxedPlan, why_not
from napari_cellpath.systems.protocol import ModelRef, Task
from napari_cellpath.systems.rbc.boxes import (
    PATCH,
    RegionInput,
    check_box,
    is_stretched,
    is_tiny,
    meets_border,
)
from napari_cellpath.systems.rbc.verdict import read_verdict
from napari_cellpath.systems.tiling import Box

LEAST_GROUP, LARGEST_GROUP = 4, 32
_GROUPS = {"resnet50-features": 1, "resnet18-features": 3, "squeezenet-features": 5}
_USUAL_GROUPS = 2


def group_of(patch: int) -> int:
    """Patches of this side that a processor looks at together: 4 of 224 pixels, 32 of 64.

    Its convolutions are done in another way for one patch than for many, and differ in the last
    digits: always the same number at once (a last few are made up to as many) gives a box the
    same features alone and among others. So many are as fast as any number, and take a single box
    to a twentieth of a second.
    """
    wanted = 2 ** round(math.log2(LEAST_GROUP * (PATCH / patch) ** 2))
    return min(LARGEST_GROUP, max(LEAST_GROUP, wanted))


def groups_of_task(info: ModelInfo) -> int:
    """Groups of a task: 0.2-0.5 s of work on two cores, by the trunk's cost."""
    return _GROUPS.get(str(info.arguments.get("trunk", "")), _USUAL_GROUPS)


@dataclass(frozen=True, eq=False)
class Pool:
    """Neighbouring boxes of a task and the one window they are cut from.

    ``window`` is (top, left, bottom, right) in level-0 pixels; ``boxes`` are clipped to the image,
    None where too small to be looked at.
    """

    source: FileImage | PixelWindow
    window: Box
    boxes: tuple[Box | None, ...]


@dataclass(frozen=True, eq=False)
class LabelPayload:
    """What a task asks of the worker; the output's rows follow the pools' boxes."""

    pools: tuple[Pool, ...]
    fit: Fit
    average: Average
    numbers: tuple[int, ...]  # of the boxes, in the same order


@dataclass(frozen=True, eq=False)
class LabelOutput:
    """Probabilities (n, types) float64 of a task's boxes; NaN in the rows of blank ones."""

    probabilities: NDArray[np.float64]
    blank: NDArray[np.bool_]
    precision: str


class LabelRegionsPlan(BoxedPlan[RegionCall]):
    """Plan of a `LabelRegionsRequest` (see `napari_cellpath.systems.protocol.Plan`).

    Raises
    ------
    CellpathError
        The model is not to be found or not an RBC one; the image cannot be read; a box is none or
        lies outside.
    """

    def __init__(self, request: LabelRegionsRequest) -> None:
        entry = find_model(request.model, System.RBC)
        super().__init__(request.image, request.boxes, check_box, ("box", "boxes"))
        self.request = request
        self.info = entry.info
        self.model = ModelRef(entry.name, str(entry.folder), entry.info.sha256)
        self.verdict = read_verdict(entry.folder)
        fit = Fit(request.fit)
        wanted = RegionInput.of(entry.info.input, entry.name)
        self._fit = wanted.fit if fit is Fit.MODEL else fit
        average = Average(request.average)
        self._average = wanted.average if average is Average.MODEL else average
        self._edges: list[Box] = [(b.row0, b.col0, b.row1, b.col1) for b in self._boxes]
        self._tiny = [is_tiny(edges) for edges in self._edges]
        self._thresholds = tuple(self.verdict.thresholds.tolist())
        groups, group = groups_of_task(entry.info), group_of(wanted.patch)
        # A group of a heavy trunk takes too long to be urgent, and so do several of any.
        self._heavy = groups == 1 or self._average.ways > group
        self._boxes_a_task = max(1, groups * group // self._average.ways)
        self._line_up(lambda number: self._edges[number])

    def take(self) -> Task | None:
        """Take the next boxes: always as many, but for the last."""
        numbers = self._next(self._boxes_a_task)
        if not numbers:
            return None
        pools = tuple(self._pool(some) for some in numbers)
        alone = len(self._edges) == 1
        return Task(
            system=System.RBC,
            model=self.model,
            payload=LabelPayload(pools, self._fit, self._average, tuple(chain(*numbers))),
            priority=Priority.CLICK if alone else Priority.FIELD,
            urgent=alone and not self._heavy,
        )

    def _pool(self, numbers: list[int]) -> Pool:
        seen = np.array([self._edges[n] for n in numbers if not self._tiny[n]]).reshape(-1, 4)
        if not len(seen):
            seen = np.array([[0, 0, 1, 1]])
        top, left = seen[:, :2].min(axis=0).tolist()
        bottom, right = seen[:, 2:].max(axis=0).tolist()
        source = source_of(self.request.image, top, left, bottom - top, right - left)
        boxes = tuple(None if self._tiny[n] else self._edges[n] for n in numbers)
        return Pool(source, (top, left, bottom, right), boxes)

    def give(self, task: Task, output: LabelOutput) -> Sequence[RegionCall]:
        """Take in a task's probabilities; return its boxes' calls, which are final."""
        abnormal = self.verdict.probability_of_abnormal(output.probabilities)
        numbers = task.payload.numbers
        rows = zip(numbers, output.probabilities, abnormal, output.blank, strict=True)
        calls = [
            self._call(number, probabilities, float(chance), bool(blank), output.precision)
            for number, probabilities, chance, blank in rows
        ]
        return self._keep(numbers, calls)

    def _call(
        self,
        number: int,
        probabilities: NDArray[np.float64],
        abnormal: float,
        blank: bool,
        precision: str,
    ) -> RegionCall:
        box, edges = self._boxes[number], self._edges[number]
        why = why_not(self._tiny[number], blank, probabilities)
        each = () if why else tuple(probabilities.tolist())
        labels = () if why else self.verdict.labels(each)
        flags = []
        if meets_border(box, self._shape):
            flags.append("border")
        if self._fit is Fit.STRETCH and is_stretched(edges):
            flags.append("stretched")
        if not why and not labels:
            flags.append("unlabelled")
        row, col = box.centre
        return RegionCall(
            uid=box.uid,
            row=row,
            col=col,
            labels=labels,
            probabilities=each,
            thresholds=self._thresholds,
            abnormal=float("nan") if why else abnormal,
            abnormal_threshold=self.verdict.threshold,
            label="" if why else self.verdict.word(abnormal),
            model=self.model.label,
            n_views=0 if why else self._average.ways,
            precision=precision,
            flags=(*flags, *why),
        )
