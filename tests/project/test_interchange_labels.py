"""Label images, out and in."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from napari_cellpath.core.annotations import Annotation, ImageFacts, Shape
from napari_cellpath.core.errors import CellpathError, OutputError, TableError
from napari_cellpath.project.interchange import labels as labels_module
from napari_cellpath.project.interchange import read_file, sidecar_path, write_labels
from napari_cellpath.project.interchange.outlines import fill
from napari_cellpath.project.interchange.trace import trace
from tests.support.annotations import IMAGE, annotations, cells, several


def sized(pixels: NDArray[Any]) -> ImageFacts:
    return ImageFacts("k", "a.tif", height=pixels.shape[0], width=pixels.shape[1], mpp=0.25)


small = arrays.arrays(
    st.sampled_from([np.uint8, np.uint16, np.int32]),
    arrays.array_shapes(min_dims=2, max_dims=2, max_side=9),
    elements=st.integers(0, 3),
).filter(np.any)


@settings(max_examples=200, deadline=None)
@given(pixels=small)
def test_a_foreign_label_image_comes_back_identical(
    tmp_path_factory: pytest.TempPathFactory, pixels: NDArray[Any]
) -> None:
    """Read, then written: the same value in every pixel, whatever the shapes."""
    folder = tmp_path_factory.mktemp("labels")
    tifffile.imwrite(folder / "in.tif", pixels)
    image = sized(pixels)
    imported = read_file(folder / "in.tif", [image])
    assert imported.format == "labels"
    assert all(a.labels == () and a.shape is Shape.POLYGON for a in imported.annotations)
    write_labels(folder / "out.tif", imported.annotations, image)
    np.testing.assert_array_equal(tifffile.imread(folder / "out.tif"), pixels)
    assert read_file(folder / "out.tif", [image]).annotations == imported.annotations


@settings(max_examples=200, deadline=None)
@given(pixels=small)
def test_outlines_are_exact_and_can_be_drawn(pixels: NDArray[Any]) -> None:
    """Each is a valid polygon of exactly its pixels' area; filled, it gives those pixels."""
    for value, parts in trace(pixels):
        filled = np.zeros(pixels.shape, np.uint16)
        for rings in parts:
            polygon = shapely.Polygon(rings[0], rings[1:])
            assert polygon.is_valid
            assert polygon.area == pytest.approx(
                _filled(Annotation("u", "k", shape=Shape.POLYGON, geometry=rings), pixels.shape)
            )
            fill(Annotation("u", "k", shape=Shape.POLYGON, geometry=rings), filled, 1)
        np.testing.assert_array_equal(filled == 1, pixels == value)


def _filled(annotation: Annotation, shape: tuple[int, ...]) -> int:
    target = np.zeros(shape, np.uint8)
    fill(annotation, target, 1)
    return int(target.sum())


def test_pixels_count_by_their_centre() -> None:
    """Of boxes, outlines with holes and points."""
    target = np.zeros((6, 6), np.uint8)
    fill(Annotation("u", "k", shape=Shape.BOX, geometry=(0.6, 0.4, 2.5, 9)), target, 1)
    fill(Annotation("u", "k", geometry=(5.4, 0.6)), target, 2)
    triangle = (((3, -0.2), (3, 6.2), (6.2, 3)), ((3, 1.8), (3, 4.2), (4.2, 3)))
    fill(Annotation("u", "k", shape=Shape.POLYGON, geometry=triangle), target, 3)
    assert target.tolist() == [
        [0, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 1, 1],
        [0, 0, 0, 0, 0, 0],
        [3, 3, 0, 0, 3, 3],
        [0, 3, 3, 3, 3, 0],
        [0, 2, 3, 3, 0, 0],
    ]


@settings(max_examples=60, deadline=None)
@given(
    made=several(annotations()),
    offset=st.tuples(st.integers(0, 90), st.integers(0, 90)),
)
def test_everything_comes_back_through_the_sidecar(
    tmp_path_factory: pytest.TempPathFactory, made: list[Annotation], offset: tuple[int, int]
) -> None:
    """Overlaps, parts outside the region and objects without a pixel included."""
    folder = tmp_path_factory.mktemp("labels")
    write_labels(folder / "all.ome.tif", made, IMAGE, offset=offset)
    imported = read_file(folder / "all.ome.tif", [IMAGE])
    assert {a.uid: a for a in imported.annotations} == {a.uid: a for a in made}


def test_a_painted_over_value_keeps_what_is_known_of_it(tmp_path: Path) -> None:
    """The image is the truth: moved pixels, deleted and new values show; the rest is as it was."""
    made = [a for a in cells(9) if a.shape is Shape.BOX]
    file = tmp_path / "cells.tif"
    write_labels(file, made, IMAGE)
    pixels = tifffile.imread(file)
    first, second, _ = np.unique(pixels)[1:]
    pixels[pixels == first] = 0
    pixels[100:103, 50:54] = first
    pixels[pixels == second] = 0
    pixels[200:210, 300:301] = 77
    tifffile.imwrite(file, pixels)
    got = {a.uid: a for a in read_file(file, [IMAGE]).annotations}
    assert made[1].uid not in got
    assert got.pop(made[2].uid) == made[2]
    edited = got.pop(made[0].uid)
    assert replace(edited, shape=Shape.BOX, geometry=made[0].geometry) == made[0]
    assert (edited.shape, edited.bounds) == (Shape.POLYGON, (100, 50, 103, 54))
    (new,) = got.values()
    assert (new.id, new.bounds, new.labels) == ("77", (200, 300, 210, 301), ())


def test_scale_and_position_are_in_the_file(tmp_path: Path) -> None:
    """Pixel size for every reader; values, classes and who said so in the sidecar."""
    file = tmp_path / "cells.tif"
    write_labels(file, cells(12), IMAGE, offset=(4, 8), size=(100, 120))
    with tifffile.TiffFile(file) as tiff:
        page = tiff.pages.first
        assert page.shape == (100, 120)
        assert page.get_resolution("MICROMETER") == (4.0, 4.0)
        assert 'PhysicalSizeX="0.25"' in page.description
        assert 'PositionX="2.0"' in page.description
    assert sidecar_path("x/NAME.ome.tif") == Path("x/NAME.labels.json")
    document = json.loads(sidecar_path(file).read_text())
    assert [(o["value"], o["class"], o["by"]) for o in document["objects"][:3]] == [
        (1, "abnormal", "model"), (2, "normal", "person"), (3, "abnormal", "model"),
    ]  # fmt: skip


def test_values_beyond_16_bits(tmp_path: Path) -> None:
    """The array widens when the values ask for it."""
    pixels = np.array([[0, 70_000], [70_000, 3]], np.uint32)
    tifffile.imwrite(tmp_path / "in.tif", pixels)
    imported = read_file(tmp_path / "in.tif", [sized(pixels)])
    assert [a.id for a in imported.annotations] == ["3", "70000", "70000/2"]
    write_labels(tmp_path / "out.tif", imported.annotations, sized(pixels))
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif"), pixels)


@pytest.mark.parametrize(
    ("pixels", "options", "message"),
    [
        (np.ones((4, 4), np.float32), {}, "is no label image: one whole number a pixel"),
        (np.ones((4, 4, 3), np.uint8), {}, "is no label image"),
        (np.ones((3, 4, 4), np.uint16), {"photometric": "minisblack"}, "is a stack"),
        (np.ones((4, 5), np.uint16), {}, "4 x 5 pixels, a.tif 4 x 4; give the offset"),
        (np.full((4, 4), -1, np.int16), {}, "holds values below 0"),
        (np.zeros((4, 4), np.uint16), {}, "holds no objects"),
        (np.ones((4, 4), np.uint16), {"resolution": (1e4, 1e4), "resolutionunit": 3},
         "has pixels of 1 um, a.tif of 0.25 um"),
    ],
)  # fmt: skip
def test_what_is_no_label_image(
    tmp_path: Path, pixels: NDArray[Any], options: dict[str, Any], message: str
) -> None:
    """One line each."""
    file = tmp_path / "mask.tif"
    tifffile.imwrite(file, pixels, **options)
    with pytest.raises(TableError, match=message) as caught:
        read_file(file, [ImageFacts("k", "a.tif", height=4, width=4, mpp=0.25)])
    assert str(caught.value).startswith("mask.tif")


def test_a_label_image_of_a_region(tmp_path: Path) -> None:
    """With an offset it lies where it belongs, or is refused by value."""
    tifffile.imwrite(tmp_path / "mask.tif", np.array([[0, 5]], np.uint8))
    (placed,) = read_file(tmp_path / "mask.tif", [IMAGE], offset=(10, 20)).annotations
    assert placed.bounds == (10, 21, 11, 22)
    with pytest.raises(TableError, match=r"mask\.tif value 5 lies outside its image"):
        read_file(tmp_path / "mask.tif", [IMAGE], offset=(10, 399))


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too large or of unknown size: said before any memory is taken."""
    file = tmp_path / "mask.tif"
    with pytest.raises(OutputError, match="the size of x is not known"):
        write_labels(file, [], ImageFacts("k", "x"))
    with pytest.raises(OutputError, match="too many for one label image"):
        write_labels(file, [], replace(IMAGE, height=100_000, width=100_000))
    assert not file.exists()
    tifffile.imwrite(file, np.ones((300, 400), np.uint8))
    monkeypatch.setattr(labels_module, "MAX_PIXELS", 1000)
    with pytest.raises(TableError, match=r"claims 300 x 400 pixels \(120\.0 kB\)"):
        read_file(file, [IMAGE])


def test_a_sidecar_of_another_version_is_not_believed(tmp_path: Path) -> None:
    """A crash between the two files must not give one object the facts of another."""
    file = tmp_path / "cells.tif"
    write_labels(file, cells(6), IMAGE)
    old = sidecar_path(file).read_bytes()
    write_labels(file, cells(9), IMAGE)
    sidecar_path(file).write_bytes(old)
    with pytest.raises(TableError, match=r"cells\.labels\.json is of another version of cells"):
        read_file(file, [IMAGE])
    sidecar_path(file).write_bytes(b"[]")
    with pytest.raises(CellpathError, match="says nothing about labels"):
        read_file(file, [IMAGE])
