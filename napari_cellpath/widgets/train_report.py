"""What came of a run: the verdict, the new model beside its parent, and what changed."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QPixmap
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHeaderView,
    QLabel,
    QScrollArea,
    QTableWidget,
    QTableWidgetItem,
    QTabWidget,
    QVBoxLayout,
    QWidget,
)

MEASURES = (
    ("accuracy", "Accuracy"),
    ("mca", "Mean class acc."),
    ("macro_f1", "Macro F1"),
    ("auc", "AUC"),
    ("sensitivity", "Sensitivity"),
    ("specificity", "Specificity"),
    ("brier", "Brier"),
    ("calibration_error", "ECE"),
)
"""Key in the report and name on screen, in order; a report shows those it has. Of the last two
less is better."""
TIPS = {
    "Mean class acc.": "Mean over the classes of the share called rightly.",
    "Macro F1": "Mean over the classes of the F1 score.",
    "Brier": "Mean squared difference of score and truth; less is better.",
    "ECE": "Expected calibration error over 15 equally wide bins; less is better.",
}
GAINS = {"accuracy": "Accuracy", "mca": "Mean class accuracy"}
PICTURES = {"roc": "ROC", "reliability": "Reliability", "confusion": "Confusion"}


def number(value: Any) -> str:
    """A measure as people write it; a dash where there is none."""
    return f"{value:.3f}" if isinstance(value, int | float) else "–"


def measure(model: Mapping[str, Any], key: str) -> str:
    """A measure with its 95 % interval."""
    low_high = model.get(f"{key}_interval")
    if not isinstance(low_high, list | tuple) or None in low_high:
        return number(model.get(key))
    low, high = (f"{end:.2f}".removeprefix("0") for end in low_high)  # the dock is narrow
    return f"{number(model.get(key))} ({low}–{high})"


def verdict(report: Mapping[str, Any]) -> str:
    """The gate's decision and the paired gain, in a few sentences; rich text."""
    gate = report.get("gate", {})
    head = "The new model may be used." if gate.get("passed") else "The new model was not taken."
    text = f"<b>{head}</b> {escape(str(gate.get('why', '')))}"
    paired = report.get("paired", {})
    what = "mca" if "mca" in paired else "accuracy"
    gain = paired.get(what)
    if gain and gain.get("gain") is not None and None not in gain["interval"]:
        low, high = gain["interval"]
        text += (
            f" {GAINS[what]} {gain['gain']:+.3f} on the same {report['n']} cells, 95 % interval "
            f"{low:+.3f} to {high:+.3f}."
        )
    return text


class ReportView(QWidget):
    """A report as a verdict, a table, pictures, and the cells whose call changed."""

    wanted = Signal(dict)
    """A changed cell the user wants to see: an entry of the report's ``changed``."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self.verdict = QLabel()
        self.verdict.setWordWrap(True)
        self.verdict.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        layout.addWidget(self.verdict)
        self.tabs = QTabWidget()
        self.tabs.setMinimumHeight(250)
        layout.addWidget(self.tabs, 1)
        self.measures = _table(["", "Parent", "New model"], even=True)
        self.changed = _table(["Truth", "Was", "Now", "Right", "Image"])
        self.changed.setToolTip("Double click: go to the cell.")
        self.changed.cellDoubleClicked.connect(self._on_cell)
        self._cells: list[dict[str, Any]] = []
        self.hide()

    def show_report(self, report: Mapping[str, Any], folder: Path) -> None:
        """Show a report and the pictures beside it."""
        self.verdict.setText(verdict(report))
        self.tabs.clear()
        models = report.get("models")
        if models:
            self.tabs.addTab(self.measures, "Measures")
            self._fill_measures(models, report)
        for path in sorted(folder.glob("*.png")):
            self.tabs.addTab(_Picture(path), PICTURES.get(path.stem, path.stem))
        self._cells = list(report.get("changed", ()))
        if models:
            self.tabs.insertTab(1, self.changed, f"Changed ({len(self._cells)})")
            self._fill_changed()
        self.tabs.setVisible(self.tabs.count() > 0)
        self.show()

    def _fill_measures(self, models: Mapping[str, Any], report: Mapping[str, Any]) -> None:
        rows = [
            (name, measure(models["parent"], key), measure(models["child"], key))
            for key, name in MEASURES
            if key in models["parent"] or key in models["child"]
        ]
        calibrated = [models[m].get("calibrated") for m in ("parent", "child")]
        if any(calibrated):
            for key, name in MEASURES[-2:]:
                rows.append((f"{name}, cal.", *(measure(c, key) if c else "–" for c in calibrated)))
        of = "specimens" if "mca" in models["parent"] else "slides"
        rows.append(("Cells", f"{report['n']}", f"{report['groups']} {of}"))
        _fill(self.measures, rows)

    def _fill_changed(self) -> None:
        rows = []
        for cell in self._cells:
            was = f"{cell['parent_call']} {number(cell['parent_score'])}"
            now = f"{cell['child_call']} {number(cell['child_score'])}"
            right = {"child": "now", "parent": "before"}.get(cell["right"], "neither")
            rows.append((cell["truth"], was, now, right, Path(cell["image"]).name))
        _fill(self.changed, rows)

    def _on_cell(self, row: int, _column: int) -> None:
        if 0 <= row < len(self._cells):
            self.wanted.emit(self._cells[row])


class _Picture(QScrollArea):
    """A picture as wide as there is room."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._pixmap = QPixmap(str(path))
        self._label = QLabel()
        self._label.setAlignment(Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignHCenter)
        self.setWidget(self._label)
        self.setWidgetResizable(True)

    def resizeEvent(self, event: Any) -> None:  # noqa: N802
        """Fit the picture to the width."""
        super().resizeEvent(event)
        width = max(60, min(self.viewport().width(), self._pixmap.width()))
        smooth = Qt.TransformationMode.SmoothTransformation
        if not self._pixmap.isNull():
            self._label.setPixmap(self._pixmap.scaledToWidth(width, smooth))


def _table(names: list[str], *, even: bool = False) -> QTableWidget:
    table = QTableWidget(0, len(names))
    table.setHorizontalHeaderLabels(names)
    table.verticalHeader().hide()
    table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
    table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
    table.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
    table.horizontalHeader().setStretchLastSection(True)
    table.setWordWrap(False)
    for column in range(1, len(names)) if even else ():
        table.horizontalHeader().setSectionResizeMode(column, QHeaderView.ResizeMode.Stretch)
    return table


def _fill(table: QTableWidget, rows: list[tuple[str, ...]]) -> None:
    table.setRowCount(len(rows))
    for row, texts in enumerate(rows):
        for column, text in enumerate(texts):
            item = QTableWidgetItem(text)
            item.setToolTip(TIPS.get(text.split(",")[0], text))
            table.setItem(row, column, item)
