"""Shapes layer and project: boxes, and the rectangles in which everything is marked.

Boxes are upright. What is drawn otherwise is taken as its bounding box.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from napari.layers import Shapes
from napari.layers.base import ActionType
from numpy.typing import NDArray

from napari_cellpath.bridge.timing import timed
from napari_cellpath.core.annotations import Annotation, Shape, joined, parted
from napari_cellpath.core.requests import new_uid
from napari_cellpath.core.vocabulary import System
from napari_cellpath.project import Event, Kind, Project

UID, LABEL = "uid", "label"
_BEFORE = (ActionType.ADDING, ActionType.REMOVING, ActionType.CHANGING)


class BoxRecorder:
    """Keeps one shapes layer and a project the same.

    Parameters
    ----------
    layer
        2-D; its data are the image's pixels. Its features get a uid and a label column.
    project
        Where its gestures go.
    image
        Key of its image, which the project knows.
    system
        Whose boxes.
    complete
        These are *Complete here* rectangles, not objects.
    """

    def __init__(
        self, layer: Shapes, project: Project, image: str, system: System, *, complete: bool = False
    ) -> None:
        self.layer, self.project, self.image = layer, project, image
        self.system, self.complete = system, complete
        self._known: dict[str, tuple[float, ...]] = {}
        self._busy = False
        drawn = [box_of(corners) for corners in layer.data]
        self._show()
        for box in drawn:  # what was drawn before there was a project joins it
            if box is not None and box not in self._known.values():
                self._draw(box)
        self._on_data(None)
        layer.events.data.connect(self._on_data)
        layer.events.features.connect(self._on_features)

    def close(self) -> None:
        """Record no more."""
        self.layer.events.data.disconnect(self._on_data)
        self.layer.events.features.disconnect(self._on_features)

    def replay(self, events: Iterable[Event]) -> int:
        """Put on the layer what undone, redone or foreign events changed; returns how many."""
        touched = {c.uid for e in events for c in e.changes if c.table == "objects"}
        mine = [u for u in touched if u in self._known or self._is_mine(u)]
        if mine:
            self._show()
        return len(mine)

    def _is_mine(self, uid: str) -> bool:
        facts = self.project.state.objects.get(uid)
        return (
            facts is not None
            and facts["image"] == self.image
            and facts.get("system", System.DEEPPAP) == self.system
            and facts.get("shape") == Shape.BOX
            and bool(facts.get("complete")) == self.complete
        )

    def _show(self) -> None:
        """Draw what the project holds, and nothing else."""
        objects = self.project.state.objects
        mine = [uid for uid in objects if self._is_mine(uid)]
        self._busy = True
        try:
            kept = [tuple(float(x) for x in objects[u]["geometry"]) for u in mine]
            self.layer.data = [corners_of(box) for box in kept]
            self.layer.features = pd.DataFrame({
                UID: pd.Series(mine, dtype=object),
                LABEL: pd.Series(
                    [joined(objects[u].get("labels", ())) for u in mine], dtype=object
                ),
            })  # fmt: skip
        finally:
            self._busy = False
        self._known = dict(zip(mine, kept, strict=True))

    def _draw(self, box: tuple[float, ...]) -> None:
        self._busy = True
        try:
            self.layer.add_rectangles(corners_of(box))
        finally:
            self._busy = False

    @timed
    def _on_data(self, event: Any) -> None:
        if self._busy or (event is not None and event.action in _BEFORE):
            return
        now: dict[str, tuple[float, ...]] = {}
        frame = self.layer.features
        uids = list(frame[UID]) if UID in frame else [""] * len(self.layer.data)
        labels = list(frame[LABEL]) if LABEL in frame else [""] * len(self.layer.data)
        fresh = False
        for row, corners in enumerate(self.layer.data):
            box = box_of(corners)
            if box is None:  # a click without a drag: no area, and nothing to keep
                continue
            uid = uids[row] if isinstance(uids[row], str) else ""
            if not uid or uid in now:  # napari gives a new one the features of the last
                uid, labels[row], fresh = new_uid(), "", True
            uids[row] = uid
            now[uid] = box
        if fresh:
            self._write_features(uids, labels)
        added = [uid for uid in now if uid not in self._known]
        gone = {uid: None for uid in self._known if uid not in now}
        moved = {
            uid: {"geometry": box}
            for uid, box in now.items()
            if uid in self._known and self._known[uid] != box
        }
        self._known = now
        self.project.record(Kind.DELETE, {"objects": gone})
        self.project.record(Kind.MOVE, {"objects": moved})
        self.project.add(
            Annotation(
                uid, self.image, self.system, Shape.BOX, now[uid], complete=self.complete,
                labels=parted(_text(labels[uids.index(uid)])),
            )
            for uid in added
        )  # fmt: skip

    def _on_features(self) -> None:
        """Labels typed into the feature table, or set by a dock, are a person's."""
        frame = self.layer.features
        if self._busy or UID not in frame or LABEL not in frame:
            return
        self.project.label(
            {str(u): parted(_text(v)) for u, v in zip(frame[UID], frame[LABEL], strict=True)
             if u in self._known}
        )  # fmt: skip

    def _write_features(self, uids: list[str], labels: list[Any]) -> None:
        self._busy = True
        try:
            frame = self.layer.features.copy()
            frame[UID] = pd.Series(uids, dtype=object)
            frame[LABEL] = pd.Series([_text(v) for v in labels], dtype=object)
            self.layer.features = frame
        finally:
            self._busy = False


def box_of(corners: NDArray[Any]) -> tuple[float, float, float, float] | None:
    """(row0, col0, row1, col1), pixel edges, of a shape's corners (n, 2); None without area.

    napari's coordinates have pixel centres at integers, edges half a pixel before.
    """
    corners = np.asarray(corners, dtype=float)[:, -2:] + 0.5
    (row0, col0), (row1, col1) = corners.min(axis=0), corners.max(axis=0)
    if not (np.isfinite(corners).all() and row1 > row0 and col1 > col0):
        return None
    return float(row0), float(col0), float(row1), float(col1)


def corners_of(box: Iterable[float]) -> NDArray[np.float64]:
    """Corners (4, 2) of a box in napari's coordinates."""
    row0, col0, row1, col1 = (float(x) - 0.5 for x in box)
    return np.array([[row0, col0], [row0, col1], [row1, col1], [row1, col0]])


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
