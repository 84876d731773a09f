"""Columns of the table of HEp-2 cells."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.bridge.cells import CellsLayer
from napari_cellpath.bridge.conventions import PENDING_COLOUR
from napari_cellpath.widgets.nuclei_table import feature_of, notes_of, numbers_of, shown_score
from napari_cellpath.widgets.score_scale import swatch
from napari_cellpath.widgets.table import Column

MARGIN_COLUMN = 3


def cell_table_columns(current: Callable[[], CellsLayer | None]) -> tuple[Column, ...]:
    """Columns over whichever layer of cells is current."""

    def dot(row: int) -> Any:
        cells = current()
        if cells is None or row >= len(cells):
            return None
        table = cells.table
        code, stale = int(table.call_code[row]), bool(table.features["stale"][row])
        colour = table.scheme.colours[code] if code >= 0 and not stale else PENDING_COLOUR
        return _dot(colour, bool(table.doubtful[row]) and not stale)

    def margin() -> NDArray[Any]:
        cells = current()
        return cells.table.margins if cells is not None else np.zeros(0)

    def of(name: str) -> Callable[[], NDArray[Any]]:
        return feature_of(current, name)

    return (
        Column("#", "Row of the layer", numbers_of(current), str, width=44, right=True),
        Column("pattern", "What the model calls it; hollow: doubtful",
               of("call"), str, dot, width=104),
        Column("prob.", "Probability of the pattern called", of("score"),
               shown_score, width=52),
        Column("margin", "By how much it leads the next pattern", margin, shown_score, width=54),
        Column("you say", "Your correction", of("correction"), width=90),
        Column("note", "Reasons for care", notes_of(current), width=90),
        Column("model", "Model and hash of its weights", of("model"), width=150),
    )  # fmt: skip


@lru_cache(maxsize=64)
def _dot(colour: str, hollow: bool) -> Any:
    return swatch(colour, hollow=hollow)
