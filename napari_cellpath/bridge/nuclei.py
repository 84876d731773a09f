"""Controller of one nuclei layer: what the user does to points becomes requests, by uid.

It owns its connections to the layer and drops them in `NucleiLayer.close`. It never touches a
viewer, Qt or the backend: it says what should be scored or forgotten, and takes answers.

What napari does to us, and what we do about it:

- a new point inherits the features and colours of the selected or last one, diagnosis
  included: every new row is blanked and given a uid of its own;
- ``data_indices`` of an added event may be (-1,): new rows are counted, not looked up;
- pasting emits no data event at all: any redraw with more points than we know is one;
- ``layer.data = ...`` keeps feature rows by index though points may have gone from the middle:
  nuclei are matched by their coordinates;
- replacing ``layer.features`` may drop our columns: they are put back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any

import numpy as np
from napari.layers import Image, Points
from napari.layers.base import ActionType
from numpy.typing import NDArray
from psygnal import Signal, SignalInstance

from napari_cellpath.bridge import appearance
from napari_cellpath.bridge.columns import Kept, NucleusTable, Rows, Scheme
from napari_cellpath.bridge.conventions import (
    FEATURE_COLUMNS,
    PENDING_COLOUR,
    TRANSFORM,
    facts_of,
    follow_transform,
    image_shape,
    set_facts,
)
from napari_cellpath.bridge.matching import is_permutation, rows_before
from napari_cellpath.bridge.timing import napari_call, timed
from napari_cellpath.core.requests import Nucleus
from napari_cellpath.core.results import NucleusCall


class Gesture(StrEnum):
    """What may be done to nuclei."""

    ADDED = "added"
    DELETED = "deleted"
    MOVED = "moved"
    CORRECTED = "corrected"
    SCORED = "scored"
    SEEN = "seen"
    READ = "read"  # by a blind second reader


BY_CELL = 16  # up to so many rows are written cell by cell, more as whole columns (measured)
FEW = 100
_BEFORE = (ActionType.ADDING, ActionType.REMOVING, ActionType.CHANGING)


class NucleiLayer:
    """One points layer of nuclei over one image.

    Parameters
    ----------
    layer, image
        The points, and the image their coordinates are pixels of.
    scheme
        How scores are read now.
    taken
        Uids that other layers own: a duplicated layer gets new ones.
    """

    scoring_requested = Signal(list)
    """Uids that were added or moved and need a score."""
    answer_unwanted = Signal(list)
    """Uids that are no more, or left the image."""
    rows_changed = Signal(object)
    """Rows whose facts changed, (k,) int array."""
    rows_added = Signal()
    """Rows were added at the end."""
    rows_reset = Signal()
    """Rows were removed, or are others than before."""
    selection_changed = Signal()
    happened = Signal(Gesture, list)
    """What was done to which uids, for the journal; not emitted for what comes out of it."""
    notice = Signal(str)
    """A sentence for the user."""

    def __init__(
        self, layer: Points, image: Image, scheme: Scheme, taken: Iterable[str] = ()
    ) -> None:
        self.layer = layer
        self.image = image
        self.table = NucleusTable(scheme)
        self._shape = image_shape(image)
        self._changing = False
        self._writing = False
        self._score_new = True
        self._replaying: Sequence[str] | None = None
        self._closed = False
        self.table.adopt(layer.features, np.array(layer.data, dtype=float), set(taken))
        self._place(np.arange(len(self.table)))
        self._restore_features()
        self._repaint(np.arange(len(self.table)))
        layer.events.data.connect(self._on_data)
        layer.events.set_data.connect(self._on_redrawn)
        layer.events.features.connect(self._on_features)
        layer.selected_data.events.items_changed.connect(self._on_selection)
        for event in _transform_events(image):
            event.connect(self._on_image_moved)
        image.events.name.connect(self._on_image_renamed)

    def close(self) -> None:
        """Let go of the layer; it stays as it is. Nothing is emitted any more."""
        if self._closed:
            return
        self._closed = True
        self.layer.events.data.disconnect(self._on_data)
        self.layer.events.set_data.disconnect(self._on_redrawn)
        self.layer.events.features.disconnect(self._on_features)
        self.layer.selected_data.events.items_changed.disconnect(self._on_selection)
        for event in _transform_events(self.image):
            event.disconnect(self._on_image_moved)
        self.image.events.name.disconnect(self._on_image_renamed)
        for signal in (
            self.scoring_requested, self.answer_unwanted, self.rows_changed, self.rows_added,
            self.rows_reset, self.selection_changed, self.happened, self.notice,
        ):  # fmt: skip
            signal.disconnect()

    # What is known.

    def __len__(self) -> int:
        return len(self.table)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the image's level 0."""
        return self._shape

    def nuclei(self, uids: Iterable[str]) -> tuple[Nucleus, ...]:
        """Those of these nuclei that exist and lie on the image, where they are now."""
        table = self.table
        return tuple(
            Nucleus(float(table.positions[r, 0]), float(table.positions[r, 1]), str(table.uids[r]))
            for r in table.rows(uids)
            if not table.outside[r]
        )

    def unscored(self) -> list[str]:
        """Uids on the image with no answer and none asked for."""
        table = self.table
        return _uids(table, ~table.has_call & ~table.pending & ~table.outside)

    def stale(self) -> list[str]:
        """Uids whose call was made elsewhere, under other settings, or from a part of the views."""
        table = self.table
        return _uids(table, table.features["stale"] & ~table.pending & ~table.outside)

    def doubtful(self) -> Rows:
        """Rows in the review band that nobody has decided yet, top to bottom by row number."""
        return np.flatnonzero(self.table.doubtful & ~self.table.features["stale"])

    def next_doubtful(self, step: int) -> int | None:
        """Row of the next (+1) or previous (-1) doubtful nucleus from the selected, going round."""
        rows = self.doubtful()
        if not len(rows):
            return None
        selected = self.table.rows(self.selected())
        here = int(selected[-1]) if len(selected) else (-1 if step > 0 else len(self))
        later = rows[rows > here] if step > 0 else rows[rows < here][::-1]
        return int(later[0]) if len(later) else int(rows[0] if step > 0 else rows[-1])

    def unseen(self) -> Rows:
        """Scored rows nobody has looked at yet, the most abnormal first."""
        table = self.table
        score = table.features["score"]
        rows = np.flatnonzero(~table.features["seen"] & ~np.isnan(score) & ~table.outside)
        return rows[np.argsort(-score[rows], kind="stable")]

    def counts(self) -> list[int]:
        """How many nuclei stand in each class of the scheme; a correction counts for the call."""
        table = self.table
        code = np.where(table.correction_code >= 0, table.correction_code, table.call_code)
        code = code[(code >= 0) & ~table.outside]
        return [int(n) for n in np.bincount(code, minlength=len(table.scheme.classes))]

    def selected(self) -> list[str]:
        """Uids of the selected points."""
        rows = [r for r in sorted(self.layer.selected_data) if r < len(self.table)]
        return [str(uid) for uid in self.table.uids[rows]]

    # What the dock does.

    @timed
    def write(self, calls: Sequence[NucleusCall], settings: tuple[Any, ...]) -> None:
        """Take in answers by uid. Unknown uids are dropped; corrections are never touched."""
        rows = self.table.write(calls, settings)
        self._push(rows)
        self._tell(Gesture.SCORED, [str(self.table.uids[r]) for r in rows if self.table.final[r]])

    @timed
    def mark_pending(self, uids: Iterable[str], pending: bool = True) -> None:
        """Note that an answer is on its way, or that none will come."""
        rows = self.table.rows(uids)
        if pending:
            self.table.pending[rows] = True
            self.rows_changed.emit(rows)
        else:
            self._push(self.table.give_up(rows))

    @timed
    def correct(self, uids: Iterable[str], label: str) -> None:
        """Write what a person says of these nuclei; an empty label takes it back."""
        rows = self.table.rows(uids)
        self.table.correct(rows, label)
        self._push(rows)
        self._tell(Gesture.CORRECTED, [str(u) for u in self.table.uids[rows]])

    @timed
    def see(self, uids: Iterable[str]) -> None:
        """Note that a person has looked at these nuclei."""
        new = self.table.see(self.table.rows(uids))
        self._push(new)
        self._tell(Gesture.SEEN, [str(u) for u in self.table.uids[new]])

    @timed
    def keep_readings(self, readings: Mapping[str, str]) -> None:
        """Write what blind second readers said, `readings_text` by uid; labels stay as they are."""
        there = [uid for uid in readings if uid in self.table]
        rows = self.table.rows(there)
        self.table.features["readings"][rows] = [readings[uid] for uid in there]
        self._push(rows)
        self._tell(Gesture.READ, there)

    def accept(self, uids: Iterable[str]) -> int:
        """Take the call as the person's own word; returns how many there were to accept."""
        table = self.table
        accepted = 0
        for label in {str(x) for x in table.features["call"]} - {""}:
            rows = [r for r in table.rows(uids) if table.features["call"][r] == label]
            self.correct([str(u) for u in table.uids[rows]], label)
            accepted += len(rows)
        return accepted

    @timed
    def read_with(self, scheme: Scheme) -> None:
        """Read all scores with another threshold, band, model or settings; nothing is scored."""
        table = self.table
        before = {n: table.features[n].copy() for n in ("call", "stale")}
        ring = table.doubtful
        full = scheme.colours != table.scheme.colours or scheme.threshold != table.scheme.threshold
        table.reread(scheme)
        if full:
            self._push(np.arange(len(table)))
            return
        changed = ring != table.doubtful
        for name, old in before.items():
            changed |= old != table.features[name]
        self._push(np.flatnonzero(changed))

    def add(
        self,
        positions: NDArray[np.float64],
        ids: Sequence[str] | None = None,
        *,
        score: bool = True,
    ) -> list[str]:
        """Add nuclei as if they had been clicked; returns their uids.

        With ``score`` false they wait until somebody asks for their scores.
        """
        start = len(self.table)
        self._score_new = score
        try:
            self.layer.add(np.asarray(positions, dtype=float).reshape(-1, 2))
        finally:
            self._score_new = True
        rows = np.arange(start, len(self.table))
        if ids is not None:
            self.table.features["id"][rows] = list(ids)
            self._push(rows)
        return [str(uid) for uid in self.table.uids[rows]]

    def select(self, uids: Iterable[str]) -> None:
        """Make these the selected points."""
        rows = {int(r) for r in self.table.rows(uids)}
        if rows != set(self.layer.selected_data):
            with napari_call():
                self.layer.selected_data = rows

    # What comes out of the journal: nothing of it is told on, and nothing is scored for it.

    @timed
    def take_away(self, uids: Iterable[str]) -> None:
        """Remove nuclei."""
        rows = self.table.rows(uids)
        if not len(rows):
            return
        kept = set(self.selected())
        self._replaying = ()
        try:
            self.layer.selected_data = {int(r) for r in rows}
            self.layer.remove_selected()
        finally:
            self._replaying = None
        self.select(kept)

    @timed
    def take_in(self, kept: Sequence[Kept]) -> None:
        """Make nuclei what the journal holds of them; those that are not there are added."""
        positions = {k.uid: k.position for k in kept}
        new = [k for k in kept if k.uid not in self.table]
        selected = self.selected()  # napari selects what is added
        self._replaying = [k.uid for k in new]
        try:
            if len(new) > FEW:
                # add() would select each of them: 5 s for 100,000.
                added = np.array([k.position for k in new], dtype=float)
                self.layer.data = np.concatenate([np.asarray(self.layer.data), added])
            elif new:
                self.layer.add(np.array([k.position for k in new], dtype=float))
            rows = self.table.rows(positions)
            wanted = np.array([positions[str(u)] for u in self.table.uids[rows]])
            if len(rows) and not np.array_equal(self.table.positions[rows], wanted):
                data = np.array(self.layer.data, dtype=float)
                data[rows] = wanted
                self.layer.data = data
        finally:
            self._replaying = None
        self._push(self.table.restore(kept))
        self.select(selected)

    # What happens to the layer.

    @timed
    def _on_data(self, event: Any) -> None:
        if event.action in _BEFORE:
            self._changing = True
            if event.action == ActionType.ADDING:
                self._dress_next_point()
            return
        self._changing = False
        known, count = len(self.table), len(self.layer.data)
        if event.action == ActionType.ADDED and count > known:
            self._take_new_rows()
        elif event.action == ActionType.REMOVED and len(event.data_indices) == known - count:
            rows = np.array(sorted(i % known for i in event.data_indices), dtype=np.intp)
            self._forget_rows(rows)
        else:
            self._match_by_position()

    @timed
    def _on_redrawn(self) -> None:
        if not self._changing and len(self.layer.data) != len(self.table):
            self._match_by_position()  # pasted: napari told nobody

    @timed
    def _on_features(self) -> None:
        if self._writing or self._changing or len(self.layer.features) != len(self.table):
            return
        frame = self.layer.features
        if "uid" in frame and np.array_equal(frame["uid"].to_numpy(dtype=object), self.table.uids):
            self._take_corrections()
            return
        self._restore_features()

    @timed
    def _on_selection(self) -> None:
        selected = self.selected()
        if len(selected) == 1:  # many at once are marked to be worked on, not looked at
            new = self.table.see(self.table.rows(selected))
            if len(new):
                self._push(new)
                self._tell(Gesture.SEEN, selected)
        self.selection_changed.emit()

    def _on_image_moved(self) -> None:
        follow_transform(self.layer, self.image)

    def _on_image_renamed(self) -> None:
        if "image" in facts_of(self.layer):
            set_facts(self.layer, image=self.image.name)

    def _dress_next_point(self) -> None:
        # napari would give it the looks of the selected one; gray from the start saves a redraw.
        layer = self.layer
        with napari_call(), layer.block_update_properties():
            if layer.face_color_mode == "direct" and layer.current_face_color != PENDING_COLOUR:
                layer.current_face_color = PENDING_COLOUR
            if layer.border_color_mode == "direct":
                if layer.current_border_color != appearance.BORDER_COLOUR:
                    layer.current_border_color = appearance.BORDER_COLOUR
                layer.current_border_width = appearance.PLAIN_WIDTH
            layer.current_symbol = "disc"

    def _take_new_rows(self) -> None:
        new = np.array(self.layer.data[len(self.table) :], dtype=float)
        rows = self.table.append(new, uids=self._replaying or None)
        self._place(rows)
        self._push(rows, tell=self.rows_added)
        self._tell(Gesture.ADDED, [str(u) for u in self.table.uids[rows]])
        outside = int(self.table.outside[rows].sum())
        if outside:
            self._tell_outside(outside)
        inside = [str(uid) for uid in self.table.uids[rows[~self.table.outside[rows]]]]
        if inside and self._score_new and self._replaying is None:
            self.scoring_requested.emit(inside)

    def _forget_rows(self, rows: Rows) -> None:
        gone = self.table.delete(rows)
        self.rows_reset.emit()
        self._tell(Gesture.DELETED, gone)
        if gone:
            self.answer_unwanted.emit(gone)

    def _match_by_position(self) -> None:
        """Find out what became of each nucleus when rows cannot be followed one by one."""
        table = self.table
        data = np.array(self.layer.data, dtype=float).reshape(-1, 2)
        if len(data) == len(table):
            moved = np.flatnonzero((data != table.positions).any(axis=1))
            if not is_permutation(data[moved], table.positions[moved]):
                self._take_moves(data, moved)
                return
        source = rows_before(table.positions, data)
        kept = source[source >= 0]
        gone = [str(u) for u in table.uids[np.setdiff1d(np.arange(len(table)), kept)]]
        table.keep(kept)
        is_new = source < 0
        fresh = table.append(data[is_new])
        # Rows now lie kept first, new last; the layer has them where it has them.
        order = np.empty(len(data), dtype=np.intp)
        order[~is_new], order[is_new] = np.arange(len(kept)), fresh
        table.keep(order)
        self._place(np.arange(len(table)))
        self._push(np.arange(len(table)), tell=self.rows_reset)
        if gone:
            self.answer_unwanted.emit(gone)
        self._tell(Gesture.DELETED, gone)
        self._tell(Gesture.ADDED, [str(u) for u in table.uids[is_new]])
        new = [str(u) for u in table.uids[is_new & ~table.outside]]
        if is_new.any() and int((is_new & table.outside).sum()):
            self._tell_outside(int((is_new & table.outside).sum()))
        if new:
            self.scoring_requested.emit(new)

    def _take_moves(self, data: NDArray[np.float64], moved: Rows) -> None:
        table = self.table
        if not len(moved):
            return
        was_outside = int(table.outside[moved].sum())
        table.move(moved, data[moved])
        self._place(moved)
        self._push(moved)
        self._tell(Gesture.MOVED, [str(u) for u in table.uids[moved]])
        outside = int(table.outside[moved].sum())
        if outside > was_outside:
            self._tell_outside(outside)
        inside = [str(u) for u in table.uids[moved[~table.outside[moved]]]]
        if len(inside) < len(moved):  # an answer for where they were must not reach them now
            self.answer_unwanted.emit([str(u) for u in table.uids[moved[table.outside[moved]]]])
        if inside and self._replaying is None:
            self.scoring_requested.emit(inside)

    def _tell(self, gesture: Gesture, uids: list[str]) -> None:
        if uids and self._replaying is None:
            self.happened.emit(gesture, uids)

    def _tell_outside(self, count: int) -> None:
        height, width = self._shape
        where = f"outside '{self.image.name}' ({height} x {width} pixels)"
        self.notice.emit(
            f"1 nucleus lies {where} and is not scored; drag it back or delete it."
            if count == 1
            else f"{count} nuclei lie {where} and are not scored; drag them back or delete them."
        )

    # Writing back.

    def _place(self, rows: Rows) -> None:
        """Work out which rows lie off the image."""
        table = self.table
        limit = np.array(self._shape, dtype=float) - 0.5
        position = table.positions[rows]
        with np.errstate(invalid="ignore"):
            inside = ((position >= -0.5) & (position <= limit)).all(axis=1)
        table.outside[rows] = ~inside
        table.pending[rows] &= inside
        table.mark(rows)

    def _push(self, rows: Rows, *, tell: SignalInstance | None = None) -> None:
        """Write rows into napari's feature table, look and, once, its events."""
        if len(rows):
            self._write_features(rows)
            self._repaint(rows)
        if tell is not None:
            tell.emit()
        elif len(rows):
            self.rows_changed.emit(rows)

    def _write_features(self, rows: Rows) -> None:
        frame = self.layer.features
        if len(frame) != len(self.table) or any(n not in frame for n in FEATURE_COLUMNS):
            self._restore_features()
            return
        columns = self.table.features
        if len(rows) <= BY_CELL:
            at = [(frame.columns.get_loc(name), columns[name]) for name in FEATURE_COLUMNS]
            for row in rows:
                for place, column in at:
                    frame.iat[row, place] = column[row]
        else:
            for name in FEATURE_COLUMNS:
                frame[name] = columns[name].copy()
        self._announce()

    def _restore_features(self) -> None:
        frame = self.layer.features
        if len(frame) == len(self.table):
            for name in FEATURE_COLUMNS:
                frame[name] = self.table.features[name].copy()
            self._announce()

    def _announce(self) -> None:
        self._writing = True
        try:
            with napari_call():
                self.layer.events.features()
        finally:
            self._writing = False

    def _take_corrections(self) -> None:
        """A correction typed into napari's feature table, or set by a script, is the user's."""
        theirs = self.layer.features.get("correction")
        if theirs is None:
            self._restore_features()
            return
        values = theirs.fillna("").to_numpy(dtype=object)
        rows = np.flatnonzero(values != self.table.features["correction"])
        if len(rows):
            self.table.features["correction"][rows] = [str(v) for v in values[rows]]
            self.table.mark(rows)
            self._push(rows)
            self._tell(Gesture.CORRECTED, [str(u) for u in self.table.uids[rows]])

    def _repaint(self, rows: Rows) -> None:
        if appearance.paint(self.layer, self.table, rows):
            # One event redraws faces, borders and symbols; three would upload three times.
            with napari_call():
                self.layer.events.face_color()


def _uids(table: NucleusTable, mask: NDArray[np.bool_]) -> list[str]:
    return [str(uid) for uid in table.uids[mask]]


def _transform_events(image: Image) -> list[Any]:
    return [getattr(image.events, name) for name in TRANSFORM]
