"""What a fine-tuned HSP-Net is measured by beside its parent, and what its gate goes by.

The gate: a mean Dice over all classes, or a Dice of everything but the background against it,
below the parent's on the frozen regions shuts it; where both are as they were, a worse Brier score
does. Intervals resample slides, or regions where there are fewer than eight slides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training import class_metrics as cm
from training import metrics as m
from training import region_metrics as rm
from training.hspnet.run import region_report
from training.hspnet.scoring import RegionScores
from training.report import Candidate, Frozen, Rows, Scores


def scores_of(model: Candidate) -> RegionScores:
    """What a model makes of the frozen regions; `Candidate.probabilities` holds it."""
    found: Any = model.probabilities
    assert isinstance(found, RegionScores)  # HspKit.scores gave it  # noqa: S101
    return found


@dataclass(frozen=True, eq=False)
class FrozenRegions(Frozen):
    """The frozen regions; ``targets`` is the tissue class most pixels of each are of."""

    grouped_by: str = "slide"

    @property
    def things(self) -> str:
        """Regions."""
        return "regions"

    @property
    def told(self) -> str:
        """What a score is the probability of."""
        return "called right"

    @property
    def mean_recall(self) -> str:
        """Key of the measure that stands for all classes alike."""
        return "dice"

    @property
    def gate_measures(self) -> dict[str, str]:
        """Mean Dice, and Dice of the foreground."""
        return {
            "dice": "mean Dice",
            "foreground_dice": f"Dice of all but {self.classes[0].name}",
        }

    @property
    def only_kind(self) -> str:
        """The background, where there is no tissue in any region; else nothing."""
        return "" if (self.targets > 0).any() else self.classes[0].name

    @property
    def both_kinds(self) -> bool:
        """Curves can be drawn."""
        return True

    def calls(self, model: Candidate) -> NDArray[np.intp]:
        """The tissue class most of a region's labelled pixels are called; 0 where none is."""
        called = scores_of(model).tables.sum(axis=1)
        tissue = called[:, 1:]
        return np.where(tissue.sum(axis=1) > 0, tissue.argmax(axis=1) + 1, 0)

    def scores(self, model: Candidate) -> Scores:
        """Share of each region's pixels that is called right."""
        return np.array([rm.pixel_accuracy(t) for t in scores_of(model).tables])

    def tables(self, model: Candidate) -> tuple[NDArray[np.int64], list[str]]:
        """The confusion matrix of all pixels."""
        return scores_of(model).tables.sum(axis=0), [c.name for c in self.classes]

    def curves(self, model: Candidate) -> list[tuple[str, NDArray[np.bool_], Scores]]:
        """Each class that occurs against the rest, on the pixels drawn."""
        given, truth, _ = scores_of(model).pixels
        return [
            (self.classes[k].name, truth == k, given[:, k])
            for k in np.unique(truth).tolist()
            if (truth != k).any()
        ]

    def _believed(self, model: Candidate, after: bool) -> tuple[NDArray[np.intp], Scores]:
        given, truth, _ = scores_of(model).pixels
        if after and model.calibration is not None:
            given = model.calibration.apply_many(given)
        return truth, given

    def believed(self, model: Candidate, after: bool) -> tuple[NDArray[np.bool_], Scores]:
        """Whether the call of a drawn pixel was right, and its probability."""
        truth, given = self._believed(model, after)
        return given.argmax(axis=1) == truth, np.minimum(given.max(axis=1), 1.0)

    def paired_measures(
        self, models: tuple[Candidate, Candidate]
    ) -> dict[str, Callable[[Rows, int], float]]:
        """Mean Dice, Dice of the foreground, and pixel accuracy; (rows, which) to a number."""
        tables = [scores_of(model).tables for model in models]

        def of(measure: Callable[[NDArray[np.int64]], float]) -> Callable[[Rows, int], float]:
            return lambda rows, which: measure(tables[which][rows].sum(axis=0))

        return {
            "dice": of(lambda t: rm.mean_of_present(rm.dice_of_classes(t))),
            "foreground_dice": of(rm.foreground_dice),
            "accuracy": of(rm.pixel_accuracy),
        }

    def measured(self, model: Candidate) -> dict[str, Any]:
        """Everything of one model, ready for JSON."""
        names = [c.name for c in self.classes]
        report: dict[str, Any] = {"model": model.label}
        report |= region_report(scores_of(model), self.groups, names, self.grouped_by)
        report["bins"] = m.BINS
        report["calibrated"] = None
        if model.calibration is not None:
            truth, given = self._believed(model, after=True)
            report["calibrated"] = {
                "brier": m.plain(cm.class_brier(truth, given)),
                "calibration_error": m.plain(cm.top_calibration_error(truth, given)),
            }
        return report
