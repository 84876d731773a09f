"""Patterns out: the CSV files of ``cellpath predict hep2``."""

from __future__ import annotations

from collections.abc import Sequence


def pattern_columns(class_names: Sequence[str], calibrated: bool = False) -> tuple[str, ...]:
    """Columns of a pattern table: one ``p_PATTERN`` each; flags last.

    ``calibrated`` adds the calibrated probability of the pattern called, for models that have a
    calibration.
    """
    return (
        "image", "id", "row", "col", "pattern",
        *(f"p_{name}" for name in class_names),
        *(("calibrated",) if calibrated else ()),
        "model", "flags",
    )  # fmt: skip
