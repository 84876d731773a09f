"""Figures of a HEp-2 protocol: confusion, errors by specimen, learning curve. PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_cellpath.core.vocabulary import CLASS_COLOURS
from training.plots import confusion_axes, pyplot

MOST_SPECIMENS = 60
"""Bars of the specimens' figure; the table has all."""


def draw_confusion(path: Path, report: dict[str, Any], names: Sequence[str], title: str) -> None:
    """The pooled confusion matrix, rows in percent of the truth."""
    plt = pyplot()
    side = 2.2 + 0.65 * len(names)
    figure, axes = plt.subplots(figsize=(side + 0.6, side), dpi=150, layout="constrained")
    percent = np.array(report["confusion_percent"])
    confusion_axes(axes, percent / 100, [[f"{v:.1f}" for v in row] for row in percent], names)
    axes.set(ylabel="truth", title=title)
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)


def draw_specimens(path: Path, report: dict[str, Any], names: Sequence[str]) -> None:
    """Share of wrong cells of each specimen, the worst first, coloured by its pattern."""
    plt = pyplot()
    rows = report["specimens"][:MOST_SPECIMENS]
    width = max(5.0, 1.5 + 0.16 * len(rows))
    figure, axes = plt.subplots(figsize=(width, 3.6), dpi=150, layout="constrained")
    for place, name in enumerate(names):
        here = [i for i, row in enumerate(rows) if row["truth"] == name]
        heights = [100 * rows[i]["error"] for i in here]
        if here:
            axes.bar(here, heights, color=CLASS_COLOURS[place % len(CLASS_COLOURS)], label=name)
    axes.set_xticks(range(len(rows)), [r["specimen"] for r in rows], rotation=90, fontsize=6)
    axes.set(ylabel="cells called wrong, %", title=f"{len(report['specimens'])} groups")
    axes.legend(frameon=False, fontsize=7)
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)


def draw_curve(path: Path, points: Sequence[dict[str, Any]], paper: float | None) -> None:
    """Mean class accuracy over the number of specimens learnt from."""
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(5.0, 3.8), dpi=150, layout="constrained")
    x = [p["groups_learnt_from"] for p in points]
    y = [100 * p["mca"] for p in points]
    low_high = np.abs(100 * np.array([p["mca_interval"] for p in points]).T - np.array(y))
    axes.errorbar(x, y, yerr=low_high, marker="o", color=CLASS_COLOURS[0], capsize=3, label="here")
    if paper is not None:
        axes.axhline(paper, color="0.5", linestyle=":", label="the paper, all specimens")
    axes.set(xlabel="groups learnt from", ylabel="mean class accuracy, %")
    axes.legend(frameon=False)
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)
