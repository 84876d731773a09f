"""The Chula RBC-12 layout: typed points, boxes derived from the images, blocks of images.

A folder holds ``images/``, ``boxes_derived.csv`` (a box a cell, with the type of the point inside
it, or none) and, where they are known, ``images.csv`` with ``number_block``. The labelling is
partial: a box without a type is a cell of which nobody said what it is.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from napari_cellpath.core.errors import TableError
from napari_cellpath.models import ClassInfo
from training.datasets import image_inside, table_rows
from training.rbc.regions import UNKNOWN, Region, merged_groups, region_of
from training.rbc.table import Field, RedCells, RegionRecord, finish_regions

TABLE = "boxes_derived.csv"
_TYPES = (
    (0, "normal", "#0072b2"), (1, "macrocyte", "#d55e00"), (2, "microcyte", "#009e73"),
    (3, "spherocyte", "#e69f00"), (4, "target", "#56b4e9"), (5, "stomatocyte", "#cc79a7"),
    (6, "ovalocyte", "#f0e442"), (7, "teardrop", "#000000"), (8, "burr", "#882255"),
    (9, "schistocyte", "#332288"), (11, "hypochromia", "#999933"), (12, "elliptocyte", "#aa4499"),
)  # fmt: skip
UNCATEGORISED = 10
"""Looked at, and none of the twelve: no label, and not normal."""
NAMELESS = -2
CLASSES = tuple(
    ClassInfo(name=name, colour=colour, abnormal=number != 0) for number, name, colour in _TYPES
)
NOTE = (
    "Chula RBC-12: Naruenatthanaset, Chalidabhongse, Palasuwan, Anantrasirichai, Palasuwan, "
    "arXiv 2012.01321; github.com/Chula-PIC-Lab/Chula-RBC-12-Dataset (MIT). Boxes were derived "
    "from the images by Otsu's threshold and a watershed; the authors gave points. Most images "
    "are labelled in part."
)
_PLACE = {number: place for place, (number, _, _) in enumerate(_TYPES)} | {UNCATEGORISED: NAMELESS}
_ABNORMAL = tuple(c.abnormal for c in CLASSES)


def read_chula(folder: Path) -> RedCells:
    """Read every cell and every region of a folder in this layout.

    A region of one cell is one record. A region of several is one too, and each of its cells that
    carries a type is another (``kind`` ``cell``): its own box, in which neighbours show.

    Raises
    ------
    MissingFileError
        The table or an image is not there.
    TableError
        A column or a number is missing, or a type is not one of the data set's.
    """
    table = folder / TABLE
    rows = table_rows(table, ("image", "x1", "y1", "x2", "y2", "type_id"))
    blocks = _blocks(folder)
    by_image: dict[str, list[tuple[int, dict[str, str]]]] = {}
    for line, row in enumerate(rows, start=2):
        by_image.setdefault(row["image"], []).append((line, row))
    fields, records = [], []
    for name, lines in by_image.items():
        image = image_inside(folder, name, table, lines[0][0])
        group = blocks.get(name) or _block_of(image)
        boxes = np.array([_box(row, table, line) for line, row in lines], dtype=np.int64)
        types = [_type(row, table, line) for line, row in lines]
        fields.append(Field(image, group, tuple(map(tuple, boxes.tolist()))))
        for members in merged_groups(boxes):
            whole = _region(boxes, types, members)
            records.append(RegionRecord.of(whole, image, group))
            if whole.cells > 1:
                each = (_region(boxes, types, [i]) for i in members)
                records += [RegionRecord.of(one, image, group, "cell") for one in each]
    known = [r for r in records if any(t != UNKNOWN for t in r.targets)]
    return finish_regions(folder.name, folder, known, fields, CLASSES, NOTE, table, "image block")


def is_chula(folder: Path) -> bool:
    """Whether a folder is in this layout."""
    return (folder / TABLE).is_file()


def _region(boxes: np.ndarray, types: Sequence[int], members: Sequence[int]) -> Region:
    return region_of(boxes[members], [types[i] for i in members], _ABNORMAL, NAMELESS)


def _box(row: dict[str, str], table: Path, line: int) -> tuple[int, int, int, int]:
    try:
        row0, col0, row1, col1 = (int(row[k]) for k in ("y1", "x1", "y2", "x2"))
    except (TypeError, ValueError):
        raise TableError(f"{table} line {line}: a corner of the box is no whole number.") from None
    if row1 <= row0 or col1 <= col0:
        raise TableError(f"{table} line {line}: the box has no area.")
    return row0, col0, row1, col1


def _type(row: dict[str, str], table: Path, line: int) -> int:
    try:
        number = int(row["type_id"])
    except (TypeError, ValueError):
        number = -99
    if number == UNKNOWN:
        return UNKNOWN
    if number not in _PLACE:
        raise TableError(f"{table} line {line}: '{row['type_id']}' is no type; 0 to 12, or -1.")
    return _PLACE[number]


def _blocks(folder: Path) -> dict[str, str]:
    path = folder / "images.csv"
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    return {
        r["image"]: f"block {int(r['number_block']):02d}" for r in rows if r.get("number_block")
    }


def _block_of(image: Path) -> str:
    """Ten consecutive file numbers are a block: they may be of one slide."""
    digits = "".join(c for c in image.stem if c.isdigit())
    return f"block {int(digits) // 10:02d}" if digits else image.name


def type_counts(data: RedCells) -> dict[str, int]:
    """Records in which each type is known to be."""
    found = Counter(k for r in data.records for k, t in enumerate(r.targets) if t == 1)
    return {c.name: found[k] for k, c in enumerate(data.fine_classes)}
