"""The generated blood smear."""

import numpy as np
import pytest
from napari.layers import Image as ImageLayer
from napari.layers import Labels, Shapes
from scipy import ndimage

from napari_cellpath.core.vocabulary import RBC_TYPES
from napari_cellpath.samples import SmearField, contributions, smear_field


@pytest.fixture(scope="module")
def field() -> SmearField:
    return smear_field()


def test_equal_arguments_give_equal_pixels(field):
    """Screenshots and tests may rely on every pixel; another seed is another field."""
    again, other = smear_field(), smear_field(seed=1)
    np.testing.assert_array_equal(again.image, field.image)
    np.testing.assert_array_equal(again.boxes, field.boxes)
    np.testing.assert_array_equal(again.types, field.types)
    assert (other.labels != field.labels).any()


def test_the_truth_is_true(field):
    """Boxes are those of the touching cells, types those of the cells within them."""
    assert field.image.shape == (600, 800, 3)
    assert field.image.dtype == np.uint8
    assert len(field.boxes) == len(field.types) == len(field.n_cells) == 32
    joined, count = ndimage.label(field.labels > 0, structure=np.ones((3, 3)))
    assert count == 32
    for (row0, col0, row1, col1), n_cells in zip(field.boxes, field.n_cells, strict=True):
        inside = np.unique(joined[row0:row1, col0:col1])
        region = inside[inside > 0]
        rows, cols = np.nonzero(np.isin(joined, region))
        assert (rows.min(), cols.min(), rows.max() + 1, cols.max() + 1) == (row0, col0, row1, col1)
        cells = np.unique(field.labels[row0:row1, col0:col1])
        assert np.count_nonzero(cells) == n_cells
    assert (field.types.sum(axis=1) <= field.n_cells).all()
    assert field.types.any(axis=0).all(), "every type stands somewhere"
    assert (field.types.sum(axis=1) > 1).any(), "some regions hold several"
    assert 0 < field.abnormal.sum() < 32


def test_cells_are_darker_than_the_glass(field):
    """What is segmented stands out, so that a mask painted by hand can be checked against it."""
    green = field.image[..., 1].astype(float)
    assert green[field.labels > 0].mean() < green[field.labels == 0].mean() - 40


def test_too_many_are_refused():
    """A field that cannot hold its regions says so and does not loop for ever."""
    with pytest.raises(ValueError, match="do not fit"):
        smear_field(shape=(160, 160), n_regions=20)


def test_the_sample_makes_layers(field):
    """Napari shows the image; masks and true types are there, hidden."""
    (image, image_facts, _), (labels, label_facts, _), (shapes, shape_facts, kind) = (
        contributions.smear_field_layers()
    )
    assert ImageLayer(image, **image_facts).rgb
    assert not Labels(labels, **label_facts).visible
    assert kind == "shapes"
    layer = Shapes(shapes, **shape_facts)
    assert len(layer.data) == 32
    assert not layer.visible
    said = layer.features["types"][0].split("+")
    assert said == [name for name, there in zip(RBC_TYPES, field.types[0], strict=True) if there]
    row0, col0, row1, col1 = field.boxes[0]
    np.testing.assert_array_equal(
        [layer.data[0].min(axis=0), layer.data[0].max(axis=0)],
        [(row0 - 0.5, col0 - 0.5), (row1 - 0.5, col1 - 0.5)],
    )
