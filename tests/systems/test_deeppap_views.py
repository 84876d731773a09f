"""papers.md 1.12, facts 3, 4, 7 and 8: rotations, shifts and crops."""

import numpy as np
import pytest
import torch
from torchvision.transforms import TenCrop

from napari_cellpath.core.geometry import edge_of_point
from napari_cellpath.core.requests import PixelWindow
from napari_cellpath.core.seeds import generator_for
from napari_cellpath.core.vocabulary import Border, Preset
from napari_cellpath.systems.deeppap import views as v
from napari_cellpath.systems.deeppap.predict import fill_border, window_tensor
from napari_cellpath.systems.deeppap.presets import (
    WINDOW,
    ViewSpec,
    mean_is_certain,
    product_views,
    view_batches,
)

HALF = WINDOW // 2


def window_of(image, row, col, border=Border.ZERO):
    """The window of a (H, W, 3) uint8 image in float64."""
    source = PixelWindow(image, 0, 0, image.shape[:2])
    return window_tensor(source, row, col, HALF, border).double()


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (300, 320, 3), dtype=np.uint8)


@pytest.mark.parametrize(("rotations", "shifts", "n"), [(10, 10, 100), (20, 14, 280)])
def test_number_of_views(rotations, shifts, n):
    """Fact 3: 10 x 10 = 100 and 20 x 14 = 280 views a cell."""
    specs = product_views(np.random.default_rng(0), rotations, shifts)
    assert len(specs) == n
    assert len({s.angle for s in specs}) == rotations
    assert all(max(map(abs, s.shift)) <= 10 for s in specs)


@pytest.mark.parametrize(
    ("preset", "n"), [("fast", 1), ("balanced", 10), ("paper", 100), ("adaptive", 100)]
)
def test_presets_hold_their_views(preset, n):
    """`fast` 1, `balanced` 10 unshifted rotations, `paper` the product set, `adaptive` the same."""
    batches = view_batches(Preset(preset), generator_for(0, 5, 7))
    specs = [s for batch in batches for s in batch]
    assert len(specs) == n
    if n == 100:
        assert set(specs) == set(product_views(generator_for(0, 5, 7)))
        for start in range(0, 100, 10):  # each ten consecutive: every rotation once
            assert len({s.angle for s in specs[start : start + 10]}) == 10
    else:
        assert all(s.shift == (0, 0) for s in specs)


def test_paper_makes_a_thousand_inputs(image):
    """Fact 3: the ten crops of 100 views are (1000, 3, 227, 227)."""
    specs = product_views(np.random.default_rng(0))
    crops = v.ten_crops(v.views(window_of(image, 150, 150).float(), specs))
    assert crops.shape == (1000, 3, 227, 227)


def test_ten_crops_are_krizhevskys():
    """Fact 4: the known offsets, and crops 6-10 are the mirrors of 1-5 as a set."""
    ramp = torch.arange(256 * 256, dtype=torch.float32).view(1, 1, 256, 256).expand(1, 3, -1, -1)
    crops = v.ten_crops(ramp)
    starts = {divmod(int(c[0, 0, 0]), 256) for c in crops[:5]}
    assert starts == {(0, 0), (0, 29), (29, 0), (29, 29), (14, 14)}
    plain = sorted(c.flip(-1).numpy().tobytes() for c in crops[:5])
    corner_mirrors = [c for i, c in enumerate(crops[5:]) if i < 4]
    assert sorted(c.numpy().tobytes() for c in corner_mirrors) == sorted(
        c.flip(-1).numpy().tobytes() for c in crops[:4]
    )
    assert len(plain) == 5


def test_ten_crops_equal_torchvisions():
    """Fact 4: the same ten crops, in the order of ``torchvision.transforms.TenCrop``."""
    picture = torch.rand(2, 3, 256, 256)
    expected = torch.stack(TenCrop(227)(picture), dim=1).flatten(0, 1)
    assert torch.equal(v.ten_crops(picture), expected)


def test_unturned_unshifted_view_is_the_plain_crop(image):
    """Fact 7: angle 0 and no shift is bit for bit "crop, then resize"."""
    got = v.views(window_of(image, 150, 160).float(), [ViewSpec(0.0)])
    crop = torch.from_numpy(image[150 - 64 : 150 + 64, 160 - 64 : 160 + 64].copy())
    plain = crop.permute(2, 0, 1)[None].float()
    expected = torch.nn.functional.interpolate(
        plain, size=(256, 256), mode="bilinear", align_corners=False
    )
    assert torch.equal(got, expected)


@pytest.mark.parametrize(
    ("quarter_turns", "n_rotations", "steps"), [(2, 10, 5), (2, 20, 10), (1, 20, 5), (3, 20, 15)]
)
def test_turning_the_image_permutes_the_views(image, quarter_turns, n_rotations, steps):
    """Fact 7: right-angle turns of the image only shift the index of the rotation (5e-14)."""
    row, col = 140, 171
    turned = np.ascontiguousarray(np.rot90(image, quarter_turns))
    h, w = image.shape[:2]
    centre = {1: (w - col, row), 2: (h - row, w - col), 3: (col, h - row)}[quarter_turns]
    specs = product_views(np.random.default_rng(3), n_rotations, 3)
    a = v.views(window_of(image, row, col), specs).view(n_rotations, 3, 3, 256, 256)
    b = v.views(window_of(turned, *centre), specs).view(n_rotations, 3, 3, 256, 256)
    assert (b - a.roll(-steps, dims=0)).abs().max() < 1e-10


def test_oblique_turn_is_a_turn_about_the_edge_point():
    """A bright block on one side of the centre arrives on the other after half a turn's steps."""
    window = torch.zeros(3, WINDOW, WINDOW, dtype=torch.float64)
    window[:, HALF - 2 : HALF + 2, HALF + 20 : HALF + 24] = 1.0
    patch = v.warp(window, torch.tensor([90.0]), torch.tensor([[0, 0]]))[0]
    exact = v.rotate_patch(window, 90.0, (0, 0))
    assert (patch - exact).abs().max() < 1e-9
    rows = torch.nonzero(exact[0])[:, 0]
    assert rows.max() < 64  # counter-clockwise on screen: from the right to the top


def test_every_sample_lies_in_the_window():
    """The window is large enough: an all-ones window stays ones in the farthest views."""
    window = torch.ones(3, WINDOW, WINDOW, dtype=torch.float64)
    shifts = [(10, 10), (-10, 10), (10, -10), (-10, -10)]
    specs = [ViewSpec(a, s) for a in np.arange(0.0, 360.0, 5.0) for s in shifts]
    assert (v.patches(window, specs) - 1).abs().max() < 1e-9


def test_a_constant_image_has_equal_views():
    """Fact 8: nothing but the value itself in any view."""
    image = np.full((300, 300, 3), 77, np.uint8)
    out = v.views(window_of(image, 150, 150), product_views(np.random.default_rng(0)))
    assert (out - 77).abs().max() < 1e-9


def test_a_corner_centre_is_three_quarters_zero(image):
    """Fact 8: centred on (0, 0), exactly 3/4 of the plain 128 patch is padding."""
    patch = v.patches(window_of(np.maximum(image, 1), 0, 0), [ViewSpec(0.0)])[0]
    assert (patch == 0).double().mean() == 0.75


@pytest.mark.parametrize("border", [Border.REFLECT, Border.BACKGROUND])
def test_other_borders_fill_what_lies_outside(image, border):
    """No zero is left where the patch leaves the image, and the inside is untouched."""
    image = np.maximum(image, 1)
    window = window_of(image, 3, 5, border)
    assert (window > 0).all()
    inside = window[:, HALF - 3 :, HALF - 5 :].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(inside, image[: inside.shape[0], : inside.shape[1]])


def test_background_is_the_glass_not_the_cell():
    """The background fill is the bright colour even when the cell covers half of the window."""
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4, :] = (230, 228, 240)
    pixels[:4, :2] = (60, 20, 90)
    filled = fill_border(pixels, 0, 0, (4, 8), Border.BACKGROUND)
    assert (filled[4:] == (230, 228, 240)).all()


def test_edge_of_point_rounds_ties_down():
    """A napari point between two edges takes the upper-left one, never the even one."""
    assert edge_of_point(3.0, 4.0) == (3, 4)
    assert edge_of_point(3.2, 2.8) == (4, 3)
    assert edge_of_point(-0.5, 0.0) == (0, 0)


def test_certainty_needs_views_and_a_clear_margin():
    """The stop rule: never below five views, stops when far, goes on when near or scattered."""
    assert not mean_is_certain(np.full(4, 0.4), 100)
    assert mean_is_certain(np.full(5, 0.4), 100)
    assert not mean_is_certain(np.full(5, 0.01), 100)
    assert not mean_is_certain(np.array([0.5, -0.3, 0.4, -0.2, 0.1]), 100)
    assert mean_is_certain(np.linspace(-0.3, 0.31, 100), 100)  # all views seen: nothing is open
