"""A project's annotations from files and to files, as the docks' project menu does it."""

from __future__ import annotations

from collections.abc import Sequence, Set
from pathlib import Path

from napari_cellpath.bridge.sources import Source
from napari_cellpath.core.annotations import ImageFacts
from napari_cellpath.core.errors import ProjectError
from napari_cellpath.core.requests import FileImage
from napari_cellpath.core.vocabulary import System
from napari_cellpath.project import Project, exchange
from napari_cellpath.project.exchange import Format
from napari_cellpath.project.images import add_image, all_images, image_facts
from napari_cellpath.project.painted_exchange import export_painted, import_painted

FORMATS = {
    ".geojson": Format.GEOJSON,
    ".json": Format.COCO,
    ".csv": Format.CSV,
    ".tif": Format.LABELS,
    ".tiff": Format.LABELS,
}
"""Format of an exported file by its ending."""


def know(project: Project, source: Source, shape: tuple[int, int]) -> None:
    """Make an image known to a project.

    Raises
    ------
    CellpathError
        The project cannot be written.
    """
    image = source.image
    named = isinstance(image, FileImage)
    add_image(
        project, source.key, Path(image.path).name if named else image.name, shape,
        path=image.path if named else "", mpp=source.mpp,
    )  # fmt: skip


def image_to_open(project: Project, known: Set[str]) -> ImageFacts | None:
    """The image that was worked on last; None where one of the project's is known already."""
    images = {i.key: i for i in all_images(project)}
    if not images or known & images.keys():
        return None
    latest = next((o["image"] for o in reversed(project.state.objects.values())), None)
    return images.get(latest, next(iter(images.values())))


def take_in(
    project: Project, path: Path, source: Source, system: System, classes: Sequence[str] = ()
) -> str:
    """Take annotations of a known image in from a file, in one gesture; what came of it.

    Of tissue, outlines are painted; ``classes`` are those of the model in use.

    Raises
    ------
    CellpathError
        The file is none of annotations that are known, or is damaged; nothing is taken.
    """
    facts = image_facts(project, source.key)
    if system == System.HSPNET:
        painted, rectangles = import_painted(project, path, facts, classes)
        more = f", {rectangles:,} rectangles added" if rectangles else ""
        return f"{path.name}: {painted:,} shapes painted{more}."
    taken = exchange.import_file(project, path, image=facts, system=system)
    return (
        f"{path.name}: {taken.added:,} added, {taken.changed:,} changed, "
        f"{taken.same:,} as they were."
    )


def write_out(project: Project | None, path: Path, source: Source | None, system: System) -> str:
    """Write annotations: those of an image where the format holds one, else all; a sentence.

    Raises
    ------
    CellpathError
        There is nothing to write, the ending names no format, or it cannot be written.
    """
    form = FORMATS.get(path.suffix.lower())
    if project is None:
        raise ProjectError("There is nothing to export yet.")
    if system == System.HSPNET:
        if source is None or source.key not in project.state.images:
            raise ProjectError("Nothing was painted on this image yet.")
        count = export_painted(project, path, image_facts(project, source.key))
        return f"{count:,} shapes written to {path}."
    if form is None:
        raise ProjectError(
            f"{path.name}: the ending decides the format; {', '.join(FORMATS)} are known."
        )
    one = form in (Format.GEOJSON, Format.LABELS) and source is not None
    image = image_facts(project, source.key) if one and source else None
    count = exchange.export_file(project, path, form, image=image, system=system)
    return f"{count:,} objects written to {path}."
