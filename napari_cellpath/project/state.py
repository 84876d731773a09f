"""What a project holds now: the sum of its events."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.project.events import TABLES, Change, Event, Facts, Stroke

TILE = 512


class Raster:
    """Painted labels of one image, in tiles: only what was ever painted takes memory.

    Labels are unsigned 32-bit; 0 is nothing.
    """

    def __init__(self) -> None:
        self.tiles: dict[tuple[int, int], NDArray[np.uint32]] = {}

    def read(self, row: int, col: int, height: int, width: int) -> NDArray[np.uint32]:
        """(height, width) labels from level-0 pixel (row, col)."""
        out = np.zeros((height, width), dtype=np.uint32)
        for key, theirs, ours in _overlaps(row, col, height, width):
            tile = self.tiles.get(key)
            if tile is not None:
                out[ours] = tile[theirs]
        return out

    def write(self, row: int, col: int, labels: NDArray[Any]) -> None:
        """Set labels from level-0 pixel (row, col); tiles left all 0 are forgotten."""
        for key, theirs, ours in _overlaps(row, col, *labels.shape):
            tile = self.tiles.get(key)
            if tile is None:
                if not labels[ours].any():
                    continue
                tile = self.tiles[key] = np.zeros((TILE, TILE), dtype=np.uint32)
            tile[theirs] = labels[ours]
            if not tile.any():
                del self.tiles[key]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Raster) or self.tiles.keys() != other.tiles.keys():
            return False
        return all(np.array_equal(t, other.tiles[k]) for k, t in self.tiles.items())

    __hash__ = None  # type: ignore[assignment]


def _overlaps(row: int, col: int, height: int, width: int) -> Any:
    """Tile, its part, and the part of the (height, width) window that lies in it."""
    for i in range(row // TILE, (row + height - 1) // TILE + 1):
        for j in range(col // TILE, (col + width - 1) // TILE + 1):
            r0, r1 = max(row, i * TILE), min(row + height, (i + 1) * TILE)
            c0, c1 = max(col, j * TILE), min(col + width, (j + 1) * TILE)
            theirs = np.s_[r0 - i * TILE : r1 - i * TILE, c0 - j * TILE : c1 - j * TILE]
            yield (i, j), theirs, np.s_[r0 - row : r1 - row, c0 - col : c1 - col]


class State:
    """Everything in a project, by table and uid, and its rasters by name.

    Attributes
    ----------
    objects, images, groups, settings, runs
        uid -> facts. Facts of objects are those of `core.annotations.Annotation.to_facts`.
    rasters
        ``IMAGE/SYSTEM`` -> painted labels.
    """

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.images: dict[str, dict[str, Any]] = {}
        self.groups: dict[str, dict[str, Any]] = {}
        self.settings: dict[str, dict[str, Any]] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.rasters: dict[str, Raster] = {}

    def table(self, name: str) -> dict[str, dict[str, Any]]:
        """One of the five tables."""
        return getattr(self, name)  # type: ignore[no-any-return]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, State):
            return NotImplemented
        return (
            all(self.table(t) == other.table(t) for t in TABLES) and self.rasters == other.rasters
        )

    __hash__ = None  # type: ignore[assignment]

    def apply(self, event: Event) -> None:
        """Make the changes of an event."""
        for change in event.changes:
            self.change(change)
        for stroke in event.strokes:
            self.paint(stroke)

    def take_back(self, event: Event) -> None:
        """Inverse of `apply`, for an event after which nothing else was applied."""
        for stroke in reversed(event.strokes):
            self.paint(stroke.inverse())
        for change in reversed(event.changes):
            self.change(change.inverse())

    def change(self, change: Change) -> None:
        """Make one change. What is not there is not changed: it was deleted meanwhile."""
        table = self.table(change.table)
        if change.now is None:
            table.pop(change.uid, None)
        elif change.was is None:
            # Two windows may meet the same new thing; the first in the journal stays.
            table.setdefault(change.uid, dict(change.now))
        elif change.uid in table:
            facts = table[change.uid]
            for key, value in change.now.items():
                if value is None:
                    facts.pop(key, None)
                else:
                    facts[key] = value

    def paint(self, stroke: Stroke) -> None:
        """Set painted pixels; a raster left without any label is forgotten."""
        raster = self.rasters.setdefault(stroke.raster, Raster())
        raster.write(stroke.row, stroke.col, stroke.after)
        if not raster.tiles:
            del self.rasters[stroke.raster]

    def towards(self, table: str, uid: str, now: Facts | None) -> Change | None:
        """Work out the change that makes these facts true; None if they are already.

        ``now`` holds only the keys to set (None takes one away), or is None to remove the whole.
        """
        have = self.table(table).get(uid)
        if now is None:
            return None if have is None else Change(table, uid, dict(have), None)
        if have is None:
            if table == "objects" and "image" not in now:
                return None  # deleted in another window: what is said of it has come too late
            return Change(table, uid, None, {k: v for k, v in now.items() if v is not None})
        new = {k: v for k, v in now.items() if have.get(k) != v}
        if not new:
            return None
        return Change(table, uid, {k: have.get(k) for k in new}, new)

    def way_back(self, event: Event) -> tuple[tuple[Change, ...], tuple[Stroke, ...], int]:
        """Undo an event as far as nobody has changed the same things since.

        Returns the changes and strokes to make, and how many things are left as they are
        because they are no longer as the event left them (changed in another window).
        What a model said meanwhile, or that somebody looked, goes and comes with its object.
        """
        changes, left = [], 0
        for change in reversed(event.changes):
            have = self.table(change.table).get(change.uid)
            if change.now is None:
                if have is None:
                    changes.append(change.inverse())
                else:
                    left += 1
            elif have is None or any(
                have.get(k) != v for k, v in change.now.items() if k not in _AFTERTHOUGHTS
            ):
                left += 1
            elif change.was is None:
                changes.append(Change(change.table, change.uid, dict(have), None))
            else:
                changes.append(change.inverse())
        strokes = []
        for stroke in reversed(event.strokes):
            height, width = stroke.after.shape
            raster = self.rasters.get(stroke.raster) or Raster()
            have_now = raster.read(stroke.row, stroke.col, height, width)
            touched = stroke.before != stroke.after
            same = touched & (have_now == stroke.after)
            left += bool((touched & ~same).any())
            if same.any():
                # In 32 bits: what others painted beside it may not fit the stroke's own type.
                back = np.where(same, stroke.before, have_now).astype(np.uint32)
                strokes.append(Stroke(stroke.raster, stroke.row, stroke.col, have_now, back))
        return tuple(changes), tuple(strokes), left


_AFTERTHOUGHTS = frozenset({"prediction", "seen", "readings"})
