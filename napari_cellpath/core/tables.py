"""Points in, calls out: the CSV files of ``cellpath predict deeppap``.

Reading is forgiving about how spreadsheets write (byte-order marks, UTF-16, semicolons, tabs,
header case) and strict about what is said: every error names the file and the line.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from napari_cellpath.core.delimited import DelimitedTable, check_columns, open_table
from napari_cellpath.core.errors import OutputError, TableError
from napari_cellpath.core.files import write_atomically

MAX_POINTS = 5_000_000
"""Rows accepted in one points file; more is taken for a mistake before memory runs out."""

NUCLEUS_COLUMNS = ("image", "id", "row", "col", "score", "std", "n_views", "label", "model")
"""Columns of a nucleus table that every model has, in order; `nucleus_columns` adds the rest."""

OUTSIDE = "outside"
"""Flag of a nucleus that lies off its image and is not scored."""


@dataclass(frozen=True)
class PointRow:
    """One row of a points file.

    Attributes
    ----------
    image
        File name as written, or None where the file has no such column.
    id
        As written, else the 0-based number of the row.
    row, col
        Level-0 pixels, napari convention (integer = pixel centre); finite.
    line
        Line of the file on which the row ends, counted from 1, for messages.
    outside
        Whether the row's ``flags`` say that it is known to lie off its image: the nuclei dock
        exports such nuclei too.
    """

    image: str | None
    id: str
    row: float
    col: float
    line: int
    outside: bool = False


def read_points(path: str | os.PathLike[str], *, max_rows: int = MAX_POINTS) -> list[PointRow]:
    """Read points from a CSV with a header naming ``row`` and ``col``.

    Optional columns are ``image``, ``id`` and ``flags``; others are ignored. Fields
    are separated by commas, semicolons or tabs. With semicolons or tabs a decimal comma is
    understood, as spreadsheets in many languages write it.

    Raises
    ------
    MissingFileError
        There is no such file.
    TableError
        No usable header, no rows, a value that is not a finite number, an id that occurs twice
        in one image, or more than ``max_rows`` rows.
    """
    with open_table(path, "row and col") as table:
        flags_at = table.columns.index("flags") if "flags" in table.columns else None
        return [
            PointRow(
                row.image, row.id, row.numbers[0], row.numbers[1], row.line,
                _says_outside(row.cells, flags_at),
            )
            for row in object_rows(table, ("row", "col"), max_rows, "points")
        ]  # fmt: skip


def _says_outside(cells: Sequence[str], flags_at: int | None) -> bool:
    if flags_at is None or flags_at >= len(cells):
        return False
    return OUTSIDE in re.split(r"[;, ]+", cells[flags_at])


@dataclass(frozen=True)
class ObjectRow:
    """One object of a table: its image and id, the numbers asked for, and the row as it stands."""

    image: str | None
    id: str
    numbers: tuple[float, ...]
    line: int
    cells: Sequence[str]


def object_rows(
    table: DelimitedTable,
    numbers: tuple[str, ...],
    max_rows: int,
    what: str,
    may_be_empty: bool = False,
) -> Iterator[ObjectRow]:
    """Rows of objects: columns of finite numbers, and ``image`` and ``id`` where there are any.

    Raises
    ------
    TableError
        A column is missing, a value is none, an id occurs twice in one image, there are more
        than ``max_rows`` rows, or none and they may not be missing; ``what`` says what the rows
        are.
    """
    name, columns = table.name, table.columns
    check_columns(table, numbers, (*numbers, "image", "id"))
    places = [columns.index(number) for number in numbers]
    image_at = columns.index("image") if "image" in columns else None
    id_at = columns.index("id") if "id" in columns else None
    needed = max(*places, image_at or 0, id_at or 0) + 1
    first_seen: dict[tuple[str | None, str], int] = {}
    count = 0
    for line, cells in table.rows():
        if count >= max_rows:
            raise TableError(
                f"{name} has more than {max_rows:,} rows; split it into several files."
            )
        where = f"{name} line {line}"
        table.check_width(line, cells, needed)
        image = cells[image_at].strip() if image_at is not None else None
        if image == "":
            raise TableError(f"{where}: the image name is empty.")
        given = cells[id_at].strip() if id_at is not None else ""
        row = ObjectRow(
            image,
            given or str(count),
            tuple(
                table.number(cells[at], f"{where}: {number}")
                for at, number in zip(places, numbers, strict=True)
            ),
            line,
            cells,
        )
        if id_at is not None:
            before = first_seen.setdefault((image, row.id), line)
            if before != line:
                raise TableError(f"{where}: id '{row.id}' was used before, in line {before}.")
        yield row
        count += 1
    if not count and not may_be_empty:
        raise TableError(f"{name} has a header but no {what}.")


def nucleus_columns(class_names: Sequence[str] = (), calibrated: bool = False) -> tuple[str, ...]:
    """Columns of a nucleus table: one ``p_CLASS`` a class for models of more than two, flags last.

    With two classes the score already is the probability of the second. ``calibrated`` adds the
    column of that name after score and its deviation, for models that have a calibration.
    """
    per_class = tuple(f"p_{name}" for name in class_names) if len(class_names) > 2 else ()
    columns = list(NUCLEUS_COLUMNS)
    if calibrated:
        columns.insert(columns.index("std") + 1, "calibrated")
    return (*columns, *per_class, "flags")


def write_calls(
    path: str | os.PathLike[str],
    rows: Iterable[Mapping[str, Any]],
    columns: Sequence[str] | None = None,
) -> None:
    """Write result rows as CSV in one step (see `core.files.write_atomically`).

    Parameters
    ----------
    path
        Replaced as a whole, or left as it was.
    rows
        Column name to value. Numbers are written so that reading them gives the same number
        back; None and missing keys give an empty field; tuples are joined by semicolons.
    columns
        Their order; by default `nucleus_columns` with the ``p_`` keys of the first row.

    Raises
    ------
    OutputError
        It could not be written, or a number is not finite. The old file is untouched.
    ValueError
        A row has a key that is no column.
    """
    table = list(rows)
    if columns is None:
        per_class = tuple(key for key in (table[0] if table else ()) if key.startswith("p_"))
        columns = (*NUCLEUS_COLUMNS, *per_class, "flags")
    known = set(columns)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for number, row in enumerate(table):
        if not known.issuperset(row):
            raise ValueError(f"no such column: {sorted(set(row) - known)}")
        fields = []
        for column in columns:
            value = row.get(column)
            if isinstance(value, float | np.floating) and not np.isfinite(value):
                raise OutputError(
                    f"{Path(path).name} was not written: {column} of row {number} is {value}."
                )
            fields.append(_field(value))
        writer.writerow(fields)
    write_atomically(path, text.getvalue())


def _field(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, np.floating):
        return str(value)  # shortest digits that give this float32 back, not its float64 tail
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, list | tuple | set | frozenset):
        return ";".join(str(part) for part in value)
    return str(value)
