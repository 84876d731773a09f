"""papers.md 1.12, facts 3, 9 and 11, and the promise that a score belongs to the cell alone."""

import itertools

import numpy as np
import pytest
import torch

from napari_cellpath.core.errors import ModelError, OutsideImageError, UnknownNameError
from napari_cellpath.core.requests import MemoryImage, Nucleus, NucleusRequest
from napari_cellpath.core.vocabulary import Preset
from napari_cellpath.models import find_model
from napari_cellpath.systems.deeppap.plan import NucleusPlan, ViewsOutput
from napari_cellpath.systems.deeppap.predict import NucleusPredictor, load_network
from napari_cellpath.systems.protocol import ModelRef, make_plan
from tests.support.models import write_random_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_random_model(tmp_path_factory.mktemp("models") / "random")


@pytest.fixture(scope="module")
def predictor(folder):
    entry = find_model(folder)
    ref = ModelRef(entry.name, str(folder), entry.info.sha256)
    return NucleusPredictor.load(ref, torch.device("cpu"), "fp32")


@pytest.fixture(scope="module")
def image():
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 256, (12, 14, 3)).astype(np.float32)
    smooth = torch.nn.functional.interpolate(
        torch.from_numpy(coarse).permute(2, 0, 1)[None], size=(360, 420), mode="bilinear"
    )[0]
    return smooth.permute(1, 2, 0).round().to(torch.uint8).numpy()


CELLS = ((150.0, 160.0), (40.0, 300.0), (200.5, 90.25), (359.0, 0.0))


def request(folder, image, cells=CELLS, **options):
    nuclei = tuple(Nucleus(row, col, uid=f"{row}-{col}") for row, col in cells)
    return NucleusRequest(MemoryImage(image), nuclei, str(folder), **options)


def plain_forward(module, batch, stop):
    with torch.inference_mode():
        return module(batch)


def drive(plan, predictor, order=lambda tasks: tasks):
    """Run a plan to its end, all available tasks at a time, answered in the given order."""
    while not plan.finished:
        tasks = list(iter(plan.take, None))
        assert tasks, "a plan that is not finished has tasks out or to give"
        for task in order(tasks):
            plan.give(task, predictor.run(task.payload, plain_forward, lambda: False))
    return {call.uid: call for call in plan.results()}


class StubPredictor:
    """Answers every input with a probability computed from its place, without a network."""

    def __init__(self, probability):
        self.probability = probability
        self.inputs = 0

    def run(self, payload, forward, stop):
        outputs = []
        for cell in payload.cells:
            n = 2 if cell.glance else 10 * len(cell.specs)
            self.inputs += n
            p = np.array([self.probability(cell, i) for i in range(n)])
            outputs.append(np.stack([1 - p, p], axis=1))
        return ViewsOutput(tuple(outputs), "fp32")


@pytest.mark.parametrize(("preset", "inputs"), [("fast", 10), ("balanced", 100), ("paper", 1000)])
def test_presets_feed_exactly_their_inputs(folder, image, preset, inputs):
    """Fact 3 and 9: 10, 100 and exactly 1000 inputs; a constant network's mean is its constant."""
    stub = StubPredictor(lambda cell, i: 0.3)
    plan = NucleusPlan(request(folder, image, CELLS[:1], preset=Preset(preset)))
    (call,) = drive(plan, stub).values()
    assert stub.inputs == inputs == call.n_views
    assert call.score == pytest.approx(0.3, abs=1e-12)
    assert call.std == pytest.approx(0.0, abs=1e-12)


def test_the_mean_commutes_with_a_linear_network(folder, image):
    """Fact 9: scaling every probability scales the mean."""
    once, twice = (
        drive(
            NucleusPlan(request(folder, image, CELLS[:1], preset=Preset.BALANCED)),
            StubPredictor(lambda cell, i, k=k: k * (cell.specs[0].angle / 2000 + i / 300)),
        ).popitem()[1]
        for k in (1, 2)
    )
    assert twice.score == pytest.approx(2 * once.score, abs=1e-12)
    assert twice.std == pytest.approx(2 * once.std, abs=1e-12)


@pytest.mark.parametrize(("preset", "n"), [("fast", 4), ("balanced", 2), ("adaptive", 2)])
def test_scores_do_not_depend_on_order_or_neighbours(folder, image, predictor, preset, n):
    """Fact 11: alone, together, reversed, shuffled answers: the same score to 1e-6."""
    options = {"preset": Preset(preset)}
    cells = CELLS[:n]
    together = drive(NucleusPlan(request(folder, image, cells, **options)), predictor)
    backwards = drive(
        NucleusPlan(request(folder, image, cells[::-1], **options)), predictor, order=reversed
    )
    for cell in cells[:2]:
        (alone,) = drive(NucleusPlan(request(folder, image, [cell], **options)), predictor).values()
        for other in (together[alone.uid], backwards[alone.uid]):
            assert 0.0 <= alone.score <= 1.0
            assert other.score == pytest.approx(alone.score, abs=1e-6)
            assert other.n_views == alone.n_views
    assert len({round(call.score, 4) for call in together.values()}) > 1, (
        "the model tells cells apart"
    )


def test_the_first_estimate_changes_nothing_later(folder, image, predictor):
    """Asking for the quick answer first gives the same final numbers, bit for bit."""
    for preset, n in ((Preset.FAST, 2), (Preset.BALANCED, 1)):
        plain, quick = (
            drive(
                NucleusPlan(request(folder, image, CELLS[:n], preset=preset, first_estimate=first)),
                predictor,
            )
            for first in (False, True)
        )
        assert {u: c.score for u, c in plain.items()} == {u: c.score for u, c in quick.items()}


def test_a_click_gets_a_glance_first_and_then_better(folder, image):
    """The first task of a click is urgent and holds two inputs; later ones refine in place."""
    plan = NucleusPlan(request(folder, image, CELLS[:1], preset=Preset.PAPER, first_estimate=True))
    stub = StubPredictor(lambda cell, i: 0.9 if cell.specs[0].shift == (0, 0) else 0.4)
    views = []
    first = True
    while not plan.finished:
        task = plan.take()
        assert task.urgent is first
        for call in plan.give(task, stub.run(task.payload, None, None)):
            views.append((call.n_views, call.final))
        first = False
    assert views[0] == (2, False)
    assert views[1:] == [(50 * k, k == 20) for k in range(1, 21)]
    (call,) = plan.results()
    assert call.score == pytest.approx(0.4, abs=0.06), (
        "the quick view is no part of the paper's mean"
    )


def test_a_glance_is_the_middle_of_the_view_and_its_mirror(folder, image, predictor):
    """What a click says first is two of the ten inputs of the upright view, not a thing apart."""
    plan = NucleusPlan(request(folder, image, CELLS[:1], preset=Preset.FAST, first_estimate=True))
    seen = []
    while (task := plan.take()) is not None:
        output = predictor.run(task.payload, plain_forward, lambda: False)
        seen.append(output.probabilities[0])
        plan.give(task, output)
    glance, view = seen
    np.testing.assert_allclose(glance, view[[4, 9]], atol=1e-6)


def test_adaptive_stops_early_only_when_certain(folder, image):
    """Far from the threshold it stops at 50 inputs; balanced on it, it sees all 1000."""
    for level, expected in ((0.95, 50), (0.5, 1000)):
        wobble = itertools.cycle((-0.04, 0.04))
        stub = StubPredictor(lambda cell, i, level=level, wobble=wobble: level + next(wobble))
        plan = NucleusPlan(request(folder, image, CELLS[:1], preset=Preset.ADAPTIVE))
        (call,) = drive(plan, stub).values()
        assert call.n_views == expected
        assert plan.progress == 1.0


def test_two_classes_use_the_threshold_and_more_the_largest(folder, image, tmp_path):
    """Two classes follow the threshold, strictly; seven follow the largest mean."""
    for threshold, label in ((0.5, "abnormal"), (0.7, "normal")):
        plan = NucleusPlan(
            request(folder, image, CELLS[:1], preset=Preset.FAST, threshold=threshold)
        )
        (call,) = drive(plan, StubPredictor(lambda cell, i: 0.7 - 1e-9)).values()
        assert call.label == label
    seven = write_random_model(tmp_path / "seven", n_classes=7)
    entry = find_model(seven)
    ref = ModelRef(entry.name, str(seven), entry.info.sha256)
    predictor7 = NucleusPredictor.load(ref, torch.device("cpu"), "fp32")
    (call,) = drive(
        NucleusPlan(request(seven, image, CELLS[:1], preset=Preset.FAST)), predictor7
    ).values()
    assert call.label == f"class{int(np.argmax(call.probabilities))}"
    assert sum(call.probabilities) == pytest.approx(1.0)
    assert call.score == pytest.approx(sum(call.probabilities[3:]))


def test_flags_say_what_a_reader_must_know(folder, image):
    """A patch that leaves the image and an unknown pixel size are told with the score."""
    plan = NucleusPlan(request(folder, image, preset=Preset.FAST))
    calls = drive(plan, StubPredictor(lambda cell, i: 0.5))
    assert calls["150.0-160.0"].flags == ("unknown-scale",)
    assert calls["359.0-0.0"].flags == ("border", "unknown-scale")


def test_another_scale_is_resampled(folder, image, predictor):
    """An image at twice the resolution with its pixel size gives about the same score."""
    doubled = image.repeat(2, axis=0).repeat(2, axis=1)
    one = NucleusRequest(
        MemoryImage(image, mpp=0.201), (Nucleus(150, 160, "a"),), str(folder), Preset.FAST
    )
    two = NucleusRequest(
        MemoryImage(doubled, mpp=0.1005), (Nucleus(300, 320, "a"),), str(folder), Preset.FAST
    )
    plain = NucleusRequest(
        MemoryImage(doubled), (Nucleus(300, 320, "a"),), str(folder), Preset.FAST
    )
    scores = [drive(NucleusPlan(r), predictor)["a"].score for r in (one, two, plain)]
    assert scores[0] == pytest.approx(scores[1], abs=0.02)
    assert abs(scores[0] - scores[2]) > abs(scores[0] - scores[1])


def test_bad_requests_fail_before_anything_starts(folder, image):
    """A point outside, an unknown model: one sentence at planning, no task made."""
    with pytest.raises(OutsideImageError, match=r"Nucleus 1.*lies outside.*360 x 420"):
        make_plan(request(folder, image, [(1, 1), (360, 5)]))
    with pytest.raises(OutsideImageError, match="not finite"):
        make_plan(request(folder, image, [(float("nan"), 1)]))
    with pytest.raises(UnknownNameError, match="no model 'no-such'"):
        make_plan(request("no-such", image))


def test_weights_that_do_not_fit_name_five_tensors(tmp_path):
    """A folder whose weights belong to another network lists the first five differences."""
    folder = write_random_model(tmp_path / "alex", "alexnet-tv")
    other = write_random_model(tmp_path / "other", "squeezenet1_0")
    from napari_cellpath.models import read_info, read_tensors, save_model

    save_model(tmp_path / "mixed", read_info(folder), read_tensors(other), "")
    with pytest.raises(
        ModelError, match=r"mixed.*do not fit.* is missing.* and \d+ more"
    ) as caught:
        load_network(tmp_path / "mixed")
    assert str(caught.value).count(";") == 4


def test_save_and_load_give_identical_outputs(tmp_path):
    """Round trip of each backbone: the same logits, class order kept."""
    for name in ("convnet-t", "squeezenet1_0"):
        folder = write_random_model(tmp_path / name, name, n_classes=7)
        a, info = load_network(folder)
        b, _ = load_network(folder)
        x = torch.rand(1, 3, 227, 227)
        with torch.inference_mode():
            assert torch.equal(a(x), b(x))
        assert info.class_names == tuple(f"class{i}" for i in range(7))


@pytest.mark.parametrize("preset", ["fast", "balanced", "adaptive"])
@pytest.mark.parametrize("value", [0, 127, 255])
def test_an_empty_place_has_no_score(folder, predictor, preset, value):
    """R12: uniform images of any size, and an empty corner, give a flag and no number."""
    rng = np.random.default_rng(0)
    for shape in ((1, 1), (3, 400), (400, 400)):
        glass = np.full((*shape, 3), value, dtype=np.uint8)
        noise = rng.integers(-3, 4, glass.shape)
        for pixels in (glass, np.clip(glass + noise, 0, 255).astype(np.uint8)):
            asked = request(folder, pixels, ((0.0, 0.0),), preset=Preset(preset))
            plan = NucleusPlan(asked)
            (call,) = drive(plan, predictor).values()
            assert np.isnan(call.score)
            assert call.label == ""
            assert "blank" in call.flags
            assert call.final
            assert plan.progress == 1.0


def test_a_dim_cell_and_its_neighbour_are_scored(folder, image, predictor):
    """Low contrast is not blank, and a blank neighbour changes nobody's number."""
    dim = (image // 4 + 150).astype(np.uint8)
    dim[:, 290:] = 200
    there, empty = (150.0, 100.0), (150.0, 400.0)
    both = drive(NucleusPlan(request(folder, dim, (empty, there))), predictor)
    (alone,) = drive(NucleusPlan(request(folder, dim, (there,))), predictor).values()
    assert both[alone.uid].score == alone.score
    assert "blank" not in alone.flags
    assert sum("blank" in call.flags for call in both.values()) == 1
