"""Tables as spreadsheets write them: any of three delimiters, byte-order marks, UTF-16.

Forgiving about the writing, strict about what is said: every error names the file and the line.
"""

from __future__ import annotations

import contextlib
import csv
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from napari_cellpath.core.errors import CellpathError, MissingFileError, TableError

_MAX_HEADER = 1 << 20

# float() also takes "1_000", "infinity" and Arabic-Indic digits; a table means none of them.
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)


@dataclass(frozen=True)
class DelimitedTable:
    """A table open for reading.

    Attributes
    ----------
    name
        File name, for messages.
    columns
        The header: stripped, and lower case but for names after ``p_``, which are classes'.
    delimiter
        Comma, semicolon or tab. With the latter two a decimal comma is understood.
    """

    name: str
    columns: tuple[str, ...]
    delimiter: str
    _stream: TextIO
    _lines_before: int

    def rows(self) -> Iterator[tuple[int, list[str]]]:
        """Line (counted from 1, the one on which the row ends) and cells; blank lines are none.

        Raises
        ------
        TableError
            The text cannot be cut into cells.
        """
        reader = csv.reader(self._stream, delimiter=self.delimiter)
        while True:
            try:
                cells = next(reader, None)
            except csv.Error as error:
                line = reader.line_num + self._lines_before
                raise TableError(f"{self.name} line {line}: {error}.") from error
            if cells is None:
                return
            if any(cell.strip() for cell in cells):
                yield reader.line_num + self._lines_before, cells

    def check_width(self, line: int, cells: list[str], needed: int) -> None:
        """Raise `TableError` where a row lacks one of its first ``needed`` fields or has too many.

        A short row shifts no column, but which one is missing cannot be known.
        """
        width = len(self.columns)
        if len(cells) < needed:
            raise TableError(
                f"{self.name} line {line}: {len(cells)} fields where {width} are needed."
            )
        if len(cells) > width and any(cell.strip() for cell in cells[width:]):
            raise TableError(
                f"{self.name} line {line}: {len(cells)} fields where {width} are needed; "
                "decimal commas need semicolons between the fields."
            )

    def number(self, text: str, what: str) -> float:
        """A finite number as written in this table; ``what`` names it in the `TableError`."""
        written = text.strip()
        comma = self.delimiter != ","
        plain = written.replace(",", ".") if comma and "." not in written else written
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


@contextlib.contextmanager
def open_table(path: str | os.PathLike[str], needs: str) -> Iterator[DelimitedTable]:
    """Open a table and read its header.

    Parameters
    ----------
    path
        A text file in UTF-8 or UTF-16, fields separated by commas, semicolons or tabs.
    needs
        The columns it should have, as messages say it: ``"row and col"``.

    Raises
    ------
    MissingFileError
        There is no such file.
    TableError
        It is no text, or has no header.
    """
    file = Path(path)
    if not file.exists():
        raise MissingFileError(f"{file} does not exist; give a CSV with the columns {needs}.")
    if file.is_dir():
        raise TableError(f"{file} is a folder; give a CSV with the columns {needs}.")
    try:
        with file.open(encoding=_encoding(file), newline="") as stream:
            yield _with_header(stream, file.name, needs)
    except UnicodeError as error:
        raise TableError(
            f"{file.name} is not text in UTF-8 or UTF-16; save it as CSV UTF-8."
        ) from error
    except CellpathError:  # some are an OSError too
        raise
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise TableError(f"{file.name} cannot be read ({reason}).") from error


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


def _with_header(stream: TextIO, name: str, needs: str) -> DelimitedTable:
    header = stream.readline(_MAX_HEADER)
    skipped = 0
    while header and not header.strip():
        skipped += 1
        header = stream.readline(_MAX_HEADER)
    if len(header) == _MAX_HEADER:
        raise TableError(f"{name} is not a table: its first line does not end.")
    if not header:
        raise TableError(f"{name} is empty; it needs a header with the columns {needs}.")
    header = header.lstrip("\ufeff")  # joined files carry a second byte-order mark
    delimiter = max(",;\t", key=header.count)
    try:
        cells = [cell.strip() for cell in next(csv.reader([header], delimiter=delimiter))]
    except csv.Error as error:
        raise TableError(f"{name} line {skipped + 1}: {error}.") from error
    columns = tuple(c if c.startswith("p_") else c.lower() for c in cells)
    return DelimitedTable(name, columns, delimiter, stream, skipped + 1)


def check_columns(table: DelimitedTable, needed: tuple[str, ...], once: tuple[str, ...]) -> None:
    """Raise `TableError` where a needed column is missing or one stands twice."""
    missing = [wanted for wanted in needed if wanted not in table.columns]
    if missing:
        found = ", ".join(column[:40] for column in table.columns[:12] if column) or "nothing"
        raise TableError(
            f"{table.name} has no column {' and no column '.join(missing)}; "
            f"its header names: {found}."
        )
    twice = [column for column in once if table.columns.count(column) > 1]
    if twice:
        raise TableError(f"{table.name} names the column {twice[0]} more than once.")
