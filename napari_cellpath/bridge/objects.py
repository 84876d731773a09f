"""Controller of one layer of objects: what the user does to points becomes requests, by uid.

It never touches a viewer, Qt or the backend: it says what should be scored or forgotten, and
takes answers. What is particular to nuclei or to cells stands in its subclasses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.bridge.columns import ObjectTable, Rows
from napari_cellpath.bridge.followed import FollowedPoints, Gesture
from napari_cellpath.bridge.kept import Kept
from napari_cellpath.bridge.scheme import Call, Scheme
from napari_cellpath.bridge.timing import napari_call, timed

FEW = 100


class ObjectLayer(FollowedPoints):
    """One points layer of objects over one image."""

    # What is known.

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
        """Row of the next (+1) or previous (-1) doubtful one from the selected, going round."""
        rows = self.doubtful()
        if not len(rows):
            return None
        selected = self.table.rows(self.selected())
        here = int(selected[-1]) if len(selected) else (-1 if step > 0 else len(self))
        later = rows[rows > here] if step > 0 else rows[rows < here][::-1]
        return int(later[0]) if len(later) else int(rows[0] if step > 0 else rows[-1])

    def unseen(self) -> Rows:
        """Scored rows nobody has looked at yet, the most urgent first."""
        table = self.table
        score = table.features["score"]
        rows = np.flatnonzero(~table.features["seen"] & ~np.isnan(score) & ~table.outside)
        return rows[np.argsort(table.urgency[rows], kind="stable")]

    def counts(self) -> list[int]:
        """How many objects stand in each class of the scheme; a correction counts for the call."""
        table = self.table
        code = np.where(table.correction_code >= 0, table.correction_code, table.call_code)
        code = code[(code >= 0) & ~table.outside]
        return [int(n) for n in np.bincount(code, minlength=len(table.scheme.classes))]

    def wanted(self, uids: Iterable[str]) -> tuple[Any, ...]:
        """Those of these objects that exist and lie on the image, as a request names them."""
        raise NotImplementedError

    def thing_at(self, position: NDArray[np.float64], uid: str) -> Any:
        """What a click at this place, (2,) pixels, would have asked for; None if nothing can be."""
        del position, uid

    # What the dock does.

    @timed
    def write(self, calls: Sequence[Call], settings: tuple[Any, ...]) -> None:
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
        """Write what a person says of these objects; an empty label takes it back."""
        rows = self.table.rows(uids)
        self.table.correct(rows, label)
        self._push(rows)
        self._tell(Gesture.CORRECTED, [str(u) for u in self.table.uids[rows]])

    @timed
    def see(self, uids: Iterable[str]) -> None:
        """Note that a person has looked at these objects."""
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
        rows = self.table.rows(uids)
        calls = self.table.features["call"][rows]
        for label in sorted({*calls} - {""}):
            self.correct([str(u) for u in self.table.uids[rows[calls == label]]], label)
        return int((calls != "").sum())

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
        uids: Sequence[str] | None = None,
    ) -> list[str]:
        """Add objects as if they had been clicked; returns their uids.

        With ``score`` false they wait until somebody asks for their scores. ``uids`` are theirs
        from the start, fresh ones if None.
        """
        start = len(self.table)
        new = np.asarray(positions, dtype=float).reshape(-1, 2)
        self._score_new = score
        self._given = uids
        try:
            self._append(new)
        finally:
            self._score_new, self._given = True, None
        rows = np.arange(start, len(self.table))
        if ids is not None:
            self.table.features["id"][rows] = list(ids)
            self._push(rows)
        return [str(uid) for uid in self.table.uids[rows]]

    def _append(self, positions: NDArray[np.float64]) -> None:
        if len(positions) <= FEW:
            self.layer.add(positions)
            return
        # add() would select each of them: 5 s for 100,000.
        with napari_call():
            self.layer.data = np.concatenate([np.asarray(self.layer.data), positions])

    def select(self, uids: Iterable[str]) -> None:
        """Make these the selected points."""
        rows = {int(r) for r in self.table.rows(uids)}
        if rows != set(self.layer.selected_data):
            with napari_call():
                self.layer.selected_data = rows

    # What comes out of the journal: nothing of it is told on, and nothing is scored for it.

    @timed
    def take_away(self, uids: Iterable[str]) -> None:
        """Remove objects."""
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
        """Make objects what the journal holds of them; those that are not there are added."""
        positions = {k.uid: k.position for k in kept}
        new = [k for k in kept if k.uid not in self.table]
        selected = self.selected()  # napari selects what is added
        self._replaying = [k.uid for k in new]
        try:
            if new:
                self._append(np.array([k.position for k in new], dtype=float))
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


def _uids(table: ObjectTable, mask: NDArray[np.bool_]) -> list[str]:
    return [str(uid) for uid in table.uids[mask]]
