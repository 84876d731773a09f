"""Random views keep what must be kept: geometry, black borders, masks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from napari_cellpath.core.requests import MemoryImage
from napari_cellpath.core.vocabulary import Border
from napari_cellpath.slides.windows import cut
from napari_cellpath.systems.deeppap.predict import window_tensor
from napari_cellpath.systems.deeppap.presets import WINDOW as PREDICTED_WINDOW
from napari_cellpath.systems.deeppap.presets import ViewSpec
from napari_cellpath.systems.deeppap.views import views
from training.augment import (
    cut_window,
    jitter_stain,
    mean_of_seven,
    random_crops,
    random_views,
    sample_patches,
    vary_parts,
)
from training.deeppap_recipe import Augmentation, Borders

RNG = np.random.default_rng(5)
IMAGE = RNG.integers(1, 255, (90, 110, 3), dtype=np.uint8)
CALM = {"max_shift": 0.0, "scale": 0.0, "stain": 0.0, "colour": 0.0, "hue": 0.0,
        "blur": 0.0}  # fmt: skip


def one(border: str, angles: int = 1, **changes: object) -> torch.Tensor:
    borders = {"zero": 0.0, "reflect": 0.0, "background": 0.0, border: 1.0}
    settings = Augmentation.model_validate(
        {**CALM, "angles": angles, "borders": borders, **changes}
    )
    window = cut_window(IMAGE, (40, 60), mask=np.full((90, 110), 2, dtype=np.uint8))
    return random_views(
        torch.from_numpy(window.pixels)[None],
        torch.from_numpy(window.background)[None],
        settings,
        torch.Generator().manual_seed(0),
    )[0]


def predicted(border: Border) -> torch.Tensor:
    half = PREDICTED_WINDOW // 2
    source = cut(MemoryImage(IMAGE), 40 - half, 60 - half, 2 * half, 2 * half)
    return views(window_tensor(source, 40, 60, half, border), [ViewSpec(0.0)])[0]


def test_calm_view_is_the_predicted_view() -> None:
    """Without any change, training sees what prediction sees with a black border."""
    torch.testing.assert_close(one("zero")[:3], predicted(Border.ZERO), atol=0.01, rtol=0)


def test_reflected_view_is_the_predicted_view() -> None:
    """A mirrored border is the same in training and prediction."""
    torch.testing.assert_close(one("reflect")[:3], predicted(Border.REFLECT), atol=0.01, rtol=0)


@pytest.mark.parametrize("angle", [0.0, 36.0, 90.0, 216.0])
def test_rotation_is_the_systems_own(angle: float) -> None:
    """A window turned in training is turned as the system turns it."""
    window = torch.from_numpy(cut_window(IMAGE, (45, 55), 212).pixels[:3]).float()
    mine = sample_patches(window[None], torch.tensor([angle]), torch.zeros(1, 2), torch.ones(1))[0]
    theirs = views(window, [ViewSpec(angle)])[0]
    whole = torch.nn.functional.interpolate(mine[None], 256, mode="bilinear")[0]
    torch.testing.assert_close(whole, theirs, atol=0.05, rtol=0)


def test_black_border_stays_black_under_stain_jitter() -> None:
    """However the stain varies, what lies outside the image is exactly black."""
    calm = one("zero")
    outside = (calm[:3] == 0).all(dim=0)
    assert outside.any()
    wild = one("zero", stain=0.5, colour=0.5, hue=0.2)
    assert (wild[:3, outside] == 0).all()
    assert not torch.equal(wild[:3], calm[:3])


def test_background_border_has_one_colour() -> None:
    """A background border is the image's own bright colour, evenly."""
    outside = (one("zero")[:3] == 0).all(dim=0)
    inner = torch.nn.functional.max_pool2d(-outside[None].float(), 9, 1, 4)[0] == -1
    colours = one("background")[:3, inner]
    assert inner.any()
    assert float(colours.std(dim=1).max()) < 1e-3
    assert float(colours.mean()) > float(IMAGE.mean())


def test_masks_move_with_the_image() -> None:
    """A mask that covers the image covers exactly what is not border."""
    view = one("zero", angles=7)
    covered = view[3] > 0.99
    assert torch.equal(view[3] > 0, (view[:3] > 0).any(dim=0))
    assert 0.3 < float(covered.float().mean()) < 1.0


def test_no_stain_change_is_no_change() -> None:
    """At strength nought colours are left as they are."""
    rgb = torch.rand(2, 3, 8, 8) * 255
    settings = Augmentation.model_validate(CALM)
    kept = jitter_stain(rgb.clone(), settings, torch.Generator(), 2)
    torch.testing.assert_close(kept, rgb)


def test_stain_change_stays_in_range_and_is_seeded() -> None:
    """Jittered colours stay within 0..255 and a seed gives them again."""
    rgb = torch.rand(4, 3, 8, 8) * 255
    settings = Augmentation(stain=1.0, colour=1.0, hue=0.5)
    first = jitter_stain(rgb.clone(), settings, torch.Generator().manual_seed(3), 4)
    again = jitter_stain(rgb.clone(), settings, torch.Generator().manual_seed(3), 4)
    assert torch.equal(first, again)
    assert float(first.min()) >= 0
    assert float(first.max()) <= 255
    assert not torch.equal(first, rgb)


def test_crops_are_pieces_of_the_view() -> None:
    """A random crop is a 227 x 227 piece of its view, mirrored or not."""
    view = torch.arange(256 * 256, dtype=torch.float32).view(1, 1, 256, 256).expand(6, 3, -1, -1)
    crops = random_crops(view, torch.Generator().manual_seed(0))
    assert crops.shape == (6, 3, 227, 227)
    steps = {float(c[0, 0, 1] - c[0, 0, 0]) for c in crops}
    assert steps == {1.0, -1.0}
    middle = random_crops(view, torch.Generator(), at_random=False)
    assert float(middle[0, 0, 0, 0]) == 14 * 256 + 14


def test_window_at_a_corner_is_reflected() -> None:
    """At the image's corner three quarters of the window are marked as outside."""
    window = cut_window(IMAGE, (0, 0), 64)
    assert (window.pixels[3] > 0).mean() == 0.25
    np.testing.assert_array_equal(window.pixels[:3, 32, 31], IMAGE[0, 1])
    np.testing.assert_array_equal(window.pixels[:3, 32, 32], IMAGE[0, 0])


def test_border_shares() -> None:
    """Shares come in the order the augmentation draws them."""
    assert Borders(zero=0.5, reflect=0.3, background=0.2).shares() == (0.5, 0.3, 0.2)


def test_parts_vary_apart_and_black_stays_black() -> None:
    """Nucleus, cytoplasm and surroundings change by factors of their own; shapes stay."""
    rgb = torch.full((8, 3, 96, 96), 128.0)
    rgb[..., :10, :] = 0.0
    parts = torch.zeros(8, 2, 96, 96)
    parts[:, 1, 20:76, 20:76] = 1.0
    parts[:, 0, 36:60, 36:60] = 1.0
    seen = vary_parts(rgb, parts, 0.4, torch.Generator().manual_seed(0))
    assert (seen[..., :10, :] == 0).all()
    places = seen[:, 0, [48, 27, 14], [48, 27, 5]]  # nucleus, cytoplasm, outside
    density = -(places / 255.0).log() / -torch.tensor(128.0 / 255.0).log()
    assert (density > 0.66).all()
    assert (density < 1.5).all()
    assert (density.std(dim=1) > 0.02).all(), "not one factor for all three"
    again = vary_parts(rgb, parts, 0.4, torch.Generator().manual_seed(0))
    assert torch.equal(seen, again)
    steps = seen[:, 0, 10:, 48].diff(dim=1).abs().amax()
    assert steps < 20, "no hard edge is drawn"


def test_mean_of_seven_is_that_of_the_library() -> None:
    """Shifted adds give what average pooling gives, of maps that are not square too."""
    maps = torch.rand(2, 3, 20, 31, generator=torch.Generator().manual_seed(0))
    wanted = F.avg_pool2d(F.pad(maps, (3, 3, 3, 3), mode="replicate"), 7, 1)
    assert torch.allclose(mean_of_seven(maps), wanted, atol=1e-6)
