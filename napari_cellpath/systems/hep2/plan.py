"""The client's half of HEp-2: pool the cells of a request into full batches, make their calls.

No torch here; see `napari_cellpath.systems.boxed_plan`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.core.requests import FileImage, PatternRequest, PixelWindow
from napari_cellpath.core.results import PatternCall
from napari_cellpath.core.vocabulary import Average, Channel, Priority, System
from napari_cellpath.models import ModelInfo, find_model
from napari_cellpath.slides.windows import image_mpp, source_of
from napari_cellpath.systems.boxed_plan import BoxedPlan, why_not
from napari_cellpath.systems.hep2.cells import (
    CellInput,
    Frame,
    check_box,
    frame_of,
    is_tiny,
    needed,
    whole_of,
)
from napari_cellpath.systems.protocol import ModelRef, Task

URGENT_INPUTS = 1
"""A cell alone with as many network inputs is answered within 0.1 s, past all that waits."""

_INPUTS = {"nin10": 16, "nin-matconvnet": 16}
_USUAL_INPUTS = 128


def inputs_of_task(info: ModelInfo) -> int:
    """Network inputs of a task: 0.2-0.5 s of work on two cores, by the architecture's cost."""
    members = info.arguments.get("members", 1)
    usual = _INPUTS.get(info.architecture, _USUAL_INPUTS)
    return max(1, usual // max(1, members if isinstance(members, int) else 1))


@dataclass(frozen=True, eq=False)
class Pool:
    """Neighbouring cells of a task and the one window they are cut from.

    ``window`` is (top, left, bottom, right) in level-0 pixels; ``frames`` of cells without one,
    too small to be looked at, are None.
    """

    source: FileImage | PixelWindow
    window: tuple[int, int, int, int]
    frames: tuple[Frame | None, ...]


@dataclass(frozen=True, eq=False)
class PatternPayload:
    """What a task asks of the worker; the output's rows follow the pools' frames."""

    pools: tuple[Pool, ...]
    shape: tuple[int, int]
    channel: Channel
    average: Average
    numbers: tuple[int, ...]  # of the cells, in the same order


@dataclass(frozen=True, eq=False)
class PatternOutput:
    """Class probabilities (n, classes) float64 of a task's cells; NaN in the rows of blank ones."""

    probabilities: NDArray[np.float64]
    blank: NDArray[np.bool_]
    precision: str


class PatternPlan(BoxedPlan[PatternCall]):
    """Plan of a `PatternRequest` (see `napari_cellpath.systems.protocol.Plan`).

    Raises
    ------
    CellpathError
        The model is not to be found or not a HEp-2 one; the image cannot be read; a box is none
        or lies outside.
    """

    def __init__(self, request: PatternRequest) -> None:
        entry = find_model(request.model, System.HEP2)
        super().__init__(request.image, request.cells, check_box, ("cell", "cells"))
        self.request = request
        self.info = entry.info
        self.model = ModelRef(entry.name, str(entry.folder), entry.info.sha256)
        self._unknown_scale = image_mpp(request.image) is None and not request.whole
        wanted = CellInput.of(entry.info.input, entry.name)
        average = Average(request.average)
        self._average = wanted.average if average is Average.MODEL else average
        self._frames: list[Frame] = []
        self._tiny = [is_tiny(box) for box in self._boxes]
        for box in self._boxes:
            whole = whole_of(box) if request.whole else None
            self._frames.append(whole or frame_of(box, self._shape, wanted.framing))
        self._cells_a_task = max(1, inputs_of_task(entry.info) // self._average.ways)
        self._line_up(lambda number: self._frames[number])

    def take(self) -> Task | None:
        """Take the next cells: always as many, but for the last."""
        numbers = self._next(self._cells_a_task)
        if not numbers:
            return None
        pools = tuple(self._pool(some) for some in numbers)
        alone = len(self._frames) == 1
        return Task(
            system=System.HEP2,
            model=self.model,
            payload=PatternPayload(
                pools,
                self._shape,
                Channel(self.request.channel),
                self._average,
                tuple(chain(*numbers)),
            ),
            priority=Priority.CLICK if alone else Priority.FIELD,
            urgent=alone and self._average.ways <= URGENT_INPUTS,
        )

    def _pool(self, numbers: list[int]) -> Pool:
        frames = [None if self._tiny[n] else self._frames[n] for n in numbers]
        windows = np.array([needed(f, self._shape) for f in frames if f is not None])
        if not len(windows):
            windows = np.zeros((1, 4), int)
        top, left = windows[:, :2].min(axis=0).tolist()
        bottom, right = windows[:, 2:].max(axis=0).tolist()
        source = source_of(self.request.image, top, left, bottom - top, right - left)
        return Pool(source, (top, left, bottom, right), tuple(frames))

    def give(self, task: Task, output: PatternOutput) -> Sequence[PatternCall]:
        """Take in a task's probabilities; return its cells' calls, which are final."""
        numbers = task.payload.numbers
        calibrated = self._calibrated(output.probabilities)
        rows = zip(numbers, output.probabilities, output.blank, calibrated, strict=True)
        calls = [
            self._call(number, probabilities, bool(blank), output.precision, better)
            for number, probabilities, blank, better in rows
        ]
        return self._keep(numbers, calls)

    def _calibrated(self, probabilities: NDArray[np.float64]) -> list[tuple[float, ...]]:
        calibration = self.info.calibration
        if calibration is None:
            return [()] * len(probabilities)
        return [tuple(row) for row in calibration.apply_many(probabilities).tolist()]

    def _call(
        self,
        number: int,
        probabilities: NDArray[np.float64],
        blank: bool,
        precision: str,
        calibrated: tuple[float, ...],
    ) -> PatternCall:
        box = self._boxes[number]
        flags = []
        if self._frames[number].leaves(self._shape):
            flags.append("border")
        if self._unknown_scale:
            flags.append("unknown-scale")
        why = why_not(self._tiny[number], blank, probabilities)
        row, col = box.centre
        return PatternCall(
            uid=box.uid,
            row=row,
            col=col,
            label="" if why else self.info.class_names[int(probabilities.argmax())],
            probabilities=() if why else tuple(probabilities.tolist()),
            n_views=0 if why else self._average.ways,
            model=self.model.label,
            precision=precision,
            flags=(*flags, *why),
            calibrated=() if why else calibrated,
        )
