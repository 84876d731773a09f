"""A fine-tuned model beside its parent, on cells neither has learnt from; and the gate.

The gate: where the point estimate of the area under the ROC curve *or* of the balanced accuracy
at the model's own threshold lies below the parent's, the model is kept but is never made a
default. Both, because either alone can be fooled: wrong labels that move every score alike leave
the order of the cells, and with it the AUC, as it was; and a good choice of threshold can hide a
worse order. Where all of that is just as it was, a worse Brier score shuts the gate too. Models of
more than two classes are also held to the mean recall of their classes. HEp-2's gate goes by the
mean class accuracy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.models import Calibration, ClassInfo
from training import metrics as m
from training.calibration import calibrated
from training.datasets import CellRecord

Rows = NDArray[np.intp]
Scores = NDArray[np.float64]
NOTHING_SHOWN = "nothing can be shown to be better"
CALIBRATED = ("brier", "brier_interval", "calibration_error", "calibration_error_interval")
"""Measures told of calibrated scores too."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """What one of the two models says of the frozen cells.

    Attributes
    ----------
    label
        Name and short hash, or the name alone of a model not written yet.
    probabilities
        (n, n_classes) mean class probabilities.
    threshold
        Of the model itself.
    calibration
        Of the model, if it has one.
    judge
        How its probabilities are read, where its kind of cells needs to know.
    """

    label: str
    probabilities: NDArray[np.float64]
    threshold: float
    calibration: Calibration | None = None
    judge: Any = None


@dataclass(frozen=True, eq=False)
class Frozen:
    """The frozen cells, as the models' classes name them: normal and abnormal ones.

    A system that asks something else of a cell says in a class of its own what is measured and
    what the gate goes by (`training.hep2.report`).
    """

    records: Sequence[CellRecord]
    targets: NDArray[Any]
    classes: Sequence[ClassInfo]

    @property
    def things(self) -> str:
        """What the frozen ones are called, in the plural."""
        return "cells"

    @property
    def abnormal(self) -> NDArray[np.bool_]:
        """Whether each cell is abnormal."""
        return np.array([self.classes[t].abnormal for t in self.targets], dtype=bool)

    @property
    def groups(self) -> list[str]:
        """Slide, patient or specimen of each cell."""
        return [r.group for r in self.records]

    @property
    def strata(self) -> NDArray[np.intp] | None:
        """Class of each cell, where whole groups are of one; see `metrics.bootstrap_interval`."""
        return None

    @property
    def told(self) -> str:
        """What a score is the probability of."""
        return "abnormal"

    @property
    def mean_recall(self) -> str:
        """Key of the mean recall of the classes."""
        return "class_recall"

    @property
    def gate_measures(self) -> dict[str, str]:
        """Measures of which none may fall below the parent's, by key: what they are called."""
        names = {"auc": "AUC", "balanced_accuracy": "balanced accuracy"}
        if len(self.classes) > 2:
            names["class_recall"] = "mean recall of the classes"
        return names

    @property
    def only_kind(self) -> str:
        """The one kind all cells are of, where there is but one; else nothing."""
        if len(set(self.abnormal.tolist())) > 1:
            return ""
        return "abnormal" if self.abnormal[0] else "normal"

    @property
    def both_kinds(self) -> bool:
        """Whether there is a curve to be drawn: cells of more than one kind."""
        return not self.only_kind

    def scores(self, model: Candidate) -> NDArray[np.float64]:
        """The score of each cell that a person is shown: probability of abnormal."""
        abnormal = np.array([c.abnormal for c in self.classes])
        return np.asarray(model.probabilities[:, abnormal].sum(axis=1))

    def calls(self, model: Candidate) -> NDArray[np.intp]:
        """Class called of each cell: two classes by the threshold, more by the largest mean."""
        if len(self.classes) > 2:
            return np.asarray(model.probabilities.argmax(axis=1))
        abnormal = int(np.argmax([c.abnormal for c in self.classes]))
        above = self.scores(model) > model.threshold
        return np.where(above, abnormal, 1 - abnormal)

    def curves(self, model: Candidate) -> list[tuple[str, NDArray[np.bool_], Scores]]:
        """What ROC curves are drawn of: a name, what is to be told, and the score for it."""
        return [("", self.abnormal, self.scores(model))]

    def believed(self, model: Candidate, after: bool) -> tuple[NDArray[np.bool_], Scores]:
        """What came true and how surely it was said, before or ``after`` calibration."""
        scores = self.scores(model)
        if after and model.calibration is not None:
            scores = calibrated(model.calibration, scores)
        return self.abnormal, scores

    def auc(self, model: Candidate, rows: Rows) -> float:
        """Area under the ROC curve on some rows."""
        return m.auc(self.abnormal[rows], self.scores(model)[rows])

    def paired_measures(
        self, models: tuple[Candidate, Candidate]
    ) -> dict[str, Callable[[Rows, int], float]]:
        """What both models are measured by on the same draws: (rows, which model) to a number."""
        calls = [self.calls(model) for model in models]

        def accuracy(rows: Rows, which: int) -> float:
            return float(np.mean(calls[which][rows] == self.targets[rows]))

        def recall(rows: Rows, which: int) -> float:
            return mean_recall(self.targets[rows], calls[which][rows])

        def auc(rows: Rows, which: int) -> float:
            return self.auc(models[which], rows)

        return {"accuracy": accuracy, self.mean_recall: recall, "auc": auc}

    def words(self, model: Candidate) -> list[str]:
        """What a model calls each cell, in words."""
        return [self.classes[k].name for k in self.calls(model)]

    @property
    def truth_words(self) -> list[str]:
        """What each cell is, in words."""
        return [self.classes[t].name for t in self.targets]

    def tables(self, model: Candidate) -> tuple[NDArray[np.int64], list[str]]:
        """The confusion matrix of a model's calls and the names of its rows."""
        names = [c.name for c in self.classes]
        return m.confusion(self.targets, self.calls(model), len(names)), names

    def measured(self, model: Candidate) -> dict[str, Any]:
        """Everything of one model, ready for JSON."""
        scores, calls = self.scores(model), self.calls(model)
        names = [self.classes[t].name for t in self.targets]
        report: dict[str, Any] = {"model": model.label}
        report |= m.binary_report(self.abnormal, scores, self.groups, model.threshold)
        report["class_recall"] = m.plain(mean_recall(self.targets, calls))
        report["by_class"] = m.recall_by_class(names, calls == self.targets)
        report["confusion"] = m.confusion(self.targets, calls, len(self.classes)).tolist()
        report["calibrated"] = None
        if model.calibration is not None:
            better = calibrated(model.calibration, scores)
            whole = m.binary_report(self.abnormal, better, self.groups, 0.5)
            report["calibrated"] = {key: whole[key] for key in CALIBRATED}
        report["bins"] = m.BINS
        return report


def compare(cells: Frozen, parent: Candidate, child: Candidate) -> dict[str, Any]:
    """Measure both models on the frozen cells; ready for JSON.

    Returns
    -------
    dict
        ``n``, ``groups``, ``models`` (``parent`` and ``child``), ``paired``, ``changed``,
        ``gate``. Without frozen cells only ``n`` and ``gate``.
    """
    if len(cells.records) == 0:
        why = f"The data have no frozen part; {NOTHING_SHOWN}."
        return {"n": 0, "groups": 0, "gate": {"passed": False, "why": why}}
    models = {"parent": cells.measured(parent), "child": cells.measured(child)}
    return {
        "n": len(cells.records),
        "groups": len(set(cells.groups)),
        "classes": [c.name for c in cells.classes],
        "models": models,
        "paired": _paired(cells, parent, child),
        "changed": _changed(cells, parent, child),
        "gate": gate(cells, models["parent"], models["child"]),
    }


def mean_recall(targets: NDArray[np.intp], calls: NDArray[np.intp]) -> float:
    """Mean over the classes that occur of the share that is called right."""
    return float(np.mean([np.mean(calls[targets == t] == t) for t in np.unique(targets)]))


def _paired(cells: Frozen, parent: Candidate, child: Candidate) -> dict[str, Any]:
    models = (parent, child)
    everything = np.arange(len(cells.targets))
    found: dict[str, Any] = {}
    for name, measure in cells.paired_measures(models).items():
        interval, resampled = m.paired_interval(measure, cells.groups, strata=cells.strata)
        found[name] = {
            "gain": m.plain(measure(everything, 1) - measure(everything, 0)),
            "interval": [m.plain(v) for v in interval],
        }
        found["resampled"] = resampled if resampled == "groups" else cells.things
    return found


def _changed(cells: Frozen, parent: Candidate, child: Candidate) -> list[dict[str, Any]]:
    """Cells whose call changed, those whose score moved most first."""
    truth, before, after = cells.truth_words, cells.words(parent), cells.words(child)
    old, new = cells.scores(parent), cells.scores(child)
    rows = np.array([i for i in range(len(truth)) if before[i] != after[i]], dtype=np.intp)
    rows = rows[np.argsort(-np.abs(new - old)[rows], kind="stable")]
    return [
        {
            "uid": cells.records[i].uid,
            "image": str(cells.records[i].image),
            "group": cells.records[i].group,
            "row": cells.records[i].row,
            "col": cells.records[i].col,
            "truth": truth[i],
            "parent_call": before[i],
            "child_call": after[i],
            "parent_score": m.plain(float(old[i])),
            "child_score": m.plain(float(new[i])),
            "right": _who(before[i] == truth[i], after[i] == truth[i]),
        }
        for i in rows.tolist()
    ]


def _who(parent: bool, child: bool) -> str:
    return "child" if child else "parent" if parent else "neither"


def gate(cells: Frozen, parent: dict[str, Any], child: dict[str, Any]) -> dict[str, Any]:
    """Whether the child may become a default: see the module.

    Returns
    -------
    dict
        ``passed``, ``why`` (a sentence) and ``measures``: name to [parent, child].
    """
    if cells.only_kind:
        return {
            "passed": False,
            "why": f"The frozen part holds only {cells.only_kind} {cells.things}; {NOTHING_SHOWN}.",
            "measures": {},
        }
    names = cells.gate_measures
    measures = {
        key: [parent[key], child[key]] for key in names if None not in (parent[key], child[key])
    }
    worse = [
        f"{names[key]} {new:.4f} after {old:.4f}"
        for key, (old, new) in measures.items()
        if new < old
    ]
    where = f"on the {len(cells.records)} frozen {cells.things}"
    if all(old == new for old, new in measures.values()) and child["brier"] > parent["brier"]:
        # A parent that ranks and calls every frozen cell as well hides a child that is less sure.
        measures["brier"] = [parent["brier"], child["brier"]]
        why = (
            f"No better than the parent {where}, and its scores are further from the truth: Brier "
            f"{child['brier']:.4f} after {parent['brier']:.4f}."
        )
        return {"passed": False, "why": why, "measures": measures}
    if worse:
        why = f"Below the parent {where}: {', '.join(worse)}."
    else:
        why = f"Not below the parent {where}: " + ", ".join(
            f"{names[key]} {new:.4f} after {old:.4f}" for key, (old, new) in measures.items()
        )
        why += "."
    return {"passed": not worse, "why": why, "measures": measures}
