"""The split ledger as a table: which slide stands on which side, and what has used it."""

from __future__ import annotations

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QDialog,
    QHeaderView,
    QLabel,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_cellpath.core.annotations import Part
from napari_cellpath.core.errors import CellpathError
from napari_cellpath.project import Project, ledger
from napari_cellpath.project.images import all_images, set_group
from napari_cellpath.widgets.sections import quiet

SIDES = {
    Part.TRAIN: ("train", "Models learn from it."),
    Part.VALIDATION: ("validation", "Chooses epochs, thresholds and the calibration."),
    Part.FROZEN: ("frozen", "Never learnt from: reports are made on it."),
}
IMAGE, GROUP, SIDE, LABELLED, USED = range(5)


class SplitDialog(QDialog):
    """Shows and edits the split of a project; what was used can be seen but not moved.

    Each row is an image; its slide, patient or specimen may be renamed (images of one patient
    belong on one side), and sides be chosen until something has used them.
    """

    told = Signal(str)
    """Why something was refused."""

    def __init__(self, project: Project, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._project = project
        self.setWindowTitle(f"Split of {project.folder.name}")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.resize(660, 420)
        layout = QVBoxLayout(self)
        layout.addWidget(
            quiet(
                "Each slide, patient or specimen stands on one side, from the moment it is first "
                "seen. Rename the group to keep images of one patient together; choose another "
                "side before anything was trained or measured on it."
            )
        )
        self.table = QTableWidget(0, 5)
        self.table.setHorizontalHeaderLabels(
            ["Image", "Slide, patient or specimen", "Side", "Labelled", "Used by"]
        )
        self.table.verticalHeader().hide()
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        header = self.table.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        header.setSectionResizeMode(SIDE, QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(LABELLED, QHeaderView.ResizeMode.ResizeToContents)
        layout.addWidget(self.table, 1)
        self.refused = QLabel()
        self.refused.setWordWrap(True)
        layout.addWidget(self.refused)
        self.totals = quiet()
        layout.addWidget(self.totals)
        self.told.connect(self.refused.setText)
        self.fill()
        self.table.itemChanged.connect(self._on_renamed)

    def fill(self) -> None:
        """Show the ledger as it is now."""
        project, table = self._project, self.table
        labelled: dict[str, int] = {}
        for facts in project.state.objects.values():
            if facts.get("labels") and not facts.get("complete"):
                labelled[facts["image"]] = labelled.get(facts["image"], 0) + 1
        parts = ledger.parts(project)
        images = list(all_images(project))
        table.blockSignals(True)
        table.setRowCount(len(images))
        totals = dict.fromkeys(Part, 0)
        for row, image in enumerate(images):
            used = ledger.used_by(project, image.group)
            count = labelled.get(image.key, 0)
            totals[parts[image.group]] += count
            for column, text in (
                (IMAGE, image.name), (GROUP, image.group), (LABELLED, f"{count:,}"), (USED, used),
            ):  # fmt: skip
                item = QTableWidgetItem(text)
                item.setData(Qt.ItemDataRole.UserRole, image.key)
                item.setToolTip(image.path if column == IMAGE else text)
                if column != GROUP:
                    item.setFlags(item.flags() & ~Qt.ItemFlag.ItemIsEditable)
                table.setItem(row, column, item)
            combo = QComboBox()
            for part, (name, tip) in SIDES.items():
                combo.addItem(name, part)
                combo.setItemData(combo.count() - 1, tip, Qt.ItemDataRole.ToolTipRole)
            combo.setCurrentIndex(list(SIDES).index(parts[image.group]))
            combo.setEnabled(not used)
            combo.setToolTip(f"{used} has used it." if used else SIDES[parts[image.group]][1])
            combo.activated.connect(
                lambda index, combo=combo, group=image.group: self._move(
                    group, combo.itemData(index)
                )
            )
            table.setCellWidget(row, SIDE, combo)
        table.blockSignals(False)
        self.totals.setText(
            "Labelled: " + ", ".join(f"{n:,} {SIDES[part][0]}" for part, n in totals.items()) + "."
        )

    def _move(self, group: str, part: Part) -> None:
        self._try(lambda: ledger.move(self._project, group, part))

    def _on_renamed(self, item: QTableWidgetItem) -> None:
        if item.column() == GROUP:
            key = item.data(Qt.ItemDataRole.UserRole)
            self._try(lambda: set_group(self._project, key, item.text()))

    def _try(self, change) -> None:
        self.told.emit("")
        try:
            change()
        except CellpathError as error:
            self.told.emit(str(error))
        self.fill()
