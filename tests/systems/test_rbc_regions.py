"""Regions labelled and detected: one answer whatever the batch, the tiles or the way in."""

import time

import numpy as np
import pytest
import torch
from PIL import Image as PILImage
from scipy import ndimage
from torch import nn

from napari_cellpath.backend import connect
from napari_cellpath.core.errors import ModelError, OutsideImageError
from napari_cellpath.core.requests import (
    CellBox,
    DetectRegionsRequest,
    FeaturesRequest,
    FileImage,
    LabelRegionsRequest,
    MemoryImage,
)
from napari_cellpath.core.vocabulary import RBC_TYPES, Average, Fit, Priority, System
from napari_cellpath.samples import smear_field
from napari_cellpath.systems import boxed_plan
from napari_cellpath.systems.protocol import make_plan
from napari_cellpath.systems.rbc import detect_plan
from napari_cellpath.systems.rbc import plan as plan_module
from napari_cellpath.systems.rbc.boxes import RegionInput, boxes_of_mask, suppress
from napari_cellpath.systems.rbc.detect_plan import LOOSE_OVERLAP, DetectRegionsPlan
from napari_cellpath.systems.rbc.network import rbc_cascade
from napari_cellpath.systems.rbc.plan import LabelRegionsPlan, group_of, groups_of_task
from napari_cellpath.systems.rbc.predict import RegionPredictor
from tests.support.models import write_random_model, write_region_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def model(folder):
    return str(write_region_model(folder / "random"))


@pytest.fixture(scope="module")
def field():
    return smear_field(shape=(420, 520), n_regions=14)


@pytest.fixture(scope="module")
def backend():
    return connect(inline=True, device="cpu", precision="fp32")


@pytest.fixture(scope="module")
def boxes(field):
    return boxes_of_mask(field.labels)


def labelled(backend, image, boxes, model, **options):
    given = image if isinstance(image, FileImage | MemoryImage) else MemoryImage(image)
    return backend.submit(LabelRegionsRequest(given, tuple(boxes), model, **options)).result()


def numbers(calls):
    return np.array([c.probabilities for c in calls])


@pytest.fixture(scope="module")
def calls(backend, field, boxes, model):
    return labelled(backend, field.image, boxes, model)


def test_every_box_has_its_call(calls, boxes):
    """In the request's order, with every type's probability and a verdict that follows from it."""
    assert [c.uid for c in calls] == [b.uid for b in boxes]
    assert [(c.row, c.col) for c in calls] == [b.centre for b in boxes]
    probabilities = numbers(calls)
    assert probabilities.shape == (14, 6)
    assert ((probabilities > 0) & (probabilities < 1)).all()
    assert len({tuple(p) for p in probabilities.tolist()}) == 14, "each box is looked at itself"
    for call in calls:
        told = tuple(n for n, p in zip(RBC_TYPES, call.probabilities, strict=True) if p > 0.5)
        assert call.labels == told
        assert call.label == ("abnormal" if call.abnormal > 0.5 else "normal")
        assert call.final
        assert call.n_views == 1
        assert call.model.startswith("random@")


@pytest.mark.parametrize("average", [Average.NONE, Average.D4])
def test_alone_as_in_a_batch(backend, field, boxes, model, average):
    """A box has the same numbers alone, among few, in another order: to the last digit but one."""
    calls = labelled(backend, field.image, boxes, model, average=average)
    for chosen in ([3], [3, 4, 5, 6, 7, 8], list(range(13, -1, -1))):
        some = [boxes[n] for n in chosen]
        again = labelled(backend, field.image, some, model, average=average)
        there = numbers([calls[n] for n in chosen])
        np.testing.assert_allclose(numbers(again), there, rtol=0, atol=1e-12)
        assert [c.abnormal for c in again] == [calls[n].abnormal for n in chosen]


def test_the_mean_of_eight_does_not_care_how_a_box_lies(backend, field, model):
    """Turned and mirrored with its image a box keeps its probabilities; looked at once it does not.

    They are the heads' on the mean of the trunk's features, not a mean of probabilities.
    """
    size = 48
    square = field.image[30 : 30 + size, 182 : 182 + size]
    answers = {average: [] for average in (Average.NONE, Average.D4)}
    for seen in (square, square[:, ::-1]):
        for quarter in range(4):
            image = np.ascontiguousarray(np.rot90(seen, quarter))
            whole = [CellBox(0, 0, size, size)]
            for average, found in answers.items():
                (call,) = labelled(backend, image, whole, model, average=average)
                assert call.n_views == average.ways
                found.append(call.probabilities)
    one, eight = np.array(answers[Average.NONE]), np.array(answers[Average.D4])
    assert np.ptp(one, axis=0).max() > 1e-3
    np.testing.assert_allclose(eight, np.broadcast_to(eight[0], eight.shape), rtol=0, atol=1e-5)
    from napari_cellpath.systems.loading import load_network
    from napari_cellpath.systems.rbc.patches import patch_of

    network, _ = load_network(model)
    with torch.inference_mode():
        ways = torch.stack(
            [
                patch_of(np.ascontiguousarray(np.rot90(seen, quarter)), 40)
                for seen in (square, square[:, ::-1])
                for quarter in range(4)
            ]
        )
        mean = network.trunk(ways).mean(dim=0, keepdim=True).double()
        wanted = network.heads.double().probabilities(mean).numpy()
    np.testing.assert_allclose(eight[:1], wanted, rtol=0, atol=1e-5)


def test_a_model_says_how_many_ways_round_it_looks(backend, field, boxes, folder):
    """Asked for nothing else, boxes are looked at as the model was measured."""
    own = str(write_region_model(folder / "turning", input={"patch": 40, "average": "d4"}))
    of_model = labelled(backend, field.image, boxes[:2], own)
    asked = labelled(backend, field.image, boxes[:2], own, average=Average.D4)
    np.testing.assert_array_equal(numbers(of_model), numbers(asked))
    (once,) = labelled(backend, field.image, boxes[:1], own, average=Average.NONE)
    assert once.n_views == 1
    wrong = str(write_region_model(folder / "wrong", input={"patch": 40, "average": "d5"}))
    with pytest.raises(ModelError, match="no average 'd5'; known: none, d4"):
        labelled(backend, field.image, boxes[:1], wrong)


def test_the_batch_is_the_plans_alone(backend, field, boxes, calls, model, monkeypatch):
    """However many boxes a task holds, and wherever pools are cut: the same numbers."""
    monkeypatch.setattr(plan_module, "groups_of_task", lambda info: 2)
    monkeypatch.setattr(plan_module, "group_of", lambda patch: 3)  # of the plan, not the worker
    monkeypatch.setattr(boxed_plan, "POOL_PIXELS", 100)
    again = labelled(backend, field.image, boxes, model)
    np.testing.assert_allclose(numbers(again), numbers(calls), rtol=0, atol=1e-12)


def test_file_and_memory_are_one(backend, field, boxes, calls, model, tmp_path):
    """A file on disk and a layer in memory give the same numbers."""
    PILImage.fromarray(field.image).save(tmp_path / "f.png")
    from_file = labelled(backend, FileImage(str(tmp_path / "f.png")), boxes, model)
    np.testing.assert_array_equal(numbers(from_file), numbers(calls))


def test_a_single_box_is_urgent(field, boxes, model):
    """One box is a click: it goes before all that waits, and is its own target."""
    plan = make_plan(LabelRegionsRequest(MemoryImage(field.image), (boxes[0],), model))
    task = plan.take()
    assert task.urgent
    assert task.priority == Priority.CLICK
    assert plan.target == f"box:{boxes[0].uid}"
    many = make_plan(LabelRegionsRequest(MemoryImage(field.image), tuple(boxes), model))
    assert not many.take().urgent
    assert many.target == "boxes:image"


def test_nothing_asked_nothing_answered(backend, field, model):
    """No box at all is no error: no calls, at once."""
    assert labelled(backend, field.image, (), model) == []
    plan = LabelRegionsPlan(LabelRegionsRequest(MemoryImage(field.image), (), model))
    assert plan.take() is None
    assert plan.finished
    assert plan.progress == 1.0


def test_what_cannot_be_told_is_said(backend, field, model):
    """Blank, tiny, cut by the edge, stretched, without a type: flagged; no number is made up."""
    image = field.image.copy()
    image[300:340, 100:150] = (150, 160, 170)
    image[:30, 55:85] = image[105:125, 30:100] = (90, 80, 120)
    asked = {
        "blank": CellBox(305, 105, 335, 145),
        "tiny": CellBox(10, 10, 14, 40),
        "border": CellBox(-10, 50, 40, 90),
        "stretched": CellBox(100, 20, 130, 110),
    }
    found = labelled(backend, image, asked.values(), model)
    for flag, call in zip(asked, found, strict=True):
        assert flag in call.flags
    for call in found[:2]:
        assert (call.label, call.labels, call.probabilities, call.n_views) == ("", (), (), 0)
        assert np.isnan(call.abnormal)
    for call in found[2:]:
        assert len(call.probabilities) == 6
    (boxed,) = labelled(backend, image, [asked["stretched"]], model, fit=Fit.LETTERBOX)
    assert "stretched" not in boxed.flags
    assert boxed.probabilities != found[3].probabilities


def test_a_region_of_no_type_says_so(backend, field, boxes, folder):
    """No type above its threshold: no label, a flag, and the booster still speaks (fact 9)."""
    strict = str(
        write_region_model(folder / "strict", input={"patch": 40, "thresholds": [0.999] * 6})
    )
    for call in labelled(backend, field.image, boxes[:3], strict):
        assert call.labels == ()
        assert "unlabelled" in call.flags
        assert np.isfinite(call.abnormal)


def test_a_box_partly_outside_is_its_part_inside(backend, field, model):
    """Nothing is invented beyond the edge: the clipped box gives the same numbers."""
    image = field.image.copy()
    image[:40, :50] = (90, 80, 120)
    over, inside = CellBox(-30, -20, 60, 70), CellBox(0, 0, 60, 70)
    a, b = (labelled(backend, image, [box], model)[0] for box in (over, inside))
    assert a.probabilities == b.probabilities
    assert len(a.probabilities) == 6


@pytest.mark.parametrize("wrong", [(5, 5, 5, 9), (9, 5, 5, 9), (900, 5, 920, 9)])
def test_a_box_that_is_none_stops_before_anything(field, model, wrong):
    """Zero area, inverted, outside: named by its number, nothing is started."""
    good = CellBox(10, 10, 50, 50)
    with pytest.raises(OutsideImageError, match="Box 1 "):
        make_plan(LabelRegionsRequest(MemoryImage(field.image), (good, CellBox(*wrong)), model))


def test_ten_thousand_boxes_are_planned_in_a_moment(model):
    """Planning and pooling cost a fraction of a second; tasks are whole groups, each box once."""
    image = MemoryImage(np.zeros((4000, 4000, 3), np.uint8))
    corners = np.random.default_rng(0).integers(0, 3900, (10_000, 2)).tolist()
    boxes = tuple(CellBox(r, c, r + 60, c + 60, uid=str(n)) for n, (r, c) in enumerate(corners))
    make_plan(LabelRegionsRequest(image, boxes[:1], model))  # reads the model once
    start = time.process_time()
    plan = LabelRegionsPlan(LabelRegionsRequest(image, boxes, model))
    assert time.process_time() - start < 1.5
    seen = []
    for _ in range(20):
        seen += plan.take().payload.numbers
    assert len(seen) == len(set(seen)) == 20 * groups_of_task(plan.info) * group_of(40)


def test_groups_are_as_large_as_patches_are_small():
    """Four of the paper's patches at once, more of smaller ones, and never so many as to wait."""
    assert [group_of(side) for side in (512, 224, 112, 96, 64, 32)] == [4, 4, 16, 16, 32, 32]


def test_weights_that_give_no_number(backend, field, boxes, folder):
    """A network that overflows gives a flag, not a verdict."""
    arguments = {"detector": None, "trunk": "squeezenet-features", "hidden": 8}
    path = write_region_model(folder / "overflowing", arguments=arguments)
    network = rbc_cascade(6, **arguments)
    with torch.no_grad():
        network.trunk.mean.fill_(-3e38)
        network.trunk.std.fill_(1e-30)
    predictor = RegionPredictor(network, torch.device("cpu"), "fp32", RegionInput(patch=40))
    plan = LabelRegionsPlan(
        LabelRegionsRequest(MemoryImage(field.image), tuple(boxes[:2]), str(path))
    )
    task = plan.take()
    (first, _) = plan.give(task, predictor.run(task.payload, plainly, lambda: False))
    assert first.flags[-1] == "not-finite"
    assert first.label == ""


def plainly(module, batch, stop):
    """The engine's way to run a network, without the engine."""
    with torch.inference_mode():
        return module(batch)


def test_features_are_what_the_heads_see(backend, field, boxes, calls, model):
    """Review gets the trunk's vectors; the heads on them give the calls' probabilities."""
    request = FeaturesRequest(MemoryImage(field.image), tuple(boxes), model, System.RBC)
    found = backend.submit(request).result()
    assert [f.uid for f in found] == [b.uid for b in boxes]
    vectors = np.stack([f.vector for f in found])
    assert vectors.shape == (14, 512)
    from napari_cellpath.systems.loading import load_network

    network, _ = load_network(model)
    with torch.inference_mode():
        again = network.heads.double().probabilities(torch.from_numpy(vectors).double()).numpy()
    np.testing.assert_allclose(again, numbers(calls), rtol=0, atol=1e-12)


# Detection


def detected(backend, image, model, **options):
    given = image if isinstance(image, FileImage | MemoryImage) else MemoryImage(image)
    return backend.submit(DetectRegionsRequest(given, model, **options)).result()


def test_detections_are_torchvisions(backend, field, model):
    """In one pass: what the detector by itself finds, its edges rounded to whole pixels."""
    from napari_cellpath.systems.loading import load_network

    found = detected(backend, field.image, model)
    network, _ = load_network(model)
    network.detector.transform._skip_resize = True
    image = torch.from_numpy(field.image).permute(2, 0, 1).float() / 255
    with torch.inference_mode():
        (own,) = network.detector([image])
    scores = sorted(own["scores"].tolist(), reverse=True)
    # Overlap is taken between whole pixels here, so that a slider in the viewer says the same;
    # a pair at the very limit may fall to the other side.
    assert abs(len(found) - len(scores)) <= 2
    best = max(found, key=lambda f: f.detection)
    at = own["boxes"][int(own["scores"].argmax())][[1, 0, 3, 2]]
    assert best.detection == pytest.approx(scores[0], abs=1e-6)
    assert best.box == tuple(torch.floor(at + 0.5).int().tolist())
    assert [f.box for f in found] == sorted(f.box for f in found)


def test_a_larger_field_may_hold_more(backend, field, folder):
    """Four times the training size gets four times the proposals; its own size those it says."""
    small = {"channels": 8, "representation": 16, "proposals": 10, "min_size": 120, "max_size": 160}
    path = write_region_model(
        folder / "small",
        arguments={
            "detector": "squeezenet-fpn", "detector_arguments": small,
            "trunk": "squeezenet-features", "hidden": 8,
        },
    )  # fmt: skip
    usual = detected(backend, field.image[:120, :160], str(path), overlap=1.0)
    larger = detected(backend, field.image[:240, :320], str(path), overlap=1.0)
    assert 0 < len(usual) <= 10
    assert 10 < len(larger) <= 40


def test_sliders_act_on_what_came_back(backend, field, model):
    """Loosely found and suppressed afterwards is the same as asked for so from the start."""
    loose = detected(backend, field.image, model, overlap=1.0)
    boxes, scores = [f.box for f in loose], np.array([f.detection for f in loose])
    for score, overlap in ((0.05, 0.5), (0.6, 0.3)):
        asked = detected(backend, field.image, model, score=score, overlap=overlap)
        kept = suppress(boxes, scores, overlap)
        kept = sorted(boxes[n] for n in kept if scores[n] >= score)
        assert [f.box for f in asked] == kept
    assert len(loose) > len(asked) > 0
    assert LOOSE_OVERLAP > 0.5


def test_nothing_found_is_nothing_labelled(backend, field, model):
    """An empty list of detections is an empty list of calls."""
    assert detected(backend, field.image, model, score=1.0) == []
    assert labelled(backend, field.image, (), model) == []


class DarkBlobs(nn.Module):
    """Stands in for a trained detector: finds every dark component exactly, twice over."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = []

    def forward(self, image):
        self.seen.append(tuple(image.shape[2:]))
        labels, _ = ndimage.label(image[0, 1].numpy() < 0.55, np.ones((3, 3)))
        found = []
        for rows, cols in ndimage.find_objects(labels):
            box = [cols.start, rows.start, cols.stop, rows.stop]
            found += [(box, 0.9), ([box[0], box[1], box[2] + 1, box[3]], 0.8)]
        boxes = torch.tensor([b for b, _ in found], dtype=torch.float32).reshape(1, -1, 4)
        return boxes, torch.tensor([[s for _, s in found]])


def found_by_blobs(model, image, monkeypatch=None, **options):
    predictor = RegionPredictor(
        rbc_cascade(detector=None, trunk="squeezenet-features", hidden=2),
        torch.device("cpu"), "fp32", RegionInput(),
    )  # fmt: skip
    predictor.detector = blobs = DarkBlobs()
    given = image if isinstance(image, MemoryImage) else MemoryImage(image)
    plan = DetectRegionsPlan(DetectRegionsRequest(given, model, **options))
    tasks = []
    while (task := plan.take()) is not None:
        tasks.append(task)
    for task in reversed(tasks):  # whatever order they come back in
        plan.give(task, predictor.run(task.payload, plainly, lambda: False))
    assert plan.finished
    assert plan.progress == 1.0
    return [f.box for f in plan.results()], blobs.seen


@pytest.fixture(scope="module")
def large():
    """Dark cells on a pale field, and where they are; many lie across any tile's edge."""
    image = np.full((1300, 2000, 3), 200, np.uint8)
    rng = np.random.default_rng(0)
    truth = []
    for row in range(20, 1230, 90):
        for col in range(20, 1930, 90):
            high, wide = rng.integers(20, 70, 2)
            image[row : row + high, col : col + wide] = 90
            truth.append((row, col, int(row + high), int(col + wide)))
    return image, sorted(truth)


def test_tiles_find_what_one_pass_finds(large, model, monkeypatch):
    """Across the seams nothing is lost, doubled or cut, and doubles of the detector go too."""
    image, truth = large
    tiled, seen = found_by_blobs(model, image)
    assert len(seen) > 1, "too large for one pass"
    assert max(max(shape) for shape in seen) <= detect_plan.CORE + 2 * detect_plan.MARGIN
    assert tiled == truth
    monkeypatch.setattr(detect_plan, "PASS_SIDES", (2000, 2000))
    whole, seen = found_by_blobs(model, image)
    assert len(seen) == 1
    assert whole == truth


def test_the_papers_field_is_one_pass(model):
    """1920 x 1080 is looked at whole, either way round; more is tiled."""
    for shape, whole in (((1080, 1920), True), ((1920, 1080), True), ((1300, 1920), False)):
        image = MemoryImage(np.zeros((*shape, 3), np.uint8))
        assert DetectRegionsPlan(DetectRegionsRequest(image, model)).whole == whole


@pytest.mark.parametrize("region", [(0, 0, 300, 300), (700, 700, 200, 400), (1200, 1500, 500, 900)])
def test_a_part_finds_what_the_whole_finds(large, model, region):
    """A region of a tiled image: the same boxes, those whose middle lies in it, and fewer tiles."""
    image, truth = large
    part, seen = found_by_blobs(model, image, region=region)
    row, col, high, wide = region
    inside = [
        b for b in truth
        if row <= (b[0] + b[2]) / 2 < row + high and col <= (b[1] + b[3]) / 2 < col + wide
    ]  # fmt: skip
    assert part == inside
    assert len(seen) < 6


def test_pixels_of_another_size_are_resized(folder, large):
    """Where model and image state their pixel size, the detector sees the model's."""
    path = str(write_region_model(folder / "scaled", mpp=0.2))
    image, truth = large
    coarse = MemoryImage(image[::2, ::2], mpp=0.4)
    found, seen = found_by_blobs(path, coarse)
    assert max(max(shape) for shape in seen) > 650, "enlarged twice"
    assert len(found) == len(truth)
    np.testing.assert_allclose(np.array(found) * 2, truth, atol=4)


def test_a_model_without_a_detector_says_so(folder, field):
    """It labels boxes; asked to find them it names the way out. A part of a model does neither."""
    arguments = {"detector": None, "trunk": "squeezenet-features", "hidden": 8}
    path = str(write_region_model(folder / "labels-only", arguments=arguments))
    make_plan(LabelRegionsRequest(MemoryImage(field.image), (CellBox(0, 0, 30, 30),), path))
    with pytest.raises(ModelError, match="no detector; draw the boxes"):
        make_plan(DetectRegionsRequest(MemoryImage(field.image), path))
    heads = write_random_model(
        folder / "heads", "rbc-heads", 6, system=System.RBC,
        arguments={"n_features": 8, "hidden": 2},
    )  # fmt: skip
    with pytest.raises(ModelError, match="only a part of an RBC model"):
        labelled(connect(inline=True), field.image, [CellBox(0, 0, 30, 30)], str(heads))


def test_a_region_off_the_image_is_refused(field, model):
    """Nothing is looked for where there is no image."""
    with pytest.raises(OutsideImageError, match="does not meet the image"):
        make_plan(DetectRegionsRequest(MemoryImage(field.image), model, region=(900, 0, 10, 10)))
