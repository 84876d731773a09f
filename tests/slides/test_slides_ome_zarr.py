"""OME-Zarr as an image: both versions, its scale, and what is refused before zarr sees it."""

import json

import numpy as np
import pytest
import zarr

from napari_cellpath.core.errors import CellpathError, ImageTooLargeError, UnreadableImageError
from napari_cellpath.core.requests import FileImage
from napari_cellpath.slides import open_slide
from napari_cellpath.slides.reader import get_reader, read_layers
from napari_cellpath.slides.region_store import RegionFacts, RegionStore
from napari_cellpath.slides.windows import image_mpp, image_shape
from tests.slides.conftest import picture


def write(path, pixels, version="0.4", axes="cyx", unit="micrometer", chunks=(64, 64), levels=2):
    """A folder as other programs write it: levels 0, 1, ... of (H, W, 3) pixels."""
    group = zarr.open_group(str(path), mode="w", zarr_format=2 if version == "0.4" else 3)
    datasets = []
    for number in range(levels):
        step = 2**number
        data = pixels[::step, ::step]
        data = np.moveaxis(data, 2, 0) if "c" in axes else data[..., 0]
        if axes == "tczyx":
            data = data[None, :, None]
        elif axes == "zyx":
            data = data[None]
        shape = (*[1] * (len(axes) - 2), *chunks)
        array = group.create_array(str(number), shape=data.shape, dtype=data.dtype, chunks=shape)
        array[...] = data
        scale = [1.0] * (len(axes) - 2) + [0.5 * step] * 2
        datasets.append(
            {
                "path": str(number),
                "coordinateTransformations": [{"type": "scale", "scale": scale}],
            }
        )
    described = [
        {"name": a, "type": "space", **({"unit": unit} if unit else {})}
        if a in "zyx"
        else {"name": a, "type": "channel" if a == "c" else "time"}
        for a in axes
    ]
    scales = {"multiscales": [{"version": version, "axes": described, "datasets": datasets}]}
    group.attrs.update(scales if version == "0.4" else {"ome": {"version": version, **scales}})
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["cyx", "tczyx", "yx"])
def test_both_versions_are_read(tmp_path, version, axes):
    pixels = picture(150, 200)
    path = write(tmp_path / "i.ome.zarr", pixels, version, axes)
    with open_slide(path) as slide:
        assert [level.shape for level in slide.levels] == [(150, 200), (75, 100)]
        assert slide.mpp == 0.5
        expected = pixels if "c" in axes else pixels[..., :1].repeat(3, axis=2)
        assert (slide.read_region(10, 20, 130, 170) == expected[10:140, 20:190]).all()
        assert (slide.read_region(0, 0, 75, 100, 1) == expected[::2, ::2]).all()
        assert (slide.read_region(140, 190, 20, 20)[10:] == 0).all()


def test_values_of_16_bits_are_mapped_and_said(tmp_path):
    pixels = picture(80, 90).astype(np.uint16) * 16
    with open_slide(write(tmp_path / "i.zarr", pixels)) as slide:
        assert "12-bit" in " ".join(slide.notes)
        assert abs(int(slide.read_region(5, 5, 1, 1)[0, 0, 0]) - int(pixels[5, 5, 0]) / 16) <= 1


def test_without_a_unit_the_scale_is_not_known(tmp_path):
    path = write(tmp_path / "i.zarr", picture(80, 90), unit=None)
    assert image_mpp(FileImage(str(path))) is None
    assert image_shape(FileImage(str(path))) == (80, 90)


def test_strips_decode_each_chunk_once(tmp_path):
    with open_slide(write(tmp_path / "i.zarr", picture(256, 256), levels=1)) as slide:
        for row in range(0, 256, 16):
            slide.read_region(row, 0, 16, 256)
        assert slide.decoded_pixels == 256 * 256


def test_napari_gets_levels_and_scale(tmp_path):
    path = write(tmp_path / "i.ome.zarr", picture(150, 200))
    assert get_reader(str(path)) is read_layers
    levels, options, kind = read_layers(str(path))[0]
    assert (kind, options["scale"], options["multiscale"]) == ("image", (0.5, 0.5), True)
    assert np.asarray(levels[1]).shape == (75, 100, 3)
    (tmp_path / "other.zarr").mkdir()
    assert get_reader(str(tmp_path / "other.zarr")) is None


def test_napari_gets_our_regions_as_labels(tmp_path):
    """Where they lie on the slide, in its units."""
    facts = RegionFacts(
        {"name": "s", "shape": [99, 99]}, "m@1", "0", ("a", "b"), ("#000000", "#ff0000"),
        (False, True), (40, 50), (2.0, 2.0), (10.0, 20.0), 1.0, {},
    )  # fmt: skip
    store = RegionStore.create(tmp_path / "r.ome.zarr", facts)
    store.write_rows(0, np.ones((40, 50), np.uint8))
    levels, options, kind = read_layers(str(tmp_path / "r.ome.zarr"))[0]
    assert kind == "labels"
    assert options["scale"] == (1.0, 1.0)
    assert options["translate"] == (5.25, 10.25)  # the middle of its first pixel
    assert (levels[:] == 1).all()
    # The same as other programs read it from the metadata.
    attributes = json.loads((tmp_path / "r.ome.zarr" / ".zattrs").read_text())
    first = attributes["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    assert [t["type"] for t in first] == ["scale", "translation"]
    assert first[1]["translation"] == [5.25, 10.25]


def damage(path, name, change):
    facts = json.loads((path / name).read_text())
    change(facts)
    (path / name).write_text(json.dumps(facts))


def test_hostile_folders_are_refused(tmp_path):
    """Code in a filter, a way out of the folder, absurd chunks, stacks, five channels, nonsense."""
    cases = {
        "pickle is not supported": (
            "0/.zarray", lambda f: f.update(filters=[{"id": "pickle"}], dtype="|O")
        ),
        "a level at": (
            ".zattrs", lambda f: f["multiscales"][0]["datasets"][0].update(path="../../etc")
        ),
        "axes": (".zattrs", lambda f: f["multiscales"][0].update(axes=["y", "x", "c"])),
        "dimensions for axes": (".zattrs", lambda f: f["multiscales"][0].update(axes=["y", "x"])),
        "is missing": (".zattrs", lambda f: f["multiscales"][0]["datasets"][0].update(path="9")),
        "not a readable image": ("0/.zarray", lambda f: f.update(shape="x")),
    }  # fmt: skip
    for number, (word, (name, change)) in enumerate(cases.items()):
        path = write(tmp_path / f"{number}.zarr", picture(40, 50))
        damage(path, name, change)
        with pytest.raises(UnreadableImageError, match=word) as caught:
            open_slide(path)
        assert path.name in str(caught.value)
    path = write(tmp_path / "big.zarr", picture(40, 50))
    damage(path, "0/.zarray", lambda f: f.update(shape=[3, 60_000, 60_000],
                                                 chunks=[3, 60_000, 60_000]))  # fmt: skip
    with pytest.raises(ImageTooLargeError, match="60000 x 60000"):
        open_slide(path)
    stack = write(tmp_path / "stack.zarr", picture(40, 50), axes="zyx", levels=1)
    damage(stack, "0/.zarray", lambda f: f.update(shape=[7, 40, 50]))
    with pytest.raises(UnreadableImageError, match="stack of 7"):
        open_slide(stack)
    for content in (b"[" * 200_000, b"{", b"\xff\xfe"):
        (path / ".zattrs").write_bytes(content)
        with pytest.raises(CellpathError):
            open_slide(path)


def test_damaged_chunks_are_told_apart(tmp_path):
    path = write(tmp_path / "i.zarr", picture(128, 192), levels=1)
    (path / "0" / "0.1.1").write_bytes(b"nonsense")
    with open_slide(path) as slide:
        damaged = []
        pixels = slide.read_region(0, 0, 128, 192, 0, damaged)
        assert damaged == [(64, 64, 128, 128)]
        assert (pixels[64:128, 64:128] == 0).all()
        assert pixels[:64].any()
        with pytest.raises(UnreadableImageError):
            slide.read_region(0, 0, 128, 192)
