"""Images at a model's scale: which level, which numbers, the same from any window."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_cellpath.core.errors import ScaleError
from napari_cellpath.core.requests import FileImage, MemoryImage
from napari_cellpath.slides.scaled import grid_of, read_grid, source_for, thumbnail_grid
from tests.slides.conftest import picture


def read(image, grid, window):
    return read_grid(source_for(image, grid, window), grid, window)


def whole(image, mpp):
    grid = grid_of(image, mpp)
    return read(image, grid, (0, 0, *grid.shape))


@pytest.mark.parametrize("ratio", [2.0, 1.3, 3.7, 0.6])
def test_resampling_is_pillows_bilinear(ratio):
    """Antialiased by a triangle as wide as the scale, to one grey level."""
    pixels = picture(301, 223)
    image = MemoryImage(pixels, mpp=1.0)
    ours = whole(image, ratio)
    high, wide = ours.shape[:2]
    box = (0, 0, wide * ratio, high * ratio)
    if box[2] > 223 or box[3] > 301:
        padded = np.pad(pixels, ((0, 4), (0, 4), (0, 0)), mode="edge")
        theirs = Image.fromarray(padded).resize((wide, high), Image.Resampling.BILINEAR, box)
    else:
        theirs = Image.fromarray(pixels).resize((wide, high), Image.Resampling.BILINEAR, box)
    inside = (slice(2, -3), slice(2, -3))
    difference = np.abs(ours[inside].astype(int) - np.asarray(theirs)[inside])
    assert difference.max() <= 1


@pytest.mark.parametrize("ratio", [1.0, 1.7, 2.5, 0.7])
def test_a_pixel_is_the_same_in_every_window(ratio):
    """To the bit, whatever region it is read for."""
    image = MemoryImage(picture(200, 260), mpp=1.0)
    all_of_it, grid = whole(image, ratio), grid_of(image, ratio)
    rng = np.random.default_rng(0)
    for _ in range(20):
        top, left = (int(rng.integers(0, n - 1)) for n in grid.shape)
        bottom = int(rng.integers(top + 1, grid.shape[0] + 1))
        right = int(rng.integers(left + 1, grid.shape[1] + 1))
        part = read(image, grid, (top, left, bottom, right))
        assert part.tobytes() == all_of_it[top:bottom, left:right].tobytes()


def test_a_constant_image_stays_constant():
    image = MemoryImage(np.full((77, 91, 3), 93, np.uint8), mpp=1.0)
    for ratio in (0.4, 1.9, 7.3):
        assert (whole(image, ratio) == 93).all()


def pyramid(path):
    pixels = picture(1024, 1280)
    with tifffile.TiffWriter(path) as writer:
        options = {"photometric": "rgb", "tile": (128, 128)}
        writer.write(
            pixels, subifds=2, resolution=(4e4, 4e4), resolutionunit="CENTIMETER", **options
        )
        writer.write(np.ascontiguousarray(pixels[::4, ::4]), subfiletype=1, **options)
        writer.write(np.ascontiguousarray(pixels[::8, ::8]), subfiletype=1, **options)
    return FileImage(str(path)), pixels


def test_the_coarsest_level_that_is_fine_enough_is_read(tmp_path):
    """A level within 2 % as it is, one a little coarser resampled, else a finer one."""
    image, pixels = pyramid(tmp_path / "p.tif")
    at_level = grid_of(image, 1.0)
    assert (at_level.level, at_level.ratio, at_level.step) == (1, 1.0, (4.0, 4.0))
    window = (3, 5, 100, 200)
    assert (read(image, at_level, window) == pixels[::4, ::4][3:100, 5:200]).all()
    assert grid_of(image, 1.9).level == 2  # 2.0 um: a twentieth too coarse
    finer = grid_of(image, 1.5)
    assert (finer.level, finer.ratio) == (1, pytest.approx(1.5))
    assert finer.step == (pytest.approx(6.0), pytest.approx(6.0))
    assert grid_of(image, None).level == 0
    assert max(thumbnail_grid(image, 160).shape) <= 161


def test_places_go_to_level_0_and_back(tmp_path):
    image, _ = pyramid(tmp_path / "p.tif")
    grid = grid_of(image, 1.5)
    assert grid.to_level0(10, 20) == (pytest.approx(60.0), pytest.approx(120.0))
    assert grid.covering((0, 0, 1024, 1280)) == (0, 0, *grid.shape)
    assert grid.covering((60, 120, 66, 132)) == (10, 20, 11, 22)
    assert grid.covering((61, 121, 62, 122)) == (10, 20, 11, 21)


def test_unknown_and_absurd_scales_are_refused():
    pixels = picture(50, 50)
    with pytest.raises(ScaleError, match="--mpp"):
        grid_of(MemoryImage(pixels), 1.0)
    with pytest.raises(ScaleError, match="no pixel size"):
        grid_of(MemoryImage(pixels, mpp=1e9), 1.0)
    with pytest.raises(ScaleError, match="too coarse"):
        grid_of(MemoryImage(pixels, mpp=50.0), 1.0)
