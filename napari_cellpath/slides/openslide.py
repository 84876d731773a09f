"""MRXS, NDPI and the other scanners' formats, through OpenSlide where it is installed.

An extra (``napari-cellpath[openslide]``). Versions before 4.0.1 write out of bounds on crafted
files and read uninitialised memory from good ones; they are refused.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.core.errors import UnreadableImageError
from napari_cellpath.core.geometry import plausible_mpp
from napari_cellpath.slides.planes import Box, Opened
from napari_cellpath.slides.tiff_segments import SegmentCache

LEAST_VERSION = (4, 0, 1)
EXTRA = "pip install 'napari-cellpath[openslide]'"
TILE = 512
"""Side of the squares that are read at once."""


class OpenSlidePlane:
    """One level, read in aligned squares that are kept for a while.

    Transparent pixels, which the scanner did not look at, become white.
    """

    def __init__(self, slide: Any, number: int, cache: SegmentCache, name: str) -> None:
        self._slide = slide
        self._number = number
        self._cache = cache
        self._name = name
        width, height = slide.level_dimensions[number]
        self.shape = int(height), int(width)
        self.tile = min(TILE, self.shape[0]), min(TILE, self.shape[1])
        self._factor = float(slide.level_downsamples[number])

    def window(
        self, row0: int, row1: int, col0: int, col1: int, damaged: list[Box] | None = None
    ) -> NDArray[np.uint8]:
        """uint8 RGB of a window inside the plane."""
        high, wide = self.tile
        out = np.empty((row1 - row0, col1 - col0, 3), np.uint8)
        for top in range(row0 // high * high, row1, high):
            for left in range(col0 // wide * wide, col1, wide):
                box = top, left, min(top + high, self.shape[0]), min(left + wide, self.shape[1])
                r0, r1 = max(row0, top), min(row1, box[2])
                c0, c1 = max(col0, left), min(col1, box[3])
                target = out[r0 - row0 : r1 - row0, c0 - col0 : c1 - col0]
                try:
                    square = self._square(box)
                except Exception:  # a slide in an error state raises at every later read, too
                    if damaged is None:
                        raise
                    damaged.append(box)
                    target[...] = 0
                    continue
                target[...] = square[r0 - top : r1 - top, c0 - left : c1 - left]
        return out

    def _square(self, box: Box) -> NDArray[np.uint8]:
        top, left, bottom, right = box
        key = self._number, (top // self.tile[0]) * (1 << 24) + left // self.tile[1]
        held = self._cache.get(key)
        if held is not None:
            return held
        place = round(left * self._factor), round(top * self._factor)
        image = self._slide.read_region(place, self._number, (right - left, bottom - top))
        rgba = np.asarray(image)
        alpha = rgba[..., 3:].astype(np.uint16)
        square = ((rgba[..., :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
        self._cache.count(square.shape[0] * square.shape[1])
        self._cache.put(key, square)
        return square


def open_openslide(path: Path) -> Opened:
    """Open a slide with OpenSlide.

    Raises
    ------
    UnreadableImageError
        OpenSlide is not installed, too old, or cannot read the file.
    """
    slide = _module(path.name).OpenSlide(str(path))
    cache = SegmentCache(max_bytes=256 << 20)
    planes = tuple(
        OpenSlidePlane(slide, number, cache, path.name) for number in range(slide.level_count)
    )
    notes: list[str] = []
    mpp = _mpp(slide.properties, notes)
    lock = threading.Lock()

    def close() -> None:
        with lock:
            cache.clear()
            slide.close()

    return Opened(
        planes, mpp, tuple(notes), cache.max_bytes, close, lambda: cache.decoded_pixels
    )  # fmt: skip


def _module(name: str) -> Any:
    try:
        import openslide
    except (ImportError, OSError) as error:  # OSError: the library itself is missing
        raise UnreadableImageError(
            f"{name} needs OpenSlide, which is not installed here ({EXTRA}). Nothing was loaded."
        ) from error
    version = tuple(int(part) for part in openslide.__library_version__.split(".")[:3])
    if version < LEAST_VERSION:
        least = ".".join(map(str, LEAST_VERSION))
        raise UnreadableImageError(
            f"{name} needs OpenSlide {least} or newer, not {openslide.__library_version__}, which "
            f"is not safe with damaged files ({EXTRA}). Nothing was loaded."
        )
    return openslide


def _mpp(properties: Any, notes: list[str]) -> float | None:
    stated = [properties.get(f"openslide.mpp-{axis}") for axis in "xy"]
    found = [plausible_mpp(value) for value in stated if value is not None]
    if not found:
        return None
    if None in found:
        notes.append(f"The file states {stated[0]} um per pixel, which cannot be; ignored.")
        return None
    return sum(value for value in found if value is not None) / len(found)
