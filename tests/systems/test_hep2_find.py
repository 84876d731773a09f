"""Cells of a fluorescence field: what is found, that tiles do not change it, what holds nothing."""

import numpy as np
import pytest
from PIL import Image as PILImage
from scipy import ndimage

from napari_cellpath.core.errors import OutsideImageError, ScaleError, UnreadableImageError
from napari_cellpath.core.requests import FileImage, FindCellsRequest, MemoryImage
from napari_cellpath.core.vocabulary import Channel
from napari_cellpath.samples import hep2_field
from napari_cellpath.systems.hep2 import find_plan
from napari_cellpath.systems.hep2.find_plan import FindCellsPlan, mask_image, search
from napari_cellpath.systems.hep2.segment import SegmentSettings, average_blocks
from tests.support.models import write_pattern_model

MPP = 0.3225


def discs(places, radius=28, level=150, shape=(400, 500), ground=12, seed=0):
    """Bright discs on a dark ground, blurred and counted in photons."""
    image = np.full(shape, float(ground))
    rows, cols = np.ogrid[: shape[0], : shape[1]]
    for row, col in places:
        image[(rows - row) ** 2 + (cols - col) ** 2 < radius**2] = level
    photons = np.random.default_rng(seed).poisson(ndimage.gaussian_filter(image, 1.5))
    return np.clip(photons, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(write_pattern_model(tmp_path_factory.mktemp("models") / "random"))


def plan_of(image, model, **options):
    given = image if isinstance(image, FileImage | MemoryImage) else MemoryImage(image, mpp=MPP)
    return FindCellsPlan(FindCellsRequest(given, model, **options))


def run(plan, last_first=False):
    while not plan.finished:
        tasks = list(iter(plan.take, None))
        for task in tasks[:: -1 if last_first else 1]:
            plan.give(task, search(task.payload))
    assert plan.progress == 1.0
    return plan.results()


def found(image, model, **options):
    return run(plan_of(image, model, **options))


def facts(cells):
    return [(c.row, c.col, c.box, c.mask.tobytes()) for c in cells]


@pytest.fixture(scope="module")
def field():
    return hep2_field()


@pytest.mark.parametrize("seed", [0, 1])
def test_every_cell_of_every_pattern_is_found_once(seed, model):
    """Dots, blobs and rims of one nucleus are one cell; its box is that of the nucleus."""
    field = hep2_field(seed)
    cells = found(field.image, model)
    assert len(cells) == len(field.patterns)
    labels = mask_image(cells, field.image.shape)
    for number, (pattern, (row, col)) in enumerate(
        zip(field.patterns, field.centres, strict=True), start=1
    ):
        truth = field.labels == number
        ours = labels == labels[round(row), round(col)]
        assert labels[round(row), round(col)] > 0, pattern
        overlap = (truth & ours).sum() / (truth | ours).sum()
        assert overlap > (0.6 if pattern == "Golgi" else 0.75), pattern


@pytest.mark.parametrize("apart", [58, 52, 46])
def test_touching_nuclei_are_parted(apart, model):
    """Discs 56 pixels wide that touch or overlap are two cells, each in its place."""
    cells = found(discs([(200, 150), (200, 150 + apart)]), model)
    assert len(cells) == 2
    assert sorted(c.col for c in cells) == pytest.approx([150, 150 + apart], abs=6)


def test_cells_at_the_border_are_kept(model):
    """Cut by the edge, in the corner: found; their boxes end with the image."""
    cells = found(discs([(0, 100), (200, 499), (390, 250), (200, 200)]), model)
    assert len(cells) == 4
    assert min(c.box[0] for c in cells) == 0
    assert max(c.box[2] for c in cells) == 400
    assert max(c.box[3] for c in cells) == 500


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((300, 300), np.uint8),
        np.full((300, 300), 99, np.uint8),
        discs([]),
        discs([], ground=200),
        np.full((1, 1), 9, np.uint8),
        np.random.default_rng(1).integers(0, 256, (300, 400), dtype=np.uint8),
        np.tile(np.linspace(0, 200, 500).astype(np.uint8), (400, 1)),
    ],
    ids=["black", "grey", "dark noise", "bright noise", "pixel", "white noise", "gradient"],
)
def test_a_field_without_cells_holds_none(image, model):
    """All-black and empty fields are no error and give no cells."""
    assert list(found(image, model)) == []


def test_uneven_light_and_dim_cells(model):
    """A background that doubles across the field, and cells four times dimmer than others."""
    bright = discs([(100, 100), (300, 400)], level=160).astype(int)
    dim = discs([(300, 100), (100, 400)], level=45, ground=0, seed=1).astype(int)
    ramp = np.linspace(0, 30, 500).astype(int)
    cells = found(np.clip(bright + dim + ramp, 0, 255).astype(np.uint8), model)
    assert len(cells) == 4


def test_diameters_and_sensitivity_are_obeyed(model):
    """In um: 18 um discs are no cells of 20 to 30 um; a lower threshold finds dimmer ones."""
    image = discs([(100, 100), (300, 300)])
    assert len(found(image, model, smallest=20.0, largest=30.0)) == 0
    assert len(found(image, model, smallest=5.0, largest=12.0)) == 0
    assert len(found(MemoryImage(image, mpp=MPP / 3), model, smallest=3.0, largest=9.0)) == 2
    mixed = discs([(100, 100)], level=200).astype(int) + discs([(300, 300)], level=9, ground=0)
    mixed = mixed.clip(0, 255).astype(np.uint8)
    assert len(found(mixed, model, sensitivity=0.3)) <= 1
    assert len(found(mixed, model, sensitivity=6.0)) >= len(found(mixed, model))


def test_tiles_and_regions_do_not_change_what_is_found(field, model, monkeypatch):
    """Whole, in small tiles in either order, or by region: the same cells to the last pixel."""
    whole = facts(found(field.image, model))
    monkeypatch.setattr(find_plan, "CORE_PIXELS", 256)
    monkeypatch.setattr(find_plan, "SURVEY_PIXELS", 300)
    assert facts(found(field.image, model)) == whole
    assert facts(run(plan_of(field.image, model), last_first=True)) == whole
    halves = [
        fact
        for region in ((0, 0, 1040, 611), (0, 611, 1040, 900))
        for fact in facts(found(field.image, model, region=region))
    ]
    assert sorted(halves) == sorted(whole)


def test_file_memory_colour_and_depth_give_the_same(field, model, tmp_path):
    """From disk, from memory, as the green of RGB, in 16 bits: one answer."""
    whole = facts(found(field.image, model))
    PILImage.fromarray(field.image).save(tmp_path / "f.png")
    assert facts(found(FileImage(str(tmp_path / "f.png"), mpp=MPP), model)) == whole
    rgb = np.zeros((*field.image.shape, 3), np.uint8)
    rgb[..., 1] = field.image
    assert facts(found(rgb, model)) == whole
    assert list(found(rgb, model, channel=Channel.RED)) == []
    deep = MemoryImage(field.image.astype(np.uint16) * 257, mpp=MPP)
    assert facts(found(deep, model)) == whole


def test_nan_is_refused_and_regions_off_the_image_too(model):
    """Floats with NaN, a region that misses the image, diameters the wrong way round."""
    image = np.zeros((200, 200), np.float32)
    image[5, 5] = np.nan
    with pytest.raises(UnreadableImageError, match="not finite"):
        found(image, model)
    with pytest.raises(OutsideImageError, match="400 x 500"):
        plan_of(discs([]), model, region=(900, 0, 10, 10))
    with pytest.raises(OutsideImageError, match="not a finite number"):
        plan_of(discs([]), model, region=(float("nan"), 0, 10, 10))
    for options in ({"smallest": 30.0, "largest": 8.0}, {"sensitivity": 0.0}, {"smallest": 0.0}):
        with pytest.raises(ScaleError):
            plan_of(discs([]), model, **options)
    with pytest.raises(ScaleError, match="no pixel size"):
        plan_of(MemoryImage(discs([]), mpp=1e9), model)


def test_blocks_are_means_and_the_cut_off_ones_too():
    """A 5 x 5 plane in blocks of 2: the last row and column average what there is."""
    means = average_blocks(np.arange(25, dtype=np.uint8).reshape(5, 5), 2)
    assert means.shape == (3, 3)
    assert means[0, 0] == np.mean([0, 1, 5, 6])
    assert means[2, 2] == 24
    assert means[0, 2] == np.mean([4, 9])
    assert SegmentSettings().block(0.3225) == 2
    assert SegmentSettings().block(5.0) == 1
