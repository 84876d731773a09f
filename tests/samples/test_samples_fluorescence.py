"""The generated fluorescence field."""

import numpy as np
import pytest
from napari.layers import Image as ImageLayer
from napari.layers import Labels, Points
from scipy import ndimage

from napari_cellpath.core.geometry import centroids
from napari_cellpath.core.vocabulary import PATTERNS
from napari_cellpath.samples import Hep2Field, contributions, hep2_field


@pytest.fixture(scope="module")
def field() -> Hep2Field:
    return hep2_field()


def test_equal_arguments_give_equal_pixels(field):
    """Screenshots and tests may rely on every pixel; another seed is another field."""
    again, other = hep2_field(), hep2_field(seed=1)
    np.testing.assert_array_equal(again.image, field.image)
    np.testing.assert_array_equal(again.labels, field.labels)
    assert again.patterns == field.patterns
    assert (other.labels != field.labels).any()


def test_the_truth_is_true(field):
    """Labels, centres and patterns speak of the same cells, each in one piece inside the image."""
    assert (field.image.dtype, field.labels.dtype) == (np.uint8, np.int32)
    assert field.image.shape == field.labels.shape == (1040, 1388)
    assert len(field.centres) == len(field.patterns) == field.labels.max() == 48
    assert {p: field.patterns.count(p) for p in PATTERNS} == dict.fromkeys(PATTERNS, 8)
    np.testing.assert_array_equal(field.centres, centroids(field.labels))
    for number in range(1, 49):
        assert ndimage.label(field.labels == number)[1] == 1


def test_the_patterns_look_like_themselves(field):
    """Where the light lies: all over, in grains, in blobs, in dots, on the rim, beside."""
    facts = {}
    for number, pattern in enumerate(field.patterns, start=1):
        mask = field.labels == number
        inside = ndimage.distance_transform_edt(mask)
        near = ndimage.binary_dilation(mask, iterations=8) & ~mask
        grey = field.image.astype(float)
        level = grey[mask & (inside > 6)]
        facts.setdefault(pattern, []).append(
            (
                level.std() / level.mean(),
                np.median(level) / grey[mask].max(),
                grey[mask & (inside <= 5)].mean() / level.mean(),
                grey[near].max() / grey[mask].max(),
            )
        )
    spread, filled, rim, beside = (
        {p: np.mean([f[i] for f in facts[p]]) for p in PATTERNS} for i in range(4)
    )
    assert min(spread, key=spread.get) in ("Homogeneous", "NuMem")
    assert max(filled, key=filled.get) == "Homogeneous"
    assert max(rim, key=rim.get) == "NuMem"
    assert max(beside, key=beside.get) == "Golgi"
    for dotted in ("Nucleolar", "Centromere"):
        assert filled[dotted] < 0.5


def test_what_cannot_be_drawn_is_refused():
    """Too many cells, an unknown pattern, too small a field."""
    only = hep2_field(shape=(300, 400), n_cells=3, patterns=["Golgi"])
    assert only.patterns == ("Golgi",) * 3
    with pytest.raises(ValueError, match="do not fit"):
        hep2_field(shape=(200, 200), n_cells=50)
    with pytest.raises(ValueError, match="Stripes"):
        hep2_field(patterns=["Stripes"])
    with pytest.raises(ValueError, match="at least 128"):
        hep2_field(shape=(64, 512))


def test_the_sample_opens_as_layers():
    """Image in micrometres; masks and patterns lie over it, hidden."""
    image, masks, points = contributions.hep2_field_layers()
    layer = ImageLayer(image[0], **image[1])
    labels, truth = Labels(masks[0], **masks[1]), Points(points[0], **points[1])
    np.testing.assert_allclose(layer.extent.world, labels.extent.world)
    assert layer.metadata["napari-cellpath"]["mpp"] == 0.3225
    assert not labels.visible
    assert not truth.visible
    assert set(truth.features["pattern"]) == set(PATTERNS)
