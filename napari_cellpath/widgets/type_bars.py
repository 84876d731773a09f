"""What the selected regions hold: a bar a type, which a click flips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from qtpy.QtCore import QEvent, QRectF, QSize, Qt, Signal
from qtpy.QtGui import QColor, QFont, QPainter, QPen
from qtpy.QtWidgets import QSizePolicy, QToolTip, QWidget

from napari_cellpath.widgets.keys import MOST_CLASSES, shortcut_of

COLUMNS = 2
GAP, BETWEEN = 5, 14  # pixels between lines and columns
SHORTEST = 26  # pixels of a whole bar


@dataclass(frozen=True)
class TypeLine:
    """What one bar shows.

    Attributes
    ----------
    name, colour
        Of the type.
    chance
        Its probability, NaN where there is none; of several regions the share that hold it.
    threshold
        Above it the model says that the type is there; NaN where no line is to be drawn.
    held
        Whether it is there: a person's word before the model's.
    flipped
        Whether a person says otherwise than the model.
    """

    name: str
    colour: str
    chance: float = float("nan")
    threshold: float = float("nan")
    held: bool = False
    flipped: bool = False


class TypeBars(QWidget):
    """Bars of the types of a model, two in a line. A view: it shows what it is told."""

    flipped = Signal(str)
    """The user wants a type to be there, or no longer."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._lines: tuple[TypeLine, ...] = ()
        self._active = False
        self._hover = -1
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setMouseTracking(True)

    def show_types(self, lines: Sequence[TypeLine], *, active: bool) -> None:
        """Show these types; ``active`` ones can be flipped."""
        now = tuple(lines)
        if now == self._lines and active == self._active:
            return
        taller = len(now) != len(self._lines)
        self._lines, self._active = now, active
        self.setCursor(Qt.CursorShape.PointingHandCursor if active else Qt.CursorShape.ArrowCursor)
        if taller:
            self.updateGeometry()
        self.update()

    @property
    def lines(self) -> tuple[TypeLine, ...]:
        """What is shown."""
        return self._lines

    def sizeHint(self) -> QSize:  # noqa: N802
        """As wide as the dock, a line for every two types."""
        return QSize(200, -(-len(self._lines) // COLUMNS) * (self._line + GAP))

    @property
    def _line(self) -> int:
        return self.fontMetrics().height()

    def _cell(self, number: int) -> QRectF:
        wide = (self.width() - BETWEEN * (COLUMNS - 1)) / COLUMNS
        left = (number % COLUMNS) * (wide + BETWEEN)
        return QRectF(left, (number // COLUMNS) * (self._line + GAP), wide, self._line + GAP - 1)

    def _at(self, x: float, y: float) -> int:
        cells = (self._cell(n).contains(x, y) for n in range(len(self._lines)))
        return next((n for n, inside in enumerate(cells) if inside), -1)

    # Qt's events.

    def mouseMoveEvent(self, event: object) -> None:  # noqa: N802
        """Show what a click would flip."""
        hover = self._at(event.position().x(), event.position().y())  # type: ignore[attr-defined]
        if hover != self._hover:
            self._hover = hover
            self.update()

    def leaveEvent(self, event: object) -> None:  # noqa: N802
        """The pointer is elsewhere."""
        self._hover = -1
        self.update()

    def mouseReleaseEvent(self, event: object) -> None:  # noqa: N802
        """Flip the type that was clicked."""
        if event.button() != Qt.MouseButton.LeftButton or not self._active:  # type: ignore[attr-defined]
            return
        at = self._at(event.position().x(), event.position().y())  # type: ignore[attr-defined]
        if at >= 0:
            self.flipped.emit(self._lines[at].name)

    def event(self, event: QEvent) -> bool:
        """Say in words what the bar under the pointer is."""
        if event.type() == QEvent.Type.ToolTip:
            at = self._at(event.pos().x(), event.pos().y())
            QToolTip.showText(event.globalPos(), self._tip(at) if at >= 0 else "", self)
            return True
        return super().event(event)

    def _tip(self, number: int) -> str:
        line = self._lines[number]
        key = shortcut_of(f"class_{number + 1}") if number < MOST_CLASSES else ""
        parts = [f"“{line.name}”"]
        if np.isfinite(line.chance):
            above = f", threshold {line.threshold:.2f}" if np.isfinite(line.threshold) else ""
            parts.append(f"probability {line.chance:.3f}{above}")
        parts.append("there" if line.held else "not there")
        if line.flipped:
            parts[-1] += ", as you say"
        if self._active:
            parts.append(f"click to flip{f' ({key})' if key else ''}")
        return " · ".join(parts)

    def paintEvent(self, event: object) -> None:  # noqa: N802
        """Paint name, bar and probability of every type."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        text = self.palette().color(self.foregroundRole())
        metrics = self.fontMetrics()
        digits = metrics.horizontalAdvance("0.00 ✓") + 6
        names = max((metrics.horizontalAdvance(self._title(n)) for n in range(len(self._lines))),
                    default=0) + 8  # fmt: skip
        for number, line in enumerate(self._lines):
            cell = self._cell(number)
            if number == self._hover and self._active:
                painter.setPen(Qt.PenStyle.NoPen)
                painter.setBrush(QColor(text.red(), text.green(), text.blue(), 24))
                painter.drawRoundedRect(cell.adjusted(-3, 0, 3, 0), 3, 3)
            self._paint(painter, cell, number, line, text, min(
                float(names), cell.width() - digits - SHORTEST), digits)  # fmt: skip
        painter.end()

    def _title(self, number: int) -> str:
        key = f"{number + 1} " if number < MOST_CLASSES else ""
        return f"{key}{self._lines[number].name}"

    def _paint(
        self, painter: QPainter, cell: QRectF, number: int, line: TypeLine, text: QColor,
        names: float, digits: int,
    ) -> None:  # fmt: skip
        middle = Qt.AlignmentFlag.AlignVCenter
        font = QFont(self.font())
        font.setBold(line.held)
        painter.setFont(font)
        faint = QColor(text)
        faint.setAlpha(255 if line.held else 150)
        painter.setPen(faint)
        shown = painter.fontMetrics().elidedText(
            self._title(number), Qt.TextElideMode.ElideRight, int(names) - 4
        )
        painter.drawText(QRectF(cell.left(), cell.top(), names, cell.height()), middle, shown)
        rail = QRectF(cell.left() + names, cell.center().y() - 4,
                      cell.width() - names - digits, 8)  # fmt: skip
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(text.red(), text.green(), text.blue(), 28))
        painter.drawRoundedRect(rail, 2, 2)
        mark = "✓" if line.held else ""
        if np.isfinite(line.chance):
            colour = QColor(line.colour)
            colour.setAlpha(255 if line.held else 110)
            painter.setBrush(colour)
            bar = QRectF(rail)
            bar.setWidth(max(2.0, rail.width() * min(max(line.chance, 0.0), 1.0)))
            painter.drawRoundedRect(bar, 2, 2)
            mark = f"{line.chance:.2f} {mark or ' '}"
        if np.isfinite(line.threshold):
            at = rail.left() + rail.width() * line.threshold
            painter.setPen(QPen(text, 1))
            painter.drawLine(int(at), int(rail.top() - 2), int(at), int(rail.bottom() + 2))
        if line.flipped:
            painter.setPen(QPen(text, 1.4))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.drawRoundedRect(rail.adjusted(-2, -2, 2, 2), 3, 3)
        painter.setPen(faint)
        where = QRectF(cell.right() - digits, cell.top(), digits, cell.height())
        painter.drawText(where, middle | Qt.AlignmentFlag.AlignRight, mark)
