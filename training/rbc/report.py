"""What a fine-tuned RBC model is measured by beside its parent, and what its gate goes by.

The gate: a macro AUC of the types, or an accuracy of *abnormal* at the threshold, below the
parent's on the frozen boxes shuts it; at a tie a worse Brier score of *abnormal* does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.core.annotations import joined
from napari_cellpath.core.vocabulary import ABNORMAL, NO_TYPE, NORMAL
from training import metrics as m
from training.calibration import calibrated
from training.rbc import label_metrics as lm
from training.report import CALIBRATED, Candidate, Frozen, Rows, Scores

LEAST = 5
"""Frozen boxes with a type below which its area under the curve does not count in the gate."""


@dataclass(frozen=True, eq=False)
class FrozenRegions(Frozen):
    """The frozen boxes and all their labels; a `Candidate` brings its `measured.Judge`.

    ``verdicts`` (n,) are 1 abnormal, 0 normal.
    """

    verdicts: NDArray[np.int8]

    @property
    def abnormal(self) -> NDArray[np.bool_]:
        """Whether each box holds an abnormal cell."""
        return np.asarray(self.verdicts == 1)

    @property
    def mean_recall(self) -> str:
        """Key of the mean over the types."""
        return "macro_auc"

    @property
    def gate_measures(self) -> dict[str, str]:
        """How well types are told, and whether any is abnormal."""
        names = {"macro_auc": "macro AUC of the types"}
        if self.both_kinds:
            names["accuracy"] = "accuracy of abnormal"
        return names

    @property
    def only_kind(self) -> str:
        """The one set of types all boxes hold, where there is but one; else nothing."""
        found = np.unique(self.targets, axis=0)
        return self.truth_words[0] if len(found) == 1 else ""

    @property
    def truth_words(self) -> list[str]:
        """The types of each box."""
        return [self._told(row == 1) for row in self.targets]

    def words(self, model: Candidate) -> list[str]:
        """The types a model says each box holds."""
        return [self._told(row == 1) for row in model.judge.labels(model.probabilities)]

    def _told(self, there: NDArray[np.bool_]) -> str:
        held = [c.name for c, t in zip(self.classes, there, strict=True) if t]
        return joined(held) or NO_TYPE

    def scores(self, model: Candidate) -> Scores:
        """Probability of abnormal."""
        return np.asarray(model.judge.abnormal(model.probabilities))

    def calls(self, model: Candidate) -> NDArray[np.intp]:
        """1 abnormal, 0 normal."""
        return (self.scores(model) > model.threshold).astype(np.intp)

    def auc(self, model: Candidate, rows: Rows) -> float:
        """Mean over the types of the area under the curve."""
        return lm.macro_auc(self.targets[rows], model.probabilities[rows])

    def paired_measures(
        self, models: tuple[Candidate, Candidate]
    ) -> dict[str, Callable[[Rows, int], float]]:
        """Verdict, types, exact match, and the area under the curve of every type there is."""
        calls = [self.calls(model) for model in models]
        labels = [model.judge.labels(model.probabilities) for model in models]

        def accuracy(rows: Rows, which: int) -> float:
            return lm.verdict_accuracy(self.verdicts[rows], calls[which][rows])

        def exact(rows: Rows, which: int) -> float:
            return lm.exact_match(self.targets[rows], labels[which][rows])

        def macro(rows: Rows, which: int) -> float:
            return self.auc(models[which], rows)

        found: dict[str, Callable[[Rows, int], float]] = {
            "accuracy": accuracy, "exact_match": exact, "macro_auc": macro, "auc": macro,
        }  # fmt: skip
        for k, kind in enumerate(self.classes):
            there = int((self.targets[:, k] == 1).sum())
            if LEAST <= there < len(self.targets):
                found[f"auc of {kind.name}"] = self._auc_of(models, k)
        return found

    def _auc_of(self, models: tuple[Candidate, Candidate], k: int) -> Callable[[Rows, int], float]:
        def area(rows: Rows, which: int) -> float:
            return m.auc(self.targets[rows, k] == 1, models[which].probabilities[rows, k])

        return area

    def curves(self, model: Candidate) -> list[tuple[str, NDArray[np.bool_], Scores]]:
        """Abnormal against normal, where there are both."""
        return [("", self.abnormal, self.scores(model))]

    @property
    def both_kinds(self) -> bool:
        """Whether there are boxes of both verdicts."""
        return len(set(self.abnormal.tolist())) > 1

    def believed(self, model: Candidate, after: bool) -> tuple[NDArray[np.bool_], Scores]:
        """Whether a box holds an abnormal cell, and how surely it was said."""
        scores = self.scores(model)
        if after and model.calibration is not None:
            scores = calibrated(model.calibration, scores)
        return self.abnormal, scores

    def tables(self, model: Candidate) -> tuple[NDArray[np.int64], list[str]]:
        """Verdicts."""
        return m.confusion(self.verdicts, self.calls(model), 2), [NORMAL, ABNORMAL]

    def measured(self, model: Candidate) -> dict[str, Any]:
        """Everything of one model, ready for JSON."""
        names = [c.name for c in self.classes]
        judge = model.judge
        scores = self.scores(model)
        labels = lm.label_report(
            self.targets, model.probabilities, judge.thresholds, self.groups, names, least=LEAST
        )
        verdicts = lm.verdict_report(self.verdicts, scores, model.threshold, self.groups)
        report: dict[str, Any] = {"model": model.label, **labels}
        report |= {k: v for k, v in verdicts.items() if k not in ("auc", "auc_interval", "n")}
        report |= {"auc": labels["macro_auc"], "auc_interval": labels["macro_auc_interval"]}
        report |= {"auc_of_abnormal": verdicts["auc"], "max_rule": m.plain(
            lm.verdict_accuracy(self.verdicts, judge.rule(model.probabilities) > 0.5)
        )}  # fmt: skip
        report["confusion"] = self.tables(model)[0].tolist()
        report["calibrated"] = None
        if model.calibration is not None and self.both_kinds:
            better = calibrated(model.calibration, scores)
            whole = m.binary_report(self.abnormal, better, self.groups, 0.5)
            report["calibrated"] = {key: whole[key] for key in CALIBRATED}
        report["bins"] = m.BINS
        return report
