"""Boxes of regions: from masks, checked, made square, kept apart."""

import time

import numpy as np
import pytest
import torch
from torchvision.ops import nms

from napari_cellpath.core.errors import ModelError, OutsideImageError
from napari_cellpath.core.requests import CellBox
from napari_cellpath.core.vocabulary import Average, Fit
from napari_cellpath.samples import smear_field
from napari_cellpath.systems.rbc.boxes import (
    RegionInput,
    boxes_of_mask,
    check_box,
    is_stretched,
    is_tiny,
    meets_border,
    overlap,
    square_of,
    suppress,
)
from napari_cellpath.systems.rbc.patches import are_blank, patch_of


def edges(boxes):
    return [(b.row0, b.col0, b.row1, b.col1) for b in boxes]


def test_connectivity():
    """papers.md 2.9, fact 3: a diagonal pair is two components of four neighbours, one of eight."""
    pair = np.kron(np.array([[1, 0], [0, 1]]), np.ones((5, 5), int))  # large enough to be kept
    assert len(boxes_of_mask(pair, connectivity=4)) == 2
    assert edges(boxes_of_mask(pair, connectivity=8)) == [(0, 0, 10, 10)]
    bare = np.array([[1, 0], [0, 1]])
    assert len(boxes_of_mask(bare, 8, min_area=1)) == 1


def test_a_rectangle_gives_its_half_open_box():
    """Fact 4: 3 x 5 white pixels at rows 2-4, columns 10-14: (10, 2, 15, 5) as x0 y0 x1 y1."""
    mask = np.zeros((8, 20), np.uint8)
    mask[2:5, 10:15] = 255
    (box,) = boxes_of_mask(mask, min_area=15)
    assert (box.col0, box.row0, box.col1, box.row1) == (10, 2, 15, 5)
    assert (box.col1 - box.col0) * (box.row1 - box.row0) == mask.astype(bool).sum() == 15


def test_specks_and_lines_are_no_regions():
    """Fewer pixels than the least area, or one pixel wide: left out; one more pixel: kept."""
    mask = np.zeros((40, 60), bool)
    mask[2:6, 2:7] = True  # 20
    mask[20:24, 2:7] = True
    mask[20, 2] = False  # 19
    mask[35, 5:55] = True  # a line of 50
    assert edges(boxes_of_mask(mask)) == [(2, 2, 6, 7)]
    assert boxes_of_mask(np.zeros((5, 5))) == []


def test_touching_cells_are_one_region():
    """Labels of two touching cells are one box: a region is what is connected."""
    labels = np.zeros((30, 40), int)
    labels[5:15, 5:15], labels[5:15, 15:25] = 1, 2
    assert edges(boxes_of_mask(labels)) == [(5, 5, 15, 25)]


@pytest.mark.parametrize(
    ("box", "said"),
    [
        ((5, 5, 5, 9), "no area"),
        ((9, 5, 5, 9), "inverted"),
        ((50, 5, 60, 9), "outside the image of 40 x 60"),
        ((-9, 5, 0, 9), "outside"),
        ((0, 0, 5000, 9), "larger than 4096"),
        ((float("nan"), 0, 5, 9), "not finite"),
        ((0, 0, 5, float("inf")), "not finite"),
    ],
)
def test_a_box_that_is_none_is_refused(box, said):
    """Zero area, inverted, outside, absurd: one sentence that names it."""
    with pytest.raises(OutsideImageError, match=said) as caught:
        check_box(CellBox(*box), (40, 60), "b.csv line 7")
    assert "b.csv line 7" in str(caught.value)


def test_a_box_partly_outside_is_clipped():
    """What lies on the image is looked at; the edge that cuts it is said."""
    box = CellBox(-5, 50, 12, 70)
    check_box(box, (40, 60), "it")
    assert box.on((40, 60)) == CellBox(0, 50, 12, 60, uid=box.uid)
    assert meets_border(box, (40, 60))
    assert meets_border(CellBox(30, 5, 40, 15), (40, 60))
    assert not meets_border(CellBox(1, 1, 39, 59), (40, 60))
    assert not meets_border(CellBox(0, 0, 40, 60), (40, 60)), "an image of one region"
    assert is_tiny((0, 0, 5, 40))
    assert not is_tiny((0, 0, 6, 40))
    assert is_stretched((0, 0, 10, 21))
    assert not is_stretched((0, 0, 10, 20))


def test_stretch_and_letterbox():
    """Stretched, the box fills the square; letterboxed, the rest is its edge's median colour."""
    assert square_of(40, 80, 224, Fit.STRETCH) == (0, 0, 224, 224)
    assert square_of(40, 80, 224, Fit.LETTERBOX) == (56, 0, 112, 224)
    assert square_of(80, 40, 224, Fit.LETTERBOX) == (0, 56, 224, 112)
    assert square_of(1, 500, 224, Fit.LETTERBOX).height == 1
    crop = np.full((20, 40, 3), (200, 190, 180), np.uint8)
    crop[5:15, 10:30] = (90, 60, 100)
    boxed, stretched = (
        patch_of(crop, 64, fit).numpy() * 255 for fit in (Fit.LETTERBOX, Fit.STRETCH)
    )
    np.testing.assert_allclose(boxed[:, :16].reshape(3, -1).T, [(200, 190, 180)] * 1024, atol=1e-3)
    dark = (boxed[0] < 145).sum(), (stretched[0] < 145).sum()
    assert dark == (32 * 16, 32 * 32)


def test_a_patch_is_its_pixels():
    """A box of the patch's size is not resampled."""
    crop = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    patch = patch_of(crop, 64)
    np.testing.assert_array_equal(patch.numpy(), crop.transpose(2, 0, 1) / np.float32(255))


def seen(pixels, patch, fit):
    return not are_blank(patch_of(np.rint(pixels).astype(np.uint8), patch, fit)[None])[0]


@pytest.mark.parametrize("fit", [Fit.STRETCH, Fit.LETTERBOX])
@pytest.mark.parametrize("patch", [224, 64])
def test_nothing_to_be_seen(patch, fit):
    """Glass is blank, with its noise and its lamp; the palest cell on it is not."""
    flat = np.full((40, 50, 3), (150.0, 160.0, 170.0))
    noise = np.random.default_rng(0).normal(0, 3, flat.shape)
    glass = flat + noise + np.linspace(-2, 2, 40)[:, None, None]
    assert not seen(flat, patch, fit)
    assert not seen(glass, patch, fit)
    glass[8:32, 8:32, 1] -= 18
    assert seen(glass, patch, fit)
    field = smear_field()
    assert all(seen(field.image[b[0] : b[2], b[1] : b[3]], patch, fit) for b in field.boxes)


def test_overlap():
    """Fact 6: (0,0,2,2) and (1,0,3,2) share a third; apart nothing; empty boxes nothing."""
    assert overlap((0, 0, 2, 2), (1, 0, 3, 2)) == pytest.approx(1 / 3, abs=1e-15)
    assert overlap((0, 0, 2, 2), (2, 0, 4, 2)) == 0
    assert overlap((1, 1, 1, 1), (1, 1, 1, 1)) == 0
    assert overlap([(0, 0, 2, 2), (0, 0, 4, 4)], (0, 0, 2, 2)).tolist() == [1, 0.25]


def random_boxes(n, side, seed=0):
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, side, (n, 2))
    return np.concatenate([corners, corners + rng.integers(20, 60, (n, 2))], axis=1)


@pytest.mark.parametrize("most", [0.2, 0.5, 0.9])
def test_suppression_is_torchvisions(most):
    """The same boxes stay as by torchvision's own, which the detector would have used."""
    boxes = random_boxes(400, 500)
    scores = np.random.default_rng(1).permutation(400) / 400
    kept = suppress(boxes, scores, most)
    theirs = nms(torch.from_numpy(boxes).double(), torch.from_numpy(scores), most)
    np.testing.assert_array_equal(kept, theirs.numpy())


def test_suppression_does_not_depend_on_the_order():
    """Equal scores too: the upper, then the left box wins, in whatever order they come."""
    boxes = random_boxes(300, 300)
    scores = np.round(np.random.default_rng(1).random(300), 1)
    once = {tuple(b) for b in boxes[suppress(boxes, scores, 0.3)]}
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(300)
        again = boxes[order][suppress(boxes[order], scores[order], 0.3)]
        assert {tuple(b) for b in again} == once


def test_suppression_of_many_and_of_none():
    """10,000 boxes of a large field in a moment; none at all give none."""
    assert suppress(np.zeros((0, 4)), np.zeros(0), 0.5).shape == (0,)
    boxes = random_boxes(10_000, 5000)
    scores = np.random.default_rng(1).random(10_000)
    start = time.process_time()
    kept = suppress(boxes, scores, 0.5)
    assert time.process_time() - start < 1.0
    assert 5000 < len(kept) < 10_000


def test_what_a_model_says_of_its_input():
    """It is read back as written; nonsense is refused with the model's name."""
    wanted = RegionInput(96, Fit.LETTERBOX, 0.3, 2.0, 56, Average.D4)
    assert RegionInput.of(wanted.facts(), "m") == wanted
    assert RegionInput.of({}, "m") == RegionInput()
    for wrong in ({"patch": 8}, {"fit": "model"}, {"score": 1.5}, {"scale": 0}, {"patch": "224"}):
        with pytest.raises(ModelError, match=r"^m: "):
            RegionInput.of(wrong, "m")
