"""Data folders become labelled cells, or a sentence that says why not."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_cellpath.core.errors import CellpathError
from tests.training.conftest import read_table, write_table
from training.datasets import find_folder, read_cells
from training.deeppap_recipe import Data


def test_herlev_layout(cells_folder: Path) -> None:
    """Class, slide, nucleus centre and mask come from the table; pixel centres are integers."""
    data = read_cells(Data(folder=str(cells_folder)))
    assert len(data.records) == 40
    assert data.name == "herlev"
    first = data.records[0]
    assert (first.row, first.col) == (31.5, 31.5)
    assert first.group == "slide-000"
    assert first.mask is not None
    assert first.mask.is_file()
    assert data.abnormal.tolist() == [r.fine_class > 2 for r in data.records]
    assert [c.abnormal for c in data.fine_classes] == [False] * 3 + [True] * 4
    assert data.features().shape == (40, 0)


def test_hash_follows_pixels_and_labels(cells_folder: Path, tmp_path: Path) -> None:
    """The data's SHA-256 changes with one label or one image, and not with the place."""
    copy = Path(shutil.copytree(cells_folder, tmp_path / "elsewhere"))
    before = read_cells(Data(folder=str(cells_folder))).sha256
    assert read_cells(Data(folder=str(copy))).sha256 == before
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(copy / "images" / "000.png")
    assert read_cells(Data(folder=str(copy))).sha256 != before


def test_folders_layout(tmp_path: Path) -> None:
    """A folder a class and points.csv: folders named normal... are normal."""
    rows: list[dict[str, object]] = []
    for kind in ("normal_columnar", "severe"):
        (tmp_path / kind).mkdir()
        for i in range(2):
            Image.fromarray(np.full((20, 20, 3), 200, np.uint8)).save(tmp_path / kind / f"{i}.png")
            rows.append({"file": f"{kind}/{i}.png", "row": 9, "col": 10.5, "group": f"s{i}"})
    write_table(tmp_path / "points.csv", rows)
    data = read_cells(Data(layout="folders", folder=str(tmp_path)))
    assert [c.name for c in data.fine_classes] == ["normal_columnar", "severe"]
    assert data.abnormal.tolist() == [False, False, True, True]
    assert data.records[1].group == "s1"
    assert (data.records[0].row, data.records[0].col) == (9, 10.5)


def change(folder: Path, column: str, value: str) -> None:
    rows = read_table(folder / "labels.csv")
    rows[3][column] = value
    write_table(folder / "labels.csv", rows)


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        ("class_id", "8", "unknown class '8'"),
        ("nucleus_x", "left", "line 5"),
        ("file", "images/none.png", "is not there"),
        ("file", "../../secret.png", "outside the data folder"),
        ("slide_group", "", "slide_group is empty"),
    ],
)
def test_bad_rows_are_named(
    cells_folder: Path, tmp_path: Path, column: str, value: str, says: str
) -> None:
    """A wrong value names the table and the line or value, in one sentence."""
    folder = Path(shutil.copytree(cells_folder, tmp_path / "d"))
    change(folder, column, value)
    with pytest.raises(CellpathError, match=says) as refusal:
        read_cells(Data(folder=str(folder)))
    assert "\n" not in str(refusal.value)


def test_no_images_and_no_table(tmp_path: Path) -> None:
    """An empty folder, an empty table and a folder that is not there are told apart."""
    with pytest.raises(CellpathError, match=r"labels\.csv is missing"):
        read_cells(Data(folder=str(tmp_path)))
    (tmp_path / "labels.csv").write_text("file,class_id,slide_group,nucleus_x,nucleus_y\n")
    with pytest.raises(CellpathError, match="names no images"):
        read_cells(Data(folder=str(tmp_path)))
    (tmp_path / "labels.csv").write_text("file,class_id\n")
    with pytest.raises(CellpathError, match="no column 'slide_group'"):
        read_cells(Data(folder=str(tmp_path)))
    with pytest.raises(CellpathError, match="no folders of images"):
        read_cells(Data(layout="folders", folder=str(tmp_path)))
    with pytest.raises(CellpathError, match="no data folder"):
        find_folder(str(tmp_path / "none"))
