"""Docks that share their place, and buttons that share their width."""

import pytest
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QDockWidget, QLabel, QMainWindow, QWidget

from napari_cellpath.widgets.class_button import ClassButton
from napari_cellpath.widgets.tabs import COMFORTABLE, tab_where_crowded


class Ours(QLabel):
    """What stands for a dock's widget."""


def dock(window: QMainWindow, widget: QWidget) -> QDockWidget:
    """Put a widget to the right, as napari does: in a dock, in a wrapper."""
    made, wrapper = QDockWidget(window), QWidget()
    widget.setParent(wrapper)
    made.setWidget(wrapper)
    window.addDockWidget(Qt.DockWidgetArea.RightDockWidgetArea, made)
    return made


@pytest.mark.parametrize(
    ("height", "kind", "tabbed"),
    [
        (COMFORTABLE + 300, Ours, True),
        (2 * COMFORTABLE + 100, Ours, False),
        (COMFORTABLE + 300, QLabel, False),
    ],
)
def test_two_of_ours_become_tabs_where_they_do_not_fit(qtbot, height, kind, tabbed):
    """On a high screen they stay stacked; docks of others are let alone."""
    window = QMainWindow()
    qtbot.addWidget(window)
    window.resize(900, height)
    first, widget = dock(window, kind("first")), Ours("second")
    second = dock(window, widget)
    with qtbot.waitExposed(window):
        window.show()
    window.resize(900, height)
    tab_where_crowded(widget, Ours)
    assert window.tabifiedDockWidgets(second) == ([first] if tabbed else [])


def test_a_class_s_name_gives_way_before_its_key_and_count(qtbot):
    """Wide: whole; narrower: the name is cut; very narrow: the count goes."""
    button = ClassButton("#0072b2")
    qtbot.addWidget(button)
    button.set_parts("3  ", "malignant gland", " · 2,111 µm²")
    button.resize(500, 24)
    button._fit()
    assert button.text() == "3  malignant gland · 2,111 µm²"
    measure = button.fontMetrics().horizontalAdvance
    button.resize(measure("3  malig · 2,111 µm²") + 40, 24)
    button._fit()
    assert button.text().startswith("3  ")
    assert button.text().endswith("… · 2,111 µm²")
    button.resize(60, 24)
    button._fit()
    assert button.text().startswith("3  ")
    assert "µm²" not in button.text()
