"""What training and measuring read from a project."""

from __future__ import annotations

from pathlib import Path

from napari_cellpath.core.annotations import LabelledData, Shape
from napari_cellpath.core.vocabulary import System
from napari_cellpath.project import ledger
from napari_cellpath.project.images import all_images
from napari_cellpath.project.project import Project


def labelled(path: Path | str, system: System | str) -> LabelledData:
    """Objects that a person has labelled, their images, and the side of each group.

    Parameters
    ----------
    path
        Project folder; it is opened for reading only.
    system
        Whose objects.

    Raises
    ------
    CellpathError
        There is no project, or it cannot be read.
    """
    system = System(system)
    with Project.open(path, read_only=True) as project:
        images = {image.key: image for image in all_images(project)}
        here = [a for a in project.annotations(system=system) if a.image in images]
        objects = [a for a in here if a.labels and not a.complete]
        order = {key: place for place, key in enumerate(images)}
        objects.sort(key=lambda a: (order[a.image], a.centre, a.uid))
        return LabelledData(
            name=f"{project.name}-{project.id[:8]}",
            classes=classes_of(project, system),
            images=images,
            annotations=tuple(objects),
            parts=ledger.parts(project),
            boxes=tuple(a for a in here if a.shape is Shape.BOX and not a.complete),
            complete=tuple(a for a in here if a.complete and not a.labels),
        )


def classes_of(project: Project, system: System) -> tuple[str, ...]:
    """Class names of a system: those set for the project, then others that people used."""
    names = list(project.state.settings.get(f"classes/{system}", {}).get("names", ()))
    for annotation in project.annotations(system=system):
        names += [label for label in annotation.labels if label not in names]
    return tuple(names)
