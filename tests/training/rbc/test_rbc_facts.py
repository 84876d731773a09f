"""papers.md 2.9: the checkable facts that training has a part in."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from training.rbc import label_metrics as lm
from training.rbc.boosting import fit_booster, folds_of
from training.rbc.detection_metrics import (
    Found,
    average_precision,
    detection_report,
    matched,
    overlaps,
)
from training.rbc.objective import masked_loss, mean_loss
from training.rbc.recipe import RbcBooster
from training.rbc.regions import UNKNOWN, abnormal_of, boxes_of_mask, merged_groups, region_of

A = np.array([[1, 0, 0, 0, 0, 1], [1, 0, 0, 0, 1, 0]], dtype=np.int8)
B = np.array([[1, 0, 0, 0, 0, 1], [1, 0, 0, 0, 0, 0]], dtype=np.int8)
ABNORMAL = (False, True, True, True, True, True)


def test_pixels_that_meet_at_a_corner_are_one_or_two() -> None:
    mask = np.array([[1, 0], [0, 1]])
    assert len(boxes_of_mask(mask, 4, min_area=1)) == 2
    assert len(boxes_of_mask(mask, 8, min_area=1)) == 1


def test_box_of_a_rectangle() -> None:
    mask = np.zeros((10, 20))
    mask[2:5, 10:15] = 255
    assert boxes_of_mask(mask, min_area=1).tolist() == [[2, 10, 5, 15]]
    assert len(boxes_of_mask(mask)) == 0  # 15 pixels are a speck


@pytest.mark.parametrize(
    ("right", "n", "step", "interp"),
    [
        ([1, 0, 1], 2, 5 / 6, 5 / 6),
        ([1, 0, 0, 1, 1], 3, 0.7, 0.733333),
        ([1, 0, 1], 3, 0.555556, 0.555556),
    ],
)
def test_average_precision(right: list[int], n: int, step: float, interp: float) -> None:
    scores = np.linspace(0.9, 0.1, len(right))
    assert average_precision(right, scores, n, "step") == pytest.approx(step, abs=1e-6)
    assert average_precision(right, scores, n, "interp") == pytest.approx(interp, abs=1e-6)
    turned = np.argsort(scores)  # the order they come in does not matter
    assert average_precision(np.array(right)[turned], scores[turned], n) == pytest.approx(
        interp, abs=1e-6
    )


def test_average_precision_of_nothing() -> None:
    assert average_precision([], [], 3) == 0.0
    assert np.isnan(average_precision([1], [0.5], 0))


def test_a_true_box_is_found_once() -> None:
    box = [[0, 0, 10, 10]]
    assert matched(box, box * 2, [0.6, 0.9]).tolist() == [-1, 0]
    assert matched(np.zeros((0, 4)), box, [0.5]).tolist() == [-1]
    assert matched(box, np.zeros((0, 4)), []).tolist() == []


def test_overlap_of_a_third() -> None:
    assert overlaps([[0, 0, 2, 2]], [[1, 0, 3, 2]])[0, 0] == pytest.approx(1 / 3)


def test_report_over_images_and_none() -> None:
    box = np.array([[0, 0, 10, 10]])
    images = [Found(box, box, np.array([0.9]), "a"), Found(box, box + 50, np.array([0.8]), "b")]
    report = detection_report(images)
    assert report["ap"] == 0.5
    assert (report["precision"], report["recall"]) == (0.5, 0.5)
    nothing = Found(box, np.zeros((0, 4)), np.zeros(0), "a")
    assert detection_report([nothing])["ap"] == 0.0
    assert detection_report([nothing])["precision"] is None


def test_exact_match_and_hamming() -> None:
    assert lm.exact_match(A, B) == 0.5
    assert lm.hamming_loss(A, B) == pytest.approx(1 / 12)


def test_unknown_labels_count_neither_way() -> None:
    half_known = A.copy()
    half_known[1, 2:] = UNKNOWN
    assert lm.exact_match(half_known, B) == 1.0
    assert lm.hamming_loss(half_known, B) == 0.0
    given = np.array([[0.9], [0.2], [0.6]])
    assert lm.label_aucs(np.array([[1], [0], [-1]]), given)[0] == 1.0


def test_auc_of_a_constant_label_is_nan() -> None:
    found = lm.label_aucs(A, np.random.default_rng(0).random((2, 6)))
    assert np.isnan(found[0])
    assert np.isnan(found[1])
    assert np.isfinite(found[4])
    assert lm.macro_auc(A[:1], np.full((1, 6), 0.5)) != lm.macro_auc(A, B.astype(float))
    assert np.isnan(lm.macro_auc(A[:1], np.full((1, 6), 0.5)))


def test_abnormal_target() -> None:
    rows = [
        [1, 0, 0, 0, 0, 0],
        [0, 0, 0, 1, 0, 0],
        [0] * 6,
        [1, -1, 0, 0, 0, 0],
        [-1, 1, -1, 0, 0, 0],
    ]
    assert abnormal_of(rows, ABNORMAL).tolist() == [0, 1, 0, -1, 1]


def test_regions_share_pixels() -> None:
    boxes = [[0, 0, 10, 10], [20, 20, 30, 30], [9, 9, 15, 15], [10, 0, 12, 5], [14, 14, 21, 21]]
    assert merged_groups(boxes) == [[0, 1, 2, 4], [3]]
    assert merged_groups(np.zeros((0, 4))) == []


def test_a_region_of_untyped_cells_denies_nothing() -> None:
    boxes = np.array([[0, 0, 5, 5], [4, 4, 9, 9]])
    whole = region_of(boxes, [0, 2], ABNORMAL)
    assert whole.box == (0, 0, 9, 9)
    assert whole.targets == (1, 0, 1, 0, 0, 0)
    assert whole.abnormal == 1
    partly = region_of(boxes, [0, -1], ABNORMAL)
    assert partly.targets == (1, -1, -1, -1, -1, -1)
    assert partly.abnormal == UNKNOWN
    assert region_of(boxes, [2, -1], ABNORMAL).abnormal == 1
    nameless = region_of(boxes, [0, -2], ABNORMAL, unnamed=-2)
    assert nameless.targets == (1, 0, 0, 0, 0, 0)
    assert nameless.abnormal == 1


def test_masked_labels_teach_nothing() -> None:
    logits = torch.tensor([[3.0, -2.0]], requires_grad=True)
    masked_loss(logits, torch.tensor([[1, -1]], dtype=torch.int8)).backward()
    assert logits.grad is not None
    assert logits.grad[0, 0] != 0
    assert logits.grad[0, 1] == 0
    known = torch.tensor([[1, 0]], dtype=torch.int8)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        logits.detach(), known.float(), reduction="sum"
    )
    assert float(masked_loss(logits.detach(), known)) == pytest.approx(float(expected))
    assert mean_loss(logits.detach(), -torch.ones(1, 2, dtype=torch.int8)) == 0.0


def test_booster_never_judges_what_it_was_fitted_to() -> None:
    """The poison test: a row that only its own label could explain is not explained."""
    rng = np.random.default_rng(0)
    x = rng.random((200, 2))
    y = (x[:, 0] > 0.5).astype(np.int8)
    x[17], y[17] = (0.9, 5.0), 0  # the one value of its kind, with a label against the rule
    groups = [f"image {i // 5}" for i in range(200)]
    found = fit_booster(x, y, groups, RbcBooster(), seed=0)
    assert found.booster is not None
    assert found.booster.probability(x[17:18])[0] < 0.3  # memorised by the one that saw it
    assert found.probabilities[17] > 0.7  # and not by the one that did not
    assert np.isfinite(found.probabilities).all()
    by_group: dict[str, set[int]] = {}
    for group, fold in zip(groups, found.fold_of.tolist(), strict=True):
        by_group.setdefault(group, set()).add(fold)
    assert all(len(folds) == 1 for folds in by_group.values())


def test_folds_without_groups_warn() -> None:
    y = np.tile([0, 1], 30).astype(np.int8)
    with pytest.warns(UserWarning, match="flatters"):
        found = folds_of(y, [str(i) for i in range(60)], 3, 0)
    assert sorted(np.bincount(found).tolist()) == [20, 20, 20]


def test_too_few_verdicts_leave_the_rule() -> None:
    few = fit_booster(
        np.zeros((4, 2)), np.array([0, 1, 1, -1], np.int8), ["a"] * 4, RbcBooster(), 0
    )
    assert few.booster is None
    assert np.isnan(few.probabilities).all()


def test_thresholds_of_rare_types_stay_at_half() -> None:
    rng = np.random.default_rng(1)
    truth = np.zeros((400, 2), dtype=np.int8)
    truth[:100, 0] = 1
    truth[:5, 1] = 1
    given = np.stack([np.where(truth[:, 0] == 1, 0.35, 0.1), rng.random(400)], axis=1)
    first, second = lm.best_thresholds(truth, given)
    assert 0.1 < first < 0.35
    assert second == 0.5
