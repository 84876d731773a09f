"""Measures of several labels a region, unknown ones left out. NumPy only (papers.md 2.6)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from training import metrics as m
from training.rbc.regions import UNKNOWN

Values = NDArray[np.float64]
Targets = NDArray[np.int8]
DRAWS = 100
"""Resamples of an interval; each sorts all boxes once a type."""
LEAST = 20
"""Regions with a type below which its area under the curve does not count in the mean."""


def exact_match(truth: ArrayLike, called: ArrayLike) -> float:
    """Share of the fully labelled rows whose labels are all right; NaN where there are none."""
    wanted, given = np.asarray(truth), np.asarray(called)
    known = (wanted != UNKNOWN).all(axis=1)
    return float((wanted == given)[known].all(axis=1).mean()) if known.any() else float("nan")


def hamming_loss(truth: ArrayLike, called: ArrayLike) -> float:
    """Share of the known labels that are wrong; NaN where there are none."""
    wanted, given = np.asarray(truth), np.asarray(called)
    known = wanted != UNKNOWN
    return float((wanted != given)[known].mean()) if known.any() else float("nan")


def label_aucs(truth: ArrayLike, probabilities: ArrayLike) -> Values:
    """Area under the ROC curve of each label over the rows where it is known.

    NaN for a label that is always there or never.
    """
    wanted, given = np.asarray(truth), np.asarray(probabilities, dtype=float)
    found = np.full(wanted.shape[1], np.nan)
    for k in range(wanted.shape[1]):
        known = wanted[:, k] != UNKNOWN
        found[k] = m.auc(wanted[known, k] == 1, given[known, k])
    return found


def macro_auc(truth: ArrayLike, probabilities: ArrayLike, least: int = 1) -> float:
    """Mean of `label_aucs` over the labels with at least ``least`` regions; NaN without any."""
    areas, counts = label_aucs(truth, probabilities), (np.asarray(truth) == 1).sum(axis=0)
    counted = areas[np.isfinite(areas) & (counts >= least)]
    return float(counted.mean()) if counted.size else float("nan")


def verdict_accuracy(truth: ArrayLike, called: ArrayLike) -> float:
    """Share of the regions of known verdict that are told right; NaN where there are none."""
    wanted, given = np.asarray(truth), np.asarray(called)
    known = wanted != UNKNOWN
    return float((wanted == given)[known].mean()) if known.any() else float("nan")


def label_report(
    truth: Targets,
    probabilities: Values,
    thresholds: Sequence[float],
    groups: Sequence[str],
    names: Sequence[str],
    *,
    draws: int = DRAWS,
    least: int = LEAST,
) -> dict[str, Any]:
    """Everything of the labels, ready for JSON; intervals resample whole groups of images."""
    called = (probabilities > np.asarray(thresholds)).astype(np.int8)
    half = (probabilities > 0.5).astype(np.int8)
    measures: dict[str, Callable[[NDArray[np.intp]], float]] = {
        "macro_auc": lambda i: macro_auc(truth[i], probabilities[i], least),
        "exact_match": lambda i: exact_match(truth[i], called[i]),
        "hamming": lambda i: hamming_loss(truth[i], called[i]),
    }
    everything = np.arange(len(truth))
    report: dict[str, Any] = {"n": len(truth), "n_groups": len(set(groups))}
    for name, measure in measures.items():
        report[name] = measure(everything)
        report[f"{name}_interval"] = m.bootstrap_interval(measure, groups, n=draws)
    report["exact_match_at_half"] = exact_match(truth, half)
    report["hamming_at_half"] = hamming_loss(truth, half)
    report["macro_auc_of"] = f"types with at least {least} regions"
    areas, table = label_aucs(truth, probabilities), {}
    for k, name in enumerate(names):
        table[name] = {
            "n": int((truth[:, k] == 1).sum()),
            "auc": m.plain(float(areas[k])),
            "threshold": m.plain(float(np.asarray(thresholds)[k])),
            **_at_threshold(truth[:, k], called[:, k]),
        }
    report = {key: m.plain(value) for key, value in report.items()}
    return report | {"by_type": table}


def _at_threshold(truth: Targets, called: Targets) -> dict[str, Any]:
    known = truth != UNKNOWN
    there, said = truth[known] == 1, called[known] == 1
    both = int((there & said).sum())
    return {
        "recall": m.plain(both / int(there.sum())) if there.any() else None,
        "precision": m.plain(both / int(said.sum())) if said.any() else None,
    }


def verdict_report(
    truth: Targets,
    probabilities: Values,
    threshold: float,
    groups: Sequence[str],
    *,
    draws: int = DRAWS,
) -> dict[str, Any]:
    """Measures of *abnormal* or not over the regions whose verdict is known, ready for JSON."""
    known = np.flatnonzero(truth != UNKNOWN)
    wanted, given = truth[known] == 1, probabilities[known]
    where = [groups[i] for i in known]
    counts = m.binary_counts(wanted, given, threshold)
    measures: dict[str, Callable[[NDArray[np.intp]], float]] = {
        "accuracy": lambda i: float(np.mean((given[i] > threshold) == wanted[i])),
        "auc": lambda i: m.auc(wanted[i], given[i]),
    }
    report: dict[str, Any] = {"n": len(known), "threshold": threshold, **counts.as_dict()}
    everything = np.arange(len(known))
    for name, measure in measures.items():
        report[name] = measure(everything) if len(known) else float("nan")
        report[f"{name}_interval"] = m.bootstrap_interval(measure, where, n=draws)
    if len(known):
        for name, of in (("brier", m.brier), ("calibration_error", m.calibration_error)):

            def value(i: NDArray[np.intp], of: Callable[..., float] = of) -> float:
                return of(wanted[i], given[i])

            report[name] = value(everything)
            report[f"{name}_interval"] = m.bootstrap_interval(value, where, n=draws)
    return {key: m.plain(value) for key, value in report.items()}


def best_thresholds(truth: Targets, probabilities: Values) -> tuple[float, ...]:
    """Threshold of each label with the best F1 on validation regions.

    F1 is a ragged function of the threshold and its maximum is luck; it is smoothed over a
    neighbourhood of 0.1 first. Labels of fewer than `LEAST` regions keep the paper's 0.5.
    """
    candidates = np.round(np.arange(0.10, 0.9001, 0.01), 2)
    kernel = np.array([1, 2, 3, 4, 5, 6, 5, 4, 3, 2, 1], dtype=float)
    found = []
    for k in range(truth.shape[1]):
        known = truth[:, k] != UNKNOWN
        there, given = truth[known, k] == 1, probabilities[known, k]
        if there.sum() < LEAST or there.all():
            found.append(0.5)
            continue
        said = given[None] > candidates[:, None]
        both = (said & there).sum(axis=1)
        f1 = 2 * both / (said.sum(axis=1) + there.sum())
        smooth = np.convolve(np.pad(f1, 5, mode="edge"), kernel / kernel.sum(), mode="valid")
        top = np.flatnonzero(smooth >= smooth.max() - 1e-9)
        found.append(float(candidates[top[np.argmin(np.abs(candidates[top] - 0.5))]]))
    return tuple(found)
