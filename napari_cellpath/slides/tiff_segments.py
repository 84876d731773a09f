"""The tiles or strips of one TIFF page, decoded on demand.

tifffile describes the page and decodes a segment; which segments a window needs, how they are
fetched and which stay in memory is decided here. Going through zarr costs a second chunk index
and an event loop for every small window, and cannot refuse a hostile tile before decoding it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.core.errors import UnreadableImageError
from napari_cellpath.slides.planes import Box

JPEG = frozenset({6, 7, 34892, 33007})
JPEG2000 = frozenset({33003, 33004, 33005, 34712})
_MAX_STREAM_EXCESS = 4
"""A tile's code stream may be this much larger than the tile; codecs believe the stream."""


class SegmentCache:
    """Decoded segments shared by the levels of one slide, least recently used out first."""

    def __init__(self, max_bytes: int = 64 << 20) -> None:
        self.max_bytes = max_bytes
        self._bytes = 0
        self._held: OrderedDict[tuple[int, int], NDArray[Any]] = OrderedDict()
        self._lock = threading.Lock()
        self.decoded_pixels = 0
        # All levels share the file handle too; tifffile's own lock is a dummy by default.
        self.file_lock = threading.Lock()

    def get(self, key: tuple[int, int]) -> NDArray[Any] | None:
        """The segment, or None; counts as use."""
        with self._lock:
            segment = self._held.get(key)
            if segment is not None:
                self._held.move_to_end(key)
            return segment

    def put(self, key: tuple[int, int], segment: NDArray[Any]) -> None:
        """Keep a segment, dropping others as needed; ones larger than a quarter are not kept."""
        if segment.nbytes > self.max_bytes // 4:
            return
        with self._lock:
            before = self._held.pop(key, None)
            if before is not None:
                self._bytes -= before.nbytes
            self._held[key] = segment
            self._bytes += segment.nbytes
            while self._bytes > self.max_bytes:
                _, dropped = self._held.popitem(last=False)
                self._bytes -= dropped.nbytes

    def count(self, pixels: int) -> None:
        """Note that so many pixels have been decoded."""
        with self._lock:
            self.decoded_pixels += pixels

    def clear(self) -> None:
        """Drop everything."""
        with self._lock:
            self._held.clear()
            self._bytes = 0


class SegmentReader:
    """Windows of one page as stored: (height, width, samples) of the page's own type.

    Raises
    ------
    UnreadableImageError
        The page's structure cannot be right (sizes of 0, segments missing or beyond the end).
    """

    def __init__(self, page: Any, name: str, cache: SegmentCache, number: int) -> None:
        self.page = page
        self.shape = int(page.imagelength), int(page.imagewidth)
        self.samples = int(page.samplesperpixel)
        self.dtype = np.dtype(page.dtype)
        self._name = name
        self._cache = cache
        self._number = number
        self._handle = page.parent.filehandle
        self._planar = int(page.planarconfig) == 2 and self.samples > 1
        height, width = self.shape
        if page.is_tiled:
            self.tile = int(page.tilelength), int(page.tilewidth)
        else:
            self.tile = min(int(page.rowsperstrip) or 0, height), width
        if min(*self.shape, self.samples) < 1:
            raise self._damaged(f"it claims {height} x {width} pixels, {self.samples} samples")
        if min(self.tile) < 1:
            raise self._damaged("tile size 0")
        self._across = -(-width // self.tile[1])
        self._down = -(-height // self.tile[0])
        self._offsets = page.dataoffsets
        self._counts = page.databytecounts
        expected = self._across * self._down * (self.samples if self._planar else 1)
        if len(self._offsets) < expected or len(self._counts) < expected:
            listed = min(len(self._offsets), len(self._counts))
            raise self._damaged(f"{listed} of {expected} tiles listed")
        ends = np.asarray(self._offsets, np.float64) + np.asarray(self._counts, np.float64)
        if ends.max() > self._handle.size:
            raise UnreadableImageError(
                f"{name} is not a readable image (truncated at byte {self._handle.size}). "
                "Nothing was loaded."
            )
        # Slide scanners leave out tiles of bare glass: in colour these are white, as peers show
        # them; the specification's zero would be black tissue.
        self.absent_value = np.iinfo(self.dtype).max if _is_colour(page) else 0
        self._decode = page.decode
        self._arguments: dict[str, Any] = {}
        if page.compression in JPEG:
            self._arguments = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader}

    @property
    def absent(self) -> tuple[int, int]:
        """How many tiles or strips were never written, of how many."""
        pairs = zip(self._offsets, self._counts, strict=False)
        written = [offset > 0 and count > 0 for offset, count in pairs]
        return written.count(False), len(written)

    @property
    def segment_bytes(self) -> int:
        """Memory of one decoded tile or strip."""
        samples = 1 if self._planar else self.samples
        return self.tile[0] * self.tile[1] * samples * self.dtype.itemsize

    def window(
        self, row0: int, row1: int, col0: int, col1: int, damaged: list[Box] | None = None
    ) -> NDArray[Any]:
        """Pixels of a window inside the page, (row1-row0, col1-col0, samples).

        With a list for ``damaged``, segments that cannot be decoded stay zero and their boxes,
        clipped to the page, are added to it.
        """
        high, wide = self.tile
        out = np.zeros((row1 - row0, col1 - col0, self.samples), self.dtype)
        planes = self.samples if self._planar else 1
        for plane in range(planes):
            target = out[..., plane : plane + 1] if self._planar else out
            for down in range(row0 // high, -(-row1 // high)):
                for across in range(col0 // wide, -(-col1 // wide)):
                    index = (plane * self._down + down) * self._across + across
                    top, left = down * high, across * wide
                    try:
                        segment = self._segment(index)
                    except Exception:  # decoders raise far more than they document
                        if damaged is None:
                            raise
                        bottom, right = (
                            min(top + high, self.shape[0]),
                            min(left + wide, self.shape[1]),
                        )
                        damaged.append((top, left, bottom, right))
                        continue
                    if segment is None:
                        rows = slice(max(row0, top) - row0, min(row1, top + high) - row0)
                        cols = slice(max(col0, left) - col0, min(col1, left + wide) - col0)
                        target[rows, cols] = self.absent_value
                        continue
                    r0, r1 = max(row0, top), min(row1, top + segment.shape[0])
                    c0, c1 = max(col0, left), min(col1, left + segment.shape[1])
                    if r0 < r1 and c0 < c1:
                        target[r0 - row0 : r1 - row0, c0 - col0 : c1 - col0] = segment[
                            r0 - top : r1 - top, c0 - left : c1 - left
                        ]
        return out

    def _segment(self, index: int) -> NDArray[Any] | None:
        key = (self._number, index)
        segment = self._cache.get(key)
        if segment is not None:
            return segment
        offset, count = int(self._offsets[index]), int(self._counts[index])
        if count == 0 or offset == 0:
            return None
        with self._cache.file_lock:
            self._handle.seek(offset)
            data = self._handle.read(count)
        if len(data) < count:
            raise self._damaged(f"truncated at byte {offset + len(data)}")
        self._check_stream(data)
        decoded = self._decode(data, index, **self._arguments)[0]
        if decoded is None:
            return None
        segment = decoded.reshape(decoded.shape[-3:])
        self._cache.count(segment.shape[0] * segment.shape[1])
        if self.page.compression == 33003:
            segment = _rgb_of_ycbcr(segment)
        self._cache.put(key, segment)
        return segment

    def _check_stream(self, data: bytes) -> None:
        """Refuse a tile whose code stream claims to be far larger than the tile."""
        compression = self.page.compression
        if compression in JPEG:
            claimed = _jpeg_pixels(data)
        elif compression in JPEG2000:
            claimed = _jpeg2000_pixels(data)
        else:
            return
        if claimed > max(_MAX_STREAM_EXCESS * self.tile[0] * self.tile[1], 1 << 20):
            raise self._damaged(f"a tile claims {claimed} pixels")

    def _damaged(self, what: str) -> UnreadableImageError:
        return UnreadableImageError(
            f"{self._name} is not a readable image (damaged structure: {what}). Nothing was loaded."
        )


def _is_colour(page: Any) -> bool:
    """Whether the largest value in every sample is white: RGB of integers, JPEG among them."""
    photometric, kind = int(page.photometric), np.dtype(page.dtype).kind
    return kind == "u" and (photometric == 2 or (photometric == 6 and page.compression in JPEG))


def _jpeg_pixels(data: bytes) -> int:
    """Pixels claimed by a JPEG's frame header; 0 where there is none to be found."""
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height = int.from_bytes(data[at + 5 : at + 7], "big")
            width = int.from_bytes(data[at + 7 : at + 9], "big")
            return height * width
        if marker in (0xFF, 0x01) or 0xD0 <= marker <= 0xD8:
            at += 1 if marker == 0xFF else 2
            continue
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return 0


def _jpeg2000_pixels(data: bytes) -> int:
    """Pixels claimed by a JPEG 2000 code stream's SIZ marker; 0 where there is none."""
    at = data.find(b"\xff\x4f\xff\x51", 0, 4096)
    if at < 0 or at + 24 > len(data):
        return 0
    right, bottom, left, top = (
        int.from_bytes(data[at + 8 + 4 * i : at + 12 + 4 * i], "big") for i in range(4)
    )
    return max(right - left, 0) * max(bottom - top, 0)


def _rgb_of_ycbcr(segment: NDArray[Any]) -> NDArray[np.uint8]:
    """JFIF YCbCr to RGB: Aperio's compression 33003 stores it without saying so in the stream."""
    if segment.shape[2] != 3 or segment.dtype != np.uint8:
        return segment
    luma, blue, red = np.moveaxis(segment.astype(np.float32), 2, 0)
    blue, red = blue - 128, red - 128
    rgb = np.stack(
        [luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue], axis=2
    )
    return np.clip(np.rint(rgb), 0, 255).astype(np.uint8)
