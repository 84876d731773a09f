"""Measures of a classifier of several patterns on arrays. NumPy only (papers.md 4.6, 4.10).

Class accuracy is recall; MCA, the mean class accuracy, is the mean of the recalls of the classes
that occur (papers.md: MCA = (1/K) sum CCR_k).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from training import metrics as m

Values = NDArray[np.float64]
Table = NDArray[np.int64]


def class_recalls(table: ArrayLike) -> Values:
    """Recall of each class of a confusion matrix (rows truth); NaN for one without samples."""
    counts = np.asarray(table, dtype=float)
    total = counts.sum(axis=1)
    return np.divide(np.diag(counts), total, out=np.full(len(counts), np.nan), where=total > 0)


def mean_class_accuracy(table: ArrayLike, names: Sequence[str] = ()) -> float:
    """MCA of a confusion matrix; a class without samples is left out, with a warning.

    Parameters
    ----------
    table
        (K, K) counts or shares; rows are the truth.
    names
        Of the classes, for the warning.
    """
    recalls = class_recalls(table)
    missing = np.flatnonzero(np.isnan(recalls)).tolist()
    if missing:
        said = ", ".join(names[k] if names else str(k) for k in missing)
        warnings.warn(f"No cells of {said}: left out of the mean class accuracy.", stacklevel=2)
    return _mean(recalls)


def _mean(values: Values) -> float:
    here = values[np.isfinite(values)]
    return float(here.mean()) if here.size else float("nan")


def macro_f1(table: ArrayLike) -> float:
    """Mean over the classes that occur of 2 TP / (2 TP + FP + FN)."""
    counts = np.asarray(table, dtype=float)
    right, truth, called = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    here = truth > 0
    return _mean(2 * right[here] / (truth + called)[here])


def macro_auc(truth: ArrayLike, probabilities: Values) -> float:
    """Mean over the classes that occur of the area under its one-versus-rest ROC curve."""
    wanted = np.asarray(truth)
    return _mean(
        np.array([m.auc(wanted == k, probabilities[:, k]) for k in range(probabilities.shape[1])])
    )


def class_brier(truth: ArrayLike, probabilities: Values) -> float:
    """Mean squared distance of the probabilities from the truth, summed over the classes: 0..2."""
    wanted = np.eye(probabilities.shape[1])[np.asarray(truth, dtype=int)]
    return float(np.mean(np.sum((probabilities - wanted) ** 2, axis=1)))


def top_calibration_error(truth: ArrayLike, probabilities: Values, bins: int = m.BINS) -> float:
    """Expected calibration error of the pattern called: how sure, against how often right."""
    right = probabilities.argmax(axis=1) == np.asarray(truth)
    return m.calibration_error(right, np.minimum(probabilities.max(axis=1), 1.0), bins)


def class_report(
    truth: ArrayLike,
    probabilities: Values,
    groups: Sequence[str],
    names: Sequence[str],
    *,
    seed: int = 0,
) -> dict[str, Any]:
    """Everything papers.md 4.6 and 4.10 ask of a classifier of patterns, ready for JSON.

    Intervals resample whole groups (specimens), class by class: a specimen has one pattern.
    NaN becomes None.
    """
    wanted = np.asarray(truth, dtype=np.intp)
    called = probabilities.argmax(axis=1)
    k = len(names)
    table = m.confusion(wanted, called, k)
    report: dict[str, Any] = {
        "n": len(wanted),
        "n_groups": len(set(groups)),
        "mca": mean_class_accuracy(table, names),
        "accuracy": float(np.mean(called == wanted)),
        "macro_f1": macro_f1(table),
        "auc": macro_auc(wanted, probabilities),
        "brier": class_brier(wanted, probabilities),
        "calibration_error": top_calibration_error(wanted, probabilities),
    }
    measures: dict[str, Callable[[NDArray[np.intp]], float]] = {
        "mca": lambda i: _mean(class_recalls(m.confusion(wanted[i], called[i], k))),
        "accuracy": lambda i: float(np.mean(called[i] == wanted[i])),
        "macro_f1": lambda i: macro_f1(m.confusion(wanted[i], called[i], k)),
        "auc": lambda i: macro_auc(wanted[i], probabilities[i]),
        "brier": lambda i: class_brier(wanted[i], probabilities[i]),
        "calibration_error": lambda i: top_calibration_error(wanted[i], probabilities[i]),
    }
    for name, measure in measures.items():
        draws = 200 if name == "auc" else 1000  # each draw of it sorts all cells, once a class
        report[f"{name}_interval"] = m.bootstrap_interval(
            measure, groups, n=draws, seed=seed, strata=wanted
        )
    report["by_class"] = _by_class(wanted, called, groups, names, seed)
    report["confusion"] = table.tolist()
    report["bins"] = m.BINS
    return {key: m.plain(value) for key, value in report.items()}


def _by_class(
    truth: NDArray[np.intp],
    called: NDArray[np.intp],
    groups: Sequence[str],
    names: Sequence[str],
    seed: int,
) -> dict[str, dict[str, Any]]:
    """Cells, right, recall with its interval over the groups, and groups of each class."""
    where = np.asarray(groups, dtype=str)
    found = {}
    for k, name in enumerate(names):
        mine = np.flatnonzero(truth == k)
        if not len(mine):
            continue
        right = called[mine] == k

        def recall(rows: NDArray[np.intp], right: NDArray[np.bool_] = right) -> float:
            return float(right[rows].mean())

        own = where[mine].tolist()
        interval = m.bootstrap_interval(recall, own, seed=seed, strata=truth[mine])
        found[name] = {
            "n": len(mine),
            "n_groups": len(set(own)),
            "right": int(right.sum()),
            "recall": m.plain(float(right.mean())),
            "recall_interval": m.plain(interval),
        }
    return found


def specimen_table(
    truth: ArrayLike, probabilities: Values, groups: Sequence[str], names: Sequence[str]
) -> list[dict[str, Any]]:
    """What is said of each specimen, those with the largest share of wrong cells first.

    Returns
    -------
    list
        ``specimen``, ``truth`` (of most of its cells), ``cells``, ``wrong``, ``error``, ``vote``
        (the pattern most cells are called), ``mean`` (that of the largest mean probability).
    """
    wanted, called = np.asarray(truth, dtype=np.intp), probabilities.argmax(axis=1)
    where = np.asarray(groups, dtype=str)
    found = []
    for name in np.unique(where):
        here = where == name
        wrong = int((called[here] != wanted[here]).sum())
        votes = np.bincount(called[here], minlength=len(names))
        found.append(
            {
                "specimen": str(name),
                "truth": names[int(np.bincount(wanted[here]).argmax())],
                "cells": int(here.sum()),
                "wrong": wrong,
                "error": m.plain(float(wrong / here.sum())),
                "vote": names[int(votes.argmax())],
                "mean": names[int(probabilities[here].mean(axis=0).argmax())],
            }
        )
    return sorted(found, key=lambda row: (-row["error"], row["specimen"]))
