"""Tiles of a segmented region as a pile of items to review, the undecided ones first.

To agree with a tile's call paints the tile as the model sees it, pixel by pixel; to give it a
class paints the whole tile with that; to take a label back rubs the tile out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from napari.layers import Labels, Layer
from numpy.typing import NDArray
from psygnal import Signal

from napari_cellpath.bridge import conventions
from napari_cellpath.bridge.painting import accepted
from napari_cellpath.bridge.tissue import Piece, TissueRegion, region_of
from napari_cellpath.bridge.tissue_tiles import painted_tiles, tile_window
from napari_cellpath.core.doubt import ItemFacts, Rows
from napari_cellpath.core.vocabulary import Role
from napari_cellpath.project.painted import painted_value

DOUBTFUL = 0.2
"""Tiles whose classes lead the next by no more are doubtful."""
WIDER = 1.15
"""Shown round a tile, in lengths of its side."""


class TissueReview:
    """Tiles of one region; there are none until the region has ended and was looked through."""

    changed = Signal()
    reset = Signal()
    selected = Signal()
    kind = "tiles"
    threshold = 0.5
    several = False

    def __init__(self, region: TissueRegion) -> None:
        self.region = region
        self.layer, self.image = region.layer, region.image
        self.group = region.image.name
        self._seen: set[str] = set()
        self._selection: list[str] = []
        self._readings: dict[str, dict[str, str]] = {}
        self._uids: list[str] = []
        self._labels: NDArray[Any] = np.zeros(0, dtype=object)
        region.tiles_changed.connect(self._on_tiles)
        region.painted_changed.connect(self._on_painted)
        self._take()

    @classmethod
    def of(cls, layer: Layer, layers: Iterable[Layer]) -> TissueReview | None:
        """The tiles of a layer; None if it is no region of ours, or its image is not open."""
        if not isinstance(layer, Labels) or conventions.facts_of(layer).get("role") != Role.TISSUE:
            return None
        image = conventions.image_of(layer, layers) or conventions.reunite(layer, layers)
        region = None if image is None else region_of(layer, image)
        return None if region is None else cls(region)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the model's classes."""
        return self.region.facts.class_names

    @property
    def colours(self) -> tuple[str, ...]:
        """Colours of the model's classes."""
        return self.region.facts.colours

    def _take(self) -> None:
        tiles = self.region.tiles
        name = self.region.store.path.name.partition(".")[0]
        self._uids = [] if tiles is None else [f"{name}/{r}/{c}" for r, c, *_ in tiles.boxes]
        self._read_labels()

    def _read_labels(self) -> None:
        tiles = self.region.tiles
        if tiles is None:
            self._labels = np.zeros(0, dtype=object)
            return
        names = np.array([*self.classes, ""], dtype=object)
        codes = painted_tiles(tiles, self.region.facts, self.region.raster())
        codes[codes >= len(self.classes)] = -1
        self._labels = names[codes]

    def _on_tiles(self) -> None:
        self._take()
        self.reset.emit()

    def _on_painted(self) -> None:
        self._read_labels()
        self.changed.emit()

    def __len__(self) -> int:
        return len(self._uids)

    def facts(self) -> ItemFacts:
        """All tiles as they are now."""
        tiles, uids = self.region.tiles, np.array(self._uids, dtype=object)
        count = len(uids)
        if tiles is None:
            none = np.zeros(0, dtype=bool)
            blank = np.zeros(0)
            text = np.zeros(0, dtype=object)
            return ItemFacts(text, text, text, blank, blank, blank, none, none, none, none)
        names = np.array(self.classes, dtype=object)
        seen = np.array([uid in self._seen for uid in self._uids], dtype=bool)
        return ItemFacts(
            uid=uids, call=names[tiles.called], label=self._labels, score=tiles.score,
            std=np.full(count, np.nan), margin=tiles.margin,
            doubtful=(tiles.margin <= DOUBTFUL) & (self._labels == ""),
            stale=np.zeros(count, dtype=bool), seen=seen | (self._labels != ""),
            flagged=tiles.damaged, group=np.full(count, self.group, dtype=object),
        )  # fmt: skip

    def counts(self) -> list[tuple[int, int]]:
        """(called, labelled) of each class: how many the model calls so, and a person."""
        tiles = self.region.tiles
        size = len(self.classes)
        called = np.bincount(tiles.called, minlength=size) if tiles is not None else [0] * size
        labelled = [int((self._labels == name).sum()) for name in self.classes]
        return [(int(c), n) for c, n in zip(called, labelled, strict=True)]

    def features(self) -> None:
        """Nobody gives features of tiles."""
        return

    def features_request(self, _image: Any) -> None:
        """Nobody gives features of tiles."""
        return

    def set_features(self, _uids: Sequence[str], _vectors: NDArray[np.floating[Any]]) -> None:
        """Nobody asked for any."""

    def rows(self, uids: Iterable[str]) -> Rows:
        """Row of each uid, -1 where it is not here."""
        places = {uid: row for row, uid in enumerate(self._uids)}
        return np.array([places.get(str(uid), -1) for uid in uids], dtype=np.intp)

    def window(self, row: int, _mpp: float | None) -> tuple[float, float, float]:
        """Centre and side of the square to show, level-0 pixels."""
        top, left, height, width = self._window(row)
        side = WIDER * max(height, width)
        return top + (height - 1) / 2, left + (width - 1) / 2, side

    def _window(self, row: int) -> tuple[int, int, int, int]:
        tiles = self.region.tiles
        assert tiles is not None  # there is no row without  # noqa: S101
        return tile_window(tiles.boxes[row], self.region.facts)

    def world(self, row: int) -> NDArray[np.float64]:
        """Where the middle of the tile lies in the viewer's world."""
        centre = self.window(row, None)[:2]
        return np.asarray(self.image.data_to_world(centre))

    def note(self, row: int) -> str:
        """What speaks for care, in words."""
        tiles = self.region.tiles
        damaged = tiles is not None and bool(tiles.damaged[row])
        return "some of its pixels could not be read" if damaged else ""

    def tint(self, _row: int) -> str:
        """Nothing: what a model calls a tile is a class, which has a colour."""
        return ""

    def label(self, uids: Sequence[str], label: str) -> None:
        """Paint these tiles whole; empty rubs them out."""
        number = painted_value(self.classes.index(label)) if label else 0
        windows = [self._window(int(row)) for row in self.rows(uids)]
        self._paint([(r, c, np.full((h, w), number, np.uint32)) for r, c, h, w in windows])

    def agree(self, uids: Sequence[str]) -> None:
        """Paint these tiles as the model has them, where nothing was painted yet."""
        raster, store = self.region.raster(), self.region.store
        windows = [self._window(int(row)) for row in self.rows(uids)]
        self._paint([(w[0], w[1], accepted(store, raster, w)) for w in windows])

    def _paint(self, pieces: list[Piece]) -> None:
        if pieces:
            self.region.paint(pieces)

    def see(self, uids: Sequence[str]) -> None:
        """Note that a person has looked at these."""
        self._seen.update(str(uid) for uid in uids)
        self.changed.emit()

    def select(self, uids: Sequence[str]) -> None:
        """Select these; nothing of it is to be seen on labels."""
        self._selection = list(uids)

    def selection(self) -> list[str]:
        """What was selected last."""
        return list(self._selection)

    def readings(self) -> dict[str, dict[str, str]]:
        """Blind readings of this session: reader to uid to class."""
        return {reader: dict(said) for reader, said in self._readings.items()}

    def record_reading(self, uids: Sequence[str], reader: str, label: str) -> None:
        """Note a blind reading beside the label; empty takes it back."""
        said = self._readings.setdefault(reader, {})
        for uid in uids:
            if label:
                said[str(uid)] = label
            else:
                said.pop(str(uid), None)
        self.changed.emit()

    def close(self) -> bool:
        """Let go of the region."""
        self.region.tiles_changed.disconnect(self._on_tiles, missing_ok=True)
        self.region.painted_changed.disconnect(self._on_painted, missing_ok=True)
        return True
