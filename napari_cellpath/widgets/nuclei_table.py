"""Columns of the nuclei table."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.bridge.appearance import score_colours
from napari_cellpath.bridge.nuclei import NucleiLayer
from napari_cellpath.widgets.score_scale import swatch
from napari_cellpath.widgets.table import Column

SCORE_COLUMN = 1
STEPS = 100  # shades of the score dots: what the eye can tell apart in a table


def nucleus_table_columns(current: Callable[[], NucleiLayer | None]) -> tuple[Column, ...]:
    """Columns over whichever nuclei layer is current."""

    def feature(name: str) -> Callable[[], NDArray[Any]]:
        def values() -> NDArray[Any]:
            nuclei = current()
            return nuclei.table.features[name] if nuclei is not None else np.zeros(0)

        return values

    def numbers() -> NDArray[Any]:
        nuclei = current()
        return np.arange(len(nuclei)) if nuclei is not None else np.zeros(0, dtype=int)

    def notes() -> NDArray[Any]:
        nuclei = current()
        if nuclei is None:
            return np.zeros(0, dtype=object)
        table = nuclei.table
        words = table.features["flags"].copy()
        for mask, word in (
            (table.features["stale"], "stale"),
            (table.outside, "off the image"),
            (table.pending & ~table.has_call, "pending"),
            (table.doubtful & ~table.features["stale"], "doubtful"),
        ):
            rows = np.flatnonzero(mask)
            words[rows] = [f"{word} {words[r]}".strip() for r in rows]
        return words

    def dot(row: int) -> Any:
        nuclei = current()
        if nuclei is None or row >= len(nuclei):
            return None
        table = nuclei.table
        score = float(table.features["score"][row])
        hollow = bool(table.doubtful[row]) and not bool(table.features["stale"][row])
        step = -1 if np.isnan(score) else round(score * STEPS)
        return _dot(step, hollow, table.scheme.threshold)

    return (
        Column("#", "Row of the layer", numbers, str, width=38, right=True),
        Column("score", "Probability of abnormal, raw (not calibrated); hollow: doubtful",
               feature("score"), _score, dot, width=66),
        Column("±", "Standard deviation over the network inputs", feature("std"), _score, width=48),
        Column("call", "What the model says at this threshold", feature("call"), width=78),
        Column("you say", "Your correction", feature("correction"), width=78),
        Column("inputs", "Network inputs averaged", feature("n_views"), _count, width=50,
               right=True),
        Column("note", "Reasons for care", notes, width=80),
        Column("model", "Model and hash of its weights", feature("model"), width=150),
    )  # fmt: skip


def _score(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.3f}"


def _count(value: int) -> str:
    return str(value) if value else ""


@lru_cache(maxsize=1024)
def _dot(step: int, hollow: bool, threshold: float) -> Any:
    score = np.array([np.nan if step < 0 else step / STEPS])
    red, green, blue = (round(255 * c) for c in score_colours(score, threshold)[0, :3])
    return swatch(f"#{red:02x}{green:02x}{blue:02x}", hollow=hollow)
