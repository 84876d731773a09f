"""What is given to a command in a file: boxes by image, labelled pixels, an outline."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.cli.running import rows_of_images
from napari_cellpath.core.box_table import BoxRow, read_boxes
from napari_cellpath.core.errors import TableError
from napari_cellpath.core.requests import CellBox, FileImage
from napari_cellpath.slides.windows import image_shape


def boxes_of_table(
    table: Path,
    files: Sequence[Path],
    check: Callable[[CellBox, tuple[int, int], str], Any],
    why_once: str,
    *,
    may_be_empty: bool = False,
) -> Iterator[tuple[Path, CellBox, BoxRow]]:
    """Every box of a table, as much of it as lies on its image, with its image and its row.

    ``check`` refuses a box (box, shape of the image, where it stands); ``why_once`` says why no
    box may stand there twice.

    Raises
    ------
    TableError
        The table is none, a box stands there twice, or its image was not given.
    """
    rows = read_boxes(table, may_be_empty=may_be_empty)
    for file, of_file in rows_of_images(rows, list(files), table).items():
        shape = image_shape(FileImage(str(file))) if of_file else (0, 0)
        lines: dict[tuple[int, int, int, int], int] = {}
        for row in of_file:
            box = CellBox(*row.box, uid=row.id)
            check(box, shape, f"{table.name} line {row.line}")
            before = lines.setdefault(row.box, row.line)
            if before != row.line:
                raise TableError(
                    f"{table.name} line {row.line}: the same box stands in line {before}; "
                    f"{why_once}. Leave one out."
                )
            yield file, box.on(shape), row


def pixels_of_labels(
    paths: Sequence[Path], files: Sequence[Path], option: str, what: str
) -> Iterator[tuple[Path, Path, NDArray[np.generic]]]:
    """Every label image with its image and its pixels, (H, W) as the image.

    ``option`` is the command's, ``what`` how its images are called, in the plural.

    Raises
    ------
    CellpathError
        They are not as many as the images, cannot be read, or are of another size.
    """
    from napari_cellpath.project.interchange.labels import label_pixels

    if len(paths) != len(files):
        raise TableError(
            f"{len(paths)} {what} were given for {len(files)} images; give one {option} for each "
            "image, in the same order."
        )
    for path, file in zip(paths, files, strict=True):
        pixels, _, _ = label_pixels(path)
        shape = image_shape(FileImage(str(file)))
        if pixels.shape != shape:
            raise TableError(
                f"{path.name} has {pixels.shape[0]} x {pixels.shape[1]} pixels, {file.name} "
                f"{shape[0]} x {shape[1]}; give the {what} of this image."
            )
        yield path, file, pixels


def outline_of_file(path: Path) -> tuple[tuple[float, float], ...]:
    """Corners (row, col) of the one polygon of a GeoJSON file, napari's points.

    The file counts pixel edges of level 0, x before y, as QuPath writes them; what lies beside
    the image is left to whoever asks.

    Raises
    ------
    TableError
        It is no GeoJSON, holds another number of polygons, or its polygon has holes.
    """
    from napari_cellpath.project.interchange.intake import load_json, number

    data = load_json(path)
    found = list(_polygons(data))
    if len(found) != 1:
        raise TableError(f"{path.name} holds {len(found)} polygons; --within takes exactly one.")
    rings = found[0]
    if not isinstance(rings, list) or not rings or not all(isinstance(r, list) for r in rings):
        raise TableError(f"{path.name}: its polygon has no corners.")
    if len(rings) > 1:
        raise TableError(
            f"{path.name}: its polygon has a hole, which would be segmented too; draw it without."
        )
    corners = []
    for place in rings[0]:
        if not isinstance(place, list) or len(place) < 2:
            raise TableError(f"{path.name}: a corner needs x and y.")
        x, y = (number(value, f"{path.name}: a corner") for value in place[:2])
        corners.append((y - 0.5, x - 0.5))
    if len(corners) > 1 and corners[0] == corners[-1]:
        del corners[-1]
    return tuple(corners)


def _polygons(data: Any) -> Iterator[Any]:
    """The rings of every polygon of GeoJSON, wherever it stands."""
    if isinstance(data, list):
        for part in data:
            yield from _polygons(part)
    elif isinstance(data, dict):
        kind, places = data.get("type"), data.get("coordinates")
        if kind == "Polygon":
            yield places
        elif kind == "MultiPolygon" and isinstance(places, list):
            yield from places
        for key in ("features", "geometry", "geometries"):
            yield from _polygons(data.get(key))
