"""Tissue in the bridge: where layers lie, how they grow, what painting changes, what is written."""

import json

import numpy as np
import pytest
import tifffile
from napari.layers import Image, Labels
from scipy import ndimage

from napari_cellpath.bridge import painting, tissue_export, tissue_stores
from napari_cellpath.bridge.conventions import facts_of, placing_at
from napari_cellpath.bridge.corrected import CorrectedStore
from napari_cellpath.bridge.paint_recording import PaintRecorder
from napari_cellpath.bridge.review_tissue import TissueReview
from napari_cellpath.bridge.tissue import NOT_DONE, TissueRegion, region_of
from napari_cellpath.bridge.tissue_reading import read_region
from napari_cellpath.bridge.tissue_tiles import painted_tiles, read_tiles, tile_window
from napari_cellpath.core.errors import CellpathError
from napari_cellpath.core.requests import MemoryImage, SegmentRequest
from napari_cellpath.core.vocabulary import CIN_CLASSES, CIN_COLOURS
from napari_cellpath.project import Project
from napari_cellpath.project.images import add_image
from napari_cellpath.project.painted import raster_name
from napari_cellpath.project.state import Raster
from napari_cellpath.slides.region_store import SKIPPED, UNSEEN, RegionFacts, RegionStore

SHAPE = (300, 340)
STEP = 1.5
CORNER = (30.0, 45.0)


def facts(**changes) -> RegionFacts:
    return RegionFacts(**{
        "image": {"name": "slide.tif", "shape": [1000, 1200], "fingerprint": "ab", "mpp": 0.5},
        "model": "tissue-test@12345678", "sha256": "12345678", "class_names": CIN_CLASSES,
        "colours": CIN_COLOURS, "abnormal": (False, False, True, True, True), "shape": SHAPE,
        "step": (STEP, STEP), "corner": CORNER, "mpp": 0.75,
        "layout": {"mode": "exact", "blend": "rbf", "tile": [64, 64], "stride": [16, 16]},
        "probabilities": True,
    } | changes)  # fmt: skip


def truth() -> np.ndarray:
    """Blobs of every class, and a strip that was skipped."""
    rng = np.random.default_rng(0)
    noise = ndimage.gaussian_filter(rng.standard_normal((5, *SHAPE)), (0, 12, 12))
    labels = noise.argmax(axis=0).astype(np.uint8)
    labels[:, -20:] = SKIPPED
    return labels


@pytest.fixture
def store(tmp_path) -> RegionStore:
    store = RegionStore.create(tmp_path / "region.ome.zarr", facts())
    labels = truth()
    chances = np.full((5, *SHAPE), 20, np.uint8)
    for number in range(5):
        chances[number][labels == number] = 175
    store.write_rows(0, labels[:200], chances[:, :200])
    store.write_rows(200, labels[200:], chances[:, 200:])
    return RegionStore.open(store.path)


@pytest.fixture
def image() -> Image:
    return Image(
        np.full((1000, 1200, 3), 240, np.uint8), rgb=True, scale=(0.5, 0.5), translate=(7, -3)
    )


def test_an_array_lies_where_it_is_said(image):
    """Its first pixel's middle, and every other's, by way of the world; turned images too."""
    turned = Image(
        np.zeros((50, 60)), scale=(0.5, 0.4), translate=(3, 4), rotate=30,
        affine=[[1, 0.2, 5], [0, 1, -6], [0, 0, 1]],
    )  # fmt: skip
    for under in (image, turned):
        over = Labels(np.zeros((20, 30), np.uint8), **placing_at(under, 10.25, 20.5, (1.5, 2.0)))
        for row, col in ((0, 0), (7, 11)):
            there = over.data_to_world((row, col))
            np.testing.assert_allclose(
                under.world_to_data(there), (10.25 + 1.5 * row, 20.5 + 2.0 * col)
            )


def test_a_region_shows_its_store_over_the_image(store, image):
    """Colour, place and provenance; background and glass hide nothing."""
    region = TissueRegion(image, store)
    layer = region.layer
    np.testing.assert_array_equal(np.asarray(layer.data), truth())
    # The store's first pixel spans level-0 rows 30 to 31.5: its middle is 0.25 below row 30.
    np.testing.assert_allclose(image.world_to_data(layer.data_to_world((0, 0))), (30.25, 45.25))
    assert region.box == (30, 45, 450, 510)
    colours = layer.colormap.map(np.array([0, 1, 4, UNSEEN]))
    np.testing.assert_allclose(colours[:, 3], [0, 1, 1, 0])
    np.testing.assert_allclose(colours[2][:3], (1, 0, 0))
    about = facts_of(layer)
    assert (about["model"], about["mpp"]) == ("tissue-test@12345678", 0.75)
    assert about["layout"]["blend"] == "rbf"
    assert not layer.editable
    assert region_of(layer, image) is region


def test_the_first_look_is_replaced_in_place(tmp_path, image):
    """Rows that are done stand; below them the first look, and nothing where there is none."""
    writing = RegionStore.create(tmp_path / "growing.ome.zarr", facts(probabilities=False))
    region = TissueRegion(image, RegionStore.open(writing.path))
    shown = region.layer.data
    assert (np.asarray(shown) == NOT_DONE).all()
    look = truth()
    writing.look(0, 0, look[:, :100])
    region.refresh()
    seen = np.asarray(shown)
    rows, cols = np.indices((SHAPE[0], 100))
    coarse = look[rows // 4 * 4, cols // 4 * 4]
    coarse = np.where(coarse == 0, NOT_DONE, coarse)  # clear, it would pass for finished
    np.testing.assert_array_equal(seen[:, :100], coarse)
    assert (seen[:, 104:] == NOT_DONE).all()
    final = (truth() + 1) % 5
    writing.write_rows(0, final[:130])
    region.refresh()
    seen = np.asarray(shown)
    np.testing.assert_array_equal(seen[:130], final[:130])
    np.testing.assert_array_equal(seen[130:, :100], coarse[130:])
    assert region.layer.colormap.map(np.array([NOT_DONE]))[0, 3] > 0
    np.testing.assert_array_equal(shown[131:150:2, 7], seen[131:150:2, 7])


def test_the_coarsest_level_grows_too(tmp_path, image):
    """What napari shows of a region as a whole is what the store holds by now."""
    shape = (1200, 1400)
    store = RegionStore.create(tmp_path / "large.ome.zarr", facts(shape=shape, probabilities=False))
    assert len(store.levels) > 1
    region = TissueRegion(image, RegionStore.open(store.path))
    layer = region.layer
    assert layer.data_level == len(store.levels) - 1
    assert (np.asarray(layer._slice.image.raw) == NOT_DONE).all()
    store.write_rows(0, np.full((1200, 1400), 3, np.uint8))
    region.refresh()
    assert (np.asarray(layer._slice.image.raw) == 3).all()


def test_maps_show_what_the_store_holds(store, image):
    """One class's probability, and the entropy, at the region's place."""
    region = TissueRegion(image, store)
    chance = region.probability_layer(3)
    np.testing.assert_array_equal(np.asarray(chance.data), np.asarray(store.probabilities[0])[3])
    undecided = region.entropy_layer()
    np.testing.assert_allclose(np.asarray(undecided.data), store.entropy(0, SHAPE[0]))
    np.testing.assert_allclose(undecided.scale, region.layer.scale)
    assert facts_of(chance)["class"] == CIN_CLASSES[3]


def painted_raster() -> Raster:
    """A patch of CIN3, one of background, and one far outside the region."""
    raster = Raster()
    raster.write(100, 120, np.full((150, 200), 5, np.uint32))
    raster.write(400, 450, np.full((120, 90), 1, np.uint32))
    raster.write(900, 1000, np.full((20, 20), 3, np.uint32))
    return raster


def test_what_is_painted_counts_for_what_was_predicted(store):
    """Pixel by pixel, on every level, in the counts too; the store is as it was."""
    raster = painted_raster()
    standing = CorrectedStore(store, raster, CIN_CLASSES)
    at = [
        np.floor(c + (np.arange(n) + 0.5) * STEP).astype(int)
        for c, n in zip(CORNER, SHAPE, strict=True)
    ]
    said = raster.read(0, 0, 1000, 1200)[np.ix_(*at)]
    expected = np.where(said > 0, said - 1, truth()).astype(np.uint8)
    np.testing.assert_array_equal(standing.rows(0, SHAPE[0]), expected)
    assert standing.progress.counts == np.bincount(expected.ravel(), minlength=256).tolist()
    assert standing.changed == int((expected != truth()).sum()) > 0
    np.testing.assert_array_equal(store.rows(0, SHAPE[0]), truth())
    reading = read_region(standing, 0.0)
    assert reading["classes"]["CIN3"]["pixels"] == int((expected == 4).sum())
    assert reading["worst_grade"]["class"] == "CIN3"
    assert reading["corrected"]["pixels"] == standing.changed
    row, col = reading["places"]["CIN3"]
    assert expected[int(row), int(col)] == 4


def test_painted_classes_are_told_by_name(store):
    """A project that counts its classes otherwise means the same."""
    raster = Raster()
    raster.write(100, 120, np.full((150, 200), 2, np.uint32))
    standing = CorrectedStore(store, raster, ("other", "CIN2", "background"))
    inside = standing.rows(60, 120)[:, 80:160]
    assert (inside == CIN_CLASSES.index("CIN2")).all()
    raster.write(100, 120, np.full((150, 200), 1, np.uint32))
    assert CorrectedStore(store, raster, ("other", "CIN2")).changed == 0


def test_what_is_not_done_or_outside_is_not_painted_over(tmp_path):
    """Summed up is what was assessed."""
    polygon = ((30.0, 45.0), (30.0, 400.0), (400.0, 45.0))
    store = RegionStore.create(tmp_path / "p.ome.zarr", facts(polygon=polygon, probabilities=False))
    labels = truth()[:100]
    labels[:, 200:] = UNSEEN
    store.write_rows(0, labels)
    raster = Raster()
    raster.write(0, 0, np.full((600, 700), 3, np.uint32))
    standing = CorrectedStore(RegionStore.open(store.path), raster, CIN_CLASSES)
    assert standing.progress.counts[2] == 100 * 200
    assert (standing.rows(0, SHAPE[0])[100:] == UNSEEN).all()


def test_accepting_says_what_the_model_says_where_nothing_is_said(store):
    """At the image's resolution; painted pixels and glass stay as they are."""
    raster = painted_raster()
    window = (20, 100, 300, 480)
    said = painting.accepted(store, raster, window)
    rows, cols = 20 + np.arange(300), 100 + np.arange(480)
    index = [
        np.floor((p + 0.5 - c) / STEP).astype(int)
        for p, c in zip((rows, cols), CORNER, strict=True)
    ]
    before = raster.read(*window)
    inside = (index[0] >= 0)[:, None] & (index[1] < SHAPE[1])[None, :]
    model = truth()[np.ix_(np.clip(index[0], 0, None), np.clip(index[1], 0, SHAPE[1] - 1))]
    free = inside & (before == 0) & (model < 5)
    np.testing.assert_array_equal(said, np.where(free, model + 1, before))


def test_tiles_are_read_and_cover_the_region_once(store):
    """Calls, margins and scores; neighbouring tiles share no level-0 pixel and leave none out."""
    tiles = read_tiles(store, side=64)
    labels = truth()
    seen = np.zeros((1000, 1200), int)
    for number, (row, col, height, width) in enumerate(tiles.boxes.tolist()):
        part = labels[row : row + height, col : col + width]
        known = part[part < 5]
        assert tiles.called[number] == np.bincount(known).argmax()
        np.testing.assert_allclose(tiles.score[number], 175 / 255, rtol=1e-6)
        np.testing.assert_allclose(tiles.margin[number], 155 / 255, rtol=1e-6)
        top, left, high, wide = tile_window(tiles.boxes[number], store.facts)
        seen[top : top + high, left : left + wide] += 1
    assert seen.max() == 1
    assert (seen[30:480, 45 : 45 + int(320 * STEP)] == 1).all()
    raster = Raster()
    window = tile_window(tiles.boxes[3], store.facts)
    raster.write(window[0], window[1], np.full(window[2:], 4, np.uint32))
    said = painted_tiles(tiles, store.facts, raster)
    assert said[3] == 3
    assert (np.delete(said, 3) == -1).all()


def test_a_review_of_tiles_paints(store, image):
    """To agree paints as the model sees it, another class the whole tile, to take back rubs out."""
    region = TissueRegion(image, store)
    raster = Raster()

    class Dock:
        def painted_over(self, _image):
            return raster

        def paint_pieces(self, _image, pieces):
            for row, col, labels in pieces:
                raster.write(row, col, labels)
            region.painted_changed.emit()
            return True

    dock = Dock()
    region.look_after(dock)
    review = TissueReview.of(region.layer, [image, region.layer])
    assert len(review) == 0
    assert len(review.facts()) == 0
    region.take_tiles(read_tiles(store, side=64))
    facts_now = review.facts()
    assert len(review) == len(facts_now) > 20
    assert set(facts_now.call) <= set(CIN_CLASSES)
    first, second = facts_now.uid[0], facts_now.uid[1]
    review.agree([first])
    window = tile_window(region.tiles.boxes[0], store.facts)
    np.testing.assert_array_equal(raster.read(*window), painting.accepted(store, None, window))
    assert review.facts().label[0] == facts_now.call[0]
    other = next(c for c in CIN_CLASSES if c != facts_now.call[1])
    review.label([second], other)
    window = tile_window(region.tiles.boxes[1], store.facts)
    assert (raster.read(*window) == CIN_CLASSES.index(other) + 1).all()
    assert review.facts().label[1] == other
    assert sum(labelled for _, labelled in review.counts()) == 2
    review.label([first, second], "")
    assert not raster.tiles
    assert (review.facts().label == "").all()
    region.leave(dock)
    review.label([first], other)
    assert not raster.tiles


@pytest.fixture
def project(tmp_path):
    with Project.create(tmp_path / "p") as project:
        add_image(project, "im", "slide.tif", (3000, 4000), mpp=0.5)
        yield project


def test_a_window_of_the_raster_is_painted_and_undone(project):
    """A layer is a window: its strokes lie at their place, and what lies outside is left alone."""
    name = raster_name("im")
    before = Raster()
    before.write(0, 0, np.full((40, 40), 2, np.uint32))
    project.state.rasters[name] = before
    layer = Labels(np.zeros((600, 700), np.uint8))
    recorder = PaintRecorder(layer, project, name, origin=(1000, 1500))
    assert not layer.data.any()
    layer.brush_size = 21
    layer.paint((300, 310), 3)
    raster = project.state.rasters[name]
    np.testing.assert_array_equal(raster.read(1000, 1500, 600, 700), layer.data)
    assert raster.read(1300, 1810, 1, 1) == 3
    assert (raster.read(0, 0, 40, 40) == 2).all()
    done = project.undo()
    recorder.replay([done.event])
    assert not layer.data.any()
    recorder.close()
    again = Labels(np.zeros((100, 100), np.uint8))
    PaintRecorder(again, project, name, origin=(20, 10)).close()
    assert (again.data[:20, :30] == 2).all()
    assert again.data.sum() == 2 * 20 * 30


def test_exports_of_a_corrected_region(store, tmp_path):
    """Labels, outlines and areas are of the region as it stands; the model's store is no other."""
    standing = CorrectedStore(store, painted_raster(), CIN_CLASSES)
    expected = standing.rows(0, SHAPE[0])
    for ending in (*tissue_export.FORMATS, *tissue_export.REPORTS):
        said = tissue_export.writer(standing, tmp_path / f"out{ending}", 0.001, None)()
        assert f"out{ending}" in said
    copy = RegionStore.open(tmp_path / "out.ome.zarr")
    np.testing.assert_array_equal(copy.rows(0, SHAPE[0]), expected)
    assert copy.progress.counts == standing.progress.counts
    assert "painted" in copy.facts.layout["note"]
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.ome.tif"), expected)
    summary = json.loads((tmp_path / "out.summary.json").read_text())
    assert summary["corrected"]["pixels"] == standing.changed
    outlines = json.loads((tmp_path / "out.geojson").read_text())
    assert len(outlines["features"]) > 5
    assert "CIN3" in (tmp_path / "out.csv").read_text()
    page = (tmp_path / "out.html").read_text()
    assert "Research use only" in page
    assert "tissue-test@12345678" in page
    assert (tmp_path / "out.pdf").read_bytes().startswith(b"%PDF")
    with pytest.raises(CellpathError, match="ending decides"):
        tissue_export.writer(standing, tmp_path / "out.xyz", 0.001, None)
    with pytest.raises(CellpathError, match="exists already"):
        tissue_export.writer(standing, tmp_path / "out.ome.zarr", 0.001, None)()


def test_a_report_shows_the_region(store, tmp_path):
    """The picture is cut at the region's place and tinted with the classes."""
    from napari_cellpath.bridge.tissue_report import pictures

    pixels = np.full((1000, 1200, 3), 250, np.uint8)
    pixels[30:480, 45:555] = (200, 150, 200)
    standing = CorrectedStore(store, None, ())
    plain, tinted = pictures(standing, MemoryImage(pixels, mpp=0.5))
    assert plain.shape == tinted.shape
    assert (plain[5:-5, 5:-5] == (200, 150, 200)).all()
    high, wide = plain.shape[:2]
    labels = truth()[
        np.ix_(
            ((np.arange(high) + 0.5) * SHAPE[0] / high).astype(int),
            ((np.arange(wide) + 0.5) * SHAPE[1] / wide).astype(int),
        )
    ]
    core = ndimage.binary_erosion(labels == 4, iterations=4)
    assert core.any()
    assert (tinted[core][:, 0] > plain[core][:, 0]).all()
    still = ndimage.binary_erosion(labels == 0, iterations=4)
    np.testing.assert_array_equal(tinted[still], plain[still])
    page = tissue_export.writer(standing, tmp_path / "r.html", 0.001, MemoryImage(pixels, mpp=0.5))
    page()
    assert "data:image/png;base64" in (tmp_path / "r.html").read_text()


def test_equal_requests_have_one_store(tmp_path):
    """And others another; the oldest go when there are too many."""
    image = MemoryImage(np.zeros((10, 10, 3), np.uint8), mpp=0.5)
    one = SegmentRequest(image, "m", "", (0, 0, 10, 10))
    path = tissue_stores.store_for(one, "key", "m@1")
    assert path == tissue_stores.store_for(one, "key", "m@1")
    assert path != tissue_stores.store_for(one, "key", "m@2")
    folder = tissue_stores.stores_folder()
    assert path.parent == folder
    for number in range(tissue_stores.KEPT + 3):
        (folder / f"s{number:02}{tissue_stores.SUFFIX}").mkdir(parents=True)
    kept = folder / f"s00{tissue_stores.SUFFIX}"
    assert tissue_stores.prune([kept]) in (2, 3)
    assert kept.is_dir()
