"""Regions of tissue as layers that grow while they are computed.

A labels layer reads its pixels straight from the region's store: whatever rows are done are shown
at the next refresh, and nothing has to be copied into napari. Where no row is done yet the store's
first look stands in, four times coarser, and is replaced in place.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

import numpy as np
from napari.layers import Image, Labels
from napari.utils.colormaps import DirectLabelColormap
from numpy.typing import NDArray
from psygnal import Signal

from napari_cellpath.bridge.appearance import rgba
from napari_cellpath.bridge.conventions import facts_of, image_facts, layers_of, placing_at
from napari_cellpath.bridge.timing import napari_call, timed
from napari_cellpath.core.errors import CellpathError
from napari_cellpath.core.vocabulary import Role, System
from napari_cellpath.project.state import Raster
from napari_cellpath.slides.region_store import (
    LOOK,
    SKIPPED,
    UNREADABLE,
    UNSEEN,
    RegionFacts,
    RegionStore,
    entropy_of,
    read_journal,
)

if TYPE_CHECKING:
    from napari_cellpath.bridge.tissue_tiles import Tiles

Piece = tuple[int, int, NDArray[np.uint32]]
"""Row, column (level-0 pixels) and painted numbers of a window."""


class Painter(Protocol):
    """Who looks after a region: a dock's session."""

    def painted_over(self, image: Image) -> Raster | None:
        """What was painted over an image."""

    def paint_pieces(self, image: Image, pieces: Sequence[Piece]) -> bool:
        """Paint windows of an image as one gesture; whether it was done."""


OPACITY = 0.45
SKIPPED_COLOUR, UNREADABLE_COLOUR = (0.5, 0.5, 0.5, 0.35), (0.9, 0.1, 0.9, 0.9)
BACKGROUND = "background"
NOT_DONE, NOT_DONE_COLOUR = 252, (0.25, 0.3, 0.4, 0.5)
"""Shown only, never stored: background by the first look, or not even that. Clear, it would pass
for finished."""
_CLEAR = np.zeros(4)


class Plane:
    """A 2-D array that napari slices and we compute: the little of an array that it needs."""

    ndim = 2

    def __init__(self, shape: Sequence[int], dtype: Any) -> None:
        self.shape = (int(shape[0]), int(shape[1]))
        self.dtype = np.dtype(dtype)

    @property
    def size(self) -> int:
        """Number of pixels."""
        return self.shape[0] * self.shape[1]

    def read(self, rows: slice, cols: slice) -> NDArray[Any]:
        """Pixels of a window; the slices have starts, stops and a step."""
        raise NotImplementedError

    def __getitem__(self, key: Any) -> NDArray[Any]:
        key = key if isinstance(key, tuple) else (key,)
        key = tuple(k for k in key if k is not Ellipsis)
        key += (slice(None),) * (2 - len(key))
        whole = [
            slice(*k.indices(n)) if isinstance(k, slice) else slice(int(k), int(k) + 1, 1)
            for k, n in zip(key, self.shape, strict=True)
        ]
        pixels = self.read(*whole)
        return pixels[tuple(slice(None) if isinstance(k, slice) else 0 for k in key)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        pixels = self[:, :]
        return pixels if dtype is None else pixels.astype(dtype)


class GrowingLevel(Plane):
    """Classes of one level of a store, the first look where they are not known yet."""

    def __init__(self, store: RegionStore, level: int) -> None:
        super().__init__(store.levels[level].shape, np.uint8)
        self._store, self._array, self._level = store, store.levels[level], level
        names = store.facts.class_names
        self._background = names.index(BACKGROUND) if BACKGROUND in names else NOT_DONE

    def read(self, rows: slice, cols: slice) -> NDArray[np.uint8]:
        """Classes of a window, `NOT_DONE` or `UNSEEN` where no row is done yet."""
        pixels = np.asarray(self._array[rows, cols])
        look, unseen = self._store.provisional, pixels == UNSEEN
        if not unseen.any():
            return pixels
        if look is not None:
            # Every LOOK-th pixel of the full level has a look; level k holds every 2**k-th.
            at = [
                np.minimum((np.arange(s.start, s.stop, s.step) << self._level) // LOOK, n - 1)
                for s, n in zip((rows, cols), look.shape, strict=True)
            ]
            box = tuple(slice(int(a[0]), int(a[-1]) + 1) for a in at)
            seen = np.asarray(look[box])[np.ix_(at[0] - at[0][0], at[1] - at[1][0])]
            seen = np.where(seen == self._background, np.uint8(NOT_DONE), seen)
            pixels = np.where(unseen, seen, pixels)
        if not self._store.facts.polygon:  # else it may be what lies outside
            pixels = np.where(pixels == UNSEEN, np.uint8(NOT_DONE), pixels)
        return pixels


class ClassProbability(Plane):
    """Probability of one class at one level, uint8, 255 = 1."""

    def __init__(self, array: Any, number: int) -> None:
        super().__init__(array.shape[1:], np.uint8)
        self._array, self._number = array, number

    def read(self, rows: slice, cols: slice) -> NDArray[np.uint8]:
        """Probabilities of a window."""
        return np.asarray(self._array[self._number, rows, cols])


class Entropy(Plane):
    """How undecided each pixel of a level is, 0 to 1; 0 where nothing was computed."""

    def __init__(self, array: Any) -> None:
        super().__init__(array.shape[1:], np.float32)
        self._array = array

    def read(self, rows: slice, cols: slice) -> NDArray[np.float32]:
        """Entropy of a window."""
        return np.nan_to_num(entropy_of(np.asarray(self._array[:, rows, cols])))


def class_colours(facts: RegionFacts) -> DirectLabelColormap:
    """Colours of the classes; background hides nothing, what is not done yet lies under a veil."""
    by_label: dict[int | None, Any] = {
        None: _CLEAR, UNSEEN: _CLEAR, SKIPPED: np.array(SKIPPED_COLOUR),
        UNREADABLE: np.array(UNREADABLE_COLOUR), NOT_DONE: np.array(NOT_DONE_COLOUR),
    }  # fmt: skip
    for number, (name, colour) in enumerate(zip(facts.class_names, facts.colours, strict=True)):
        by_label[number] = _CLEAR if name == BACKGROUND else rgba(colour)
    return DirectLabelColormap(color_dict=by_label)


def _placing(image: Image, facts: RegionFacts) -> dict[str, Any]:
    row, col = (e + s / 2 - 0.5 for e, s in zip(facts.corner, facts.step, strict=True))
    return placing_at(image, row, col, facts.step)


def _provenance(facts: RegionFacts, path: Path) -> dict[str, Any]:
    return {
        "system": str(System.HSPNET), "model": facts.model, "classes": list(facts.class_names),
        "store": str(path), "corner": list(facts.corner), "step": list(facts.step),
        "shape": list(facts.shape), "mpp": facts.mpp, "polygon": [list(p) for p in facts.polygon],
        "layout": dict(facts.layout),
    }  # fmt: skip


class TissueRegion:
    """A store and the labels layer that shows it.

    Parameters
    ----------
    image
        The layer of the image it is a region of.
    store
        Open for reading.

    Attributes
    ----------
    layer
        Not in a viewer yet, if it was not given.
    tiles
        What a review looks through, None until somebody has read it.
    """

    tiles_changed = Signal()
    painted_changed = Signal()
    """Something was painted over the image."""

    def __init__(self, image: Image, store: RegionStore, layer: Labels | None = None) -> None:
        self.image, self.store = image, store
        self.layer = layer if layer is not None else self._new_layer()
        self.tiles: Tiles | None = None
        self._carers: dict[int, Painter] = {}
        _regions[self.layer] = self

    def look_after(self, who: Painter) -> None:
        """Take what knows what is painted over the image, and paints on it; the latest counts."""
        self._carers[id(who)] = who

    def leave(self, who: Painter) -> None:
        """One of them looks after the region no longer."""
        self._carers.pop(id(who), None)

    def raster(self) -> Raster | None:
        """What was painted over the image; None for nothing, or where nobody knows."""
        carer = next(reversed(self._carers.values()), None)
        return None if carer is None else carer.painted_over(self.image)

    def paint(self, pieces: Sequence[Piece]) -> bool:
        """Paint windows of the image as one gesture; whether somebody could."""
        carer = next(reversed(self._carers.values()), None)
        return carer is not None and carer.paint_pieces(self.image, pieces)

    def take_tiles(self, tiles: Tiles) -> None:
        """Take what a review looks through."""
        self.tiles = tiles
        self.tiles_changed.emit()

    def _new_layer(self) -> Labels:
        facts, levels = self.store.facts, self._levels()
        layer = Labels(
            levels if len(levels) > 1 else levels[0],
            multiscale=len(levels) > 1,
            name=f"tissue · {self.image.name}",
            metadata=image_facts(self.image, Role.TISSUE, **_provenance(facts, self.store.path)),
            opacity=OPACITY,
            colormap=class_colours(facts),
            **_placing(self.image, facts),
        )
        layer.editable = False
        return layer

    def _levels(self) -> list[Any]:
        return [GrowingLevel(self.store, k) for k in range(len(self.store.levels))]

    @property
    def facts(self) -> RegionFacts:
        """What the store is of."""
        return self.store.facts

    @timed
    def refresh(self) -> None:
        """Show what has been written since."""
        if self.store.provisional is None:
            self._find_first_look()
        # napari 0.9 keeps a copy of the coarsest level, which is what is shown of a small region
        # or from afar; replacing the data would forget it, and the place looked at with it.
        forget = getattr(self.layer, "_reset_thumbnail_level_data", None)
        with napari_call():
            if forget is not None:
                forget()
            self.layer.refresh(extent=False)

    def _find_first_look(self) -> None:
        """A first look is made after the store: it is taken up when it is there."""
        if (self.store.path / "provisional" / "0").is_dir():
            self.store.provisional = RegionStore.open(self.store.path).provisional

    def reread(self) -> None:
        """Take up how far the store is by now.

        Raises
        ------
        CellpathError
            It is gone, or damaged.
        """
        self.store.progress = read_journal(self.store.path)[1]

    @property
    def box(self) -> tuple[int, int, int, int]:
        """(row, column, height, width) in level-0 pixels, grown to whole ones."""
        return self.box_of(self.facts)

    @staticmethod
    def box_of(facts: RegionFacts) -> tuple[int, int, int, int]:
        """(row, column, height, width) of a store in level-0 pixels, grown to whole ones."""
        ends = [c + n * s for c, n, s in zip(facts.corner, facts.shape, facts.step, strict=True)]
        row, col = (int(np.floor(c + 1e-6)) for c in facts.corner)
        return row, col, int(np.ceil(ends[0] - 1e-6)) - row, int(np.ceil(ends[1] - 1e-6)) - col

    # Maps on demand.

    def probability_layer(self, number: int) -> Image:
        """The probability of one class as an image layer, not yet in a viewer."""
        name = self.facts.class_names[number]
        planes = [ClassProbability(array, number) for array in self.store.probabilities]
        return self._map(
            planes, Role.CLASS_PROBABILITY, f"probability of {name}", "viridis", (0, 255),
            {"class": name},
        )  # fmt: skip

    def entropy_layer(self) -> Image:
        """How undecided the model is as an image layer, not yet in a viewer."""
        planes = [Entropy(array) for array in self.store.probabilities]
        return self._map(planes, Role.ENTROPY, "undecided", "magma", (0, 1), {})

    def _map(
        self, planes: list[Any], role: Role, name: str, colormap: str,
        limits: tuple[float, float], more: dict[str, Any],
    ) -> Image:  # fmt: skip
        facts = _provenance(self.facts, self.store.path) | more
        return Image(
            planes if len(planes) > 1 else planes[0],
            multiscale=len(planes) > 1,
            name=f"{name} · {self.image.name}",
            metadata=image_facts(self.image, role, **facts),
            colormap=colormap,
            contrast_limits=limits,
            opacity=0.7,
            blending="translucent",
            **_placing(self.image, self.facts),
        )


_regions: WeakKeyDictionary[Labels, TissueRegion] = WeakKeyDictionary()


def region_of(layer: Labels, image: Image) -> TissueRegion | None:
    """The one region of a layer, shared by all docks; None where its store is gone."""
    region = _regions.get(layer)
    if region is None:
        try:
            return TissueRegion(image, RegionStore.open(store_of(layer)), layer)
        except CellpathError:
            return None
    return region


def tissue_layers_of(image: Image, layers: Any) -> list[Labels]:
    """The layers of segmented regions of an image, in the viewer's order."""
    return [x for x in layers_of(image, Role.TISSUE, layers) if isinstance(x, Labels)]


def store_of(layer: Labels) -> Path:
    """Where the store of a layer lies."""
    return Path(str(facts_of(layer).get("store", "")))
