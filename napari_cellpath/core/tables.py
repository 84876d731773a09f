"""Points in, calls out: the CSV files of ``cellpath predict deeppap``.

Reading is forgiving about how spreadsheets write (byte-order marks, UTF-16, semicolons, tabs,
header case) and strict about what is said: every error names the file and the line.
"""

from __future__ import annotations

import csv
import io
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from napari_cellpath.core.errors import MissingFileError, OutputError, TableError
from napari_cellpath.core.files import write_atomically

MAX_POINTS = 5_000_000
"""Rows accepted in one points file; more is taken for a mistake before memory runs out."""

NUCLEUS_COLUMNS = ("image", "id", "row", "col", "score", "std", "n_views", "label", "model")
"""Columns of a nucleus table that every model has, in order; `nucleus_columns` adds the rest."""

OUTSIDE = "outside"
"""Flag of a nucleus that lies off its image and is not scored."""

_MAX_HEADER = 1 << 20

# float() also takes "1_000", "infinity" and Arabic-Indic digits; a table means none of them.
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)


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
    file = Path(path)
    if not file.exists():
        raise MissingFileError(f"{file} does not exist; give a CSV with the columns row and col.")
    if file.is_dir():
        raise TableError(f"{file} is a folder; give a CSV with the columns row and col.")
    name = file.name
    try:
        with file.open(encoding=_encoding(file), newline="") as stream:
            return list(_rows(stream, name, max_rows))
    except UnicodeError as error:
        raise TableError(f"{name} is not text in UTF-8 or UTF-16; save it as CSV UTF-8.") from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise TableError(f"{name} cannot be read ({reason}).") from error


def _encoding(file: Path) -> str:
    """Encoding by byte-order mark, or by the zero bytes of UTF-16 without one."""
    with file.open("rb") as stream:
        start = stream.read(4)
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    if len(start) == 4 and start[1] == start[3] == 0 != start[0]:
        return "utf-16-le"
    if len(start) == 4 and start[0] == start[2] == 0 != start[1]:
        return "utf-16-be"
    return "utf-8-sig"


def _rows(stream: TextIO, name: str, max_rows: int) -> Iterator[PointRow]:
    header = stream.readline(_MAX_HEADER)
    skipped = 0
    while header and not header.strip():
        skipped += 1
        header = stream.readline(_MAX_HEADER)
    if len(header) == _MAX_HEADER:
        raise TableError(f"{name} is not a table: its first line does not end.")
    if not header:
        raise TableError(f"{name} is empty; it needs a header with the columns row and col.")
    header = header.lstrip("\ufeff")  # joined files carry a second byte-order mark
    delimiter = max(",;\t", key=header.count)
    try:
        columns = [cell.strip().lower() for cell in next(csv.reader([header], delimiter=delimiter))]
    except csv.Error as error:
        raise TableError(f"{name} line {skipped + 1}: {error}.") from error
    missing = [wanted for wanted in ("row", "col") if wanted not in columns]
    if missing:
        found = ", ".join(column[:40] for column in columns[:12] if column) or "nothing"
        raise TableError(
            f"{name} has no column {' and no column '.join(missing)}; its header names: {found}."
        )
    twice = [column for column in ("row", "col", "image", "id") if columns.count(column) > 1]
    if twice:
        raise TableError(f"{name} names the column {twice[0]} more than once.")

    comma = delimiter != ","
    row_at, col_at = columns.index("row"), columns.index("col")
    image_at = columns.index("image") if "image" in columns else None
    id_at = columns.index("id") if "id" in columns else None
    flags_at = columns.index("flags") if "flags" in columns else None
    reader = csv.reader(stream, delimiter=delimiter)
    first_seen: dict[tuple[str | None, str], int] = {}
    count = 0
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            line = reader.line_num + skipped + 1
            raise TableError(f"{name} line {line}: {error}.") from error
        if cells is None:
            break
        if not any(cell.strip() for cell in cells):
            continue
        line = reader.line_num + skipped + 1
        if count >= max_rows:
            raise TableError(
                f"{name} has more than {max_rows:,} rows; split it into several files."
            )
        where = f"{name} line {line}"
        if len(cells) < len(columns):
            # A short row shifts no column, but which one is missing cannot be known.
            if max(row_at, col_at, image_at or 0, id_at or 0) >= len(cells):
                raise TableError(f"{where}: {len(cells)} fields where {len(columns)} are needed.")
        elif len(cells) > len(columns) and any(cell.strip() for cell in cells[len(columns) :]):
            raise TableError(
                f"{where}: {len(cells)} fields where {len(columns)} are needed; "
                "decimal commas need semicolons between the fields."
            )
        image = cells[image_at].strip() if image_at is not None else None
        if image == "":
            raise TableError(f"{where}: the image name is empty.")
        point_id = cells[id_at].strip() if id_at is not None else ""
        point = PointRow(
            image,
            point_id or str(count),
            _number(cells[row_at], f"{where}: row", comma),
            _number(cells[col_at], f"{where}: col", comma),
            line,
            flags_at is not None
            and flags_at < len(cells)
            and OUTSIDE in re.split(r"[;, ]+", cells[flags_at]),
        )
        if id_at is not None:
            before = first_seen.setdefault((image, point.id), line)
            if before != line:
                raise TableError(f"{where}: id '{point.id}' was used before, in line {before}.")
        yield point
        count += 1
    if not count:
        raise TableError(f"{name} has a header but no points.")


def _number(text: str, what: str, decimal_comma: bool) -> float:
    written = text.strip()
    plain = written.replace(",", ".") if decimal_comma and "." not in written else written
    if not plain:
        raise TableError(f"{what} is empty.")
    if plain.lower().lstrip("+-") in {"nan", "inf", "infinity"}:
        raise TableError(f"{what} is not a finite number ({written}).")
    if not _NUMBER.fullmatch(plain):
        raise TableError(f"{what} is not a number ({written[:40]}).")
    value = float(plain)
    if not math.isfinite(value):
        raise TableError(f"{what} is not a finite number ({written[:40]}).")
    return value


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
