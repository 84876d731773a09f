"""Labelled boxes of a project: every type a person says is there; the others are not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from napari_cellpath.core.annotations import Annotation, ImageFacts, LabelledData, Shape
from napari_cellpath.core.errors import RecipeError
from napari_cellpath.core.vocabulary import NO_TYPE, System
from napari_cellpath.models import ClassInfo
from training.datasets import CellData, CellRecord
from training.project_data import gather, labelled_of
from training.rbc.regions import Region
from training.rbc.table import Field, RedCells, RegionRecord, with_fine_classes

GROUPED_BY = "slide"


def read_project(folder: Path | str, classes: Sequence[ClassInfo]) -> RedCells:
    """Read the labelled boxes of a project, and the fields where every box is marked.

    Raises
    ------
    MissingFileError
        The project or one of its images is not there.
    RecipeError
        Nothing is labelled, a label is no type of the model, or an image is only in memory.
    """
    return cells_of(labelled_of(folder, System.RBC), Path(folder), classes)


def cells_of(labelled: LabelledData, folder: Path, classes: Sequence[ClassInfo]) -> RedCells:
    """Regions of what a project offers for training; boxes are rounded to whole pixels."""
    names = [c.name for c in classes]

    def region(annotation: Annotation, facts: ImageFacts, common: dict[str, Any]) -> CellRecord:
        there = set(annotation.labels) - {NO_TYPE}
        if unknown := sorted(there - set(names)):
            raise RecipeError(
                f"{folder}: a region of {facts.name} is labelled '{unknown[0]}', which is no type "
                f"of the model; it knows {', '.join(names)}."
            )
        found = Region(
            box_of(annotation),
            tuple(int(n in there) for n in names),
            int(any(c.abnormal for c in classes if c.name in there)),
        )
        return RegionRecord.of(found, common["image"], common["group"], uid=common["uid"])

    base = gather(
        labelled, folder, classes, Shape.BOX, region, "regions (boxes)", grouped_by=GROUPED_BY,
        beside=(NO_TYPE,),
    )  # fmt: skip
    known = [r for r in base.records if isinstance(r, RegionRecord)]
    kept = {f.name: getattr(base, f.name) for f in fields(CellData)}
    kept["records"] = tuple(with_fine_classes(known))
    return RedCells(**kept, fields=fields_of(labelled))


def box_of(annotation: Annotation) -> tuple[int, int, int, int]:
    """The box of an annotation in whole pixels, a pixel wide at least."""
    row0, col0, row1, col1 = annotation.bounds
    top, left = max(0, round(row0)), max(0, round(col0))
    return top, left, max(round(row1), top + 1), max(round(col1), left + 1)


def fields_of(labelled: LabelledData) -> tuple[Field, ...]:
    """The rectangles marked *Complete here*, and the boxes whose middle lies in each."""
    found = []
    for one in labelled.complete:
        facts = labelled.images[one.image]
        if not facts.path or not Path(facts.path).is_file():
            continue
        row0, col0, row1, col1 = box_of(one)
        window = row0, col0, min(row1, facts.height or row1), min(col1, facts.width or col1)
        boxes = [
            (max(b[0], window[0]), max(b[1], window[1]), min(b[2], window[2]), min(b[3], window[3]))
            for a in labelled.boxes
            if a.image == one.image and _inside(a.centre, window)
            for b in [box_of(a)]
        ]
        found.append(Field(Path(facts.path), facts.group or facts.name, tuple(boxes), window))
    return tuple(found)


def _inside(centre: tuple[float, float], window: tuple[int, int, int, int]) -> bool:
    row, col = centre
    return window[0] <= row < window[2] and window[1] <= col < window[3]


def of_parts(data: RedCells, groups: set[str]) -> RedCells:
    """The fields of some groups alone."""
    return replace(data, fields=tuple(f for f in data.fields if f.group in groups))
