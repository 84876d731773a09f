"""Labelled cells of a project: a person's labels, and the split of the project's own ledger."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from napari_cellpath.core.annotations import Annotation, ImageFacts, LabelledData, Shape
from napari_cellpath.core.errors import MissingFileError, RecipeError
from napari_cellpath.core.geometry import scale_between
from napari_cellpath.core.vocabulary import System
from napari_cellpath.models import ClassInfo
from napari_cellpath.systems.deeppap.presets import WINDOW
from training.datasets import CellData, CellRecord
from training.provenance import image_hash

SUFFIX = ".cellpath"


def is_project(folder: Path | str) -> bool:
    """Whether a path names a project."""
    return Path(folder).suffix == SUFFIX


def read_project(
    folder: Path | str, classes: Sequence[ClassInfo], mpp: float | None = None
) -> CellData:
    """Read the labelled nuclei of a project.

    Parameters
    ----------
    folder
        ``NAME.cellpath``.
    classes
        Of the model that is to learn or to be measured; labels are taken by name.
    mpp
        Micrometres per pixel the model expects; images of another scale are resampled.

    Returns
    -------
    CellData
        With ``parts``; ``fine_class`` counts in ``classes``.

    Raises
    ------
    MissingFileError
        The project or one of its images is not there.
    RecipeError
        Nothing is labelled, a label is no class of the model, or an image is only in memory.
    """
    return cells_of(labelled_of(folder, System.DEEPPAP), Path(folder), classes, mpp)


def labelled_of(folder: Path | str, system: System) -> LabelledData:
    """What a project offers for training a system.

    Raises
    ------
    MissingFileError
        There is no such project.
    """
    from napari_cellpath.project import labelled

    if not Path(folder).is_dir():
        raise MissingFileError(f"There is no project {folder}.")
    return labelled(Path(folder), system)


def cells_of(
    labelled: LabelledData, folder: Path, classes: Sequence[ClassInfo], mpp: float | None = None
) -> CellData:
    """Cells of what a project offers for training; see `read_project`."""

    def nucleus(annotation: Annotation, facts: ImageFacts, common: dict[str, Any]) -> CellRecord:
        half = round(WINDOW / 2 * scale_between(facts.mpp, mpp))
        abnormal = classes[common["fine_class"]].abnormal
        return CellRecord(**common, abnormal=abnormal, half=half)

    return gather(labelled, folder, classes, Shape.POINT, nucleus, "nuclei", mpp)


def gather(
    labelled: LabelledData,
    folder: Path,
    classes: Sequence[ClassInfo],
    shape: Shape,
    make: Callable[[Annotation, ImageFacts, dict[str, Any]], CellRecord],
    what: str,
    mpp: float | None = None,
    grouped_by: str = "slide group",
    beside: Sequence[str] = (),
) -> CellData:
    """The labelled objects of one shape as cells; see `read_project`.

    Parameters
    ----------
    labelled, folder, classes, mpp
        What the project offers, where it is, and what the model knows.
    shape
        Of the objects.
    make
        Makes the record of an annotation on an image from the fields all systems have.
    what
        What the objects are called, in the plural.
    grouped_by
        What a group is.
    beside
        Labels that are no class of the model and are let through.
    """
    names = [c.name for c in classes]
    records = []
    digest = hashlib.sha256()
    for annotation in labelled.annotations:
        if annotation.shape is not shape or annotation.complete or not annotation.labels:
            continue
        facts = labelled.images[annotation.image]
        label = annotation.labels[0]
        if label not in names and label not in beside:
            raise RecipeError(
                f"{folder}: a cell of {facts.name} is labelled '{label}', which is no class of the "
                f"model; it knows {', '.join(names)}."
            )
        if not facts.path:
            raise RecipeError(
                f"{folder}: {facts.name} is only in memory; save it as a file and open that, then "
                "its cells can be trained on."
            )
        image = Path(facts.path)
        if not image.is_file():
            raise MissingFileError(f"{folder}: the image {image} is not there.")
        row, col = annotation.centre
        group = facts.group or facts.name
        common = {
            "image": image, "row": row, "col": col, "group": group, "uid": annotation.uid,
            "fine_class": names.index(label) if label in names else len(names),
        }  # fmt: skip
        records.append(make(annotation, facts, common))
        said = label if len(annotation.labels) == 1 else list(annotation.labels)
        digest.update(json.dumps([image_hash(image), row, col, said, group]).encode())
    if not records:
        raise RecipeError(f"{folder} holds no labelled {what}; there is nothing to learn from.")
    return CellData(
        name=labelled.name, folder=folder, records=tuple(records), fine_classes=tuple(classes),
        mpp=mpp, note="", sha256=digest.hexdigest(), parts=dict(labelled.parts),
        grouped_by=grouped_by,
    )  # fmt: skip
