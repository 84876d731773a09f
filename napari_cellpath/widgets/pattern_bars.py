"""How many cells show each pattern, as a bar each."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QRectF, QSize, Qt
from qtpy.QtGui import QColor, QPainter
from qtpy.QtWidgets import QSizePolicy, QWidget

COLUMNS = 2
GAP, BETWEEN = 3, 14  # pixels between lines and columns
SHORTEST = 24  # pixels of a whole bar


class PatternBars(QWidget):
    """A bar a pattern, with its name and count; the rail is all cells."""

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
        """As wide as the dock, a line for every two patterns."""
        lines = -(-len(self._names) // COLUMNS)
        return QSize(200, lines * (self._line + GAP))

    @property
    def _line(self) -> int:
        return self.fontMetrics().height()

    def paintEvent(self, event: object) -> None:  # noqa: N802
        """Paint name, bar and count of every pattern."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        text = self.palette().color(self.foregroundRole())
        rail = QColor(text.red(), text.green(), text.blue(), 28)
        metrics, line = self.fontMetrics(), self._line
        wide = (self.width() - BETWEEN * (COLUMNS - 1)) / COLUMNS
        most = max(self._counts, default=0)
        numbers = metrics.horizontalAdvance(f"{most:,}") + 6
        names = max((metrics.horizontalAdvance(n) for n in self._names), default=0) + 6
        names = min(names, int(wide - numbers - SHORTEST))
        room = wide - names - numbers
        total = max(1, sum(self._counts))
        middle = Qt.AlignmentFlag.AlignVCenter
        for number, (name, count) in enumerate(zip(self._names, self._counts, strict=True)):
            left = (number % COLUMNS) * (wide + BETWEEN)
            top = (number // COLUMNS) * (line + GAP)
            painter.setPen(text)
            shown = metrics.elidedText(name, Qt.TextElideMode.ElideRight, names - 4)
            painter.drawText(QRectF(left, top, names, line), middle, shown)
            where = QRectF(left + names + room, top, numbers, line)
            painter.drawText(where, middle | Qt.AlignmentFlag.AlignRight, f"{count:,}")
            painter.setPen(Qt.PenStyle.NoPen)
            bar = QRectF(left + names, top + line / 2 - 4, room, 8)
            painter.setBrush(rail)
            painter.drawRoundedRect(bar, 2, 2)
            if count:
                painter.setBrush(QColor(self._colours[number]))
                bar.setWidth(max(3.0, room * count / total))
                painter.drawRoundedRect(bar, 2, 2)
        painter.end()
