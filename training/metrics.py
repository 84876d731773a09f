"""Measures of a classifier on arrays. NumPy only (papers.md 0, 1.9).

Abnormal is 1 and positive, normal 0. A score is the probability of abnormal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Values = NDArray[np.float64]

BINS = 15
"""Equally wide bins of the expected calibration error."""
LEAST_GROUPS = 8
"""Groups from which a paired interval resamples groups; fewer give no honest interval."""


@dataclass(frozen=True)
class BinaryCounts:
    """True and false positives and negatives, and the measures of papers.md 1.9.

    A measure whose denominator is zero is NaN, never 0 or 1.
    """

    tp: int
    fn: int
    tn: int
    fp: int

    @property
    def sensitivity(self) -> float:
        """TP / (TP + FN)."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def specificity(self) -> float:
        """TN / (TN + FP)."""
        return _ratio(self.tn, self.tn + self.fp)

    @property
    def accuracy(self) -> float:
        """Share that is right."""
        return _ratio(self.tp + self.tn, self.tp + self.tn + self.fp + self.fn)

    @property
    def balanced_accuracy(self) -> float:
        """Mean of sensitivity and specificity."""
        return (self.sensitivity + self.specificity) / 2

    @property
    def h_mean(self) -> float:
        """Harmonic mean of sensitivity and specificity."""
        return _ratio(2 * self.sensitivity * self.specificity, self.sensitivity + self.specificity)

    @property
    def f_measure(self) -> float:
        """Harmonic mean of precision and sensitivity."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    def as_dict(self) -> dict[str, float]:
        """Counts and measures by name."""
        return {
            **asdict(self),
            "accuracy": self.accuracy,
            "sensitivity": self.sensitivity,
            "specificity": self.specificity,
            "balanced_accuracy": self.balanced_accuracy,
            "h_mean": self.h_mean,
            "f_measure": self.f_measure,
        }


def _ratio(numerator: float, denominator: float) -> float:
    return float(numerator / denominator) if denominator > 0 else float("nan")


def _arrays(truth: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.bool_], Values]:
    wanted, given = np.asarray(truth).astype(bool), np.asarray(scores, dtype=float)
    if wanted.shape != given.shape or wanted.ndim != 1:
        raise ValueError(f"truth is {wanted.shape} and scores are {given.shape}; both must be (n,)")
    if not np.isfinite(given).all():
        raise ValueError("scores are not all finite numbers")
    return wanted, given


def binary_counts(truth: ArrayLike, scores: ArrayLike, threshold: float = 0.5) -> BinaryCounts:
    """Count at a threshold; a score above it is called abnormal, one equal to it normal."""
    wanted, given = _arrays(truth, scores)
    called = given > threshold
    return BinaryCounts(
        tp=int((called & wanted).sum()),
        fn=int((~called & wanted).sum()),
        tn=int((~called & ~wanted).sum()),
        fp=int((called & ~wanted).sum()),
    )


def auc(truth: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve; tied scores count half. NaN where a class is missing.

    The Mann-Whitney statistic by mean ranks, O(n log n).
    """
    wanted, given = _arrays(truth, scores)
    n_pos, n_neg = int(wanted.sum()), int((~wanted).sum())
    if n_pos == 0 or n_neg == 0:
        return float("nan")
    _, index, count = np.unique(given, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    mean_rank = last - (count - 1) / 2
    rank_sum = mean_rank[index][wanted].sum()
    return float((rank_sum - n_pos * (n_pos + 1) / 2) / (n_pos * n_neg))


def confusion(truth: ArrayLike, called: ArrayLike, n_classes: int) -> NDArray[np.int64]:
    """Counts, (n_classes, n_classes); rows are the truth, columns the call."""
    rows, cols = np.asarray(truth, dtype=int), np.asarray(called, dtype=int)
    table = np.zeros((n_classes, n_classes), dtype=np.int64)
    np.add.at(table, (rows, cols), 1)
    return table


def recall_by_class(classes: Sequence[str], right: ArrayLike) -> dict[str, dict[str, float]]:
    """How many cells of each class were right: ``{class: {n, right, recall}}``, sorted by name.

    With a binary classifier, ``right`` says whether normal and abnormal were told apart.
    """
    names, ok = np.asarray(classes, dtype=str), np.asarray(right, dtype=bool)
    table = {}
    for name in np.unique(names):
        chosen = ok[names == name]
        table[str(name)] = {
            "n": int(chosen.size),
            "right": int(chosen.sum()),
            "recall": float(chosen.mean()),
        }
    return table


def brier(truth: ArrayLike, scores: ArrayLike) -> float:
    """Mean squared distance of the score from the truth."""
    wanted, given = _arrays(truth, scores)
    return float(np.mean((given - wanted) ** 2))


def calibration_error(truth: ArrayLike, scores: ArrayLike, bins: int = BINS) -> float:
    """Expected calibration error over equally wide bins of the score."""
    wanted, given = _arrays(truth, scores)
    place = np.minimum((given * bins).astype(int), bins - 1)
    error = 0.0
    for k in range(bins):
        here = place == k
        if here.any():
            error += here.mean() * abs(given[here].mean() - wanted[here].mean())
    return float(error)


def best_threshold(truth: ArrayLike, scores: ArrayLike, goal: str = "accuracy") -> float:
    """Threshold with the best ``accuracy`` or ``balanced`` accuracy on these scores.

    The measure is a ragged step function of the threshold and its maximum is luck; so it is
    smoothed over a neighbourhood of 0.1 first, and of equals the one nearest 0.5 is taken.
    """
    wanted, given = _arrays(truth, scores)
    candidates = np.round(np.arange(0.10, 0.9001, 0.01), 2)
    values = []
    for t in candidates:
        counts = binary_counts(wanted, given, float(t))
        values.append(counts.accuracy if goal == "accuracy" else counts.balanced_accuracy)
    kernel = np.array([1, 2, 3, 4, 5, 6, 5, 4, 3, 2, 1], dtype=float)
    padded = np.pad(np.asarray(values), 5, mode="edge")
    smooth = np.convolve(padded, kernel / kernel.sum(), mode="valid")
    top = np.flatnonzero(smooth >= smooth.max() - 1e-9)
    return float(candidates[top[np.argmin(np.abs(candidates[top] - 0.5))]])


def bootstrap_interval(
    measure: Callable[[NDArray[np.intp]], float],
    groups: Sequence[str],
    *,
    n: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    strata: ArrayLike | None = None,
) -> tuple[float, float]:
    """Percentile interval from resampling whole groups with replacement.

    Cells of one slide resemble each other: resampling cells would claim too much.

    Parameters
    ----------
    measure
        Takes row numbers (repeats allowed), gives a number; NaN draws are dropped.
    groups
        Group of each row.
    n, level, seed
        Draws, coverage, seed.
    strata
        Class of each row, where groups are of one class as specimens are: each class keeps as
        many groups in every draw as it has (groups of several classes count for their commonest).
        Without it a draw can lose a class altogether.
    """
    parts = _strata(groups, strata)
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(n):
        drawn = [units[g] for units in parts for g in rng.integers(0, len(units), len(units))]
        values.append(measure(np.concatenate(drawn)))
    finite = np.asarray(values)[np.isfinite(values)]
    if finite.size == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _strata(groups: Sequence[str], strata: ArrayLike | None) -> list[list[NDArray[np.intp]]]:
    """Rows of each group, by stratum; the cells of a group alone in its stratum are its units."""
    _, group_of = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    members = [np.flatnonzero(group_of == g) for g in range(int(group_of.max()) + 1)]
    if strata is None:
        return [members]
    classes = np.asarray(strata, dtype=np.intp)
    found: dict[int, list[NDArray[np.intp]]] = {}
    for rows in members:
        found.setdefault(int(np.bincount(classes[rows]).argmax()), []).append(rows)
    return [
        units if len(units) > 1 else list(units[0][:, None]) for _, units in sorted(found.items())
    ]


def paired_interval(
    measure: Callable[[NDArray[np.intp], int], float],
    groups: Sequence[str],
    *,
    n: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    strata: ArrayLike | None = None,
) -> tuple[tuple[float, float], str]:
    """Percentile interval of the difference between two models on the same cells.

    Both models are measured on the same draws, so what is common to both cancels out.

    Parameters
    ----------
    measure
        Takes row numbers (repeats allowed) and 0 or 1 for the first or second model; NaN draws
        are dropped.
    groups
        Group of each row. With `LEAST_GROUPS` or more of them whole groups are drawn, else cells.
    n, level, seed, strata
        As of `bootstrap_interval`.

    Returns
    -------
    interval
        Of second - first.
    resampled
        ``groups`` or ``cells``.
    """
    by_group = len(set(groups)) >= LEAST_GROUPS
    units = list(groups) if by_group else [f"{i:08d}" for i in range(len(groups))]
    interval = bootstrap_interval(
        lambda rows: measure(rows, 1) - measure(rows, 0), units, n=n, level=level, seed=seed,
        strata=strata,
    )  # fmt: skip
    return interval, "groups" if by_group else "cells"


def over_folds(
    truth: ArrayLike, scores: ArrayLike, fold_of: ArrayLike, threshold: float
) -> dict[str, list[float] | None]:
    """Mean and standard deviation over folds of each measure, as papers report them."""
    wanted, given = _arrays(truth, scores)
    folds = np.asarray(fold_of)
    by_fold: dict[str, list[float]] = {}
    for fold in np.unique(folds):
        here = folds == fold
        counts = binary_counts(wanted[here], given[here], threshold).as_dict()
        counts["auc"] = auc(wanted[here], given[here])
        for name in ("sensitivity", "specificity", "accuracy", "h_mean", "f_measure", "auc"):
            by_fold.setdefault(name, []).append(counts[name])
    return {
        name: [round(float(np.mean(v)), 4), round(float(np.std(v)), 4)]
        if np.isfinite(v).all()
        else None
        for name, v in by_fold.items()
    }


def binary_report(
    truth: ArrayLike,
    scores: ArrayLike,
    groups: Sequence[str],
    threshold: float,
    *,
    classes: Sequence[str] | None = None,
    seed: int = 0,
) -> dict[str, object]:
    """Everything papers.md 1.9 and 1.13 ask of a binary classifier, ready for JSON.

    NaN (a class that is missing) becomes None.
    """
    wanted, given = _arrays(truth, scores)
    counts = binary_counts(wanted, given, threshold)
    report: dict[str, object] = {
        "n": int(wanted.size),
        "n_groups": len(set(groups)),
        "threshold": threshold,
        **counts.as_dict(),
        "auc": auc(wanted, given),
        "brier": brier(wanted, given),
        "calibration_error": calibration_error(wanted, given),
        "accuracy_interval": bootstrap_interval(
            lambda i: binary_counts(wanted[i], given[i], threshold).accuracy, groups, seed=seed
        ),
        "auc_interval": bootstrap_interval(lambda i: auc(wanted[i], given[i]), groups, seed=seed),
        "brier_interval": bootstrap_interval(
            lambda i: brier(wanted[i], given[i]), groups, seed=seed
        ),
        "calibration_error_interval": bootstrap_interval(
            lambda i: calibration_error(wanted[i], given[i]), groups, seed=seed
        ),
        "sensitivity_interval": bootstrap_interval(
            lambda i: binary_counts(wanted[i], given[i], threshold).sensitivity, groups, seed=seed
        ),
        "specificity_interval": bootstrap_interval(
            lambda i: binary_counts(wanted[i], given[i], threshold).specificity, groups, seed=seed
        ),
    }
    if classes is not None:
        report["by_class"] = recall_by_class(classes, (given > threshold) == wanted)
    return {key: plain(value) for key, value in report.items()}


def plain(value: Any) -> Any:
    """A number rounded for JSON, NaN as None; of tuples each; anything else as it is."""
    if isinstance(value, float):
        return round(value, 4) if np.isfinite(value) else None
    if isinstance(value, tuple):
        return [plain(v) for v in value]
    return value
