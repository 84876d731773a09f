"""What is reported of a model on labelled boxes and on fields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.models import ClassInfo
from napari_cellpath.systems.rbc.verdict import Booster
from training.rbc import label_metrics as lm
from training.rbc.boosting import largest_abnormal
from training.rbc.data import kinds_of
from training.rbc.detection_metrics import IOU, detection_report
from training.rbc.scoring import StopCheck, detect
from training.rbc.table import Field, RedCells
from training.rbc.watershed import found_by_watershed

Values = NDArray[np.float64]
Rows = NDArray[np.intp]
VERDICT = 0.5


@dataclass(frozen=True, eq=False)
class Judge:
    """How probabilities of types become labels and a verdict."""

    classes: Sequence[ClassInfo]
    thresholds: Sequence[float]
    booster: Booster | None
    verdict: float = VERDICT

    def labels(self, probabilities: Values) -> NDArray[np.int8]:
        """(n, n_types) of 1 and 0: strictly above the thresholds."""
        return (probabilities > np.asarray(self.thresholds)).astype(np.int8)

    def rule(self, probabilities: Values) -> Values:
        """The max rule, (n,)."""
        return largest_abnormal(probabilities, [c.abnormal for c in self.classes])

    def abnormal(self, probabilities: Values) -> Values:
        """Probability of abnormal, (n,): the booster's, or the max rule's where there is none."""
        if self.booster is None:
            return self.rule(probabilities)
        return self.booster.probability(probabilities)


def judged(
    data: RedCells,
    rows: Rows,
    probabilities: Values,
    judge: Judge,
    abnormal: Values | None = None,
) -> dict[str, Any]:
    """Labels and verdicts of some boxes, by kind (see `training.rbc.data.kinds_of`).

    ``abnormal`` are the probabilities of abnormal, where they are not the judge's own: out of
    fold, boosters of other folds say them.
    """
    names = [c.name for c in data.fine_classes]
    said = judge.abnormal(probabilities) if abnormal is None else abnormal
    said = np.where(np.isfinite(said), said, judge.rule(probabilities))
    groups, verdicts = np.array(data.groups, dtype=str)[rows], data.verdicts[rows]
    report: dict[str, Any] = {}
    for kind, mask in kinds_of(data).items():
        here = np.flatnonzero(mask[rows])
        if not len(here):
            continue
        where, given = groups[here].tolist(), probabilities[here]
        truth = data.targets[rows][here]
        report[kind] = lm.label_report(truth, given, judge.thresholds, where, names) | {
            "abnormal": lm.verdict_report(verdicts[here], said[here], judge.verdict, where),
            "max_rule": lm.verdict_report(verdicts[here], judge.rule(given), judge.verdict, where),
        }
    return report


def detector_report(
    detector: Any,
    fields: Sequence[Field],
    scale: float,
    truth: str,
    *,
    iou: float = IOU,
    score: float = 0.5,
    baseline: bool = False,
    should_stop: StopCheck | None = None,
) -> dict[str, Any]:
    """How well fields' boxes are found; ``baseline``: by a watershed too, without any network.

    ``truth`` is ``cells``, the boxes as they are given, or ``regions``, merged where they share a
    pixel; ``score`` is where precision and recall are read.
    """
    found = detect(detector, fields, scale, truth, should_stop)
    report = detection_report(found, iou, score) | {"truth": truth}
    if baseline:
        report["watershed"] = detection_report([found_by_watershed(f, truth) for f in fields], iou)
    return report


def shown(report: dict[str, Any]) -> str:
    """One line of what matters most."""
    parts = []
    if "cells" in report:
        one = report["cells"]
        parts.append(
            f"cells: macro AUC {one['macro_auc']}, exact match {one['exact_match']}, abnormal "
            f"{one['abnormal']['accuracy']} (max rule {one['max_rule']['accuracy']})"
        )
    if "multi" in report:
        many = report["multi"]
        parts.append(
            f"several cells: macro AUC {many['macro_auc']}, exact match {many['exact_match']}, "
            f"abnormal {many['abnormal']['accuracy']}"
        )
    if "detector" in report:
        parts.append(
            f"detector: AP {report['detector']['ap']} (watershed alone "
            f"{report['detector'].get('watershed', {}).get('ap')})"
        )
    return "; ".join(parts) or "nothing fully labelled to measure on"
