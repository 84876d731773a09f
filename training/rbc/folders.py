"""Folders of images with boxes or masks, and a table of labels: the paper's way of keeping data.

``images/``; ``boxes.csv`` (image, row0, col0, row1, col1; half-open pixel edges) or ``masks/`` (an
image of the same stem a field, above 0 is foreground); ``labels.csv`` (image, row, col, labels),
a point inside each labelled region and its types, ``;`` between them, none for a region that
holds none; optionally ``images.csv`` (image, group): slide, patient or smear.
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np

from napari_cellpath.core.errors import MissingFileError, TableError
from napari_cellpath.core.requests import FileImage
from napari_cellpath.core.vocabulary import CLASS_COLOURS, RBC_TYPES
from napari_cellpath.models import ClassInfo
from napari_cellpath.slides.windows import image_shape, read
from training.datasets import IMAGE_SUFFIXES, image_inside, table_rows
from training.rbc.regions import Boxes, Region, boxes_of_mask
from training.rbc.table import Field, RedCells, RegionRecord, finish_regions

LABELS, BOXES, MASKS, IMAGES = "labels.csv", "boxes.csv", "masks", "images.csv"
NORMAL = frozenset({"oval", "normal", "disc"})
"""Types that are not abnormal, whatever the case of their letters."""


def read_regions(folder: Path, connectivity: int = 8, min_area: int = 20) -> RedCells:
    """Read a folder in this layout; a region no line of ``labels.csv`` points at is unlabelled.

    Raises
    ------
    MissingFileError
        A table, an image or a mask is not there.
    TableError
        A column or a number is missing, or a label points at no region.
    """
    table = folder / LABELS
    rows = table_rows(table, ("image", "row", "col", "labels"))
    classes = classes_of(sorted({n for r in rows for n in _names(r)}))
    order = {c.name: place for place, c in enumerate(classes)}
    boxes = _boxes(folder) if (folder / BOXES).is_file() else {}
    by_image: dict[str, dict[int, set[int]]] = {}
    groups = _groups(folder)
    found: dict[str, tuple[Path, Boxes]] = {}
    for line, row in enumerate(rows, start=2):
        name = row["image"]
        if name not in found:
            image = image_inside(folder, name, table, line)
            mine = boxes.get(name)
            found[name] = (
                image,
                (_of_mask(folder, image, connectivity, min_area) if mine is None else mine),
            )
        number = _pointed_at(row, found[name][1], table, line)
        by_image.setdefault(name, {}).setdefault(number, set()).update(
            order[n] for n in _names(row)
        )
    abnormal = [c.abnormal for c in classes]
    records, fields = [], []
    for name, (image, all_boxes) in found.items():
        group = groups.get(name, image.name)
        fields.append(Field(image, group, tuple(tuple(b) for b in all_boxes.tolist())))
        for number, there in sorted(by_image[name].items()):
            region = Region(
                tuple(all_boxes[number].tolist()),
                tuple(int(k in there) for k in range(len(classes))),
                int(any(abnormal[k] for k in there)),
            )
            records.append(RegionRecord.of(region, image, group))
    grouped_by = "group" if groups else "image"
    if not groups:
        warnings.warn(
            f"{folder} has no {IMAGES} with a column 'group': images of one smear may stand on "
            "both sides of the split, which flatters.",
            stacklevel=3,
        )
    return finish_regions(folder.name, folder, records, fields, classes, "", table, grouped_by)


def classes_of(names: list[str]) -> tuple[ClassInfo, ...]:
    """Types in the paper's order, others by name after them, with their colours."""
    known = [n for n in RBC_TYPES if n in names]
    ordered = known + sorted(set(names) - set(known))
    return tuple(
        ClassInfo(
            name=name,
            colour=CLASS_COLOURS[i % len(CLASS_COLOURS)],
            abnormal=name.lower() not in NORMAL,
        )
        for i, name in enumerate(ordered)
    )


def _names(row: dict[str, str]) -> list[str]:
    return [n.strip() for n in (row["labels"] or "").split(";") if n.strip()]


def _number(row: dict[str, str], column: str, table: Path, line: int) -> float:
    try:
        value = float(row[column])
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise TableError(f"{table} line {line}: {column} is '{row[column]}', not a number.")
    return value


def _boxes(folder: Path) -> dict[str, Boxes]:
    table = folder / BOXES
    found: dict[str, list[list[int]]] = {}
    columns = ("row0", "col0", "row1", "col1")
    for line, row in enumerate(table_rows(table, ("image", *columns)), start=2):
        box = [round(_number(row, c, table, line)) for c in columns]
        if box[2] <= box[0] or box[3] <= box[1]:
            raise TableError(f"{table} line {line}: the box has no area.")
        found.setdefault(row["image"], []).append(box)
    return {name: np.array(lines, dtype=np.int64) for name, lines in found.items()}


def _of_mask(folder: Path, image: Path, connectivity: int, min_area: int) -> Boxes:
    candidates = [
        p for p in sorted((folder / MASKS).glob(f"{image.stem}.*"))
        if p.suffix.lower() in IMAGE_SUFFIXES
    ]  # fmt: skip
    if not candidates:
        raise MissingFileError(
            f"{image.name} has no boxes in {folder / BOXES} and no mask in {folder / MASKS}."
        )
    source = FileImage(str(candidates[0]))
    pixels = read(source, 0, 0, *image_shape(source))
    return boxes_of_mask(pixels.max(axis=2), connectivity, min_area)


def _pointed_at(row: dict[str, str], boxes: Boxes, table: Path, line: int) -> int:
    """The box that holds a label's point; of several the smallest."""
    at = [_number(row, c, table, line) for c in ("row", "col")]
    holds = ((boxes[:, :2] <= at) & (at < boxes[:, 2:])).all(axis=1)
    if not holds.any():
        raise TableError(
            f"{table} line {line}: no region of {row['image']} holds row {at[0]:g}, column "
            f"{at[1]:g}."
        )
    inside = np.flatnonzero(holds)
    areas = np.prod(boxes[inside, 2:] - boxes[inside, :2], axis=1)
    return int(inside[int(areas.argmin())])


def _groups(folder: Path) -> dict[str, str]:
    path = folder / IMAGES
    if not path.is_file():
        return {}
    rows = table_rows(path, ("image", "group"))
    return {row["image"]: row["group"] or row["image"] for row in rows}
