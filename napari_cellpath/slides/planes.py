"""One resolution of an image, whatever file it came from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Box = tuple[int, int, int, int]
"""Top, left, bottom, right, half-open."""


class Plane(Protocol):
    """Pixels of one level; windows are decoded on demand, from several threads at once."""

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""

    @property
    def tile(self) -> tuple[int, int]:
        """Height and width of what is decoded at once; windows aligned to it waste nothing."""

    def window(
        self, row0: int, row1: int, col0: int, col1: int, damaged: list[Box] | None = None
    ) -> NDArray[np.uint8]:
        """uint8 RGB of a window that lies inside the plane; shape (row1-row0, col1-col0, 3).

        With a list for ``damaged``, tiles that cannot be decoded are zero and their boxes are
        added to it; without, they raise.
        """


class ArrayPlane:
    """A small image, decoded once and held."""

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        # Read-only: windows are views, and a caller's slip must not change the next answer.
        self.pixels = pixels
        self.pixels.flags.writeable = False

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.pixels.shape[0], self.pixels.shape[1]

    @property
    def tile(self) -> tuple[int, int]:
        """The whole image."""
        return self.shape

    def window(
        self, row0: int, row1: int, col0: int, col1: int, damaged: list[Box] | None = None
    ) -> NDArray[np.uint8]:
        """View of a window; what was decoded when it was opened is not damaged."""
        return self.pixels[row0:row1, col0:col1]


@dataclass(frozen=True, eq=False)
class Opened:
    """What a format's reader hands to `Slide`: levels, largest first, and what was found.

    ``held_bytes`` is the memory the planes may keep; ``close`` frees the file; ``decoded``
    counts the pixels decoded so far, one decoded twice counting twice.
    """

    planes: tuple[Plane, ...]
    mpp: float | None = None
    notes: tuple[str, ...] = ()
    held_bytes: int = 0
    close: Callable[[], None] = lambda: None
    decoded: Callable[[], int] = lambda: 0
