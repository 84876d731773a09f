"""Regions of red cells on a points layer: each point carries its box, its types, its verdict.

What a model says (``call``, ``score``) and what a person says (``correction``) are sets of types
and stand side by side. From both follows the verdict: types that a person flipped count with
probability 1 or 0, the others as the model gave them, and the model's booster judges anew.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.bridge import appearance
from napari_cellpath.bridge.boxed import BoxedLayer, BoxTable, centres_of
from napari_cellpath.bridge.columns import Rows
from napari_cellpath.bridge.conventions import PENDING_COLOUR
from napari_cellpath.bridge.followed import Gesture
from napari_cellpath.bridge.kinds import P_COLUMN, RED_CELLS
from napari_cellpath.bridge.scheme import Call, Scheme
from napari_cellpath.bridge.timing import napari_call, timed
from napari_cellpath.core.annotations import joined, parted
from napari_cellpath.core.results import RegionCall
from napari_cellpath.core.vocabulary import ABNORMAL, NO_TYPE, NORMAL

Judge = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Probabilities (n, types) to the probability (n,) that the region holds an abnormal cell."""

VERDICT_COLOURS = {NORMAL: "#0072b2", ABNORMAL: "#d55e00"}
_VERDICTS = np.array([NORMAL, ABNORMAL, ""], dtype=object)  # by code; the last, at -1, is none


@dataclass(frozen=True)
class RegionScheme(Scheme):
    """How answers on regions are read.

    ``threshold`` is that of the verdict, ``thresholds`` those of the types. ``judge`` is None
    until the model's booster was read: then the verdict follows from the types alone.
    """

    thresholds: tuple[float, ...] = ()
    judge: Judge | None = field(default=None, compare=False)

    @property
    def by_threshold(self) -> bool:
        """No threshold decides between types: a region may hold several."""
        return False

    def label(self, call: Call) -> str:
        """The types a call amounts to, as one text."""
        return types_told(call)


def types_told(call: Call) -> str:
    """The types that an answer names, as one text; empty where it names none."""
    return joined(call.labels) if isinstance(call, RegionCall) else call.label


class RedCellTable(BoxTable):
    """Facts about n regions: a box, the probability of each type, and the verdict.

    ``call_code`` is the verdict: 0 normal, 1 abnormal, -1 none.
    """

    scheme: RegionScheme

    def __init__(self, scheme: Scheme, shape: tuple[int, int]) -> None:
        self._sets: dict[str, NDArray[np.bool_]] = {}
        super().__init__(scheme, shape, RED_CELLS.columns)

    def told(self, call: Call) -> str:
        """The types of an answer."""
        return types_told(call)

    def call_of(self, uid: str) -> Call | None:
        """The call as it was given: the verdict that follows stands in the columns."""
        return self.calls.get(uid)

    def take_numbers(self, rows: Sequence[int], calls: Sequence[RegionCall]) -> None:
        """Write how near each call is to another one, and the probability of each type."""
        self.features["margin"][rows] = [margin_of(call, self.thresholds) for call in calls]
        self.take_probabilities(rows, calls)

    def call_from_columns(self, row: int) -> RegionCall:
        """The call that stands in the columns."""
        columns, (at_row, at_col) = self.features, centres_of(self.boxes[row])[0]
        given = tuple(float(columns[P_COLUMN + name][row]) for name in self.scheme.classes)
        score, threshold = float(columns["score"][row]), self.scheme.threshold
        return RegionCall(
            uid=str(self.uids[row]), row=float(at_row), col=float(at_col),
            labels=parted(str(columns["call"][row])),
            probabilities=() if np.isnan(given).any() else given,
            thresholds=self.thresholds, abnormal=score, abnormal_threshold=threshold,
            label="" if np.isnan(score) else ABNORMAL if score > threshold else NORMAL,
            model=str(columns["model"][row]), n_views=int(columns["n_views"][row]),
            precision=str(columns["precision"][row]),
            flags=tuple(str(columns["flags"][row]).split()),
        )  # fmt: skip

    def answers(self, uids: Iterable[str]) -> dict[str, tuple[Call, tuple[Any, ...]]]:
        """Finished calls of regions, with the settings they were made with, to be written again."""
        kept = {}
        for uid in uids:
            call, settings = self.calls.get(uid), self._settings.get(uid)
            if call is not None and call.final and settings is not None:
                kept[uid] = call, settings
        return kept

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Above which the model says that a type is there; a half each where it is not known."""
        scheme = self.scheme
        known = scheme.thresholds if isinstance(scheme, RegionScheme) else ()
        return known or (0.5,) * len(scheme.classes)

    # Sets of types.

    def sets(self, column: str, rows: Rows) -> NDArray[np.bool_]:
        """(k, types) which types of the model the texts of a column name."""
        return self._sets_of(self.features[column][rows])

    def _sets_of(self, texts: Sequence[str] | NDArray[Any]) -> NDArray[np.bool_]:
        classes = self.scheme.classes
        if not len(texts):
            return np.zeros((0, len(classes)), dtype=bool)
        known = self._sets
        for text in {*texts}.difference(known):
            said = set(parted(text))
            known[text] = np.array([name in said for name in classes], dtype=bool)
        return np.array([known[text] for text in texts], dtype=bool).reshape(
            len(texts), len(classes)
        )

    def standing(self, rows: Rows) -> NDArray[np.bool_]:
        """(k, types) what each region holds: a person's word before the model's."""
        said = (self.features["correction"][rows] != "")[:, None]
        return np.where(said, self.sets("correction", rows), self.sets("call", rows))

    def counts(self, rows: Rows) -> list[int]:
        """How many of these regions hold each type; few texts are different, so those are read."""
        said, told = (self.features[name][rows] for name in ("correction", "call"))
        texts = Counter(np.where(said != "", said, told).tolist())
        held = self._sets_of(list(texts))
        return [int(n) for n in np.array(list(texts.values()), dtype=np.intp) @ held]

    # The verdict.

    def reread(self, scheme: Scheme | None = None) -> None:
        """Read every call again, after the model or its settings changed."""
        if scheme is not None and scheme.classes != self.scheme.classes:
            self._sets.clear()
        super().reread(scheme)

    def _read(self, rows: Rows) -> None:
        super()._read(rows)
        self.correction_code[rows] = -1  # a set of types is no class with a colour of its own
        self._judge(rows)

    def _judge(self, rows: Rows) -> None:
        columns = self.features
        chance = columns["score"][rows].copy()
        decided = np.flatnonzero(columns["correction"][rows] != "")
        if len(decided):
            chance[decided] = self._judged(rows[decided])
        code = np.where(chance > self.scheme.threshold, 1, 0)
        code[np.isnan(chance)] = -1
        columns["abnormal"][rows] = chance
        columns["verdict"][rows] = _VERDICTS[code]
        self.call_code[rows] = code

    def _judged(self, rows: Rows) -> NDArray[np.float64]:
        """(k,) probability of abnormal of regions that a person spoke of."""
        scheme, said = self.scheme, self.sets("correction", rows)
        holds = (said & np.array(scheme.abnormal, dtype=bool)).any(axis=1).astype(float)
        judge = scheme.judge if isinstance(scheme, RegionScheme) else None
        p = self.probabilities(rows)
        flipped = said != self.sets("call", rows)
        same = self.features["score"][rows]
        chance = np.where(flipped.any(axis=1), holds, np.where(np.isnan(same), holds, same))
        able = np.flatnonzero(np.isfinite(p).all(axis=1) & flipped.any(axis=1))
        if judge is not None and len(able) and p.shape[1]:
            as_said = np.where(flipped[able], said[able].astype(float), p[able])
            chance[able] = judge(as_said)
        return chance


def margin_of(call: RegionCall, thresholds: Sequence[float]) -> float:
    """How clear a call is.

    ``thresholds`` of the types stand in for those of a call that came out of a journal.
    """
    known = call.thresholds or tuple(thresholds) or (0.5,) * len(call.probabilities)
    return replace(call, thresholds=known).margin


class RedCellsLayer(BoxedLayer):
    """One points layer of regions of red cells over one image."""

    kind = RED_CELLS
    table: RedCellTable

    def make_table(self, scheme: Scheme) -> RedCellTable:
        """An empty table of regions."""
        return RedCellTable(scheme, self.shape)

    def faces(self, rows: Rows) -> NDArray[np.float64]:
        """Face colours (k, 4) of rows: the verdict."""
        return verdict_colours(self.table, rows)

    def counts(self) -> list[int]:
        """How many regions hold each type; a correction counts for the call."""
        return self.table.counts(np.flatnonzero(~self.table.outside))

    def types_of(self, uid: str) -> tuple[str, ...]:
        """The types a region holds: a person's word before the model's."""
        row = self.table.rows([uid])
        here = self.table.standing(row)[0]
        return tuple(n for n, is_so in zip(self.table.scheme.classes, here, strict=True) if is_so)

    @timed
    def read_with(self, scheme: Scheme) -> None:
        """Read all answers another way; a booster that was read meanwhile judges anew."""
        before = self.table.features["abnormal"].copy()
        super().read_with(scheme)
        now = self.table.features["abnormal"]
        self._push(np.flatnonzero((before != now) & ~(np.isnan(before) & np.isnan(now))))

    # What the user does.

    def toggle(self, uids: Iterable[str], name: str) -> None:
        """Say that regions hold a type, or, where all of them do, that they do not."""
        table = self.table
        there = [uid for uid in uids if uid in table]
        at = table.scheme.classes.index(name)
        sets = table.standing(table.rows(there))
        if not len(sets):
            return
        sets[:, at] = not sets[:, at].all()
        names = table.scheme.classes
        self.correct_each(
            {
                uid: joined(n for n, is_so in zip(names, row, strict=True) if is_so) or NO_TYPE
                for uid, row in zip(there, sets, strict=True)
            }
        )

    @timed
    def correct_each(self, words: Mapping[str, str]) -> None:
        """Write what a person says of each region, as one gesture; an empty text takes it back."""
        there = [uid for uid in words if uid in self.table]
        rows = self.table.rows(there)
        self.table.features["correction"][rows] = [words[uid] for uid in there]
        self.table.features["seen"][rows] = True
        self.table.mark(rows)
        self._push(rows)
        self._tell(Gesture.CORRECTED, there)

    def accept(self, uids: Iterable[str]) -> int:
        """Take the calls as the person's own word, as one gesture; returns how many there were."""
        table = self.table
        there = [str(table.uids[r]) for r in table.rows(uids) if table.features["model"][r]
                 and not np.isnan(table.features["score"][r])]  # fmt: skip
        words = {uid: str(table.features["call"][table.rows([uid])[0]]) or NO_TYPE for uid in there}
        self.correct_each(words)
        return len(words)

    @timed
    def reshape(self, boxes: Mapping[str, tuple[int, int, int, int]]) -> None:
        """Give regions other boxes: their calls are of another place, and are asked for again."""
        there = {uid: box for uid, box in boxes.items() if uid in self.table}
        rows, new = self.table.rows(there), np.array(list(there.values()), dtype=np.int64)
        if not len(rows):
            return
        centres, selected = centres_of(new), self.selected()
        data = np.array(self.layer.data, dtype=float)
        data[rows] = centres
        self._replaying = ()  # the move is told below, once the boxes are right
        try:
            with napari_call():
                self.layer.data = data
        finally:
            self._replaying = None
        self.table.put_boxes(rows, new)
        self._take_moves(data, rows)
        self.select(selected)

    @timed
    def remove(self, uids: Iterable[str]) -> None:
        """Remove regions, as a person does."""
        rows = self.table.rows(uids)
        if len(rows):
            kept = [uid for uid in self.selected() if uid not in set(uids)]
            with napari_call():
                self.layer.selected_data = {int(r) for r in rows}
                self.layer.remove_selected()
            self.select(kept)

    @timed
    def note_detections(self, scores: Mapping[str, float]) -> None:
        """Note how sure the detector was of regions."""
        there = [uid for uid in scores if uid in self.table]
        rows = self.table.rows(there)
        self.table.features["detection"][rows] = [scores[uid] for uid in there]
        self._push(rows)


def verdict_colours(table: RedCellTable, rows: Rows) -> NDArray[np.float64]:
    """Colours (k, 4) of regions by their verdict; gray without one, grayish where it is stale."""
    palette = np.stack(
        [*(appearance.rgba(c) for c in VERDICT_COLOURS.values()), appearance.rgba(PENDING_COLOUR)]
    )
    codes = np.where(table.outside[rows], -1, table.call_code[rows])
    return appearance.paled(table, rows, palette[codes])


def tint_of(table: RedCellTable, row: int) -> str:
    """The colour of one region's verdict; empty without one."""
    code = int(table.call_code[row])
    return "" if code < 0 else list(VERDICT_COLOURS.values())[code]
