"""What napari gets."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from napari.layers import Image as ImageLayer
from PIL import Image

from napari_cellpath.core.errors import UnreadableImageError
from napari_cellpath.core.requests import FileImage
from napari_cellpath.slides import open_slide, reader
from napari_cellpath.slides.reader import get_reader, layer_of, read_layers
from napari_cellpath.slides.windows import stain_notes
from tests.slides.conftest import picture

RGB = picture(90, 120)


def test_only_images_of_ours_are_claimed(tmp_path: Path) -> None:
    """By name and by content; never a folder, a list, a missing file or a text."""
    Image.fromarray(RGB).save(tmp_path / "a.PNG")
    Image.fromarray(RGB).save(tmp_path / "b.tif")
    (tmp_path / "c.tif").write_text("text")
    (tmp_path / "d.csv").write_text("row,col")
    (tmp_path / "e.tif").mkdir()
    claimed = {path.name for path in tmp_path.iterdir() if get_reader(str(path))}
    assert claimed == {"a.PNG", "b.tif"}
    assert get_reader([str(tmp_path / "b.tif")]) is None
    assert get_reader(str(tmp_path / "none.tif")) is None


def test_a_small_image_is_one_array_with_its_facts(tmp_path: Path) -> None:
    """Pixel size as scale and units where the file states one, else neither."""
    path = tmp_path / "x.tif"
    tifffile.imwrite(path, RGB, photometric="rgb", resolution=(4e4, 4e4), resolutionunit=3)
    ((data, options, kind),) = get_reader(str(path))(str(path))
    assert kind == "image"
    np.testing.assert_array_equal(data, RGB)
    assert options["scale"] == pytest.approx((0.25, 0.25))
    assert options["units"] == ("um", "um")
    assert options["metadata"]["napari-cellpath"]["path"] == str(path)
    layer = ImageLayer(data, **options)
    assert layer.name == "x"
    assert layer.rgb
    Image.fromarray(RGB).save(tmp_path / "y.png")
    ((_, options, _),) = get_reader(str(tmp_path / "y.png"))(str(tmp_path / "y.png"))
    assert "scale" not in options
    assert "units" not in options


def test_a_pyramid_is_given_as_lazy_levels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening decodes nothing; each level slices to its own pixels."""
    base = picture(1100, 1500)
    path = tmp_path / "p.tif"
    with tifffile.TiffWriter(path) as writer:
        options = {"photometric": "rgb", "tile": (128, 128)}
        writer.write(base, subifds=1, **options)
        writer.write(base[::2, ::2], subfiletype=1, **options)
    slide = open_slide(path)
    asked: list[tuple] = []
    really = slide.read_region
    monkeypatch.setattr(slide, "read_region", lambda *key: asked.append(key) or really(*key))
    levels, options, _ = layer_of(slide)
    assert options["multiscale"] is True
    assert asked == []
    assert [level.shape for level in levels] == [(1100, 1500, 3), (550, 750, 3)]
    np.testing.assert_array_equal(levels[0][30:60, 40:90].compute(), base[30:60, 40:90])
    assert len(asked) == 1
    np.testing.assert_array_equal(levels[1].compute(), base[::2, ::2])
    layer = ImageLayer(levels, **options)
    assert layer.multiscale
    assert layer.data_level == 1


@pytest.mark.parametrize("tile", [None, (64, 64)])
def test_a_large_single_level_gets_coarser_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tile: tuple[int, int] | None
) -> None:
    """Beyond the texture limit napari needs a pyramid: means of 4 x 4, edges included, once."""
    monkeypatch.setattr(reader, "MAX_TEXTURE", 256)
    monkeypatch.setattr(reader, "_COARSEST", 100)
    monkeypatch.setattr(reader, "_CHUNK", 128)
    base = picture(701, 1002)
    tifffile.imwrite(tmp_path / "x.tif", base, photometric="rgb", tile=tile)
    slide = open_slide(tmp_path / "x.tif")
    levels, options, _ = layer_of(slide)
    assert options["multiscale"] is True
    assert [level.shape for level in levels] == [
        (701, 1002, 3), (176, 251, 3), (44, 63, 3),
    ]  # fmt: skip
    for factor, level in zip((4, 16), levels[1:], strict=True):
        got = level.compute()
        for row, col in [(0, 0), (10, 20), (level.shape[0] - 1, level.shape[1] - 1)]:
            part = base[row * factor : (row + 1) * factor, col * factor : (col + 1) * factor]
            assert abs(got[row, col] - part.mean((0, 1))).max() <= 0.51
    monkeypatch.setattr(slide, "read_region", None)  # a second look decodes nothing
    assert levels[1][50:60, 50:60].compute().shape == (10, 10, 3)


def test_a_real_slide_opens_in_micrometres(small_slide: Path) -> None:
    """The layer knows its scale, so that distances on screen are micrometres."""
    ((data, options, _),) = get_reader(str(small_slide))(str(small_slide))
    layer = ImageLayer(data, **options)
    assert tuple(layer.scale) == (0.499, 0.499)
    assert str(layer.units[0]) == "micrometer"


def test_asking_for_a_reader_loads_no_codec_and_no_torch(tmp_path: Path) -> None:
    """Napari asks for every file that is dropped on it."""
    Image.fromarray(RGB).save(tmp_path / "a.tif")
    code = (
        "import sys; from napari_cellpath.slides.reader import get_reader;"
        f"assert get_reader({str(tmp_path / 'a.tif')!r});"
        "heavy = {'torch','napari','tifffile','imagecodecs','PIL','dask','qtpy'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert out.strip() == "[]"


def test_a_damaged_tile_is_shown_black_and_told_once(tmp_path: Path) -> None:
    """The tiles round it are seen all the same; analysis refuses or marks it, as it did."""
    path = tmp_path / "damaged.tif"
    tifffile.imwrite(
        path, picture(700, 900), tile=(128, 128), photometric="rgb", compression="zlib"
    )
    with tifffile.TiffFile(path) as tif:
        at, size = tif.pages[0].dataoffsets[9], tif.pages[0].databytecounts[9]
    data = bytearray(path.read_bytes())
    data[at : at + size] = bytes(size)
    path.write_bytes(data)
    ((pixels, _, _),) = read_layers(str(path))
    with pytest.warns(UserWarning, match=r"Some tiles of damaged\.tif cannot be read") as said:
        shown = np.asarray(pixels)
    assert len(said) == 1
    box = np.s_[128:256, 128:256]  # the tenth of eight in a row
    assert not shown[box].any()
    np.testing.assert_array_equal(shown[256:], picture(700, 900)[256:])
    with open_slide(path) as slide, pytest.raises(UnreadableImageError):
        slide.read_region(0, 0, *slide.shape)
    assert stain_notes(FileImage(str(path))) == (), "damage in the middle refuses no other part"
