"""Columns of the table of red-cell regions."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from numpy.typing import NDArray

from napari_cellpath.bridge.conventions import PENDING_COLOUR
from napari_cellpath.bridge.red_cells import VERDICT_COLOURS, RedCellsLayer
from napari_cellpath.widgets.nuclei_table import feature_of, notes_of, numbers_of, shown_score
from napari_cellpath.widgets.score_scale import swatch
from napari_cellpath.widgets.table import Column

ABNORMAL_COLUMN = 2


def region_table_columns(current: Callable[[], RedCellsLayer | None]) -> tuple[Column, ...]:
    """Columns over whichever layer of regions is current."""

    def dot(row: int) -> Any:
        regions = current()
        if regions is None or row >= len(regions):
            return None
        table = regions.table
        verdict, stale = str(table.features["verdict"][row]), bool(table.features["stale"][row])
        colour = PENDING_COLOUR if stale else VERDICT_COLOURS.get(verdict, PENDING_COLOUR)
        return _dot(colour, bool(table.doubtful[row]) and not stale)

    def of(name: str) -> Callable[[], NDArray[Any]]:
        return feature_of(current, name)

    return (
        Column("#", "Row of the layer", numbers_of(current), str, width=44, right=True),
        Column("verdict", "Whether it holds an abnormal cell, your flips counted; hollow: "
               "doubtful", of("verdict"), str, dot, width=92),
        Column("abn.", "Probability that it holds an abnormal cell, your flips counted",
               of("abnormal"), shown_score, width=52),
        Column("holds", "What the model says it holds", of("call"), width=120),
        Column("you say", "What you say it holds", of("correction"), width=100),
        Column("det.", "How sure the detector was; nothing for boxes that were drawn",
               of("detection"), shown_score, width=48),
        Column("note", "Reasons for care", notes_of(current), width=90),
        Column("model", "Model and hash of its weights", of("model"), width=150),
    )  # fmt: skip


@lru_cache(maxsize=16)
def _dot(colour: str, hollow: bool) -> Any:
    return swatch(colour, hollow=hollow)
