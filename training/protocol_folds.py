"""The folds of a protocol under one split: each trained, scored, kept, and measured together."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.core.vocabulary import Border, System
from napari_cellpath.systems.deeppap.network import DeepPapNetwork
from training import metrics as m
from training.datasets import TWO_CLASSES
from training.deeppap_recipe import Recipe
from training.protocol_parts import Folds
from training.scoring import ScoredViews, score_cells
from training.splits import make_split


@dataclass(frozen=True)
class Look:
    """One way of looking at the cells of a fold."""

    name: str
    jitter: int = 0
    border: Border = Border.ZERO


@dataclass(frozen=True)
class Protocol:
    """What is asked: how cells are looked at, in how many classes, from which layout."""

    name: str
    looks: tuple[Look, ...]
    classes: int = 2
    layout: str = "herlev"
    changes: tuple[tuple[str, Any], ...] = ()


@dataclass
class ProtocolFolds(Folds[Recipe]):
    """The folds of one split of DeepPap's; ``asked`` and ``views`` say how they are looked at."""

    asked: Protocol
    views: ScoredViews

    def run(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Measures of the split, and one row a cell."""
        r = self.recipe
        plan = make_split(
            self.cells.groups, self.cells.labels.tolist(), mode=self.mode, reserve=0.0,
            folds=r.split.folds, seed=r.split.seed,
        )  # fmt: skip
        done = [self.fold(plan, number) for number in range(r.split.run_folds)]
        rows = np.concatenate([np.array(d["rows"], dtype=np.intp) for d in done])
        fold_of = np.concatenate([np.full(len(d["rows"]), i) for i, d in enumerate(done)])
        looks = {
            look.name: np.concatenate([np.array(d[look.name]) for d in done])
            for look in self.asked.looks
        }
        return self._measure(rows, fold_of, looks), self._rows(rows, fold_of, looks)

    def scores(self, network: DeepPapNetwork, rows: NDArray[np.intp]) -> dict[str, Any]:
        """Class probabilities by every look."""
        return {
            look.name: score_cells(
                network, [self.cells.records[int(i)] for i in rows], looked_at=self.views,
                border=look.border, jitter=look.jitter, seed=self.recipe.seed,
                should_stop=self.trainer.should_stop,
            ).tolist()
            for look in self.asked.looks
        }  # fmt: skip

    def words(self, rows: NDArray[np.intp], done: dict[str, Any]) -> str:
        """Accuracy and AUC of the first look."""
        scores = self._abnormal(np.array(done[self.asked.looks[0].name]))
        report = m.binary_report(
            self.cells.abnormal[rows], scores, [self.cells.groups[int(i)] for i in rows], 0.5
        )
        return f"accuracy {report['accuracy']}, AUC {report['auc']}"

    def model_facts(self, _network: DeepPapNetwork) -> dict[str, Any]:
        """Of the recipe's network."""
        arguments = dict(self.recipe.network.arguments)
        if self.recipe.network.mean_image:
            arguments["mean"] = "image"
        return {
            "system": System.DEEPPAP,
            "architecture": self.recipe.network.backbone,
            "arguments": arguments,
            "classes": TWO_CLASSES if self.asked.classes == 2 else self.cells.fine_classes,
        }

    def _abnormal(self, probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
        if probabilities.shape[1] == 2:
            return np.asarray(probabilities[:, 1])
        abnormal = np.array([c.abnormal for c in self.cells.fine_classes])
        return np.asarray(probabilities[:, abnormal].sum(axis=1))

    def _measure(
        self, rows: NDArray[np.intp], fold_of: NDArray[np.intp],
        looks: dict[str, NDArray[np.float64]],
    ) -> dict[str, Any]:  # fmt: skip
        truth = self.cells.abnormal[rows]
        groups = [self.cells.groups[int(i)] for i in rows]
        names = [self.cells.fine_classes[i].name for i in self.cells.labels[rows]]
        first = self._abnormal(looks[self.asked.looks[0].name])
        thresholds = nested_thresholds(truth, first, fold_of)
        measured: dict[str, Any] = {"thresholds_of_folds": [round(t, 2) for t in thresholds]}
        for name, probabilities in looks.items():
            scores = self._abnormal(probabilities)
            report = m.binary_report(truth, scores, groups, 0.5, classes=names)
            report["over_folds"] = m.over_folds(truth, scores, fold_of, 0.5)
            # Shifting each fold's scores by its threshold lets one report count them all.
            moved = scores - np.array(thresholds)[fold_of]
            chosen = m.binary_counts(truth, moved, 0.0)
            report["at_threshold_of_other_folds"] = {
                k: round(v, 4) for k, v in chosen.as_dict().items()
            }
            if self.asked.classes == 7:
                called = probabilities.argmax(axis=1)
                wanted = self.cells.labels[rows]
                report["confusion"] = m.confusion(wanted, called, 7).tolist()
                wrong = called != wanted
                interval = m.bootstrap_interval(partial(_share, wrong), groups)
                report["overall_error"] = round(float(wrong.mean()), 4)
                report["overall_error_interval"] = [round(v, 4) for v in interval]
            measured[name] = report
        return measured

    def _rows(
        self, rows: NDArray[np.intp], fold_of: NDArray[np.intp],
        looks: dict[str, NDArray[np.float64]],
    ) -> list[dict[str, Any]]:  # fmt: skip
        table = []
        for place, row in enumerate(rows):
            record = self.cells.records[int(row)]
            table.append(
                {
                    "split": self.mode,
                    "fold": int(fold_of[place]) + 1,
                    "image": record.image.name,
                    "group": record.group,
                    "class": self.cells.fine_classes[record.fine_class].name,
                    "abnormal": int(record.abnormal),
                    **{
                        f"score_{k}": float(self._abnormal(v[place : place + 1])[0])
                        for k, v in looks.items()
                    },
                }
            )
        return table


def nested_thresholds(
    truth: NDArray[np.bool_], scores: NDArray[np.float64], fold_of: NDArray[np.intp]
) -> list[float]:
    """For each fold the threshold with the best accuracy on the other folds' scores.

    A threshold chosen on the cells it is reported on would flatter; with one fold it stays 0.5.
    """
    n = int(fold_of.max()) + 1
    if n == 1:
        return [0.5]
    return [m.best_threshold(truth[fold_of != i], scores[fold_of != i]) for i in range(n)]


def _share(values: NDArray[np.bool_], rows: NDArray[np.intp]) -> float:
    return float(values[rows].mean())
