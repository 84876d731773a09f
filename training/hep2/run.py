"""A run of HEp-2: what its recipe decides beside what `training_run` does for all systems."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.core.vocabulary import Average, System
from napari_cellpath.models import Calibration, ModelInfo
from napari_cellpath.systems.hep2.network import Hep2Network
from training import class_metrics as cm
from training import metrics as m
from training.budget import measure_speed
from training.calibration import fit_class_calibration
from training.fit import Metrics, StopCheck
from training.hep2.card import write_card
from training.hep2.data import Hep2Cells, read_cells
from training.hep2.recipe import Hep2Recipe
from training.hep2.sampling import copies_of_cells, thin_out
from training.hep2.scoring import score_cells, trunk_features
from training.hep2.trainer import Hep2Trainer, blank_cells, input_of
from training.record import data_facts, names_of, training_facts, versions
from training.trainer import Rows
from training.training_run import Pooled, Say, TrainingRun, plan_time, split_of
from training.trunk_features import shipped_features


def run_hep2(
    recipe: Hep2Recipe,
    out: Path,
    *,
    say: Say,
    should_stop: StopCheck | None,
    budget: float | None,
    resume: bool,
    device: str,
    opened: Any,
) -> Path:
    """Train HEp-2 as a recipe says; see `training.run`. ``opened`` makes the run's folder."""
    data = read_cells(recipe.data)
    split = split_of(recipe, data)
    copies_of_cells(recipe, data)
    opened()  # only now: a refused recipe leaves no folder behind
    say(
        f"{len(data.records)} cells of {len(set(data.groups))} groups ({data.grouped_by}); "
        f"reserve {len(split.reserve)} cells; {recipe.split.run_folds} of {recipe.split.folds} "
        "folds are trained for validation"
    )
    cells = Hep2Cells.load(data, recipe.data.channel, input_of(recipe))
    trainer = Hep2Trainer(recipe, data, cells, device=device, say=say, should_stop=should_stop)
    plan_time(
        trainer, out, measure_speed(trainer, split.development),
        lambda r: views_of(trainer, r, split.development), len(split.reserve),
        seconds=budget, looks=1, say=say,
    )  # fmt: skip
    if trainer.fewer:
        say(
            f"{len(trainer.fewer)} groups have fewer than {recipe.sampling.per_specimen} cells; "
            "all of theirs are taken"
        )
    return Hep2Run(trainer.recipe, data, split, trainer, out, say, should_stop, resume).go()


def blank_run(recipe: Hep2Recipe) -> tuple[Hep2Trainer, NDArray[np.int64], int, int]:
    """What a run's time is measured with; see `training.systems.TrainingEntry`."""
    data = read_cells(recipe.data)
    split = split_of(recipe, data)
    trainer = Hep2Trainer(
        recipe, data, blank_cells(recipe.batch, len(data.fine_classes), recipe.network.size)
    )
    return trainer, views_of(trainer, recipe, split.development), len(split.reserve), 1


def views_of(trainer: Hep2Trainer, recipe: Hep2Recipe, rows: Rows) -> NDArray[np.int64]:
    """Views in an epoch of each cell that is learnt from."""
    kept, trainer.fewer = thin_out(recipe, trainer.data, rows)
    return copies_of_cells(recipe, trainer.data)[kept]


@dataclass
class Hep2Run(TrainingRun[Hep2Recipe]):
    """The parts of a run that are HEp-2's own."""

    @property
    def _hep2(self) -> Hep2Trainer:
        assert isinstance(self.trainer, Hep2Trainer)  # run_hep2 made it  # noqa: S101
        return self.trainer

    @property
    def _names(self) -> list[str]:
        return [c.name for c in self.data.fine_classes]

    def fit(self, rows: Rows, name: str, epochs: int = 0) -> tuple[Hep2Network, list[Metrics]]:
        """Train the network, or those that vote."""
        network, fit = self._hep2.fit_members(
            rows, self.recipe.seed, name,
            self.out / "checkpoints" / name.replace(" ", "-"), resume=self.resume, epochs=epochs,
        )  # fmt: skip
        return network, fit.history

    def train_fold(self, fold: int) -> Hep2Network:
        """Train one fold's network, or those that vote."""
        rows = self.split.training(fold)
        return self.fit(rows, f"fold {fold + 1}", self.recipe.fold_epochs)[0]

    def final(self) -> tuple[Hep2Network, list[Metrics]]:
        """Train on everything but the reserve."""
        return self.fit(self.split.development, "final")

    def _score(self, network: Hep2Network, rows: Rows, average: Average) -> NDArray[np.float64]:
        return score_cells(
            network, self._hep2.cells.pictures[rows], average, should_stop=self.should_stop
        )

    def score_fold(self, network: Hep2Network, rows: Rows) -> Pooled:
        """Probabilities of every pattern."""
        return {"probabilities": self._score(network, rows, self.recipe.fold_evaluation)}

    def fold_words(self, rows: Rows, scores: Pooled) -> str:
        """Mean class accuracy and accuracy."""
        called = scores["probabilities"].argmax(axis=1)
        table = m.confusion(self.data.labels[rows], called, len(self._names))
        right = np.trace(table) / len(rows)
        return (
            f"mean class accuracy {cm.mean_class_accuracy(table, self._names):.4f}, accuracy "
            f"{right:.4f} on {len(rows)} cells"
        )

    def _report(self, rows: Rows, probabilities: NDArray[np.float64]) -> dict[str, Any]:
        groups = self.data.groups
        where = [groups[int(i)] for i in rows]
        truth = self.data.labels[rows]
        report = cm.class_report(truth, probabilities, where, self._names)
        return report | {"specimens": cm.specimen_table(truth, probabilities, where, self._names)}

    def validation_report(self, pooled: Pooled) -> dict[str, Any]:
        """The cells as they are, or as ``fold_evaluation`` says."""
        s = self.recipe.split
        by = self.data.grouped_by if s.mode == "group" else "cell"
        return {
            "protocol": f"{s.run_folds} of {s.folds} folds by {by}; each cell scored by a model "
            f"that saw none of its fold; views: {self.recipe.fold_evaluation}",
            "cells": self._report(pooled["rows"].astype(np.intp), pooled["probabilities"]),
        }

    def measures(self, network: Hep2Network, rows: Rows) -> dict[str, float]:
        """What rounding the weights must not move."""
        truth = self.data.labels[rows]
        given = self._score(network, rows, Average.NONE)
        table = m.confusion(truth, given.argmax(axis=1), len(self._names))
        return {
            "mca": float(np.nanmean(cm.class_recalls(table))),
            "accuracy": float(np.trace(table) / len(rows)),
            "macro_f1": cm.macro_f1(table),
            "auc": cm.macro_auc(truth, given),
            "brier": cm.class_brier(truth, given),
            "calibration_error": cm.top_calibration_error(truth, given),
        }

    def reserve_report(self, network: Hep2Network) -> dict[str, Any]:
        """The reserve as ``evaluation`` says."""
        rows = self.split.reserve
        report = self._report(rows, self._score(network, rows, self.recipe.evaluation))
        self.say(
            f"reserve: mean class accuracy {report['mca']}, accuracy {report['accuracy']} on "
            f"{len(rows)} cells"
        )
        return {
            "protocol": f"cells of groups ({self.data.grouped_by}) set apart before training; "
            f"views: {self.recipe.evaluation}",
            "cells": report,
        }

    def calibrate(self, pooled: Pooled) -> tuple[Calibration | None, str]:
        """Fitted to out-of-fold probabilities: each cell scored by a model that never saw it."""
        rows = pooled["rows"].astype(np.intp)
        groups = self.data.groups
        return fit_class_calibration(
            self.data.labels[rows], pooled["probabilities"], [groups[int(i)] for i in rows],
            f"the validation folds of {self.data.name}",
        )  # fmt: skip

    def info(
        self, calibration: Calibration | None, measured: dict[str, Any], history: list[Metrics]
    ) -> ModelInfo:
        """What ``model.json`` will say."""
        r, data = self.recipe, self.data
        members = min(r.network.members, r.epochs)
        trained, _ = thin_out(r, data, self.split.development)
        facts = data_facts(r, data, self.split.development, np.array([], dtype=np.intp))
        return ModelInfo(
            name=r.name,
            system=System.HEP2,
            architecture=r.network.architecture,
            arguments=dict(r.network.arguments) | ({"members": members} if members > 1 else {}),
            classes=data.fine_classes,
            input=input_of(r).facts(),
            mpp=data.mpp,
            calibration=calibration,
            data=facts | {"trained_on_cells": len(trained)},
            reserve=names_of(r, data, self.split.reserve),
            seed=r.seed,
            licence="BSD-3-Clause (weights); the data have no stated terms, see card.md"
            if data.note
            else "",
            versions=versions(),
            training=training_facts(r, self.trainer.origin, history),
            metrics=measured,
        )

    def card(self, info: ModelInfo) -> str:
        """See `training.hep2.card.write_card`."""
        return write_card(info)

    def features(self, network: Hep2Network) -> dict[str, NDArray[Any]]:
        """What the model carries of its training cells, for fine-tuning elsewhere."""
        rows, _ = thin_out(self.recipe, self.data, self.split.development)
        found = trunk_features(
            network, self._hep2.cells.pictures[rows], should_stop=self.should_stop
        )
        targets, groups = self.data.labels[rows].tolist(), self.data.groups
        return shipped_features(found, targets, targets, [groups[int(i)] for i in rows])
