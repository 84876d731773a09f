"""Every format gives the pixels that were written."""

from __future__ import annotations

import threading
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_cellpath.core.errors import (
    ImageTooLargeError,
    MissingFileError,
    UnreadableImageError,
)
from napari_cellpath.slides import open_slide
from tests.slides.conftest import picture

RGB = picture()
GREY = RGB[..., 0]


def _read(path: Path) -> np.ndarray:
    with open_slide(path) as slide:
        return slide.read_region(0, 0, *slide.shape)


@pytest.mark.parametrize("suffix", ["png", "bmp"])
def test_lossless_files_give_their_pixels(tmp_path: Path, suffix: str) -> None:
    """RGB, RGBA, grey, black and white and palettes, without a note where nothing was lost."""
    alpha = np.dstack([RGB, GREY])
    modes = {
        "RGB": (Image.fromarray(RGB), RGB),
        "L": (Image.fromarray(GREY), np.dstack([GREY] * 3)),
        "1": (Image.fromarray(GREY > 99), np.dstack([(GREY > 99) * np.uint8(255)] * 3)),
    }
    quantised = Image.fromarray(RGB).quantize(64)
    modes["P"] = (quantised, np.asarray(quantised.convert("RGB")))
    if suffix == "png":
        modes["RGBA"] = (Image.fromarray(alpha), RGB)
        modes["LA"] = (Image.fromarray(GREY).convert("LA"), np.dstack([GREY] * 3))
    for mode, (image, expected) in modes.items():
        path = tmp_path / f"{mode}.{suffix}"
        image.save(path)
        with open_slide(path) as slide:
            assert slide.notes == (("Transparency was dropped.",) if "A" in mode else ()), mode
            assert slide.mpp is None
            np.testing.assert_array_equal(_read(path), expected, err_msg=mode)


def test_jpeg_is_pillow_s_pixels_and_orientation_is_told_not_applied(tmp_path: Path) -> None:
    """Rows and columns stay those stored in the file; the note says a viewer may turn it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(RGB).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    with open_slide(tmp_path / "turned.jpg") as slide:
        assert slide.shape == (300, 400)
        assert "EXIF orientation 6" in slide.notes[0]
    np.testing.assert_array_equal(
        _read(tmp_path / "turned.jpg"), np.asarray(Image.open(tmp_path / "turned.jpg"))
    )


def test_cmyk_jpeg_says_what_was_done(tmp_path: Path) -> None:
    """CMYK has no one RGB; the conversion is stated."""
    Image.fromarray(RGB).convert("CMYK").save(tmp_path / "x.jpg")
    with open_slide(tmp_path / "x.jpg") as slide:
        assert "CMYK" in slide.notes[0]


def test_sixteen_bit_png_keeps_what_a_twelve_bit_camera_saw(tmp_path: Path) -> None:
    """12-bit values in a 16-bit file fill 0..255; their high bytes alone would be black."""
    deep = (RGB.astype(np.uint32) * 4095 // 255).astype(np.uint16)
    deep[0, 0] = 4095
    (tmp_path / "x.png").write_bytes(imagecodecs.png_encode(deep))
    Image.fromarray(deep[..., 0]).save(tmp_path / "grey.png")
    for name in ("x.png", "grey.png"):
        with open_slide(tmp_path / name) as slide:
            assert slide.notes == (
                "16-bit values read as 12-bit (0..4095) and mapped to 0..255.",
            ), name
        difference = _read(tmp_path / name)[..., 0].astype(int) - RGB[..., 0]
        assert abs(difference[1:, 1:]).max() <= 1


TIFFS: dict[str, dict] = {
    "strips": {},
    "one-row-strips": {"rowsperstrip": 1},
    "tiles": {"tile": (64, 96)},
    "zlib-predictor": {"tile": (64, 96), "compression": "zlib", "predictor": True},
    "lzw-strips": {"compression": "lzw"},
    "zstd": {"compression": "zstd", "rowsperstrip": 37},
    "jpeg2000": {"tile": (64, 96), "compression": "jpeg2000"},
    "bigtiff": {"bigtiff": True, "tile": (64, 96)},
    "big-endian": {"byteorder": ">", "tile": (64, 96)},
    "planar": {"planarconfig": "separate", "tile": (64, 96)},
    "planar-strips": {"planarconfig": "separate", "rowsperstrip": 41},
}


@pytest.mark.parametrize("kind", TIFFS)
def test_rgb_tiffs_give_their_pixels(tmp_path: Path, kind: str) -> None:
    """Strips and tiles, any byte order, planar or not, every lossless compression."""
    path = tmp_path / f"{kind}.tif"
    data = np.moveaxis(RGB, 2, 0) if "planar" in kind else RGB
    tifffile.imwrite(path, data, photometric="rgb", **TIFFS[kind])
    np.testing.assert_array_equal(_read(path), RGB)


@pytest.mark.parametrize("tile", [None, (64, 64)])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_sixteen_bit_tiffs_use_the_depth_their_values_have(
    tmp_path: Path, bits: int, tile: tuple[int, int] | None
) -> None:
    """The same mapping for strips and tiles, told in a note, and never clipped."""
    top = 2**bits - 1
    data = (GREY.astype(np.uint32) * top // 255).astype(np.uint16)
    data[5, 5] = top
    tifffile.imwrite(tmp_path / "x.tif", data, tile=tile)
    with open_slide(tmp_path / "x.tif") as slide:
        assert slide.notes == (
            f"16-bit values read as {bits}-bit (0..{top}) and mapped to 0..255.",
        )
        whole = slide.read_region(0, 0, 300, 400)
    np.testing.assert_array_equal(whole[..., 1], np.rint(data * (255 / top)).astype(np.uint8))


@pytest.mark.parametrize("tile", [None, (64, 64)])
def test_float_bool_rgba_palette_and_inverted_grey(
    tmp_path: Path, tile: tuple[int, int] | None
) -> None:
    """Every other meaning a TIFF's samples may have."""
    write = tifffile.imwrite
    write(tmp_path / "float.tif", GREY.astype(np.float32) / 255, tile=tile)
    write(tmp_path / "bool.tif", GREY > 99, photometric="minisblack")
    write(tmp_path / "rgba.tif", np.dstack([RGB, GREY]), photometric="rgb",
          extrasamples=["unassalpha"], tile=tile)  # fmt: skip
    write(tmp_path / "white.tif", GREY, photometric="miniswhite", tile=tile)
    colours = np.random.default_rng(1).integers(0, 256, (3, 256)).astype(np.uint16)
    write(tmp_path / "palette.tif", GREY, photometric="palette", colormap=colours * 257, tile=tile)
    np.testing.assert_array_equal(_read(tmp_path / "float.tif")[..., 0], GREY)
    np.testing.assert_array_equal(_read(tmp_path / "bool.tif")[..., 2], (GREY > 99) * 255)
    np.testing.assert_array_equal(_read(tmp_path / "rgba.tif"), RGB)
    np.testing.assert_array_equal(_read(tmp_path / "white.tif")[..., 0], 255 - GREY)
    np.testing.assert_array_equal(_read(tmp_path / "palette.tif"), colours.T[GREY])


def _pyramid(path: Path, subifds: bool, **options: object) -> list[np.ndarray]:
    base = picture(1100, 1500)
    levels = [base, base[::2, ::2], base[::4, ::4]]
    with tifffile.TiffWriter(path) as writer:
        common = {"photometric": "rgb", "tile": (128, 128), **options}
        writer.write(levels[0], subifds=2 if subifds else 0, **common)
        for level in levels[1:]:
            writer.write(level, subfiletype=1 if subifds else 0, **common)
    return levels


@pytest.mark.parametrize("subifds", [True, False])
def test_pyramids_in_subdirectories_and_in_pages(tmp_path: Path, subifds: bool) -> None:
    """Levels are found either way, with their downsampling and their own pixels."""
    levels = _pyramid(tmp_path / "p.tif", subifds)
    with open_slide(tmp_path / "p.tif") as slide:
        assert [level.shape for level in slide.levels] == [x.shape[:2] for x in levels]
        assert [level.downsample for level in slide.levels] == [1.0, 2.0, 4.0]
        for number, level in enumerate(levels):
            np.testing.assert_array_equal(
                slide.read_region(60, 70, 150, 200, number), level[60:210, 70:270]
            )


def test_regions_beyond_the_image_are_zero_and_the_caller_s_own(tmp_path: Path) -> None:
    """Border is zero on every side; writing into a region never changes the next read."""
    tifffile.imwrite(tmp_path / "t.tif", RGB, photometric="rgb", tile=(64, 64))
    Image.fromarray(RGB).save(tmp_path / "t.png")
    for name in ("t.tif", "t.png"):
        with open_slide(tmp_path / name) as slide:
            region = slide.read_region(-10, 390, 330, 30)
            expected = np.zeros((330, 30, 3), np.uint8)
            expected[10:310, :10] = RGB[:, 390:]
            np.testing.assert_array_equal(region, expected)
            region[:] = 7
            np.testing.assert_array_equal(slide.read_region(0, 0, 300, 400), RGB)
            assert not slide.read_region(1000, 1000, 5, 5).any()
            assert slide.read_region(5, 5, 0, 9).shape == (0, 9, 3)


def test_many_threads_read_the_same_pixels(tmp_path: Path) -> None:
    """Seeks of one thread must not move another's; the tile cache is shared."""
    base = picture(900, 900)
    tifffile.imwrite(tmp_path / "t.tif", base, photometric="rgb", tile=(64, 64), compression="zlib")
    wrong: list[tuple[int, int]] = []
    with open_slide(tmp_path / "t.tif") as slide:

        def work(seed: int) -> None:
            for row, col in np.random.default_rng(seed).integers(0, 700, (60, 2)):
                if (
                    slide.read_region(row, col, 128, 128) != base[row : row + 128, col : col + 128]
                ).any():
                    wrong.append((row, col))

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


@pytest.mark.parametrize(("pixels", "colour"), [(RGB, "white"), (GREY, "black")])
def test_tiles_never_written_are_glass_and_told(
    tmp_path: Path, pixels: np.ndarray, colour: str
) -> None:
    """Scanners leave out tiles of bare glass: white in colour, zero where black is zero."""
    path = tmp_path / "sparse.tif"
    photometric = "rgb" if pixels.ndim == 3 else "minisblack"
    tifffile.imwrite(path, pixels, tile=(128, 128), photometric=photometric)
    with tifffile.TiffFile(path, mode="r+b") as tif:
        counts = tif.pages[0].tags["TileByteCounts"]
        counts.overwrite((0, *counts.value[1:]))
    with open_slide(path) as slide:
        seen = slide.read_region(0, 0, *slide.shape)
        said = [n for n in slide.notes if "never written" in n]
    assert (seen[:128, :128] == (255 if colour == "white" else 0)).all()
    whole = pixels if pixels.ndim == 3 else np.dstack([pixels] * 3)
    np.testing.assert_array_equal(seen[128:], whole[128:])
    np.testing.assert_array_equal(seen[:128, 128:], whole[:128, 128:])
    assert said == [
        f"1 of 12 tiles of the file were never written; they are shown and read as {colour}."
    ]


def test_tiles_are_decoded_only_where_they_are_looked_at(tmp_path: Path) -> None:
    """A damaged tile far away does not keep the user from the rest."""
    path = tmp_path / "t.tif"
    tifffile.imwrite(
        path, picture(1024, 1024), photometric="rgb", tile=(256, 256), compression="zlib"
    )
    with tifffile.TiffFile(path) as tif:
        offset = tif.pages[0].dataoffsets[15]
    data = bytearray(path.read_bytes())
    data[offset : offset + 200] = bytes(200)
    path.write_bytes(data)
    with open_slide(path) as slide:
        assert slide.read_region(0, 0, 512, 512).any()
        with pytest.raises(UnreadableImageError, match=r"t\.tif is not a readable image"):
            slide.read_region(800, 800, 100, 100)


def test_aperio_ycbcr_jpeg2000_is_converted(tmp_path: Path) -> None:
    """Compression 33003 holds YCbCr without saying so in the stream; green stays green."""
    rgb = np.zeros((256, 256, 3), np.uint8)
    rgb[:] = (30, 160, 90)
    ycc = np.asarray(Image.fromarray(rgb).convert("YCbCr"))
    tile = imagecodecs.jpeg2k_encode(ycc, codecformat="j2k", mct=False, reversible=True)
    with tifffile.TiffWriter(tmp_path / "a.svs") as writer:
        writer.write(
            iter([tile]), shape=rgb.shape, dtype=np.uint8, tile=(256, 256), photometric="rgb",
            compression=33003, description="Aperio Image Library|MPP = 0.25", metadata=None,
        )  # fmt: skip
    with open_slide(tmp_path / "a.svs") as slide:
        assert slide.mpp == 0.25
        assert abs(slide.read_region(9, 9, 4, 4).astype(int) - rgb[:4, :4]).max() <= 2


def test_a_real_aperio_slide(small_slide: Path) -> None:
    """JPEG tiles, mpp from the description; thumbnail, label and macro are no levels."""
    with open_slide(small_slide) as slide:
        assert (slide.shape, len(slide.levels), slide.mpp) == ((2967, 2220), 1, 0.499)
        with tifffile.TiffFile(small_slide) as tif:
            np.testing.assert_array_equal(
                slide.read_region(1000, 500, 300, 400),
                tif.pages[0].asarray()[1000:1300, 500:900],
            )


def test_a_real_jpeg2000_slide(jpeg2000_slide: Path) -> None:
    """Two levels, no pixel size stated; its thumbnail of other aspect is no level."""
    with open_slide(jpeg2000_slide) as slide:
        assert [level.shape for level in slide.levels] == [(3567, 4443), (1783, 2221)]
        assert slide.mpp is None
        near = slide.read_region(1024, 2048, 256, 256)
        far = slide.read_region(512, 1024, 128, 128, level=1)
        assert abs(near.mean((0, 1)) - far.mean((0, 1))).max() < 3


@pytest.mark.parametrize(
    ("options", "mpp"),
    [
        ({"ome": True, "metadata": {"axes": "YXS", "PhysicalSizeX": 0.25, "PhysicalSizeXUnit": "µm",
                                    "PhysicalSizeY": 0.25, "PhysicalSizeYUnit": "µm"}}, 0.25),
        ({"ome": True, "metadata": {"axes": "YXS", "PhysicalSizeX": 250., "PhysicalSizeXUnit": "nm",
                                    "PhysicalSizeY": 250.0, "PhysicalSizeYUnit": "nm"}}, 0.25),
        ({"ome": True, "metadata": {"axes": "YXS", "PhysicalSizeX": 0.25, "PhysicalSizeXUnit": "µm",
                                    "PhysicalSizeY": 0.5, "PhysicalSizeYUnit": "µm"}}, None),
        ({"ome": True, "metadata": {"axes": "YXS", "PhysicalSizeX": 1e9}}, None),
        ({"resolution": (40_000, 40_000), "resolutionunit": "CENTIMETER"}, 0.25),
        ({"resolution": (50_800, 50_800), "resolutionunit": "INCH"}, 0.5),
        ({"resolution": (40_000, 20_000), "resolutionunit": "CENTIMETER"}, None),
        ({"resolution": (72, 72), "resolutionunit": "INCH"}, None),
        ({"resolution": (300, 300), "resolutionunit": "INCH"}, None),
        ({"resolution": (118.11, 118.11), "resolutionunit": "CENTIMETER"}, None),
        ({"resolution": (4, 4), "resolutionunit": "NONE"}, None),
        ({"resolution": (4, 4), "imagej": True, "metadata": {"unit": "um"}}, 0.25),
        ({"description": "Aperio Image|AppMag = 20|MPP = 0.4990|x", "metadata": None}, 0.499),
        ({"description": "Aperio Image|MPP = 0", "metadata": None}, None),
        ({"description": "Aperio Image|MPP = nan", "metadata": None}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_pixel_size_is_believed_only_where_it_can_be(
    tmp_path: Path, options: dict, mpp: float | None
) -> None:
    """Aperio, OME, ImageJ and resolution tags; never printing resolutions or absurd values."""
    tifffile.imwrite(tmp_path / "x.tif", RGB, photometric="rgb", **options)
    with open_slide(tmp_path / "x.tif") as slide:
        assert slide.mpp == (None if mpp is None else pytest.approx(mpp, rel=1e-4))


def test_stacks_are_refused_and_further_colour_pages_told(tmp_path: Path) -> None:
    """Which of several grey planes to classify is not ours to guess."""
    tifffile.imwrite(tmp_path / "z.tif", np.stack([GREY] * 4), photometric="minisblack")
    tifffile.imwrite(tmp_path / "ij.tif", np.stack([GREY] * 4), imagej=True)
    for name in ("z.tif", "ij.tif"):
        with pytest.raises(UnreadableImageError, match="stack of 4 grey planes"):
            open_slide(tmp_path / name)
    tifffile.imwrite(tmp_path / "pages.tif", np.stack([RGB, 255 - RGB]), photometric="rgb")
    with open_slide(tmp_path / "pages.tif") as slide:
        assert slide.notes == ("The file holds 2 images; the first is read.",)
        np.testing.assert_array_equal(slide.read_region(0, 0, 300, 400), RGB)


def test_channels_and_values_without_a_meaning_are_refused(tmp_path: Path) -> None:
    """Two and five channels, NaN, infinity, floats beyond 1, negative integers."""
    cases = {
        "two": (np.dstack([GREY] * 2), "2 channels"),
        "five": (np.dstack([GREY] * 5), "5 channels"),
        "nan": (np.full((9, 9), np.nan, np.float32), "not finite"),
        "inf": (np.full((9, 9), np.inf, np.float32), "not finite"),
        "beyond": (np.full((9, 9), 1.5, np.float32), "scale them to 0..1"),
        "negative": (np.full((9, 9), -3, np.int16), "negative"),
    }
    for name, (data, message) in cases.items():
        path = tmp_path / f"{name}.tif"
        options = {"planarconfig": "contig"} if data.ndim == 3 else {}
        tifffile.imwrite(path, data, photometric="minisblack", **options)
        with pytest.raises(UnreadableImageError, match=message) as caught:
            open_slide(path)
        assert name in str(caught.value)


def test_files_that_are_no_images_are_told_by_name(tmp_path: Path) -> None:
    """Missing, empty, a folder, text with an image's name, an image with another's."""
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.tif").write_text("row,col\n1,2\n")
    (tmp_path / "folder.tif").mkdir()
    with pytest.raises(MissingFileError, match="does not exist"):
        open_slide(tmp_path / "none.tif")
    for name, reason in [
        ("empty.png", "the file is empty"),
        ("text.tif", "not TIFF"),
        ("folder.tif", "it is a folder"),
    ]:
        with pytest.raises(UnreadableImageError) as caught:
            open_slide(tmp_path / name)
        assert str(caught.value) == (
            f"{name} is not a readable image ({reason}). Nothing was loaded."
        )
    Image.fromarray(RGB).save(tmp_path / "misnamed.tif", format="png")
    np.testing.assert_array_equal(_read(tmp_path / "misnamed.tif"), RGB)


def test_a_closed_slide_says_so(tmp_path: Path) -> None:
    """Reading after close is a clear error, closing twice is none."""
    Image.fromarray(RGB).save(tmp_path / "x.png")
    slide = open_slide(tmp_path / "x.png")
    slide.close()
    slide.close()
    with pytest.raises(UnreadableImageError, match="closed"):
        slide.read_region(0, 0, 1, 1)


def test_budgets_hold_for_regions_too(tmp_path: Path) -> None:
    """A region larger than the budget is refused before it is allocated."""
    tifffile.imwrite(tmp_path / "t.tif", RGB, photometric="rgb", tile=(64, 64))
    with (
        open_slide(tmp_path / "t.tif", memory_budget_bytes=1 << 20) as slide,
        pytest.raises(ImageTooLargeError, match=r"budget is 1\.0 MB"),
    ):
        slide.read_region(0, 0, 10_000, 10_000)
