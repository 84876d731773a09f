"""Many tiles in rows, of which only those in sight are painted; select, walk and go to them.

It knows no images and no classes: a painter draws a tile, keys and gestures are told by signal.
Qt's own QListView lays out every item whenever its width changes (50 to 90 ms for 10,000,
measured); here a place follows from its number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QEvent, QPoint, QRect, QSize, Qt, Signal
from qtpy.QtGui import QColor, QPainter, QPalette, QPen
from qtpy.QtWidgets import QAbstractScrollArea, QSizePolicy, QToolTip

from napari_cellpath.bridge.timing import timed

Paint = Callable[[QPainter, QRect, int, bool], None]
"""Draws the tile of a place into a rectangle; the last says whether it is selected."""

SHIFT, CONTROL = Qt.KeyboardModifier.ShiftModifier, Qt.KeyboardModifier.ControlModifier
_DRAG = 6  # pixels the mouse moves before a press becomes a rubber band


class Gallery(QAbstractScrollArea):
    """A scrolling area of equally large tiles, numbered from 0.

    Parameters
    ----------
    paint
        Draws one tile.
    cell
        Width and height of a tile, pixels.
    """

    selection_made = Signal()
    """The user selected other tiles."""
    entered = Signal(int)
    """The user wants to go to the place of this tile: Enter or a double click."""
    digit_pressed = Signal(int)
    taken_back = Signal()
    """0 or Backspace."""
    agreed = Signal()
    """Shift+A."""
    undone = Signal()
    redone = Signal()
    """Ctrl+Z and Ctrl+Shift+Z."""
    moved = Signal()
    """Other tiles are in sight."""

    def __init__(self, paint: Paint, cell: QSize) -> None:
        super().__init__()
        self._paint = paint
        self._cell = cell
        self._count = 0
        self._selected = np.zeros(0, dtype=bool)
        self._current = -1
        self._anchor = 0
        self._press: QPoint | None = None
        self._band = QRect()
        self._before_band = self._selected
        self.keeps_keys = False
        self.hint = ""
        self.tip: Callable[[int], str] = lambda place: ""
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setVerticalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOn)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setMinimumHeight(cell.height() + 8)
        self.viewport().setMouseTracking(True)

    # What it holds.

    def set_count(self, count: int, selected: Iterable[int] = ()) -> None:
        """Show so many tiles from the first on, these selected; nothing is told back."""
        self._count = count
        self._selected = np.zeros(count, dtype=bool)
        self._selected[[p for p in selected if 0 <= p < count]] = True
        self._current = -1
        self._anchor = 0
        self._lay_out()
        self.verticalScrollBar().setValue(0)
        self._look_again()

    def set_cell(self, cell: QSize) -> None:
        """Make tiles another size; the first one in sight stays in sight."""
        first = self.in_sight().start
        self._cell = cell
        self.setMinimumHeight(cell.height() + 8)
        self._lay_out()
        self.verticalScrollBar().setValue(first // self.columns * cell.height())
        self._look_again()

    @property
    def count(self) -> int:
        """Number of tiles."""
        return self._count

    @property
    def columns(self) -> int:
        """Tiles in a row."""
        return max(1, self.viewport().width() // self._cell.width())

    @property
    def current(self) -> int:
        """The tile the keyboard is at, -1 if none."""
        return self._current

    @property
    def selected(self) -> NDArray[np.intp]:
        """Places of the selected tiles."""
        return np.flatnonzero(self._selected)

    def select(self, places: Iterable[int], *, show: bool = False) -> None:
        """Select exactly these; nothing is told back. With ``show`` the first is scrolled to."""
        chosen = np.zeros(self._count, dtype=bool)
        there = [p for p in places if 0 <= p < self._count]
        chosen[there] = True
        if there and not (0 <= self._current < self._count and chosen[self._current]):
            self._current = self._anchor = there[0]
        if there and show:
            self.show_place(there[0])
        if not np.array_equal(chosen, self._selected):
            self._selected = chosen
        self.viewport().update()

    # Where tiles are.

    def rect_of(self, place: int) -> QRect:
        """Where a tile is in the viewport."""
        row, col = divmod(place, self.columns)
        width, height = self._cell.width(), self._cell.height()
        top = row * height - self.verticalScrollBar().value()
        return QRect(self._left + col * width, top, width, height)

    def place_at(self, point: QPoint) -> int:
        """The tile at a point of the viewport, -1 if none."""
        col = (point.x() - self._left) // self._cell.width()
        row = (point.y() + self.verticalScrollBar().value()) // self._cell.height()
        place = row * self.columns + col
        return place if 0 <= col < self.columns and 0 <= place < self._count else -1

    def in_sight(self) -> range:
        """Tiles of which at least a part is to be seen."""
        top, high = self.verticalScrollBar().value(), self._cell.height()
        bottom = top + self.viewport().height()
        return self._rows_to_places(top // high, -(-bottom // high))

    def on_page(self) -> range:
        """Tiles that are to be seen whole: what one agrees with must have been in sight."""
        top, high = self.verticalScrollBar().value(), self._cell.height()
        bottom = top + self.viewport().height()
        return self._rows_to_places(-(-top // high), bottom // high)

    def turn_page(self, step: int) -> None:
        """Scroll so that the next (+1) or previous (-1) tiles not yet in sight are on top."""
        page, high = self.on_page(), self._cell.height()
        rows = max(1, self.viewport().height() // high)
        here = page.start // self.columns
        self.verticalScrollBar().setValue((here + step * rows) * high)

    def show_place(self, place: int) -> None:
        """Scroll as little as needed for a tile to be in sight."""
        rect, bar = self.rect_of(place), self.verticalScrollBar()
        if rect.top() < 0:
            bar.setValue(bar.value() + rect.top())
        elif rect.bottom() > self.viewport().height():
            bar.setValue(bar.value() + rect.bottom() + 1 - self.viewport().height())

    def update_place(self, place: int) -> None:
        """Paint one tile again."""
        self.viewport().update(self.rect_of(place))

    def update_all(self) -> None:
        """Paint what is in sight again."""
        self.viewport().update()

    @property
    def _left(self) -> int:
        # What a row does not fill stands at both sides.
        return (self.viewport().width() - self.columns * self._cell.width()) // 2

    def _rows_to_places(self, first: int, end: int) -> range:
        columns = self.columns
        return range(min(first * columns, self._count), min(max(first, end) * columns, self._count))

    def _lay_out(self) -> None:
        rows = -(-self._count // self.columns)
        high, seen = self._cell.height(), self.viewport().height()
        bar = self.verticalScrollBar()
        bar.setPageStep(max(high, seen))
        bar.setSingleStep(max(1, high // 3))
        bar.setRange(0, max(0, rows * high - seen))

    def _look_again(self) -> None:
        self.viewport().update()
        self.moved.emit()

    # Qt's events.

    def sizeHint(self) -> QSize:  # noqa: N802
        """Ask for little: the gallery takes what is left, and buttons below it stay in sight."""
        return QSize(3 * self._cell.width() + 24, self._cell.height() + 8)

    def resizeEvent(self, event: object) -> None:  # noqa: N802
        """Keep the first tile in sight in sight."""
        self._lay_out()
        self.moved.emit()

    @timed
    def scrollContentsBy(self, dx: int, dy: int) -> None:  # noqa: N802
        """Move what is painted; only what comes into sight is painted anew."""
        self.viewport().scroll(0, dy)
        self.moved.emit()

    @timed
    def paintEvent(self, event: object) -> None:  # noqa: N802
        """Paint the tiles in the exposed part."""
        painter = QPainter(self.viewport())
        exposed = event.rect()
        for place in self.in_sight():
            rect = self.rect_of(place)
            if rect.intersects(exposed):
                self._paint(painter, rect, place, bool(self._selected[place]))
        text = self.palette().color(QPalette.ColorRole.WindowText)
        if self.hasFocus() and 0 <= self._current < self._count:
            painter.setPen(QPen(text, 1, Qt.PenStyle.DotLine))
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.drawRect(self.rect_of(self._current).adjusted(1, 1, -2, -2))
        if not self._band.isNull():
            painter.setPen(QPen(text, 1))
            painter.setBrush(QColor(text.red(), text.green(), text.blue(), 40))
            painter.drawRect(self._band)
        if not self._count and self.hint:
            painter.setPen(text)
            area = self.viewport().rect().adjusted(16, 16, -16, -16)
            flags = Qt.AlignmentFlag.AlignCenter | Qt.TextFlag.TextWordWrap
            painter.drawText(area, int(flags), self.hint)
        painter.end()

    def focusInEvent(self, event: object) -> None:  # noqa: N802
        """Show where the keyboard is."""
        super().focusInEvent(event)
        self.viewport().update()

    def focusOutEvent(self, event: object) -> None:  # noqa: N802
        """Show that the keyboard is elsewhere."""
        super().focusOutEvent(event)
        self.viewport().update()

    def mousePressEvent(self, event: object) -> None:  # noqa: N802
        """Select one, add one (Ctrl), up to one (Shift), or begin a rubber band."""
        if event.button() != Qt.MouseButton.LeftButton:
            return
        point = event.position().toPoint()
        place = self.place_at(point)
        self._press = point
        adding = bool(event.modifiers() & (CONTROL | SHIFT))
        self._before_band = self._selected.copy() if adding else np.zeros_like(self._selected)
        if place < 0:
            if not adding:
                self._choose(np.zeros_like(self._selected))
            return
        self._go(place, event.modifiers())

    def mouseMoveEvent(self, event: object) -> None:  # noqa: N802
        """Drag the rubber band."""
        if self._press is None or not event.buttons() & Qt.MouseButton.LeftButton:
            return
        point = event.position().toPoint()
        if self._band.isNull() and (point - self._press).manhattanLength() < _DRAG:
            return
        self._band = QRect(self._press, point).normalized()
        chosen = self._before_band.copy()
        for place in self.in_sight():
            if self.rect_of(place).adjusted(4, 4, -4, -4).intersects(self._band):
                chosen[place] = True
        self._choose(chosen)
        self.viewport().update()

    def mouseReleaseEvent(self, event: object) -> None:  # noqa: N802
        """End the rubber band."""
        self._press = None
        self._band = QRect()
        self.viewport().update()

    def mouseDoubleClickEvent(self, event: object) -> None:  # noqa: N802
        """Go to the place of a tile."""
        place = self.place_at(event.position().toPoint())
        if place >= 0 and event.button() == Qt.MouseButton.LeftButton:
            self.entered.emit(place)

    def event(self, event: QEvent) -> bool:
        """Claim our keys before shortcuts of the window can take them."""
        if event.type() == QEvent.Type.ShortcutOverride and self._meaning(event) is not None:
            event.accept()
            return True
        return super().event(event)

    def viewportEvent(self, event: QEvent) -> bool:  # noqa: N802
        """Say in words what the tile under the pointer is."""
        if event.type() == QEvent.Type.ToolTip:
            place = self.place_at(event.pos())
            QToolTip.showText(event.globalPos(), self.tip(place) if place >= 0 else "", self)
            return True
        return super().viewportEvent(event)

    @timed
    def keyPressEvent(self, event: object) -> None:  # noqa: N802
        """Walk, select, label and agree; other keys go on to napari unless they are kept."""
        meaning = self._meaning(event)
        if meaning is None:
            event.setAccepted(self.keeps_keys)
            return
        event.accept()
        meaning()

    def _meaning(self, event: object) -> Callable[[], None] | None:
        key, modifiers = event.key(), event.modifiers()
        plain = modifiers & ~(Qt.KeyboardModifier.KeypadModifier | Qt.KeyboardModifier.AltModifier)
        none = Qt.KeyboardModifier.NoModifier
        if Qt.Key.Key_1 <= key <= Qt.Key.Key_9 and plain == none:
            return lambda: self.digit_pressed.emit(int(key) - int(Qt.Key.Key_0))
        if key in (Qt.Key.Key_0, Qt.Key.Key_Backspace) and plain == none:
            return self.taken_back.emit
        if key == Qt.Key.Key_A and modifiers == SHIFT:
            return self.agreed.emit
        if key == Qt.Key.Key_A and modifiers == CONTROL:
            return lambda: self._choose(np.ones_like(self._selected))
        if key == Qt.Key.Key_Z and modifiers == CONTROL:
            return self.undone.emit
        if key == Qt.Key.Key_Z and modifiers == CONTROL | SHIFT:
            return self.redone.emit
        if key in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and plain == none:
            return self._enter
        if key == Qt.Key.Key_PageDown:
            return lambda: self.turn_page(1)
        if key == Qt.Key.Key_PageUp:
            return lambda: self.turn_page(-1)
        step = {
            Qt.Key.Key_Left: -1, Qt.Key.Key_Right: 1,
            Qt.Key.Key_Up: -self.columns, Qt.Key.Key_Down: self.columns,
            Qt.Key.Key_Home: -self._count, Qt.Key.Key_End: self._count,
        }.get(key)  # fmt: skip
        if step is None or plain & ~SHIFT & ~CONTROL:
            return None
        return lambda: self._step(step, modifiers)

    def _enter(self) -> None:
        if 0 <= self._current < self._count:
            self.entered.emit(self._current)

    def step_on(self) -> None:
        """Select the next tile, as the arrow key does."""
        self._step(1, Qt.KeyboardModifier.NoModifier)

    def _step(self, step: int, modifiers: Qt.KeyboardModifier) -> None:
        if not self._count:
            return
        start = self._current
        if start < 0:
            start, step = self.on_page().start, 0
        place = min(max(start + step, 0), self._count - 1)
        if abs(step) == self.columns and not 0 <= start + step < self._count:
            place = start  # up from the first row, down from the last: stay in the column
        self._go(place, modifiers & SHIFT)

    def _go(self, place: int, modifiers: Qt.KeyboardModifier) -> None:
        """Make a tile the current one, and select it, add it, or all up to it."""
        self._current = place
        chosen = np.zeros_like(self._selected)
        if modifiers & SHIFT:
            low, high = sorted((min(self._anchor, self._count - 1), place))
            chosen[low : high + 1] = True
        elif modifiers & CONTROL:
            chosen |= self._selected
            chosen[place] ^= True
            self._anchor = place
        else:
            chosen[place] = True
            self._anchor = place
        self.show_place(place)
        self._choose(chosen)

    def _choose(self, chosen: NDArray[np.bool_]) -> None:
        self.viewport().update()
        if not np.array_equal(chosen, self._selected):
            self._selected = chosen
            self.selection_made.emit()
