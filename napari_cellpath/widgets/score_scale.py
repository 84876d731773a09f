"""The legend of scores: the colour map, the threshold, the review band, and where scores lie."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QBrush, QColor, QIcon, QLinearGradient, QPainter, QPen, QPixmap
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_cellpath.bridge.appearance import score_colours

BINS = 60


class ScoreScale(QWidget):
    """A horizontal bar 0..1 with the threshold marked and the review band hatched."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._threshold = 0.5
        self._band = 0.1
        self._counts = np.zeros(BINS, dtype=int)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setToolTip(
            "Scores from 0 to 1. The line is the threshold, the hatching the review band, "
            "the bars how many scores lie where."
        )

    def sizeHint(self) -> QSize:  # noqa: N802
        """As wide as the dock, as high as bar and numbers."""
        return QSize(200, 26 + self.fontMetrics().height())

    def set_reading(self, threshold: float, band: float) -> None:
        """Show another threshold and review band."""
        self._threshold, self._band = threshold, band
        self.update()

    def set_scores(self, scores: NDArray[np.float64]) -> None:
        """Show how scores are spread; NaN is left out."""
        known = scores[~np.isnan(scores)]
        counts = np.histogram(known, bins=BINS, range=(0.0, 1.0))[0]
        if not np.array_equal(counts, self._counts):
            self._counts = counts
            self.update()

    def paintEvent(self, event: object) -> None:  # noqa: N802
        """Paint bars, scale, band, threshold and numbers."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        text = self.palette().color(self.foregroundRole())
        bars, bar = 14.0, 9.0
        area = QRectF(1, bars, self.width() - 2, bar)
        self._paint_bars(painter, area, bars - 1, text)
        gradient = QLinearGradient(area.left(), 0, area.right(), 0)
        places = np.linspace(0.0, 1.0, 33)
        for place, rgba in zip(places, score_colours(places, self._threshold), strict=True):
            gradient.setColorAt(float(place), QColor.fromRgbF(*map(float, rgba)))
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QBrush(gradient))
        painter.drawRoundedRect(area, 2, 2)

        def at(score: float) -> float:
            return area.left() + min(max(score, 0.0), 1.0) * area.width()

        low, high = at(self._threshold - self._band), at(self._threshold + self._band)
        painter.setBrush(QBrush(QColor(0, 0, 0, 170), Qt.BrushStyle.BDiagPattern))
        painter.drawRect(QRectF(low, area.top(), high - low, bar))
        painter.setPen(QPen(text, 2))
        line = at(self._threshold)
        painter.drawLine(QPointF(line, area.top() - 3), QPointF(line, area.bottom() + 3))
        self._paint_numbers(painter, area, line, text)

    def _paint_bars(self, painter: QPainter, area: QRectF, height: float, text: QColor) -> None:
        most = int(self._counts.max())
        if not most:
            return
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(QColor(text.red(), text.green(), text.blue(), 150))
        width = area.width() / BINS
        for place in np.flatnonzero(self._counts):
            tall = max(2.0, height * np.sqrt(self._counts[place] / most))
            painter.drawRect(
                QRectF(
                    area.left() + place * width, area.top() - 1 - tall, max(width - 0.5, 1), tall
                )
            )

    def _paint_numbers(self, painter: QPainter, area: QRectF, line: float, text: QColor) -> None:
        painter.setPen(text)
        top, high = area.bottom() + 3, self.fontMetrics().height()
        left, right = Qt.AlignmentFlag.AlignLeft, Qt.AlignmentFlag.AlignRight
        painter.drawText(QRectF(area.left(), top, 40, high), left, "0")
        painter.drawText(QRectF(area.right() - 40, top, 40, high), right, "1")
        if area.left() + 24 < line < area.right() - 24:
            centre = QRectF(line - 30, top, 60, high)
            painter.drawText(centre, Qt.AlignmentFlag.AlignHCenter, f"{self._threshold:.2f}")


def swatch(colour: str, size: int = 12, *, hollow: bool = False) -> QIcon:
    """A round dot of a colour as an icon, outlined so that it shows on any theme."""
    scale = 2  # drawn larger: icons are shown at the screen's own resolution
    pixmap = QPixmap(size * scale, size * scale)
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    circle = QRectF(2, 2, size * scale - 4, size * scale - 4)
    if hollow:
        # Three strokes: a pale ring would vanish on a light theme, a dark one on a dark theme.
        painter.setPen(QPen(QColor(128, 128, 128), 7))
        painter.drawEllipse(circle.adjusted(3, 3, -3, -3))
        painter.setPen(QPen(QColor(colour), 4.5))
        painter.drawEllipse(circle.adjusted(3, 3, -3, -3))
    else:
        painter.setPen(QPen(QColor(128, 128, 128), 1.5))
        painter.setBrush(QColor(colour))
        painter.drawEllipse(circle)
    painter.end()
    pixmap.setDevicePixelRatio(scale)
    return QIcon(pixmap)
