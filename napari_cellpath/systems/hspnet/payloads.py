"""What the tasks of a region carry to the worker, and what comes back. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.core.requests import FileImage, PixelWindow
from napari_cellpath.slides.planes import Box
from napari_cellpath.slides.scaled import Grid
from napari_cellpath.systems.hspnet.layout import Layout

if TYPE_CHECKING:
    from napari_cellpath.systems.hspnet.strips import Band


@dataclass(frozen=True, eq=False)
class BeginPayload:
    """Ask what the worker computes with, and where there is tissue."""

    source: FileImage | PixelWindow
    grid: Grid | None
    """Of the thumbnail to look for tissue in; None where nobody asked."""


@dataclass(frozen=True, eq=False)
class BeginOutput:
    """How the worker computes.

    Attributes
    ----------
    precision, device
        ``fp32`` or ``bf16``; ``cpu``, ``cuda`` or ``mps``.
    batch
        Tiles that share a network batch there.
    tissue
        The thumbnail's mask, or None.
    """

    precision: str
    device: str
    batch: int
    tissue: NDArray[np.bool_] | None = None


@dataclass(frozen=True, eq=False)
class LookPayload:
    """A first look: these tiles, each by itself; ``places`` are in the padded frame."""

    layout: Layout
    places: tuple[tuple[int, int], ...]
    sources: tuple[FileImage | PixelWindow, ...]


@dataclass(frozen=True, eq=False)
class LookOutput:
    """Class numbers (n, tile, tile) uint8 of the tiles, and the seconds they took."""

    labels: NDArray[np.uint8]
    seconds: float


@dataclass(frozen=True, eq=False)
class Step:
    """A part of one tile row.

    Attributes
    ----------
    row
        Number of the tile row.
    cols
        Columns of the tiles to add, in order; a whole number of batches, but for the row's last.
    all_cols
        Columns of all the row's tiles that are computed; in its first step, else None.
    read
        Source rows of the padded frame to take in first, or None.
    source
        Where to read them from.
    last
        Whether the row is done with this, and its band final.
    emit
        Whether the band is wanted: one that is only rebuilt is not.
    """

    row: int
    cols: tuple[int, ...]
    all_cols: tuple[int, ...] | None
    read: tuple[int, int] | None
    source: FileImage | PixelWindow | None
    last: bool
    emit: bool


@dataclass(frozen=True, eq=False)
class RegionPayload:
    """Advance a region's sums.

    ``run`` and ``epoch`` name the state on the worker; ``number`` counts the tasks of an epoch,
    whose first starts from nothing.
    """

    run: str
    epoch: int
    number: int
    layout: Layout
    steps: tuple[Step, ...]
    batch: int
    probabilities: bool

    @property
    def n_tiles(self) -> int:
        """Tiles it computes."""
        return sum(len(step.cols) for step in self.steps)


@dataclass(frozen=True, eq=False)
class RegionOutput:
    """What a `RegionPayload` brought.

    ``lost``: the worker does not have the state that the task builds on; nothing was done.
    ``damaged`` are boxes of the grid that could not be read. ``device`` is where it was computed.
    """

    bands: tuple[Band, ...] = ()
    damaged: tuple[Box, ...] = ()
    seconds: float = 0.0
    device: str = ""
    lost: bool = False
