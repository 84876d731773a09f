"""Items of several layers side by side, so that one round of a review goes over all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from napari_cellpath.bridge.review import ReviewItems
from napari_cellpath.core.doubt import ItemFacts, Rows


class Deck:
    """Items of one or several layers as one list; rows count through the layers.

    Parameters
    ----------
    piles
        Layers of one kind with the same classes.
    """

    changed = Signal()
    """Facts of some items changed."""
    reset = Signal()
    """There are other items, or they stand in other rows."""

    def __init__(self, piles: Sequence[ReviewItems]) -> None:
        self.piles = tuple(piles)
        self._facts: ItemFacts | None = None
        self._counts: list[tuple[int, int]] | None = None
        for pile in self.piles:
            pile.changed.connect(self._on_changed)
            pile.reset.connect(self._on_reset)

    def close(self) -> None:
        """Stop listening; the layers stay held."""
        for pile in self.piles:
            pile.changed.disconnect(self._on_changed, missing_ok=True)
            pile.reset.disconnect(self._on_reset, missing_ok=True)

    def __len__(self) -> int:
        return sum(map(len, self.piles))

    @property
    def kind(self) -> str:
        """What the items are called."""
        return self.piles[0].kind if self.piles else "items"

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their keys."""
        return self.piles[0].classes if self.piles else ()

    @property
    def colours(self) -> tuple[str, ...]:
        """Colour of each class."""
        return self.piles[0].colours if self.piles else ()

    @property
    def several(self) -> bool:
        """Whether an item may be of several classes: a class given to it is flipped."""
        return self.piles[0].several if self.piles else False

    @property
    def threshold(self) -> float:
        """Score above which an object is called abnormal."""
        return self.piles[0].threshold if self.piles else 0.5

    @property
    def facts(self) -> ItemFacts:
        """All items as they are now."""
        if self._facts is None:
            self._facts = ItemFacts.join([pile.facts() for pile in self.piles])
        return self._facts

    def features(self) -> NDArray[np.floating[Any]] | None:
        """(n, d) features of all items; None unless every layer has them, of one size."""
        parts = [pile.features() for pile in self.piles]
        there = [p for p in parts if p is not None]
        if not there or len(there) < len(parts) or len({p.shape[1] for p in there}) > 1:
            return None
        return np.concatenate(there)

    def counts(self) -> list[tuple[int, int]]:
        """(called, labelled) of each class: how many the model calls so, and a person."""
        if self._counts is None:
            by_pile = np.array([pile.counts() for pile in self.piles], dtype=int)
            totals = by_pile.reshape(len(self.piles), len(self.classes), 2).sum(axis=0)
            self._counts = [(int(called), int(labelled)) for called, labelled in totals]
        return self._counts

    def rows(self, uids: Sequence[str]) -> Rows:
        """Row of each uid, -1 where it is gone."""
        rows = np.full(len(uids), -1, dtype=np.intp)
        start = 0
        for pile in self.piles:
            found = pile.rows(uids)
            rows[found >= 0] = found[found >= 0] + start
            start += len(pile)
        return rows

    def pile_of(self, row: int) -> tuple[ReviewItems, int]:
        """The layer a row belongs to, and its row there.

        Raises
        ------
        IndexError
            There is no such row.
        """
        for pile in self.piles:
            if row < len(pile):
                return pile, row
            row -= len(pile)
        raise IndexError("no such item")

    def uids(self, rows: Rows) -> list[str]:
        """Uids of rows."""
        named: list[str] = self.facts.uid[rows].tolist()
        return named

    def label(self, uids: Sequence[str], label: str) -> None:
        """Write a person's word on these: one correction a layer."""
        for pile, theirs in self._by_pile(uids):
            pile.label(theirs, label)

    def agree(self, uids: Sequence[str]) -> int:
        """Take the calls of these as a person's word: one correction a class; returns how many.

        Those without a valid call, and those that were decided on, are left as they are.
        """
        rows = self.rows(uids)
        rows = rows[rows >= 0]
        rows = rows[self.facts.agreeable[rows]]
        for pile, theirs in self._by_pile(self.uids(rows)):
            pile.agree(theirs)
        return len(rows)

    def see(self, uids: Sequence[str]) -> None:
        """Note that a person has looked at these."""
        for pile, theirs in self._by_pile(uids):
            pile.see(theirs)

    def select(self, uids: Sequence[str]) -> None:
        """Select these, and nothing else, on their layers."""
        chosen = dict(self._by_pile(uids))
        for pile in self.piles:
            pile.select(chosen.get(pile, []))

    def readings(self) -> dict[str, dict[str, str]]:
        """Blind readings: reader to uid to class."""
        found: dict[str, dict[str, str]] = {}
        for pile in self.piles:
            for reader, labels in pile.readings().items():
                found.setdefault(reader, {}).update(labels)
        return found

    def record_reading(self, uids: Sequence[str], reader: str, label: str) -> None:
        """Note a blind reading beside the label; empty takes it back."""
        for pile, theirs in self._by_pile(uids):
            pile.record_reading(theirs, reader, label)

    def _by_pile(self, uids: Sequence[str]) -> Iterable[tuple[ReviewItems, list[str]]]:
        for pile in self.piles:
            there = pile.rows(uids) >= 0
            theirs = [uid for uid, is_there in zip(uids, there, strict=True) if is_there]
            if theirs:
                yield pile, theirs

    def _on_changed(self) -> None:
        self._facts = self._counts = None
        self.changed.emit()

    def _on_reset(self) -> None:
        self._facts = self._counts = None
        self.reset.emit()
