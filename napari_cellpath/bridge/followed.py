"""A points layer and our table of its objects, kept the same whatever napari does to points.

What napari does to us, and what we do about it:

- a new point inherits the features and colours of the selected or last one, diagnosis
  included: every new row is blanked and given a uid of its own;
- ``data_indices`` of an added event may be (-1,): new rows are counted, not looked up;
- pasting emits no data event at all: any redraw with more points than we know is one;
- ``layer.data = ...`` keeps feature rows by index though points may have gone from the middle:
  objects are matched by their coordinates;
- replacing ``layer.features`` may drop our columns: they are put back.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any, ClassVar

import numpy as np
from napari.layers import Image, Points
from napari.layers.base import ActionType
from napari.utils.notifications import show_warning
from numpy.typing import NDArray
from psygnal import Signal, SignalInstance

from napari_cellpath.bridge import appearance
from napari_cellpath.bridge.columns import ObjectTable, Rows
from napari_cellpath.bridge.conventions import (
    PENDING_COLOUR,
    TRANSFORM,
    facts_of,
    follow_transform,
    image_shape,
    set_facts,
)
from napari_cellpath.bridge.feature_frame import FeatureFrame
from napari_cellpath.bridge.kept import Remembered
from napari_cellpath.bridge.kinds import Kind
from napari_cellpath.bridge.matching import is_permutation, rows_before
from napari_cellpath.bridge.scheme import Scheme
from napari_cellpath.bridge.timing import napari_call, timed


class Gesture(StrEnum):
    """What may be done to objects."""

    ADDED = "added"
    DELETED = "deleted"
    MOVED = "moved"
    CORRECTED = "corrected"
    SCORED = "scored"
    SEEN = "seen"
    READ = "read"  # by a blind second reader


_remembered: weakref.WeakKeyDictionary[Points, dict[str, Remembered]]
_remembered = weakref.WeakKeyDictionary()
"""What was known of the objects of layers that nothing follows any more: docks come and go."""

_BEFORE = (ActionType.ADDING, ActionType.REMOVING, ActionType.CHANGING)


class FollowedPoints:
    """One points layer over one image, and the table of what is known of its objects.

    It owns its connections to the layer and drops them in `close`.

    Parameters
    ----------
    layer, image
        The points, and the image their coordinates are pixels of.
    scheme
        How scores are read now.
    taken
        Uids that other layers own: a duplicated layer gets new ones.
    """

    kind: ClassVar[Kind]

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
        self._shape = image_shape(image)
        self.table = self.make_table(scheme)
        self._changing = False
        self._frame = FeatureFrame(layer, self.table)
        self._score_new = True
        self._replaying: Sequence[str] | None = None
        self._given: Sequence[str] | None = None
        self._expected: tuple[NDArray[np.float64], str] | None = None
        self._closed = False
        self._refuse_nowhere(np.arange(len(layer.data)))
        data = np.array(layer.data, dtype=float)
        self.table.adopt(layer.features, data, set(taken), _remembered.pop(layer, None))
        self._place(np.arange(len(self.table)))
        self._frame.restore()
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
        _remembered[self.layer] = self.table.remember()
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

    def make_table(self, scheme: Scheme) -> ObjectTable:
        """An empty table of these objects."""
        raise NotImplementedError

    def faces(self, rows: Rows) -> NDArray[np.float64]:
        """Face colours (k, 4) of rows."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.table)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the image's level 0."""
        return self._shape

    def expect(self, position: NDArray[np.float64], uid: str) -> None:
        """Give the next point this uid if it is added at this very place."""
        self._expected = np.asarray(position, dtype=float), uid

    def selected(self) -> list[str]:
        """Uids of the selected points."""
        rows = [r for r in sorted(self.layer.selected_data) if r < len(self.table)]
        return [str(uid) for uid in self.table.uids[rows]]

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
        if self._frame.writing or self._changing or len(self.layer.features) != len(self.table):
            return
        frame = self.layer.features
        if "uid" in frame and np.array_equal(frame["uid"].to_numpy(dtype=object), self.table.uids):
            self._take_corrections()
            return
        self._frame.restore()

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
        expected = self._as_expected(new)
        rows = self.table.append(new, uids=self._replaying or self._given or expected)
        self._place(rows)
        uids = [str(uid) for uid in self.table.uids[rows]]
        if self._refuse_nowhere(rows):
            rows = self.table.rows(uids)
        self._push(rows, tell=self.rows_added)
        self._tell(Gesture.ADDED, [str(u) for u in self.table.uids[rows]])
        outside = int(self.table.outside[rows].sum())
        if outside:
            self._tell_outside(outside)
        inside = [str(uid) for uid in self.table.uids[rows[~self.table.outside[rows]]]]
        if inside and self._score_new and self._replaying is None:
            self.scoring_requested.emit(inside)

    def _refuse_nowhere(self, rows: Rows) -> int:
        """Remove points without a place (NaN, infinite): nobody can see, keep or export them."""
        data = np.asarray(self.layer.data, dtype=float)[rows]
        nowhere = rows[~np.isfinite(data).all(axis=1)]
        if len(nowhere):
            before, self._replaying = self._replaying, ()  # nobody is told: they never were
            try:
                with napari_call():
                    self.layer.selected_data = set(nowhere.tolist())
                    self.layer.remove_selected()
            finally:
                self._replaying = before
            what = self.kind.count(len(nowhere))
            show_warning(f"{what} of '{self.layer.name}' had no position (nan) and was left out.")
        return len(nowhere)

    def _as_expected(self, new: NDArray[np.float64]) -> list[str] | None:
        expected, self._expected = self._expected, None
        if expected is None or len(new) != 1 or not np.array_equal(new[0], expected[0]):
            return None
        return [expected[1]]

    def _forget_rows(self, rows: Rows) -> None:
        gone = self.table.delete(rows)
        self.rows_reset.emit()
        self._tell(Gesture.DELETED, gone)
        if gone:
            self.answer_unwanted.emit(gone)

    def _match_by_position(self) -> None:
        """Find out what became of each object when rows cannot be followed one by one."""
        table = self.table
        data = np.array(self.layer.data, dtype=float).reshape(-1, 2)
        known = len(table)
        if len(data) > known and np.array_equal(data[:known], table.positions, equal_nan=True):
            self._take_new_rows()
            return
        if len(data) == known:
            nowhere = ~np.isfinite(data).all(axis=1)
            if nowhere.any():
                data[nowhere] = table.positions[nowhere]
                what = self.kind.count(int(nowhere.sum()))
                show_warning(
                    f"{what} of '{self.layer.name}' was moved to no position (nan); undone."
                )
                self.layer.data = data  # comes back here with what else was moved
                return
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
        uids = [str(uid) for uid in table.uids[is_new]]
        self._refuse_nowhere(np.arange(len(table)))
        is_new = np.isin(table.uids, uids)
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
        are, them = ("is", "it") if count == 1 else ("are", "them")
        lie = "lies" if count == 1 else "lie"
        self.notice.emit(
            f"{self.kind.count(count)} {lie} {where} and {are} not {self.kind.done}; "
            f"drag {them} back or delete {them}."
        )

    # Writing back.

    def inside(self, positions: NDArray[np.float64]) -> NDArray[np.bool_]:
        """(k,) which positions (k, 2) lie on the image."""
        limit = np.array(self._shape, dtype=float) - 0.5
        with np.errstate(invalid="ignore"):
            return np.asarray(((positions >= -0.5) & (positions <= limit)).all(axis=1))

    def _place(self, rows: Rows) -> None:
        """Work out which rows lie off the image."""
        table = self.table
        inside = self.inside(table.positions[rows])
        table.outside[rows] = ~inside
        table.pending[rows] &= inside
        table.mark(rows)

    def _push(self, rows: Rows, *, tell: SignalInstance | None = None) -> None:
        """Write rows into napari's feature table, look and, once, its events."""
        if len(rows):
            self._frame.write(rows)
            self._repaint(rows)
        if tell is not None:
            tell.emit()
        elif len(rows):
            self.rows_changed.emit(rows)

    def _take_corrections(self) -> None:
        """A correction typed into napari's feature table, or set by a script, is the user's."""
        theirs = self.layer.features.get("correction")
        if theirs is None:
            self._frame.restore()
            return
        values = theirs.fillna("").to_numpy(dtype=object)
        rows = np.flatnonzero(values != self.table.features["correction"])
        names = () if self.kind.several else self.table.scheme.classes
        wrong = [str(v) for v in values[rows] if v and names and str(v) not in names]
        if wrong:
            self.notice.emit(f"'{wrong[0]}' is no class; a correction is {' or '.join(names)}.")
            self._push(rows)
            return
        if len(rows):
            self.table.features["correction"][rows] = [str(v) for v in values[rows]]
            self.table.mark(rows)
            self._push(rows)
            self._tell(Gesture.CORRECTED, [str(u) for u in self.table.uids[rows]])

    def _repaint(self, rows: Rows) -> None:
        if appearance.paint(self.layer, self.table, rows, self.faces(rows)):
            # One event redraws faces, borders and symbols; three would upload three times.
            with napari_call():
                self.layer.events.face_color()


def _transform_events(image: Image) -> list[Any]:
    return [getattr(image.events, name) for name in TRANSFORM]
