"""Regions in folders and projects, crops, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from napari_cellpath.core.annotations import Annotation, Part, Shape
from napari_cellpath.core.errors import MissingFileError, RecipeError, TableError
from napari_cellpath.core.vocabulary import System
from tests.training.hspnet.projects import PaintedProject, make_painted
from tests.training.hspnet.tissue import MTCHI, SIDE, write_glas, write_mtchi, write_rows
from training.datasets import CellData
from training.hspnet.crops import (
    Region,
    cut_crops,
    draw_crops,
    list_crops,
    load_regions,
    resample,
)
from training.hspnet.data import (
    GLAS_CLASSES,
    RegionRecord,
    layout_of,
    load_region,
    read_mask,
    read_project,
    read_regions,
)
from training.hspnet.folds import plan_of
from training.hspnet.losses import IGNORE
from training.hspnet.recipe import Crops, HspAugmentation, HspData, HspRecipe


def read(folder: Path, layout: str = "mtchi") -> CellData:
    return read_regions(HspData(layout=layout, folder=str(folder)))  # type: ignore[arg-type]


def test_colours_and_numbers_are_the_same_masks(tmp_path: Path) -> None:
    """The paper's five colours and class numbers give one data set."""
    shown = read(write_mtchi(tmp_path / "a", colours=True))
    numbered = read(write_mtchi(tmp_path / "b", colours=False))
    for one, two in zip(shown.records, numbered.records, strict=True):
        assert (load_region(one, 0, 5)[1] == load_region(two, 0, 5)[1]).all()  # type: ignore[arg-type]
    assert shown.labels.tolist() == [1, 4] * 4
    assert shown.grouped_by == "slide"
    assert [c.colour for c in shown.fine_classes] == [
        "#000000", "#ffffff", "#00ff00", "#0000ff", "#ff0000"
    ]  # fmt: skip
    assert layout_of(tmp_path / "a") == "mtchi"


def test_a_region_of_glas_has_its_patient(glas_folder: Path) -> None:
    """Groups are patients; the class is that of most tissue; the masks are in the hash."""
    data = read(glas_folder, "glas")
    assert len(data.records) == 12
    assert data.groups[:3] == ["0", "0", "1"]
    assert data.labels.tolist() == [1, 2] * 6
    assert data.fine_classes == GLAS_CLASSES
    assert layout_of(glas_folder) == "glas"


def test_another_mask_is_other_data(tmp_path: Path) -> None:
    """The hash is of images and masks."""
    before = read(write_glas(tmp_path / "a", n=4), "glas").sha256
    path = tmp_path / "a" / "masks3" / "s00.png"
    mask = np.asarray(Image.open(path)).copy()
    mask[0, 0] = 1
    Image.fromarray(mask).save(path)
    assert read(tmp_path / "a", "glas").sha256 != before


@pytest.mark.parametrize(
    ("spoil", "error", "said"),
    [
        (lambda f: (f / "masks" / "r1.png").unlink(), MissingFileError, "r1.png has no mask"),
        (lambda f: (f / "slides.csv").unlink(), MissingFileError, "slides.csv"),
        (lambda f: write_rows(f / "slides.csv", [{"file": "r0.png"}]), TableError, "slide"),
        (
            lambda f: write_rows(f / "slides.csv", [{"file": "r0.png", "slide": "a"}]),
            TableError, "r1.png",
        ),
        (
            lambda f: Image.new("RGB", (SIDE, SIDE), (1, 2, 3)).save(f / "masks" / "r1.png"),
            TableError, r"\(1, 2, 3\) at row 0",
        ),
        (
            lambda f: Image.new("L", (SIDE, SIDE), 7).save(f / "masks" / "r1.png"),
            TableError, "value 7",
        ),
        (
            lambda f: Image.new("L", (SIDE, 9)).save(f / "masks" / "r1.png"),
            TableError, "its image",
        ),
        (lambda f: (f / "masks" / "r1.png").write_bytes(b"no"), TableError, "r1.png"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(
    tmp_path: Path, spoil: object, error: type[Exception], said: str
) -> None:
    """A missing or misfit mask, an unknown colour or value, a region without a slide."""
    folder = write_mtchi(tmp_path / "m")
    spoil(folder)  # type: ignore[operator]
    with pytest.raises(error, match=said):
        read(folder)


def test_the_test_set_is_one_fold_of_four(tmp_path: Path) -> None:
    """Told alone, it is the first; the others are dealt by slide (papers.md 3.7)."""
    data = read(write_mtchi(tmp_path / "m", n=8))
    plan = plan_of(data, HspRecipe(name="x", split={"folds": 4, "run_folds": 0}))  # type: ignore[arg-type]
    assert plan.folds[0].tolist() == [6, 7]
    assert len(plan.folds) == 4
    assert sorted(np.concatenate(plan.folds).tolist()) == list(range(8))
    groups = [{data.groups[i] for i in fold} for fold in plan.folds]
    assert sum(map(len, groups)) == len(set.union(*groups))


def test_crops_lie_on_the_papers_grid() -> None:
    """Every 100 pixels, the last at the border; less than 20 % tissue is left out."""
    classes = np.zeros((500, 650), np.uint8)
    classes[:, :80] = 1
    region = Region(np.zeros((500, 650, 3), np.uint8), classes)
    found = list_crops([region], Crops(), painted=False)
    assert found.places[:, 1:].tolist() == [[0, 0], [100, 0]]  # 80 of 400 columns are 20 %
    every = list_crops([region], Crops(foreground=0.0), painted=False)
    assert every.places[:, 1].max() == 100
    assert sorted(set(every.places[:, 2].tolist())) == [0, 100, 200, 250]
    with pytest.raises(RecipeError, match="foreground"):
        list_crops([region], Crops(foreground=0.9), painted=False)


def test_drawn_crops_are_even_and_follow_the_epoch_alone() -> None:
    """Classes in turn although one is rare; the same epoch draws the same."""
    regions = [
        Region(np.zeros((96, 96, 3), np.uint8), np.full((96, 96), 1 + (i > 2), np.uint8))
        for i in range(4)
    ]
    settings = Crops(side=32, stride=32, per_epoch=24)
    crops = list_crops(regions, settings, painted=False)
    rows = np.arange(4)
    first = draw_crops(crops, rows, settings, 0, 5)
    assert np.bincount(crops.main[first]).tolist() == [0, 12, 12]
    assert (first == draw_crops(crops, rows, settings, 0, 5)).all()
    assert (first != draw_crops(crops, rows, settings, 1, 5)).any()
    assert set(crops.places[draw_crops(crops, rows[:2], settings, 0, 5), 0].tolist()) == {0, 1}
    whole = draw_crops(crops, rows, Crops(side=32, stride=32), 0, 5)
    assert sorted(whole.tolist()) == list(range(36))


def test_pixels_and_classes_turn_and_zoom_together() -> None:
    """An image that is its own mask still is after every kind of geometry."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 2, (9, 9)).astype(np.uint8)
    classes = np.kron(coarse, np.ones((12, 12), np.uint8))
    region = Region(np.repeat(classes[..., None] * 200, 3, axis=2), classes)
    settings = HspAugmentation(turns="d4", shift=20, scale=0.3)
    places = np.array([[0, 10, 20]] * 12)
    images, wanted = cut_crops([region], places, 48, settings, torch.Generator().manual_seed(1))
    same = (images[:, 0] > 100).long() == wanted
    assert images.shape == (12, 3, 48, 48)
    assert same.float().mean() > 0.97  # but for the edges between pixels
    assert len({tuple(w.flatten().tolist()) for w in wanted}) == 12


def test_stain_varies_and_classes_do_not() -> None:
    """Colour alone changes."""
    region = Region(np.full((32, 32, 3), (180, 120, 160), np.uint8), np.ones((32, 32), np.uint8))
    settings = HspAugmentation(stain=0.3, colour=0.1, blur=1.0)
    images, wanted = cut_crops(
        [region], np.zeros((6, 3), np.int64), 32, settings, torch.Generator().manual_seed(0)
    )
    assert images.mean(dim=(2, 3)).std(dim=0).min() > 1.0
    assert (wanted == 1).all()


def test_small_regions_are_filled_up_and_not_counted_twice(tmp_path: Path) -> None:
    """Mirrored all round to a tile; the mirror has no class."""
    folder = write_glas(tmp_path / "g", n=2)
    data = read(folder, "glas")
    (region,) = load_regions(data, [0], 100, data.mpp)
    assert region.classes.shape == (100, 100)
    assert int((region.classes != IGNORE).sum()) == SIDE * SIDE
    before = (100 - SIDE) // 2
    assert (region.classes[:before] == IGNORE).all()


def test_another_scale_is_resampled_exactly_once() -> None:
    """Half the pixels each way; classes stay classes."""
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3)).astype(np.uint8)
    classes = np.kron(np.eye(4, dtype=np.uint8), np.full((10, 15), 2, np.uint8))
    smaller, fewer = resample(pixels, classes, 2.0)
    assert smaller.shape == (20, 30, 3)
    assert set(np.unique(fewer)) == {0, 2}
    assert fewer[1, 1] == 2
    assert abs(float(smaller.mean()) - float(pixels.mean())) < 1


def test_a_project_gives_what_is_painted(tmp_path: Path) -> None:
    """Complete rectangles whole, outside them the painted pixels alone; parts are the ledger's."""
    made = make_painted(tmp_path / "p.cellpath", {Part.TRAIN: 2, Part.FROZEN: 1})
    data = read_project(made.folder, GLAS_CLASSES)
    assert len(data.records) == 3
    assert {data.parts[g] for g in data.groups} == {Part.TRAIN, Part.FROZEN}
    for record in data.records:
        assert isinstance(record, RegionRecord)
        pixels, classes = load_region(record, 10, 3)
        assert pixels.shape[:2] == classes.shape
        inside = classes[classes != IGNORE]
        r0, c0, r1, c1 = record.window
        assert inside.size == (r1 - r0) * (c1 - c0)
        assert set(np.unique(inside)) == {0, record.fine_class}


def test_strokes_without_a_rectangle_teach_their_own_pixels_alone(tmp_path: Path) -> None:
    """Nothing round a stroke is taken for background."""
    made = make_painted(tmp_path / "p.cellpath", {Part.TRAIN: 1}, complete=False)
    (record,) = read_project(made.folder, GLAS_CLASSES).records
    _, classes = load_region(record, 0, 3)  # type: ignore[arg-type]
    assert set(np.unique(classes)) == {1, IGNORE}


def test_a_painted_class_nobody_knows_is_refused(tmp_path: Path) -> None:
    """By name; and a project without any painting."""
    made = make_painted(
        tmp_path / "p.cellpath", {Part.TRAIN: 1}, names=("background", "polyp", "cancer")
    )
    with pytest.raises(RecipeError, match="'polyp' is painted"):
        read_project(made.folder, GLAS_CLASSES)
    empty = PaintedProject(tmp_path / "e.cellpath")
    empty.write([])
    with pytest.raises(RecipeError, match="nothing to learn from"):
        read_project(empty.folder, GLAS_CLASSES)
    with pytest.raises(MissingFileError):
        read_project(tmp_path / "none.cellpath", GLAS_CLASSES)


def test_masks_of_a_palette_are_numbers(tmp_path: Path) -> None:
    """A palette image holds class numbers, whatever colours it shows."""
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), mode="P")
    image.putpalette([v for c in MTCHI for v in c])
    image.save(tmp_path / "p.png")
    assert read_mask(tmp_path / "p.png", 3).tolist() == [[0, 1], [2, 1]]


def test_rectangles_of_other_systems_are_not_tissues(tmp_path: Path) -> None:
    """A Complete rectangle of nuclei says nothing of tissue."""
    made = make_painted(tmp_path / "p.cellpath", {Part.TRAIN: 1}, complete=False)
    made.add(
        Annotation("n1", made.keys[0], System.DEEPPAP, Shape.BOX, (0, 0, 20, 20), complete=True)
    )
    assert len(read_project(made.folder, GLAS_CLASSES).records) == 1
