"""Blank, crowded, and unlike the training data: flags that come with a score or instead of it."""

import numpy as np
import pytest
from scipy import ndimage

from napari_cellpath.backend.inline import InlineBackend
from napari_cellpath.core.requests import MemoryImage, Nucleus, NucleusRequest, OcclusionRequest
from napari_cellpath.core.vocabulary import Preset
from napari_cellpath.systems.deeppap.quality import (
    COLOURS,
    domain_of,
    is_blank,
    is_crowded,
    measure,
    nucleus_diameter,
    out_of_domain,
    without_frame,
)
from tests.support.models import write_random_model
from tests.systems.test_deeppap_find import discs

MPP = 0.2
CENTRE = (63.5, 63.5)


def cell(rng, radius=22.0, others=()):
    """A stained cell of 128 px: cytoplasm, a nucleus in the middle, neighbours."""
    rows, cols = np.mgrid[:128, :128] - 63.5
    image = np.full((128, 128, 3), (225, 215, 225), float)
    image[np.hypot(rows, cols) < 55] = (170 + rng.normal(0, 8), 160, 200 + rng.normal(0, 5))
    for row, col, r in ((0, 0, radius), *others):
        image[np.hypot(rows - row, cols - col) < r] = (90 + rng.normal(0, 8), 60, 130)
    image = ndimage.gaussian_filter(image, (1, 1, 0)) + rng.normal(0, 1.5, image.shape)
    return image.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def domain():
    rng = np.random.default_rng(0)
    cells = [cell(rng, rng.uniform(14, 30)) for _ in range(80)]
    return domain_of([measure(c, CENTRE, MPP) for c in cells])


def flags(patch, domain):
    return out_of_domain(measure(patch, CENTRE, MPP), domain)


def test_cells_of_the_same_kind_are_in_the_domain(domain):
    """Of 60 new cells drawn alike, at most three are flagged."""
    rng = np.random.default_rng(9)
    flagged = sum(bool(flags(cell(rng, rng.uniform(15, 29)), domain)) for _ in range(60))
    assert flagged <= 3


def test_grey_inverted_and_other_stains_are_flagged(domain):
    """A grey picture, a negative, and a green nucleus do not look like the training data."""
    patch = cell(np.random.default_rng(1))
    grey = np.repeat(patch.mean(axis=2, keepdims=True), 3, axis=2).astype(np.uint8)
    for other in (grey, 255 - patch, patch[..., [1, 0, 2]]):
        assert "unusual-stain" in flags(other, domain)


def test_blur_noise_and_size_are_flagged_each_by_name(domain):
    """Each gets its own word, so the user knows what to mend."""
    rng = np.random.default_rng(2)
    patch = cell(rng)
    blurred = ndimage.gaussian_filter(patch, (4, 4, 0))
    noisy = (patch + rng.normal(0, 25, patch.shape)).clip(0, 255).astype(np.uint8)
    assert "out-of-focus" in flags(blurred, domain)
    assert "noisy" in flags(noisy, domain)
    assert "unusual-nucleus-size" in flags(cell(rng, radius=6), domain)


def test_a_black_frame_is_no_stain(domain):
    """A cell cut out and laid on black is judged by its own pixels, wherever the frame is."""
    patch = cell(np.random.default_rng(11))
    framed = np.zeros((128, 128, 3), np.uint8)
    framed[:100, 20:] = patch[:100, 20:]
    assert flags(framed, domain) == ()
    part, centre = without_frame(framed, CENTRE)
    assert part.shape == (100, 108, 3)
    assert centre == (63.5, 43.5)
    assert without_frame(np.zeros((9, 9, 3), np.uint8), (4.0, 4.0))[1] == (4.0, 4.0)


def test_without_a_domain_nothing_is_flagged():
    """Models made before this, or by others, carry none."""
    assert flags(cell(np.random.default_rng(3)), {}) == ()


def test_few_training_cells_give_ranges_but_no_covariance():
    """A covariance of fewer cells than it has numbers would flag everything."""
    rng = np.random.default_rng(4)
    few = domain_of([measure(cell(rng), CENTRE, MPP) for _ in range(len(COLOURS))])
    assert "colours" not in few
    assert "detail" in few["ranges"]


@pytest.mark.parametrize("radius", [12, 20, 30])
def test_diameter_of_a_disc(radius):
    """Measured within 10 %, also with the click 5 px beside the middle."""
    density = np.full((128, 128), 0.2, np.float32)
    rows, cols = np.mgrid[:128, :128] - 63.5
    density[np.hypot(rows, cols) < radius] = 1.2
    for centre in (CENTRE, (66.0, 59.0)):
        assert nucleus_diameter(density, centre, MPP) == pytest.approx(2 * radius * MPP, rel=0.1)


def test_diameter_of_nothing_is_unknown():
    """A flat patch, and an object that leaves the patch, have no diameter."""
    assert np.isnan(nucleus_diameter(np.full((128, 128), 0.3, np.float32), CENTRE, MPP))
    cut = np.full((128, 128), 0.2, np.float32)
    cut[40:90, 40:] = 1.0
    assert np.isnan(nucleus_diameter(cut, CENTRE, MPP))


def test_a_near_neighbour_crowds_and_a_far_one_does_not():
    """Nine micrometres away it reaches into the patch's middle; alone there is none."""
    rng = np.random.default_rng(5)
    assert not is_crowded(cell(rng, 14), CENTRE, MPP)
    assert is_crowded(cell(rng, 14, [(0, 42, 14)]), CENTRE, MPP)


def test_blank_is_blank():
    """Uniform and faintly noisy patches, and none at all."""
    assert is_blank(np.full((128, 128, 3), 230, np.uint8))
    assert is_blank(np.zeros((0, 5, 3), np.uint8))
    assert not is_blank(cell(np.random.default_rng(6)))


@pytest.fixture(scope="module")
def image():
    """Three nuclei: alone, and two beside each other."""
    return discs((400, 600), [(200, 150), (200, 400), (200, 450)], radius=18)


@pytest.mark.parametrize("preset", [Preset.FAST, Preset.BALANCED, Preset.ADAPTIVE])
@pytest.mark.parametrize("first", [True, False])
def test_flags_come_with_the_final_call_whatever_the_preset(
    tmp_path_factory, image, domain, preset, first
):
    """Crowded and unusual cells say so, in a field and clicked alone; each flag once."""
    folder = write_random_model(
        tmp_path_factory.mktemp("models") / "m", input={"domain": domain}, mpp=MPP
    )
    backend = InlineBackend("cpu", "fp32")
    nuclei = (Nucleus(200, 150, "alone"), Nucleus(200, 400, "pair"))
    for chosen in (nuclei, nuclei[:1], nuclei[1:]):
        request = NucleusRequest(
            MemoryImage(image, mpp=MPP), chosen, str(folder), preset=preset, first_estimate=first,
            threshold=0.5,
        )  # fmt: skip
        for call in backend.submit(request).result():
            assert ("crowded" in call.flags) == (call.uid == "pair")
            assert "unusual-stain" in call.flags
            assert len(call.flags) == len(set(call.flags))


def test_occlusion_map_adds_up(tmp_path, image):
    """The map covers the patch, changes where something is, and is the same every time."""
    folder = write_random_model(tmp_path / "m", mpp=MPP)
    backend = InlineBackend("cpu", "fp32")
    request = OcclusionRequest(MemoryImage(image, mpp=MPP), Nucleus(200, 150), str(folder))
    found = backend.submit(request).result()[-1]
    assert found.drop.shape == (128, 128)
    assert np.isfinite(found.drop).all()
    assert 0.0 <= found.score <= 1.0
    assert found.pixel == 1.0
    assert (found.row, found.col) == (136.0, 86.0)  # the first of 128 pixels round edge 200, 150
    middle, corner = found.drop[52:76, 52:76], found.drop[:8, :8]
    assert np.abs(middle).max() > np.abs(corner).max()
    assert np.array_equal(backend.submit(request).result()[-1].drop, found.drop)
