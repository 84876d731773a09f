"""The generated field of stained tissue."""

import numpy as np
import pytest
from scipy import ndimage

from napari_cellpath.samples import TissueField, contributions, tissue_field
from napari_cellpath.slides.slide import open_slide


@pytest.fixture(scope="module")
def field() -> TissueField:
    return tissue_field(shape=(600, 700), n_benign=6, n_malignant=3, glass=40)


def test_equal_arguments_give_equal_pixels(field):
    """Screenshots and tests may rely on every pixel; another seed is another field."""
    again = tissue_field(shape=(600, 700), n_benign=6, n_malignant=3, glass=40)
    np.testing.assert_array_equal(again.image, field.image)
    np.testing.assert_array_equal(again.labels, field.labels)
    other = tissue_field(seed=1, shape=(600, 700), n_benign=6, n_malignant=3)
    assert (other.labels != field.labels).any()


def test_the_truth_is_true(field):
    """As many glands of each class as were asked for, in one piece each, none of them on glass."""
    assert field.image.dtype == field.labels.dtype == np.uint8
    assert [ndimage.label(field.labels == kind)[1] for kind in (1, 2)] == [6, 3]
    glass = field.image.min(axis=2) > 225
    assert glass[:20].mean() > 0.99
    assert not field.labels[:20].any()


def test_the_classes_look_like_themselves(field):
    """Malignant glands hold more of the nuclear dye than benign ones, those more than stroma."""
    blue = 255 - field.image[..., 0].astype(float)  # haematoxylin takes the red away
    tissue = field.image.min(axis=2) < 215
    density = [blue[(field.labels == kind) & tissue].mean() for kind in (0, 1, 2)]
    assert density[0] < density[1] < density[2]


def test_a_pyramid_and_its_mirror_images(field, tmp_path):
    """Levels halve, the pixel size is stated, and a larger field is made of this one."""
    large = field.repeated(2)
    assert large.image.shape == (1200, 1400, 3)
    np.testing.assert_array_equal(large.image[:600, :700], field.image)
    np.testing.assert_array_equal(large.labels[600:, 700:], field.labels[::-1, ::-1])
    with open_slide(large.save(tmp_path / "t.ome.tif", levels=3)) as slide:
        assert [level.shape for level in slide.levels] == [(1200, 1400), (600, 700), (300, 350)]
        assert slide.mpp == field.mpp
        np.testing.assert_array_equal(slide.read_region(0, 0, 600, 700), field.image)
        half = field.image.reshape(300, 2, 350, 2, 3).mean(axis=(1, 3))
        assert np.abs(slide.read_region(0, 0, 300, 350, 1) - half).max() <= 0.5


def test_what_does_not_fit_is_refused():
    """A field too small, or too full."""
    with pytest.raises(ValueError, match="256 x 256"):
        tissue_field(shape=(300, 300), glass=30)
    with pytest.raises(ValueError, match="do not fit"):
        tissue_field(shape=(260, 260), n_benign=40)


def test_as_a_sample_of_napari():
    """Image and hidden truth, with the pixel size."""
    (image, about, kind), (labels, _, _) = contributions.tissue_field_layers()
    assert kind == "image"
    assert about["scale"] == (0.62, 0.62)
    assert image.shape[:2] == labels.shape
