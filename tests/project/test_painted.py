"""What was painted on an image, as training reads it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from napari_cellpath.core.annotations import Annotation, ImageFacts, Shape
from napari_cellpath.core.vocabulary import System
from napari_cellpath.project import Kind, Project, Stroke, painted
from napari_cellpath.project.journal import Journal
from napari_cellpath.project.painted import (
    UNSAID,
    PaintedImage,
    class_of_painted,
    painted_value,
    raster_name,
)
from napari_cellpath.project.state import Raster


def test_nothing_said_and_background_said_are_two_things() -> None:
    """0 is no word; the background has a number of its own."""
    values = np.array([0, painted_value(0), painted_value(2)])
    assert class_of_painted(values).tolist() == [UNSAID, 0, 2]


def test_unpainted_is_background_only_within_complete() -> None:
    """Outside a Complete rectangle an unpainted pixel is ignored."""
    raster = Raster()
    raster.write(2, 2, np.full((2, 2), painted_value(1), np.uint32))
    image = PaintedImage(ImageFacts("k", "a.png"), raster, ((0, 0, 3, 6),))
    said = image.classes_in((0, 0, 5, 6))
    assert (said[:2] == 0).all()
    assert said[2].tolist() == [0, 0, 1, 1, 0, 0]
    assert said[3].tolist() == [UNSAID, UNSAID, 1, 1, UNSAID, UNSAID]
    assert (said[4] == UNSAID).all()
    assert image.boxes() == [(0, 0, 3, 6), (3, 2, 4, 4)]


def test_a_project_gives_rasters_and_rectangles_of_the_system_alone(tmp_path: Path) -> None:
    """Strokes and rectangles of other systems are not tissue's."""
    with Project(Journal.create(tmp_path / "p.cellpath", "p")) as project:
        facts = {"name": "a.png", "path": "", "height": 40, "width": 40, "group": "s1"}
        project.record(Kind.IMAGE, {"images": {"k": facts, "empty": facts | {"name": "b.png"}}})
        before = np.zeros((4, 4), np.uint32)
        after = np.full((4, 4), painted_value(1), np.uint32)
        project.record(Kind.PAINT, {}, [Stroke(raster_name("k"), 600, 3, before, after)])
        project.record(Kind.PAINT, {}, [Stroke("k/hep2", 0, 0, before, after)])
        boxes = [(System.HSPNET, "c1"), (System.RBC, "c2")]
        project.add(
            [
                Annotation(u, "k", s, Shape.BOX, (10, 10, 60, 20), complete=True)
                for s, u in boxes
            ]
        )  # fmt: skip
        project.flush()
    found = painted(tmp_path / "p.cellpath")
    assert [i.facts.key for i in found.images] == ["k"]
    assert found.images[0].boxes() == [(10, 10, 40, 20), (600, 3, 604, 7)]
