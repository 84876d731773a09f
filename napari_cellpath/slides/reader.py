"""What napari calls to open a slide: levels that are read as they are looked at.

No napari import: the npe2 reader contract is plain tuples.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.core.vocabulary import METADATA_KEY
from napari_cellpath.slides.ome_zarr import SUFFIX, is_ome_zarr
from napari_cellpath.slides.planes import Box
from napari_cellpath.slides.region_store import JOURNAL, RegionStore
from napari_cellpath.slides.slide import OPENSLIDE_SUFFIXES, Slide, open_slide, sniff

LayerData = tuple[Any, dict[str, Any], str]

MAX_TEXTURE = 8192
"""Largest side of a level without a coarser one: beyond it graphics cards stop drawing."""

_COARSEST = 4096
_FACTOR = 4
_CHUNK = 1024
_FORMS = {
    ".svs": "tiff",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".png": "png",
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".bmp": "bmp",
}


def get_reader(path: str | Sequence[str]) -> Callable[[Any], list[LayerData]] | None:
    """Reader for one image file of ours, or None (npe2 reader contribution).

    Asks for the extension and the first eight bytes, no more: napari calls this for every file
    that is dropped on it.
    """
    if not isinstance(path, str | os.PathLike):
        return None
    suffix = Path(path).suffix.lower()
    if suffix in OPENSLIDE_SUFFIXES:
        return read_layers
    try:
        if suffix == SUFFIX:
            return read_layers if is_ome_zarr(Path(path)) else None
        form = _FORMS.get(suffix)
        return read_layers if form is not None and sniff(path) == form else None
    except OSError:
        return None


def read_layers(path: str | Sequence[str]) -> list[LayerData]:
    """Layer data of one image: lazily read levels, with ``scale`` where the file states one.

    Raises
    ------
    CellpathError
        See `open_slide`.
    """
    file = path if isinstance(path, str | os.PathLike) else path[0]
    if (Path(file) / JOURNAL).is_file():
        return [_region_layer(Path(file))]
    slide = open_slide(file)
    return [layer_of(slide)]


def _region_layer(folder: Path) -> LayerData:
    """Labels layer of a segmented region of ours, where it lies on its slide."""
    store = RegionStore.open(folder)
    facts = store.facts
    pixel = 1.0 if facts.mpp is None else facts.mpp / ((facts.step[0] + facts.step[1]) / 2)
    options: dict[str, Any] = {
        "name": folder.name.split(".")[0],
        "multiscale": len(store.levels) > 1,
        "scale": tuple(step * pixel for step in facts.step),
        "translate": tuple(
            (edge + step / 2 - 0.5) * pixel
            for edge, step in zip(facts.corner, facts.step, strict=True)
        ),
        "metadata": {METADATA_KEY: {"path": str(folder), "classes": list(facts.class_names)}},
    }
    if facts.mpp is not None:
        options["units"] = ("um", "um")
    # Plain zarr arrays: a Dask array would keep what was read while the region still grew.
    return (store.levels if len(store.levels) > 1 else store.levels[0], options, "labels")


def layer_of(slide: Slide) -> LayerData:
    """Image layer of an open slide, which stays open as long as the layer's arrays live."""
    levels = _levels(slide)
    facts: dict[str, Any] = {"path": str(slide.path), "mpp": slide.mpp}
    if slide.notes:
        facts["notes"] = list(slide.notes)
    options: dict[str, Any] = {
        "name": slide.path.stem,
        "rgb": True,
        "multiscale": len(levels) > 1,
        "metadata": {METADATA_KEY: facts},
    }
    if slide.mpp is not None:
        options["scale"] = (slide.mpp, slide.mpp)
        options["units"] = ("um", "um")
    return (levels if len(levels) > 1 else levels[0], options, "image")


def _levels(slide: Slide) -> list[Any]:
    held = slide.held_pixels()
    if held is not None and len(slide.levels) == 1 and max(held.shape) <= MAX_TEXTURE:
        return [held]
    sources: list[LevelArray | ReducedArray] = [
        LevelArray(slide, number) for number in range(len(slide.levels))
    ]
    if max(slide.levels[-1].shape) > MAX_TEXTURE:
        factor = _FACTOR
        coarsest = len(slide.levels) - 1
        while max(sources[-1].shape) > _COARSEST:
            sources.append(ReducedArray(slide, coarsest, factor))
            factor *= _FACTOR
    return [_dask(source) for source in sources]


def _dask(source: LevelArray | ReducedArray) -> Any:
    import dask.array as da

    high, wide = source.tile
    chunks = tuple(
        size if size <= _CHUNK else max(_CHUNK // tile, 1) * tile if tile < _CHUNK else _CHUNK
        for size, tile in zip(source.shape[:2], (high, wide), strict=True)
    )
    # name=False: a fresh name each time, so that a replaced file is never served from a cache.
    return da.from_array(
        source,
        chunks=(*chunks, 3),
        name=False,
        asarray=False,
        lock=False,
        meta=np.empty((0, 0, 0), np.uint8),
    )


_told: WeakSet[Slide] = WeakSet()


def _to_show(
    slide: Slide, row: int, col: int, height: int, width: int, level: int
) -> NDArray[np.uint8]:
    """A region to be looked at: one damaged tile must not keep the others from being seen."""
    damaged: list[Box] = []
    region = slide.read_region(row, col, height, width, level, damaged)
    if damaged and slide not in _told:
        _told.add(slide)
        warnings.warn(
            f"Some tiles of {slide.name} cannot be read and are shown black. Is the file complete?",
            stacklevel=2,
        )
    return region


class LevelArray:
    """One level of a slide as something that slices to NumPy."""

    ndim = 3
    dtype = np.dtype(np.uint8)

    def __init__(self, slide: Slide, level: int) -> None:
        self.slide = slide
        self.level = level
        self.shape = (*slide.levels[level].shape, 3)
        self.tile = slide.tile_shape(level)

    def __getitem__(self, key: Any) -> NDArray[np.uint8]:
        rows, cols, rest = _slices(key, self.shape)
        region = _to_show(
            self.slide, rows.start, cols.start, rows.stop - rows.start, cols.stop - cols.start,
            self.level,
        )  # fmt: skip
        return region[:: rows.step, :: cols.step, rest]


class ReducedArray:
    """A level made by averaging ``factor`` x ``factor`` pixels of one that the file has.

    Blocks are kept once made: the first look at a large untiled image decodes all of it, the
    second must not.
    """

    ndim = 3
    dtype = np.dtype(np.uint8)
    max_bytes = 128 << 20

    def __init__(self, slide: Slide, level: int, factor: int) -> None:
        self.slide = slide
        self.level = level
        self.factor = factor
        height, width = slide.levels[level].shape
        # The last block may average fewer pixels; nothing of the image is left out.
        self.shape = (-(-height // factor), -(-width // factor), 3)
        self.tile = (_CHUNK // 4, _CHUNK // 4)
        self._blocks: OrderedDict[tuple[int, int], NDArray[np.uint8]] = OrderedDict()
        self._lock = threading.Lock()

    def __getitem__(self, key: Any) -> NDArray[np.uint8]:
        rows, cols, rest = _slices(key, self.shape)
        high, wide = self.tile
        out = np.zeros((rows.stop - rows.start, cols.stop - cols.start, 3), np.uint8)
        for down in range(rows.start // high, -(-rows.stop // high)):
            for across in range(cols.start // wide, -(-cols.stop // wide)):
                block = self._block(down, across)
                top, left = down * high, across * wide
                r0, r1 = max(rows.start, top), min(rows.stop, top + block.shape[0])
                c0, c1 = max(cols.start, left), min(cols.stop, left + block.shape[1])
                out[r0 - rows.start : r1 - rows.start, c0 - cols.start : c1 - cols.start] = block[
                    r0 - top : r1 - top, c0 - left : c1 - left
                ]
        return out[:: rows.step, :: cols.step, rest]

    def _block(self, down: int, across: int) -> NDArray[np.uint8]:
        with self._lock:
            block = self._blocks.get((down, across))
            if block is not None:
                self._blocks.move_to_end((down, across))
                return block
        row0, col0 = down * self.tile[0], across * self.tile[1]
        row1 = min(row0 + self.tile[0], self.shape[0])
        col1 = min(col0 + self.tile[1], self.shape[1])
        block = np.empty((row1 - row0, col1 - col0, 3), np.uint8)
        # In bands of at most 1024 source rows, so that a coarse block of a huge level never
        # holds more than a strip of it.
        step = max(1, 1024 // self.factor)
        for row in range(row0, row1, step):
            end = min(row + step, row1)
            block[row - row0 : end - row0] = self._mean(row, end, col0, col1)
        with self._lock:
            self._blocks[down, across] = block
            while sum(kept.nbytes for kept in self._blocks.values()) > self.max_bytes:
                self._blocks.popitem(last=False)
        return block

    def _mean(self, row0: int, row1: int, col0: int, col1: int) -> NDArray[np.uint8]:
        factor = self.factor
        height, width = self.slide.levels[self.level].shape
        bottom, right = min(row1 * factor, height), min(col1 * factor, width)
        source = _to_show(
            self.slide, row0 * factor, col0 * factor, bottom - row0 * factor,
            right - col0 * factor, self.level,
        )  # fmt: skip
        row_edges = np.arange(0, source.shape[0], factor)
        col_edges = np.arange(0, source.shape[1], factor)
        total = np.add.reduceat(source, row_edges, axis=0, dtype=np.uint32)
        total = np.add.reduceat(total, col_edges, axis=1)
        counts = np.outer(
            np.diff(np.append(row_edges, source.shape[0])),
            np.diff(np.append(col_edges, source.shape[1])),
        )[..., np.newaxis]
        return ((total + counts // 2) // counts).astype(np.uint8)


def _slices(key: Any, shape: tuple[int, int, int]) -> tuple[slice, slice, slice]:
    """Three slices with plain bounds; dask and napari ask for nothing else."""
    keys = key if isinstance(key, tuple) else (key,)
    if len(keys) > 3 or not all(isinstance(part, slice) for part in keys):
        raise TypeError("levels are indexed with slices")
    padded = (*keys, *(slice(None),) * (3 - len(keys)))
    bounds = [part.indices(size) for part, size in zip(padded, shape, strict=True)]
    if any(step < 1 for _, _, step in bounds):
        raise TypeError("levels are indexed with positive steps")
    rows, cols, rest = (slice(start, max(start, stop), step) for start, stop, step in bounds)
    return rows, cols, rest
