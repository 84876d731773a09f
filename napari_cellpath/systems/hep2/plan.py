"""The client's half of HEp-2: pool the cells of a request into full batches, make their calls.

No torch here. Cells are pooled by place, a few hundred pixels square at a time, so that a task
reads one window for many cells and the network's batches are full. Which cells share a batch is
decided here alone, never by what else is queued.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.core.requests import FileImage, PatternRequest, PixelWindow
from napari_cellpath.core.results import PatternCall
from napari_cellpath.core.vocabulary import Average, Channel, Priority, System
from napari_cellpath.models import ModelInfo, find_model
from napari_cellpath.slides.windows import image_mpp, image_shape, source_of
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
from napari_cellpath.systems.tiling import name_of

POOL_PIXELS = 512
"""Side of the squares by which cells are pooled: their window is read at once."""
N_VIEWS = {Average.NONE: 1, Average.D4: 8}
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


class PatternPlan:
    """Plan of a `PatternRequest` (see `napari_cellpath.systems.protocol.Plan`).

    Raises
    ------
    CellpathError
        The model is not to be found or not a HEp-2 one; the image cannot be read; a box is none
        or lies outside.
    """

    def __init__(self, request: PatternRequest) -> None:
        entry = find_model(request.model, System.HEP2)
        self.request = request
        self.info = entry.info
        self.model = ModelRef(entry.name, str(entry.folder), entry.info.sha256)
        self.target = _target(request)
        self._shape = image_shape(request.image)
        self._unknown_scale = image_mpp(request.image) is None and not request.whole
        wanted = CellInput.of(entry.info.input, entry.name)
        average = Average(request.average)
        self._average = wanted.average if average is Average.MODEL else average
        self._frames: list[Frame] = []
        for number, box in enumerate(request.cells):
            check_box(box, self._shape, f"Cell {number}")
        self._boxes = [box.on(self._shape) for box in request.cells]
        self._tiny = [is_tiny(box) for box in self._boxes]
        for box in self._boxes:
            whole = whole_of(box) if request.whole else None
            self._frames.append(whole or frame_of(box, self._shape, wanted.framing))
        self._cells_a_task = max(1, inputs_of_task(entry.info) // N_VIEWS[self._average])
        self._ready = deque(sorted(range(len(request.cells)), key=self._place))
        self._calls: list[PatternCall | None] = [None] * len(request.cells)
        self._done = 0

    def _pool_of(self, number: int) -> tuple[int, int]:
        row, col = self._boxes[number].centre
        return int(row // POOL_PIXELS), int(col // POOL_PIXELS)

    def _place(self, number: int) -> tuple[object, ...]:
        return self._pool_of(number), self._frames[number], number

    def take(self) -> Task | None:
        """Take the next cells: always as many, but for the last."""
        if not self._ready:
            return None
        numbers = [self._ready.popleft() for _ in range(min(self._cells_a_task, len(self._ready)))]
        pools = tuple(self._pool(list(some)) for _, some in groupby(numbers, key=self._pool_of))
        alone = len(self._frames) == 1
        return Task(
            system=System.HEP2,
            model=self.model,
            payload=PatternPayload(
                pools, self._shape, Channel(self.request.channel), self._average, tuple(numbers)
            ),
            priority=Priority.CLICK if alone else Priority.FIELD,
            urgent=alone and N_VIEWS[self._average] <= URGENT_INPUTS,
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
        calls = []
        rows = zip(task.payload.numbers, output.probabilities, output.blank, strict=True)
        calibrated = self._calibrated(output.probabilities)
        for at, (number, probabilities, blank) in enumerate(rows):
            call = self._call(number, probabilities, bool(blank), output.precision, calibrated[at])
            self._calls[number] = call
            calls.append(call)
        self._done += len(calls)
        return calls

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
        why = self._why_not(number, probabilities, blank)
        row, col = box.centre
        return PatternCall(
            uid=box.uid,
            row=row,
            col=col,
            label="" if why else self.info.class_names[int(probabilities.argmax())],
            probabilities=() if why else tuple(probabilities.tolist()),
            n_views=0 if why else N_VIEWS[self._average],
            model=self.model.label,
            precision=precision,
            flags=(*flags, *why),
            calibrated=() if why else calibrated,
        )

    def _why_not(
        self, number: int, probabilities: NDArray[np.float64], blank: bool
    ) -> tuple[str, ...]:
        if self._tiny[number]:
            return ("tiny",)
        if blank:
            return ("blank",)
        return () if np.isfinite(probabilities).all() else ("not-finite",)

    @property
    def finished(self) -> bool:
        """Whether every cell has its call."""
        return self._done == len(self._calls)

    @property
    def progress(self) -> float:
        """Fraction of the cells called."""
        return self._done / len(self._calls) if self._calls else 1.0

    def results(self) -> list[PatternCall]:
        """Calls so far, in the request's order."""
        return [call for call in self._calls if call is not None]


def _target(request: PatternRequest) -> str:
    """A single cell is its own target; a field is the set of its cells."""
    if len(request.cells) == 1:
        return f"cell:{request.cells[0].uid}"
    return f"cells:{name_of(request.image)}"
