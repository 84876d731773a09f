"""The client's half of DeepPap: cut a request into tasks, reduce their outputs to calls.

No torch here. The order of every sum is fixed by the views' own order, not by the order in
which tasks return, so the numbers are the same every time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.core.geometry import check_inside, edge_of_point, scale_between
from napari_cellpath.core.requests import (
    FileImage,
    Nucleus,
    NucleusRequest,
    PixelWindow,
)
from napari_cellpath.core.results import NucleusCall
from napari_cellpath.core.seeds import generator_for
from napari_cellpath.core.vocabulary import Border, Preset, Priority, System
from napari_cellpath.models import find_model
from napari_cellpath.slides.windows import image_mpp, image_shape, source_of
from napari_cellpath.systems.deeppap.presets import (
    BATCH_VIEWS,
    CROPS,
    GLANCE,
    PATCH,
    WINDOW,
    ViewSpec,
    mean_is_certain,
    view_batches,
)
from napari_cellpath.systems.protocol import ModelRef, Task
from napari_cellpath.systems.tiling import name_of


@dataclass(frozen=True, eq=False)
class CellViews:
    """One cell's batch of views within a task.

    ``source`` says where the pixels are, (``row``, ``col``) the integer level-0 edge of the
    nucleus centre; ``key`` leads the output back to its place.
    """

    source: FileImage | PixelWindow
    row: int
    col: int
    specs: tuple[ViewSpec, ...]
    key: tuple[int, int]  # cell number, batch number; batch FIRST_ESTIMATE stands apart
    judge: bool = False  # whether to say what of the patch gives reason for care
    glance: bool = False  # the middle crop and its mirror alone, instead of all ten of a view


@dataclass(frozen=True, eq=False)
class ViewsPayload:
    """What a DeepPap task asks of the worker: each cell is its own network batch."""

    cells: tuple[CellViews, ...]
    half: int  # half side of the window in image pixels
    border: Border


@dataclass(frozen=True, eq=False)
class ViewsOutput:
    """Class probabilities of every network input, one (n_inputs, n_classes) array a cell.

    Ten inputs a view, two of a glance.

    None stands for a cell whose patch shows nothing. ``flags`` are reasons for care, one tuple
    a cell, empty where none were asked for.
    """

    probabilities: tuple[NDArray[np.float64] | None, ...]
    precision: str
    flags: tuple[tuple[str, ...], ...] = ()


FIRST_ESTIMATE = -1
"""Number of a cell's first batch, an upright view that is no part of the mean that follows."""


@dataclass
class _Cell:
    """What is known of one nucleus so far."""

    nucleus: Nucleus
    row: int
    col: int
    flags: tuple[str, ...]
    batches: list[list[ViewSpec]]
    outputs: dict[int, NDArray[np.float64]] = field(default_factory=dict)
    final: bool = False
    blank: bool = False
    call: NucleusCall | None = None

    def seen(self) -> NDArray[np.float64] | None:
        """Probabilities of all inputs of the preset's views so far, in the views' order."""
        done = [self.outputs[i] for i in range(len(self.batches)) if i in self.outputs]
        if done:
            return np.concatenate(done)
        return self.outputs.get(FIRST_ESTIMATE)


class NucleusPlan:
    """Plan of a `NucleusRequest` (see `napari_cellpath.systems.protocol.Plan`).

    Raises
    ------
    CellpathError
        The model is not to be found or not a DeepPap one; the image cannot be read; a nucleus
        lies outside it.
    """

    def __init__(self, request: NucleusRequest) -> None:
        entry = find_model(request.model, System.DEEPPAP)
        self.request = request
        self.info = entry.info
        self.model = ModelRef(entry.name, str(entry.folder), entry.info.sha256)
        self.target = _target(request)
        self._threshold = entry.info.threshold if request.threshold is None else request.threshold
        self._abnormal = np.array([c.abnormal for c in entry.info.classes])
        mpp = image_mpp(request.image)
        self._half = round(WINDOW / 2 * scale_between(mpp, entry.info.mpp))
        self._precision = ""
        self._cells = self._lay_out(image_shape(request.image), mpp)
        # A click is answered by a glance. In a field, where the upright view is also the first
        # batch of `fast` and `balanced`, nothing is looked at twice.
        alone = len(self._cells) == 1
        self._own_first = alone or request.preset not in (Preset.FAST, Preset.BALANCED)
        self._sequential = request.preset is Preset.ADAPTIVE
        self._ready: deque[tuple[int, int]] = deque()
        if request.first_estimate:
            first = FIRST_ESTIMATE if self._own_first else 0
            self._ready.extend((n, first) for n in range(len(self._cells)))
        self._enqueue_preset()
        self._total = sum(len(c.batches) for c in self._cells)
        self._done = 0
        self._progress = 0.0

    def _lay_out(self, shape: tuple[int, int], mpp: float | None) -> list[_Cell]:
        cells = []
        patch = self._half * PATCH / WINDOW
        for n, nucleus in enumerate(self.request.nuclei):
            check_inside(nucleus.row, nucleus.col, shape, f"Nucleus {n}")
            row, col = edge_of_point(nucleus.row, nucleus.col)
            flags = []
            if min(row, col, shape[0] - row, shape[1] - col) < patch:
                flags.append("border")
            if mpp is None:
                flags.append("unknown-scale")
            batches = view_batches(
                Preset(self.request.preset), generator_for(self.request.seed, row, col)
            )
            cells.append(_Cell(nucleus, row, col, tuple(flags), batches))
        return cells

    def _enqueue_preset(self) -> None:
        asked = set(self._ready)
        if self._sequential:
            self._ready.extend((n, 0) for n in range(len(self._cells)))
            return
        for n, cell in enumerate(self._cells):
            self._ready.extend((n, i) for i in range(len(cell.batches)) if (n, i) not in asked)

    def take(self) -> Task | None:
        """Take batches of up to five views together; first estimates of a click go alone."""
        if not self._ready:
            return None
        chosen: list[CellViews] = []
        views = 0
        alone = len(self._cells) == 1
        while self._ready and views < BATCH_VIEWS:
            n, i = self._ready[0]
            if self._cells[n].final:  # nothing to be seen there: the rest of its views are not
                self._ready.popleft()
                continue
            specs = self._specs(n, i)
            if chosen and views + len(specs) > BATCH_VIEWS:
                break
            self._ready.popleft()
            cell = self._cells[n]
            chosen.append(
                CellViews(
                    self._source(cell),
                    cell.row,
                    cell.col,
                    tuple(specs),
                    (n, i),
                    judge=self._judges(n, i),
                    glance=alone and i == FIRST_ESTIMATE,
                )
            )
            views += len(specs)
            if alone and self._is_first(i):
                break
        if not chosen:
            return None
        urgent = alone and self.request.first_estimate and self._is_first(chosen[0].key[1])
        return Task(
            system=System.DEEPPAP,
            model=self.model,
            payload=ViewsPayload(tuple(chosen), self._half, Border(self.request.border)),
            priority=Priority.CLICK if urgent else Priority.REFINE if alone else Priority.FIELD,
            urgent=urgent,
        )

    def _judges(self, n: int, batch: int) -> bool:
        """Once a cell; with the second batch where there is one: a first answer does not wait."""
        later = not self._own_first and len(self._cells[n].batches) > 1
        return batch == int(later)

    def _is_first(self, batch: int) -> bool:
        return batch == (FIRST_ESTIMATE if self._own_first else 0)

    def _specs(self, n: int, batch: int) -> list[ViewSpec]:
        if batch == FIRST_ESTIMATE:
            return [ViewSpec(0.0)]
        return self._cells[n].batches[batch]

    def _source(self, cell: _Cell) -> FileImage | PixelWindow:
        half = self._half
        return source_of(self.request.image, cell.row - half, cell.col - half, 2 * half, 2 * half)

    def give(self, task: Task, output: ViewsOutput) -> Sequence[NucleusCall]:
        """Take in probabilities; return the calls that changed."""
        self._precision = output.precision
        changed: dict[int, None] = {}
        flags = output.flags or ((),) * len(output.probabilities)
        for cell_views, probabilities, found in zip(
            task.payload.cells, output.probabilities, flags, strict=True
        ):
            n, i = cell_views.key
            self._cells[n].flags += found
            cell = self._cells[n]
            if cell.final:
                continue
            if probabilities is None:
                self._done += len(cell.batches)  # its first output says so; no other is needed
                cell.blank = cell.final = True
                inputs = GLANCE if cell_views.glance else CROPS * len(cell_views.specs)
                probabilities = np.full((inputs, len(self._abnormal)), np.nan)
            cell.outputs[i] = probabilities
            if not cell.blank and i != FIRST_ESTIMATE:
                self._done += 1
                self._settle(n, i)
            changed[n] = None
        calls = []
        for n in changed:
            self._cells[n].call = call = self._call(self._cells[n])
            calls.append(call)
        return calls

    def _settle(self, n: int, batch: int) -> None:
        """Mark a cell final once all its views are in or, adaptive, once the mean is certain."""
        cell = self._cells[n]
        counted = sum(1 for i in cell.outputs if i != FIRST_ESTIMATE)
        complete = counted == len(cell.batches)
        if self._sequential and not complete:
            if mean_is_certain(self._margins(cell), sum(map(len, cell.batches))):
                self._done += len(cell.batches) - counted
                complete = True
            else:
                self._ready.append((n, batch + 1))
        cell.final = complete

    def _margins(self, cell: _Cell) -> NDArray[np.float64]:
        """Signed distance of each view from the decision: threshold, or best two classes."""
        seen = cell.seen()
        assert seen is not None  # _settle runs after an output came in  # noqa: S101
        by_view = seen.reshape(-1, CROPS, seen.shape[1]).mean(axis=1)
        if len(self._abnormal) == 2:
            return by_view[:, self._abnormal].sum(axis=1) - self._threshold
        second, first = np.argsort(by_view.mean(axis=0))[-2:]
        return by_view[:, first] - by_view[:, second]

    def _call(self, cell: _Cell) -> NucleusCall:
        seen = cell.seen()
        assert seen is not None  # only called for cells that have an output  # noqa: S101
        mean = seen.mean(axis=0)
        abnormal = seen[:, self._abnormal].sum(axis=1)
        score = float(abnormal.mean())
        flags = cell.flags
        if cell.blank:
            flags = (*flags, "blank")
        elif not np.isfinite(score):
            flags = (*flags, "not-finite")
        calibration = self.info.calibration
        return NucleusCall(
            uid=cell.nucleus.uid,
            row=cell.nucleus.row,
            col=cell.nucleus.col,
            score=score,
            std=float(abnormal.std()),
            n_views=int(seen.shape[0]),
            label=self._label(score, mean),
            probabilities=tuple(float(p) for p in mean),
            threshold=self._threshold,
            model=self.model.label,
            precision=self._precision,
            final=cell.final,
            flags=flags,
            calibrated=calibration.apply(score) if calibration and np.isfinite(score) else None,
        )

    def _label(self, score: float, mean: NDArray[np.float64]) -> str:
        names = self.info.class_names
        if not np.isfinite(score):
            return ""
        if len(names) == 2:
            return names[int(self._abnormal.argmax() if score > self._threshold
                             else self._abnormal.argmin())]  # fmt: skip
        return names[int(mean.argmax())]

    @property
    def finished(self) -> bool:
        """Whether every call is final."""
        return all(cell.final for cell in self._cells)

    @property
    def progress(self) -> float:
        """Fraction of the preset's batches that are done or no longer needed."""
        return self._done / self._total if self._total else 1.0

    def results(self) -> list[NucleusCall]:
        """Calls of all cells that have an estimate, in the request's order."""
        return [cell.call for cell in self._cells if cell.call is not None]


def _target(request: NucleusRequest) -> str:
    """A single nucleus is its own target; a field is the set of its nuclei."""
    if len(request.nuclei) == 1:
        return f"nucleus:{request.nuclei[0].uid}"
    return f"nuclei:{name_of(request.image)}"
