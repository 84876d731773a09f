"""What was painted over an image as outlines for other programs, and their outlines as paint."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_cellpath.core.annotations import Annotation, Geometry, ImageFacts, Shape
from napari_cellpath.core.errors import ProjectError, TableError
from napari_cellpath.core.vocabulary import CLASS_COLOURS, System
from napari_cellpath.project.events import Kind, Stroke
from napari_cellpath.project.interchange import read_file, write_geojson, write_labels
from napari_cellpath.project.interchange.identity import derived_uid
from napari_cellpath.project.interchange.outlines import fill
from napari_cellpath.project.interchange.trace import trace
from napari_cellpath.project.painted import painted_value, raster_name
from napari_cellpath.project.project import Project
from napari_cellpath.project.state import TILE, Raster


def painted_outlines(raster: Raster, image: str, names: Sequence[str]) -> list[Annotation]:
    """Each connected part of each painted class as an outline a person drew.

    Parameters
    ----------
    raster
        Painted numbers.
    image
        Key of the image.
    names
        Classes that the numbers count in.
    """
    found = []
    for row, col, labels in _blocks(raster):
        for value, parts in trace(labels):
            if not painted_value(0) <= value < painted_value(len(names)):
                continue
            name = names[value - painted_value(0)]
            for part in parts:
                outline: Geometry = tuple(
                    tuple((r + row, c + col) for r, c in ring) for ring in part
                )
                found.append(
                    Annotation(
                        uid=derived_uid(image, "painted", name, str(outline[0][0])),
                        image=image, system=System.HSPNET, shape=Shape.POLYGON,
                        geometry=outline, labels=(name,), seen=True,
                    )
                )  # fmt: skip
    return found


def _blocks(raster: Raster) -> Iterable[tuple[int, int, NDArray[np.uint32]]]:
    """Windows round tiles that touch: the whole of a slide is never held at once."""
    if not raster.tiles:
        return
    places = np.array(sorted(raster.tiles))
    low = places.min(axis=0)
    there = np.zeros(places.max(axis=0) - low + 1, bool)
    there[tuple((places - low).T)] = True
    groups, _ = ndimage.label(there, np.ones((3, 3)))
    for number, (rows, cols) in enumerate(ndimage.find_objects(groups), start=1):
        row, col = (rows.start + low[0]) * TILE, (cols.start + low[1]) * TILE
        labels = raster.read(
            int(row), int(col), (rows.stop - rows.start) * TILE, (cols.stop - cols.start) * TILE
        )
        mine = groups[rows, cols] == number
        labels[~np.kron(mine, np.ones((TILE, TILE), bool))] = 0
        yield int(row), int(col), labels


def export_painted(project: Project, path: Path, image: ImageFacts) -> int:
    """Write what was painted over an image, and its *Complete here* rectangles; how many shapes.

    Raises
    ------
    ProjectError
        Nothing was painted, or the ending is neither GeoJSON nor TIFF.
    OutputError
        It cannot be written.
    """
    said = project.state.settings.get(f"classes/{System.HSPNET}", {})
    names = list(said.get("names", ()))
    raster = project.state.rasters.get(raster_name(image.key)) or Raster()
    shapes = painted_outlines(raster, image.key, names)
    shapes += [a for a in project.annotations(image.key, System.HSPNET) if a.complete]
    if not shapes:
        raise ProjectError(f"Nothing was painted on {image.name} yet.")
    ending = path.suffix.lower()
    if ending in (".tif", ".tiff"):
        return write_labels(path, shapes, image)
    if ending != ".geojson":
        raise ProjectError(
            f"{path.name}: painted classes are written as .geojson or .tif; choose one of them."
        )
    colours = said.get("colours") or CLASS_COLOURS
    named = {name: colours[n % len(colours)] for n, name in enumerate(names)}
    return write_geojson(path, shapes, image, named)


def import_painted(
    project: Project, path: Path, image: ImageFacts, classes: Sequence[str]
) -> tuple[int, int]:
    """Paint a file's outlines over an image, as one gesture that can be undone.

    Parameters
    ----------
    project, path, image
        An image that the project knows.
    classes
        Classes of the model in use; the project's own where it has some.

    Returns
    -------
    (int, int)
        Shapes painted, and *Complete here* rectangles that are new.

    Raises
    ------
    CellpathError
        The file cannot be read, or has a shape of another class or of none; nothing is painted.
    """
    setting = f"classes/{System.HSPNET}"
    declared = project.state.settings.get(setting, {}).get("names")
    names = list(declared or classes)
    found = read_file(path, [image], image=image, system=System.HSPNET)
    shapes = [a for a in found.annotations if not a.complete]
    for shape in shapes:
        said = shape.labels or ((shape.prediction.label,) if shape.prediction else ())
        if len(said) != 1 or said[0] not in names:
            raise TableError(
                f"{path.name}: a shape is of the class '{', '.join(said)}'; the classes here are "
                f"{', '.join(names)}."
            )
    if not declared:
        project.record(Kind.SETTING, {"settings": {setting: {"names": names}}})
    strokes = _strokes(project, image, shapes, names)
    rectangles = {a.uid: a.to_facts() for a in found.annotations if a.complete}
    new = len(set(rectangles) - set(project.state.objects))
    project.record(Kind.IMPORT, {"objects": rectangles}, strokes)
    return len(shapes), new


def _strokes(
    project: Project, image: ImageFacts, shapes: Iterable[Annotation], names: Sequence[str]
) -> list[Stroke]:
    """One stroke a tile of the raster: shapes that overlap lie on top in their order."""
    name = raster_name(image.key)
    held = project.state.rasters.get(name) or Raster()
    painted = Raster()
    for key, tile in held.tiles.items():
        painted.tiles[key] = tile.copy()
    touched: set[tuple[int, int]] = set()
    for shape in shapes:
        said = shape.labels[0] if shape.labels else shape.prediction.label  # type: ignore[union-attr]
        r0, c0, r1, c1 = shape.bounds
        row, col = max(int(np.floor(r0)), 0), max(int(np.floor(c0)), 0)
        height = min(int(np.ceil(r1)), image.height or int(np.ceil(r1))) - row
        width = min(int(np.ceil(c1)), image.width or int(np.ceil(c1))) - col
        if height < 1 or width < 1:
            continue
        window = painted.read(row, col, height, width)
        fill(_shifted(shape, row, col), window, painted_value(names.index(said)))
        painted.write(row, col, window)
        touched |= {
            (i, j)
            for i in range(row // TILE, (row + height - 1) // TILE + 1)
            for j in range(col // TILE, (col + width - 1) // TILE + 1)
        }
    return [
        Stroke(
            name, i * TILE, j * TILE, held.read(i * TILE, j * TILE, TILE, TILE),
            painted.read(i * TILE, j * TILE, TILE, TILE),
        )
        for i, j in sorted(touched)
    ]  # fmt: skip


def _shifted(shape: Annotation, row: int, col: int) -> Annotation:
    """The shape in pixels of a window that begins at (row, col)."""
    if shape.shape is Shape.POINT:
        return replace(shape, geometry=(shape.geometry[0] - row, shape.geometry[1] - col))
    if shape.shape is Shape.BOX:
        r0, c0, r1, c1 = shape.geometry
        return replace(shape, geometry=(r0 - row, c0 - col, r1 - row, c1 - col))
    rings = tuple(tuple((r - row, c - col) for r, c in ring) for ring in shape.geometry)
    return replace(shape, geometry=rings)
