"""Files into a project and out of it, whatever their format."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from napari_cellpath.core.annotations import Annotation, ImageFacts, check_geometry
from napari_cellpath.core.errors import CellpathError, ProjectError
from napari_cellpath.core.requests import FileImage, new_uid
from napari_cellpath.core.vocabulary import CLASS_COLOURS, System
from napari_cellpath.project.events import Facts, Kind
from napari_cellpath.project.images import (
    add_image,
    all_images,
    image_facts,
    key_of_file,
    set_group,
)
from napari_cellpath.project.interchange import (
    Imported,
    read_file,
    read_folder,
    write_coco,
    write_csv,
    write_geojson,
    write_labels,
)
from napari_cellpath.project.project import Project, plain
from napari_cellpath.project.reading import classes_of
from napari_cellpath.slides.windows import image_mpp, image_shape


class Format(StrEnum):
    """Formats a project can be written in."""

    GEOJSON = "geojson"
    COCO = "coco"
    CSV = "csv"
    LABELS = "labels"


@dataclass(frozen=True)
class Taken:
    """What became of a file's objects.

    ``added`` are new, ``changed`` were there and say something else now, ``same`` were there and
    say the same; ``refused`` has a sentence for each that was left out.
    """

    added: int
    changed: int
    same: int
    refused: tuple[str, ...]
    format: str


def image_of_file(
    project: Project, path: Path, *, group: str = "", mpp: float | None = None
) -> ImageFacts:
    """An image file as an image of the project, added if it is new.

    Raises
    ------
    CellpathError
        It cannot be read.
    """
    file = FileImage(str(path), mpp)
    key = key_of_file(path)
    add_image(
        project, key, path.name, image_shape(file),
        path=path, mpp=mpp or image_mpp(file), group=group,
    )  # fmt: skip
    if group:
        set_group(project, key, group)
    return image_facts(project, key)


def import_file(
    project: Project,
    path: Path,
    *,
    image: ImageFacts | None = None,
    system: System = System.DEEPPAP,
    unit: str = "px",
    offset: tuple[float, float] | None = None,
    skip_bad: bool = False,
) -> Taken:
    """Take in a GeoJSON, COCO or CSV file, or a label TIFF, in one gesture.

    Objects that are there already are known by their uid: what the file says of them is taken,
    but a label of a person is never taken away by a file that has none.

    Parameters
    ----------
    path
        The file; its format is told by its content.
    image
        The image everything belongs to; None where the file names images of the project.
    unit, offset, skip_bad
        See `interchange.read_file`.

    Raises
    ------
    CellpathError
        The file cannot be read, or an object is refused and ``skip_bad`` is false; then nothing
        is taken.
    """
    found = read_file(
        path, list(all_images(project)), image=image, classes=declared_classes(project, system),
        unit=unit, offset=offset, skip_bad=skip_bad, system=system,
    )  # fmt: skip
    return _take(project, found)


def import_folder(
    project: Project, folder: Path, *, system: System = System.DEEPPAP, skip_bad: bool = False
) -> Taken:
    """Take in a folder with one folder of images a class, in one gesture; images are added.

    Raises
    ------
    CellpathError
        See `interchange.read_folder`; then nothing is taken.
    """

    def describe(path: Path) -> ImageFacts:
        file = FileImage(str(path))
        height, width = image_shape(file)
        return ImageFacts(
            key_of_file(path), path.name, str(path.resolve()), height, width, image_mpp(file),
            path.stem,
        )  # fmt: skip

    found = read_folder(
        folder, describe, classes=declared_classes(project, system), skip_bad=skip_bad,
        system=system,
    )  # fmt: skip
    for image in found.images:
        add_image(
            project, image.key, image.name, (image.height, image.width),
            path=image.path, mpp=image.mpp, group=image.group,
        )  # fmt: skip
    return _take(project, Imported(found.annotations, found.refused, "folder"))


def declared_classes(project: Project, system: System) -> tuple[str, ...]:
    """The classes a project was made for; empty where any is welcome."""
    return tuple(project.state.settings.get(f"classes/{system}", {}).get("names", ()))


def _take(project: Project, found: Imported) -> Taken:
    objects = project.state.objects
    wanted: dict[str, Facts] = {}
    added = changed = same = 0
    for annotation in found.annotations:
        have = objects.get(annotation.uid)
        if have is not None and have["image"] != annotation.image:
            # The same file imported for another image: these are other objects.
            annotation = replace(annotation, uid=new_uid())
            have = None
        facts = dict(annotation.to_facts())
        if have is None:
            added += 1
        else:
            if not facts.get("labels"):
                for key in ("labels", "author", "at"):
                    facts.pop(key, None)
            if project.state.towards("objects", annotation.uid, plain(facts)) is None:
                same += 1
                continue
            changed += 1
        wanted[annotation.uid] = facts
    project.record(Kind.IMPORT, {"objects": wanted})
    return Taken(added, changed, same, found.refused, found.format)


def export_file(
    project: Project,
    path: Path,
    form: Format,
    *,
    image: ImageFacts | None = None,
    system: System = System.DEEPPAP,
) -> int:
    """Write objects of one image, or of all where the format can hold several; returns how many.

    Nuclei that were dragged off their image are left out: no program takes them in again.

    Raises
    ------
    ProjectError
        There is nothing to write, or the format holds one image and several have objects.
    OutputError
        It cannot be written; what stood there before is intact.
    """
    chosen = [
        a for a in project.annotations(image.key if image else None, system)
        if a.image in project.state.images and _lies_on(a, image_facts(project, a.image))
    ]  # fmt: skip
    if not chosen:
        where = f" on {image.name}" if image else ""
        own = project.annotations(image.key if image else None)
        others = sorted({str(a.system) for a in own} - {str(system)})
        hint = f" It holds some of {', '.join(others)}: choose it with --system." if others else ""
        raise ProjectError(f"{project.folder} holds no objects of {system}{where} to export.{hint}")
    images = [i for i in all_images(project) if any(a.image == i.key for a in chosen)]
    if form in (Format.GEOJSON, Format.LABELS) and len(images) > 1:
        raise ProjectError(
            f"{form} holds one image and {project.folder.name} has {len(images)}: give one with "
            "--image, or export coco or csv."
        )
    names = classes_of(project, system)
    if form is Format.GEOJSON:
        return write_geojson(path, chosen, images[0], _colours(names, chosen))
    if form is Format.LABELS:
        return write_labels(path, chosen, images[0])
    if form is Format.COCO:
        return write_coco(path, chosen, images, names)
    return write_csv(path, chosen, images)


def _lies_on(annotation: Annotation, image: ImageFacts) -> bool:
    try:
        check_geometry(
            annotation.shape, annotation.geometry, annotation.uid, (image.height, image.width)
        )
    except CellpathError:
        return False
    return True


def _colours(names: Sequence[str], annotations: Iterable[Annotation]) -> dict[str, str]:
    every = list(names)
    for annotation in annotations:
        said = annotation.prediction.label if annotation.prediction else ""
        every += [n for n in (*annotation.labels, said) if n and n not in every]
    return {name: CLASS_COLOURS[n % len(CLASS_COLOURS)] for n, name in enumerate(every)}
