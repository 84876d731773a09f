"""What people painted over regions of slides, as training and measuring read it.

A raster ``IMAGE/hspnet`` holds one number a pixel of level 0: 0, nothing is said of it; c + 1, it
is of class c. Classes are counted in the project's own list (setting ``classes/hspnet``), where
there is one, else in that of the model that was corrected; class 0 is the background. Within a
*Complete here* rectangle a pixel of which nothing is said is background.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.core.annotations import ImageFacts, Part
from napari_cellpath.core.vocabulary import System
from napari_cellpath.project import ledger
from napari_cellpath.project.images import all_images
from napari_cellpath.project.project import Project
from napari_cellpath.project.state import TILE, Raster

UNSAID = -1
"""Class of a pixel of which nothing is said."""

Box = tuple[int, int, int, int]
"""Top, left, bottom, right in level-0 pixels, half-open."""


def painted_value(class_index: int) -> int:
    """The raster's number for a class of the list; `UNSAID` is 0."""
    return class_index + 1


def class_of_painted(values: NDArray[Any]) -> NDArray[np.int64]:
    """Inverse of `painted_value`, pixel by pixel."""
    return values.astype(np.int64) - 1


def raster_name(image: str, system: System | str = System.HSPNET) -> str:
    """Name of the raster of an image, by its key."""
    return f"{image}/{System(system)}"


def image_of_raster(name: str) -> str:
    """Key of the image that a raster is of."""
    return name.rpartition("/")[0]


def _span(start: int, stop: int, origin: int) -> slice:
    """Rows or columns start..stop of the image, in a window that begins at ``origin``."""
    return slice(max(start - origin, 0), max(stop - origin, 0))


@dataclass(frozen=True, eq=False)
class PaintedImage:
    """What is said of one image's pixels."""

    facts: ImageFacts
    raster: Raster = field(default_factory=Raster)
    complete: tuple[Box, ...] = ()

    def boxes(self) -> list[Box]:
        """*Complete here* rectangles, then the blocks outside them in which anything is painted.

        A block is a tile of the raster cut down to what is painted in it.
        """
        found = list(self.complete)
        for row, col in sorted(self.raster.tiles):
            painted = self.raster.tiles[row, col] > 0
            top, left = row * TILE, col * TILE
            for r0, c0, r1, c1 in self.complete:
                painted[_span(r0, r1, top), _span(c0, c1, left)] = False
            rows_in, cols_in = np.nonzero(painted)
            if len(rows_in):
                found.append(
                    (
                        top + int(rows_in.min()), left + int(cols_in.min()),
                        top + int(rows_in.max()) + 1, left + int(cols_in.max()) + 1,
                    )
                )  # fmt: skip
        return found

    def classes_in(self, box: Box) -> NDArray[np.int64]:
        """Class of each pixel of a box, `UNSAID` where nothing is said."""
        top, left, bottom, right = box
        said = class_of_painted(self.raster.read(top, left, bottom - top, right - left))
        for r0, c0, r1, c1 in self.complete:
            inside = said[_span(r0, r1, top), _span(c0, c1, left)]
            inside[inside == UNSAID] = 0
        return said


@dataclass(frozen=True, eq=False)
class PaintedData:
    """What a project offers for learning regions: painted images and the split.

    Attributes
    ----------
    name
        Of the project.
    classes
        Class names in the order that painted values count in; empty where the project sets none.
    images
        Those of which anything is said.
    parts
        Part of each group.
    """

    name: str
    classes: tuple[str, ...]
    images: tuple[PaintedImage, ...]
    parts: Mapping[str, Part] = field(default_factory=dict)


def painted(path: Path | str, system: System | str = System.HSPNET) -> PaintedData:
    """What a person painted, and the rectangles in which everything is painted.

    Parameters
    ----------
    path
        Project folder; it is opened for reading only.
    system
        Whose rasters and rectangles.

    Raises
    ------
    CellpathError
        There is no project, or it cannot be read.
    """
    system = System(system)
    with Project.open(path, read_only=True) as project:
        boxes: dict[str, list[Box]] = {}
        for annotation in project.annotations(system=system):
            if annotation.complete:
                r0, c0, r1, c1 = (round(v) for v in annotation.bounds)
                boxes.setdefault(annotation.image, []).append((r0, c0, r1, c1))
        found = []
        for image in all_images(project):
            raster = project.state.rasters.get(raster_name(image.key, system))
            complete = tuple(
                (max(r0, 0), max(c0, 0), min(r1, image.height or r1), min(c1, image.width or c1))
                for r0, c0, r1, c1 in boxes.get(image.key, ())
            )
            complete = tuple(b for b in complete if b[0] < b[2] and b[1] < b[3])
            if raster is not None or complete:
                found.append(PaintedImage(image, raster or Raster(), complete))
        names = project.state.settings.get(f"classes/{system}", {}).get("names", ())
        return PaintedData(
            f"{project.name}-{project.id[:8]}", tuple(names), tuple(found), ledger.parts(project)
        )
