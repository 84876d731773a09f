"""The folds of a HEp-2 protocol: each trained, scored, kept, and pooled into one matrix."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.core.vocabulary import System
from training import class_metrics as cm
from training import metrics as m
from training.hep2.recipe import Hep2Recipe
from training.hep2.sampling import cells_of_patterns, grow_by_specimen, thin_out
from training.hep2.scoring import score_cells
from training.hep2.trainer import Hep2Trainer, input_of
from training.protocol_parts import Folds
from training.splits import Indices, SplitPlan


@dataclass
class PatternFolds(Folds[Hep2Recipe]):
    """The folds of one split.

    ``share`` of the specimens of the training side are learnt from. ``tested`` says how many of
    the cells, the first ones, may be tested: those after them are extra specimens, which every
    fold learns from and none tests.
    """

    share: float = 1.0
    tested: int = 0
    learnt: list[int] = field(default_factory=list, init=False)
    """Specimens each fold learnt from."""

    @property
    def _hep2(self) -> Hep2Trainer:
        assert isinstance(self.trainer, Hep2Trainer)  # the protocol made it  # noqa: S101
        return self.trainer

    @property
    def _names(self) -> list[str]:
        return [c.name for c in self.cells.fine_classes]

    def learnt_from(self, plan: SplitPlan, number: int) -> Indices:
        """The training side and the extra specimens, or a share of all these."""
        extra = np.arange(self.tested, len(self.cells.records))
        rows = np.concatenate([plan.training(number), extra])
        if self.share < 1.0:
            rows = grow_by_specimen(self.cells, rows, self.share, self.recipe.seed)
        rows, _ = thin_out(self.recipe, self.cells, rows)
        return rows

    def train(self, rows: Indices, name: str, checkpoints: Path) -> Any:
        """The network of one fold, or those that vote."""
        network, _ = self._hep2.fit_members(
            rows, self.recipe.seed, name, checkpoints, resume=self.resume,
            epochs=self.recipe.fold_epochs,
        )  # fmt: skip
        return network

    def model_facts(self, network: Any) -> dict[str, Any]:
        """Of the recipe's network."""
        settings = self.recipe.network
        members = {"members": network.n_members} if network.n_members > 1 else {}
        return {
            "system": System.HEP2,
            "architecture": settings.architecture,
            "arguments": dict(settings.arguments) | members,
            "classes": self.cells.fine_classes,
            "input": input_of(self.recipe).facts(),
        }

    def scores(self, network: Any, rows: Indices) -> dict[str, Any]:
        """Probabilities of every pattern."""
        given = score_cells(
            network, self._hep2.cells.pictures[rows], self.recipe.fold_evaluation,
            should_stop=self.trainer.should_stop,
        )  # fmt: skip
        return {"probabilities": given.tolist()}

    def words(self, rows: Indices, done: dict[str, Any]) -> str:
        """How many are right."""
        called = np.array(done["probabilities"]).argmax(axis=1)
        return f"accuracy {float(np.mean(called == self.cells.labels[rows])):.4f}"

    def run(self, plan: SplitPlan, run_folds: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Measures pooled over the folds, and one row a cell."""
        done = [self.fold(plan, number) for number in range(run_folds)]
        rows = np.concatenate([np.array(d["rows"], dtype=np.intp) for d in done])
        fold_of = np.concatenate([np.full(len(d["rows"]), i + 1) for i, d in enumerate(done)])
        given = np.concatenate([np.array(d["probabilities"]) for d in done])
        return self._measure(plan, rows, given, run_folds), self._table(rows, fold_of, given)

    def _measure(
        self, plan: SplitPlan, rows: Indices, given: NDArray[np.float64], run_folds: int
    ) -> dict[str, Any]:
        groups = self.cells.groups
        truth, where = self.cells.labels[rows], [groups[int(i)] for i in rows]
        learnt = [self.learnt_from(plan, number) for number in range(run_folds)]
        per_fold = [len({groups[int(i)] for i in some}) for some in learnt]
        return {
            "folds": len(plan.folds),
            "folds_run": run_folds,
            "share_of_specimens": self.share,
            "groups_learnt_from": round(float(np.mean(per_fold)), 1),
            "cells_learnt_from": round(float(np.mean([len(some) for some in learnt])), 1),
            "cells_by_pattern_in_fold_1": cells_of_patterns(self.cells, learnt[0]),
            **cm.class_report(truth, given, where, self._names),
            "specimens": cm.specimen_table(truth, given, where, self._names),
            "confusion_percent": _percent(m.confusion(truth, given.argmax(axis=1), given.shape[1])),
        }

    def _table(
        self, rows: Indices, fold_of: NDArray[np.intp], given: NDArray[np.float64]
    ) -> list[dict[str, Any]]:
        found = []
        for place, row in enumerate(rows.tolist()):
            record = self.cells.records[row]
            found.append(
                {
                    "fold": int(fold_of[place]),
                    "image": record.image.name,
                    "group": record.group,
                    "class": self._names[record.fine_class],
                    "called": self._names[int(given[place].argmax())],
                    **{f"p_{n}": float(p) for n, p in zip(self._names, given[place], strict=True)},
                }
            )
        return found


def _percent(table: NDArray[np.int64]) -> list[list[float]]:
    """Rows of a confusion matrix as the paper prints them."""
    return np.round(100 * table / np.maximum(table.sum(axis=1, keepdims=True), 1), 2).tolist()
