"""What the gallery shows of one item: its picture and what is known of it; nothing when blind."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from napari_cellpath.core.requests import Image
from napari_cellpath.widgets.keys import MOST_CLASSES
from napari_cellpath.widgets.reading import BlindReading
from napari_cellpath.widgets.review_session import ReviewSession
from napari_cellpath.widgets.thumbnails import Cut, Thumbnails
from napari_cellpath.widgets.tiles import Tile, draw_tile


class ItemFaces:
    """Tiles of the items under review.

    Parameters
    ----------
    session, blind, thumbnails
        Give the items, what is hidden of them, and their pictures.
    side
        Of a picture, screen pixels.

    Attributes
    ----------
    field
        How many times as wide a square of the image is shown as the item asks for.
    pixel_ratio
        Device pixels a screen pixel.
    """

    def __init__(
        self, session: ReviewSession, blind: BlindReading, thumbnails: Thumbnails, side: int
    ) -> None:
        self._session = session
        self._blind = blind
        self._thumbnails = thumbnails
        self.side = side
        self.field = 1.0
        self.pixel_ratio = 1.0

    def cut(self, row: int) -> tuple[Cut, Image] | None:
        """The square to show of an item, and of which image; None while that is not known."""
        pile, at = self._session.deck.pile_of(row)
        known = self._session.source(pile.image)
        if known is None:
            return None
        source, serial = known
        shown = round(self.side * self.pixel_ratio)
        row_, col, side = pile.window(at, source.mpp)
        if not math.isfinite(row_ + col):
            return None
        return Cut.round(serial, row_, col, side * self.field, shown), source.image

    def paint(self, painter: Any, rect: Any, place: int, selected: bool) -> None:
        """Draw the item of a place of the round."""
        rows = self._session.round.rows
        row = int(rows[place]) if place < len(rows) else -1
        if row >= 0:
            draw_tile(painter, rect, self.tile(row), selected, self._session.deck.threshold)

    def tile(self, row: int) -> Tile:
        """What is to be seen of an item of the deck."""
        deck = self._session.deck
        facts, classes, colours = deck.facts, deck.classes, deck.colours
        cut = self.cut(row)
        picture = None if cut is None else self._thumbnails.get(cut[0])
        if self._blind.running:
            return Tile(picture, text=self._blind.mine.get(str(facts.uid[row]), ""))
        call, label, score = facts.call[row], facts.label[row], float(facts.score[row])
        stale = bool(facts.stale[row])
        frame = colours[classes.index(call)] if call in classes and not stale else ""
        number = classes.index(label) + 1 if label in classes else 0
        if np.isnan(score):
            text = "not assessable" if facts.flagged[row] else "no score"
        else:
            text = f"{score:.2f} stale" if stale else f"{score:.2f}"
        if deck.several:  # what it holds says more than a number, which the disc's colour tells
            pile, at = deck.pile_of(row)
            frame = "" if stale else pile.tint(at)
            text = str(facts.standing[row]) or text
        return Tile(
            picture, frame, text, score, bool(facts.doubtful[row]), bool(facts.flagged[row]),
            not facts.seen[row], number if number <= MOST_CLASSES else 0,
            colours[number - 1] if number else "", bool(label),
        )  # fmt: skip

    def tip(self, place: int) -> str:
        """The item of a place in words; empty when blind."""
        row = int(self._session.round.rows[place])
        if row < 0 or self._blind.running:
            return ""
        deck = self._session.deck
        facts = deck.facts
        pile, at = deck.pile_of(row)
        score = float(facts.score[row])
        parts = [str(facts.call[row]) or "no call"]
        if not np.isnan(score):
            spread = float(facts.std[row])
            parts.append(f"score {score:.3f}" + ("" if np.isnan(spread) else f" ± {spread:.3f}"))
        parts += ["doubtful"] if facts.doubtful[row] else []
        parts += ["stale"] if facts.stale[row] else []
        parts += [f"you say {facts.label[row]}"] if facts.label[row] else []
        parts += [note] if (note := pile.note(at)) else []
        return " · ".join(parts)
