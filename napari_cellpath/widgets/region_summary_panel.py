"""What the regions say of their slide: in how many each type stands. Regions, never cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from qtpy.QtCore import QEvent, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPen
from qtpy.QtWidgets import (
    QLabel,
    QPushButton,
    QSizePolicy,
    QToolTip,
    QVBoxLayout,
    QWidget,
)

from napari_cellpath.widgets.sections import SPACING, quiet

COLUMNS = 2
GAP, BETWEEN = 4, 14  # pixels between lines and columns
SHORTEST = 26  # pixels of a whole bar


class RegionSummarySection(QWidget):
    """The slide in plain words and bars. A view: it shows what it is told."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(SPACING)
        self.sentence = QLabel()
        self.sentence.setWordWrap(True)
        self.sentence.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.bars = ShareBars()
        self.single = quiet()
        self.note = quiet()
        for widget in (self.sentence, self.bars, self.single, self.note):
            column.addWidget(widget)
        self.show_summary(None, ())

    def add_button(self, text: str, tip: str) -> QPushButton:
        """Add a button below."""
        button = QPushButton(text)
        button.setToolTip(tip)
        # As wide as there is room: its count must not push the dock beyond its place.
        button.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.layout().addWidget(button)
        return button

    def show_summary(self, summary: Mapping[str, Any] | None, colours: Sequence[str]) -> None:
        """Show a summary of `core.region_summary.summarise_regions`; colours are the types'."""
        head, single, note = summary_words(summary)
        self.sentence.setText(head)
        for label, text in ((self.single, single), (self.note, note)):
            label.setText(text)
            label.setVisible(bool(text))
        self.single.setToolTip("" if summary is None else summary["of_one_cell"]["criterion"])
        types = {} if summary is None or not summary["judged"] else summary["types"]
        self.bars.show_shares(types, colours)


def summary_words(summary: Mapping[str, Any] | None) -> tuple[str, str, str]:
    """The slide in a sentence, its regions of one cell, and what is counted. Rich text."""
    if summary is None or not summary["judged"]:
        return "Slide: no region has an answer yet.", "", ""
    abnormal = summary["abnormal"]
    head = (
        f"<b>Slide:</b> {abnormal['regions']:,} of {summary['judged']:,} regions hold an abnormal "
        f"cell ({_share(abnormal)}). Regions containing each type:"
    )
    left = summary["regions"] - summary["judged"]
    if left:
        head += f" ({left:,} without an answer do not count.)"
    one = summary["of_one_cell"]
    if one.get("judged"):
        held = ", ".join(
            f"{escape(name)} {told['regions']:,} ({_percent(told['share'])})"
            for name, told in one["types"].items()
            if told["regions"]
        )
        single = (
            f"Of the {one['judged']:,} regions of one cell, by their size: {held or 'no type'}."
        )
    else:
        single = "Regions of one cell: too few whole regions to know how large a cell is."
    return head, single, "A region counts once for each type it holds; these are not cells."


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f} %"


def _share(told: Mapping[str, Any]) -> str:
    interval = told["interval"]
    if interval is None:
        return _percent(told["share"])
    low, high = (f"{100 * x:.0f}" for x in interval)
    return f"{_percent(told['share'])}, 95 % interval {low}–{high} %"


class ShareBars(QWidget):
    """The share of regions that hold each type, with its interval as a whisker."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._types: tuple[tuple[str, int, float, tuple[float, float]], ...] = ()
        self._colours: tuple[str, ...] = ()
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def show_shares(self, types: Mapping[str, Mapping[str, Any]], colours: Sequence[str]) -> None:
        """Show these types; those without a colour were named by a person only, and are gray."""
        now = tuple(
            (name, int(told["regions"]), float(told["share"] or 0.0),
             tuple(told["interval"] or (0.0, 0.0)))
            for name, told in types.items()
        )  # fmt: skip
        taller = len(now) != len(self._types)
        self._types, self._colours = now, tuple(colours)
        if taller:
            self.updateGeometry()
        self.update()

    def sizeHint(self) -> QSize:  # noqa: N802
        """As wide as the dock, a line for every two types."""
        return QSize(200, -(-len(self._types) // COLUMNS) * (self._line + GAP))

    @property
    def _line(self) -> int:
        return self.fontMetrics().height()

    def _cell(self, number: int) -> QRectF:
        wide = (self.width() - BETWEEN * (COLUMNS - 1)) / COLUMNS
        left = (number % COLUMNS) * (wide + BETWEEN)
        return QRectF(left, (number // COLUMNS) * (self._line + GAP), wide, self._line)

    def event(self, event: QEvent) -> bool:
        """Say the numbers of the bar under the pointer."""
        if event.type() == QEvent.Type.ToolTip:
            place = event.pos()
            at = next((n for n in range(len(self._types))
                       if self._cell(n).contains(place.x(), place.y())), -1)  # fmt: skip
            QToolTip.showText(event.globalPos(), self._tip(at) if at >= 0 else "", self)
            return True
        return super().event(event)

    def _tip(self, number: int) -> str:
        name, count, share, (low, high) = self._types[number]
        return (
            f"{count:,} regions contain “{name}”: {100 * share:.1f} %, 95 % interval "
            f"{100 * low:.1f} to {100 * high:.1f} %"
        )

    def paintEvent(self, event: object) -> None:  # noqa: N802
        """Paint name, bar, whisker and count of every type."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        text = self.palette().color(self.foregroundRole())
        metrics = self.fontMetrics()
        most = max((count for _, count, _, _ in self._types), default=0)
        numbers = metrics.horizontalAdvance(f"{most:,}") + 6
        names = max((metrics.horizontalAdvance(n) for n, *_ in self._types), default=0) + 6
        middle = Qt.AlignmentFlag.AlignVCenter
        for number, (name, count, share, (low, high)) in enumerate(self._types):
            cell = self._cell(number)
            wide = min(float(names), cell.width() - numbers - SHORTEST)
            painter.setPen(text)
            shown = metrics.elidedText(name, Qt.TextElideMode.ElideRight, int(wide) - 4)
            painter.drawText(QRectF(cell.left(), cell.top(), wide, cell.height()), middle, shown)
            where = QRectF(cell.right() - numbers, cell.top(), numbers, cell.height())
            painter.drawText(where, middle | Qt.AlignmentFlag.AlignRight, f"{count:,}")
            rail = QRectF(cell.left() + wide, cell.center().y() - 4,
                          cell.width() - wide - numbers, 8)  # fmt: skip
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(QColor(text.red(), text.green(), text.blue(), 28))
            painter.drawRoundedRect(rail, 2, 2)
            if count:
                known = number < len(self._colours)
                painter.setBrush(QColor(self._colours[number] if known else "#8c8c8c"))
                bar = QRectF(rail)
                bar.setWidth(max(2.0, rail.width() * share))
                painter.drawRoundedRect(bar, 2, 2)
            if high > low:
                painter.setPen(QPen(text, 1.2))
                first, last = (int(rail.left() + rail.width() * x) for x in (low, high))
                at = int(rail.center().y())
                painter.drawLine(first, at, last, at)
                for x in (first, last):
                    painter.drawLine(x, at - 3, x, at + 3)
        painter.end()
