"""Any pixels to 8-bit RGB, nothing clipped in silence."""

from __future__ import annotations

import dask.array as da
import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_cellpath.core.errors import UnreadableImageError
from napari_cellpath.slides.convert import dtype_range, range_note, to_rgb8, value_range_of

GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)


def test_eight_bit_pixels_are_never_changed() -> None:
    """Grey is repeated, alpha dropped, RGB kept, whatever the memory order."""
    rgb = np.dstack([GREY, GREY[::-1], GREY.T])
    np.testing.assert_array_equal(to_rgb8(rgb), rgb)
    np.testing.assert_array_equal(to_rgb8(rgb[::-1, ::2]), rgb[::-1, ::2])
    np.testing.assert_array_equal(to_rgb8(np.dstack([rgb, GREY])), rgb)
    np.testing.assert_array_equal(to_rgb8(GREY), np.dstack([GREY] * 3))
    np.testing.assert_array_equal(to_rgb8(GREY[..., None]), np.dstack([GREY] * 3))
    assert to_rgb8(GREY).flags.c_contiguous


@given(hnp.arrays(np.uint16, (3, 4)))
def test_inferred_depth_holds_every_value_and_keeps_order(pixels: np.ndarray) -> None:
    """The smallest usual depth that holds the maximum; the mapping is linear and monotone."""
    lowest, highest = value_range_of(pixels)
    assert lowest == 0
    assert highest in (255, 1023, 4095, 16383, 65535)
    assert pixels.max() <= highest
    assert highest == 255 or pixels.max() > highest / 4.1
    np.testing.assert_array_equal(
        to_rgb8(pixels)[..., 0], np.rint(pixels * (255 / highest)).astype(np.uint8)
    )


@given(hnp.arrays(np.uint8, (3, 4)), st.sampled_from([np.uint16, np.int32, np.int64, np.uint32]))
def test_eight_bit_values_in_wider_types_come_back_exactly(pixels: np.ndarray, kind: type) -> None:
    """An 8-bit image that some program widened scores like the original."""
    np.testing.assert_array_equal(to_rgb8(pixels.astype(kind))[..., 0], pixels)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_floats_of_eight_bit_images_come_back_exactly(kind: type) -> None:
    """Skimage's 0..1 images are 8-bit images divided by 255."""
    np.testing.assert_array_equal(to_rgb8((GREY / 255).astype(kind))[..., 0], GREY)


def test_bool_is_black_and_white() -> None:
    """Masks shown as images have contrast."""
    assert to_rgb8(np.array([[True, False]]))[0, :, 1].tolist() == [255, 0]


def test_a_given_range_is_the_caller_s_contrast() -> None:
    """Linear between the ends, saturated beyond; refused where that was asked for."""
    pixels = np.array([[-1.0, 0.0, 5.0, 10.0, 99.0]])
    assert to_rgb8(pixels, (0, 10))[0, :, 0].tolist() == [0, 0, 128, 255, 255]
    assert to_rgb8(pixels.astype(np.int16), (0, 10))[0, :, 0].tolist() == [0, 0, 128, 255, 255]
    with pytest.raises(UnreadableImageError, match=r"from -1 to 99, outside 0\.\.10"):
        to_rgb8(pixels, (0, 10), refuse_outside=True)
    assert to_rgb8(np.array([[0, 100, 200]], np.uint8), (100, 200))[0, :, 0].tolist() == [0, 0, 255]


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((4, 4, 2)), "2 channels"),
        (np.zeros((4, 4, 5)), "5 channels"),
        (np.zeros((2, 4, 4, 3)), "4 dimensions"),
        (np.zeros(4), "1 dimensions"),
        (np.array([[np.nan]]), "not finite"),
        (np.array([[np.inf]]), "not finite"),
        (np.array([[1.01]]), "give the value range"),
        (np.array([[-0.01]]), "give the value range"),
        (np.array([[-1]]), "negative"),
        (np.array([[65536]]), "more than 16 bits"),
        (np.array([["x"]]), "no pixels"),
        (np.array([[1j]]), "no pixels"),
    ],
)
def test_what_has_no_meaning_is_refused(pixels: np.ndarray, message: str) -> None:
    """Channels, dimensions, values and types that only a guess could map."""
    with pytest.raises(UnreadableImageError, match=message):
        to_rgb8(pixels)


def test_nan_is_refused_with_a_given_range_too() -> None:
    """A range does not make NaN a brightness."""
    with pytest.raises(UnreadableImageError, match="not finite"):
        to_rgb8(np.array([[np.nan]]), (0, 1))
    with pytest.raises(UnreadableImageError, match="range 3"):
        to_rgb8(GREY, (3, 3))


def test_ranges_of_lazy_arrays_are_those_of_the_whole_image() -> None:
    """Dask and zarr arrays are read in bands; alpha does not count."""
    pixels = np.zeros((500, 60), np.uint16)
    pixels[499, 59] = 1500
    assert value_range_of(da.from_array(pixels, chunks=(100, 60))) == (0, 4095)
    stored = zarr.create_array({}, shape=pixels.shape, chunks=(64, 60), dtype="uint16")
    stored[:] = pixels
    assert value_range_of(stored) == (0, 4095)
    rgba = np.full((9, 9, 4), 900, np.uint16)
    rgba[..., 3] = 65535
    assert value_range_of(rgba) == (0, 1023)


def test_ranges_of_types_and_their_notes() -> None:
    """What a window is mapped by when nobody looked at the whole image; 8 bits need no note."""
    assert dtype_range(np.uint16) == (0, 65535)
    assert dtype_range(np.float32) == (0, 1)
    with pytest.raises(UnreadableImageError, match="give the value range"):
        dtype_range(np.int64)
    assert range_note(np.uint8, (0, 255)) is None
    assert range_note(np.uint16, (0, 1023)) == (
        "16-bit values read as 10-bit (0..1023) and mapped to 0..255."
    )
