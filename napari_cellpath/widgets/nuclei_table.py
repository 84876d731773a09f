"""Columns of the nuclei table."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.bridge.appearance import score_colours
from napari_cellpath.bridge.nuclei import NucleiLayer
from napari_cellpath.bridge.objects import ObjectLayer
from napari_cellpath.widgets.score_scale import swatch
from napari_cellpath.widgets.table import Column

Current = Callable[[], ObjectLayer | None]
SCORE_COLUMN = 1
STEPS = 100  # shades of the score dots: what the eye can tell apart in a table


def feature_of(current: Current, name: str) -> Callable[[], NDArray[Any]]:
    """Gives a column of the feature table of whichever layer is current."""

    def values() -> NDArray[Any]:
        objects = current()
        return objects.table.features[name] if objects is not None else np.zeros(0)

    return values


def numbers_of(current: Current) -> Callable[[], NDArray[Any]]:
    """Gives the rows of whichever layer is current."""

    def values() -> NDArray[Any]:
        objects = current()
        return np.arange(len(objects)) if objects is not None else np.zeros(0, dtype=int)

    return values


def notes_of(current: Current) -> Callable[[], NDArray[Any]]:
    """Gives what speaks for care, of each object of whichever layer is current."""

    def values() -> NDArray[Any]:
        objects = current()
        if objects is None:
            return np.zeros(0, dtype=object)
        table = objects.table
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

    return values


def nucleus_table_columns(current: Callable[[], NucleiLayer | None]) -> tuple[Column, ...]:
    """Columns over whichever nuclei layer is current."""

    def dot(row: int) -> Any:
        nuclei = current()
        if nuclei is None or row >= len(nuclei):
            return None
        table = nuclei.table
        score = float(table.features["score"][row])
        hollow = bool(table.doubtful[row]) and not bool(table.features["stale"][row])
        step = -1 if np.isnan(score) else round(score * STEPS)
        return _dot(step, hollow, table.scheme.threshold)

    def of(name: str) -> Callable[[], NDArray[Any]]:
        return feature_of(current, name)

    return (
        Column("#", "Row of the layer", numbers_of(current), str, width=38, right=True),
        Column("score", "Probability of abnormal, raw (not calibrated); hollow: doubtful",
               of("score"), shown_score, dot, width=66),
        Column("±", "Standard deviation over the network inputs", of("std"), shown_score, width=48),
        Column("call", "What the model says at this threshold", of("call"), width=78),
        Column("you say", "Your correction", of("correction"), width=78),
        Column("inputs", "Network inputs averaged", of("n_views"), _count, width=50, right=True),
        Column("note", "Reasons for care", notes_of(current), width=80),
        Column("model", "Model and hash of its weights", of("model"), width=150),
    )  # fmt: skip


def shown_score(value: float) -> str:
    """A number from 0 to 1 as a table shows it; nothing where there is none."""
    return "" if np.isnan(value) else f"{value:.3f}"


def _count(value: int) -> str:
    return str(value) if value else ""


@lru_cache(maxsize=1024)
def _dot(step: int, hollow: bool, threshold: float) -> Any:
    score = np.array([np.nan if step < 0 else step / STEPS])
    red, green, blue = (round(255 * c) for c in score_colours(score, threshold)[0, :3])
    return swatch(f"#{red:02x}{green:02x}{blue:02x}", hollow=hollow)
