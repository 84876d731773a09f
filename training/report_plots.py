"""Pictures of a report: both models' ROC curves, reliability and confusion. PNG files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from sklearn.calibration import calibration_curve
from sklearn.metrics import roc_curve

from napari_cellpath.core.vocabulary import CLASS_COLOURS
from training import metrics as m
from training.plots import confusion_axes, pyplot
from training.report import Candidate, Frozen


def draw_comparison(out: Path, cells: Frozen, parent: Candidate, child: Candidate) -> list[str]:
    """Write ``roc.png``, ``reliability.png`` and ``confusion.png``; return the names written.

    ROC and reliability need cells of both kinds.
    """
    models = (("parent", parent), ("child", child))
    written = []
    if cells.both_kinds:
        _draw_roc(out / "roc.png", cells, models)
        _draw_reliability(out / "reliability.png", cells, models)
        written += ["roc.png", "reliability.png"]
    _draw_confusion(out / "confusion.png", cells, models)
    return [*written, "confusion.png"]


def _axes(columns: int = 1, **settings: Any) -> tuple[Any, Any]:
    figure, axes = pyplot().subplots(1, columns, dpi=150, layout="constrained", **settings)
    return figure, axes


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, metadata={"Software": None})
    pyplot().close(figure)


def _draw_roc(path: Path, cells: Frozen, models: tuple[tuple[str, Candidate], ...]) -> None:
    figure, axes = _axes(figsize=(5.0, 4.8))
    for number, (name, model) in enumerate(models):
        curves = cells.curves(model)
        for place, (what, truth, scores) in enumerate(curves):
            colour = CLASS_COLOURS[place if len(curves) > 1 else number]
            rate, sensitivity, _ = roc_curve(truth, scores, drop_intermediate=False)
            label = f"{name}{what and f', {what}'}: AUC {m.auc(truth, scores):.3f}"
            axes.plot(rate, sensitivity, color=colour, label=label, linestyle=("--", "-")[number])
            if len(curves) == 1:
                counts = m.binary_counts(truth, scores, model.threshold)
                axes.plot(1 - counts.specificity, counts.sensitivity, "o", color=colour)
    said = "dots: at the model's threshold" if len(curves) == 1 else "each class against the rest"
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8, linestyle=":")
    axes.set(xlabel="false positive rate (1 - specificity)", ylabel="sensitivity",
             xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal",
             title=f"{len(cells.records)} frozen {cells.things}; {said}")  # fmt: skip
    axes.legend(loc="lower right", frameon=False, fontsize=None if len(curves) == 1 else 7)
    _save(figure, path)


def _draw_reliability(path: Path, cells: Frozen, models: tuple[tuple[str, Candidate], ...]) -> None:
    figure, axes = _axes(figsize=(5.0, 4.8))
    for number, (name, model) in enumerate(models):
        for kind in ("raw", "calibrated")[: 1 + (model.calibration is not None)]:
            truth, scores = cells.believed(model, kind == "calibrated")
            right, said = calibration_curve(truth, scores, n_bins=m.BINS)
            error = m.calibration_error(truth, scores)
            axes.plot(
                said, right, marker="os"[number], color=CLASS_COLOURS[number],
                linestyle="-" if kind == "calibrated" else "--", fillstyle="full" if
                kind == "calibrated" else "none", label=f"{name}, {kind}: ECE {error:.3f}",
            )  # fmt: skip
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8, linestyle=":")
    axes.set(xlabel="mean score in the bin", ylabel=f"share that is {cells.told}",
             xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal",
             title=f"{len(cells.records)} frozen {cells.things}, {m.BINS} equal bins")  # fmt: skip
    axes.legend(loc="upper left", frameon=False)
    _save(figure, path)


def _draw_confusion(path: Path, cells: Frozen, models: tuple[tuple[str, Candidate], ...]) -> None:
    names = cells.tables(models[0][1])[1]
    side = 2.2 + 0.5 * len(names)
    figure, axes = _axes(2, figsize=(2 * side + 1, side), sharey=True)
    for axis, (name, model) in zip(axes, models, strict=True):
        table, _ = cells.tables(model)
        share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
        confusion_axes(axis, share, table.tolist(), names)
        axis.set(title=f"{name} ({model.label})")
    axes[0].set_ylabel("truth")
    _save(figure, path)
