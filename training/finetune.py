"""One fine-tuning run, from recipe and parent to a model, its report and the gate.

``out/``: ``recipe.yaml``, ``progress.jsonl`` (see `training.progress`), ``features/`` (cached),
``trials/`` or ``checkpoints/``, ``model/NAME``, ``report.json`` with its pictures, ``run.json``.
A run that was stopped goes on with ``resume``; each part leaves a file and is not done twice.
"""

from __future__ import annotations

import copy
import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from napari_cellpath.core.vocabulary import System
from napari_cellpath.models import (
    Calibration,
    ModelEntry,
    ModelInfo,
    find_model,
    read_features,
    read_tensors,
    save_model,
)
from napari_cellpath.project import trained
from napari_cellpath.systems.deeppap.network import DeepPapNetwork
from napari_cellpath.systems.deeppap.predict import load_network
from training import metrics as m
from training.calibration import fit_calibration
from training.card import write_child_card
from training.cells import Cells
from training.checkpoint import write_whole
from training.deeppap import network_arrays
from training.estimate import finetune_plan, fit_finetune_to_budget
from training.finetune_data import Rows, Sides, read_sides
from training.finetune_full import FineTuner
from training.finetune_head import Examples, HeadTrainer
from training.fit import StopCheck
from training.progress import ProgressLog
from training.provenance import image_hashes
from training.recipe import Recipe
from training.record import versions
from training.report import Candidate, Frozen, compare
from training.report_plots import draw_comparison
from training.scoring import ScoredViews, score_cells
from training.trunk_features import (
    FeatureCache,
    merged_features,
    pools,
    probabilities,
    shipped_features,
    trunk_hash,
)

LEAST_FOR_THRESHOLD = 20
"""Validation cells of either kind from which the threshold is chosen anew."""


def run_finetune(
    recipe: Recipe,
    out: Path,
    *,
    say: Any,
    should_stop: StopCheck | None,
    budget: float | None,
    resume: bool,
    device: str,
    opened: Any,
) -> Path:
    """Fine-tune as a recipe says; see `training.run`. ``opened`` makes the run's folder.

    Raises
    ------
    CellpathError
        The parent or the data cannot be used (see `finetune_data.read_sides`);
        `JobCancelledError` when stopped.
    """
    assert recipe.finetune is not None  # the caller looked  # noqa: S101
    entry = find_model(recipe.finetune.parent, System.DEEPPAP)
    sides = read_sides(recipe, entry.info)
    opened()
    project = sides.data.folder if recipe.data.layout == "project" else None
    if project is not None and not resume:
        everybody = np.concatenate([sides.train, sides.validation, sides.frozen])
        trained.begin_run(
            project, out, sorted(set(sides.groups(everybody))),
            system=str(System.DEEPPAP), name=recipe.name, parent=entry.label,
        )  # fmt: skip
    say(
        f"parent {entry.label}; {len(sides.train)} cells to learn from, {len(sides.validation)} to "
        f"choose on, {len(sides.frozen)} frozen"
    )
    for note in sides.notes:
        say(note)
    network, _ = load_network(entry.folder)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    used = out / "used.json"
    seconds = budget if budget is not None else recipe.budget_seconds
    if used.is_file():
        recipe = Recipe.model_validate_json(used.read_text())
    elif seconds is not None:
        recipe = fit_finetune_to_budget(recipe, network, sides, seconds)
        say(f"to stay within {seconds:.0f} s: {recipe.epochs} epochs, views: {recipe.evaluation}")
    write_whole(used, recipe.model_dump_json(indent=1).encode())
    log = ProgressLog(out, finetune_plan(recipe, network, sides))
    network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    folder = _FineTuning(
        recipe, entry, sides, network, out, say, should_stop, resume, device, log
    ).go()
    if project is not None:
        gate = json.loads((out / "report.json").read_text())["gate"]
        say(f"in the project as {trained.end_run(project, out, folder, gate)}")
    return folder


@dataclass
class _FineTuning:
    """The parts of a run, in order."""

    recipe: Recipe
    entry: ModelEntry
    sides: Sides
    network: DeepPapNetwork  # the parent's, on the device
    out: Path
    say: Any
    should_stop: StopCheck | None
    resume: bool
    device: str
    log: ProgressLog

    def __post_init__(self) -> None:
        self.info = self.entry.info
        self.shipped = read_features(self.entry.folder)
        self.cache = FeatureCache(self.network, self.out / "features", self.should_stop)

    def go(self) -> Path:
        """Run all parts; return the model folder."""
        started = time.time()
        folder = self.out / "model" / self.recipe.name
        if folder.exists():
            self.say("the model is there already")
            return folder
        assert self.recipe.finetune is not None  # run_finetune looked  # noqa: S101
        head_only = self.recipe.finetune.method == "head"
        child, learnt = self._train_head() if head_only else self._train_all()
        validated = self._scores(child, self.sides.validation, "rotations", "validation")
        threshold, why_threshold = self._threshold(validated)
        calibration, why_calibration = self._calibrate(validated)
        self.say(why_calibration)
        report = self._report(child, threshold, calibration)
        report |= {"calibration": why_calibration, "threshold": why_threshold}
        report["notes"] = list(self.sides.notes)
        features = self._features(child, head_only)
        info = self._info(threshold, calibration, report, learnt)
        arrays = self._arrays(child, head_only)
        # Before the model: a run that is killed here is found done, and its report is there.
        report |= {"child": info.name, "model_folder": str(folder)}
        write_whole(self.out / "report.json", json.dumps(report, indent=1).encode())
        written = save_model(folder, info, arrays, write_child_card(info, report), features)
        report["child"] = f"{written.name}@{written.sha256[:8]}"
        write_whole(self.out / "report.json", json.dumps(report, indent=1).encode())
        record = {
            "model": written.name,
            "sha256": written.sha256,
            "seconds": round(time.time() - started, 1),
            "learnt": learnt,
            "metrics": info.metrics,
            "gate": report["gate"],
        }
        write_whole(self.out / "run.json", json.dumps(record, indent=1).encode())
        self.log.write("done")
        self.say(report["gate"]["why"])
        if not report["gate"]["passed"]:
            self.say("The model is kept, and is not made a default.")
        return folder

    def _train_head(self) -> tuple[DeepPapNetwork, dict[str, Any]]:
        new = self._examples(self.sides.train, "training")
        validation = self.sides.validation
        trainer = HeadTrainer(
            self.recipe, self.network.head, len(self.info.classes), new,
            self._examples(validation, "validation") if len(validation) else None,
            self.shipped, self.out / "trials", self.device, self.say, self.should_stop, self.log,
        )  # fmt: skip
        if self.shipped is None:
            self.say("the parent carries no features of its training cells: nothing is replayed")
        head, learnt = trainer.run(self.resume)
        child = copy.deepcopy(self.network)
        child.head = head
        # As it will be stored, so that the report is of the very numbers in the file.
        stored = read_tensors(self.entry.folder)
        kinds = {k: torch.from_numpy(np.array(v)).dtype for k, v in stored.items()}
        rounded = {k: v.to(kinds[k]).to(v.dtype) for k, v in child.state_dict().items()}
        child.load_state_dict(rounded)
        return child.eval(), learnt

    def _examples(self, rows: Rows, what: str) -> Examples:
        features = self._cells_features(self.cache, rows, "rotations", what)
        return Examples(features, self.sides.targets[rows])

    def _cells_features(
        self, cache: FeatureCache, rows: Rows, looked_at: ScoredViews, what: str
    ) -> NDArray[np.float32]:
        cache.on_progress = lambda done, of: self.log.write(f"{what} cells", done, of)
        return cache.of(self.sides.records(rows), looked_at)

    def _train_all(self) -> tuple[DeepPapNetwork, dict[str, Any]]:
        learning = np.concatenate([self.sides.train, self.sides.validation])
        data = replace(self.sides.data, records=tuple(self.sides.records(learning)))
        cells = Cells.load(data, 2)
        cells.targets = torch.from_numpy(self.sides.targets[learning].astype(np.int64))
        tuner = FineTuner(
            self.recipe, data, cells, self.device, say=self.say, should_stop=self.should_stop,
            log=self.log, parent=copy.deepcopy(self.network).cpu(),
            parent_classes=len(self.info.classes), shipped=self.shipped,
        )  # fmt: skip
        rows = np.arange(len(self.sides.train))
        held_back = np.arange(len(self.sides.train), len(learning))
        checkpoints = self.out / "checkpoints"
        if len(held_back):
            child, history = tuner.fit_keeping_best(
                rows, held_back, self.recipe.seed, checkpoints, resume=self.resume
            )
        else:
            child, fit = tuner.fit(rows, self.recipe.seed, "final", checkpoints, resume=self.resume)
            history = fit.history
        learnt = {"loss_by_epoch": [round(h["loss"], 5) for h in history]}
        return child.to(self.device).eval(), learnt

    def _scores(
        self, network: DeepPapNetwork, rows: Rows, looked_at: ScoredViews, what: str
    ) -> NDArray[np.float64]:
        """Mean class probabilities of each row, (n, n_classes)."""
        if len(rows) == 0:
            return np.zeros((0, len(self.info.classes)))
        if pools(network.head) or looked_at == "rotations":
            features = self._cells_features(self._cache_of(network), rows, looked_at, what)
            return probabilities(network.head, features)
        return score_cells(
            network, self.sides.records(rows), looked_at=looked_at, seed=self.recipe.seed,
            should_stop=self.should_stop,
            on_progress=lambda done, of: self.log.write(f"{what} cells", done, of),
        )  # fmt: skip

    def _cache_of(self, network: DeepPapNetwork) -> FeatureCache:
        """The parent's features where the trunk is the parent's."""
        if trunk_hash(network) == self.cache.trunk:
            return self.cache
        return FeatureCache(network, self.out / "features", self.should_stop)

    def _abnormal(self, given: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(given[:, [c.abnormal for c in self.info.classes]].sum(axis=1))

    def _threshold(self, validated: NDArray[np.float64]) -> tuple[float, str]:
        """The parent's, unless the validation part is large enough to choose one."""
        assert self.recipe.finetune is not None  # run_finetune looked  # noqa: S101
        truth = self.sides.abnormal(self.sides.validation)
        fewest = min(int(truth.sum()), int((~truth).sum()))
        if self.recipe.finetune.keep_threshold or fewest < LEAST_FOR_THRESHOLD:
            return self.info.threshold, "the parent's"
        if self.recipe.threshold == "half":
            return 0.5, "0.5, as the recipe says"
        chosen = m.best_threshold(truth, self._abnormal(validated), self.recipe.threshold)
        return chosen, f"chosen on {len(truth)} validation cells ({self.recipe.threshold})"

    def _calibrate(self, validated: NDArray[np.float64]) -> tuple[Calibration | None, str]:
        rows = self.sides.validation
        if len(rows) == 0:
            return None, "Not calibrated: there are no validation cells that can be chosen on."
        return fit_calibration(
            self.sides.abnormal(rows), self._abnormal(validated), self.sides.groups(rows),
            f"the validation part of {self.sides.data.name}",
        )  # fmt: skip

    def _report(
        self, child: DeepPapNetwork, threshold: float, calibration: Calibration | None
    ) -> dict[str, Any]:
        rows, looked_at = self.sides.frozen, self.recipe.evaluation
        cells = Frozen(self.sides.records(rows), self.sides.targets[rows], self.info.classes)
        parent = Candidate(
            self.entry.label, self._scores(self.network, rows, looked_at, "frozen"),
            self.info.threshold, self.info.calibration,
        )  # fmt: skip
        after = Candidate(
            self.recipe.name, self._scores(child, rows, looked_at, "frozen again"), threshold,
            calibration,
        )  # fmt: skip
        report: dict[str, Any] = {
            "parent": self.entry.label,
            "data": self.sides.data.name,
            "part": "frozen",
            "views": looked_at,
            **compare(cells, parent, after),
        }
        report["pictures"] = draw_comparison(self.out, cells, parent, after) if len(rows) else []
        return report

    def _features(self, child: DeepPapNetwork, head_only: bool) -> dict[str, NDArray[Any]]:
        """What the child carries: its new cells and, where the trunk is the same, the parent's."""
        rows = self.sides.train
        features = self._cells_features(self._cache_of(child), rows, "rotations", "training")
        targets = self.sides.targets[rows].tolist()
        own = shipped_features(features, targets, targets, self.sides.groups(rows))
        return own if self.shipped is None or not head_only else merged_features(self.shipped, own)

    def _arrays(self, child: DeepPapNetwork, head_only: bool) -> dict[str, NDArray[Any]]:
        if not head_only:
            return network_arrays(child, half=False)
        stored = read_tensors(self.entry.folder)
        exact = network_arrays(child, half=False)
        return {k: v.astype(stored[k].dtype) for k, v in exact.items()}

    def _info(
        self,
        threshold: float,
        calibration: Calibration | None,
        report: dict[str, Any],
        learnt: dict[str, Any],
    ) -> ModelInfo:
        data, sides = self.sides.data, self.sides
        learning = np.concatenate([sides.train, sides.validation])
        images = set(image_hashes(sides.records(learning))) | set(self.info.data.get("images", ()))
        return self.info.model_copy(
            update={
                "name": self.recipe.name,
                "version": "1",
                "threshold": threshold,
                "calibration": calibration,
                "parent": self.entry.label,
                "data": {
                    "name": data.name,
                    "sha256": data.sha256,
                    "cells": len(data.records),
                    "groups": len(set(data.groups)),
                    "trained_on_cells": len(sides.train),
                    "split_by": "group",
                    "trained_on": sorted(set(sides.groups(sides.train))),
                    "validation": sorted(set(sides.groups(sides.validation))),
                    "images": sorted(images),
                    "note": data.note,
                    "parent": {k: v for k, v in self.info.data.items() if k != "images"}
                    | {"reserve": list(self.info.reserve)},
                },
                "reserve": tuple(sorted(set(sides.groups(sides.frozen)))),
                "seed": self.recipe.seed,
                "versions": versions(),
                "training": {
                    "recipe": self.recipe.model_dump(mode="json"),
                    "initial_weights": self.entry.label,
                    "learnt": learnt,
                    "gate": report["gate"],
                },
                "metrics": _metrics(report),
            }
        )  # fmt: skip


def _metrics(report: dict[str, Any]) -> dict[str, Any]:
    """What the model folder says of the model: itself first, its parent beside it."""
    if "models" not in report:
        return {}
    return {
        "frozen": {
            "protocol": f"cells of slides kept apart, of which neither model learnt; views: "
            f"{report['views']}",
            "as_marked": report["models"]["child"],
            "parent": report["models"]["parent"],
        },
        "paired": report["paired"],
    }
