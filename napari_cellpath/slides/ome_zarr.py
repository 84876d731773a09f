"""OME-Zarr (OME-NGFF 0.4 and 0.5) as levels: local folders of grey, RGB or RGBA images.

What a folder says of itself is read as plain JSON and checked before zarr is given anything: only
paths inside the folder, only compressions that can do nothing but decompress (zarr's registry also
knows a pickle filter), only chunks within the budget.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.core.errors import UnreadableImageError
from napari_cellpath.core.geometry import plausible_mpp
from napari_cellpath.slides.convert import Range, dtype_range, range_holding, range_note, to_rgb8
from napari_cellpath.slides.damage import too_large, unreadable
from napari_cellpath.slides.planes import Box, Opened
from napari_cellpath.slides.tiff_segments import SegmentCache

SUFFIX = ".zarr"
_METADATA = (".zattrs", "zarr.json")
_MAX_JSON = 1 << 22
_MAX_LEVELS = 32
_MAX_SCANNED_PIXELS = 1 << 28
_SAFE_CODECS = frozenset({
    "zlib", "gzip", "bz2", "lzma", "lz4", "zstd", "blosc",  # numcodecs, zarr 2
    "bytes", "transpose", "crc32c", "sharding_indexed", "endian",  # zarr 3
})  # fmt: skip
_MICROMETRES = {
    "angstrom": 1e-4, "nanometer": 1e-3, "micrometer": 1.0, "millimeter": 1e3, "centimeter": 1e4,
    "meter": 1e6,
}  # fmt: skip


def is_ome_zarr(path: Path) -> bool:
    """Whether a folder says that it holds an image in levels. Reads its metadata only."""
    try:
        return path.is_dir() and _multiscales(path) is not None
    except (OSError, ValueError, RecursionError, UnreadableImageError):
        return False


def metadata_file(path: Path) -> Path | None:
    """The file by whose time a changed image is known; None where there is none."""
    return next((path / name for name in _METADATA if (path / name).is_file()), None)


class ZarrPlane:
    """One level, converted to RGB window by window, chunk by chunk."""

    def __init__(self, array: Any, axes: str, cache: SegmentCache, number: int, name: str) -> None:
        self._array = array
        self._axes = axes
        self._has_channels = "c" in axes
        self._channels = array.shape[axes.index("c")] if self._has_channels else 1
        self._cache = cache
        self._number = number
        self._name = name
        self.shape = int(array.shape[-2]), int(array.shape[-1])
        self.tile = int(array.chunks[-2]), int(array.chunks[-1])
        self.value_range: Range | None = None

    @property
    def chunk_bytes(self) -> int:
        """Memory of a decoded chunk with all channels."""
        return self.tile[0] * self.tile[1] * self._channels * self._array.dtype.itemsize

    def window(
        self, row0: int, row1: int, col0: int, col1: int, damaged: list[Box] | None = None
    ) -> NDArray[np.uint8]:
        """uint8 RGB of a window inside the plane."""
        high, wide = self.tile
        out = np.zeros((row1 - row0, col1 - col0, self._channels), self._array.dtype)
        for down in range(row0 // high, -(-row1 // high)):
            for across in range(col0 // wide, -(-col1 // wide)):
                top, left = down * high, across * wide
                box = top, left, min(top + high, self.shape[0]), min(left + wide, self.shape[1])
                try:
                    chunk = self._chunk(box)
                except Exception:  # codecs raise far more than they document
                    if damaged is None:
                        raise
                    damaged.append(box)
                    continue
                r0, r1 = max(row0, top), min(row1, box[2])
                c0, c1 = max(col0, left), min(col1, box[3])
                out[r0 - row0 : r1 - row0, c0 - col0 : c1 - col0] = chunk[
                    r0 - top : r1 - top, c0 - left : c1 - left
                ]
        return to_rgb8(out, self.value_range, refuse_outside=True, name=self._name)

    def stored(self) -> Iterator[NDArray[Any]]:
        """All chunks as stored, one at a time."""
        high, wide = self.tile
        for top in range(0, self.shape[0], high):
            for left in range(0, self.shape[1], wide):
                bottom, right = min(top + high, self.shape[0]), min(left + wide, self.shape[1])
                yield self._chunk((top, left, bottom, right))

    def _chunk(self, box: Box) -> NDArray[Any]:
        """(rows, columns, channels) of a chunk, from memory or disk."""
        top, left, bottom, right = box
        key = self._number, (top // self.tile[0]) * (1 << 24) + left // self.tile[1]
        held = self._cache.get(key)
        if held is not None:
            return held
        asked = {"c": slice(None), "y": slice(top, bottom), "x": slice(left, right)}
        chunk = np.asarray(self._array[tuple(asked.get(axis, 0) for axis in self._axes)])
        chunk = np.moveaxis(chunk, 0, 2) if self._has_channels else chunk[..., None]
        self._cache.count(chunk.shape[0] * chunk.shape[1])
        self._cache.put(key, chunk)
        return chunk


def open_ome_zarr(path: Path, budget: int) -> Opened:
    """Open an OME-Zarr folder as levels.

    Raises
    ------
    UnreadableImageError, or whatever zarr raises
        It has no image in levels, is damaged, or is of a kind we refuse.
    ImageTooLargeError
        A chunk claims more than ``budget``.
    """
    import zarr

    found = _multiscales(path)
    if found is None:
        what = "it is a folder"
        if metadata_file(path) is not None:
            what = "an OME-Zarr without an image in levels"
        raise unreadable(path.name or str(path.resolve()), what)
    root, image = found
    axes = _axes(image, path.name)
    cache = SegmentCache()
    planes: list[ZarrPlane] = []
    for number, dataset in enumerate(image["datasets"][:_MAX_LEVELS]):
        folder = _inside(root, dataset["path"], path.name)
        _check_array(folder, path.name)
        array: Any = zarr.open_array(str(folder), mode="r")
        _check_shape(array, axes, path.name)
        plane = ZarrPlane(array, axes, cache, number, path.name)
        if planes and not _is_smaller(planes[-1].shape, plane.shape):
            break
        if plane.chunk_bytes > budget:
            raise too_large(f"A chunk of {path.name}", *plane.tile, plane.chunk_bytes, budget)
        planes.append(plane)
    row_bytes = max(p.chunk_bytes * -(-p.shape[1] // p.tile[1]) for p in planes)
    cache.max_bytes = max(cache.max_bytes, min(row_bytes * 5 // 4, 256 << 20))
    notes = _set_ranges(planes, path.name)
    mpp, note = _pixel_size(image, axes)
    notes += [note] if note else []
    return Opened(
        tuple(planes), mpp, tuple(notes), cache.max_bytes, cache.clear,
        lambda: cache.decoded_pixels,
    )  # fmt: skip


def _json(path: Path) -> Any:
    if path.stat().st_size > _MAX_JSON:
        raise ValueError("its metadata is too large")
    return json.loads(path.read_text(encoding="utf-8"))


def _attributes(folder: Path) -> dict[str, Any]:
    """Attributes of a group: of zarr 2, or of zarr 3 with what OME puts under its own key."""
    if (folder / "zarr.json").is_file():
        attributes = _json(folder / "zarr.json").get("attributes", {})
        return {**attributes, **attributes.get("ome", {})}
    if (folder / ".zattrs").is_file():
        found: dict[str, Any] = _json(folder / ".zattrs")
        return found
    return {}


def _multiscales(path: Path) -> tuple[Path, dict[str, Any]] | None:
    """The group that holds an image and its first multiscales entry, or None."""
    attributes = _attributes(path)
    if "bioformats2raw.layout" in attributes and "multiscales" not in attributes:
        path = path / "0"  # its first image
        attributes = _attributes(path)
    scales = attributes.get("multiscales")
    if not isinstance(scales, list) or not scales or not scales[0].get("datasets"):
        return None
    return path, scales[0]


def _axes(image: Mapping[str, Any], name: str) -> str:
    """Letters of the axes, in order; must end in ``yx``."""
    axes = image.get("axes", ["t", "c", "z", "y", "x"])
    letters = "".join(a["name"] if isinstance(a, dict) else str(a) for a in axes)
    if (
        not letters.endswith("yx")
        or not set(letters) <= set("tczyx")
        or len(set(letters)) < len(letters)
    ):
        raise unreadable(name, f"axes {letters}; only t, c, z, y, x with y and x last are read")
    return letters


def _inside(root: Path, text: Any, name: str) -> Path:
    parts = PurePosixPath(str(text)).parts
    if not parts or ".." in parts or PurePosixPath(str(text)).is_absolute():
        raise unreadable(name, f"damaged structure: a level at {text!r}")
    folder = root.joinpath(*parts)
    if not folder.is_dir():
        raise unreadable(name, f"its level {text} is missing")
    return folder


def _check_array(folder: Path, name: str) -> None:
    """Refuse codecs that are not known to do nothing but decode."""
    if (folder / "zarr.json").is_file():
        used = list(_codecs(_json(folder / "zarr.json").get("codecs", [])))
    elif (folder / ".zarray").is_file():
        facts = _json(folder / ".zarray")
        codecs = [facts.get("compressor"), *(facts.get("filters") or [])]
        used = [codec["id"] for codec in codecs if codec is not None]
    else:
        raise unreadable(name, f"its level {folder.name} is no array")
    unknown = sorted(set(used) - _SAFE_CODECS)
    if unknown:
        raise unreadable(name, f"compression {', '.join(unknown)} is not supported")


def _codecs(codecs: Any) -> Iterator[str]:
    for codec in codecs:
        yield codec["name"]
        inner = codec.get("configuration") or {}
        for key in ("codecs", "index_codecs"):
            yield from _codecs(inner.get(key, []))


def _check_shape(array: Any, axes: str, name: str) -> None:
    if array.ndim != len(axes):
        raise unreadable(name, f"damaged structure: {array.ndim} dimensions for axes {axes}")
    if min(array.shape) < 1 or min(array.chunks) < 1:
        raise unreadable(name, f"damaged structure: shape {array.shape}, chunks {array.chunks}")
    if np.dtype(array.dtype).kind not in "buif":
        raise unreadable(name, f"values of type {array.dtype}")
    for axis, size in zip(axes, array.shape, strict=True):
        if axis in "tz" and size > 1:
            raise UnreadableImageError(
                f"{name} is a stack of {size} planes; save the one plane to look at. Nothing "
                "was loaded."
            )
        if axis == "c" and size not in (1, 3, 4):
            raise UnreadableImageError(
                f"{name} has {size} channels; only grey (1), RGB (3) and RGBA (4) can be read."
            )


def _is_smaller(larger: tuple[int, int], smaller: tuple[int, int]) -> bool:
    down, across = larger[0] / smaller[0], larger[1] / smaller[1]
    return down > 1.1 and abs(down - across) <= 0.05 * across + across / smaller[1] + 1


def _set_ranges(planes: list[ZarrPlane], name: str) -> list[str]:
    """Fix how values map to bytes, once for all levels; the sentence that says so."""
    kind = np.dtype(planes[0]._array.dtype)
    if kind in (np.dtype(np.uint8), np.dtype(bool)):
        value_range = dtype_range(kind, name=name)
    elif planes[0].shape[0] * planes[0].shape[1] <= _MAX_SCANNED_PIXELS:
        lowest, highest = 0.0, 0.0
        for chunk in planes[0].stored():
            values = chunk[..., :3]
            lowest = float(np.minimum(lowest, values.min()))
            highest = float(np.maximum(highest, values.max()))
        value_range = range_holding(lowest, highest, kind, name=name)
    else:
        value_range = dtype_range(kind, name=name)
    for plane in planes:
        plane.value_range = value_range
    note = range_note(kind, value_range)
    return [note] if note else []


def _pixel_size(image: Mapping[str, Any], axes: str) -> tuple[float | None, str | None]:
    """Micrometres per pixel of the first level, where its scale has a unit."""
    try:
        axis: Any = image["axes"][axes.index("x")]
        unit = _MICROMETRES[axis["unit"]]
        transforms = image["datasets"][0]["coordinateTransformations"]
        scale = next(t["scale"] for t in transforms if t["type"] == "scale")
        stated = [float(scale[axes.index(letter)]) * unit for letter in "yx"]
    except (KeyError, TypeError, ValueError, IndexError, StopIteration):
        return None, None
    if any(plausible_mpp(value) is None for value in stated):
        return None, f"The file states {stated[1]:g} um per pixel, which cannot be; ignored."
    return sum(stated) / 2, None
