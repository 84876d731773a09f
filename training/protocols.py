"""Train and measure as a paper did, beside what a stricter split says.

DeepPap (Zhang et al. 2017, papers.md 1.8, 1.9): five folds, every cell scored once by a model
that did not train on its fold. Split by cell, as published, cells of one slide lie on both
sides; split by slide they do not. Each finished fold is kept, so a stopped protocol goes on.
"""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from napari_cellpath.core.errors import OutputError, RecipeError, UnknownNameError
from napari_cellpath.core.vocabulary import Border, System
from napari_cellpath.models import ModelInfo, save_model
from napari_cellpath.systems.deeppap.network import DeepPapNetwork
from training import metrics as m
from training.allocator import keep_freed_memory
from training.budget import fit_to_budget, measure_speed
from training.checkpoint import write_whole
from training.datasets import TWO_CLASSES, CellData, read_cells
from training.deeppap import Cells, Trainer, network_arrays, views_of_cells
from training.fit import StopCheck
from training.plots import draw_report
from training.recipe import Recipe, check_recipe, read_recipe
from training.scoring import ScoredViews, score_cells
from training.splits import SplitPlan, make_split

Say = Callable[[str], None]
FOLDS = 5
RECIPES = Path(__file__).parent / "recipes"
DEFAULT_RECIPE = RECIPES / "deeppap-herlev.yaml"


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


_MARKED = Look("as_marked")
_JITTERED = (Look("off_by_5_px", 5), Look("off_by_10_px", 10))
_BORDERS = (
    Look("border_reflect", border=Border.REFLECT),
    Look("border_background", border=Border.BACKGROUND),
)
PROTOCOLS = {
    "herlev": Protocol("herlev", (_MARKED, _JITTERED[0], *_BORDERS)),
    "herlev-jitter": Protocol("herlev-jitter", (_MARKED, *_JITTERED)),
    "herlev-7": Protocol("herlev-7", (_MARKED,), classes=7),
    # Both classes are shown alike there (papers.md 1.3); the masks and sizes are Herlev's alone.
    "hemlbc": Protocol(
        "hemlbc", (_MARKED, *_JITTERED), layout="folders",
        changes=(("views_per_epoch", (1, 1)), ("more_views", {}),),
    ),
}  # fmt: skip


def reproduce(
    protocol: str,
    data: Path | str,
    out: Path | str,
    *,
    recipe_path: Path | str | None = None,
    split: str = "both",
    views: ScoredViews | None = None,
    folds: int = FOLDS,
    run_folds: int | None = None,
    budget: float | None = None,
    device: str = "auto",
    seed: int | None = None,
    resume: bool = False,
    on_progress: Say | None = None,
    should_stop: StopCheck | None = None,
) -> dict[str, Any]:
    """Run a protocol; the report is returned and written to ``out``.

    Parameters
    ----------
    protocol
        One of `PROTOCOLS`.
    data
        Folder of labelled cells.
    out
        Folder of this run: ``report.json``, ``scores.csv``, ``roc.png``, ``boxes.png``.
    recipe_path
        Network and settings; by default the starter model's. The paper's are in
        ``recipes/deeppap-paper.yaml`` (which needs CaffeNet weights).
    split
        ``cell``, ``group`` or ``both``.
    views
        How cells are looked at; by default as the recipe's folds are.
    folds, run_folds
        Parts, and how many of them are trained and scored.
    budget
        Seconds for all; views and epochs shrink to fit, and the report says so.
    device, seed, resume
        As for `training.run`.

    Raises
    ------
    UnknownNameError
        No such protocol.
    RecipeError
        The data or the recipe cannot be used for it.
    OutputError
        ``out`` holds another run.
    JobCancelledError
        Stopped; finished folds are kept.
    """
    say = on_progress or (lambda _line: None)
    if protocol not in PROTOCOLS:
        raise UnknownNameError(
            f"There is no protocol '{protocol}'. Known: {', '.join(sorted(PROTOCOLS))}."
        )
    asked = PROTOCOLS[protocol]
    recipe = _recipe(asked, Path(recipe_path or DEFAULT_RECIPE), Path(data), folds, seed)
    cells = read_cells(recipe.data)
    if asked.classes == 7 and len(cells.fine_classes) != 7:
        raise RecipeError(f"{cells.folder} has {len(cells.fine_classes)} classes, not Herlev's 7.")
    if len(set(cells.abnormal.tolist())) < 2:
        raise RecipeError(f"{cells.folder} holds only normal or only abnormal cells.")
    modes = ("cell", "group") if split == "both" else (split,)
    if "group" in modes and len(set(cells.groups)) == len(cells.records):
        if split == "group":
            raise RecipeError(f"{cells.folder} does not say which slide a cell is of.")
        say("The data do not say which slide a cell is of: split by cell only.")
        modes = ("cell",)
    out = Path(out)
    _open(out, recipe, asked, modes, resume)
    keep_freed_memory()
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    started = time.time()
    loaded = Cells.load(cells, asked.classes)
    trainer = Trainer(recipe, cells, loaded, device, say=say, should_stop=should_stop)
    run_folds = min(run_folds or folds, folds)
    recipe = recipe.model_copy(
        update={"split": recipe.split.model_copy(update={"run_folds": run_folds})}
    )
    if budget is not None:
        recipe = _within(recipe, budget / len(modes), trainer, cells, len(asked.looks), say)
    trainer.recipe = recipe
    looked_at: ScoredViews = views or recipe.fold_evaluation
    report: dict[str, Any] = {
        "protocol": protocol,
        "data": cells.name,
        "data_sha256": cells.sha256,
        "cells": len(cells.records),
        "groups": len(set(cells.groups)),
        "network": recipe.network.backbone,
        "folds": folds,
        "folds_run": run_folds,
        "epochs": recipe.fold_epochs or recipe.epochs,
        "views_per_epoch": list(recipe.views_per_epoch),
        "views": looked_at,
        "budget_seconds": budget,
        "device": device,
        "splits": {},
    }
    rows: list[dict[str, Any]] = []
    for mode in modes:
        runner = _Folds(recipe, asked, cells, trainer, mode, out / mode, looked_at, say, resume)
        measured, scored = runner.run()
        report["splits"][mode] = measured
        rows += scored
    report["initial_weights"] = trainer.origin or "see the first run of this folder"
    report["seconds"] = round(time.time() - started, 1)
    report["machine"] = {"threads": torch.get_num_threads(), "torch": torch.__version__}
    write_whole(out / "report.json", json.dumps(report, indent=1).encode())
    write_whole(out / "scores.csv", _table(rows).encode())
    draw_report(out, rows)
    return report


def _recipe(asked: Protocol, path: Path, data: Path, folds: int, seed: int | None) -> Recipe:
    recipe = read_recipe(path)
    changed = recipe.model_dump(mode="json")
    changed["data"] |= {"folder": str(data), "layout": asked.layout, "classes": asked.classes}
    changed["split"] |= {"reserve": 0.0, "folds": folds, "run_folds": folds}
    # The folds are the result here, so they are trained as long as a final model.
    changed |= {"final_start": "initial", "budget_seconds": None, "fold_epochs": 0}
    changed |= dict(asked.changes)
    if seed is not None:
        changed["seed"] = changed["split"]["seed"] = seed
    return check_recipe(changed, str(path))


def _within(
    recipe: Recipe, seconds: float, trainer: Trainer, cells: CellData, looks: int, say: Say
) -> Recipe:
    everything = np.arange(len(cells.records))
    speed = measure_speed(trainer, everything)
    fitted = fit_to_budget(
        recipe, seconds, speed, lambda r: views_of_cells(r, cells), 0, final=False, looks=looks
    )
    epochs = fitted.fold_epochs or fitted.epochs
    say(f"to stay within {seconds:.0f} s a split: {epochs} epochs of {fitted.views_per_epoch}")
    return fitted


def _open(out: Path, recipe: Recipe, asked: Protocol, modes: tuple[str, ...], resume: bool) -> None:
    """Make the folder, or check that what lies in it is this run."""
    record = {
        "protocol": asked.name,
        "splits": list(modes),
        "recipe": recipe.model_dump(mode="json"),
    }
    path = out / "protocol.json"
    if path.is_file():
        if not resume:
            raise OutputError(f"{out} holds a run already. Resume it, or choose another folder.")
        if json.loads(path.read_text()) != json.loads(json.dumps(record)):
            raise OutputError(f"{out} was begun with other settings. Choose another folder.")
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out} cannot be made ({error.strerror}).") from None
    write_whole(path, json.dumps(record, indent=1).encode())


@dataclass
class _Folds:
    """The folds of one split, each trained, scored and kept."""

    recipe: Recipe
    asked: Protocol
    cells: CellData
    trainer: Trainer
    mode: str
    out: Path
    views: ScoredViews
    say: Say
    resume: bool

    def run(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Measures of the split, and one row a cell."""
        r = self.recipe
        plan = make_split(
            self.cells.groups, self.cells.labels.tolist(), mode=self.mode, reserve=0.0,
            folds=r.split.folds, seed=r.split.seed,
        )  # fmt: skip
        done = [self._fold(plan, fold) for fold in range(r.split.run_folds)]
        rows = np.concatenate([np.array(d["rows"], dtype=np.intp) for d in done])
        fold_of = np.concatenate([np.full(len(d["rows"]), i) for i, d in enumerate(done)])
        looks = {
            look.name: np.concatenate([np.array(d[look.name]) for d in done])
            for look in self.asked.looks
        }
        return self._measure(rows, fold_of, looks), self._rows(rows, fold_of, looks)

    def _fold(self, plan: SplitPlan, fold: int) -> dict[str, Any]:
        path = self.out / f"fold-{fold + 1}.json"
        if path.is_file():
            done: dict[str, Any] = json.loads(path.read_text())
            return done
        name = f"{self.mode}-wise fold {fold + 1} of {self.recipe.split.folds}"
        network, _ = self.trainer.fit(
            plan.training(fold), self.recipe.seed, name, self.out / f"checkpoints-{fold + 1}",
            resume=self.resume, epochs=self.recipe.fold_epochs,
        )  # fmt: skip
        rows = plan.folds[fold]
        self._keep(network, plan.training(fold), fold)
        done = {"rows": rows.tolist()}
        for look in self.asked.looks:
            done[look.name] = score_cells(
                network, [self.cells.records[int(i)] for i in rows], looked_at=self.views,
                border=look.border, jitter=look.jitter, seed=self.recipe.seed,
                should_stop=self.trainer.should_stop,
            ).tolist()  # fmt: skip
        self.out.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(done).encode())
        scores = self._abnormal(np.array(done[self.asked.looks[0].name]))
        report = m.binary_report(
            self.cells.abnormal[rows], scores, [self.cells.groups[int(i)] for i in rows], 0.5
        )
        self.say(f"{name}: accuracy {report['accuracy']}, AUC {report['auc']} on {len(rows)} cells")
        return done

    def _keep(self, network: DeepPapNetwork, trained: NDArray[np.intp], fold: int) -> None:
        """Keep a fold's network as a model folder: its fold can be scored in other ways later."""
        folder = self.out / f"fold-{fold + 1}-model"
        if folder.exists():
            return
        by_cell = self.mode == "cell"
        keys = [
            self.cells.records[int(i)].image.name if by_cell else self.cells.groups[int(i)]
            for i in trained
        ]
        arguments = dict(self.recipe.network.arguments)
        if self.recipe.network.mean_image:
            arguments["mean"] = "image"
        info = ModelInfo(
            name=f"{self.asked.name}-{self.mode}-fold-{fold + 1}",
            system=System.DEEPPAP,
            architecture=self.recipe.network.backbone,
            arguments=arguments,
            classes=TWO_CLASSES if self.asked.classes == 2 else self.cells.fine_classes,
            mpp=self.cells.mpp,
            data={
                "name": self.cells.name, "sha256": self.cells.sha256, "split_by": self.mode,
                "trained_on": sorted(set(keys)),
            },
            seed=self.recipe.seed,
            training={"recipe": self.recipe.model_dump(mode="json")},
        )  # fmt: skip
        card = f"# {info.name}\n\nOne fold of `cellpath reproduce {self.asked.name}`.\n"
        save_model(folder, info, network_arrays(network, half=False), card)

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


def _table(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
