"""Plan of a detection: an image in one pass or in tiles, and what overlaps between them.

An image of the paper's size is looked at whole. A larger one is cut into tiles on a grid fixed to
the image, so that a part of it finds what the whole finds: a tile keeps what has its middle in the
tile's core or just beyond, its margin holds a clump of cells, and what two tiles both keep is
dropped once by the same suppression that drops a detector's doubles.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.core.errors import ModelError
from napari_cellpath.core.geometry import scale_between
from napari_cellpath.core.requests import (
    DETECTION_FLOOR,
    DetectRegionsRequest,
    FileImage,
    PixelWindow,
)
from napari_cellpath.core.results import FoundRegion
from napari_cellpath.core.vocabulary import Priority, System
from napari_cellpath.models import find_model
from napari_cellpath.slides.windows import image_mpp, image_shape, source_of
from napari_cellpath.systems.protocol import ModelRef, Task
from napari_cellpath.systems.rbc.boxes import PASS_SIDES, RegionInput, suppress
from napari_cellpath.systems.tiling import (
    Box,
    clip_region,
    cores_of,
    name_of,
    window_round,
)

CORE = 768
"""Side of a tile's core, detector pixels."""
MARGIN = 256
"""Round it: a region of as many pixels is whole in one tile at least."""
SLACK = 16
"""A middle this far beyond the core is kept too: two tiles place it a few pixels apart."""
REACH = 96
"""What lies this far outside the region asked for is found too: it may overlap, and so drop, what
lies inside. A part finds what the whole finds."""
LOOSE_OVERLAP = 0.9
"""The worker drops only what overlaps more: the rest is for `DetectRegionsRequest.overlap`, and
for sliders that act on what came back."""


@dataclass(frozen=True, eq=False)
class DetectPayload:
    """One look of the detector.

    Attributes
    ----------
    source, window
        What to read: top, left, bottom, right in level-0 pixels.
    size
        Height and width the window is resized to.
    """

    source: FileImage | PixelWindow
    window: Box
    size: tuple[int, int]


@dataclass(frozen=True, eq=False)
class DetectOutput:
    """Detections of a window: (n, 4) int64 level-0 edges row0, col0, row1, col1; (n,) scores."""

    boxes: NDArray[np.int64]
    scores: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Look:
    """A look and the core of its tile, which the plan keeps the detections of."""

    look: DetectPayload
    core: Box


class DetectRegionsPlan:
    """Plan of a `DetectRegionsRequest` (see `napari_cellpath.systems.protocol.Plan`).

    Raises
    ------
    CellpathError
        The model or the image cannot be used, the model has no detector, or the region does not
        meet the image.
    """

    def __init__(self, request: DetectRegionsRequest) -> None:
        entry = find_model(request.model, System.RBC)
        if not has_detector(entry.info.architecture, entry.info.arguments):
            raise ModelError(
                f"The model '{entry.name}' has no detector; draw the boxes or choose another model."
            )
        self.request = request
        self.model = ModelRef(entry.name, str(entry.folder), entry.info.sha256)
        self.target = f"detect:{name_of(request.image)}"
        self._shape = image_shape(request.image)
        self._region = clip_region(request.region, self._shape)
        wanted = RegionInput.of(entry.info.input, entry.name)
        self._scale = wanted.scale / scale_between(image_mpp(request.image), entry.info.mpp)
        sides = sorted(side * self._scale for side in self._shape)
        self.whole = sides[0] <= PASS_SIDES[0] and sides[1] <= PASS_SIDES[1]
        self._cores = deque(self._tiles())
        self._total, self._done = len(self._cores), 0
        self._boxes = np.zeros((0, 4), np.int64)
        self._scores = np.zeros(0)

    def _tiles(self) -> list[Box]:
        if self.whole:
            return [(0, 0, *self._shape)]
        core = max(1, round(CORE / self._scale))
        reach = window_round(self._region, self._pixels(REACH), 1, self._shape)
        return [tile for tile in cores_of((0, 0, *self._shape), core) if _meet(tile, reach)]

    def _pixels(self, detector_pixels: int) -> int:
        return max(1, round(detector_pixels / self._scale))

    def take(self) -> Task | None:
        """Take the next look; of a large image, tile by tile."""
        if not self._cores:
            return None
        core = self._cores.popleft()
        window = window_round(core, 0 if self.whole else self._pixels(MARGIN), 1, self._shape)
        height, width = window[2] - window[0], window[3] - window[1]
        size = tuple(max(1, round(side * self._scale)) for side in (height, width))
        source = source_of(self.request.image, window[0], window[1], height, width)
        payload = DetectPayload(source, window, (size[0], size[1]))
        return Task(System.RBC, self.model, Look(payload, core), Priority.SEARCH)

    def give(self, task: Task, output: DetectOutput) -> Sequence[FoundRegion]:
        """Take in a look's detections; return those it brought, seams not yet joined."""
        self._done += 1
        slack = 0 if self.whole else self._pixels(SLACK)
        kept = _owned(output.boxes, task.payload.core, slack)
        kept &= output.scores >= max(self.request.score, DETECTION_FLOOR)
        boxes, scores = output.boxes[kept], output.scores[kept]
        self._boxes = np.concatenate([self._boxes, boxes])
        self._scores = np.concatenate([self._scores, scores])
        return self._regions(boxes, scores)

    @property
    def finished(self) -> bool:
        """Whether every tile was looked at."""
        return self._done == self._total

    @property
    def progress(self) -> float:
        """Fraction of the tiles done."""
        return self._done / self._total

    def results(self) -> list[FoundRegion]:
        """All regions so far, by row, then column, whatever came first."""
        return self._regions(self._boxes, self._scores)

    def _regions(self, boxes: NDArray[np.int64], scores: NDArray[np.float64]) -> list[FoundRegion]:
        kept = suppress(boxes, scores, self.request.overlap)
        kept = kept[_owned(boxes[kept], self._region, 0)]
        ordered = kept[np.lexsort(boxes[kept].T[::-1])]
        return [
            FoundRegion((edges[0], edges[1], edges[2], edges[3]), score)
            for edges, score in zip(boxes[ordered].tolist(), scores[ordered].tolist(), strict=True)
        ]


def has_detector(architecture: str, arguments: dict[str, object]) -> bool:
    """Whether a model of this architecture finds regions as well as labelling them."""
    return architecture == "rbc-cascade" and arguments.get("detector", "") is not None


def _meet(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _owned(boxes: NDArray[np.int64], core: Box, slack: int) -> NDArray[np.bool_]:
    """Which boxes have their middle in a core widened by ``slack``; half-open on every side."""
    twice = boxes[:, :2] + boxes[:, 2:]  # twice the middle: whole numbers
    low, high = 2 * (np.array(core[:2]) - slack), 2 * (np.array(core[2:]) + slack)
    return np.asarray(((twice >= low) & (twice < high)).all(axis=1))
