"""Labels layer and project: every stroke of the brush, as a delta."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from napari.layers import Labels

from napari_cellpath.bridge.timing import timed
from napari_cellpath.core.errors import CellpathError
from napari_cellpath.project import Event, Kind, Project, Stroke
from napari_cellpath.project.state import TILE, Raster

Box = tuple[int, int, int, int]


class PaintRecorder:
    """Keeps one labels layer and a raster of a project the same.

    Parameters
    ----------
    layer
        2-D, of one level, at the image's own resolution; it must be editable (a NumPy array).
    project
        Where its strokes go.
    raster
        Name of the raster, ``IMAGE/SYSTEM``.
    origin
        Level-0 pixel of the raster that the layer's first pixel is: a layer may be a window of
        a slide whose painted pixels would not fit into memory.
    since
        What the raster was when the layer was last recorded: what was painted on the layer since
        then is laid over the project's and recorded.

    Raises
    ------
    CellpathError
        The layer is a pyramid or a stack.
    """

    def __init__(
        self, layer: Labels, project: Project, raster: str, origin: tuple[int, int] = (0, 0),
        since: Raster | None = None,
    ) -> None:  # fmt: skip
        if layer.multiscale or layer.ndim != 2:
            raise CellpathError(
                f"'{layer.name}' is not one plane at full resolution; edit a region of it."
            )
        self.layer, self.project, self.raster, self.origin = layer, project, raster, origin
        self._waiting: list[Box] = []
        kept = project.state.rasters.get(raster)
        if kept is not None and since is not None:
            now = np.array(layer.data)
            painted = now != since.read(*origin, *now.shape)
            self._show(kept)
            layer.data[painted] = now[painted]
            self._take(0, 0, *now.shape)
        elif kept is not None:
            self._show(kept)
        elif np.any(layer.data):
            self._take(0, 0, *layer.data.shape)
        layer.events.paint.connect(self._on_paint)
        layer.events.labels_update.connect(self._on_drawn)

    def close(self) -> None:
        """Record no more."""
        self.layer.events.paint.disconnect(self._on_paint)
        self.layer.events.labels_update.disconnect(self._on_drawn)

    def replay(self, events: Iterable[Event]) -> int:
        """Put on the layer what undone, redone or foreign events painted; returns how many."""
        strokes = [s for e in events for s in e.strokes if s.raster == self.raster]
        now = self.project.state.rasters.get(self.raster) or Raster()
        for stroke in strokes:
            self._put(now, stroke.row, stroke.col, *stroke.after.shape)
        if strokes:
            self.layer.refresh()
        return len(strokes)

    def _show(self, kept: Raster) -> None:
        """Put the raster on the layer, tile by tile: most of a window is never painted."""
        np.asarray(self.layer.data)[...] = 0
        for row, col in kept.tiles:
            self._put(kept, row * TILE, col * TILE, TILE, TILE)
        self.layer.refresh()

    def _put(self, kept: Raster, row: int, col: int, height: int, width: int) -> None:
        """Put a window of the raster on the layer, as far as it reaches."""
        (top, left), (high, wide) = self.origin, self.layer.data.shape
        row0, row1 = max(row, top), min(row + height, top + high)
        col0, col1 = max(col, left), min(col + width, left + wide)
        if row0 < row1 and col0 < col1:
            window = np.s_[row0 - top : row1 - top, col0 - left : col1 - left]
            self.layer.data[window] = kept.read(row0, col0, row1 - row0, col1 - col0)

    @timed
    def _on_paint(self, event: Any) -> None:
        boxes = [box for atom in event.value if (box := _box_of(atom)) is not None]
        if boxes:
            rows0, cols0, rows1, cols1 = zip(*boxes, strict=True)
            self._waiting.append((min(rows0), min(cols0), max(rows1), max(cols1)))
        self._on_drawn()

    def _on_drawn(self, _event: Any = None) -> None:
        # A stroke is told when it ends, a fill before it is done: what is not there yet is
        # looked for again when napari has drawn it.
        self._waiting = [
            box
            for box in self._waiting
            if not self._take(*box[:2], box[2] - box[0], box[3] - box[1])
        ]

    def _take(self, row: int, col: int, height: int, width: int) -> bool:
        """Record where the layer differs from the project; whether it did."""
        after = np.asarray(self.layer.data[row : row + height, col : col + width]).astype(np.uint32)
        kept = self.project.state.rasters.get(self.raster) or Raster()
        row, col = row + self.origin[0], col + self.origin[1]
        before = kept.read(row, col, *after.shape)
        rows, cols = np.nonzero(before != after)
        if not len(rows):
            return False
        r0, r1, c0, c1 = rows.min(), rows.max() + 1, cols.min(), cols.max() + 1
        stroke = Stroke(
            self.raster, row + int(r0), col + int(c0), before[r0:r1, c0:c1], after[r0:r1, c0:c1]
        )
        self.project.record(Kind.PAINT, {}, [stroke])
        return True


def _box_of(atom: Any) -> Box | None:
    """Bounding box (row0, col0, row1, col1) of one atom of napari's paint event.

    An atom is a masked edit with slices, or (indices, old values, new value).
    """
    slices = getattr(atom, "slice_key", None)
    if slices is not None:
        (rows, cols) = slices[-2:]
        return int(rows.start), int(cols.start), int(rows.stop), int(cols.stop)
    rows, cols = (np.atleast_1d(np.asarray(index)) for index in atom[0][-2:])
    if not rows.size:
        return None
    return int(rows.min()), int(cols.min()), int(rows.max()) + 1, int(cols.max()) + 1
