"""papers.md 4.9: the checkable facts that training has to get right (1, 7, 10, 12: elsewhere)."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from napari_cellpath.core.vocabulary import Average
from napari_cellpath.systems.eight_ways import eight_ways
from napari_cellpath.systems.hep2.network import resnet8
from training import class_metrics as cm
from training import metrics as m
from training.datasets import CellData, CellRecord
from training.hep2.augment import turn_each, turned
from training.hep2.data import classes_of
from training.hep2.recipe import Hep2Recipe
from training.hep2.sampling import copies_of_cells, grow_by_specimen, specimen_balanced, thin_out
from training.hep2.scoring import score_cells
from training.hep2.trainer import build
from training.splits import leave_one_out

PATTERNS = ("Homogeneous", "Speckled", "Nucleolar", "Centromere", "NuMem", "Golgi")
TASK_1 = {"Homogeneous": 2494, "Speckled": 2831, "Nucleolar": 2598, "Centromere": 2741,
          "NuMem": 2208, "Golgi": 724}  # fmt: skip
TASK_2 = {"Homogeneous": 11386, "Speckled": 11858, "Nucleolar": 9320, "Centromere": 10199,
          "NuMem": 4363, "Golgi": 1501}  # fmt: skip
SET_3 = [
    [86.16, 9.06, 0.56, 0, 4.21, 0], [12.86, 70.96, 8.72, 5.30, 2.01, 0.14],
    [2.61, 3.27, 86.87, 3.23, 2.54, 1.46], [0, 10.94, 4.85, 83.62, 0.36, 0.22],
    [5.48, 3.13, 0.68, 0.14, 85.42, 5.16], [11.88, 4.14, 7.73, 1.10, 13.39, 61.74],
]  # fmt: skip
BEST = [
    [85.93, 8.02, 0.20, 0, 3.65, 2.21], [9.71, 79.97, 3.50, 5.58, 1.24, 0],
    [2.19, 3.66, 85.84, 6.66, 0.92, 0.73], [0.04, 10.58, 4.16, 84.93, 0.11, 0.18],
    [1.45, 1.18, 0.68, 0.09, 94.34, 2.26], [5.11, 5.52, 13.54, 0.97, 4.56, 70.30],
]  # fmt: skip


def cells_of(counts: dict[str, int], per_specimen: int = 10**9) -> CellData:
    """Cells without images: so many of each pattern, in specimens of so many."""
    classes = classes_of(list(counts))
    records = tuple(
        CellRecord(Path(f"{c.name}-{i}.png"), 0, 0, k, False, f"{c.name}-{i // per_specimen}")
        for k, c in enumerate(classes)
        for i in range(counts[c.name])
    )
    return CellData("made", Path(), records, classes, None, "", "")


def views_in_an_epoch(data: CellData, **sampling: object) -> int:
    recipe = Hep2Recipe(name="x", sampling=sampling)
    rows, _ = thin_out(recipe, data, np.arange(len(data.records)))
    return int(copies_of_cells(recipe, data)[rows].sum())


def test_fact_2_the_eight_turns_are_a_group() -> None:
    """All eight differ for an asymmetric picture, and turning any of them gives one of them."""
    picture = torch.arange(16.0).view(1, 1, 4, 4)
    eight = [turned(picture, k) for k in range(8)]
    assert len({tuple(e.flatten().tolist()) for e in eight}) == 8
    known = {tuple(e.flatten().tolist()) for e in eight}
    for one in eight:
        assert {tuple(turned(one, k).flatten().tolist()) for k in range(8)} == known
    assert torch.equal(torch.stack(eight, dim=1), eight_ways(picture))
    many = torch.rand(9, 1, 6, 6)
    each = turn_each(many, torch.arange(9) % 8)
    for k in range(9):
        assert torch.equal(each[k : k + 1], turned(many[k : k + 1], k % 8))


def test_fact_2_the_mean_over_them_does_not_care_how_a_cell_lies() -> None:
    """Scores with d4 are those of the turned cell; without, they are not."""
    torch.manual_seed(0)
    network, cells = resnet8(3, width=8).eval(), torch.rand(4, 1, 60, 60)
    upright = score_cells(network, cells, Average.D4)
    for k in (1, 4, 7):
        other = score_cells(network, turned(cells, k), Average.D4)
        np.testing.assert_allclose(upright, other, atol=1e-6)
    plain = score_cells(network, turned(cells, 1)) - score_cells(network, cells)
    assert np.abs(plain).max() > 1e-4


def test_facts_3_and_11_set_sizes() -> None:
    """set-2 is eight times Task-1; set-3 is 41 of each of 320 specimens."""
    assert views_in_an_epoch(cells_of(TASK_1), copies=8) == 108_768
    specimens = dict(zip(PATTERNS, (69, 68, 66, 67, 36, 14), strict=True))
    data = cells_of({name: n * 50 for name, n in specimens.items()}, per_specimen=50)
    assert len(set(data.groups)) == 83 + 237
    rows, fewer = thin_out(
        Hep2Recipe(name="x", sampling={"per_specimen": 41}), data, np.arange(len(data.records))
    )
    assert len(rows) == 13_120
    assert fewer == {}
    by_pattern = np.bincount(data.labels[rows])
    assert by_pattern.tolist() == [2829, 2788, 2706, 2747, 1476, 574]


def test_fact_4_one_fold_a_specimen() -> None:
    """83 specimens: 83 folds, disjoint, every cell tested once and never by its own specimen."""
    groups = [f"s{k}" for k in range(83) for _ in range(1 + k % 5)]
    plan = leave_one_out(groups)
    assert len(plan.folds) == 83
    tested = np.concatenate(plan.folds)
    assert sorted(tested.tolist()) == list(range(len(groups)))
    names = np.array(groups)
    for number, fold in enumerate(plan.folds):
        assert len(set(names[fold])) == 1
        assert not set(names[fold]) & set(names[plan.training(number)])


def test_fact_5_mean_class_accuracy() -> None:
    """The toy of the paper; a class without samples is left out, and said."""
    table = np.array([[2, 0], [1, 3]])
    assert cm.mean_class_accuracy(table) == pytest.approx(0.875)
    assert np.trace(table) / table.sum() == pytest.approx(5 / 6)
    with pytest.warns(UserWarning, match="No cells of Golgi"):
        got = cm.mean_class_accuracy([[2, 0, 0], [1, 3, 0], [0, 0, 0]], ("A", "B", "Golgi"))
    assert got == pytest.approx(0.875)


def test_fact_6_the_published_matrices() -> None:
    """Their mean class accuracies."""
    assert cm.mean_class_accuracy(SET_3) == pytest.approx(0.79128, abs=2e-4)
    assert cm.mean_class_accuracy(BEST) == pytest.approx(0.83552, abs=2e-4)
    assert np.mean(np.diag(SET_3)) == pytest.approx(79.128, abs=1e-3)
    assert np.mean(np.diag(BEST)) == pytest.approx(83.552, abs=1e-3)


def test_fact_8_the_papers_weights_only_guess() -> None:
    """A deviation of 0.001: the loss is that of guessing, on any batch; and it is warned of."""
    settings = Hep2Recipe(
        name="x", network={"architecture": "nin10", "init": "paper", "arguments": {"width": 32}}
    ).network
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match="cannot train a network this deep"):
        network = build(settings, 6).eval()
    with torch.no_grad():
        loss = F.cross_entropy(network(torch.rand(5, 1, 60, 60)), torch.arange(5))
    assert float(loss) == pytest.approx(math.log(6), abs=1e-6)


def test_fact_9_augmented_task_2() -> None:
    """Factors 2, 2, 2, 2, 4 and 8."""
    data = cells_of(TASK_2)
    assert len(data.records) == 48_627
    assert views_in_an_epoch(data, copies=2, copies_of={"NuMem": 4, "Golgi": 8}) == 114_986


def test_fact_11_specimen_balanced_takes_all_where_there_are_fewer() -> None:
    """Exactly n of each, all of those that have fewer, and these are reported."""
    groups = ["a"] * 50 + ["b"] * 7 + ["c"] * 41
    rows, fewer = specimen_balanced(groups, 41, seed=3)
    names = np.array(groups)[rows]
    assert {k: int((names == k).sum()) for k in "abc"} == {"a": 41, "b": 7, "c": 41}
    assert fewer == {"b": 7}
    assert len(set(rows.tolist())) == len(rows)
    alone, _ = specimen_balanced(["a"] * 50, 41, seed=3)
    assert rows[:41].tolist() == alone.tolist()  # who else is there does not matter


def test_fewer_specimens_keep_every_pattern() -> None:
    """A share of the specimens, whole ones, of each pattern at least one; larger shares nest."""
    data = cells_of({"Homogeneous": 60, "Golgi": 12}, per_specimen=6)
    everything = np.arange(len(data.records))
    small = grow_by_specimen(data, everything, 0.2, 0)
    large = grow_by_specimen(data, everything, 0.6, 0)
    assert set(small) < set(large) < set(everything)
    assert set(data.labels[small]) == {0, 1}
    taken = {data.groups[i] for i in small}
    assert len(taken) == 3
    assert all(data.groups.count(g) == sum(data.groups[i] == g for i in small) for g in taken)


def test_measures_of_several_classes() -> None:
    """By hand: Brier, top-label calibration error, macro F1, AUC, recall by class."""
    truth = np.array([0, 0, 1, 2])
    given = np.array([[0.8, 0.1, 0.1], [0.4, 0.6, 0], [0.2, 0.7, 0.1], [0, 0.1, 0.9]])
    assert cm.class_brier(truth, given) == pytest.approx((0.06 + 0.72 + 0.14 + 0.02) / 4)
    table = m.confusion(truth, given.argmax(axis=1), 3)
    assert cm.macro_f1(table) == pytest.approx((2 / 3 + 2 / 3 + 1) / 3)
    assert cm.macro_auc(truth, given) == pytest.approx(1.0)
    error = cm.top_calibration_error(truth, given)
    assert error == pytest.approx((0.2 + 0.6 + 0.3 + 0.1) / 4)  # each in a bin of its own
    report = cm.class_report(truth, given, ["a", "b", "c", "d"], "HSN")
    assert report["mca"] == pytest.approx(0.8333)
    assert report["by_class"]["H"] == {
        "n": 2, "n_groups": 2, "right": 1, "recall": 0.5, "recall_interval": [0.0, 1.0],
    }  # fmt: skip
    table = cm.specimen_table(truth, given, ["a", "a", "b", "c"], "HSN")
    assert table[0] == {
        "specimen": "a", "truth": "H", "cells": 2, "wrong": 1, "error": 0.5, "vote": "H",
        "mean": "H",
    }  # fmt: skip


def test_intervals_keep_every_class_in_every_draw() -> None:
    """Specimens are drawn pattern by pattern; a pattern's only specimen has its cells drawn."""
    truth = np.repeat([0, 1, 2], [40, 8, 6])
    groups = [f"h{k // 4}" for k in range(40)] + ["s0"] * 4 + ["s1"] * 4 + ["golgi"] * 6
    seen = []

    def look(rows: np.ndarray) -> float:
        seen.append(np.bincount(truth[rows], minlength=3).tolist())
        return float((rows == 53).sum())

    low, high = m.bootstrap_interval(look, groups, n=200, strata=truth)
    assert seen == [[40, 8, 6]] * 200
    assert low == 0
    assert high >= 2  # the last cell is drawn by itself, up to several times
