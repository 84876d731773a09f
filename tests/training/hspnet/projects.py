"""Projects with painted regions of synthetic sections, as the dock leaves them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from napari_cellpath.core.annotations import Annotation, Part, Shape
from napari_cellpath.core.vocabulary import System
from napari_cellpath.project import Kind, Project, Stroke
from napari_cellpath.project.images import key_of_file
from napari_cellpath.project.journal import Journal
from napari_cellpath.project.painted import painted_value, raster_name
from tests.training.hspnet.tissue import SIDE, draw_section

NAMES = ("background", "benign gland", "malignant gland")


@dataclass
class PaintedProject:
    """A project's folder, and the keys of its images in order."""

    folder: Path
    keys: list[str] = field(default_factory=list)
    names: tuple[str, ...] = NAMES

    def write(self, sections: list[tuple[Path, str, Part, np.ndarray, bool]]) -> None:
        """Image, group, part, what is painted (0 nothing) and whether all of it is."""
        with Project(Journal.create(self.folder, self.folder.stem)) as project:
            setting = {"settings": {"classes/hspnet": {"names": list(self.names)}}}
            project.record(Kind.SETTING, setting)
            for path, group, part, painting, complete in sections:
                key = key_of_file(path)
                self.keys.append(key)
                height, width = painting.shape
                facts: dict[str, Any] = {
                    "name": path.name, "path": str(path), "height": height, "width": width,
                    "mpp": 0.62, "group": group,
                }  # fmt: skip
                project.record(Kind.IMAGE, {"images": {key: facts}})
                project.record(Kind.SPLIT, {"groups": {group: {"part": str(part)}}})
                before = np.zeros(painting.shape, np.uint32)
                stroke = Stroke(raster_name(key), 0, 0, before, painting.astype(np.uint32))
                project.record(Kind.PAINT, {}, [stroke])
                if complete:
                    box = (0, 0, height, width)
                    project.add([
                        Annotation(f"c-{key}", key, System.HSPNET, Shape.BOX, box, complete=True)
                    ])  # fmt: skip
            project.flush()

    def add(self, annotation: Annotation) -> None:
        """One more object."""
        with Project.open(self.folder) as project:
            project.add([annotation])
            project.flush()


def make_painted(
    folder: Path,
    parts: dict[Part, int],
    *,
    complete: bool = True,
    kinds: tuple[int, ...] = (1, 2),
    names: tuple[str, ...] = NAMES,
    seed: int = 0,
) -> PaintedProject:
    """One section a slide; its glands are painted, and with ``complete`` all else is background."""
    rng = np.random.default_rng(seed)
    where = folder.with_suffix(".images")
    where.mkdir(parents=True)
    sections = []
    number = 0
    for part, n in parts.items():
        for turn in range(n):
            image, mask = draw_section(rng, kinds[turn % len(kinds)], (SIDE, SIDE + 8))
            path = where / f"section-{seed}-{number:02d}.png"
            Image.fromarray(image).save(path)
            painting = np.where(mask > 0, painted_value(0) + mask, 0)
            sections.append((path, f"slide-{seed}-{number:02d}", part, painting, complete))
            number += 1
    made = PaintedProject(folder, names=names)
    made.write(sections)
    return made
