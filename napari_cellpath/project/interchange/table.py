"""CSV: the nucleus table of ``cellpath predict`` and of the docks, and tables of boxes.

Points are ``row, col`` (pixel centres), boxes ``row0, col0, row1, col1`` (half-open pixel edges);
a table may hold both, each row one of them. In a table with ``score``, ``model``, ``n_views`` or
``correction`` the ``label`` is the model's call and the ``correction`` a person's label; in any
other table the label is a person's. Our own tables carry more columns, by which everything
comes back; outlines do not fit into a table. Written less an offset and read with it, fractional
coordinates may differ in their last bit.

In micrometres, points keep their convention: pixel centres are multiples of the pixel size.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from napari_cellpath.core.annotations import (
    Annotation,
    Geometry,
    ImageFacts,
    Prediction,
    Shape,
    tuplify,
)
from napari_cellpath.core.delimited import DelimitedTable, open_table
from napari_cellpath.core.errors import CellpathError, OutputError, TableError
from napari_cellpath.core.tables import write_calls
from napari_cellpath.core.vocabulary import System
from napari_cellpath.project.interchange.facts import check_types
from napari_cellpath.project.interchange.frame import Frame, Offset, shape_of
from napari_cellpath.project.interchange.intake import (
    MAX_OBJECTS,
    SEVERAL_LABELS,
    Intake,
    TooManyError,
    text,
)

POINT_COLUMNS = ("row", "col")
BOX_COLUMNS = ("row0", "col0", "row1", "col1")
NEEDS = "row and col, or row0, col0, row1 and col1"
_CALL_COLUMNS = ("score", "std", "n_views", "label", "model")
_OWN_COLUMNS = (
    "flags", "correction", "calibrated", "threshold", "precision", "predicted_for", "complete",
    "seen", "readings", "author", "at", "system", "uid",
)  # fmt: skip
_LABEL_COLUMNS = ("label", "labels", "class", "pattern", "type")
_PREDICTED = frozenset({"score", "model", "n_views", "correction"})
_HERE, _STALE = "here", "stale"


def write_csv(
    path: str | Path,
    annotations: Sequence[Annotation],
    images: Sequence[ImageFacts],
    *,
    offset: Offset = (0.0, 0.0),
) -> int:
    """Write points and boxes of some images as one table; returns how many.

    Parameters
    ----------
    path
        Replaced as a whole, or left as it was.
    annotations
        Those of other images are passed over.
    images
        The column ``image`` holds their names.
    offset
        (row, col) on level 0 of the upper left corner of what the file is for.

    Raises
    ------
    OutputError
        An outline is among them, a number is not finite, or the file cannot be written.
    """
    names = {image.key: image.name for image in images}
    kept = [a for a in annotations if a.image in names]
    outlines = sum(a.shape is Shape.POLYGON for a in kept)
    if outlines:
        raise OutputError(
            f"{Path(path).name} was not written: {outlines} of the objects are outlines, which do "
            "not fit into a CSV; write GeoJSON or COCO."
        )
    shapes = {a.shape for a in kept} or {Shape.POINT}
    classes = dict.fromkeys(
        f"p_{name}" for a in kept if a.prediction for name, _ in a.prediction.probabilities
    )
    columns = (
        "image", "id",
        *(POINT_COLUMNS if Shape.POINT in shapes else ()),
        *(BOX_COLUMNS if Shape.BOX in shapes else ()),
        *_CALL_COLUMNS, *classes, *_OWN_COLUMNS,
    )  # fmt: skip
    write_calls(path, [_row(a, names[a.image], offset) for a in kept], columns)
    return len(kept)


def _row(annotation: Annotation, image: str, offset: Offset) -> dict[str, Any]:
    places = POINT_COLUMNS if annotation.shape is Shape.POINT else BOX_COLUMNS
    row: dict[str, Any] = {"image": _line(image), "id": _line(annotation.id)}
    for n, (column, value) in enumerate(zip(places, annotation.geometry, strict=True)):
        row[column] = float(value) - offset[n % 2]
    row |= {
        "correction": _joined(annotation.labels),
        "complete": _yes(annotation.complete),
        "seen": _yes(annotation.seen),
        "readings": json.dumps(dict(annotation.readings)) if annotation.readings else "",
        "author": _line(annotation.author),
        "at": _line(annotation.at),
        "system": str(annotation.system),
        "uid": _line(annotation.uid),
    }
    prediction = annotation.prediction
    if prediction is None:
        return row
    for column in ("score", "std", "n_views", "calibrated", "threshold", "precision"):
        row[column] = getattr(prediction, column)
    row |= {
        "label": _line(prediction.label),
        "model": _line(prediction.model),
        "flags": _joined(prediction.flags),
    }
    row |= {f"p_{name}": p for name, p in prediction.probabilities}
    if prediction.at:
        here = prediction.at == annotation.geometry
        row["predicted_for"] = _HERE if here else json.dumps(prediction.at)
    return row


def _line(written: str) -> str:
    """Text whose line ends every reader of CSV takes for the same."""
    return written.replace("\r\n", "\n").replace("\r", "\n")


def _yes(value: bool) -> str:
    return "true" if value else ""


def _joined(words: Sequence[str]) -> str:
    """Words separated by semicolons; as a JSON list where that could be misread."""
    plain = all(w and w == w.strip() and not set(w) & {";", "\r"} for w in words)
    if plain and not (words and words[0].startswith("[")):
        return ";".join(words)
    return json.dumps(list(words))


def _cut(written: str, what: str) -> tuple[str, ...]:
    """Inverse of `_joined`."""
    if written.startswith("["):
        words = _json(written, what)
        if isinstance(words, list):
            return tuple(text(word, what) for word in words)
    return tuple(word for word in (part.strip() for part in written.split(";")) if word)


def _json(written: str, what: str) -> Any:
    try:
        return json.loads(written)
    except (ValueError, RecursionError) as error:
        raise TableError(f"{what} cannot be read ({written[:40]}).") from error


def read_csv(path: str | Path, intake: Intake) -> None:
    """Take in a table of points, of boxes, or of both.

    With one image asked for, a table that names several gives that image's rows only.

    Raises
    ------
    MissingFileError
        There is no such file.
    TableError
        Its header names neither, or a row is refused.
    """
    with open_table(path, NEEDS) as table:
        reader = _Reader(table, intake)
        rows = []
        for line, cells in table.rows():
            rows.append((line, cells))
            if len(rows) > MAX_OBJECTS:
                raise TooManyError(
                    f"{table.name} has more than {MAX_OBJECTS:,} rows; split it into several files."
                )
        reader.take(rows)


class _Reader:
    """Rows of one table to annotations."""

    def __init__(self, table: DelimitedTable, intake: Intake) -> None:
        self._table, self._intake = table, intake
        self._at = {column: n for n, column in reversed(list(enumerate(table.columns))) if column}
        twice = [c for c in self._at if c and table.columns.count(c) > 1]
        if twice:
            raise TableError(f"{table.name} names the column {twice[0]} more than once.")
        self._points = set(POINT_COLUMNS) <= set(self._at)
        self._boxes = set(BOX_COLUMNS) <= set(self._at)
        if not (self._points or self._boxes):
            found = ", ".join(c[:40] for c in table.columns[:12] if c) or "nothing"
            raise TableError(
                f"{table.name} has neither the columns row and col nor row0, col0, row1 and col1; "
                f"its header names: {found}."
            )
        self._own = {"uid", "correction", "system"} <= set(self._at)
        self._predicted = bool(_PREDICTED & set(self._at)) or any(
            column.startswith("p_") for column in self._at
        )
        self._label = next((c for c in _LABEL_COLUMNS if c in self._at), "")
        self._probabilities = tuple(c for c in table.columns if c.startswith("p_"))
        needed = {"image", "id"} | (set(POINT_COLUMNS) if self._points else set(BOX_COLUMNS))
        self._needed = max(self._at[column] for column in needed & set(self._at)) + 1
        self._ids: dict[tuple[str, str], int] = {}
        self._names: set[str] = set()
        self._found: dict[str, ImageFacts | None] = {}

    def take(self, rows: Sequence[tuple[int, list[str]]]) -> None:
        if "image" in self._at:
            self._names = {self._cell(cells, "image").strip() for _, cells in rows}
        for count, (line, cells) in enumerate(rows):
            what = f"{self._table.name} line {line}"
            try:
                self._table.check_width(line, cells, self._needed)
                image = self._image(cells, what)
                if image is not None:
                    annotation = self._annotation(cells, image, what, line, count)
                    self._intake.take([annotation], image, what)
            except TooManyError:
                raise
            except CellpathError as error:
                self._intake.refuse(error)

    def _cell(self, cells: Sequence[str], column: str) -> str:
        at = self._at.get(column)
        return cells[at] if at is not None and at < len(cells) else ""

    def _number(self, cells: Sequence[str], column: str, what: str) -> float:
        return self._table.number(self._cell(cells, column), f"{what}: {column}")

    def _maybe(self, cells: Sequence[str], column: str, what: str) -> float | None:
        return self._number(cells, column, what) if self._cell(cells, column).strip() else None

    def _image(self, cells: Sequence[str], what: str) -> ImageFacts | None:
        if "image" not in self._at:
            return self._intake.only_image()
        name = self._cell(cells, "image").strip()
        if not name:
            raise TableError(f"{what}: the image name is empty.")
        if name not in self._found:
            self._found[name] = self._intake.image_called(name, self._names, what)
        return self._found[name]

    def _geometry(self, cells: Sequence[str], frame: Frame, what: str) -> tuple[Shape, Geometry]:
        """A box where the row has one, else its point."""
        boxed = self._boxes and (
            not self._points or any(self._cell(cells, c).strip() for c in BOX_COLUMNS)
        )
        columns = BOX_COLUMNS if boxed else POINT_COLUMNS
        geometry = tuple(
            frame.length(self._number(cells, column, what)) + frame.offset[n % 2]
            for n, column in enumerate(columns)
        )
        return (Shape.BOX if boxed else Shape.POINT), geometry

    def _annotation(
        self, cells: Sequence[str], image: ImageFacts, what: str, line: int, count: int
    ) -> Annotation:
        shape, geometry = self._geometry(cells, self._intake.frame(image), what)
        ident = self._cell(cells, "id")
        if not self._own:
            ident = ident.strip() or str(count)
            before = self._ids.setdefault((image.key, ident), line)
            if before != line:
                raise TableError(f"{what}: id '{ident[:60]}' was used before, in line {before}.")
        system = self._system(cells, what)
        prediction = self._prediction(cells, geometry, what) if self._predicted else None
        labels = self._labels(cells, system, what)
        readings = self._cell(cells, "readings")
        read = _json(readings, f"{what}: readings") if self._own and readings else {}
        if not isinstance(read, dict):
            raise TableError(f"{what}: readings are none ({readings[:40]}).")
        uid = self._cell(cells, "uid") if self._own else ""
        annotation = Annotation(
            uid or self._intake.free_uid(image, ident, repr(geometry)),
            image.key, system, shape, geometry, labels,
            complete=self._flag(cells, "complete", what),
            id=ident,
            seen=self._flag(cells, "seen", what) if self._own else bool(labels),
            readings=tuple(read.items()),
            author=self._cell(cells, "author") if self._own else "",
            at=self._cell(cells, "at") if self._own else "",
            prediction=prediction,
        )  # fmt: skip
        check_types(annotation, what)
        return annotation

    def _system(self, cells: Sequence[str], what: str) -> System:
        written = self._cell(cells, "system").strip() if self._own else ""
        if written and written not in set(System):
            raise TableError(f"{what}: there is no system '{written[:40]}'.")
        return System(written) if written else self._intake.system

    def _flag(self, cells: Sequence[str], column: str, what: str) -> bool:
        written = self._cell(cells, column).strip().lower() if self._own else ""
        if written not in ("", "true", "false"):
            raise TableError(f"{what}: {column} is neither true nor false ({written[:40]}).")
        return written == "true"

    def _labels(self, cells: Sequence[str], system: System, what: str) -> tuple[str, ...]:
        """What a person says, according to the table."""
        column = "correction" if self._predicted else self._label
        written = self._cell(cells, column)
        if system in SEVERAL_LABELS or written.startswith("["):
            return _cut(written, f"{what}: {column}")
        return (written.strip(),) if written.strip() else ()

    def _prediction(self, cells: Sequence[str], geometry: Geometry, what: str) -> Prediction | None:
        probabilities = tuple(
            (column[2:], p)
            for column in self._probabilities
            if (p := self._maybe(cells, column, what)) is not None
        )
        views = self._maybe(cells, "n_views", what)
        model, score = self._cell(cells, "model"), self._maybe(cells, "score", what)
        label = self._cell(cells, self._label)
        if views is None and score is None and not probabilities and not (model and label):
            return None
        if views is not None and views != int(views):
            raise TableError(f"{what}: n_views is no whole number.")
        flags = _cut(self._cell(cells, "flags"), f"{what}: flags")
        stale = not self._own and _STALE in flags
        return Prediction(
            label if self._own else label.strip(),
            score,
            self._maybe(cells, "std", what),
            int(views or 0),
            probabilities,
            self._maybe(cells, "threshold", what),
            model,
            self._cell(cells, "precision") or "fp32",
            tuple(flag for flag in flags if not (stale and flag == _STALE)),
            self._predicted_for(cells, geometry, what)
            if self._own
            else (() if stale else geometry),
            self._maybe(cells, "calibrated", what),
        )

    def _predicted_for(self, cells: Sequence[str], geometry: Geometry, what: str) -> Geometry:
        written = self._cell(cells, "predicted_for").strip()
        if written in ("", _HERE):
            return geometry if written else ()
        place = tuplify(_json(written, f"{what}: predicted_for"))
        if shape_of(place) is None:
            raise TableError(f"{what}: predicted_for is no place ({written[:40]}).")
        return tuple(place)
