"""Reading labelled regions: the Chula layout, the paper's, and what is refused."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_cellpath.core.errors import MissingFileError, RecipeError, TableError
from tests.training.rbc.smears import PLACES, write_smears, write_table
from training.rbc.chula import read_chula
from training.rbc.data import chosen, kinds_of
from training.rbc.folders import read_regions
from training.rbc.recipe import RbcRegions
from training.rbc.table import targets_for


def test_chula_cells_regions_and_fields(tmp_path: Path) -> None:
    folder = write_smears(tmp_path / "s", blocks=3, per_block=1, untyped=0.0)
    data = read_chula(folder)
    assert len(data.fields) == 3
    assert all(len(f.boxes) == len(PLACES) for f in data.fields)
    assert data.grouped_by == "image block"
    assert set(data.groups) == {
        "block 00",
        "block 01",
        "block 02",
    }
    kinds = kinds_of(data)
    merged = data.cells > 1
    assert merged.any()
    assert data.known.all()
    assert kinds["cells"].sum() == 3 * len(PLACES)
    assert kinds["single"].sum() + data.cells[merged].sum() == 3 * len(PLACES)
    for record, targets in zip(data.records, data.targets, strict=True):
        assert record.abnormal == bool(targets[1:].any())


def test_untyped_cells_are_never_absent_types(tmp_path: Path) -> None:
    data = read_chula(write_smears(tmp_path / "s", blocks=3, untyped=0.5))
    partial = ~data.known
    assert partial.any()
    assert set(np.unique(data.targets[partial])) == {-1, 1}
    assert not (kinds_of(data)["multi"] & partial).any()
    without = chosen(data, RbcRegions(partial=False))
    assert without.known.all()
    assert len(without.records) < len(data.records)
    alone = chosen(data, RbcRegions(multi=False, cells=False))
    assert (alone.cells == 1).all()
    assert set(alone.kinds.tolist()) == {"region"}


def test_chula_is_refused_with_the_line(tmp_path: Path) -> None:
    folder = write_smears(tmp_path / "s", blocks=1, per_block=1)
    table = folder / "boxes_derived.csv"
    lines = table.read_text().splitlines()
    table.write_text("\n".join([*lines[:2], lines[2].rpartition(",")[0] + ",77"]))
    with pytest.raises(TableError, match="line 3: '77' is no type"):
        read_chula(folder)
    name, x1, *_ = lines[1].split(",")
    table.write_text(f"{lines[0]}\n{name},{x1},5,{x1},9,0\n")
    with pytest.raises(TableError, match="line 2: the box has no area"):
        read_chula(folder)
    table.write_text(f"{lines[0]}\n../away.png,0,0,5,5,0\n")
    with pytest.raises(TableError, match="outside the data folder"):
        read_chula(folder)


def paper_folder(folder: Path) -> Path:
    """Two fields: boxes of the first from a table, of the second from its mask."""
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    for name in ("a", "b"):
        Image.fromarray(np.full((40, 60, 3), 200, np.uint8)).save(folder / "images" / f"{name}.png")
    mask = np.zeros((40, 60), np.uint8)
    mask[5:15, 5:15] = mask[15:25, 15:25] = 255  # meet at a corner
    mask[30:38, 40:55] = 255
    mask[1, 50:59] = 255
    Image.fromarray(mask).save(folder / "masks" / "b.png")
    write_table(folder / "boxes.csv", [
        {"image": "images/a.png", "row0": 2, "col0": 2, "row1": 12, "col1": 20},
        {"image": "images/a.png", "row0": 20, "col0": 30, "row1": 32, "col1": 44},
    ])  # fmt: skip
    write_table(folder / "labels.csv", [
        {"image": "images/a.png", "row": 5, "col": 5, "labels": "Oval; Stom"},
        {"image": "images/a.png", "row": 25, "col": 40, "labels": ""},
        {"image": "images/b.png", "row": 7, "col": 7, "labels": "Echi"},
        {"image": "images/b.png", "row": 20, "col": 20, "labels": "Oval"},
    ])  # fmt: skip
    return folder


def test_the_papers_layout(tmp_path: Path) -> None:
    folder = paper_folder(tmp_path / "p")
    with pytest.warns(UserWarning, match="no images"):
        data = read_regions(folder)
    assert [c.name for c in data.fine_classes] == ["Oval", "Echi", "Stom"]
    assert [c.abnormal for c in data.fine_classes] == [False, True, True]
    found = {
        (r.image.stem, r.box): t for r, t in zip(data.records, data.targets.tolist(), strict=True)
    }
    assert found == {
        ("a", (2, 2, 12, 20)): [1, 0, 1],
        ("a", (20, 30, 32, 44)): [0, 0, 0],  # looked at, and none of them
        ("b", (5, 5, 25, 25)): [1, 1, 0],  # two labels, one region of 8-connected pixels
    }
    assert [len(f.boxes) for f in data.fields] == [2, 2]  # the third component carries no label
    write_table(folder / "images.csv", [
        {"image": f"images/{n}.png", "group": "one smear"} for n in "ab"])  # fmt: skip
    with (folder / "labels.csv").open("a") as file:
        csv.writer(file).writerow(["images/b.png", 1, 1, "Oval"])
    with pytest.raises(TableError, match="line 6: no region of images/b"):
        read_regions(folder, connectivity=4)


def test_a_missing_mask_is_named(tmp_path: Path) -> None:
    folder = paper_folder(tmp_path / "p")
    (folder / "masks" / "b.png").unlink()
    with pytest.raises(MissingFileError, match="has no boxes in"):
        read_regions(folder)


def test_types_of_another_model(tmp_path: Path) -> None:
    data = read_chula(write_smears(tmp_path / "s", blocks=2, untyped=0.0))
    fewer = data.fine_classes[:1]
    with pytest.raises(RecipeError, match="'microcyte', which the model does not know"):
        targets_for(data, fewer)
    turned = targets_for(data, data.fine_classes[::-1])
    np.testing.assert_array_equal(turned, data.targets[:, ::-1])
