"""Patterns of cells: one answer whatever the batch, views that do not care how a cell lies."""

import numpy as np
import pytest
import torch
from PIL import Image as PILImage
from scipy import ndimage

from napari_cellpath.backend import connect
from napari_cellpath.core.errors import OutsideImageError, UnknownNameError, UnreadableImageError
from napari_cellpath.core.requests import CellBox, FileImage, MemoryImage, PatternRequest
from napari_cellpath.core.vocabulary import PATTERNS, Average, Channel, System
from napari_cellpath.models import Calibration
from napari_cellpath.samples import hep2_field
from napari_cellpath.systems import boxed_plan, catalogue
from napari_cellpath.systems.eight_ways import eight_ways
from napari_cellpath.systems.hep2 import plan as plan_module
from napari_cellpath.systems.hep2.cells import box_round, boxes_in
from napari_cellpath.systems.hep2.network import VotingHead
from napari_cellpath.systems.hep2.plan import PatternPlan
from tests.support.models import write_pattern_model, write_random_model


def blotches(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """Something to be seen, uint8: noise alone is rightly called blank."""
    smooth = ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), 3)
    return ((smooth - smooth.min()) / np.ptp(smooth) * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def model(folder):
    return str(write_pattern_model(folder / "random"))


@pytest.fixture(scope="module")
def field():
    return hep2_field(shape=(520, 700), n_cells=18)


@pytest.fixture(scope="module")
def backend():
    return connect(inline=True, device="cpu", precision="fp32")


def calls(backend, image, cells, model, **options):
    given = image if isinstance(image, FileImage | MemoryImage) else MemoryImage(image, mpp=0.3225)
    return backend.submit(PatternRequest(given, tuple(cells), model, **options)).result()


def numbers(found):
    return np.array([c.probabilities for c in found])


def test_parameters_and_shapes():
    """papers.md 4.9, fact 1: 891,750 and 956,614 parameters; 60-60-29-29-29-14-14-14-14-1."""
    network = catalogue.build("nin10", n_classes=6).eval()
    assert sum(p.numel() for p in network.parameters()) == 891_750
    whole = catalogue.build("nin-matconvnet", n_classes=6)
    assert sum(p.numel() for p in whole.parameters()) == 956_614
    sides = []
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.MaxPool2d | torch.nn.AvgPool2d):
            layer.register_forward_hook(lambda _, __, out: sides.append(out.shape[-1]))
    with torch.inference_mode():
        assert network(torch.zeros(1, 1, 60, 60)).shape == (1, 6)
    # Layer 9, to the classes, comes after the average here (network.py says why).
    assert sides == [60, 60, 29, 29, 29, 14, 14, 14]


def test_eight_ways_round():
    """Fact 2: eight images, all different for one without symmetry, closed under composition."""
    cell = torch.arange(16.0).reshape(1, 1, 4, 4)
    ways = [w.numpy().tobytes() for w in eight_ways(cell)[0].contiguous()]
    assert len(set(ways)) == 8
    for way in eight_ways(cell)[0]:
        again = [w.numpy().tobytes() for w in eight_ways(way[None])[0].contiguous()]
        assert set(again) == set(ways)


def test_the_average_of_eight_does_not_care_how_a_cell_lies(backend, field, model):
    """Fact 2: turned by right angles or mirrored, the same probabilities; without it, others."""
    box = boxes_in(field.labels)[3]
    crop = field.image[box.row0 - 8 : box.row1 + 8, box.col0 - 8 : box.col1 + 8]
    answers = {average: [] for average in Average}
    for turned in [np.rot90(seen, k) for seen in (crop, crop[:, ::-1]) for k in range(4)]:
        image = np.ascontiguousarray(turned)
        whole = [CellBox(0, 0, *image.shape)]
        for average in Average:
            (call,) = calls(backend, image, whole, model, whole=True, average=average)
            answers[average].append(call.probabilities)
            assert call.n_views == (8 if average is Average.D4 else 1)
    np.testing.assert_allclose(answers[Average.D4], [answers[Average.D4][0]] * 8, atol=1e-6)
    assert np.ptp(answers[Average.NONE], axis=0).max() > 1e-4
    mean = np.mean(answers[Average.NONE], axis=0)
    np.testing.assert_allclose(answers[Average.D4][0], mean, atol=1e-6)


def test_members_vote_by_mean_score_not_by_majority():
    """Fact 7: (.9,.1), (.45,.55), (.45,.55) is class 0 by the mean; (.6,.4), ... is class 1."""
    for members, mean in (
        ([(0.6, 0.4), (0.4, 0.6), (0.3, 0.7)], (0.43333, 0.56667)),
        ([(0.9, 0.1), (0.45, 0.55), (0.45, 0.55)], (0.6, 0.4)),
    ):
        head = VotingHead(3, 2, 2)
        with torch.no_grad():
            for linear in head.classifiers:
                linear.weight.copy_(torch.eye(2))
                linear.bias.zero_()
            features = torch.tensor(members).log().reshape(1, 6)
            voted = torch.softmax(head(features), dim=1)[0]
        np.testing.assert_allclose(voted, mean, atol=1e-5)


@pytest.mark.parametrize("average", list(Average))
def test_a_cell_has_one_answer(backend, field, model, monkeypatch, tmp_path, average):
    """Fact 12: alone, in a field, in other batches, from a file, from memory: 1e-6."""
    cells = boxes_in(field.labels)
    together = calls(backend, field.image, cells, model, average=average)
    assert [c.uid for c in together] == [c.uid for c in cells]
    expected = numbers(together)
    assert expected.shape == (18, 6)
    np.testing.assert_allclose(expected.sum(axis=1), 1, atol=1e-9)
    assert np.ptp(expected, axis=0).max() > 0.01
    again = calls(backend, field.image, cells, model, average=average)
    np.testing.assert_array_equal(numbers(again), expected)
    alone = [calls(backend, field.image, [c], model, average=average)[0] for c in cells[:4]]
    np.testing.assert_allclose(numbers(alone), expected[:4], atol=1e-6)
    back = calls(backend, field.image, cells[::-1], model, average=average)
    np.testing.assert_allclose(numbers(back)[::-1], expected, atol=1e-6)
    monkeypatch.setattr(boxed_plan, "POOL_PIXELS", 100)
    monkeypatch.setattr(plan_module, "_USUAL_INPUTS", 40)
    PILImage.fromarray(field.image).save(tmp_path / "f.png")
    other = calls(
        backend, FileImage(str(tmp_path / "f.png"), 0.3225), cells, model, average=average
    )
    np.testing.assert_allclose(numbers(other), expected, atol=1e-6)
    moved = np.pad(field.image, ((300, 50), (20, 900)))
    there = [CellBox(c.row0 + 300, c.col0 + 20, c.row1 + 300, c.col1 + 20) for c in cells]
    inside = [n for n, c in enumerate(together) if "border" not in c.flags]
    assert len(inside) > 10
    away = numbers(calls(backend, moved, there, model, average=average))
    np.testing.assert_allclose(away[inside], expected[inside], atol=1e-6)


def test_the_plan_alone_decides_the_batches(field, model):
    """Full batches of fixed composition, but for the last; every cell once."""
    cells = boxes_in(field.labels)
    image = MemoryImage(field.image, mpp=0.3225)
    plans = [PatternPlan(PatternRequest(image, tuple(cells), model)) for _ in range(2)]
    for plan in plans:
        plan._cells_a_task = 7
    one, two = ([t.payload.numbers for t in iter(plan.take, None)] for plan in plans)
    assert one == two
    assert [len(numbers) for numbers in one] == [7, 7, 4]
    assert sorted(n for numbers in one for n in numbers) == list(range(18))


def test_reasons_for_no_answer_and_for_care(backend, model):
    """Blank, tiny, border, unknown scale; each cell keeps its place among the others."""
    image = np.zeros((300, 300), np.uint8)
    image[100:150, 100:150] = blotches(0, (50, 50))
    image[:40, :40] = blotches(1, (40, 40))
    cells = [
        CellBox(100, 100, 150, 150, uid="fine"),
        CellBox(200, 200, 250, 250, uid="blank"),
        CellBox(120, 120, 121, 121, uid="tiny"),
        CellBox(0, 0, 40, 40, uid="border"),
        CellBox(-10, -10, 30, 30, uid="over"),
    ]
    found = calls(backend, image, cells, model)
    assert [c.uid for c in found] == ["fine", "blank", "tiny", "border", "over"]
    assert [c.flags for c in found] == [(), ("blank",), ("tiny",), ("border",), ("border",)]
    assert [bool(c.label) for c in found] == [True, False, False, True, True]
    assert found[1].probabilities == ()
    assert np.isnan(found[2].score)
    assert found[0].label in PATTERNS
    unknown = calls(backend, MemoryImage(image), cells[:1], model)
    assert unknown[0].flags == ("unknown-scale",)
    nothing = calls(backend, np.zeros((90, 90), np.uint8), [CellBox(9, 9, 60, 60)], model)
    assert nothing[0].flags == ("blank",)
    assert calls(backend, image, [], model) == []


def test_of_a_box_that_begins_beside_the_image_its_part_on_it_is_seen(backend, model):
    """The window keeps that part; the command line and Python must not see another cell."""
    image = blotches(2, (300, 300))
    over, part = CellBox(-12, 250, 40, 330, uid="c"), CellBox(0, 250, 40, 300, uid="c")
    (first,), (second,) = calls(backend, image, [over], model), calls(backend, image, [part], model)
    assert first == second
    assert first.probabilities


def test_a_network_that_gives_no_number_is_not_believed(backend, folder):
    """Weights of infinite answers: flagged, without a label."""
    model = write_pattern_model(folder / "wild")
    from napari_cellpath.models import read_info, read_tensors, save_model

    tensors = {k: v.copy() for k, v in read_tensors(model).items()}
    for name in tensors:
        if name.startswith("head") and name.endswith("weight"):
            tensors[name][:] = 3e38
    save_model(folder / "overflowing", read_info(model), tensors, "# wild\n")
    image = blotches(0, (90, 90))
    (call,) = calls(backend, image, [CellBox(9, 9, 70, 70)], str(folder / "overflowing"))
    assert call.flags == ("not-finite",)
    assert call.label == ""


@pytest.mark.parametrize(
    ("box", "word"),
    [
        ((50, 10, 20, 40), "inverted or has no area"),
        ((50, 10, 50, 40), "inverted or has no area"),
        ((500, 10, 540, 40), "lies outside the image of 300 x 300"),
        ((-40, 10, 0, 40), "lies outside"),
        ((0, 0, 9000, 40), "larger than 4096"),
    ],
)
def test_boxes_that_are_none_are_refused_by_number(backend, model, box, word):
    """Nothing is computed; the sentence names the cell and its edges."""
    image = np.full((300, 300), 9, np.uint8)
    with pytest.raises(OutsideImageError, match=word) as caught:
        calls(backend, image, [CellBox(9, 9, 60, 60), CellBox(*box)], model)
    assert "Cell 1 (rows" in str(caught.value)


def test_colour_depth_and_nan(backend, field, model):
    """RGB by the channel asked for; 16 bits as 8; NaN refused."""
    cells = boxes_in(field.labels)[:5]
    expected = numbers(calls(backend, field.image, cells, model))
    rgb = np.stack([blotches(k, field.image.shape) for k in range(3)], axis=2)
    rgb[..., 2] = field.image
    blue = calls(backend, rgb, cells, model, channel=Channel.BLUE)
    np.testing.assert_allclose(numbers(blue), expected, atol=1e-6)
    green = calls(backend, rgb, cells, model)
    assert np.abs(numbers(green) - expected).max() > 1e-4
    deep = calls(backend, field.image.astype(np.uint16) * 257, cells, model)
    np.testing.assert_allclose(numbers(deep), expected, atol=1e-6)
    broken = field.image / np.float32(255)
    broken[tuple(np.round(field.centres[0]).astype(int))] = np.nan
    with pytest.raises(UnreadableImageError, match="not finite"):
        calls(backend, broken, cells, model)


def test_calibrated_probabilities_stand_beside(backend, field, folder, model):
    """Softmax of log p / T, per class; the label and the raw probabilities stay."""
    cells = boxes_in(field.labels)[:5]
    calibration = Calibration(temperature=2.0)
    other = str(write_pattern_model(folder / "calibrated", calibration=calibration))
    raw, both = (calls(backend, field.image, cells, m) for m in (model, other))
    np.testing.assert_array_equal(numbers(both), numbers(raw))
    assert raw[0].calibrated == ()
    for call in both:
        powers = np.sqrt(call.probabilities)
        np.testing.assert_allclose(call.calibrated, powers / powers.sum(), atol=1e-12)
    with pytest.raises(ValueError, match="two classes"):
        Calibration(temperature=1.0, bias=0.5).apply_many([[0.2, 0.8]])


def test_boxes_of_labels_and_of_points():
    """One label, one box; one pixel too; a point's box is centred on it."""
    labels = np.zeros((50, 60), np.int64)
    labels[3:9, 10:30] = 4_000_000_000
    labels[20, 59] = 7
    assert boxes_in(labels) == [
        CellBox(20, 59, 21, 60, uid="7"),
        CellBox(3, 10, 9, 30, uid="4000000000"),
    ]
    assert boxes_in(np.zeros((5, 5), int)) == []
    for diameter in (1, 20, 21):
        box = box_round(100.0, 40.0, diameter)
        assert box.row1 - box.row0 == diameter
        assert abs(box.centre[0] - 100) <= 0.5
        assert abs(box.centre[1] - 40) <= 0.5


def test_a_model_of_another_system_is_refused(backend, folder):
    """A DeepPap model tells no patterns."""
    other = str(write_random_model(folder / "pap"))
    with pytest.raises(UnknownNameError, match=f"not a {System.HEP2}"):
        calls(backend, np.zeros((90, 90), np.uint8), [CellBox(9, 9, 60, 60)], other)


def test_noise_is_not_called_a_pattern(model):
    """Bare background, stretched, would be called something with confidence."""
    rng = np.random.default_rng(0)
    image = rng.normal(12, 2, (200, 200)).clip(0, 255).astype(np.uint8)
    image[20:80, 20:80] = np.maximum(image[20:80, 20:80], blotches(0, (60, 60)))
    request = PatternRequest(
        MemoryImage(image), (CellBox(25, 25, 75, 75), CellBox(110, 110, 170, 170)), model
    )
    with_ground = connect(inline=True, device="cpu", precision="fp32").submit(request).result()
    cell, ground = with_ground
    assert cell.label
    assert ground.flags[-1] == "blank"
    assert not ground.label
