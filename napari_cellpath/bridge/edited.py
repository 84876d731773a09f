"""The few boxes that a person draws or changes now, as rectangles of a shapes layer.

All boxes lie on a light layer (`outlines`); those that are selected come here, where napari lets
them be dragged, and go back when others are selected. A rectangle drawn here becomes a region.
What napari does to us, and what we do about it:

- a new rectangle inherits the features and colours of another: its region is made anew, with a
  uid of its own, and the whole layer is shown again from what is known;
- a rectangle may be rotated or drawn as another shape: its upright bounding box counts;
- a click without a drag makes a rectangle of no area: it is taken away again;
- ``layer.data = ...`` ends what is being drawn: while that goes on only looks are refreshed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from napari.layers import Image, Shapes
from napari.layers.base import ActionType
from numpy.typing import NDArray
from psygnal import Signal

from napari_cellpath.bridge.box_recording import box_of, corners_of
from napari_cellpath.bridge.conventions import (
    PENDING_COLOUR,
    image_facts,
    image_shape,
    layers_of,
    placing,
)
from napari_cellpath.bridge.kinds import P_COLUMN
from napari_cellpath.bridge.red_cells import RedCellsLayer, verdict_colours
from napari_cellpath.bridge.timing import napari_call, timed
from napari_cellpath.core.vocabulary import Role

MOST = 50
"""Boxes that may be changed at a time: napari's rectangles are slow where there are many."""
LEAST_SIDE = 3
"""Rectangles of fewer pixels were a click, not a box."""
TEXT_SIZE, TEXT_COLOUR = 10, "#101018"
_BEFORE = (ActionType.ADDING, ActionType.REMOVING, ActionType.CHANGING)
Box = tuple[int, int, int, int]


def create_edited_layer(image: Image) -> Shapes:
    """Empty layer of boxes to be drawn and changed, not yet in a viewer."""
    image_shape(image)
    layer = Shapes(
        ndim=2,
        name=f"boxes · {image.name}",
        metadata=image_facts(image, Role.EDITED),
        face_color="transparent",
        edge_color=PENDING_COLOUR,
        edge_width=edge_width(image),
        features=_table([], {}),
        opacity=1.0,
        text=_text(),
        **placing(image),
    )
    layer.current_edge_width = edge_width(image)
    return layer


def edited_layer_of(image: Image, layers: Any) -> Shapes | None:
    """The layer on which boxes of an image are drawn, or None."""
    found = [x for x in layers_of(image, Role.EDITED, layers) if isinstance(x, Shapes)]
    return found[-1] if found else None


def edge_width(image: Image) -> float:
    """Width of an edge, image pixels."""
    return float(np.clip(min(image_shape(image)) / 240, 1.0, 6.0))


class EditedBoxes:
    """One shapes layer, and the regions whose boxes are on it.

    Parameters
    ----------
    layer
        See `create_edited_layer`.
    regions
        The controller of the regions of the same image.

    Attributes
    ----------
    uids
        Of the regions whose boxes are on the layer, in its order.
    touched
        The mouse is down on the layer: rectangles must not be made anew under it.
    """

    drawn = Signal(list)
    """Uids of regions that were drawn."""
    refused = Signal(str)
    """A sentence: what was drawn is no box."""
    doubted = Signal()
    """The rectangles on the layer no longer fit what is known: `show` should be called soon."""

    def __init__(self, layer: Shapes, regions: RedCellsLayer) -> None:
        self.layer, self.regions = layer, regions
        self.uids: list[str] = []
        self.touched = False
        self._busy = False
        self._drawing = False
        layer.events.data.connect(self._on_data)
        regions.rows_changed.connect(self._on_rows)

    def close(self) -> None:
        """Let go of the layer; safe to call when it is gone."""
        self.layer.events.data.disconnect(self._on_data)
        self.regions.rows_changed.disconnect(self._on_rows, missing_ok=True)
        for signal in (self.drawn, self.refused, self.doubted):
            signal.disconnect()

    @timed
    def show(self, uids: Iterable[str], *, selected: bool = True) -> None:
        """Have these regions' boxes on the layer and no others, selected if they may be dragged."""
        if self._drawing or self.touched:
            return
        table = self.regions.table
        there = [uid for uid in uids if uid in table][:MOST]
        rows = table.rows(there)
        boxes = table.boxes[rows]
        if there != self.uids or not self._shows(boxes):
            self.uids = there
            self._busy = True
            try:
                with napari_call():
                    self._rebuild(boxes)
            finally:
                self._busy = False
            self._dress()
        if selected and str(self.layer.mode) == "select":
            with napari_call():
                self.layer.selected_data = set(range(len(there)))

    def _shows(self, boxes: NDArray[Any]) -> bool:
        """Whether the rectangles are these boxes, upright and to the pixel."""
        drawn = self.layer.data
        return len(drawn) == len(boxes) and all(
            len(corners) == 4 and np.allclose(corners, corners_of(box))
            for corners, box in zip(drawn, boxes, strict=True)
        )

    def _rebuild(self, boxes: NDArray[Any]) -> None:
        layer = self.layer
        layer.selected_data = set()
        layer.data = []
        if len(boxes):
            layer.add_rectangles([corners_of(box) for box in boxes])
        layer.selected_data = set()

    def _on_rows(self, rows: Any) -> None:
        if self.uids and not self._busy:
            mine = self.regions.table.places(self.uids)
            if np.isin(mine, rows).any():
                self._dress()
                if not self._shows(self.regions.table.boxes[mine]):  # undone, or moved elsewhere
                    self.doubted.emit()

    @timed
    def _dress(self) -> None:
        """Bring features, text and colours of the rectangles up to date."""
        layer, table = self.layer, self.regions.table
        rows = table.places(self.uids)
        if len(rows) != layer.nshapes or (rows < 0).any():
            self.doubted.emit()
            return
        self._busy = True
        try:
            with napari_call():
                layer.features = _table(self.uids, _columns(self.regions, rows))
                if len(rows):
                    layer.edge_color = verdict_colours(table, rows)
                    layer.edge_width = [edge_width(self.regions.image)] * len(rows)
                layer.refresh_text()
        finally:
            self._busy = False

    # What happens to the layer.

    @timed
    def _on_data(self, event: Any) -> None:
        if self._busy:
            return
        if event.action in _BEFORE:
            self._drawing |= event.action == ActionType.ADDING
            return
        self._drawing = False
        layer = self.layer
        boxes = [self._box(corners) for corners in layer.data]
        if event.action == ActionType.ADDED and len(boxes) > len(self.uids):
            self._take_new(boxes[len(self.uids) :])
        elif event.action == ActionType.REMOVED and len(boxes) < len(self.uids):
            gone = {int(i) % len(self.uids) for i in event.data_indices}
            self._take_gone([uid for i, uid in enumerate(self.uids) if i in gone])
        elif len(boxes) == len(self.uids):
            self._take_changed(boxes)
        self.doubted.emit()

    def _take_new(self, boxes: Sequence[Box | None]) -> None:
        kept = [box for box in boxes if box is not None]
        if len(kept) < len(boxes):
            self.refused.emit("A click is no box: press, drag to the opposite corner, let go.")
        on = [box for box in kept if self._meets(box)]
        if len(on) < len(kept):
            self.refused.emit(
                f"A box outside '{self.regions.image.name}' is no region; draw on it."
            )
        if on:
            shown = np.array([self._on_image(box) for box in on], dtype=np.int64)
            new = self.regions.add_boxes(shown)
            self.drawn.emit(new)

    def _take_gone(self, uids: Sequence[str]) -> None:
        self.uids = [uid for uid in self.uids if uid not in set(uids)]
        self.regions.remove(uids)

    def _take_changed(self, boxes: Sequence[Box | None]) -> None:
        table = self.regions.table
        known = [tuple(b) for b in table.boxes[table.rows(self.uids)].tolist()]
        changed = {
            uid: self._on_image(box)
            for uid, box, old in zip(self.uids, boxes, known, strict=False)
            if box is not None and box != old and self._meets(box)
        }
        off = [b for b in boxes if b is None or not self._meets(b)]
        if off:
            self.refused.emit("A box must lie on the image and have an area; it goes back.")
        if changed:
            self.regions.reshape(changed)

    def _meets(self, box: Box) -> bool:
        row0, col0, row1, col1 = self._on_image(box)
        return row1 > row0 and col1 > col0

    def _on_image(self, box: Box) -> Box:
        height, width = self.regions.shape
        row0, col0, row1, col1 = box
        return (
            min(max(row0, 0), height), min(max(col0, 0), width),
            min(max(row1, 0), height), min(max(col1, 0), width),
        )  # fmt: skip

    @staticmethod
    def _box(corners: NDArray[Any]) -> Box | None:
        box = box_of(corners)
        if box is None:
            return None
        row0, col0, row1, col1 = (round(edge) for edge in box)
        if min(row1 - row0, col1 - col0) < LEAST_SIDE:
            return None
        return row0, col0, row1, col1


def _columns(regions: RedCellsLayer, rows: NDArray[np.intp]) -> dict[str, Any]:
    table = regions.table
    names = np.array(table.scheme.classes, dtype=object)
    held = [", ".join(names[here]) for here in table.standing(rows)]
    verdicts, chances = table.features["verdict"][rows], table.features["abnormal"][rows]
    return {
        "labels": held,
        "verdict": list(verdicts),
        "abnormal": chances,
        "said": [
            "…" if waits else _sentence(v, p, h)
            for v, p, h, waits in zip(verdicts, chances, held, table.pending[rows], strict=True)
        ],
        **{name: table.features[name][rows] for name in table.p_columns},
    }


def _sentence(verdict: str, chance: float, held: str) -> str:
    """What stands beside a rectangle: its verdict, then its types, two a line."""
    sure = "" if np.isnan(chance) else f"{chance:.2f}"
    types = held.split(", ")
    lines = [f"{verdict} {sure}".strip()]
    lines += [", ".join(types[i : i + 2]) for i in range(0, len(types), 2)]
    return "\n".join(line for line in lines if line) or "…"


def _table(uids: Sequence[str], columns: Mapping[str, Any]) -> pd.DataFrame:
    blank = {"labels": (), "verdict": (), "abnormal": (), "said": ()}
    wanted = {"uid": list(uids), **(columns or blank)}
    return pd.DataFrame({name: _series(name, values) for name, values in wanted.items()})


def _series(name: str, values: Any) -> pd.Series[Any]:
    number = name == "abnormal" or name.startswith(P_COLUMN)
    return pd.Series(list(values), dtype=float if number else object)


def _text() -> dict[str, Any]:
    """Text above each rectangle: dark, as smears are bright; the frame has the verdict's colour."""
    return {
        "string": {"feature": "said"},
        "color": TEXT_COLOUR,
        "size": TEXT_SIZE,
        "anchor": "upper_left",
        "translation": (-2.0, 0.0),
    }
