"""Boxes in: the CSV files that ``cellpath predict`` takes with ``--boxes``."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

from napari_cellpath.core.delimited import DelimitedTable, open_table
from napari_cellpath.core.tables import MAX_POINTS, ObjectRow, object_rows

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
    detection
        Score of a detector, 0..1; None where the file does not say.
    """

    image: str | None
    id: str
    box: tuple[int, int, int, int]
    line: int
    specimen: str = ""
    detection: float | None = None


def read_boxes(
    path: str | os.PathLike[str], *, max_rows: int = MAX_POINTS, may_be_empty: bool = False
) -> list[BoxRow]:
    """Read boxes from a CSV with a header naming ``row0``, ``col0``, ``row1`` and ``col1``.

    Optional columns are ``image``, ``id``, ``specimen`` and ``detection``; others are ignored.
    Written as `napari_cellpath.core.tables.read_points` takes it. A header without rows is an
    error unless it ``may_be_empty``: a detector that found nothing writes one.

    Raises
    ------
    MissingFileError
        There is no such file.
    TableError
        No usable header, no rows, a value that is not a finite number, an id that occurs twice
        in one image, or more than ``max_rows`` rows.
    """
    with open_table(path, "row0, col0, row1 and col1") as table:
        rows = object_rows(table, BOX_COLUMNS, max_rows, "boxes", may_be_empty)
        return [
            BoxRow(
                row.image,
                row.id,
                _edges(row.numbers),
                row.line,
                _field(table, row, "specimen"),
                _number(table, row, "detection"),
            )
            for row in rows
        ]


def _field(table: DelimitedTable, row: ObjectRow, column: str) -> str:
    if column not in table.columns:
        return ""
    at = table.columns.index(column)
    return row.cells[at].strip() if at < len(row.cells) else ""


def _number(table: DelimitedTable, row: ObjectRow, column: str) -> float | None:
    written = _field(table, row, column)
    return table.number(written, f"{table.name} line {row.line}: {column}") if written else None


def _edges(numbers: tuple[float, ...]) -> tuple[int, int, int, int]:
    row0, col0, row1, col1 = (math.floor(number + 0.5) for number in numbers)
    return row0, col0, row1, col1
