"""Painted classes as outlines in files, and outlines of files as paint."""

import json

import numpy as np
import pytest

from napari_cellpath.core.annotations import Annotation, Shape
from napari_cellpath.core.errors import CellpathError, ProjectError
from napari_cellpath.core.vocabulary import System
from napari_cellpath.project import Kind, Project, Stroke
from napari_cellpath.project.images import add_image, image_facts
from napari_cellpath.project.painted import raster_name
from napari_cellpath.project.painted_exchange import export_painted, import_painted
from napari_cellpath.project.state import Raster

CLASSES = ("background", "benign gland", "malignant gland")
SETTING = f"classes/{System.HSPNET}"


@pytest.fixture
def make(tmp_path):
    made = []

    def make(name):
        project = Project.create(tmp_path / name)
        add_image(project, "im", "slide.tif", (2000, 3000), mpp=0.5)
        made.append(project)
        return project

    yield make
    for project in made:
        project.close()


def paint(project, labels, row=0, col=0):
    before = (project.state.rasters.get(raster_name("im")) or Raster()).read(
        row, col, *labels.shape
    )
    project.record(
        Kind.PAINT, {}, [Stroke(raster_name("im"), row, col, before, labels.astype(np.uint32))]
    )


def painted(project, *window):
    return (project.state.rasters.get(raster_name("im")) or Raster()).read(*window)


def test_there_and_back(make, tmp_path):
    """Rings, holes, background and far corners come back pixel by pixel, in one gesture."""
    project = make("a")
    project.record(Kind.SETTING, {"settings": {SETTING: {"names": list(CLASSES)}}})
    labels = np.zeros((700, 900), int)
    labels[40:400, 50:620] = 2
    labels[100:300, 200:500] = 0  # a hole
    labels[150:250, 250:450] = 3
    labels[420:440, 60:70] = 1
    paint(project, labels, 100, 200)
    paint(project, np.full((30, 40), 3), 1900, 2900)
    box = Annotation("r", "im", System.HSPNET, Shape.BOX, (10.0, 20.0, 300.0, 400.0), complete=True)
    project.add([box])
    path = tmp_path / "painted.geojson"
    assert export_painted(project, path, image_facts(project, "im")) == 5
    names = {f["properties"]["classification"]["name"]
             for f in json.loads(path.read_text())["features"]}  # fmt: skip
    assert set(CLASSES) <= names
    other = make("b")
    assert import_painted(other, path, image_facts(other, "im"), CLASSES) == (4, 1)
    window = (0, 0, 2000, 3000)
    np.testing.assert_array_equal(painted(other, *window), painted(project, *window))
    assert other.state.settings[SETTING]["names"] == list(CLASSES)
    assert sum(bool(o.get("complete")) for o in other.state.objects.values()) == 1
    other.undo()
    assert not painted(other, *window).any()
    assert not other.state.objects


def test_what_is_of_no_class_here_is_refused(make, tmp_path):
    """Nothing is painted then; nor is anything written where nothing was painted."""
    project, other = make("a"), make("b")
    with pytest.raises(ProjectError, match="Nothing was painted"):
        export_painted(project, tmp_path / "x.geojson", image_facts(project, "im"))
    project.record(Kind.SETTING, {"settings": {SETTING: {"names": list(CLASSES)}}})
    paint(project, np.full((30, 40), 3), 10, 10)
    path = tmp_path / "painted.geojson"
    export_painted(project, path, image_facts(project, "im"))
    with pytest.raises(CellpathError, match="'malignant gland'"):
        import_painted(other, path, image_facts(other, "im"), ("background", "CIN1"))
    assert not other.state.rasters
    with pytest.raises(ProjectError, match=r"\.geojson or \.tif"):
        export_painted(project, tmp_path / "x.csv", image_facts(project, "im"))
