"""How well boxes are found: average precision with an interval over images (papers.md 2.6).

NumPy only. Boxes are (row0, col0, row1, col1), half-open pixel edges.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from training import metrics as m

Values = NDArray[np.float64]
Method = Literal["interp", "step"]
DRAWS = 100
"""Resamples of an interval."""
IOU = 0.5
"""The paper states none."""


def overlaps(first: ArrayLike, second: ArrayLike) -> Values:
    """Intersection over union of every box with every other, (n, m)."""
    a = np.asarray(first, dtype=float).reshape(-1, 4)
    b = np.asarray(second, dtype=float).reshape(-1, 4)
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    area_a, area_b = (np.prod(x[:, 2:] - x[:, :2], axis=1) for x in (a, b))
    union = area_a[:, None] + area_b[None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def matched(
    truth: ArrayLike, found: ArrayLike, scores: ArrayLike, iou: float = IOU
) -> NDArray[np.intp]:
    """Which true box each detection of one image takes, -1 for none.

    Greedy by falling score (equal scores in the order given); a true box is taken once, so a
    second detection of it is a false one. A detection takes the free box it covers best.
    """
    given = np.asarray(scores, dtype=float)
    table = overlaps(found, truth)
    taken = np.full(len(given), -1, dtype=np.intp)
    free = np.ones(table.shape[1], dtype=bool)
    for row in np.argsort(-given, kind="stable"):
        candidates = np.where(free, table[row], -1.0)
        if candidates.size and candidates.max() >= iou:
            best = int(candidates.argmax())
            taken[row], free[best] = best, False
    return taken


def average_precision(
    right: ArrayLike, scores: ArrayLike, n_truth: int, method: Method = "interp"
) -> float:
    """Area under the precision-recall curve.

    Parameters
    ----------
    right
        Whether each detection is a true one.
    scores
        Of the detections.
    n_truth
        True boxes there are. Without any the area is NaN.
    method
        ``interp``: precision is made to fall with recall first (PASCAL VOC, all points);
        ``step``: the plain sum of P_n (R_n - R_(n-1)).
    """
    if n_truth == 0:
        return float("nan")
    hit = np.asarray(right, dtype=bool)[np.argsort(-np.asarray(scores, dtype=float), kind="stable")]
    precision = np.cumsum(hit) / np.arange(1, len(hit) + 1)
    if method == "interp":
        precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float(precision[hit].sum() / n_truth)


@dataclass(frozen=True, eq=False)
class Found:
    """What was found on one image, and what is there."""

    truth: NDArray[Any]
    boxes: NDArray[Any]
    scores: NDArray[Any]
    group: str


def detection_report(
    images: Sequence[Found], iou: float = IOU, score: float = 0.5, *, draws: int = DRAWS
) -> dict[str, Any]:
    """Measures over images, ready for JSON; intervals resample whole groups of images.

    ``score`` is where precision and recall are read.
    """
    hits = [matched(i.truth, i.boxes, i.scores, iou) >= 0 for i in images]
    scores = [np.asarray(i.scores, dtype=float) for i in images]
    counts = np.array([len(i.truth) for i in images], dtype=np.intp)

    def area(rows: NDArray[np.intp], method: Method = "interp") -> float:
        right = np.concatenate([hits[i] for i in rows]) if len(rows) else np.array([], bool)
        given = np.concatenate([scores[i] for i in rows]) if len(rows) else np.array([])
        return average_precision(right, given, int(counts[rows].sum()), method)

    everything = np.arange(len(images))
    above = [s >= score for s in scores]
    tp = sum(int((h & a).sum()) for h, a in zip(hits, above, strict=True))
    called = sum(int(a.sum()) for a in above)
    report: dict[str, Any] = {
        "images": len(images),
        "boxes": int(counts.sum()),
        "iou": iou,
        "ap": area(everything),
        "ap_interval": m.bootstrap_interval(area, [i.group for i in images], n=draws),
        "ap_step": area(everything, "step"),
        "score": score,
        "detections": called,
        "precision": tp / called if called else float("nan"),
        "recall": tp / int(counts.sum()) if counts.sum() else float("nan"),
    }
    return {key: m.plain(value) for key, value in report.items()}
