"""The measures of papers.md 1.9 are what they claim to be."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from training import metrics as m


def test_paper_counts_give_paper_measures() -> None:
    """papers.md 1.12 fact 10: the paper's counts give its table."""
    counts = m.BinaryCounts(tp=663, fn=12, tn=238, fp=4)
    assert counts.sensitivity == pytest.approx(0.982222, abs=1e-4)
    assert counts.specificity == pytest.approx(0.983471, abs=1e-4)
    assert counts.accuracy == pytest.approx(0.982552, abs=1e-4)
    assert counts.h_mean == pytest.approx(0.982846, abs=1e-4)
    assert counts.f_measure == pytest.approx(0.988077, abs=1e-4)


def test_missing_class_is_not_a_number() -> None:
    """Where a class is missing its measure is NaN, never 0 or 1."""
    counts = m.binary_counts([1, 1], [0.9, 0.1])
    assert np.isnan(counts.specificity)
    assert np.isnan(m.auc([1, 1], [0.9, 0.1]))
    assert m.binary_report([1, 1], [0.9, 0.1], ["a", "b"], 0.5)["auc"] is None


def test_a_score_at_the_threshold_is_normal() -> None:
    """The call is abnormal above the threshold, not at it, as in the predictions."""
    assert m.binary_counts([1, 0], [0.5, 0.5], 0.5) == m.BinaryCounts(tp=0, fn=1, tn=1, fp=0)


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=40).filter(
        lambda rows: len({truth for truth, _ in rows}) == 2
    )
)
def test_auc_counts_ties_half(rows: list[tuple[bool, int]]) -> None:
    """AUC with ties equals the share of pairs that are in order, ties counting half."""
    truth, scores = [t for t, _ in rows], [s / 5 for _, s in rows]
    positive = [s for t, s in zip(truth, scores, strict=True) if t]
    negative = [s for t, s in zip(truth, scores, strict=True) if not t]
    pairs = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    assert m.auc(truth, scores) == pytest.approx(np.mean(pairs))
    assert m.auc(truth, scores) == pytest.approx(roc_auc_score(truth, scores))


def test_bootstrap_resamples_whole_groups() -> None:
    """Cells that repeat within a slide do not narrow the interval."""
    rng = np.random.default_rng(0)
    once = rng.random(40) < 0.7
    groups = [str(i) for i in range(40)]
    alone = m.bootstrap_interval(lambda i: float(once[i].mean()), groups)
    many = np.repeat(once, 25)
    repeated = m.bootstrap_interval(lambda i: float(many[i].mean()), np.repeat(groups, 25).tolist())
    assert repeated == pytest.approx(alone)
    assert alone[0] < once.mean() < alone[1]


def test_threshold_is_found_and_centred() -> None:
    """Between well separated scores the threshold lies near the middle of the gap."""
    truth = np.repeat([0, 1], 50)
    scores = np.concatenate([np.linspace(0.0, 0.2, 50), np.linspace(0.6, 1.0, 50)])
    assert 0.25 <= m.best_threshold(truth, scores, "accuracy") <= 0.55
    assert 0.25 <= m.best_threshold(truth, scores, "balanced") <= 0.55


def test_threshold_goals_differ_where_classes_are_uneven() -> None:
    """With few normals and overlapping scores, accuracy asks for a lower threshold."""
    rng = np.random.default_rng(1)
    truth = np.repeat([0, 1], [50, 500])
    scores = np.concatenate([rng.normal(0.45, 0.15, 50), rng.normal(0.6, 0.15, 500)]).clip(0, 1)
    assert m.best_threshold(truth, scores, "accuracy") < m.best_threshold(truth, scores, "balanced")


def test_recall_by_class_and_confusion() -> None:
    """Rows of the confusion matrix are the truth; recall counts within a class."""
    assert m.confusion([0, 0, 1], [0, 1, 1], 2).tolist() == [[1, 1], [0, 1]]
    table = m.recall_by_class(["a", "b", "a"], [True, False, False])
    assert table["a"] == {"n": 2, "right": 1, "recall": 0.5}
    assert table["b"]["recall"] == 0.0


def test_calibration_of_honest_and_boastful_scores() -> None:
    """Scores that say 0.5 of a fair coin are calibrated; those that say 1 are off by a half."""
    truth = [0, 1] * 50
    assert m.calibration_error(truth, [0.5] * 100) == pytest.approx(0.0)
    assert m.calibration_error(truth, [1.0] * 100) == pytest.approx(0.5)
    assert m.brier(truth, [1.0] * 100) == pytest.approx(0.5)


def test_scores_that_are_not_finite_are_refused() -> None:
    """A NaN score is an error, not a wrong call."""
    with pytest.raises(ValueError, match="finite"):
        m.binary_counts([1, 0], [float("nan"), 0.2])


def test_package_and_metrics_import_no_torch() -> None:
    """The viewer may import the entry points and the measures without paying for torch."""
    code = "import sys, training, training.metrics, training.splits; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
