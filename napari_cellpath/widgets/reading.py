"""The blind second reading: items without calls and labels, in a random order, by a named reader.

What a reader says is kept beside the label, never in its place; at the end readers, labels and
model are compared.
"""

from __future__ import annotations

import getpass
from collections.abc import Callable, Mapping, Sequence
from html import escape

import numpy as np
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QDialog,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QSpinBox,
    QTextBrowser,
    QVBoxLayout,
    QWidget,
)

from napari_cellpath.core.agreement import Agreement, agreement
from napari_cellpath.core.annotations import joined, parted
from napari_cellpath.core.doubt import ItemFacts, Order, Show, listed
from napari_cellpath.core.errors import CellpathError
from napari_cellpath.widgets.review_session import ReviewSession
from napari_cellpath.widgets.sections import SPACING, caption, form, quiet

LABELS, MODEL = "your labels", "the model"
MANY = 100_000


class BlindReading:
    """One reader's pass over items dealt out at random.

    While it lasts, the layers under review are hidden: their colours are the calls.

    Parameters
    ----------
    session
        Gives the items and takes what is read.
    """

    def __init__(self, session: ReviewSession) -> None:
        self._session = session
        self.reader = ""
        self.mine: dict[str, str] = {}
        """Class by uid, as this reader has given them."""
        self._show_layers: Callable[[], None] = _nothing
        self._before = (Order.DOUBT, Show.ALL, "")

    @property
    def running(self) -> bool:
        """Whether calls and labels are hidden now."""
        return bool(self.reader)

    def begin(self, reader: str, count: int, seed: int) -> None:
        """Deal out ``count`` of the items listed now (0: all of them) in a seeded random order.

        Raises
        ------
        CellpathError
            No name, or nothing to read.
        """
        reader = reader.strip()
        if not reader:
            raise CellpathError("Type the reader's name first; readings are kept under it.")
        if reader in (LABELS, MODEL):
            raise CellpathError(f"A reader cannot be called '{reader}'; type another name.")
        session = self._session
        now = session.round
        pool = listed(session.deck.facts, now.show, now.class_name)
        uids = sorted(session.deck.uids(pool))  # by uid: the seed alone decides, not the rows
        if not uids:
            raise CellpathError("There is nothing to read; choose what to show first.")
        drawn = np.random.default_rng(seed).permutation(len(uids))[: count or len(uids)]
        self._before = (now.order, now.show, now.class_name)
        self.reader = reader
        self.mine = session.deck.readings().get(reader, {})
        session.select([])
        self._show_layers = session.hide_layers()
        session.deal_out([uids[i] for i in drawn])

    def end(self) -> None:
        """Show calls and labels again; safe to call when none runs."""
        if not self.running:
            return
        self.reader = ""
        self.mine = {}
        self._show_layers()
        self._show_layers = _nothing
        self._session.start(*self._before)

    def read(self, uids: Sequence[str], label: str) -> None:
        """Note what the reader says of these; empty takes it back.

        Where an item may be of several classes, this one is flipped.
        """
        deck = self._session.deck
        if deck.several and label:
            for uid in uids:
                self._put([uid], self._flipped(self.mine.get(uid, ""), label))
        else:
            self._put(uids, label)

    def _put(self, uids: Sequence[str], label: str) -> None:
        for uid in uids:
            self.mine.pop(uid, None)
            if label:
                self.mine[uid] = label
        self._session.deck.record_reading(uids, self.reader, label)

    def _flipped(self, text: str, label: str) -> str:
        said = {*parted(text)} ^ {label}
        return joined(name for name in self._session.deck.classes if name in said)


def _nothing() -> None:
    pass


def compare(
    readings: Mapping[str, Mapping[str, str]], facts: ItemFacts, classes: Sequence[str]
) -> list[Agreement]:
    """Every reader with every other, with the labels and with the model; labels and model too."""
    raters: dict[str, Mapping[str, str]] = {name: readings[name] for name in sorted(readings)}
    raters[LABELS] = _by_uid(facts, facts.label, facts.labelled)
    raters[MODEL] = _by_uid(facts, facts.call, (facts.call != "") & ~facts.stale)
    names = list(raters)
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    found = (agreement(a, b, raters[a], raters[b], classes) for a, b in pairs)
    return [one for one in found if one is not None]


def _by_uid(facts: ItemFacts, column: Sequence[str], mask: Sequence[bool]) -> dict[str, str]:
    return {str(u): str(c) for u, c in zip(facts.uid[mask], column[mask], strict=True)}


class ReadingSection(QWidget):
    """Who reads, how many, from which seed; begin, end, and the agreement."""

    begun = Signal(str, int, int)
    ended = Signal()
    agreement_wanted = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 4, 0, 2)
        column.setSpacing(SPACING)
        column.addWidget(
            quiet(
                "Hides calls, scores, labels and colours here and on the image. What a reader says "
                "stands beside the label and never changes it."
            )
        )
        rows = form()
        column.addLayout(rows)
        self.reader = QLineEdit(_account())
        self.reader.setToolTip("Readings are kept under this name.")
        self.count = QSpinBox()
        self.count.setRange(0, MANY)
        self.count.setSpecialValueText("all")
        self.count.setToolTip("How many of the items shown are dealt out; 0 is all.")
        self.seed = QSpinBox()
        self.seed.setRange(0, 2**31 - 1)
        self.seed.setToolTip("Of the random order: the same seed deals out the same items.")
        numbers = QHBoxLayout()
        numbers.setSpacing(SPACING)
        numbers.addWidget(self.count, 1)
        numbers.addWidget(QLabel("seed"))
        numbers.addWidget(self.seed, 1)
        rows.addRow(caption("Reader"), self.reader)
        rows.addRow(caption("Items"), numbers)
        buttons = QHBoxLayout()
        buttons.setSpacing(SPACING)
        self.toggle = QPushButton("Begin reading")
        self.agreement = QPushButton("Agreement…")
        self.agreement.setToolTip("Cohen's kappa of readers, labels and model so far.")
        buttons.addWidget(self.toggle, 1)
        buttons.addWidget(self.agreement, 1)
        column.addLayout(buttons)
        self._running = False
        self.toggle.clicked.connect(self._on_toggle)
        self.agreement.clicked.connect(self.agreement_wanted)

    def set_running(self, running: bool) -> None:
        """Show whether a reading is under way."""
        self._running = running
        self.toggle.setText("End reading" if running else "Begin reading")
        for widget in (self.reader, self.count, self.seed, self.agreement):
            widget.setEnabled(not running)

    def _on_toggle(self) -> None:
        if self._running:
            self.ended.emit()
        else:
            self.begun.emit(self.reader.text(), self.count.value(), self.seed.value())


def _account() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # an account without a name, as in some containers
        return ""


class AgreementSheet(QDialog):
    """Kappa of every pair of raters, with the table behind it."""

    def __init__(self, pairs: Sequence[Agreement], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Agreement of readers")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        layout = QVBoxLayout(self)
        self.text = QTextBrowser()
        self.text.setHtml(in_words(pairs))
        layout.addWidget(self.text)
        self.resize(460, 480)


def in_words(pairs: Sequence[Agreement]) -> str:
    """The agreement of all pairs, as rich text."""
    if not pairs:
        return "<p>No item has been read by two readers, or read and labelled or called, yet.</p>"
    note = (
        "<p>Cohen's kappa: agreement beyond chance, 1 is full. In brackets the 95 % interval of "
        "2,000 bootstrap samples of the items; items of one slide resemble each other, so the "
        "true interval may be wider.</p>"
    )
    return "".join(map(_pair_in_words, pairs)) + note


def _pair_in_words(pair: Agreement) -> str:
    items = "1 item" if pair.n == 1 else f"{pair.n:,} items"
    text = f"<h3>{escape(pair.first)} and {escape(pair.second)}</h3><p>"
    if np.isnan(pair.kappa):
        text += f"All {items} got the same one class from both; kappa is not defined."
    else:
        text += (
            f"<b>κ = {pair.kappa:.2f}</b> ({pair.low:.2f} to {pair.high:.2f}), {items}, "
            f"the same class for {pair.agreed:.0%}."
        )
    head = "".join(f"<th align='right'>{escape(c)}</th>" for c in pair.classes)
    rows = "".join(
        f"<tr><th align='left'>{escape(name)}</th>"
        + "".join(f"<td align='right'>{count}</td>" for count in counts)
        + "</tr>"
        for name, counts in zip(pair.classes, pair.table, strict=True)
    )
    corner = f"{escape(pair.first)} ↓ {escape(pair.second)} →"
    return (
        f"{text}</p><table border='0' cellpadding='4'><tr><th align='left'>{corner}</th>"
        f"{head}</tr>{rows}</table>"
    )
