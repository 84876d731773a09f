"""From a box to the network's input: whole pixels, mirrors, channel, contrast, size."""

import numpy as np
import pytest
import torch

from napari_cellpath.core.errors import ModelError
from napari_cellpath.core.requests import CellBox
from napari_cellpath.core.vocabulary import Channel, Contrast
from napari_cellpath.systems.hep2.cells import (
    CellInput,
    Frame,
    contrasted,
    crop_of,
    is_blank,
    mirrored,
    needed,
    plane_of,
    prepare,
    square_of,
    whole_of,
)


@pytest.mark.parametrize("level", [0, 1, 128, 255])
def test_a_constant_cell_stays_constant(level):
    """papers.md 4.9, fact 10: 77 x 77 of one grey becomes (1, 60, 60) float32 of that grey."""
    cell = prepare(np.full((77, 77, 3), level, np.uint8))
    assert cell.shape == (1, 60, 60)
    assert cell.dtype == torch.float32
    torch.testing.assert_close(cell, torch.full((1, 60, 60), level / 255), rtol=0, atol=1e-6)


def test_a_square_keeps_whole_pixels_and_the_middle():
    """1.3 times the longer side, the same margin at both ends of it; ties go up and left."""
    assert square_of(CellBox(100, 200, 160, 250)) == Frame(91, 186, 78, 78)
    assert square_of(CellBox(0, 0, 61, 60)) == Frame(-9, -10, 79, 79)
    assert square_of(CellBox(5, 7, 6, 8)) == Frame(5, 7, 1, 1)
    assert square_of(CellBox(0, 0, 10, 10), framing=1.0) == Frame(0, 0, 10, 10)
    assert square_of(CellBox(0, 0, 2, 2), framing=0.5).height >= 1
    assert whole_of(CellBox(3, 4, 10, 20)) == Frame(3, 4, 7, 16)
    for height in range(1, 80):
        box = CellBox(1000, 1000, 1000 + height, 1000 + height)
        frame = square_of(box)
        assert frame.row - 1000 == -(frame.row + frame.height - box.row1)
        assert abs(frame.height - 1.3 * height) <= 1.0


def test_moving_a_box_moves_its_square():
    """The same cell elsewhere is cut the same, on negative coordinates too."""
    at_home = square_of(CellBox(100, 100, 151, 144))
    for down, across in ((1, 0), (-180, 7), (13, -222)):
        moved = square_of(CellBox(100 + down, 100 + across, 151 + down, 144 + across))
        assert moved == (at_home.row + down, at_home.col + across, *at_home[2:])


def test_what_leaves_the_image_is_mirrored():
    """As NumPy's symmetric padding does it, however far out, from a window of the image too."""
    image = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    padded = np.pad(image, ((20, 20), (20, 20), (0, 0)), mode="symmetric")
    for frame in (
        Frame(2, 1, 4, 4),
        Frame(-3, 4, 8, 8),
        Frame(-20, -20, 49, 47),
        Frame(8, 6, 9, 9),
    ):
        expected = padded[frame.row + 20 :, frame.col + 20 :][: frame.height, : frame.width]
        np.testing.assert_array_equal(crop_of(image, frame), expected)
        top, left, bottom, right = needed(frame, (9, 7))
        window = image[top:bottom, left:right]
        np.testing.assert_array_equal(crop_of(window, frame, (9, 7), (top, left)), expected)
    assert mirrored(-2, 5, 1).tolist() == [0] * 5


def test_the_channel_is_the_one_asked_for():
    """Each plane by name; the mean is rounded half up; one plane is itself."""
    rgb = np.array([[[10, 20, 31], [0, 0, 1], [255, 255, 255]]], np.uint8)
    assert plane_of(rgb, Channel.GREEN).tolist() == [[20, 0, 255]]
    assert plane_of(rgb, Channel.RED).tolist() == [[10, 0, 255]]
    assert plane_of(rgb, Channel.BLUE).tolist() == [[31, 1, 255]]
    assert plane_of(rgb, Channel.MEAN).tolist() == [[20, 0, 255]]
    assert plane_of(rgb[..., 0], Channel.BLUE) is not None
    np.testing.assert_array_equal(plane_of(rgb[..., 0], Channel.BLUE), rgb[..., 0])


def test_contrast_is_none_or_the_crops_own_range():
    """The paper divides by a constant; minmax reaches 0 and 1 and survives a constant crop."""
    plane = np.array([[10, 60], [110, 35]], np.uint8)
    np.testing.assert_allclose(contrasted(plane, Contrast.NONE), plane / 255, rtol=1e-6)
    np.testing.assert_allclose(contrasted(plane, Contrast.MINMAX), [[0, 0.5], [1, 0.25]])
    assert not contrasted(np.full((3, 3), 77, np.uint8), Contrast.MINMAX).any()
    doubled = prepare(2 * plane, contrast=Contrast.MINMAX)
    torch.testing.assert_close(doubled, prepare(plane, contrast=Contrast.MINMAX))
    assert is_blank(np.full((4, 4), 3, np.uint8))
    assert not is_blank(plane)


def test_resize_of_the_right_size_changes_nothing_and_shrinking_averages():
    """60 x 60 goes through untouched; a fine checkerboard becomes grey, not stripes."""
    cell = np.random.default_rng(1).integers(0, 256, (60, 60), dtype=np.uint8)
    np.testing.assert_array_equal(prepare(cell)[0].numpy(), cell.astype(np.float32) / 255)
    checks = (np.indices((240, 240)).sum(axis=0) % 2 * 255).astype(np.uint8)
    assert float((prepare(checks) - 0.5).abs().max()) < 0.1


def test_a_model_says_how_it_wants_its_cells():
    """Round trip through model.json; absurd values are named."""
    wanted = CellInput(60, Contrast.MINMAX, 1.25)
    assert CellInput.of(wanted.facts(), "m") == wanted
    assert CellInput.of({}, "m") == CellInput()
    for facts, word in (
        ({"size": 3}, "size 3"),
        ({"framing": "wide"}, "framing of wide"),
        ({"contrast": "clahe"}, "'clahe'"),
    ):
        with pytest.raises(ModelError, match=word):
            CellInput.of(facts, "m")
