"""The frame every dock of ours shares, top to bottom: what, do, how, job, result, correct, out.

It knows no system: presets, classes and columns are told to it. It scrolls in a small dock and
takes its colours from napari's theme, so nothing here names a colour.
"""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QSize, Qt, QTimer
from qtpy.QtGui import QPalette
from qtpy.QtWidgets import QFrame, QScrollArea, QSizePolicy, QVBoxLayout, QWidget

from napari_cellpath.widgets.outcome import CorrectSection, JobSection, OutSection, ResultSection
from napari_cellpath.widgets.sections import ActionSection, MethodSection, SubjectSection
from napari_cellpath.widgets.table import Column
from napari_cellpath.widgets.tabs import tab_where_crowded

MARGIN = 10
GAP = 10

STYLE = """
#cellpath-quiet { color: %(quiet)s; }
#cellpath-small { min-width: 34px; max-width: 44px; padding: 2px; }
#cellpath-secondary { padding-left: 3px; padding-right: 3px; }
#cellpath-primary { font-weight: 600; }
#cellpath-primary:checked { border: 2px solid %(text)s; }
#cellpath-more > QPushButton { text-align: left; background-color: transparent; }
#cellpath-keys { padding: 4px 9px; font-weight: 600; }
#cellpath-rule { background-color: %(rule)s; padding: 0px; border: none; }
"""


class Themed(QWidget):
    """A dock's widget that derives the few shades of its own from the theme's text colour."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        # Else napari pads the dock with empty space instead of giving it to table or gallery.
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)
        self._colour_of_text = ""
        self._following = False
        self._placed = False

    def follow_theme(self) -> None:
        """Take the theme's text colour, if it is another than before."""
        text = self.palette().color(QPalette.ColorRole.WindowText)
        if self._following or text.name() == self._colour_of_text:
            return
        self._colour_of_text = text.name()
        shade = f"rgba({text.red()}, {text.green()}, {text.blue()}, %d)"
        self._following = True  # a style sheet changes the palette on its way
        try:
            self.setStyleSheet(
                STYLE % {"quiet": shade % 175, "text": shade % 230, "rule": shade % 45}
            )
        finally:
            self._following = False

    def changeEvent(self, event: object) -> None:  # noqa: N802
        """Follow a change of theme."""
        super().changeEvent(event)
        self.follow_theme()

    def showEvent(self, event: object) -> None:  # noqa: N802
        """Take the theme's colours once they are known; the first time, find a place."""
        super().showEvent(event)
        self.follow_theme()
        if not self._placed:
            self._placed = True
            QTimer.singleShot(0, self._find_place)

    def _find_place(self) -> None:
        tab_where_crowded(self, Themed)


class DockFrame(Themed):
    """The sections of a dock in one scrolling column.

    Attributes
    ----------
    subject, action, method, job, result, correct, out
        The sections; a dock connects to their signals and calls their setters.
    """

    def __init__(
        self, primary: str, columns: Sequence[Column], parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self.subject = SubjectSection()
        self.action = ActionSection(primary)
        self.method = MethodSection()
        self.job = JobSection()
        self.result = ResultSection(columns)
        self.correct = CorrectSection()
        self.out = OutSection()
        self.out.layout().setContentsMargins(MARGIN, MARGIN // 2, MARGIN, MARGIN // 2)

        inner = QWidget()
        column = self._column = QVBoxLayout(inner)
        column.setContentsMargins(MARGIN, MARGIN, MARGIN, MARGIN)
        column.setSpacing(GAP)
        column.addWidget(self.subject)
        column.addWidget(self.action)
        column.addWidget(self.method)
        column.addWidget(rule())
        column.addWidget(self.job)
        column.addWidget(rule())
        column.addWidget(self.result, 1)
        column.addWidget(self.correct)

        self.scroll = QScrollArea()
        self.scroll.setWidgetResizable(True)
        self.scroll.setFrameShape(QFrame.Shape.NoFrame)
        self.scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.scroll.setWidget(inner)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.setSpacing(0)
        outer.addWidget(self.scroll, 1)
        outer.addWidget(self.out)  # what one does last must not have to be scrolled to
        self._foot = outer

    def add_section(self, widget: QWidget) -> None:
        """Put a section of the dock's own between result and corrections."""
        self._column.insertWidget(self._column.indexOf(self.correct), widget)

    def add_foot(self, widget: QWidget) -> None:
        """Put a line of the dock's own below everything."""
        widget.layout().setContentsMargins(MARGIN, 0, MARGIN, MARGIN // 2)
        self._foot.addWidget(widget)

    def sizeHint(self) -> QSize:  # noqa: N802
        """Wide enough for the table's first columns."""
        return QSize(350, 640)

    def minimumSizeHint(self) -> QSize:  # noqa: N802
        """Small: what does not fit is scrolled to."""
        return QSize(300, 160)


def rule() -> QFrame:
    """A thin line between sections."""
    line = QFrame()
    line.setObjectName("cellpath-rule")
    line.setFixedHeight(1)
    return line
