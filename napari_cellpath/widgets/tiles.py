"""How one item looks in the gallery.

Frame: the class the model calls, dashed where doubtful. Below it the score with the sign it has
on the canvas: a disc, a ring where doubtful; and a diamond where flagged. A badge with a tick and
the key of its class: a person said so. A dot: nobody has looked at it yet. In a blind reading
only the picture and the reader's own word are shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from qtpy.QtCore import QPoint, QPointF, QRect, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QFont, QImage, QPainter, QPalette, QPen, QPixmap, QPolygonF

from napari_cellpath.bridge.appearance import score_colours
from napari_cellpath.bridge.conventions import PENDING_COLOUR

MARGIN = 5
CAPTION = 19
FRAME = 3
STEPS = 50  # shades of the score dots that the eye can tell apart
SEEN_DOT = "#56b4e9"


@dataclass(frozen=True, slots=True)
class Tile:
    """What is to be seen of one item.

    ``number`` and ``colour`` are those of the class a person gave, 0 and empty if none did;
    ``frame`` is the colour of the call.
    """

    picture: QImage | None = None
    frame: str = ""
    text: str = ""
    score: float = float("nan")
    doubtful: bool = False
    flagged: bool = False
    unseen: bool = False
    number: int = 0
    colour: str = ""
    labelled: bool = False


def cell_size(side: int) -> QSize:
    """Size of a tile whose picture is ``side`` pixels wide."""
    return QSize(side + 2 * MARGIN, side + MARGIN + CAPTION)


def draw_tile(painter: QPainter, rect: QRect, tile: Tile, selected: bool, threshold: float) -> None:
    """Draw a tile into its rectangle, in the colours of the widget that is painted on.

    ``threshold`` is where the colours of scores have their middle.
    """
    palette = painter.device().palette()
    text = palette.color(QPalette.ColorRole.WindowText)
    if selected:
        painter.setPen(QPen(text, 1))
        painter.setBrush(palette.color(QPalette.ColorRole.Highlight))
        painter.drawRect(rect.adjusted(1, 1, -2, -2))
    side = rect.width() - 2 * MARGIN
    area = QRect(rect.left() + MARGIN, rect.top() + MARGIN, side, side)
    _draw_picture(painter, area, tile.picture, text)
    painter.setBrush(Qt.BrushStyle.NoBrush)
    if tile.frame:
        painter.setPen(_frame(tile.frame, tile.doubtful))
        painter.drawRect(area.adjusted(1, 1, -2, -2))
    else:
        painter.setPen(QColor(PENDING_COLOUR))
        painter.drawRect(area.adjusted(0, 0, -1, -1))
    if tile.unseen:
        painter.drawPixmap(area.topLeft() + QPoint(5, 5), _dot())
    if tile.labelled:
        badge = _badge(tile.number, tile.colour)
        painter.drawPixmap(area.right() - badge.width() // 2 - 3, area.top() + 4, badge)
    _draw_caption(painter, area, tile, text, threshold)


def _draw_picture(painter: QPainter, area: QRect, picture: QImage | None, text: QColor) -> None:
    if picture is not None and not picture.isNull():
        if picture.width() == area.width():
            painter.drawImage(area.topLeft(), picture)
        else:
            painter.drawImage(area, picture)
        return
    painter.fillRect(area, QColor(text.red(), text.green(), text.blue(), 28))
    if picture is not None:  # its pixels cannot be read
        painter.setPen(QPen(text, 1))
        painter.drawLine(area.topLeft(), area.bottomRight())
        painter.drawLine(area.topRight(), area.bottomLeft())


def _draw_caption(
    painter: QPainter, area: QRect, tile: Tile, text: QColor, threshold: float
) -> None:
    top, left = area.bottom() + 3, area.left() + 1
    if not np.isnan(tile.score):
        step = round(tile.score * STEPS)
        painter.drawPixmap(left, top + 1, _disc(step, tile.doubtful, threshold))
        left += 16
    if tile.flagged:
        painter.drawPixmap(area.right() - 12, top + 1, _diamond(text.rgb()))
    if tile.text:
        painter.setPen(text)
        room = QRect(left, top, area.right() - left - (14 if tile.flagged else 0), CAPTION - 4)
        flags = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
        shown = painter.fontMetrics().elidedText(
            tile.text, Qt.TextElideMode.ElideRight, room.width()
        )
        painter.drawText(room, int(flags), shown)


@lru_cache(maxsize=64)
def _frame(colour: str, dashed: bool) -> QPen:
    pen = QPen(QColor(colour), FRAME)
    pen.setJoinStyle(Qt.PenJoinStyle.MiterJoin)
    if dashed:
        pen.setCapStyle(Qt.PenCapStyle.FlatCap)
        pen.setDashPattern([2.0, 1.6])
    return pen


def _sketch(width: int, height: int) -> tuple[QPixmap, QPainter]:
    """A transparent pixmap at twice the resolution, and its painter."""
    pixmap = QPixmap(2 * width, 2 * height)
    pixmap.fill(Qt.GlobalColor.transparent)
    pixmap.setDevicePixelRatio(2)
    painter = QPainter(pixmap)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    return pixmap, painter


@lru_cache(maxsize=512)
def _disc(step: int, hollow: bool, threshold: float) -> QPixmap:
    red, green, blue = score_colours(np.array([step / STEPS]), threshold)[0, :3]
    colour = QColor.fromRgbF(float(red), float(green), float(blue))
    pixmap, painter = _sketch(13, 13)
    if hollow:
        painter.setPen(QPen(QColor(128, 128, 128), 4.2))
        painter.drawEllipse(QRectF(3, 3, 7, 7))
        painter.setPen(QPen(colour, 2.6))
        painter.drawEllipse(QRectF(3, 3, 7, 7))
    else:
        painter.setPen(QPen(QColor(128, 128, 128), 1))
        painter.setBrush(colour)
        painter.drawEllipse(QRectF(1, 1, 11, 11))
    painter.end()
    return pixmap


@lru_cache(maxsize=8)
def _diamond(rgb: int) -> QPixmap:
    pixmap, painter = _sketch(13, 13)
    painter.setPen(QPen(QColor.fromRgb(rgb), 1.6))
    painter.drawPolygon(QPolygonF([QPointF(6.5, 1), QPointF(12, 6.5), QPointF(6.5, 12),
                                   QPointF(1, 6.5)]))  # fmt: skip
    painter.end()
    return pixmap


@lru_cache(maxsize=1)
def _dot() -> QPixmap:
    pixmap, painter = _sketch(10, 10)
    painter.setPen(QPen(QColor("#1a1a1a"), 1))
    painter.setBrush(QColor(SEEN_DOT))
    painter.drawEllipse(QRectF(1, 1, 8, 8))
    painter.end()
    return pixmap


@lru_cache(maxsize=64)
def _badge(number: int, colour: str) -> QPixmap:
    """A tick on the colour of the class, with its key where it has one."""
    back = QColor(colour or "#ffffff")
    ink = QColor("#000000" if back.lightnessF() > 0.55 or not colour else "#ffffff")
    width = 28 if number else 18
    pixmap, painter = _sketch(width, 16)
    painter.setPen(QPen(QColor("#1a1a1a"), 1))
    painter.setBrush(back)
    painter.drawRoundedRect(QRectF(0.5, 0.5, width - 1, 15), 4, 4)
    painter.setPen(QPen(ink, 2))
    painter.drawPolyline(QPolygonF([QPointF(4, 8), QPointF(7.5, 11.5), QPointF(13, 4.5)]))
    if number:
        font = QFont()
        font.setPixelSize(11)
        font.setBold(True)
        painter.setFont(font)
        painter.drawText(QRectF(14, 0, 12, 16), int(Qt.AlignmentFlag.AlignCenter), str(number))
    painter.end()
    return pixmap
