"""Labelled HEp-2 cells: which image, which box, which pattern, of which specimen."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from napari_cellpath.core.annotations import Annotation, ImageFacts, LabelledData, Shape
from napari_cellpath.core.errors import CellpathError, MissingFileError, RecipeError, TableError
from napari_cellpath.core.requests import CellBox, FileImage
from napari_cellpath.core.vocabulary import CLASS_COLOURS, PATTERNS, Channel, System
from napari_cellpath.models import ClassInfo
from napari_cellpath.slides.windows import image_shape, read
from napari_cellpath.systems.hep2.cells import (
    CellInput,
    crop_of,
    frame_of,
    needed,
    prepare,
)
from training.datasets import (
    IMAGE_SUFFIXES,
    CellData,
    CellRecord,
    find_folder,
    finish,
    image_inside,
    table_rows,
)
from training.hep2.recipe import Hep2Data
from training.project_data import gather, labelled_of

TABLE = "labels.csv"
SPECIMEN, PSEUDO_GROUP, IMAGE = "specimen", "pseudo group", "image"
"""What a group of cells is: the specimen itself, a stand-in for it, or nothing but the image."""
I3A_NOTE = (
    "HEp-2 cells of the I3A set (ICPR 2014, task 1 training set), from "
    "github.com/george-chou/HEp-2_cell_classification (MIT). The data set's own terms are not "
    "stated there. No specimen ids; pseudo groups are neighbours by number within a pattern."
)


def read_cells(data: Hep2Data) -> CellData:
    """Read the labelled cells a recipe names.

    Raises
    ------
    MissingFileError
        The folder, its table or an image is not there.
    TableError
        The table lacks a column or a value.
    RecipeError
        No images, or a project (whose patterns are a parent model's).
    """
    if data.layout == "project":
        raise RecipeError("data.layout is 'project'; give the parent model in 'finetune' too.")
    folder = find_folder(data.folder)
    return _read_table(folder) if data.layout == "hep2" else _read_folders(folder)


def layout_of(folder: Path | str) -> Literal["hep2", "folders"]:
    """``hep2`` where the folder has a table, else ``folders``."""
    return "hep2" if (find_folder(str(folder)) / TABLE).is_file() else "folders"


def classes_of(names: Sequence[str]) -> tuple[ClassInfo, ...]:
    """Patterns in the paper's order, others by name after them, with their colours."""
    known = [n for n in PATTERNS if n in set(names)]
    ordered = known + sorted(set(names) - set(known))
    return tuple(
        ClassInfo(name=name, colour=CLASS_COLOURS[i % len(CLASS_COLOURS)])
        for i, name in enumerate(ordered)
    )


def _read_table(folder: Path) -> CellData:
    table = folder / TABLE
    rows = table_rows(table, ("file", "class_name"))
    column, grouped_by = next(
        (pair for pair in (("specimen", SPECIMEN), ("pseudo_group", PSEUDO_GROUP))
         if rows and pair[0] in rows[0]), ("file", IMAGE),
    )  # fmt: skip
    for line, row in enumerate(rows, start=2):
        for needs in ("file", "class_name", column):
            if not (row[needs] or "").strip():
                raise TableError(f"{table} line {line}: {needs} is empty.")
    classes = classes_of([row["class_name"] for row in rows])
    names = [c.name for c in classes]
    records = [
        CellRecord(
            image=image_inside(folder, row["file"], table, line), row=0.0, col=0.0,
            fine_class=names.index(row["class_name"]), abnormal=False, group=row[column],
        )
        for line, row in enumerate(rows, start=2)
    ]  # fmt: skip
    if grouped_by == IMAGE:
        _warn_of_missing_specimens(table)
    note = I3A_NOTE if folder.name == "hep2_i3a" else ""
    return finish(folder.name, folder, records, classes, None, note, table, grouped_by)


def _read_folders(folder: Path) -> CellData:
    files = {
        p.name: sorted(f for f in p.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES)
        for p in sorted(folder.iterdir()) if p.is_dir()
    }  # fmt: skip
    names = [name for name, images in files.items() if images]
    if not names:
        raise RecipeError(f"{folder} holds no folders of images, one a pattern, and no {TABLE}.")
    classes = classes_of(names)
    records = [
        CellRecord(
            image=image.resolve(), row=0.0, col=0.0, fine_class=number, abnormal=False,
            group=image.relative_to(folder).as_posix(),
        )
        for number, kind in enumerate(classes) for image in files[kind.name]
    ]  # fmt: skip
    _warn_of_missing_specimens(folder)
    return finish(folder.name, folder.resolve(), records, classes, None, "", folder, IMAGE)


def _warn_of_missing_specimens(where: Path) -> None:
    warnings.warn(
        f"{where} does not say which specimen a cell is of: cells of one specimen may stand on "
        "both sides of the split, which flatters. Add a column 'specimen' to labels.csv.",
        stacklevel=4,
    )


def crop_cell(record: CellRecord, channel: Channel, wanted: CellInput) -> Tensor:
    """One cell as the network takes it, (1, S, S) float32; the very steps of inference.

    Raises
    ------
    CellpathError
        The image cannot be read.
    """
    source = FileImage(str(record.image))
    shape = image_shape(source)
    box = CellBox(0, 0, *shape) if record.box is None else CellBox(*record.box)
    frame = frame_of(box, shape, wanted.framing)
    top, left, bottom, right = needed(frame, shape)
    pixels = read(source, top, left, bottom - top, right - left)
    crop = np.ascontiguousarray(crop_of(pixels, frame, shape, (top, left)))
    return prepare(crop, channel, wanted.contrast, wanted.size)


def crop_cells(records: Sequence[CellRecord], channel: Channel, wanted: CellInput) -> Tensor:
    """Cells as the network takes them, (n, 1, S, S) float32.

    Raises
    ------
    CellpathError
        An image cannot be read; it is named.
    """
    found = torch.empty(len(records), 1, wanted.size, wanted.size)
    for number, record in enumerate(records):
        try:
            found[number] = crop_cell(record, channel, wanted)
        except OSError as error:
            raise MissingFileError(f"{record.image} cannot be read ({error}).") from None
        except CellpathError as error:
            if str(record.image) in str(error) or record.image.name in str(error):
                raise
            raise type(error)(f"{record.image}: {error}") from None
    return found


@dataclass(eq=False)
class Hep2Cells:
    """Everything training looks at, in memory: (n, 1, S, S) cells in 0..1, and their patterns."""

    pictures: Tensor
    targets: Tensor

    @classmethod
    def load(cls, data: CellData, channel: Channel, wanted: CellInput) -> Hep2Cells:
        """Cut every cell."""
        return cls(
            crop_cells(data.records, channel, wanted),
            torch.from_numpy(data.labels.astype(np.int64)),
        )


def read_project(folder: Path | str, classes: Sequence[ClassInfo]) -> CellData:
    """Read the labelled boxes of a project; see `training.project_data.read_project`."""
    return cells_of(labelled_of(folder, System.HEP2), Path(folder), classes)


def cells_of(labelled: LabelledData, folder: Path, classes: Sequence[ClassInfo]) -> CellData:
    """Cells of what a project offers for training; boxes are rounded to whole pixels."""

    def nucleus(annotation: Annotation, _facts: ImageFacts, common: dict[str, Any]) -> CellRecord:
        row0, col0, row1, col1 = annotation.bounds
        top, left = round(row0), round(col0)
        box = (top, left, max(round(row1), top + 1), max(round(col1), left + 1))
        return CellRecord(**common, abnormal=False, box=box)

    return gather(
        labelled, folder, classes, Shape.BOX, nucleus, "cells (boxes)", grouped_by=SPECIMEN
    )
