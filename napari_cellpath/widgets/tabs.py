"""Docks of ours that would squeeze each other share their place as tabs."""

from __future__ import annotations

from qtpy.QtWidgets import QDockWidget, QMainWindow, QWidget

COMFORTABLE = 640
"""Pixels of height in which a dock of ours can be worked with."""


def tab_where_crowded(widget: QWidget, kind: type[QWidget]) -> None:
    """Put the dock of a widget behind another that holds a ``kind``, if both are too high.

    napari stacks docks; two of ours on a usual screen would show two rows of each. Whoever wants
    them side by side drags them there: this is done once, when a dock is first shown.
    """
    dock = _dock_of(widget)
    window = None if dock is None else dock.parent()
    if dock is None or not isinstance(window, QMainWindow) or dock.isFloating():
        return
    area = window.dockWidgetArea(dock)
    others = [
        other for other in window.findChildren(QDockWidget)
        if other is not dock and other.isVisible() and not other.isFloating()
        and window.dockWidgetArea(other) == area and other.findChild(kind) is not None
    ]  # fmt: skip
    if not others or window.tabifiedDockWidgets(dock):
        return
    if window.height() < COMFORTABLE * (len(others) + 1):
        window.tabifyDockWidget(others[-1], dock)
        dock.raise_()


def _dock_of(widget: QWidget) -> QDockWidget | None:
    parent = widget.parent()
    while parent is not None and not isinstance(parent, QDockWidget):
        parent = parent.parent()
    return parent
