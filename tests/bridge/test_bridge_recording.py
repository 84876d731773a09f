"""Shapes and labels layers as a person edits them, beside the project that records them."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from napari.layers import Labels, Shapes

from napari_cellpath.bridge.box_recording import BoxRecorder, box_of, corners_of
from napari_cellpath.bridge.paint_recording import PaintRecorder
from napari_cellpath.core.errors import CellpathError
from napari_cellpath.core.vocabulary import System
from napari_cellpath.project import Kind, Project, Stroke


@pytest.fixture
def project(tmp_path):
    with Project.create(tmp_path / "p") as project:
        yield project


def boxes(project):
    return sorted(tuple(o["geometry"]) for o in project.state.objects.values())


def drawn(layer):
    return sorted(box_of(corners) for corners in layer.data)


def undo(project, *recorders):
    done = project.undo()
    for recorder in recorders:
        recorder.replay([done.event])


def redo(project, *recorders):
    done = project.redo()
    for recorder in recorders:
        recorder.replay([done.event])


def test_boxes_drawn_moved_labelled_and_deleted_can_be_undone(project):
    layer = Shapes(ndim=2)
    recorder = BoxRecorder(layer, project, "im", System.RBC)
    layer.add_rectangles(corners_of((2, 3, 10, 12)))
    layer.add_rectangles(corners_of((20, 3, 30, 12)))
    first, second = list(layer.features["uid"])
    assert first != second
    assert boxes(project) == [(2, 3, 10, 12), (20, 3, 30, 12)]
    features = layer.features.copy()
    features.loc[0, "label"] = "sickle; target"
    layer.features = features
    assert project.state.objects[first]["labels"] == ["sickle", "target"]
    layer.add_rectangles(corners_of((40, 40, 50, 50)))  # must not inherit a diagnosis
    third = layer.features["uid"].iloc[2]
    assert "labels" not in project.state.objects[third]
    data = list(layer.data)
    data[1] = corners_of((21, 3, 31, 12))
    layer.data = data
    assert tuple(project.state.objects[second]["geometry"]) == (21, 3, 31, 12)
    layer.selected_data = {0}
    layer.remove_selected()
    assert first not in project.state.objects

    for _ in range(2):  # the deletion, the move
        undo(project, recorder)
    assert drawn(layer) == boxes(project) == [(2, 3, 10, 12), (20, 3, 30, 12), (40, 40, 50, 50)]
    row = list(layer.features["uid"]).index(first)
    assert layer.features["label"].iloc[row] == "sickle; target"
    for _ in range(4):  # the third, the label, the second, the first
        undo(project, recorder)
    assert len(layer.data) == 0
    for _ in range(6):
        redo(project, recorder)
    assert drawn(layer) == boxes(project) == [(21, 3, 31, 12), (40, 40, 50, 50)]


def test_a_shape_without_area_is_not_kept_and_others_are_upright(project):
    layer = Shapes(ndim=2)
    recorder = BoxRecorder(layer, project, "im", System.RBC, complete=True)
    layer.add_rectangles(np.array([[5.0, 5.0], [5.0, 5.0], [5.0, 5.0], [5.0, 5.0]]))
    assert boxes(project) == []
    layer.add_polygons(np.array([[1.5, 1.5], [9.5, 4.5], [4.5, 9.5]]))
    assert boxes(project) == [(2, 2, 10, 10)]
    (facts,) = project.state.objects.values()
    assert facts["complete"]
    recorder.close()


def test_a_layer_and_a_project_are_brought_together(project):
    layer = Shapes([corners_of((2, 3, 10, 12))], ndim=2)
    BoxRecorder(layer, project, "im", System.RBC).close()
    other = Shapes([corners_of((30, 3, 40, 12))], ndim=2)
    recorder = BoxRecorder(other, project, "im", System.RBC)
    assert drawn(other) == boxes(project) == [(2, 3, 10, 12), (30, 3, 40, 12)]
    recorder.close()


def test_strokes_and_fills_can_be_undone(project):
    layer = Labels(np.zeros((600, 700), np.uint8))
    recorder = PaintRecorder(layer, project, "im/hspnet")
    layer.brush_size = 11
    layer.paint((500, 510), 3)
    layer.paint((505, 520), 5)
    layer.fill((505, 520), 7)
    layer.data_setitem((np.array([1, 2]), np.array([4, 5])), 9)
    pictures = [layer.data.copy()]
    raster = project.state.rasters["im/hspnet"]
    assert np.array_equal(raster.read(0, 0, 600, 700), layer.data)
    project.flush()
    assert project.events == 4
    steps = 0
    while project.undo_kind is not None:
        undo(project, recorder)
        pictures.append(layer.data.copy())
        steps += 1
    assert steps == 4
    assert not layer.data.any()
    for picture in pictures[-2::-1]:
        redo(project, recorder)
        assert np.array_equal(layer.data, picture)


def test_painted_labels_come_back_and_pyramids_are_refused(project):
    layer = Labels(np.zeros((60, 70), np.uint16))
    recorder = PaintRecorder(layer, project, "im/hspnet")
    layer.paint((30, 30), 300)
    recorder.close()
    again = Labels(np.zeros((60, 70), np.uint16))
    PaintRecorder(again, project, "im/hspnet")
    assert np.array_equal(again.data, layer.data)
    with pytest.raises(CellpathError, match="edit a region of it"):
        PaintRecorder(Labels(np.zeros((3, 60, 70), np.uint16)), project, "im/hspnet")


def test_what_was_painted_while_nothing_recorded_joins_the_project(project):
    """Paint made in between stays, beside what another window painted meanwhile."""
    layer = Labels(np.zeros((60, 70), np.uint16))
    recorder = PaintRecorder(layer, project, "im/hspnet")
    layer.data_setitem((np.array([5]), np.array([5])), 2)
    kept = copy.deepcopy(project.state.rasters["im/hspnet"])  # a reopened project has its own
    recorder.close()
    layer.data[10:12, 10:12] = 3
    layer.data[5, 5] = 0
    theirs = Stroke("im/hspnet", 30, 30, np.zeros((2, 2), np.uint32), np.full((2, 2), 4, np.uint32))
    project.record(Kind.PAINT, {}, [theirs])
    again = PaintRecorder(layer, project, "im/hspnet", since=kept)
    wanted = np.zeros((60, 70))
    wanted[10:12, 10:12], wanted[30:32, 30:32] = 3, 4
    assert (layer.data == wanted).all()
    assert (project.state.rasters["im/hspnet"].read(0, 0, 60, 70) == wanted).all()
    again.close()
