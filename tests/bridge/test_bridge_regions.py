"""What is searched: the view, what was drawn, and which of the found are new."""

import napari
import numpy as np
import pytest
from napari.layers import Image, Shapes

from napari_cellpath.bridge import occlusion, regions
from napari_cellpath.bridge.conventions import image_layers, is_analysable
from napari_cellpath.core.results import FoundNucleus, OcclusionMap


@pytest.fixture
def image():
    return Image(np.zeros((200, 300, 3), np.uint8), name="field", scale=(0.5, 0.5))


@pytest.fixture
def viewer():
    return napari.components.ViewerModel()


def shapes(data, kind, **options):
    return Shapes([np.array(data, dtype=float)], shape_type=kind, **options)


def test_drawn_rectangle_becomes_pixels(image):
    """Drawn in world units on a layer of its own, read in the image's pixels, clipped."""
    drawn = shapes([[10, 20], [10, 200], [60, 200], [60, 20]], "rectangle")
    area = regions.drawn_area([image, drawn], image)
    assert area.box == (20, 40, 100, 260)  # columns end with the image, at 300
    assert area.holds(np.array([[50.0, 100.0], [5.0, 100.0]])).tolist() == [True, False]


def test_polygon_and_ellipse_hold_what_lies_inside(image):
    """A triangle leaves the other half of its box out, an ellipse its corners."""
    triangle = shapes([[0, 0], [0, 100], [90, 0]], "polygon")
    area = regions.drawn_area([image, triangle], image)
    assert area.holds(np.array([[10.0, 10.0], [170.0, 190.0]])).tolist() == [True, False]
    ellipse = shapes([[0, 0], [0, 100], [90, 100], [90, 0]], "ellipse")
    area = regions.drawn_area([image, ellipse], image)
    assert area.holds(np.array([[90.0, 100.0], [2.0, 2.0]])).tolist() == [True, False]


def test_lines_hidden_layers_and_places_off_the_image_are_no_region(image):
    """None of them encloses any of the image."""
    line = shapes([[0, 0], [50, 50]], "line")
    hidden = shapes([[0, 0], [0, 9], [9, 9], [9, 0]], "rectangle", visible=False)
    away = shapes([[500, 500], [500, 600], [600, 600], [600, 500]], "rectangle")
    for layer in (line, hidden, away):
        assert regions.drawn_area([image, layer], image) is None
    assert regions.drawn_area([image], image) is None


def test_selected_shapes_go_before_all(image):
    """With one of two selected, only that one is searched."""
    data = [np.array([[0, 0], [0, 20], [20, 20], [20, 0]]) + k for k in (0.0, 60.0)]
    drawn = Shapes(data, shape_type="rectangle")
    assert len(regions.drawn_area([drawn, image], image).polygons) == 2
    drawn.selected_data = {1}
    area = regions.drawn_area([drawn, image], image)
    assert area.box == (120, 120, 40, 40)


def test_view_is_what_the_layer_says_it_shows(image):
    """The corners napari keeps, widened to whole pixels; off screen there is nothing."""
    image.corner_pixels = np.array([[20, 30], [79, 129]])
    assert regions.visible_area(image).box == (20, 30, 60, 100)
    image.corner_pixels = np.array([[-5, -5], [900, 900]])
    assert regions.visible_area(image).box == (0, 0, 200, 300)


def test_found_nuclei_are_not_doubled():
    """One within half its diameter of a known nucleus is that nucleus."""
    found = [FoundNucleus(10, 10, 8.0, 1.0), FoundNucleus(100, 100, 8.0, 1.0)]
    known = np.array([[22.0, 10.0]])  # 12 px = 2.4 um of a radius of 4
    places = regions.new_places(found, None, known, mpp=0.2)
    assert places.tolist() == [[100.0, 100.0]]
    assert len(regions.new_places(found, None, np.zeros((0, 2)), mpp=0.2)) == 2
    area = regions.Area((0, 0, 50, 50), (np.array([[0, 0], [0, 50], [50, 50], [50, 0.0]]),))
    assert regions.new_places(found, area, np.zeros((0, 2)), 0.2).tolist() == [[10.0, 10.0]]
    assert len(regions.new_places([], area, known, 0.2)) == 0


def test_occlusion_map_lies_on_its_cell(image, viewer):
    """Placed by the image's own transform, and never offered as an image to analyse."""
    drop = np.zeros((128, 128), np.float32)
    drop[64, 64] = 0.3
    found = OcclusionMap(row=20.0, col=40.0, pixel=1.5, drop=drop, score=0.8, model="m@1")
    layer = occlusion.map_layer(found, image, "uid")
    viewer.add_layer(image)
    viewer.add_layer(layer)
    np.testing.assert_allclose(layer.data_to_world((0, 0)), image.data_to_world((20.0, 40.0)))
    np.testing.assert_allclose(layer.data_to_world((2, 4)), image.data_to_world((23.0, 46.0)))
    assert layer.contrast_limits == pytest.approx([-0.3, 0.3])
    assert not is_analysable(layer)
    assert image_layers(viewer.layers) == [image]
    assert "0.800" in occlusion.sentence(found)
