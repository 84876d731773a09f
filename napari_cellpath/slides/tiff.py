"""TIFF in all the forms microscopes write: plain, tiled, pyramids, Aperio SVS, OME.

Levels are told from the pages themselves (SubIFDs, or a run of ever smaller pages of the same
shape), not from vendor XML, so that a damaged description cannot hide or invent one. Labels,
macro images and thumbnails of slides are ignored. A stack (Z, time, one page a channel) is
refused: which plane to classify is not ours to guess.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_cellpath.core.errors import UnreadableImageError
from napari_cellpath.slides.convert import Range, range_holding, range_note, to_rgb8
from napari_cellpath.slides.damage import too_large, unreadable
from napari_cellpath.slides.pixel_size import stated_mpp
from napari_cellpath.slides.planes import ArrayPlane, Box, Opened, Plane
from napari_cellpath.slides.tiff_segments import JPEG, JPEG2000, SegmentCache, SegmentReader

# tifffile logs what it then raises; without a handler Python would print it a second time.
logging.getLogger("tifffile").addHandler(logging.NullHandler())

_MAX_DIRECTORIES = 4096
_MAX_CANDIDATES = 64
_MAX_SCANNED_PIXELS = 1 << 28
_MAX_CACHE_BYTES = 256 << 20
_SUPPORTED = JPEG | JPEG2000 | {1, 2, 3, 4, 5, 8, 32773, 32946, 34925, 50000, 50001}
_GREY, _RGB, _PALETTE, _YCBCR = (0, 1), 2, 3, 6


class TiffPlane:
    """One level of a tiled TIFF, converted to RGB window by window."""

    def __init__(self, reader: SegmentReader, conversion: _Conversion) -> None:
        self._reader = reader
        self._conversion = conversion

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self._reader.shape

    @property
    def tile(self) -> tuple[int, int]:
        """The file's tile."""
        return self._reader.tile

    def window(
        self, row0: int, row1: int, col0: int, col1: int, damaged: list[Box] | None = None
    ) -> NDArray[np.uint8]:
        """uint8 RGB of a window inside the plane."""
        return self._conversion.rgb(self._reader.window(row0, row1, col0, col1, damaged))


class _Conversion:
    """From a page's samples to uint8 RGB; the same for every level and window of a file."""

    def __init__(self, page: Any, name: str) -> None:
        self.name = name
        self.photometric = int(page.photometric)
        self.samples = int(page.samplesperpixel)
        self.dtype = np.dtype(page.dtype)
        self.bits = page.bitspersample
        self.colours: NDArray[np.uint8] | None = None
        self.value_range: Range | None = None
        if self.photometric == _PALETTE:
            colormap = np.asarray(page.colormap)
            if colormap.ndim != 2 or colormap.shape[0] != 3:
                raise unreadable(name, "damaged structure: colour map")
            self.colours = np.ascontiguousarray((colormap >> 8).astype(np.uint8).T)

    def needs_scan(self) -> bool:
        """Whether the value range follows from the pixels, not from their type."""
        if self.colours is not None or self.dtype in (np.dtype(bool), np.dtype(np.uint8)):
            return False
        return self.dtype.kind == "f" or self.bits in (16, 32, 64)

    def set_range(self, lowest: float, highest: float) -> None:
        """Fix the range for the whole file from the values found in it."""
        self.value_range = range_holding(lowest, highest, self.dtype, name=self.name)

    def set_range_by_type(self) -> None:
        """Fix the range by the type and the bits per sample that the file states."""
        if self.dtype.kind in "bf":
            self.value_range = (0.0, 1.0)
        else:
            bits = self.bits if isinstance(self.bits, int) else 8 * self.dtype.itemsize
            self.value_range = (0.0, float(2 ** min(bits, 16) - 1))

    def rgb(self, samples: NDArray[Any]) -> NDArray[np.uint8]:
        """(H, W, samples) as stored to (H, W, 3)."""
        if self.colours is not None:
            index = samples[..., 0]
            if index.size and int(index.max()) >= len(self.colours):
                raise unreadable(self.name, "damaged: a colour that is not in the colour map")
            return self.colours[index]
        rgb = to_rgb8(samples, self.value_range, refuse_outside=True, name=self.name)
        if self.photometric == 0:  # white is zero
            rgb = np.uint8(255) - rgb
        return rgb


def open_tiff(path: Path, budget: int) -> Opened:
    """Open a TIFF as levels.

    Raises
    ------
    ImageTooLargeError
        An untiled image, or one tile, claims more than ``budget``; nothing was allocated.
    UnreadableImageError, or whatever the decoder raises
        Damaged, or of a kind we refuse.
    """
    with path.open("rb") as stream:
        directories = sum(1 for _ in _directories(stream, path.name))
    tif = tifffile.TiffFile(path)
    try:
        return _levels(tif, path.name, directories, budget)
    except BaseException:
        tif.close()
        raise


def _levels(tif: tifffile.TiffFile, name: str, directories: int, budget: int) -> Opened:
    base: Any = tif.pages[0]
    notes: list[str] = []
    _check_kind(base, name)
    pages = [base, *_smaller(tif, base, directories)]
    if len(pages) == 1:
        _refuse_stack(tif, base, directories, name, notes)

    cache = SegmentCache()
    readers = [SegmentReader(page, name, cache, number) for number, page in enumerate(pages)]
    conversion = _Conversion(base, name)
    height, width = readers[0].shape
    # A row of tiles over the whole width, so that strips lower than a tile decode it once.
    row_bytes = max(r.segment_bytes * -(-r.shape[1] // r.tile[1]) for r in readers)
    cache.max_bytes = max(cache.max_bytes, min(row_bytes * 5 // 4, _MAX_CACHE_BYTES))
    if not base.is_tiled:
        per_pixel = readers[0].samples * readers[0].dtype.itemsize
        needed = height * width * max(3, per_pixel)
        if needed > budget:
            raise too_large(name, height, width, needed, budget)
    for reader in readers:
        if reader.segment_bytes > budget:
            raise too_large(f"A tile of {name}", *reader.tile, reader.segment_bytes, budget)

    whole = None if base.is_tiled else readers[0].window(0, height, 0, width)
    if not conversion.needs_scan():
        conversion.set_range_by_type()
    elif height * width <= _MAX_SCANNED_PIXELS:
        conversion.set_range(*_extremes(readers[0], whole))
    else:
        conversion.set_range_by_type()
    if conversion.colours is None and conversion.value_range is not None:
        note = range_note(conversion.dtype, conversion.value_range)
        notes += [note] if note else []
    if conversion.samples == 4:
        notes.append("Transparency was dropped.")
    mpp, note = _pixel_size(base)
    notes += [note] if note else []
    absent, segments = readers[0].absent
    if absent:
        colour = "white" if readers[0].absent_value else "black"
        notes.append(
            f"{absent:,} of {segments:,} tiles of the file were never written; they are shown and "
            f"read as {colour}."
        )

    planes: list[Plane] = [TiffPlane(reader, conversion) for reader in readers]
    held = cache.max_bytes
    if whole is not None:
        planes[0] = ArrayPlane(np.array(conversion.rgb(whole)))
        held = height * width * 3
        if len(planes) == 1:
            tif.close()
    elif len(planes) == 1 and max(height, width) <= 512:
        # Decoding one small tiled image now finds its damage now.
        planes = [ArrayPlane(np.array(planes[0].window(0, height, 0, width)))]
        held = height * width * 3
        tif.close()

    def close() -> None:
        cache.clear()
        tif.close()

    return Opened(tuple(planes), mpp, tuple(notes), held, close, lambda: cache.decoded_pixels)


def _directories(stream: IO[bytes], name: str) -> Iterator[int]:
    """Offsets of the image directories, in order, refusing loops and endless chains.

    tifffile walks the chain too, but trusts it: a million directories would take it seconds.
    """
    header = stream.read(16)
    order = "<" if header[:2] == b"II" else ">"
    big = header[2:4] in (b"+\x00", b"\x00+")
    form, entry, count = ("Q", 20, "Q") if big else ("I", 12, "H")
    place = 8 if big else 4
    size = struct.calcsize(order + form)
    (offset,) = struct.unpack_from(order + form, header, place)
    seen: set[int] = set()
    while offset:
        if offset in seen:
            raise unreadable(name, "damaged structure: directory loops")
        if len(seen) >= _MAX_DIRECTORIES:
            raise unreadable(name, f"more than {_MAX_DIRECTORIES} directories, a stack or damage")
        seen.add(offset)
        yield offset
        stream.seek(offset)
        tags = stream.read(struct.calcsize(order + count))
        if len(tags) < struct.calcsize(order + count):
            raise unreadable(name, f"truncated: its directory should stand at byte {offset}")
        stream.seek(struct.unpack(order + count, tags)[0] * entry, 1)
        following = stream.read(size)
        if len(following) < size:
            raise unreadable(name, "truncated inside a directory")
        (offset,) = struct.unpack(order + form, following)
    if not seen:
        raise unreadable(name, "damaged structure: no image directory")


def _check_kind(page: Any, name: str) -> None:
    """Refuse what has no one meaning as a colour image."""
    if not isinstance(page, tifffile.TiffPage):
        raise unreadable(name, "damaged structure: first directory")
    if page.dtype is None:
        raise unreadable(name, f"samples of {page.bitspersample} bits")
    if int(getattr(page, "imagedepth", 1) or 1) > 1:
        raise unreadable(name, "a volume; save one plane of it")
    compression = int(page.compression)
    if compression not in _SUPPORTED:
        raise unreadable(name, f"compression {compression} is not supported")
    photometric, samples = int(page.photometric), int(page.samplesperpixel)
    if samples not in (1, 3, 4):
        raise UnreadableImageError(
            f"{name} has {samples} channels; only grey (1), RGB (3) and RGBA (4) can be read."
        )
    converted = compression in JPEG or compression == 33003
    known = (
        (photometric in _GREY and samples in (1, 3))
        or (photometric == _RGB and samples in (3, 4))
        or (photometric == _PALETTE and samples == 1)
        or (photometric == _YCBCR and samples == 3 and converted)
    )
    if not known:
        raise unreadable(
            name, f"colour model {photometric} with {samples} channels; save it as RGB"
        )


def _smaller(tif: tifffile.TiffFile, base: Any, directories: int) -> list[Any]:
    """Pages that show the same image smaller, in order of size."""
    found: list[Any] = []
    subdirectories = base.subifds
    if subdirectories:
        candidates: Any = (base.pages[i] for i in range(min(len(subdirectories), _MAX_CANDIDATES)))
    else:
        candidates = (tif.pages[i] for i in range(1, min(directories, _MAX_CANDIDATES)))
    aperio = _description(base).startswith("Aperio")
    last = base
    # tifffile raises IndexError where the list of directories ends early.
    with suppress(IndexError):
        for page in candidates:
            if not isinstance(page, tifffile.TiffPage):
                break
            reduced = bool(int(page.subfiletype or 0) & 1)
            is_level = page.is_tiled or subdirectories or (reduced and not aperio)
            if is_level and _shows_smaller(last, page):
                found.append(page)
                last = page
    return found


def _shows_smaller(larger: Any, page: Any) -> bool:
    """Whether ``page`` has the kind and the aspect of ``larger`` at under 0.9 of its size."""
    if (page.samplesperpixel, page.dtype) != (larger.samplesperpixel, larger.dtype):
        return False
    if int(page.compression) not in _SUPPORTED or page.photometric != larger.photometric:
        return False
    high, wide = int(page.imagelength), int(page.imagewidth)
    if min(high, wide) < 1 or high >= 0.9 * larger.imagelength:
        return False
    down, across = larger.imagelength / high, larger.imagewidth / wide
    # Rounding a level's size moves its factor by up to a pixel's worth.
    return abs(down - across) <= 0.01 * across + across / wide + down / high


def _refuse_stack(
    tif: tifffile.TiffFile, base: Any, directories: int, name: str, notes: list[str]
) -> None:
    description = _description(base)
    planes = directories
    if description.startswith("ImageJ="):
        # ImageJ writes large stacks behind a single directory.
        for line in description.splitlines():
            if line.startswith("images=") and line[7:].strip().isdigit():
                planes = max(planes, int(line[7:].strip()))
    if planes < 2:
        return
    if directories > 1:
        second: Any = tif.pages[1]
        same = (second.imagelength, second.imagewidth, second.samplesperpixel) == (
            base.imagelength,
            base.imagewidth,
            base.samplesperpixel,
        )
    else:
        same = True
    if same and base.samplesperpixel == 1:
        raise UnreadableImageError(
            f"{name} is a stack of {planes} grey planes; save the one plane to look at, or the "
            "channels as one RGB image. Nothing was loaded."
        )
    if same:
        notes.append(f"The file holds {planes} images; the first is read.")


def _extremes(reader: SegmentReader, whole: NDArray[Any] | None) -> tuple[float, float]:
    """Smallest and largest value of a page, by bands of tiles; NaN is carried through."""
    height, width = reader.shape
    lowest, highest = 0.0, 0.0
    step = height if whole is not None else reader.tile[0]
    for row in range(0, height, step):
        for col in range(0, width, width if whole is not None else 8 * reader.tile[1]):
            end = min(col + 8 * reader.tile[1], width)
            band = whole
            if band is None:
                band = reader.window(row, min(row + step, height), col, end)
            band = band[..., :3]
            lowest = float(np.minimum(lowest, band.min()))
            highest = float(np.maximum(highest, band.max()))
    return lowest, highest


def _pixel_size(page: Any) -> tuple[float | None, str | None]:
    resolution = None
    with suppress(Exception):  # a damaged resolution tag is a missing one
        x, y = (page.tags[code].value for code in (282, 283))
        resolution = float(x[0]) / float(x[1]), float(y[0]) / float(y[1])
    unit = page.tags.valueof(296, 2)
    return stated_mpp(_description(page), resolution, int(unit) if isinstance(unit, int) else 1)


def _description(page: Any) -> str:
    text = page.description
    return text if isinstance(text, str) else ""
