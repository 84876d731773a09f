"""A round of a review: the items asked for, in an order that stays while they are seen."""

from __future__ import annotations

import numpy as np

from napari_cellpath.bridge.deck import Deck
from napari_cellpath.core.doubt import Order, Rows, Show


class Round:
    """Items in the order in which they are looked through; they stay where they are.

    Attributes
    ----------
    uids
        By place.
    order, show, class_name
        What was asked for.
    """

    def __init__(self, deck: Deck, rows: Rows, order: Order, show: Show, name: str = "") -> None:
        self.uids = deck.uids(rows)
        self.order, self.show, self.class_name = order, show, name
        self._deck = deck
        self._known = deck.facts.uid.copy()
        self._rows: Rows | None = rows
        self._place: dict[str, int] | None = None
        self._scores = deck.facts.score[rows]

    @property
    def outdated(self) -> bool:
        """Whether scores are others than when the items were put in order."""
        rows = self.rows
        if (rows < 0).any():
            return True
        return not np.array_equal(self._scores, self._deck.facts.score[rows], equal_nan=True)

    @property
    def rows(self) -> Rows:
        """Row in the deck of each place, -1 where the item is gone."""
        if self._rows is None:
            self._rows = self._deck.rows(self.uids)
        return self._rows

    def place_of(self, uid: str) -> int:
        """Place of an item, -1 if it is not in the round."""
        if self._place is None:
            self._place = {uid: place for place, uid in enumerate(self.uids)}
        return self._place.get(uid, -1)

    def take_in_reset(self) -> int:
        """Drop items that are gone; returns how many have come that are not in the round."""
        self._rows = None
        gone = self.rows < 0
        if gone.any():
            self.uids = [uid for uid, is_gone in zip(self.uids, gone, strict=True) if not is_gone]
            self._scores = self._scores[~gone]
            self._rows = self._place = None
        return len(set(self._deck.facts.uid).difference(self._known))

    def doubt_rows(self) -> None:
        """Rows may be others than before."""
        self._rows = None
