"""Measures of a segmentation into classes, all from confusion matrices of pixels (papers.md 3.7).

A table is (K, K) counts of pixels; rows are the truth, columns the call; class 0 is the
background. Papers sum over the classes 1..K-1. NumPy only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from training import metrics as m

Table = NDArray[np.int64]
Values = NDArray[np.float64]

ACCURACY_NOTE = "pixel accuracy ('AP' in the paper)"
MERGED: Mapping[str, str] = {
    "background": "background", "normal": "normal", "CIN1": "LSIL", "CIN2": "HSIL", "CIN3": "HSIL",
}  # fmt: skip
"""The two-tier view of cervical grades."""


def pixel_table(truth: ArrayLike, called: ArrayLike, n_classes: int) -> Table:
    """Confusion matrix of two class maps; pixels whose truth is no class (ignored) do not count."""
    wanted, given = np.asarray(truth).ravel(), np.asarray(called).ravel()
    here = (wanted >= 0) & (wanted < n_classes)
    places = wanted[here].astype(np.int64) * n_classes + given[here].astype(np.int64)
    return np.bincount(places, minlength=n_classes**2).reshape(n_classes, n_classes)


def without_background(table: Table) -> Table:
    """Only pixels whose truth is not background; a call of background among them stays wrong."""
    kept = np.array(table)
    kept[0] = 0
    return kept


def dice_of_classes(table: Table) -> Values:
    """2 |P n T| / (|P| + |T|) of each class; NaN for one absent from both."""
    return _ratios(2 * np.diag(table), table.sum(axis=0) + table.sum(axis=1))


def iou_of_classes(table: Table) -> Values:
    """|P n T| / |P u T| of each class; NaN for one absent from both."""
    own = np.diag(table)
    return _ratios(own, table.sum(axis=0) + table.sum(axis=1) - own)


def pixel_accuracy(table: Table) -> float:
    """Share of the pixels that is called right."""
    total = float(table.sum())
    return float(np.trace(table) / total) if total else float("nan")


def mean_of_present(values: Values) -> float:
    """Mean over the classes that occur in truth or call; NaN where none does."""
    here = values[np.isfinite(values)]
    return float(here.mean()) if here.size else float("nan")


def foreground_dice(table: Table) -> float:
    """Dice of everything but the background, whatever class it is, against the rest."""
    both = float(table[1:, 1:].sum())
    return float(
        _ratios(
            np.array([2 * both]), np.array([both * 2 + table[0, 1:].sum() + table[1:, 0].sum()])
        )[0]
    )


def quadratic_kappa(table: Table) -> float:
    """Cohen's kappa with quadratic weights over the classes in their order, background left out.

    NaN where only one class occurs.
    """
    tissue = table[1:, 1:].astype(float)
    total, k = tissue.sum(), len(tissue)
    if k < 2 or total == 0:
        return float("nan")
    steps = np.arange(k)
    weights = (steps[:, None] - steps[None]) ** 2 / (k - 1) ** 2
    chance = np.outer(tissue.sum(axis=1), tissue.sum(axis=0)) / total
    expected = (weights * chance).sum()
    return float(1 - (weights * tissue).sum() / expected) if expected > 0 else float("nan")


def grade_error(table: Table) -> float:
    """Mean distance in grades between truth and call, over pixels that are tissue in both."""
    tissue = table[1:, 1:]
    steps = np.arange(len(tissue))
    total = tissue.sum()
    far = (np.abs(steps[:, None] - steps[None]) * tissue).sum()
    return float(far / total) if total else float("nan")


def _ratios(upper: NDArray[Any], lower: NDArray[Any]) -> Values:
    out = np.full(len(upper), np.nan)
    return np.divide(upper, lower, out=out, where=np.asarray(lower) > 0)


@dataclass(frozen=True)
class Summary:
    """The paper's three measures of one table.

    Attributes
    ----------
    dice, iou
        Mean over the classes 1..K-1 that occur in truth or call.
    accuracy
        Share of the pixels that is right: "AP" in the paper.
    averaged
        How many classes the means are over.
    """

    dice: float
    iou: float
    accuracy: float
    averaged: int


def summarise(table: Table, ignore_background: bool = True) -> Summary:
    """Dice, mIoU and pixel accuracy as in the paper's tables.

    Parameters
    ----------
    table
        Of the whole test set.
    ignore_background
        Only pixels whose truth is not background count (the reading of papers.md 3.7); else all.
    """
    counted = without_background(table) if ignore_background else table
    dice = dice_of_classes(counted)[1:]
    return Summary(
        mean_of_present(dice), mean_of_present(iou_of_classes(counted)[1:]),
        pixel_accuracy(counted), int(np.isfinite(dice).sum()),
    )  # fmt: skip


def merged_table(table: Table, names: Sequence[str]) -> tuple[Table, tuple[str, ...]] | None:
    """The LSIL / HSIL view of a table of cervical grades; None for other class lists."""
    if not set(names) <= set(MERGED) or not {"CIN2", "CIN3"} & set(names):
        return None
    kinds = tuple(dict.fromkeys(MERGED[n] for n in names))
    to = [kinds.index(MERGED[n]) for n in names]
    merged = np.zeros((len(kinds), len(kinds)), dtype=np.int64)
    np.add.at(merged, (np.repeat(to, len(to)), np.tile(to, len(to))), table.ravel())
    return merged, kinds


def region_report(
    tables: NDArray[np.int64],
    groups: Sequence[str],
    names: Sequence[str],
    *,
    grouped_by: str = "slide",
    seed: int = 0,
) -> dict[str, Any]:
    """Everything papers.md 3.7 and 3.11 ask of a segmentation, ready for JSON.

    Parameters
    ----------
    tables
        (n, K, K), one confusion matrix a region.
    groups
        Slide or patient of each region: intervals resample whole groups.
    names
        Of the classes; the first is the background.
    grouped_by
        What a group is.

    Returns
    -------
    dict
        ``dice`` is the mean over *all* classes, background included, over every labelled pixel;
        ``foreground_dice`` is that of all classes but the background together. The paper's
        measures stand in ``paper``, with and without background pixels.
    """
    total = tables.sum(axis=0)
    measures = {
        "dice": lambda i: mean_of_present(dice_of_classes(tables[i].sum(axis=0))),
        "foreground_dice": lambda i: foreground_dice(tables[i].sum(axis=0)),
        "accuracy": lambda i: pixel_accuracy(tables[i].sum(axis=0)),
    }
    everything = np.arange(len(tables))
    report: dict[str, Any] = {
        "n": len(tables),
        "n_groups": len(set(groups)),
        "grouped_by": grouped_by,
        "pixels": int(total.sum()),
    }
    for name, measure in measures.items():
        report[name] = measure(everything)
        report[f"{name}_interval"] = m.bootstrap_interval(measure, groups, seed=seed)
    report["miou"] = mean_of_present(iou_of_classes(total))
    report["quadratic_kappa"] = quadratic_kappa(total)
    report["grade_error"] = grade_error(total)
    each = [dice_of_classes(t) for t in tables]
    report["dice_of_regions"] = mean_of_present(np.array([mean_of_present(d) for d in each]))
    report = {key: m.plain(value) for key, value in report.items()}
    report["by_class"] = _by_class(tables, groups, names, seed)
    report["paper"] = {
        "note": f"means over all classes but '{names[0]}'; {ACCURACY_NOTE}",
        "ignore_background": _plain(summarise(total, True)),
        "with_background": _plain(summarise(total, False)),
    }
    found = merged_table(total, names)
    if found is not None:
        table, kinds = found
        report["merged"] = {
            "classes": list(kinds),
            "dice": {
                k: m.plain(float(v)) for k, v in zip(kinds, dice_of_classes(table), strict=True)
            },
            "ignore_background": _plain(summarise(table, True)),
            "confusion": table.tolist(),
        }
    report["classes"] = list(names)
    report["confusion"] = total.tolist()
    return report


def _plain(summary: Summary) -> dict[str, Any]:
    return {
        "dice": m.plain(summary.dice), "miou": m.plain(summary.iou),
        "pixel_accuracy": m.plain(summary.accuracy), "classes_averaged": summary.averaged,
    }  # fmt: skip


def _by_class(
    tables: NDArray[np.int64], groups: Sequence[str], names: Sequence[str], seed: int
) -> dict[str, dict[str, Any]]:
    """Dice with its interval, IoU, recall, precision and true pixels of each class."""
    total = tables.sum(axis=0)
    dice, iou = dice_of_classes(total), iou_of_classes(total)
    own, truth, called = np.diag(total), total.sum(axis=1), total.sum(axis=0)
    recall, precision = _ratios(own, truth), _ratios(own, called)
    found = {}
    for k, name in enumerate(names):

        def one(rows: NDArray[np.intp], k: int = k) -> float:
            return float(dice_of_classes(tables[rows].sum(axis=0))[k])

        row = {
            "pixels": int(truth[k]),
            "dice": float(dice[k]),
            "dice_interval": m.bootstrap_interval(one, groups, seed=seed),
            "iou": float(iou[k]),
            "recall": float(recall[k]),
            "precision": float(precision[k]),
        }
        found[name] = {key: m.plain(value) for key, value in row.items()}
    return found
