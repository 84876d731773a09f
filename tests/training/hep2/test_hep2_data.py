"""Layouts of HEp-2 data, what is refused of them; training cuts cells as inference does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from napari_cellpath.core.errors import CellpathError
from napari_cellpath.core.vocabulary import Channel, Contrast
from napari_cellpath.systems.hep2.cells import CellInput
from tests.training.hep2.cells import PATTERNS, write_cells
from training.datasets import CellRecord
from training.hep2.data import crop_cell, crop_cells, layout_of, read_cells
from training.hep2.recipe import Hep2Data

WANTED = CellInput(60, Contrast.MINMAX, 1.3)


def test_a_table_with_specimens(tmp_path: Path) -> None:
    """Groups are specimens; classes come in the paper's order; the hash follows the content."""
    folder = write_cells(tmp_path / "d", per_specimen=2, specimens=2)
    data = read_cells(Hep2Data(folder=str(folder)))
    assert [c.name for c in data.fine_classes] == list(PATTERNS)
    assert data.grouped_by == "specimen"
    assert len(set(data.groups)) == 6
    assert data.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    image = data.records[0].image
    image.write_bytes(data.records[5].image.read_bytes())
    assert read_cells(Hep2Data(folder=str(folder))).sha256 != data.sha256


def test_a_pseudo_group_is_told_from_a_specimen(tmp_path: Path) -> None:
    """The stand-in is used, and named for what it is."""
    folder = write_cells(tmp_path / "d", per_specimen=1, specimens=2, column="pseudo_group")
    assert read_cells(Hep2Data(folder=str(folder))).grouped_by == "pseudo group"


def test_without_specimens_every_image_stands_alone_and_that_is_said(tmp_path: Path) -> None:
    """A table without a column for it, and folders of images."""
    folder = write_cells(tmp_path / "d", per_specimen=1, specimens=2, column="")
    with pytest.warns(UserWarning, match="which specimen"):
        table = read_cells(Hep2Data(folder=str(folder)))
    assert table.grouped_by == "image"
    assert layout_of(folder) == "hep2"
    assert layout_of(folder / "images") == "folders"
    with pytest.warns(UserWarning, match="which specimen"):
        data = read_cells(Hep2Data(folder=str(folder / "images"), layout="folders"))
    assert data.labels.tolist() == table.labels.tolist()
    assert len(set(data.groups)) == len(data.records) == 6


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda t: t.replace("file,", "path,"), "no column 'file'"),
        (lambda t: t.replace(",Speckled,", ",,"), "class_name is empty"),
        (lambda t: t.replace("NuMem-0-0", " "), "specimen is empty"),
        (lambda t: t.replace("images/NuMem", "../NuMem"), "lies outside the data folder"),
        (lambda t: t.replace("images/NuMem", "images/no"), "is not there"),
        (lambda t: t.splitlines()[0] + "\n", "names no images"),
    ],
)
def test_bad_tables_are_refused_in_one_line(tmp_path: Path, change: object, says: str) -> None:
    """Each names the table and what is wrong with it."""
    folder = write_cells(tmp_path / "d", per_specimen=1, specimens=1)
    table = folder / "labels.csv"
    table.write_text(change(table.read_text()))  # type: ignore[operator]
    with pytest.raises(CellpathError, match=says) as refusal:
        read_cells(Hep2Data(folder=str(folder)))
    assert "\n" not in str(refusal.value)


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    """One image of many that cannot be read."""
    folder = write_cells(tmp_path / "d", per_specimen=1, specimens=1)
    data = read_cells(Hep2Data(folder=str(folder)))
    data.records[1].image.write_bytes(b"\x89PNG nonsense")
    with pytest.raises(CellpathError, match=data.records[1].image.name):
        crop_cells(data.records, Channel.GREEN, WANTED)


def test_a_box_in_a_field_and_its_own_image_are_the_same_cell(tmp_path: Path) -> None:
    """Framed by its box, a cell in a field is what its square would be as an image of its own."""
    rng = np.random.default_rng(0)
    field = rng.integers(0, 255, (200, 220), dtype=np.uint8)
    Image.fromarray(field).save(tmp_path / "field.png")
    record = CellRecord(tmp_path / "field.png", 0, 0, 0, False, "s", box=(80, 90, 120, 130))
    Image.fromarray(field[74:126, 84:136]).save(tmp_path / "one.png")
    alone = replace(record, image=tmp_path / "one.png", box=None)
    cut = crop_cell(record, Channel.GREEN, WANTED)
    assert cut.shape == (1, 60, 60)
    assert torch.equal(cut, crop_cell(alone, Channel.GREEN, WANTED))
    at_the_edge = crop_cell(replace(record, box=(0, 0, 40, 40)), Channel.GREEN, WANTED)
    assert torch.isfinite(at_the_edge).all()
