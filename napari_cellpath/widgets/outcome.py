"""The frame's lower sections: the job, its result, corrections, and the ways out. Views only."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from napari_cellpath.backend.job import WorkerStatus
from napari_cellpath.core.vocabulary import RESEARCH_ONLY
from napari_cellpath.widgets.class_button import ClassButton
from napari_cellpath.widgets.keys import MOST_CLASSES, SHEET_KEY, shortcut_of
from napari_cellpath.widgets.score_scale import ScoreScale
from napari_cellpath.widgets.sections import SPACING, quiet
from napari_cellpath.widgets.table import CellTable, Column


class JobSection(QWidget):
    """Progress, time left and cancel while something runs; device and memory always."""

    cancel_requested = Signal()
    free_memory_requested = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(SPACING)
        running = QHBoxLayout()
        running.setSpacing(SPACING)
        self.bar = QProgressBar()
        self.bar.setRange(0, 1000)
        self.bar.setTextVisible(True)
        self.cancel = QPushButton("Cancel")
        self.cancel.setToolTip("Stop what is running; answers already there stay.")
        running.addWidget(self.bar, 1)
        running.addWidget(self.cancel)
        layout.addLayout(running)
        device = QHBoxLayout()
        device.setSpacing(SPACING)
        self.device = quiet("Inference process not running")
        self.free = QPushButton("Free memory")
        self.free.setToolTip("Drop the loaded models; the next request loads what it needs.")
        device.addWidget(self.device, 1)
        device.addWidget(self.free)
        layout.addLayout(device)
        self.message = quiet()
        self.message.setVisible(False)
        layout.addWidget(self.message)
        self.cancel.clicked.connect(self.cancel_requested)
        self.free.clicked.connect(self.free_memory_requested)
        self.set_idle()

    def set_running(self, text: str, progress: float, seconds_left: float | None) -> None:
        """Show what runs, how far it is (0..1), and how long it will take."""
        left = "" if seconds_left is None else f" · {remaining(seconds_left)} left"
        self._set_bar(round(progress * 1000), f"{text}{left}")
        self.bar.setEnabled(True)
        self.cancel.setEnabled(True)

    def set_idle(self, text: str = "Nothing running") -> None:
        """Show that nothing runs."""
        self._set_bar(0, text)
        self.bar.setEnabled(False)
        self.cancel.setEnabled(False)

    def _set_bar(self, value: int, text: str) -> None:
        # QProgressBar repaints the whole window at once, canvas included (20 to 250 ms); with
        # updates off it only notes that it has to be painted in the next round.
        self.bar.setUpdatesEnabled(False)
        self.bar.setFormat(text)
        self.bar.setValue(value)
        self.bar.setUpdatesEnabled(True)

    def set_message(self, text: str) -> None:
        """Show the last thing that went wrong or was noticed; empty clears it."""
        self.message.setText(text)
        self.message.setVisible(bool(text))

    def set_status(self, status: WorkerStatus) -> None:
        """Show where the computing is done and what it holds."""
        self.free.setEnabled(status.alive and bool(status.models))
        if not status.alive:
            self.device.setText("Inference process not running")
            self.device.setToolTip("")
            return
        parts = [status.device.upper(), status.precision, memory(status.memory_bytes)]
        self.device.setText(" · ".join(part for part in parts if part))
        models = ", ".join(status.models) or "none"
        self.device.setToolTip(f"{status.device_name}\nLoaded models: {models}")


class ResultSection(QWidget):
    """One line, the legend of scores, a table, and the selected object in words."""

    def __init__(self, columns: Sequence[Column], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(SPACING)
        self.summary = QLabel()
        self.summary.setWordWrap(True)
        self.scale = ScoreScale()
        self.table = CellTable(columns)
        self.detail = quiet()
        self.detail.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        layout.addWidget(self.summary)
        layout.addWidget(self.scale)
        layout.addWidget(self.table, 1)
        layout.addWidget(self.detail)
        self._ways = QHBoxLayout()
        self._ways.setSpacing(SPACING)
        layout.addLayout(self._ways)

    def add_way(self, text: str, tip: str) -> QPushButton:
        """Add a button below the table: a way to go on from what it shows."""
        button = QPushButton(text)
        button.setToolTip(tip)
        self._ways.addWidget(button)
        return button

    def set_summary(self, text: str) -> None:
        """Show the one line; rich text."""
        self.summary.setText(text)

    def set_detail(self, text: str) -> None:
        """Show the selected object in words; rich text."""
        self.detail.setText(text)
        self.detail.setVisible(bool(text))


class CorrectSection(QWidget):
    """A button a class, with its key and count, and accept."""

    class_chosen = Signal(str)
    accept_requested = Signal()

    COLUMNS = 2

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(SPACING)
        self.heading = quiet("Correct the selected · Alt + number")
        layout.addWidget(self.heading)
        self._grid = QGridLayout()
        self._grid.setSpacing(SPACING)
        layout.addLayout(self._grid)
        self.accept = QPushButton(f"Accept calls   {shortcut_of('accept')}")
        self.accept.setToolTip("Take the calls of the selected ones as your own word.")
        self.accept.clicked.connect(self.accept_requested)
        self._row = QHBoxLayout()
        self._row.setSpacing(SPACING)
        self._row.addWidget(self.accept, 1)
        layout.addLayout(self._row)
        self.buttons: list[ClassButton] = []
        self._names: tuple[str, ...] = ()
        self._counts: list[int | str] = []
        self._tip = "Correct the selected ones to “{}”"

    def for_painting(self, heading: str, tip: str, accept: str, accept_tip: str) -> None:
        """Let the buttons choose what is on a brush; the one chosen stays pressed.

        ``tip`` is that of a class's button, with ``{}`` for its name.
        """
        self.heading.setText(heading)
        self._tip = tip
        self.accept.setText(f"{accept}   {shortcut_of('accept')}")
        self.accept.setToolTip(accept_tip)

    def add_button(self, text: str, tip: str) -> QPushButton:
        """Add a button beside accept."""
        button = QPushButton(text)
        button.setToolTip(tip)
        self._row.addWidget(button)
        return button

    def set_chosen(self, name: str) -> None:
        """Show which class was chosen; empty for none."""
        for button, own in zip(self.buttons, self._names, strict=True):
            button.setCheckable(True)
            button.setChecked(own == name)

    def set_classes(self, names: Sequence[str], colours: Sequence[str]) -> None:
        """Make a button for each class, in the model's order."""
        if tuple(names) == self._names:
            return
        for button in self.buttons:
            self._grid.removeWidget(button)
            button.deleteLater()
        self.buttons = []
        self._names = tuple(names)
        for number, (name, colour) in enumerate(zip(names, colours, strict=True)):
            button = ClassButton(colour)
            button.clicked.connect(lambda _=False, name=name: self.class_chosen.emit(name))
            self._grid.addWidget(button, number // self.COLUMNS, number % self.COLUMNS)
            self.buttons.append(button)
        self._counts = []
        self.set_counts([0] * len(self._names))

    def set_counts(self, counts: Sequence[int | str]) -> None:
        """Show how many objects stand in each class, or how much of it there is in words."""
        if list(counts) == self._counts:
            return
        self._counts = list(counts)
        for number, (button, name) in enumerate(zip(self.buttons, self._names, strict=True)):
            has_key, count = number < MOST_CLASSES, counts[number]
            button.set_parts(
                f"{number + 1}  " if has_key else "", name, f" · {count}" if count != "" else ""
            )
            key = f" ({shortcut_of(f'class_{number + 1}')})" if has_key else ""
            now = f" Now: {count}." if count else ""
            button.setToolTip(f"{self._tip.format(name)}{key}.{now}")

    def set_active(self, active: bool) -> None:
        """Buttons act on a selection; without one they are off."""
        for button in (*self.buttons, self.accept):
            button.setEnabled(active)


class OutSection(QWidget):
    """Export, the command line, and the keys."""

    export_requested = Signal()
    copy_requested = Signal()
    keys_requested = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(SPACING)
        row = QHBoxLayout()
        row.setSpacing(SPACING)
        self.export = QPushButton("Export CSV…")
        self.export.setToolTip("Write every object with its score, call and correction.")
        self.copy = QPushButton("Copy command")
        self.copy.setToolTip("Copy the command line that gives the same numbers.")
        self.keys = QToolButton()
        self.keys.setText(SHEET_KEY)
        self.keys.setToolTip(f"Keys ({SHEET_KEY})")
        self.keys.setObjectName("cellpath-keys")
        row.addWidget(self.export, 1)
        row.addWidget(self.copy, 1)
        row.addWidget(self.keys)
        layout.addLayout(row)
        note = quiet(RESEARCH_ONLY)
        note.setAlignment(Qt.AlignmentFlag.AlignHCenter)
        layout.addWidget(note)
        self.export.clicked.connect(self.export_requested)
        self.copy.clicked.connect(self.copy_requested)
        self.keys.clicked.connect(self.keys_requested)


def remaining(seconds: float) -> str:
    """A time to wait as people say it."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    if seconds < 3600:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"


def memory(size: int) -> str:
    """Bytes as MB or GB; empty for none."""
    if size <= 0:
        return ""
    return f"{size / 2**30:.1f} GB" if size >= 2**30 else f"{size / 2**20:.0f} MB"
