"""How many cells show each pattern, as a bar each."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QRectF, QSize, Qt
from qtpy.QtGui import QColor, QPainter
from qtpy.QtWidgets import QSizePolicy, QWidget

GAP = 3
NUMBERS = 92  # pixels for count and share


class PatternBars(QWidget):
    """A bar a pattern, with its name, count and share."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._names: tuple[str, ...] = ()
        self._colours: tuple[str, ...] = ()
        self._counts: tuple[int, ...] = ()
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setToolTip("Cells of each pattern; a correction counts for the call.")

    def set_counts(
        self, names: Sequence[str], colours: Sequence[str], counts: Sequence[int]
    ) -> None:
        """Show these counts."""
        now = tuple(names), tuple(colours), tuple(counts)
        if now != (self._names, self._colours, self._counts):
            taller = len(now[0]) != len(self._names)
            self._names, self._colours, self._counts = now
            if taller:
                self.updateGeometry()
            self.update()

    def sizeHint(self) -> QSize:  # noqa: N802
        """As wide as the dock, a line a pattern."""
        return QSize(200, len(self._names) * (self._line + GAP))

    @property
    def _line(self) -> int:
        return self.fontMetrics().height()

    def paintEvent(self, event: object) -> None:  # noqa: N802
        """Paint name, bar and numbers of every pattern."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        text = self.palette().color(self.foregroundRole())
        rail = QColor(text.red(), text.green(), text.blue(), 28)
        metrics, line = self.fontMetrics(), self._line
        names = max((metrics.horizontalAdvance(n) for n in self._names), default=0)
        names = min(names + 8, self.width() // 3)
        room = max(20, self.width() - names - NUMBERS)
        total = max(1, sum(self._counts))
        left, right = Qt.AlignmentFlag.AlignLeft, Qt.AlignmentFlag.AlignRight
        for number, (name, count) in enumerate(zip(self._names, self._counts, strict=True)):
            top = number * (line + GAP)
            painter.setPen(text)
            shown = metrics.elidedText(name, Qt.TextElideMode.ElideRight, names - 6)
            painter.drawText(QRectF(0, top, names, line), left, shown)
            painter.setPen(Qt.PenStyle.NoPen)
            bar = QRectF(names, top + line / 2 - 4, room, 8)
            painter.setBrush(rail)
            painter.drawRoundedRect(bar, 2, 2)
            if count:
                painter.setBrush(QColor(self._colours[number]))
                bar.setWidth(max(3.0, room * count / total))
                painter.drawRoundedRect(bar, 2, 2)
            painter.setPen(text)
            numbers = f"{count:,} · {100 * count / total:.0f} %"
            painter.drawText(QRectF(names + room, top, NUMBERS, line), right, numbers)
        painter.end()
