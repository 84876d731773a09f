"""What the plans share that give every box of an image an answer of its own.

Boxes are pooled by place, a few hundred pixels square at a time, so that a task reads one window
for many of them and the network's batches are full. Which boxes share a batch is decided here
alone, never by what else is queued.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.core.requests import CellBox, Image
from napari_cellpath.slides.windows import image_shape
from napari_cellpath.systems.tiling import name_of

POOL_PIXELS = 512
"""Side of the squares by which boxes are pooled: their window is read at once."""

C = TypeVar("C")


class BoxedPlan(Generic[C]):
    """Boxes in line for tasks, and the calls that came; ``C`` is a call.

    Parameters
    ----------
    image
        They lie on; of a box that begins beside it, the part on it is meant.
    boxes
        Of the request.
    check
        Refuses a box (box, shape of the image, how it is called).
    nouns
        What a box is and what several are, in messages and targets.
    """

    def __init__(
        self,
        image: Image,
        boxes: Sequence[CellBox],
        check: Callable[[CellBox, tuple[int, int], str], Any],
        nouns: tuple[str, str],
    ) -> None:
        noun, many = nouns
        self._shape = image_shape(image)
        for number, box in enumerate(boxes):
            check(box, self._shape, f"{noun.capitalize()} {number}")
        self._boxes = [box.on(self._shape) for box in boxes]
        alone = len(boxes) == 1
        self.target = f"{noun}:{boxes[0].uid}" if alone else f"{many}:{name_of(image)}"
        """A single box is its own target; a field is the set of its boxes."""
        self._ready: deque[int] = deque()
        self._calls: list[C | None] = [None] * len(boxes)
        self._done = 0

    def _line_up(self, place: Callable[[int], Any]) -> None:
        """Put all boxes in line, neighbours together, in a pool by ``place`` (number to key)."""
        numbers = range(len(self._boxes))
        self._ready = deque(sorted(numbers, key=lambda n: (self._pool_of(n), place(n), n)))

    def _pool_of(self, number: int) -> tuple[int, int]:
        row, col = self._boxes[number].centre
        return int(row // POOL_PIXELS), int(col // POOL_PIXELS)

    def _next(self, count: int) -> list[list[int]]:
        """Numbers of the next boxes by pool, always as many, but for the last; empty at the end."""
        numbers = [self._ready.popleft() for _ in range(min(count, len(self._ready)))]
        return [list(some) for _, some in groupby(numbers, key=self._pool_of)]

    def _keep(self, numbers: Sequence[int], calls: Sequence[C]) -> Sequence[C]:
        """Keep the calls of these boxes; they are final."""
        for number, call in zip(numbers, calls, strict=True):
            self._calls[number] = call
        self._done += len(calls)
        return calls

    @property
    def finished(self) -> bool:
        """Whether every box has its call."""
        return self._done == len(self._calls)

    @property
    def progress(self) -> float:
        """Fraction of the boxes called."""
        return self._done / len(self._calls) if self._calls else 1.0

    def results(self) -> list[C]:
        """Calls so far, in the request's order."""
        return [call for call in self._calls if call is not None]


def why_not(tiny: bool, blank: bool, probabilities: NDArray[np.float64]) -> tuple[str, ...]:
    """Flag of a box that has no answer; nothing where it has one."""
    if tiny:
        return ("tiny",)
    if blank:
        return ("blank",)
    return () if np.isfinite(probabilities).all() else ("not-finite",)
