"""Open an image of any size as levels and read one region of it.

The format is told by the file's first bytes, never by its name alone; only the formats that
OpenSlide reads, some of which are TIFF inside, are told by name. A folder is OME-Zarr. Small
untiled images are decoded once and held; tiled ones are read tile by tile.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.core.errors import MissingFileError, UnreadableImageError
from napari_cellpath.slides.damage import reading, too_large, unreadable
from napari_cellpath.slides.planes import ArrayPlane, Box, Opened

DEFAULT_MEMORY_BUDGET = 2 << 30
"""Bytes an image may claim when it has to be decoded at once, and a region when it is read."""

OPENSLIDE_SUFFIXES = frozenset({
    ".mrxs", ".ndpi", ".vms", ".vmu", ".scn", ".bif", ".svslide", ".czi", ".dcm",
})  # fmt: skip
"""What is read through OpenSlide, by the file's name."""

_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "png",
    b"\xff\xd8\xff": "jpeg",
    b"BM": "bmp",
    b"II*\x00": "tiff",
    b"MM\x00*": "tiff",
    b"II+\x00": "tiff",
    b"MM\x00+": "tiff",
}


@dataclass(frozen=True)
class Level:
    """One resolution: its size, and how many level-0 pixels one of its pixels spans."""

    height: int
    width: int
    downsample: float

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.height, self.width


class Slide:
    """An open image. Regions may be read from several threads at once.

    Attributes
    ----------
    path
        The file.
    levels
        Level 0 is the full resolution.
    mpp
        Micrometres per pixel of level 0, or None where the file states none that can be
        believed.
    notes
        Plain sentences on conversions made, for the user.
    held_bytes
        Memory this slide may keep while open.
    """

    def __init__(self, path: Path, opened: Opened, memory_budget_bytes: int) -> None:
        self.path = path
        self._planes = opened.planes
        self._close = opened.close
        self._decoded = opened.decoded
        self._budget = memory_budget_bytes
        self._lock = threading.Lock()
        self._closed = False
        height, width = opened.planes[0].shape
        self.levels: tuple[Level, ...] = tuple(
            Level(
                plane.shape[0],
                plane.shape[1],
                (height / plane.shape[0] + width / plane.shape[1]) / 2,
            )
            for plane in opened.planes
        )
        self.mpp = opened.mpp
        self.notes = opened.notes
        self.held_bytes = opened.held_bytes

    @property
    def name(self) -> str:
        """File name without its folder."""
        return self.path.name

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of level 0."""
        return self.levels[0].shape

    def tile_shape(self, level: int = 0) -> tuple[int, int]:
        """Height and width of what is decoded at once on this level."""
        return self._planes[level].tile

    def held_pixels(self) -> NDArray[np.uint8] | None:
        """The whole level 0, read-only, if it is held in memory anyway; else None."""
        plane = self._planes[0]
        return plane.pixels if isinstance(plane, ArrayPlane) else None

    @property
    def decoded_pixels(self) -> int:
        """Pixels decoded since it was opened, one decoded twice counting twice."""
        return self._decoded()

    def read_region(
        self,
        row: int,
        col: int,
        height: int,
        width: int,
        level: int = 0,
        damaged: list[Box] | None = None,
    ) -> NDArray[np.uint8]:
        """Read one region.

        Parameters
        ----------
        row, col
            Upper left corner in pixels of ``level``; may lie outside.
        height, width
            Size in pixels of ``level``.
        level
            Index into `levels`.
        damaged
            Where given, tiles that cannot be decoded are zero instead of an error, and their
            boxes (pixels of ``level``) are added to it.

        Returns
        -------
        uint8 (height, width, 3), the caller's own; zero outside the image.

        Raises
        ------
        UnreadableImageError
            The pixels there are damaged, or the slide was closed.
        ImageTooLargeError
            The region is larger than the memory budget.
        """
        if height < 0 or width < 0:
            raise ValueError(f"region of {height} x {width} pixels")
        if not 0 <= level < len(self._planes):
            raise ValueError(f"{self.name} has {len(self._planes)} levels, not level {level}")
        if height * width * 3 > self._budget:
            raise too_large(
                f"The region of {self.name}", height, width, height * width * 3, self._budget
            )
        if self._closed:
            raise UnreadableImageError(f"{self.name} was closed; open it again.")
        plane = self._planes[level]
        region = np.zeros((height, width, 3), np.uint8)
        row0, row1 = max(row, 0), min(row + height, plane.shape[0])
        col0, col1 = max(col, 0), min(col + width, plane.shape[1])
        if row0 < row1 and col0 < col1:
            with reading(self.path):
                region[row0 - row : row1 - row, col0 - col : col1 - col] = plane.window(
                    row0, row1, col0, col1, damaged
                )
        return region

    def close(self) -> None:
        """Free the file; may be called twice. Reads under way in other threads may fail."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._close()

    def __enter__(self) -> Slide:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def __del__(self) -> None:
        # Layers and caches simply let go of a slide; the last reader takes the file with it.
        if hasattr(self, "_closed"):
            self.close()

    def __repr__(self) -> str:
        height, width = self.shape
        return f"<Slide {self.name} {height} x {width}, {len(self.levels)} levels>"


def sniff(path: str | os.PathLike[str]) -> str | None:
    """Format told by the first bytes: ``png``, ``jpeg``, ``bmp``, ``tiff`` or None."""
    with Path(path).open("rb") as stream:
        start = stream.read(8)
    for signature, name in _SIGNATURES.items():
        if start.startswith(signature):
            return name
    return None


def open_slide(
    path: str | os.PathLike[str], *, memory_budget_bytes: int = DEFAULT_MEMORY_BUDGET
) -> Slide:
    """Open a PNG, JPEG, BMP, TIFF (also SVS, OME-TIFF, pyramids) or OME-Zarr as levels.

    Formats of other scanners (MRXS, NDPI ...) go through OpenSlide, an extra.

    Parameters
    ----------
    path
        The file; its format is told by its content.
    memory_budget_bytes
        What an image that must be decoded at once may claim; checked before allocating.

    Raises
    ------
    MissingFileError
        There is no such file.
    UnreadableImageError
        Not an image of these formats, damaged, or of a kind we refuse (stacks, 2 or 5
        channels, NaN).
    ImageTooLargeError
        It claims more than the budget.
    """
    file = Path(path)
    with reading(file):
        if not file.exists():
            raise MissingFileError(f"{file} does not exist.")
        if file.is_dir():
            from napari_cellpath.slides.ome_zarr import open_ome_zarr

            return Slide(file, open_ome_zarr(file, memory_budget_bytes), memory_budget_bytes)
        if file.suffix.lower() in OPENSLIDE_SUFFIXES:
            from napari_cellpath.slides.openslide import open_openslide

            return Slide(file, open_openslide(file), memory_budget_bytes)
        form = sniff(file)
        if form is None:
            reason = "not PNG, JPEG, BMP or TIFF"
            if file.stat().st_size == 0:
                reason = "the file is empty"
            elif file.suffix.lower() in {".tif", ".tiff", ".svs"}:
                reason = "not TIFF"
            raise unreadable(file.name, reason)
        # Imported here: listing readers must not load the codecs.
        if form == "tiff":
            from napari_cellpath.slides.tiff import open_tiff

            opened = open_tiff(file, memory_budget_bytes)
        else:
            from napari_cellpath.slides.raster import open_raster

            opened = open_raster(file, form, memory_budget_bytes)
        return Slide(file, opened, memory_budget_bytes)
