"""What the cells say of their specimen: a sentence, a bar a pattern, and its intensity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_cellpath.widgets.pattern_bars import PatternBars
from napari_cellpath.widgets.sections import SPACING, Choice, caption, fill, narrow, quiet

INTENSITIES = (
    Choice("", "not set"),
    Choice("positive", "positive", "The specimen was strongly positive."),
    Choice("intermediate", "intermediate", "The specimen was weakly positive."),
)


class SpecimenSection(QWidget):
    """The roll-up of a specimen in plain words. A view: it shows what it is told."""

    intensity_chosen = Signal(str)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(SPACING)
        self.sentence = QLabel()
        self.sentence.setWordWrap(True)
        self.sentence.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.notes = quiet()
        self.bars = PatternBars()
        self.intensity = narrow(QComboBox())
        self.intensity.setMinimumContentsLength(6)
        fill(self.intensity, INTENSITIES, "")
        row = self._row = QHBoxLayout()
        row.setSpacing(SPACING)
        row.addWidget(caption("Intensity"))
        row.addWidget(self.intensity, 1)
        column.addWidget(self.sentence)
        column.addWidget(self.notes)
        column.addWidget(self.bars)
        column.addLayout(row)
        self.intensity.activated.connect(
            lambda i: self.intensity_chosen.emit(str(self.intensity.itemData(i)))
        )

    def add_button(self, text: str, tip: str) -> QPushButton:
        """Add a button beside the intensity: docks are not high."""
        button = QPushButton(text)
        button.setToolTip(tip)
        # As wide as there is room: its count must not push the dock beyond its place.
        button.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self._row.addWidget(button, 1)
        return button

    def set_bars(self, names: Sequence[str], colours: Sequence[str], counts: Sequence[int]) -> None:
        """Show how many cells show each pattern."""
        self.bars.set_counts(names, colours, counts)

    def set_reading(self, reading: Mapping[str, Any] | None, name: str) -> None:
        """Show what the cells amount to; None while there is nothing to go by."""
        head, notes = specimen_words(reading, name)
        self.sentence.setText(head)
        self.notes.setText(notes)
        self.notes.setVisible(bool(notes))

    def set_intensity(self, intensity: str) -> None:
        """Show the intensity that is set."""
        fill(self.intensity, INTENSITIES, intensity)


def specimen_words(reading: Mapping[str, Any] | None, name: str) -> tuple[str, str]:
    """The reading of `core.specimen.read_specimen` in a sentence, rich text, and notes on it."""
    if reading is None or not reading["judged"]:
        return "Specimen: no cell has a pattern yet.", ""
    votes, judged = reading["majority"], reading["judged"]
    title = f"<b>Specimen{f' {escape(name)}' if name else ''}:"
    low_high = votes["interval"]
    interval = "" if low_high is None else (
        f", {100 * votes['level']:.0f} % interval {100 * low_high[0]:.0f}–{100 * low_high[1]:.0f} %"
    )  # fmt: skip
    lead = votes["pattern"]
    count = reading["votes"][lead]
    text = f"{count:,} of {judged:,} cells ({100 * votes['share']:.0f} %{interval})"
    mean = reading["mean"]["probabilities"].get(lead)
    sure = "" if mean is None else f"; mean probability {mean:.2f}"
    if reading["abstained"]:
        head = f"{title} no reading.</b> {escape(reading['why'])} {escape(lead)}: {text}{sure}."
    else:
        head = f"{title} {escape(lead)}</b>, {text}{sure}."
    notes = []
    if reading["mixed"]:
        notes.append(f"Mixed with {', '.join(reading['mixed_with'])}.")
    left = reading["cells"] - judged
    if left:
        notes.append(f"{left:,} cells without a pattern do not count.")
    return head, " ".join(notes)
