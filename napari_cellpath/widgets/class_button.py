"""A button of a class: its key, its name, and how much there is of it."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtGui import QResizeEvent
from qtpy.QtWidgets import QPushButton, QSizePolicy, QWidget

from napari_cellpath.widgets.score_scale import swatch

_BORDER = 10  # pixels: the frame, and between swatch and text
_LEAST = 28  # of a name: the count gives way before less of it is shown


class ClassButton(QPushButton):
    """Where there is little room the name is shortened, not what stands round it.

    Qt cuts a long text at both ends, and with it the key and the last digits of the count.
    """

    def __init__(self, colour: str, parent: QWidget | None = None) -> None:
        super().__init__(swatch(colour), "", parent)
        # A long class name must not widen the dock.
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self._parts = ("", "", "")

    def set_parts(self, key: str, name: str, count: str) -> None:
        """Show a key, a name and a count, each with what separates it from the next."""
        self._parts = key, name, count
        self._fit()

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802
        """Another width holds another length of the name."""
        super().resizeEvent(event)
        self._fit()

    def _fit(self) -> None:
        key, name, count = self._parts
        measure = self.fontMetrics()
        room = self.width() - self.iconSize().width() - _BORDER - measure.horizontalAdvance(key)
        wide = measure.horizontalAdvance
        if wide(name) + wide(count) <= room:
            text = key + name + count
        elif room - wide(count) >= _LEAST:
            cut = measure.elidedText(name, Qt.TextElideMode.ElideRight, room - wide(count))
            text = key + cut + count
        else:
            text = key + measure.elidedText(name, Qt.TextElideMode.ElideRight, max(room, _LEAST))
        if text != self.text():
            self.setText(text)
