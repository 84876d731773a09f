"""What a fine-tuned HEp-2 model is measured by beside its parent, and what its gate goes by.

The gate: a mean class accuracy on the frozen cells below the parent's shuts it; at a tie a worse
Brier score does. Frozen cells of one pattern alone show nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training import class_metrics as cm
from training import metrics as m
from training.report import CALIBRATED, Candidate, Frozen, Rows, Scores


@dataclass(frozen=True, eq=False)
class FrozenPatterns(Frozen):
    """The frozen cells and their patterns."""

    @property
    def strata(self) -> NDArray[np.intp]:
        """A specimen has one pattern."""
        return self.targets

    @property
    def told(self) -> str:
        """What a score is the probability of."""
        return "called right"

    @property
    def mean_recall(self) -> str:
        """Key of the mean recall of the classes."""
        return "mca"

    @property
    def gate_measures(self) -> dict[str, str]:
        """The mean class accuracy."""
        return {"mca": "mean class accuracy"}

    @property
    def only_kind(self) -> str:
        """The one pattern all cells are of, where there is but one; else nothing."""
        found = np.unique(self.targets)
        return self.classes[int(found[0])].name if len(found) == 1 else ""

    def scores(self, model: Candidate) -> Scores:
        """Probability of the pattern called."""
        return np.asarray(model.probabilities.max(axis=1))

    def calls(self, model: Candidate) -> NDArray[np.intp]:
        """The pattern of largest mean probability."""
        return np.asarray(model.probabilities.argmax(axis=1))

    def curves(self, model: Candidate) -> list[tuple[str, NDArray[np.bool_], Scores]]:
        """Each pattern that occurs against the rest."""
        return [
            (self.classes[k].name, self.targets == k, model.probabilities[:, k])
            for k in np.unique(self.targets).tolist()
        ]

    def _believed(self, model: Candidate, after: bool) -> Scores:
        if after and model.calibration is not None:
            return model.calibration.apply_many(model.probabilities)
        return model.probabilities

    def believed(self, model: Candidate, after: bool) -> tuple[NDArray[np.bool_], Scores]:
        """Whether the call was right, and its probability."""
        given = self._believed(model, after)
        right = given.argmax(axis=1) == self.targets
        return right, np.minimum(given.max(axis=1), 1.0)

    def auc(self, model: Candidate, rows: Rows) -> float:
        """Mean over the patterns of the area under one against the rest."""
        return cm.macro_auc(self.targets[rows], model.probabilities[rows])

    def measured(self, model: Candidate) -> dict[str, Any]:
        """Everything of one model, ready for JSON."""
        names = [c.name for c in self.classes]
        report: dict[str, Any] = {"model": model.label}
        report |= cm.class_report(self.targets, model.probabilities, self.groups, names)
        report["specimens"] = cm.specimen_table(
            self.targets, model.probabilities, self.groups, names
        )
        report["calibrated"] = None
        if model.calibration is not None:
            better = self._believed(model, after=True)
            whole = {
                "brier": lambda i: cm.class_brier(self.targets[i], better[i]),
                "calibration_error": lambda i: cm.top_calibration_error(self.targets[i], better[i]),
            }
            everything = np.arange(len(self.targets))
            found = {k: measure(everything) for k, measure in whole.items()} | {
                f"{k}_interval": m.bootstrap_interval(measure, self.groups, strata=self.strata)
                for k, measure in whole.items()
            }
            report["calibrated"] = {key: m.plain(found[key]) for key in CALIBRATED}
        return report
