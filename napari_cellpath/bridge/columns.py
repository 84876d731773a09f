"""One table of facts about objects, kept as NumPy columns beside napari's feature table.

napari's table is a view of this one, written where rows changed. Keeping our own columns means
that an answer for one object among 100,000 touches one row, that nothing is lost when another
plugin replaces the features, and that counts are NumPy sums.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_cellpath.bridge.conventions import FEATURE_COLUMNS
from napari_cellpath.bridge.kept import Kept, Remembered
from napari_cellpath.bridge.scheme import Call, Scheme
from napari_cellpath.core.requests import new_uid
from napari_cellpath.core.results import NucleusCall
from napari_cellpath.core.vocabulary import UNLIKE_FLAGS

Rows = NDArray[np.intp]
_FLAGS = ("pending", "moved", "outside", "final", "unlike")


class ObjectTable:
    """Facts about n objects by row, and rows by uid.

    What the numbers of a call are, its subclasses know.

    Attributes
    ----------
    features
        The `columns`, name -> (n,) array.
    positions
        (n, 2) level-0 (row, col) as last seen.
    calls
        Latest call by uid.
    pending, moved, outside, final, unlike
        (n,) flags: asked for and unanswered; moved since the call; not on the image; the call is
        that of all views that were asked for; the cell is unlike those the model learned from.
    call_code, correction_code
        (n,) index into the scheme's classes, -1 for none or a class of another model.
    """

    def __init__(self, scheme: Scheme, columns: Mapping[str, Any] = FEATURE_COLUMNS) -> None:
        self.scheme = scheme
        self.columns = dict(columns)
        self.features: dict[str, NDArray[Any]] = self.blank(0)
        self.positions = np.zeros((0, 2))
        self.calls: dict[str, Call] = {}
        self._settings: dict[str, tuple[Any, ...] | None] = {}
        self._replaced: dict[str, tuple[Call, tuple[Any, ...] | None]] = {}
        for name in _FLAGS:
            setattr(self, name, np.zeros(0, dtype=bool))
        self.pending: NDArray[np.bool_]
        self.moved: NDArray[np.bool_]
        self.outside: NDArray[np.bool_]
        self.final: NDArray[np.bool_]
        self.unlike: NDArray[np.bool_]
        self.call_code = np.zeros(0, dtype=np.int16)
        self.correction_code = np.zeros(0, dtype=np.int16)
        self._row_of: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.positions)

    def __contains__(self, uid: str) -> bool:
        return uid in self._row_of

    @property
    def uids(self) -> NDArray[Any]:
        """(n,) uids by row."""
        return self.features["uid"]

    @property
    def has_call(self) -> NDArray[np.bool_]:
        """(n,) whether an answer stands in the row (its score may be NaN: not finite)."""
        return self.features["n_views"] > 0

    @property
    def unassessable(self) -> NDArray[np.bool_]:
        """(n,) whether the answer was that there is none."""
        return self.has_call & np.isnan(self.features["score"])

    @property
    def doubtful(self) -> NDArray[np.bool_]:
        """(n,) whether the call lies in the review band and nobody has decided yet."""
        near = self.margins <= self.scheme.band + 1e-12
        return near & (self.features["correction"] == "")

    @property
    def margins(self) -> NDArray[np.float64]:
        """(n,) how clear each call is, 0 a toss-up; NaN where there is none."""
        raise NotImplementedError

    def clearness(self) -> NDArray[np.float64]:
        """(n,) margins as a review sorts by."""
        return self.margins

    @property
    def urgency(self) -> NDArray[np.float64]:
        """(n,) what is to be looked at first has the smallest."""
        raise NotImplementedError

    def told(self, call: Call) -> str:
        """What the column ``call`` says of an answer, as it was given."""
        return call.label

    def take_numbers(self, rows: Sequence[int], calls: Sequence[Any]) -> None:
        """Write what only calls of this kind say into the columns."""
        raise NotImplementedError

    def call_from_columns(self, row: int) -> Call:
        """The call that stands in the columns, as far as they tell."""
        raise NotImplementedError

    def blank(self, count: int) -> dict[str, NDArray[Any]]:
        """Columns of ``count`` objects nothing is known of."""
        return {
            name: np.full(count, blank, dtype=object if isinstance(blank, str) else type(blank))
            for name, blank in self.columns.items()
        }

    def rows(self, uids: Iterable[str]) -> Rows:
        """Rows of those uids that exist, in the order given."""
        found = (self._row_of.get(uid) for uid in uids)
        return np.array([row for row in found if row is not None], dtype=np.intp)

    def places(self, uids: Iterable[str]) -> Rows:
        """Row of each uid, -1 where it is not here."""
        return np.array([self._row_of.get(uid, -1) for uid in uids], dtype=np.intp)

    def append(
        self,
        positions: NDArray[np.float64],
        ids: Sequence[str] | None = None,
        uids: Sequence[str] | None = None,
    ) -> Rows:
        """Add objects nothing is known of, with fresh uids unless given; returns their rows."""
        start, count = len(self), len(positions)
        new = self.blank(count)
        new["uid"][:] = list(uids) if uids is not None else [new_uid() for _ in range(count)]
        if ids is not None:
            new["id"][:] = list(ids)
        self._extend(new, positions)
        return np.arange(start, start + count)

    def remember(self) -> dict[str, Remembered]:
        """What the columns do not tell of each object, by uid; for `adopt`."""
        rows = zip(self.uids, self.positions.tolist(), self.moved.tolist(), strict=True)
        return {
            str(uid): Remembered(tuple(at), self.calls.get(uid), self._settings.get(uid), moved)
            for uid, at, moved in rows
        }

    def adopt(
        self, frame: pd.DataFrame, positions: NDArray[np.float64], taken: set[str],
        before: Mapping[str, Remembered] | None = None,
    ) -> None:  # fmt: skip
        """Take over a layer that already carries our columns (duplicated, or reopened).

        A uid that another layer owns, or that stands twice, is replaced: results are written by
        uid and must reach one object. The second of two is a new object that napari gave the
        features of an old one: nothing is known of it.

        Parameters
        ----------
        frame, positions, taken
            The layer's features and places, and uids that other layers own.
        before
            What a table of this layer remembered when it let go of it: an object that is
            elsewhere now has a call of another place.
        """
        new = self.blank(len(positions))
        for name in self.columns:
            if name in frame:
                new[name][:] = _as_column(frame[name].to_numpy(), new[name])
        before = before or {}
        seen, here = set(taken), set[str]()
        for row, uid in enumerate(new["uid"]):
            if uid and uid in here:
                for name, blank in self.columns.items():
                    new[name][row] = blank
            here.add(uid)
            if not uid or uid in seen:
                new["uid"][row] = new_uid()
            seen.add(new["uid"][row])
        were = positions.copy()
        for row, uid in enumerate(new["uid"]):
            if str(uid) in before:
                were[row] = before[str(uid)].at
        self._extend(new, were)
        self.moved[:] = self.features["stale"]
        self.final[:] = self.has_call
        self.unlike[:] = [not UNLIKE_FLAGS.isdisjoint(f.split()) for f in self.features["flags"]]
        for row in np.flatnonzero(self.has_call).tolist():
            uid = str(self.uids[row])
            call, settings = self.call_from_columns(row), None
            known = before.get(uid)
            if known is not None and known.call is not None:
                call, settings = known.call, known.settings
                self.final[row], self.moved[row] = call.final, known.moved
            self.calls[uid], self._settings[uid] = call, settings
        elsewhere = np.flatnonzero((were != positions).any(axis=1))
        self.move(elsewhere, positions[elsewhere])
        self.reread()

    def delete(self, rows: Rows) -> list[str]:
        """Remove rows; returns their uids."""
        gone = [str(uid) for uid in self.uids[rows]]
        self.keep(np.delete(np.arange(len(self)), rows))
        return gone

    def keep(self, order: Rows) -> None:
        """Keep these rows, in this order."""
        kept = set(self.uids[order])
        for uid in set(self.calls) - kept:
            self.calls.pop(uid, None)
            self._settings.pop(uid, None)
            self._replaced.pop(uid, None)
        self.features = {name: column[order] for name, column in self.features.items()}
        self.positions = self.positions[order]
        for name in (*_FLAGS, "call_code", "correction_code"):
            setattr(self, name, getattr(self, name)[order])
        self._row_of = {str(uid): row for row, uid in enumerate(self.uids)}

    def write(self, calls: Sequence[Call], settings: tuple[Any, ...]) -> Rows:
        """Take in answers by uid; unknown uids are dropped, corrections are never touched."""
        rows: dict[int, Call] = {}
        for call in calls:
            row = self._row_of.get(call.uid)
            if row is not None:
                rows[row] = call
        for row, call in rows.items():
            if call.final:
                self._replaced.pop(call.uid, None)
            elif self.final[row] and not self.moved[row]:
                # A first estimate must not cost a finished score if the rest never comes.
                self._replaced[call.uid] = self.calls[call.uid], self._settings[call.uid]
            self.pending[row] = not call.final
            self.moved[row] = False
        self._set_calls(rows, settings)
        changed = np.array(sorted(rows), dtype=np.intp)
        self._read(changed)
        return changed

    def give_up(self, rows: Rows) -> Rows:
        """No answer, or none better, will come: finished calls that were being replaced return.

        A call that has none to return to stays, as stale: not all its views are in. Returns the
        rows that still waited.
        """
        rows = rows[self.pending[rows]]
        self.pending[rows] = False
        for row in rows:
            before = self._replaced.pop(str(self.uids[row]), None)
            if before is not None and not self.final[row]:
                self._set_call(row, *before)
        self._read(rows)
        return rows

    def _set_call(self, row: int, call: Call, settings: tuple[Any, ...] | None) -> None:
        self._set_calls({row: call}, settings)

    def _set_calls(self, calls: Mapping[int, Call], settings: tuple[Any, ...] | None) -> None:
        # Column by column: 250 answers at a time must not hold up the canvas.
        rows, given, columns = list(calls), list(calls.values()), self.features
        for call in given:
            self.calls[call.uid] = call
            self._settings[call.uid] = settings
        columns["score"][rows] = [call.score for call in given]
        columns["n_views"][rows] = [call.n_views for call in given]
        columns["model"][rows] = [call.model for call in given]
        columns["precision"][rows] = [call.precision for call in given]
        columns["flags"][rows] = [" ".join(call.flags) for call in given]
        self.unlike[rows] = [not UNLIKE_FLAGS.isdisjoint(call.flags) for call in given]
        self.final[rows] = [call.final for call in given]
        self.take_numbers(rows, given)

    def move(self, rows: Rows, positions: NDArray[np.float64]) -> None:
        """Objects are somewhere else now: their calls are of another place."""
        self.positions[rows] = positions
        self.moved[rows] = self.has_call[rows]
        for uid in self.uids[rows]:
            self._replaced.pop(str(uid), None)

    def correct(self, rows: Rows, label: str) -> None:
        """Set or, with an empty label, take back what a person says."""
        self.features["correction"][rows] = label
        self.features["seen"][rows] = True
        self._read(rows)

    def restore(self, kept: Sequence[Kept]) -> Rows:
        """Set everything but the place of objects that are there; returns their rows.

        A call made for another place is there, and stale.
        """
        rows = self.rows(k.uid for k in kept)
        for row, thing in zip(rows, (k for k in kept if k.uid in self), strict=True):
            self.features["id"][row] = thing.id
            self.features["correction"][row] = thing.correction
            self.features["seen"][row] = thing.seen
            self.features["readings"][row] = thing.readings
            self.pending[row] = False
            self._replaced.pop(thing.uid, None)
            if thing.call is not None:
                self._set_call(row, thing.call, None)
                self.moved[row] = thing.moved
        self._read(rows)
        return rows

    def reread(self, scheme: Scheme | None = None) -> None:
        """Read every score again, after threshold, classes or settings changed."""
        self.scheme = self.scheme if scheme is None else scheme
        self._read(np.arange(len(self)))

    def see(self, rows: Rows) -> Rows:
        """Note that a person looked at these; returns those nobody had looked at before."""
        new = rows[~self.features["seen"][rows]]
        self.features["seen"][new] = True
        return new

    def mark(self, rows: Rows) -> None:
        """Bring ``stale`` up to date after rows moved, left the image or are asked for."""
        self._read(rows)

    def call_of(self, uid: str) -> Call | None:
        """The call as read now: label and threshold are the current ones, unless stale."""
        call = self.calls.get(uid)
        if call is None:
            return None
        row = self._row_of[uid]
        if not self._comparable(uid):
            return call
        label = str(self.features["call"][row])
        if isinstance(call, NucleusCall):
            return replace(call, label=label, threshold=self.scheme.threshold)
        return replace(call, label=label)

    def _comparable(self, uid: str) -> bool:
        settings = self._settings.get(uid)
        if settings is not None:
            return settings == self.scheme.settings
        return self.calls[uid].model.split("@")[0] == self.scheme.model

    def _read(self, rows: Rows) -> None:
        codes = {name: code for code, name in enumerate(self.scheme.classes)}
        call, stale = self.features["call"], self.features["stale"]
        if len(rows) > 1000:
            self._read_many(rows, codes)
            return
        for row in rows:
            uid = self.uids[row]
            answer = self.calls.get(uid)
            if answer is not None:
                same = self._comparable(uid)
                call[row] = self.scheme.label(answer) if same else self.told(answer)
                stopped = not (self.final[row] or self.pending[row])
                stale[row] = bool(self.moved[row]) or not same or stopped
            self.call_code[row] = codes.get(call[row], -1)
            self.correction_code[row] = codes.get(self.features["correction"][row], -1)

    def _read_many(self, rows: Rows, codes: dict[str, int]) -> None:
        # The same in a few passes: a slider dragged over 100,000 objects must not lag.
        uids, scheme = self.uids[rows], self.scheme
        answers = [self.calls.get(uid) for uid in uids]
        have = np.array([answer is not None for answer in answers], dtype=bool)
        said = self.features["correction"][rows]
        self.correction_code[rows] = [codes.get(x, -1) if x else -1 for x in said]
        if not have.any():
            return
        same = np.array(
            [
                answer is not None and self._comparable(uid)
                for uid, answer in zip(uids, answers, strict=True)
            ],
            dtype=bool,
        )
        labels = np.array(["" if a is None else self.told(a) for a in answers], dtype=object)
        if scheme.by_threshold:
            over = self.features["score"][rows] > scheme.threshold
            names = np.array(scheme.classes, dtype=object)
            yes = scheme.abnormal.index(True)
            same_and_known = same & ~np.isnan(self.features["score"][rows])
            labels[same_and_known] = names[np.where(over[same_and_known], yes, 1 - yes)]
        self.features["call"][rows] = labels
        stopped = ~(self.final[rows] | self.pending[rows])
        self.features["stale"][rows] = have & (self.moved[rows] | ~same | stopped)
        self.call_code[rows] = [codes.get(label, -1) for label in labels]

    def _extend(self, new: dict[str, NDArray[Any]], positions: NDArray[np.float64]) -> None:
        start, count = len(self), len(positions)
        self.features = {n: np.concatenate((self.features[n], new[n])) for n in self.columns}
        self.positions = np.concatenate((self.positions, positions))
        for name in _FLAGS:
            setattr(self, name, np.concatenate((getattr(self, name), np.zeros(count, dtype=bool))))
        codes = np.full(count, -1, dtype=np.int16)
        self.call_code = np.concatenate((self.call_code, codes))
        self.correction_code = np.concatenate((self.correction_code, codes))
        for offset, uid in enumerate(new["uid"]):
            self._row_of[str(uid)] = start + offset


def _as_column(values: NDArray[Any], like: NDArray[Any]) -> NDArray[Any]:
    """Values of somebody else's column in our type; what does not fit becomes blank."""
    if like.dtype == object:
        return np.array(["" if pd.isna(v) else str(v) for v in values], dtype=object)
    numbers = pd.to_numeric(pd.Series(values), errors="coerce").to_numpy(dtype=float)
    if like.dtype == float:
        return numbers
    return np.nan_to_num(numbers).astype(like.dtype)
