"""Folders of class-named images, in."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_cellpath.core.annotations import ImageFacts
from napari_cellpath.core.errors import CellpathError, MissingFileError, TableError
from napari_cellpath.project.interchange import read_folder
from napari_cellpath.slides import open_slide


def describe(file: Path) -> ImageFacts:
    """As a project does it: opened, keyed by content."""
    with open_slide(file) as slide:
        height, width = slide.shape
    return ImageFacts(str(hash(file.read_bytes())), file.name, str(file), height, width)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "cells"
    for n, name in enumerate(("normal/a.png", "normal/b.png", "abnormal/c.png")):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((20, 31, 3), n, np.uint8)).save(root / name)
    (root / "notes").mkdir()
    (root / "normal" / "readme.txt").write_text("no image")
    return root


def test_each_image_is_one_cell_in_its_middle(folder: Path) -> None:
    """The class is the folder's name."""
    got = read_folder(folder, describe)
    assert got.classes == ("abnormal", "normal")
    assert [i.name for i in got.images] == ["c.png", "a.png", "b.png"]
    assert [(a.labels, a.geometry, a.id) for a in got.annotations] == [
        (("abnormal",), (9.5, 15), "c.png"),
        (("normal",), (9.5, 15), "a.png"),
        (("normal",), (9.5, 15), "b.png"),
    ]
    assert [a.image for a in got.annotations] == [i.key for i in got.images]
    assert all(a.seen for a in got.annotations)
    assert read_folder(folder, describe) == got


def test_points_and_groups(folder: Path) -> None:
    """Several in one image, none in another; groups are the images'."""
    (folder / "points.csv").write_text(
        "file;row;col;group\nnormal/a.png;3,5;4;s1\nnormal\\a.png;5;6;s1\nabnormal/c.png;1;1;\n"
    )
    got = read_folder(folder, describe)
    assert [(a.id, a.geometry) for a in got.annotations] == [
        ("c.png", (1, 1)), ("a.png", (3.5, 4)), ("a.png", (5, 6)), ("b.png", (9.5, 15)),
    ]  # fmt: skip
    assert [i.group for i in got.images] == ["", "s1", ""]
    assert len({a.uid for a in got.annotations}) == 4


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ("file,row,col\nnormal/z.png,1,1\n", "points.csv line 2: there is no image 'normal/z.png'"),
        ("file,row,col\nnormal/a.png,1,x\n", "points.csv line 2: col is not a number"),
        ("file,row,col\nnormal/a.png,1,99\n", "points.csv line 2 lies outside its image"),
        ("file,row,col\n../a.png,1,9\n", "there is no image '../a.png'"),
        ("file,row,col,group\nnormal/a.png,1,1,x\nnormal/a.png,2,2,y\n", "belonged to group 'x'"),
    ],
)
def test_bad_points(folder: Path, points: str, message: str) -> None:
    """By line; with `skip_bad` the images stay."""
    (folder / "points.csv").write_text(points)
    with pytest.raises(TableError, match=message):
        read_folder(folder, describe)
    got = read_folder(folder, describe, skip_bad=True)
    assert len(got.refused) == 1
    assert len(got.images) >= 2


def test_bad_folders(folder: Path, tmp_path: Path) -> None:
    """No folder, no images, no such class, a damaged image, one image in two classes."""
    with pytest.raises(MissingFileError, match="is no folder"):
        read_folder(tmp_path / "none", describe)
    with pytest.raises(TableError, match="holds no folders of images, one a class"):
        read_folder(folder / "normal", describe)
    with pytest.raises(TableError, match="unknown class 'abnormal'; known are normal, odd"):
        read_folder(folder, describe, classes=("normal", "odd"))
    (folder / "points.csv").write_text("file\n")
    with pytest.raises(TableError, match="has no column row and no column col"):
        read_folder(folder, describe)
    (folder / "points.csv").unlink()
    (folder / "abnormal" / "d.png").write_bytes((folder / "normal" / "a.png").read_bytes())
    with pytest.raises(TableError, match=r"cells/normal/a\.png is the same image as abnormal/d"):
        read_folder(folder, describe)
    (folder / "abnormal" / "d.png").write_bytes(b"\x89PNG\r\n\x1a\nnonsense")
    with pytest.raises(CellpathError, match=r"d\.png is not a readable image"):
        read_folder(folder, describe)
    assert len(read_folder(folder, describe, skip_bad=True).images) == 3
