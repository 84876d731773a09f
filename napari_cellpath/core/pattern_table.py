"""Boxes in, patterns out: the CSV files of ``cellpath predict hep2``."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

from napari_cellpath.core.delimited import open_table
from napari_cellpath.core.tables import MAX_POINTS, object_rows

BOX_COLUMNS = ("row0", "col0", "row1", "col1")


@dataclass(frozen=True)
class BoxRow:
    """One row of a boxes file.

    Attributes
    ----------
    image
        File name as written, or None where the file has no such column.
    id
        As written, else the 0-based number of the row.
    box
        (row0, col0, row1, col1): half-open pixel edges, fractions rounded to the nearest.
    line
        Line of the file on which the row ends, counted from 1, for messages.
    specimen
        As written; empty where the file does not say.
    """

    image: str | None
    id: str
    box: tuple[int, int, int, int]
    line: int
    specimen: str = ""


def read_boxes(path: str | os.PathLike[str], *, max_rows: int = MAX_POINTS) -> list[BoxRow]:
    """Read boxes from a CSV with a header naming ``row0``, ``col0``, ``row1`` and ``col1``.

    Optional columns are ``image``, ``id`` and ``specimen``; others are ignored. Written as
    `napari_cellpath.core.tables.read_points` takes it.

    Raises
    ------
    MissingFileError
        There is no such file.
    TableError
        No usable header, no rows, a value that is not a finite number, an id that occurs twice
        in one image, or more than ``max_rows`` rows.
    """
    with open_table(path, "row0, col0, row1 and col1") as table:
        at = table.columns.index("specimen") if "specimen" in table.columns else None
        return [
            BoxRow(
                row.image,
                row.id,
                _edges(row.numbers),
                row.line,
                row.cells[at].strip() if at is not None and at < len(row.cells) else "",
            )
            for row in object_rows(table, BOX_COLUMNS, max_rows, "boxes")
        ]


def _edges(numbers: tuple[float, ...]) -> tuple[int, int, int, int]:
    row0, col0, row1, col1 = (math.floor(number + 0.5) for number in numbers)
    return row0, col0, row1, col1


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
