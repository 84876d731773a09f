"""What the docks share whose objects are classified, looked through, and summed up at the end."""

from __future__ import annotations

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QPushButton

from napari_cellpath.bridge.timing import timed
from napari_cellpath.core.vocabulary import Average
from napari_cellpath.widgets.dock import ObjectDock
from napari_cellpath.widgets.keys import shortcut_of
from napari_cellpath.widgets.region_summary_panel import RegionSummarySection
from napari_cellpath.widgets.sections import Choice
from napari_cellpath.widgets.specimen_panel import SpecimenSection

AVERAGES = (
    Choice(Average.MODEL, "as the model was measured", "What the numbers of its card are of."),
    Choice(Average.NONE, "none · as the cell lies", "One look, as published; eight times faster."),
    Choice(
        Average.D4, "d4 · mean of 8 ways round",
        "The mean of four right-angle turns and their mirrors; eight times the work.",
    ),
)  # fmt: skip
EVERY, BUSY = 300, 3000  # ms
"""Summing up takes a thread its time: seldom while answers still pour in."""


class SummedDock(ObjectDock):
    """An `ObjectDock` with a section that sums up all objects and leads to those unseen."""

    classify: QPushButton
    """Classifies what has no valid answer."""

    def add_summary(self, section: SpecimenSection | RegionSummarySection) -> None:
        """Add the section, with its button, behind all others."""
        self.unseen = section.add_button(
            "Next unseen",
            f"Go to the least certain {self.session.kind.one} that nobody has looked at. "
            f"({shortcut_of('next_unseen')})",
        )
        self.unseen.clicked.connect(lambda: self.session.go_to_unseen())
        self.frame.add_section(section)
        self._summing = QTimer(self)
        self._summing.setSingleShot(True)
        self._summing.timeout.connect(self.read_summary)

    def read_summary(self) -> None:
        """Have the objects summed up on a thread of its own, and show it."""
        raise NotImplementedError

    def sum_up_soon(self) -> None:
        """Sum up what there is, once it has been quiet for a moment."""
        self._summing.start(EVERY)

    @timed
    def show_facts(self) -> None:
        """Show what is known of all objects, and of them together."""
        super().show_facts()
        objects = self.session.objects
        unseen = 0 if objects is None else len(objects.unseen())
        text = f"Unseen ({unseen:,})" if unseen else "Next unseen"
        if text != self.unseen.text():
            self.unseen.setText(text)
        self.unseen.setEnabled(unseen > 0)
        if not self._summing.isActive():
            self._summing.start(BUSY if len(self.session.inquiry.jobs) > 0 else EVERY)

    def show_left(self, unscored: int, stale: int) -> None:
        """Show how many objects have no valid answer."""
        self.label_run(self.classify, "Classify", "Re-classify", unscored, stale)
        if self.session.method.entry is None:
            self.classify.setEnabled(False)

    def working_on(self, count: int) -> str:
        """What is said while so many objects are under way."""
        return f"Classifying {self.session.kind.count(count)}"

    def on_idle(self) -> None:
        """Everything that ran has ended."""
        self.sum_up_soon()
