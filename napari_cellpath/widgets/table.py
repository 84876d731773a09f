"""A sortable table over columns of NumPy arrays, which keeps its selection with the layer's.

Qt asks for the cells it shows and no others; sorting is one argsort. So 100,000 rows cost what
20 do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import (
    QAbstractTableModel,
    QItemSelection,
    QItemSelectionModel,
    QModelIndex,
    QSize,
    Qt,
    Signal,
)
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableView, QWidget


@dataclass(frozen=True)
class Column:
    """One column: its heading, the values to show and to sort by, and an icon for a cell.

    ``values`` and ``icon`` are asked when needed; ``text`` formats one value.
    """

    heading: str
    tip: str
    values: Callable[[], NDArray[Any]]
    text: Callable[[Any], str] = str
    icon: Callable[[int], Any] | None = None
    width: int = 60
    right: bool = False


class ColumnsModel(QAbstractTableModel):
    """Rows of equally long columns in a sorted order."""

    def __init__(self, columns: Sequence[Column], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.columns = tuple(columns)
        self._order: NDArray[np.intp] = np.zeros(0, dtype=np.intp)
        self._place: NDArray[np.intp] = np.zeros(0, dtype=np.intp)
        self._sorted_by: tuple[int, bool] | None = None

    def rowCount(self, parent: QModelIndex | None = None) -> int:  # noqa: N802
        """Rows shown."""
        return 0 if parent is not None and parent.isValid() else len(self._order)

    def columnCount(self, parent: QModelIndex | None = None) -> int:  # noqa: N802
        """Columns shown."""
        return 0 if parent is not None and parent.isValid() else len(self.columns)

    def headerData(self, section: int, orientation: Any, role: int = 0) -> Any:  # noqa: N802
        """Headings and their tooltips."""
        if orientation != Qt.Orientation.Horizontal or not 0 <= section < len(self.columns):
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            return self.columns[section].heading
        if role == Qt.ItemDataRole.ToolTipRole:
            return self.columns[section].tip
        return None

    def data(self, index: QModelIndex, role: int = 0) -> Any:
        """Text, icon and alignment of one cell."""
        if not index.isValid():
            return None
        column = self.columns[index.column()]
        row = int(self._order[index.row()])
        if role == Qt.ItemDataRole.DisplayRole:
            values = column.values()
            return column.text(values[row]) if row < len(values) else ""
        if role == Qt.ItemDataRole.DecorationRole and column.icon is not None:
            return column.icon(row)
        if role == Qt.ItemDataRole.TextAlignmentRole:
            side = Qt.AlignmentFlag.AlignRight if column.right else Qt.AlignmentFlag.AlignLeft
            return int(side | Qt.AlignmentFlag.AlignVCenter)
        return None

    def sort(self, column: int, order: Any = Qt.SortOrder.AscendingOrder) -> None:
        """Sort by a column; a negative one is the order of the data."""
        self._sorted_by = (column, order == Qt.SortOrder.DescendingOrder) if column >= 0 else None
        self.layoutAboutToBeChanged.emit()
        old = self.persistentIndexList()  # the selection: it stays with its nuclei
        rows = [self.row_at(index.row()) for index in old]
        self._take_order(len(self._order))
        new = [self.index(self.place_of(r), i.column()) for r, i in zip(rows, old, strict=True)]
        self.changePersistentIndexList(old, new)
        self.layoutChanged.emit()

    def reset_rows(self, count: int) -> None:
        """Take up a new number of rows, or new values to sort by."""
        self.beginResetModel()
        self._take_order(count)
        self.endResetModel()

    def append_rows(self, count: int) -> None:
        """Take up rows added at the end; they stay at the end until sorted again."""
        start = len(self._order)
        if count <= start:
            return
        self.beginInsertRows(QModelIndex(), start, count - 1)
        added = np.arange(start, count)
        self._order = np.concatenate((self._order, added))
        self._place = np.concatenate((self._place, added))
        self.endInsertRows()

    def _take_order(self, count: int) -> None:
        self._order = self._arrange(count)
        self._place = np.empty(count, dtype=np.intp)
        self._place[self._order] = np.arange(count)

    def refresh(self, rows: NDArray[np.intp]) -> None:
        """Say that these rows show other values; they stay where they are until sorted again."""
        places = self._place[rows[rows < len(self._place)]]
        if len(places):
            # One call for the span: Qt repaints what is visible of it, and no more.
            first, last = int(places.min()), int(places.max())
            self.dataChanged.emit(self.index(first, 0), self.index(last, len(self.columns) - 1))

    def row_at(self, place: int) -> int:
        """Row of the data shown at a place of the table."""
        return int(self._order[place])

    def place_of(self, row: int) -> int:
        """Place of the table at which a row of the data is shown, or -1."""
        return int(self._place[row]) if row < len(self._place) else -1

    def _arrange(self, count: int) -> NDArray[np.intp]:
        if self._sorted_by is None or not count:
            return np.arange(count)
        column, descending = self._sorted_by
        values = self.columns[column].values()[:count]
        if values.dtype == object:
            values = values.astype(str)
        order = np.argsort(values, kind="stable")
        if not descending:
            return order
        # NaN sorts last whichever way: what has no value is not what one looks for.
        if values.dtype.kind == "f":
            known = order[~np.isnan(values[order])]
            return np.concatenate((known[::-1], order[len(known) :]))
        return order[::-1]


LOWEST = 120  # pixels: the header and four rows


class CellTable(QTableView):
    """The table: a click jumps to the cell, the selection is the layer's."""

    selection_made = Signal(list)
    """Rows the user selected."""
    row_entered = Signal(int)
    """Row the user went to, by mouse or keyboard: show it."""

    MOST_RANGES = 200  # a selection in more pieces takes Qt longer than it helps anybody

    def __init__(self, columns: Sequence[Column], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.columns = ColumnsModel(columns, self)
        self.setModel(self.columns)
        self._following = False
        self._followed: list[int] = []
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.setAlternatingRowColors(False)
        self.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.verticalHeader().hide()
        self.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        self.verticalHeader().setDefaultSectionSize(self.fontMetrics().height() + 8)
        header = self.horizontalHeader()
        header.setSortIndicator(-1, Qt.SortOrder.AscendingOrder)
        header.setSortIndicatorClearable(True)
        header.setSectionsClickable(True)
        header.setHighlightSections(False)
        header.setStretchLastSection(True)
        header.setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        self.setSortingEnabled(True)
        self.columns.layoutChanged.connect(self._on_sorted)
        for number, column in enumerate(self.columns.columns):
            self.setColumnWidth(number, column.width)
        self.setMinimumHeight(LOWEST)
        self.selectionModel().selectionChanged.connect(self._on_selection)
        self.selectionModel().currentRowChanged.connect(self._on_current)
        self.clicked.connect(lambda index: self.row_entered.emit(self.columns.row_at(index.row())))

    def sizeHint(self) -> QSize:  # noqa: N802
        """Ask for little: the table takes what is left, and buttons below it stay in sight."""
        return QSize(super().sizeHint().width(), LOWEST)

    def reset_rows(self, count: int, selected: Iterable[int]) -> None:
        """Take up a new number of rows and this selection."""
        self._following = True
        try:
            self.columns.reset_rows(count)
        finally:
            self._following = False
        self._followed = []
        self.follow(selected)

    def follow(self, rows: Iterable[int]) -> None:
        """Show the layer's selection; nothing is told back."""
        places = sorted(p for row in rows if (p := self.columns.place_of(row)) >= 0)
        if places == self._followed:
            return
        self._followed = places
        ranges = _ranges(places)
        self._following = True
        try:
            selection = QItemSelection()
            last = self.columns.columnCount() - 1
            for first, end in ranges if len(ranges) <= self.MOST_RANGES else ():
                selection.select(self.columns.index(first, 0), self.columns.index(end, last))
            model = self.selectionModel()
            model.select(selection, QItemSelectionModel.SelectionFlag.ClearAndSelect)
            if places:
                index = self.columns.index(places[0], 0)
                model.setCurrentIndex(index, QItemSelectionModel.SelectionFlag.NoUpdate)
                self.scrollTo(index)
        finally:
            self._following = False

    def append_rows(self, count: int) -> None:
        """Take up rows added at the end."""
        self.columns.append_rows(count)

    def sort_again(self) -> None:
        """Sort by the chosen column anew, after values changed; none chosen changes nothing."""
        header = self.horizontalHeader()
        if header.sortIndicatorSection() >= 0:
            self.columns.sort(header.sortIndicatorSection(), header.sortIndicatorOrder())

    def sort_by(self, column: int, *, descending: bool = False) -> None:
        """Sort by a column, as if its heading had been clicked."""
        order = Qt.SortOrder.DescendingOrder if descending else Qt.SortOrder.AscendingOrder
        self.sortByColumn(column, order)

    def _on_sorted(self) -> None:
        self._followed = sorted(index.row() for index in self.selectionModel().selectedRows())

    def _on_selection(self, *_: Any) -> None:
        if not self._following:
            self._followed = sorted(index.row() for index in self.selectionModel().selectedRows())
            self.selection_made.emit([self.columns.row_at(place) for place in self._followed])

    def _on_current(self, current: QModelIndex, _previous: QModelIndex) -> None:
        # Arrow keys; a mouse press comes again as `clicked`, which also jumps on the same row.
        if not self._following and current.isValid() and self.hasFocus():
            self.row_entered.emit(self.columns.row_at(current.row()))


def _ranges(places: Sequence[int]) -> list[tuple[int, int]]:
    """Sorted places as runs without gaps, (first, last) each."""
    ranges: list[tuple[int, int]] = []
    for place in places:
        if ranges and place == ranges[-1][1] + 1:
            ranges[-1] = (ranges[-1][0], place)
        else:
            ranges.append((place, place))
    return ranges
