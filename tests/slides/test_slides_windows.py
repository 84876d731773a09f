"""Windows of files and of arrays are the same windows."""

from __future__ import annotations

import os
import pickle
import threading
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from napari_cellpath.core.errors import MissingFileError, UnreadableImageError
from napari_cellpath.core.requests import FileImage, MemoryImage
from napari_cellpath.slides import windows
from napari_cellpath.slides.windows import OpenSlides, cut, image_mpp, image_shape, read
from tests.slides.conftest import picture

RGB = picture(90, 120)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[FileImage]:
    """The same picture as PNG and as tiled TIFF."""
    folder = tmp_path_factory.mktemp("windows")
    Image.fromarray(RGB).save(folder / "x.png")
    tifffile.imwrite(folder / "x.tif", RGB, photometric="rgb", tile=(32, 48), compression="lzw")
    return [FileImage(str(folder / name)) for name in ("x.png", "x.tif")]


@settings(max_examples=60, deadline=None)
@given(st.integers(-40, 110), st.integers(-40, 140), st.integers(0, 150), st.integers(0, 150))
def test_files_and_arrays_give_bit_equal_windows(
    files: list[FileImage], row: int, col: int, height: int, width: int
) -> None:
    """Inside, across the border and beyond it, for NumPy and dask, RGB and RGBA."""
    padded = np.zeros((90 + 600, 120 + 600, 3), np.uint8)
    padded[300:390, 300:420] = RGB
    expected = padded[300 + row :, 300 + col :][:height, :width]
    for file in files:
        np.testing.assert_array_equal(read(file, row, col, height, width), expected)
    alpha = np.dstack([RGB, RGB[..., 0]])
    for pixels in (RGB, alpha, da.from_array(RGB, chunks=(40, 40, 3))):
        window = cut(MemoryImage(pixels), row, col, height, width)
        np.testing.assert_array_equal(read(window, row, col, height, width), expected)


def test_a_cut_holds_only_its_window() -> None:
    """Only the window is sliced, clipped to the image; it travels alone and owns its pixels."""

    class Watched:
        shape, dtype = RGB.shape, RGB.dtype
        asked: tuple = ()

        def __getitem__(self, key: tuple) -> np.ndarray:
            self.asked = key
            return RGB[key]

    pixels = Watched()
    window = cut(MemoryImage(pixels, mpp=0.2), -5, 100, 20, 50)
    assert pixels.asked == (slice(0, 15), slice(100, 120))
    assert (window.row, window.col, window.shape, window.mpp) == (0, 100, (90, 120), 0.2)
    assert window.pixels.base is None
    assert len(pickle.dumps(window)) < window.pixels.nbytes + 1000


def test_a_window_is_asked_only_for_what_it_holds() -> None:
    """Pixels of the image that were not cut must not look like border."""
    window = cut(MemoryImage(RGB), 10, 10, 20, 20)
    with pytest.raises(ValueError, match="asked of a window that holds"):
        read(window, 5, 10, 20, 20)
    assert read(cut(MemoryImage(RGB), -20, -20, 20, 20), -20, -20, 20, 20).sum() == 0


def test_windows_of_one_image_share_one_mapping() -> None:
    """A dark window of a 16-bit image stays dark: its own maximum decides nothing."""
    pixels = np.full((50, 50), 100, np.uint16)
    pixels[49, 49] = 4095
    fixed = MemoryImage(pixels, value_range=(0, 4095))
    assert read(cut(fixed, 0, 0, 9, 9), 0, 0, 9, 9).max() == 6
    assert read(cut(MemoryImage(pixels), 0, 0, 9, 9), 0, 0, 9, 9).max() == 0
    with pytest.raises(UnreadableImageError, match="cells holds int64 values; give"):
        cut(MemoryImage(pixels.astype(np.int64), name="cells"), 0, 0, 9, 9)
    with pytest.raises(UnreadableImageError, match="outside"):
        cut(MemoryImage(pixels.astype(float)), 0, 0, 9, 9)


def test_shape_and_pixel_size_the_user_s_first(files: list[FileImage], tmp_path: Path) -> None:
    """What the user says overrides the file; arrays only know what they were given."""
    assert image_shape(files[1]) == image_shape(MemoryImage(RGB)) == (90, 120)
    path = tmp_path / "m.tif"
    tifffile.imwrite(path, RGB, photometric="rgb", resolution=(4e4, 4e4), resolutionunit=3)
    assert image_mpp(FileImage(str(path))) == pytest.approx(0.25)
    assert image_mpp(FileImage(str(path), mpp=0.5)) == 0.5
    assert image_mpp(MemoryImage(RGB)) is None
    with pytest.raises(UnreadableImageError, match="5 channels"):
        image_shape(MemoryImage(np.zeros((4, 4, 5))))
    with pytest.raises(MissingFileError):
        image_shape(FileImage(str(tmp_path / "none.tif")))


def test_a_replaced_file_is_seen(tmp_path: Path) -> None:
    """Same name, other pixels: the next window shows them."""
    path = tmp_path / "x.png"
    Image.fromarray(RGB).save(path)
    image = FileImage(str(path))
    assert (read(image, 0, 0, 90, 120) == RGB).all()
    Image.fromarray(255 - RGB).save(path)
    os.utime(path, ns=(1, 1))
    assert (read(image, 0, 0, 90, 120) == 255 - RGB).all()


def test_slides_are_kept_and_let_go(tmp_path: Path) -> None:
    """At most so many are open; one pushed out while in use still reads."""
    for number in range(4):
        tifffile.imwrite(tmp_path / f"{number}.tif", np.full((64, 64), number, np.uint8))
    shelf = OpenSlides(max_slides=2)
    first = shelf.get(tmp_path / "0.tif")
    assert shelf.get(tmp_path / "0.tif") is first
    for number in range(4):
        shelf.get(tmp_path / f"{number}.tif")
    assert len(shelf) == 2
    assert shelf.get(tmp_path / "0.tif") is not first
    assert first.read_region(0, 0, 2, 2).max() == 0
    small = OpenSlides(max_bytes=1)
    assert small.get(tmp_path / "3.tif").read_region(0, 0, 2, 2).min() == 3
    small.get(tmp_path / "2.tif")
    assert len(small) == 1


def test_one_slide_is_opened_once_by_many_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight threads that meet a new file do not decode it eight times."""
    Image.fromarray(RGB).save(tmp_path / "x.png")
    opened: list[str] = []
    really = windows.open_slide
    monkeypatch.setattr(windows, "open_slide", lambda path: opened.append(path) or really(path))
    shelf = OpenSlides()
    slides: list[object] = []
    threads = [
        threading.Thread(target=lambda: slides.append(shelf.get(tmp_path / "x.png")))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 1
    assert len(set(map(id, slides))) == 1


def test_a_file_that_failed_is_tried_again(tmp_path: Path) -> None:
    """An error is not remembered: the user mends the file and goes on."""
    shelf = OpenSlides()
    path = tmp_path / "x.png"
    path.write_text("no image")
    with pytest.raises(UnreadableImageError):
        shelf.get(path)
    assert len(shelf) == 0
    Image.fromarray(RGB).save(path)
    assert shelf.get(path).shape == (90, 120)
