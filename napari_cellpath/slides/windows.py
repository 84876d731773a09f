"""Windows of an image, the same from a file and from an array in memory.

A request names an image; tasks read windows of it. For a file the worker reads them itself
through `read`. For an array the client cuts out what a task needs with `cut`, and the worker
reads from that. The numbers are the same either way.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.core.errors import MissingFileError, UnreadableImageError
from napari_cellpath.core.requests import FileImage, Image, MemoryImage, PixelWindow
from napari_cellpath.slides.convert import channels_of, dtype_range, to_rgb8
from napari_cellpath.slides.damage import reading
from napari_cellpath.slides.ome_zarr import metadata_file
from napari_cellpath.slides.slide import DEFAULT_MEMORY_BUDGET, Slide, open_slide

COLOUR_PIXELS = 4096

_Key = tuple[str, int, int]


class _Place:
    """Where one slide stands or is about to; its lock lets the first caller open it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.slide: Slide | None = None


class OpenSlides:
    """Slides kept open between windows, by path, modification time and size.

    A replaced file has another key and is opened anew. Slides pushed out are not closed but let
    go of: a thread still reading one keeps it alive until it is done.
    """

    def __init__(self, max_slides: int = 16, max_bytes: int = DEFAULT_MEMORY_BUDGET) -> None:
        self.max_slides = max_slides
        self.max_bytes = max_bytes
        self._places: OrderedDict[_Key, _Place] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, path: str | os.PathLike[str]) -> Slide:
        """The open slide of a file.

        Raises
        ------
        CellpathError
            See `open_slide`.
        """
        file = Path(path)
        if not file.exists():
            raise MissingFileError(f"{file} does not exist.")
        with reading(file):
            status = (file if file.is_file() else metadata_file(file) or file).stat()
        key = (os.path.realpath(file), status.st_mtime_ns, status.st_size)
        with self._lock:
            place = self._places.setdefault(key, _Place())
            self._places.move_to_end(key)
        # Opening may decode for a second: only callers of this same slide wait for it.
        with place.lock:
            if place.slide is None:
                try:
                    place.slide = open_slide(file)
                except BaseException:
                    with self._lock:
                        self._places.pop(key, None)
                    raise
            slide = place.slide
        self._let_go(keep=key)
        return slide

    def clear(self) -> None:
        """Let go of every slide."""
        with self._lock:
            self._places.clear()

    def __len__(self) -> int:
        return len(self._places)

    def _let_go(self, keep: _Key) -> None:
        with self._lock:
            # Older versions of the same file go first: their pixels can never be asked for.
            for key in [key for key in self._places if key[0] == keep[0] and key != keep]:
                del self._places[key]
            held = sum(place.slide.held_bytes for place in self._places.values() if place.slide)
            for key in list(self._places):
                if len(self._places) <= self.max_slides and held <= self.max_bytes:
                    break
                place = self._places[key]
                if key == keep or place.slide is None:
                    continue
                held -= place.slide.held_bytes
                del self._places[key]


_open_slides = OpenSlides()


def slide_of(image: FileImage) -> Slide:
    """The open slide of a file, kept open for the next caller.

    Raises
    ------
    CellpathError
        See `open_slide`.
    """
    return _open_slides.get(image.path)


def image_shape(image: Image) -> tuple[int, int]:
    """Height and width of level 0.

    Raises
    ------
    CellpathError
        The file cannot be opened, or the array is no image.
    """
    if isinstance(image, FileImage):
        return _open_slides.get(image.path).shape
    channels_of(tuple(image.pixels.shape), image.name)
    return image.shape


def image_mpp(image: Image) -> float | None:
    """Micrometres per pixel: what the user gave, else what the file states, else None."""
    if image.mpp is not None or isinstance(image, MemoryImage):
        return image.mpp
    return _open_slides.get(image.path).mpp


def is_colour(image: Image) -> bool:
    """Whether the planes of an image differ somewhere; of a slide, in its middle 4096 pixels."""
    height, width = image_shape(image)
    for side in (512, COLOUR_PIXELS):  # where there is colour, little is read
        top, left = max(0, (height - side) // 2), max(0, (width - side) // 2)
        high, wide = min(height, side), min(width, side)
        rgb = read(source_of(image, top, left, high, wide), top, left, high, wide)
        if (rgb[..., :2] != rgb[..., 1:]).any():
            return True
    return False


def stain_notes(image: Image) -> tuple[str, ...]:
    """A sentence where an image has no colour and therefore shows no stain; reads its middle."""
    try:
        if is_colour(image):
            return ()
    except UnreadableImageError:
        return ()  # a damaged middle says nothing of the rest; whoever reads it there tells
    return ("The image has no colour, so no stain is seen; what a model of stained tissue says of "
            "it means nothing.",)  # fmt: skip


def image_notes(image: Image) -> tuple[str, ...]:
    """Sentences on the conversions made to a file's pixels; none for arrays."""
    return _open_slides.get(image.path).notes if isinstance(image, FileImage) else ()


def cut(image: MemoryImage, row: int, col: int, height: int, width: int) -> PixelWindow:
    """Cut out and convert one window, clipped to the image; nothing else is computed or copied.

    Without ``image.value_range`` the range of the data type is used, never that of the window:
    two windows of one image must agree. For 16-bit images set it once with
    `convert.value_range_of`.

    Raises
    ------
    UnreadableImageError
        Not grey, RGB or RGBA; values that are not finite or lie outside the type's range.
    """
    channels_of(tuple(image.pixels.shape), image.name)
    image_height, image_width = image.shape
    row0, row1 = (min(max(edge, 0), image_height) for edge in (row, row + height))
    col0, col1 = (min(max(edge, 0), image_width) for edge in (col, col + width))
    window = np.asarray(image.pixels[row0:row1, col0:col1])
    value_range = image.value_range or dtype_range(window.dtype, name=image.name)
    rgb = to_rgb8(window, value_range, refuse_outside=image.value_range is None, name=image.name)
    # A view would keep the whole array alive, and pickle it, with every task.
    if np.shares_memory(rgb, window):
        rgb = rgb.copy()
    return PixelWindow(rgb, row0, col0, image.shape, image.mpp)


def source_of(image: Image, row: int, col: int, height: int, width: int) -> FileImage | PixelWindow:
    """What a task carries for one window: the file's name, or the pixels themselves."""
    return cut(image, row, col, height, width) if isinstance(image, MemoryImage) else image


def read(
    source: FileImage | PixelWindow, row: int, col: int, height: int, width: int
) -> NDArray[np.uint8]:
    """Read one window of level 0 as uint8 RGB, (height, width, 3); zero outside the image.

    Raises
    ------
    CellpathError
        The file cannot be read.
    ValueError
        Pixels of the image are asked for that a `PixelWindow` does not hold: zeros would be
        taken for border.
    """
    if isinstance(source, FileImage):
        return _open_slides.get(source.path).read_region(row, col, height, width)
    region = np.zeros((height, width, 3), np.uint8)
    row0, row1 = max(row, 0), min(row + height, source.shape[0])
    col0, col1 = max(col, 0), min(col + width, source.shape[1])
    if row0 >= row1 or col0 >= col1:
        return region
    held_row1 = source.row + source.pixels.shape[0]
    held_col1 = source.col + source.pixels.shape[1]
    if row0 < source.row or col0 < source.col or row1 > held_row1 or col1 > held_col1:
        raise ValueError(
            f"rows {row0}..{row1}, columns {col0}..{col1} asked of a window that holds rows "
            f"{source.row}..{held_row1}, columns {source.col}..{held_col1}"
        )
    region[row0 - row : row1 - row, col0 - col : col1 - col] = source.pixels[
        row0 - source.row : row1 - source.row, col0 - source.col : col1 - source.col
    ]
    return region


def close_all() -> None:
    """Let go of every slide kept open, e.g. before a file is to be replaced on Windows."""
    _open_slides.clear()
