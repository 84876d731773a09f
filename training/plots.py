"""Figures of a protocol: ROC curves with intervals, and scores by class. PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import metrics

from napari_cellpath.core.vocabulary import CLASS_COLOURS
from training import metrics as m

SPLIT_NAMES = {"cell": "split by cell", "group": "split by slide"}
_GRID = np.linspace(0.0, 1.0, 101)


def draw_report(out: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write ``roc.png`` and ``boxes.png`` from the rows of ``scores.csv``."""
    look = next(key for key in rows[0] if key.startswith("score_"))
    splits = list(dict.fromkeys(row["split"] for row in rows))
    draw_roc(out / "roc.png", rows, splits, look)
    draw_boxes(out / "boxes.png", rows, splits, look)


def roc_curve(truth: NDArray[np.bool_], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sensitivity at each false positive rate of 0, 0.01 ... 1."""
    rate, sensitivity, _ = metrics.roc_curve(truth, scores, drop_intermediate=False)
    return np.asarray(np.interp(_GRID, rate, sensitivity))


def draw_roc(path: Path, rows: Sequence[dict[str, Any]], splits: Sequence[str], look: str) -> None:
    """One curve a split, shaded where 95 % of the slide-wise bootstrap draws lie."""
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(5.4, 5.0), dpi=150, layout="constrained")
    for number, split in enumerate(splits):
        some = [row for row in rows if row["split"] == split]
        truth = np.array([row["abnormal"] for row in some], dtype=bool)
        scores = np.array([row[look] for row in some])
        colour = CLASS_COLOURS[number]
        low, high = _band(truth, scores, [row["group"] for row in some])
        axes.fill_between(_GRID, low, high, color=colour, alpha=0.15, linewidth=0)
        name = SPLIT_NAMES.get(split, split)
        label = f"{name}: AUC {m.auc(truth, scores):.3f}, {len(some)} cells"
        axes.plot(_GRID, roc_curve(truth, scores), color=colour, label=label)
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8, linestyle=":")
    axes.set(xlabel="false positive rate (1 - specificity)", ylabel="sensitivity",
             xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")  # fmt: skip
    axes.legend(loc="lower right", frameon=False)
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)


def draw_boxes(
    path: Path, rows: Sequence[dict[str, Any]], splits: Sequence[str], look: str
) -> None:
    """Scores of every class: quartiles, whiskers to 5 and 95 %, and the cells beyond."""
    plt = pyplot()
    names = list(dict.fromkeys(row["class"] for row in sorted(rows, key=lambda r: r["abnormal"])))
    height = 1.2 + 0.42 * len(names)
    figure, axes = plt.subplots(
        1, len(splits), figsize=(4.6 * len(splits) + 1.2, height), dpi=150, sharey=True,
        layout="constrained", squeeze=False,
    )  # fmt: skip
    for axis, split in zip(axes[0], splits, strict=True):
        scores = [[r[look] for r in rows if r["split"] == split and r["class"] == n] for n in names]
        boxes = axis.boxplot(
            scores, orientation="horizontal", whis=(5, 95), patch_artist=True, widths=0.6,
            flierprops={"marker": ".", "markersize": 3, "markeredgecolor": "0.4"},
            medianprops={"color": "black"},
        )  # fmt: skip
        abnormal = {row["class"]: row["abnormal"] for row in rows}
        for box, name in zip(boxes["boxes"], names, strict=True):
            box.set(facecolor=CLASS_COLOURS[int(abnormal[name])], alpha=0.6)
        axis.set_yticks(
            range(1, len(names) + 1),
            [f"{n} ({len(s)})" for n, s in zip(names, scores, strict=True)],
        )
        axis.axvline(0.5, color="0.6", linewidth=0.8, linestyle=":")
        axis.set(xlabel="score (probability of abnormal)", xlim=(-0.02, 1.02),
                 title=SPLIT_NAMES.get(split, split))  # fmt: skip
        axis.invert_yaxis()
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)


def _band(
    truth: NDArray[np.bool_], scores: NDArray[np.float64], groups: Sequence[str], n: int = 300
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    _, group_of = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    members = [np.flatnonzero(group_of == g) for g in range(int(group_of.max()) + 1)]
    rng = np.random.default_rng(0)
    curves = []
    for _ in range(n):
        rows = np.concatenate([members[g] for g in rng.integers(0, len(members), len(members))])
        if truth[rows].any() and not truth[rows].all():
            curves.append(roc_curve(truth[rows], scores[rows]))
    low, high = np.quantile(np.stack(curves), [0.025, 0.975], axis=0)
    return low, high


def confusion_axes(
    axes: Any, share: NDArray[np.float64], texts: Sequence[Sequence[Any]], names: Sequence[str]
) -> None:
    """A confusion matrix: rows the truth, darker where a larger share of them is called so."""
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for row, col in np.ndindex(share.shape):
        colour = "white" if share[row, col] > 0.5 else "black"
        axes.text(col, row, texts[row][col], ha="center", va="center", color=colour)
    axes.set_xticks(range(len(names)), names, rotation=30 if len(names) > 2 else 0, ha="center")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="called")


def pyplot() -> Any:
    """Matplotlib without a window."""
    import matplotlib as mpl

    mpl.use("Agg", force=False)
    from matplotlib import pyplot

    return pyplot
