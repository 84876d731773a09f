"""napari's feature table of a layer, a view of ours: written where rows changed."""

from __future__ import annotations

from typing import Any

import pandas as pd
from napari.layers import Points
from numpy.typing import NDArray

from napari_cellpath.bridge.columns import ObjectTable, Rows
from napari_cellpath.bridge.timing import napari_call

BY_CELL = 16  # up to so many rows are written cell by cell, more as whole columns (measured)


class FeatureFrame:
    """The features of a points layer, kept as an `ObjectTable` says.

    Attributes
    ----------
    writing
        Whether napari is just being told of what we wrote: not to be taken for the user's doing.
    """

    def __init__(self, layer: Points, table: ObjectTable) -> None:
        self.layer, self.table = layer, table
        self.writing = False

    def write(self, rows: Rows) -> None:
        """Write rows; napari is told once."""
        frame = self.layer.features
        if len(frame) != len(self.table) or any(n not in frame for n in self.table.columns):
            self.restore()
            return
        columns = self.table.features
        if len(rows) <= BY_CELL:
            at = [(frame.columns.get_loc(name), columns[name]) for name in columns]
            for row in rows:
                for place, column in at:
                    frame.iat[row, place] = column[row]
        else:
            for name, column in columns.items():
                frame[name] = _series(column, frame)
        self._announce()

    def restore(self) -> None:
        """Write everything; columns that somebody took away are put back."""
        frame = self.layer.features
        if len(frame) != len(self.table):
            return
        known = set(frame.columns)
        for name in self.table.columns:
            frame[name] = _series(self.table.features[name], frame)
        if known.issuperset(self.table.columns):
            self._announce()
            return
        self.writing = True
        try:  # napari keeps a default for each column; without one the layer cannot be duplicated
            with napari_call():
                self.layer.features = frame
        finally:
            self.writing = False

    def _announce(self) -> None:
        self.writing = True
        try:
            with napari_call():
                self.layer.events.features()
        finally:
            self.writing = False


def _series(column: NDArray[Any], frame: pd.DataFrame) -> pd.Series[Any]:
    """A copy of a column as it is: pandas would look through text to make another type of it."""
    return pd.Series(column.copy(), index=frame.index, dtype=column.dtype, copy=False)
