"""Measures of segmentations: papers.md 3.10, fact 9, and what is asked beyond the paper."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from napari_cellpath.core.vocabulary import CIN_CLASSES
from training import region_metrics as rm

T = [1, 1, 2, 2, 3, 3, 4, 4]
P = [1, 2, 2, 2, 3, 4, 4, 4]


def test_fact_9_the_papers_toy() -> None:
    """Dice, IoU and pixel accuracy of eight pixels; a background pixel changes only one reading."""
    table = rm.pixel_table(T, P, 5)
    assert rm.dice_of_classes(table)[1:] == pytest.approx([2 / 3, 0.8, 2 / 3, 0.8])
    assert rm.iou_of_classes(table)[1:] == pytest.approx([0.5, 2 / 3, 0.5, 2 / 3])
    plain = rm.summarise(table)
    assert (plain.dice, plain.iou, plain.accuracy) == pytest.approx(
        (0.733333, 0.583333, 0.75), abs=1e-6
    )
    more = rm.pixel_table([*T, 0], [*P, 1], 5)
    assert rm.summarise(more) == plain
    counted = rm.summarise(more, ignore_background=False)
    assert (counted.dice, counted.iou, counted.accuracy) == pytest.approx(
        (0.691667, 0.541667, 0.666667), abs=1e-6
    )


def test_ignored_pixels_do_not_count() -> None:
    """Neither 255 nor -1 is a truth."""
    table = rm.pixel_table([1, 255, -1], [1, 0, 1], 2)
    assert table.tolist() == [[0, 0], [0, 1]]


def test_a_class_absent_from_both_is_left_out_and_counted() -> None:
    """Absent from truth alone it is wrong, not absent."""
    table = rm.pixel_table([1, 1, 2], [1, 1, 2], 4)
    found = rm.summarise(table)
    assert (found.dice, found.averaged) == (1.0, 2)
    assert rm.summarise(rm.pixel_table([1, 1], [1, 3], 4)).averaged == 2
    assert np.isnan(rm.summarise(np.zeros((4, 4), np.int64)).dice)


def test_quadratic_kappa_is_scikit_learns() -> None:
    """Over the tissue classes."""
    rng = np.random.default_rng(0)
    truth = rng.integers(1, 5, 500)
    called = np.clip(truth + rng.integers(-1, 2, 500), 1, 4)
    table = rm.pixel_table([*truth, 0, 1], [*called, 3, 0], 5)
    wanted = cohen_kappa_score(truth, called, weights="quadratic")
    assert rm.quadratic_kappa(table) == pytest.approx(wanted)
    assert rm.grade_error(table) == pytest.approx(np.abs(truth - called).mean())


def test_lsil_and_hsil_are_two_of_the_grades() -> None:
    """CIN2 called CIN3 is right in the merged view; other class lists have none."""
    table = rm.pixel_table([2, 3, 3, 4], [2, 4, 3, 1], 5)
    merged, names = rm.merged_table(table, CIN_CLASSES)  # type: ignore[misc]
    assert names == ("background", "normal", "LSIL", "HSIL")
    assert merged[3].tolist() == [0, 1, 0, 2]
    assert merged.sum() == table.sum()
    assert rm.merged_table(table[:3, :3], ("background", "benign gland", "malignant gland")) is None


def test_report_tells_glands_from_the_rest_whatever_their_class() -> None:
    """A gland of the wrong class is a gland; the mean over all classes has the background."""
    truth, called = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 0, 2, 2, 2, 2])
    tables = np.stack([rm.pixel_table(truth, called, 3)] * 3)
    report = rm.region_report(tables, ["a", "b", "b"], ["background", "benign", "malignant"])
    assert report["foreground_dice"] == 1.0
    assert report["dice"] == pytest.approx((1 + 0 + 2 / 3) / 3, abs=1e-4)
    assert report["by_class"]["malignant"]["dice_interval"] == [0.6667, 0.6667]
    assert report["n_groups"] == 2
    assert "merged" not in report
