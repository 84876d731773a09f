"""Regions from a request to their store: what comes out, what survives, what is refused."""

import contextlib
import itertools

import numpy as np
import pytest
import tifffile

from napari_cellpath.core.errors import (
    CellpathError,
    ImageTooLargeError,
    JobCancelledError,
    OutputError,
    OutsideImageError,
    ScaleError,
    UnreadableImageError,
)
from napari_cellpath.core.requests import FileImage, MemoryImage, SegmentRequest
from napari_cellpath.core.vocabulary import Blend, RegionMode
from napari_cellpath.slides.region_store import (
    SKIPPED,
    UNREADABLE,
    UNSEEN,
    RegionStore,
)
from napari_cellpath.slides.windows import slide_of
from napari_cellpath.systems.hspnet import plan as plan_module
from napari_cellpath.systems.hspnet.payloads import RegionPayload
from napari_cellpath.systems.hspnet.plan import SegmentPlan
from napari_cellpath.systems.hspnet.summary import summarise
from napari_cellpath.systems.hspnet.tiles import importance_map, tile_starts
from tests.support.models import write_tissue_model
from tests.support.tissue import Stub, drive, picture, predictor, reference


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(write_tissue_model(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture
def ask(model, tmp_path):
    """Builds a request for an image, into a store of its own unless one is named."""
    numbers = itertools.count()

    def make(image, store=None, **options):
        if isinstance(image, np.ndarray):
            image = MemoryImage(image, mpp=1.0)
        elif not isinstance(image, MemoryImage):
            image = FileImage(str(image), options.pop("mpp", None))
        path = tmp_path / (store or f"{next(numbers)}.ome.zarr")
        return SegmentRequest(image, model, str(path), **options)

    return make


@pytest.fixture(autouse=True)
def short_tasks(monkeypatch):
    """One to a few tiles a task, however fast the stub is."""
    monkeypatch.setattr(SegmentPlan, "tiles_a_task", lambda self: 3)


def run(request, worker=None, **options):
    plan = SegmentPlan(request)
    drive(plan, worker or predictor(), **options)
    return RegionStore.open(request.store)


def labels(request, **options):
    return run(request, **options).levels[0][:]


def slide(path, pixels, mpp=1.0, tile=(64, 64), **options):
    if mpp:
        options |= {"resolution": (1e4 / mpp, 1e4 / mpp), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, pixels, photometric="rgb", tile=tile, **options)
    return path


# ---------------------------------------------------------------- what comes out


@pytest.mark.parametrize("blend", [Blend.RBF, Blend.NONE])
def test_a_region_is_the_plain_loops(ask, blend):
    """Classes of the largest blended probability, and the probabilities to half a step."""
    image = picture(150, 200)
    store = run(ask(image, blend=blend, probabilities=True))
    stride = 64 if blend is Blend.NONE else 16
    plain = reference(
        image, Stub(), 64, lambda n: tile_starts(n, 64, stride), importance_map(blend, 64)
    )
    first, second = np.sort(plain, axis=0)[[-1, -2]]
    sure = first - second > 1e-5
    assert sure.mean() > 0.99
    assert (store.levels[0][:] == plain.argmax(axis=0))[sure].all()
    assert len(np.unique(store.levels[0][:])) > 2
    assert np.abs(store.probabilities[0][:] / 255 - plain).max() <= 0.5 / 255 + 1e-5
    assert store.progress.complete


def test_results_are_the_rows_from_top_to_bottom(ask):
    request = ask(picture(150, 100))
    plan = SegmentPlan(request)
    rows = drive(plan, predictor())
    assert [r.row0 for r in rows][:3] == [0, 16, 32]
    assert all(a.row1 == b.row0 for a, b in itertools.pairwise(rows))
    assert (rows[-1].row1, rows[-1].total) == (150, 150)
    assert not any(r.provisional for r in rows)
    whole = plan.results()
    assert [(r.row0, r.row1) for r in whole] == [(0, 150)]
    assert plan.progress == 1.0


@pytest.mark.parametrize("shape", [(40, 200), (200, 40), (20, 20), (1, 1), (64, 64)])
def test_images_smaller_than_a_tile_are_filled_up(ask, shape):
    assert labels(ask(picture(*shape))).shape == shape


def test_a_region_of_a_file_is_that_of_the_same_array(ask, tmp_path):
    """Read by the worker, or cut out and sent: the same numbers."""
    image = picture(180, 220)
    path = slide(tmp_path / "s.tif", image)
    for options in ({}, {"region": (30, 40, 90, 100)}, {"region": (150, 10, 30, 50)}):
        one, other = labels(ask(image, **options)), labels(ask(path, **options))
        assert one.tobytes() == other.tobytes()


def test_an_image_of_another_scale_is_resampled(ask):
    """Twice as fine: half as many rows, each with its place on level 0."""
    store = run(ask(MemoryImage(picture(300, 240), mpp=0.5), region=(100, 50, 160, 130)))
    assert store.facts.shape == (80, 65)
    assert store.facts.step == (2.0, 2.0)
    assert store.facts.corner == (100.0, 50.0)
    assert store.facts.mpp == 1.0


def test_a_preview_is_named_and_agrees_where_tiles_do_not_matter(ask):
    """Of a network that looks at one pixel, the classes are the same; of another they are not."""
    image = picture(300, 320)
    preview = run(ask(image, mode=RegionMode.PREVIEW))
    assert preview.facts.layout["mode"] == "preview"
    assert summarise(preview)["mode"] == "preview"
    assert 0.3 < (labels(ask(image)) == preview.levels[0][:]).mean() < 0.99
    agreement = []
    for mode in RegionMode:
        network = Stub()
        network.mean.data.zero_()
        agreement.append(run(ask(image, mode=mode), predictor(network)).levels[0][:])
    assert (agreement[0] == agreement[1]).mean() > 0.999


def test_a_first_look_comes_first_and_is_marked(ask, monkeypatch):
    """Written beside the answer, which it does not change."""
    # The stub would be done before anybody looked.
    monkeypatch.setattr(plan_module, "LOOK_SECONDS", -1.0)
    image = picture(200, 260)
    request = ask(image, first_estimate=True)
    rows = drive(SegmentPlan(request), predictor())
    assert rows[0].provisional
    assert not rows[-1].provisional
    store = RegionStore.open(request.store)
    looked = store.provisional[:]
    assert looked.shape == (50, 65)
    middle = looked[20:30, 25:40]
    assert (middle != UNSEEN).all()
    assert store.levels[0][:].tobytes() == labels(ask(image)).tobytes()
    assert (middle == store.levels[0][80:120:4, 100:160:4]).mean() > 0.3


# ---------------------------------------------------------------- what is kept out


def test_only_what_the_polygon_holds_is_kept(ask):
    image = picture(300, 300)
    corners = ((20.0, 30.0), (200.0, 60.0), (120.0, 250.0))
    store = run(ask(image, polygon=corners))
    found, whole = store.levels[0][:], labels(ask(image))
    row, col = (round(edge) for edge in store.facts.corner)
    inside = found != UNSEEN
    assert 0.3 < inside.mean() < 0.7
    assert inside[80 - row, 80 - col]
    assert not inside[0, -1]
    # Away from the region's border the tiles are those of the whole image, if strides agree.
    assert (row, col) == (20, 30)
    assert found.shape == (181, 221)
    assert whole.shape == (300, 300)
    summary = summarise(store)
    assert summary["outside"]["pixels"] == int((~inside).sum())
    assert sum(part["pixels"] for part in summary["classes"].values()) == int(inside.sum())


def test_tiles_outside_a_polygon_are_not_computed(ask):
    image, network = picture(400, 400), Stub()
    run(ask(image, polygon=((0, 0), (399, 0), (399, 399))), predictor(network))
    assert network.tiles < 0.75 * len(tile_starts(400, 64, 16)) ** 2


@pytest.mark.parametrize("in_memory", [True, False])
def test_empty_glass_is_skipped_and_reported(ask, tmp_path, in_memory):
    """Where the thumbnail shows tissue the answer is the same; elsewhere it says skipped."""
    image = np.full((320, 320, 3), 240, np.uint8)
    image[:100, :120] = picture(100, 120)
    given = image if in_memory else slide(tmp_path / "s.tif", image)
    network = Stub()
    store = run(ask(given, skip_empty=True), predictor(network))
    found, whole = store.levels[0][:], labels(ask(given))
    assert network.tiles < 0.4 * len(tile_starts(320, 64, 16)) ** 2
    assert (found[:64, :64] == whole[:64, :64]).all()
    assert (found[200:, 200:] == SKIPPED).all()
    skipped = summarise(store)["skipped"]
    assert skipped["pixels"] == int((found == SKIPPED).sum())
    assert skipped["area_mm2"] == pytest.approx(skipped["pixels"] / 1e6)


# ---------------------------------------------------------------- what survives


def test_cancelled_regions_go_on_where_they_were(ask):
    image = picture(200, 150)
    whole = labels(ask(image))
    request = ask(image)
    drive(SegmentPlan(request), predictor(), steps=12)
    done = RegionStore.open(request.store).progress.rows_done
    assert 0 < done < 200
    plan = SegmentPlan(request)
    assert [(r.row0, r.row1) for r in plan.results()] == [(0, done)]
    rows = drive(plan, predictor())
    assert rows[0].row0 == done
    assert RegionStore.open(request.store).levels[0][:].tobytes() == whole.tobytes()


def test_a_finished_region_is_not_computed_again(ask):
    request = ask(picture(100, 100))
    run(request)
    plan = SegmentPlan(request)
    assert plan.finished
    assert plan.take() is None


class Countdown:
    """True from the n-th time it is asked."""

    def __init__(self, left):
        self.left = left

    def __call__(self):
        self.left -= 1
        return self.left < 0


def interrupted(ask, image, cancels, losses, seed, **options):
    """A region interrupted at random: its store's arrays, and tiles computed."""
    rng = np.random.default_rng(seed)
    request = ask(image, probabilities=True, **options)
    plan, worker, network = SegmentPlan(request), predictor(network := Stub()), network
    out = []
    while not plan.finished:
        while len(out) < 2 and (task := plan.take()) is not None:
            out.append(task)
        task = out.pop(0)
        dice = rng.random()
        if dice < 0.15 and losses:
            worker, losses = predictor(network), losses - 1  # the process was killed
        elif dice < 0.35 and cancels and isinstance(task.payload, RegionPayload):
            cancels -= 1
            stop = Countdown(int(rng.integers(1, 4)))  # between two tiles of a task
            with contextlib.suppress(JobCancelledError):
                worker.run(task.payload, _forward, stop)
            plan, out = SegmentPlan(request), []
            continue
        plan.give(task, worker.run(task.payload, _forward, lambda: False))
    store = RegionStore.open(request.store)
    return store, network.tiles, (cancels, losses)


def _forward(module, batch, stop):
    from tests.support.tissue import forward

    return forward(module, batch, stop)


def same(one, other):
    assert len(one.levels) == len(other.levels)
    for a, b in zip(
        [*one.levels, *one.probabilities], [*other.levels, *other.probabilities], strict=True
    ):
        assert a[:].tobytes() == b[:].tobytes()
    assert one.progress.counts == other.progress.counts


def test_cancels_and_killed_workers_do_not_change_a_bit(ask):
    image = picture(260, 150)
    whole = run(ask(image, probabilities=True))
    store, _, left = interrupted(ask, image, cancels=6, losses=4, seed=1)
    assert left == (0, 0)
    same(store, whole)


@pytest.mark.slow
def test_a_hundred_cancels_and_twenty_killed_workers(ask):
    """The issue's number, on one region, and on one with a polygon and skipped glass."""
    image = picture(1500, 200)
    image[400:600] = 240
    for options in (
        {},
        {"skip_empty": True, "polygon": ((0, 0), (1499, 0), (1499, 199), (0, 150))},
    ):
        whole = run(ask(image, probabilities=True, **options))
        store, _, left = interrupted(ask, image, cancels=100, losses=20, seed=2, **options)
        print(f"cancels and kills left: {left}")
        assert left == (0, 0)
        same(store, whole)


def test_a_lost_worker_repeats_at_most_four_tile_rows(ask):
    image = picture(300, 150)
    network = Stub()
    plan, worker = SegmentPlan(ask(image)), predictor(network)
    drive(plan, worker, steps=20)
    drive(plan, predictor(network))
    a_row = len(tile_starts(150, 64, 16))
    assert network.tiles <= a_row * (len(tile_starts(300, 64, 16)) + 4)


def test_workers_that_remember_nothing_of_each_other_come_to_the_same_end(ask):
    """A cluster hands each task to any of its workers."""
    image = picture(220, 150)
    whole = run(ask(image, probabilities=True))
    request = ask(image, probabilities=True)
    plan, network = SegmentPlan(request), Stub()
    workers = itertools.cycle([predictor(network), predictor(network), predictor(network)])
    while not plan.finished:
        task = plan.take()
        plan.give(task, next(workers).run(task.payload, _forward, lambda: False))
    same(RegionStore.open(request.store), whole)
    assert network.tiles < 3 * len(tile_starts(220, 64, 16)) * len(tile_starts(150, 64, 16))


def test_another_request_is_not_written_over(ask):
    """Refused by what differs, and what is there stays as it is."""
    image = picture(100, 100)
    request = ask(image, "one.ome.zarr")
    before = labels(request)
    for options, word in (
        ({"blend": Blend.COS}, "blend"),
        ({"stride": 32}, "stride"),
        ({"region": (0, 0, 50, 50)}, "shape"),
        ({"probabilities": True}, "probabilities"),
    ):
        with pytest.raises(OutputError, match=word):
            SegmentPlan(ask(image, "one.ome.zarr", **options))
    with pytest.raises(OutputError, match="fingerprint"):
        SegmentPlan(ask(picture(100, 100, seed=1), "one.ome.zarr"))
    assert RegionStore.open(request.store).levels[0][:].tobytes() == before.tobytes()


def test_another_precision_is_not_mixed_in(ask):
    request = ask(picture(200, 100))
    drive(SegmentPlan(request), predictor(), steps=9)
    other = predictor()
    other.precision = "bf16"
    with pytest.raises(OutputError, match="--precision fp32"):
        drive(SegmentPlan(request), other)


def test_a_foreign_folder_is_left_alone(ask, tmp_path):
    (tmp_path / "mine.ome.zarr").mkdir()
    (tmp_path / "mine.ome.zarr" / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="no region of ours"):
        SegmentPlan(ask(picture(80, 80), "mine.ome.zarr"))


# ---------------------------------------------------------------- what it costs


def test_each_source_pixel_is_decoded_once(ask, tmp_path):
    """At most 1.05 times, of a tiled file and of a level of a pyramid."""
    image = picture(500, 700)
    path = slide(tmp_path / "s.tif", image, tile=(128, 128))
    run(ask(path))
    across, down = -(-700 // 128), -(-500 // 128)
    assert slide_of(FileImage(str(path))).decoded_pixels <= 1.05 * across * down * 128 * 128


def test_memory_does_not_grow_with_the_height(ask):
    """The worker's sums, and the largest answer of a task."""
    held = []
    for height in (200, 1200):
        worker, largest, answers = predictor(), 0, 0
        plan = SegmentPlan(ask(picture(height, 100)))
        while not plan.finished:
            task = plan.take()
            output = worker.run(task.payload, _forward, lambda: False)
            largest = max(largest, worker.states.memory_bytes)
            answers = max(answers, sum(b.labels.nbytes for b in getattr(output, "bands", ())))
            plan.give(task, output)
        held.append((largest, answers))
        assert worker.states.memory_bytes == 0  # a finished region holds nothing
    assert held[0] == held[1]


# ---------------------------------------------------------------- what is refused


def test_a_missing_pixel_size_is_asked_for(ask, tmp_path):
    path = slide(tmp_path / "s.tif", picture(100, 100), mpp=None)
    with pytest.raises(ScaleError, match="--mpp"):
        SegmentPlan(ask(path))
    store = run(ask(path, mpp=1.0))
    assert store.facts.image["mpp"] == 1.0


@pytest.mark.parametrize("mpp", [0.0, -1.0, float("nan"), 1e9])
def test_absurd_pixel_sizes_are_refused(ask, mpp):
    with pytest.raises(ScaleError, match="no pixel size"):
        SegmentPlan(ask(MemoryImage(picture(80, 80), mpp=mpp)))


def test_a_region_partly_outside_is_clipped_and_one_outside_refused(ask):
    image = picture(100, 120)
    store = run(ask(image, region=(-20, 60, 60, 200)))
    assert store.facts.corner == (0.0, 60.0)
    assert store.facts.shape == (40, 60)
    with pytest.raises(OutsideImageError, match="does not meet"):
        SegmentPlan(ask(image, region=(200, 0, 10, 10)))


def damaged_slide(path, pixels, bad):
    """A JPEG slide of which some tiles are noise."""
    slide(path, pixels, tile=(64, 64), compression="jpeg")
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tif:
        page = tif.pages[0]
        for index in bad:
            start, count = page.dataoffsets[index], page.databytecounts[index]
            data[start : start + count] = b"\xff\xd8" + bytes(count - 2)
    path.write_bytes(data)
    return path


def test_damaged_tiles_are_marked_and_counted(ask, tmp_path):
    path = damaged_slide(tmp_path / "s.tif", picture(512, 576), bad=(12, 40))
    store = run(ask(path))
    found = store.levels[0][:]
    assert (found[64:128, 192:256] == UNREADABLE).all()
    assert int((found == UNREADABLE).sum()) == 2 * 64 * 64
    unreadable = summarise(store)["unreadable"]
    assert (unreadable["file_tiles"], unreadable["of"]) == (2, 72)


def test_a_slide_in_shreds_is_stopped(ask, tmp_path):
    path = damaged_slide(tmp_path / "s.tif", picture(512, 576), bad=range(6))
    with pytest.raises(UnreadableImageError, match="of 72 tiles"):
        run(ask(path))


def test_hostile_slides_are_refused_by_name(ask, tmp_path):
    """Tiles of no size; a claim of 60,000 x 60,000 in a small file."""
    from tests.slides.test_slides_hostile import _claiming

    for name, content, kind in (
        ("zero.tif", _claiming(64, 64, (0, 16)), UnreadableImageError),
        ("claim.tif", _claiming(60_000, 60_000, None), ImageTooLargeError),
        ("tiles.tif", _claiming(60_000, 60_000, (256, 256)), UnreadableImageError),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(kind, match=name):
            SegmentPlan(ask(tmp_path / name))


def test_nothing_is_left_of_a_refused_request(ask, tmp_path):
    with pytest.raises(CellpathError):
        SegmentPlan(ask(picture(100, 100), "no.ome.zarr", region=(500, 0, 10, 10)))
    assert not (tmp_path / "no.ome.zarr").exists()
