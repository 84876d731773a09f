"""HEp-2 cells on a points layer: each point carries the box of its cell and its pattern."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.bridge import appearance
from napari_cellpath.bridge.boxed import BoxedLayer, BoxTable, centres_of
from napari_cellpath.bridge.columns import Rows
from napari_cellpath.bridge.kinds import CELLS, P_COLUMN
from napari_cellpath.bridge.scheme import Scheme
from napari_cellpath.core.results import PatternCall


class CellTable(BoxTable):
    """Facts about n cells: a box, the probability of each pattern, and the margin."""

    def __init__(self, scheme: Scheme, shape: tuple[int, int]) -> None:
        super().__init__(scheme, shape, CELLS.columns)

    def take_numbers(self, rows: Sequence[int], calls: Sequence[PatternCall]) -> None:
        """Write the margins, and the probability of each pattern of the model."""
        self.features["margin"][rows] = [call.margin for call in calls]
        self.take_probabilities(rows, calls)

    def call_from_columns(self, row: int) -> PatternCall:
        """The call that stands in the columns."""
        columns, (at_row, at_col) = self.features, centres_of(self.boxes[row])[0]
        given = tuple(float(columns[P_COLUMN + name][row]) for name in self.scheme.classes)
        flags = tuple(str(columns["flags"][row]).split())
        return PatternCall(
            uid=str(self.uids[row]), row=float(at_row), col=float(at_col),
            label=str(columns["call"][row]), n_views=int(columns["n_views"][row]),
            probabilities=() if np.isnan(given).any() else given,
            model=str(columns["model"][row]), precision=str(columns["precision"][row]),
            flags=flags,
        )  # fmt: skip


class CellsLayer(BoxedLayer):
    """One points layer of HEp-2 cells over one image."""

    kind = CELLS
    table: CellTable

    def make_table(self, scheme: Scheme) -> CellTable:
        """An empty table of cells."""
        return CellTable(scheme, self.shape)

    def faces(self, rows: Rows) -> NDArray[np.float64]:
        """Face colours (k, 4) of rows: the pattern called."""
        return appearance.class_faces(self.table, rows)
