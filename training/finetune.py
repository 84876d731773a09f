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
    save_model,
)
from napari_cellpath.project import trained
from training.card import write_child_card
from training.checkpoint import write_whole
from training.estimate import finetune_plan, fit_finetune_to_budget
from training.finetune_data import Rows, Sides, read_sides
from training.finetune_head import Examples, HeadTrainer
from training.finetune_kit import SETTLING, FeatureSource, FineTuneKit, Taught, kit_of
from training.fit import StopCheck
from training.progress import ProgressLog
from training.provenance import image_hashes
from training.recipe import CommonRecipe
from training.record import versions
from training.report import Candidate, compare
from training.report_plots import draw_comparison
from training.trainer import network_arrays
from training.training_run import as_used
from training.trunk_features import merged_features, trunk_hash


def run_finetune(
    recipe: CommonRecipe,
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
    entry = find_model(recipe.finetune.parent, System(recipe.system))
    kit = kit_of(recipe, entry.info)
    recipe = kit.recipe
    sides = read_sides(recipe, entry.info)
    opened()
    project = sides.data.folder if recipe.data.layout == "project" else None
    if project is not None and not resume:
        everybody = np.concatenate([sides.train, sides.validation, sides.frozen])
        trained.begin_run(
            project, out, sorted(set(sides.groups(everybody))),
            system=recipe.system, name=recipe.name, parent=entry.label,
        )  # fmt: skip
    say(
        f"parent {entry.label}; {len(sides.train)} {kit.things} to learn from, "
        f"{len(sides.validation)} to choose on, {len(sides.frozen)} frozen"
    )
    for note in sides.notes:
        say(note)
    network: Any = kit.load(entry.folder)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"

    def shrink(asked: CommonRecipe) -> CommonRecipe:
        if budget is None:
            return asked
        used = fit_finetune_to_budget(asked, network, sides, kit, budget)
        say(f"to stay within {budget:.0f} s: {used.epochs} epochs, views: {used.evaluation}")
        return used

    recipe = kit.recipe = as_used(recipe, out, shrink)
    log = ProgressLog(out, finetune_plan(recipe, network, sides, kit))
    network.to(device).to(memory_format=torch.channels_last)
    kind = kit.run_type() or FineTuning
    folder = kind(
        recipe, kit, entry, sides, network, out, say, should_stop, resume, device, log
    ).go()
    if project is not None:
        gate = json.loads((out / "report.json").read_text())["gate"]
        say(f"in the project as {trained.end_run(project, out, folder, gate)}")
    return folder


@dataclass
class FineTuning:
    """The parts of a run, in order."""

    recipe: CommonRecipe
    kit: FineTuneKit
    entry: ModelEntry
    sides: Sides
    network: Any  # the parent's, on the device
    out: Path
    say: Any
    should_stop: StopCheck | None
    resume: bool
    device: str
    log: ProgressLog

    def __post_init__(self) -> None:
        self.info = self.entry.info
        self.shipped = read_features(self.entry.folder)
        self.cache = self.kit.features(self.network, self.out / "features", self.should_stop)

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
        rows = self.sides.validation
        validated = self._scores(child, rows, self.kit.choosing_views, "validation")
        learnt |= self._settle(child, validated, head_only)
        threshold, why_threshold = self.kit.threshold(self.sides.data, rows, validated)
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
        card = write_child_card(info, report, self.kit.unit, self.kit.things)
        written = save_model(folder, info, arrays, card, features)
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

    def _train_head(self) -> tuple[Any, dict[str, Any]]:
        new = self._examples(self.sides.train, self.kit.learning_views, "training")
        validation = self.sides.validation
        trainer = HeadTrainer(
            self.recipe, self.network.head, len(self.info.classes), new,
            self._examples(validation, self.kit.choosing_views, "validation")
            if len(validation) else None,
            self.shipped, self.out / "trials", self.device, self.say, self.should_stop, self.log,
            self.kit.objective,
        )  # fmt: skip
        if self.shipped is None:
            self.say("the parent carries no features of its training cells: nothing is replayed")
        head, learnt = trainer.run(self.resume)
        child = copy.deepcopy(self.network)
        child.head = head
        # As it will be stored, so that the report is of the very numbers in the file.
        stored = self.kit.tensors(self.entry.folder)
        kinds = {k: torch.from_numpy(np.array(v)).dtype for k, v in stored.items()}
        rounded = {k: v.to(kinds[k]).to(v.dtype) for k, v in child.state_dict().items()}
        child.load_state_dict(rounded)
        return child.eval(), learnt

    def _settle(
        self, child: Any, validated: NDArray[np.float64], head_only: bool
    ) -> dict[str, Any]:
        if not self.kit.settles:
            return {}
        sides = self.sides
        return self.kit.settle(
            child,
            Taught(
                sides.data, sides.targets, sides.train, sides.validation,
                self._training_features(child), validated, self.shipped, trunk_stays=head_only,
                on_part=lambda done, of: self.log.write(SETTLING, done, of),
            ),
        )  # fmt: skip

    def _training_features(self, child: Any) -> NDArray[np.float32]:
        views = self.kit.learning_views
        return self._cells_features(self._cache_of(child), self.sides.train, views, "training")

    def _examples(self, rows: Rows, looked_at: str, what: str) -> Examples:
        features = self._cells_features(self.cache, rows, looked_at, what)
        return Examples(features, self.sides.targets[rows])

    def _cells_features(
        self, source: FeatureSource, rows: Rows, looked_at: str, what: str
    ) -> NDArray[np.float32]:
        source.on_progress = lambda done, of: self.log.write(f"{what} cells", done, of)
        return source.of(self.sides.records(rows), looked_at)

    def _train_all(self) -> tuple[Any, dict[str, Any]]:
        learning = np.concatenate([self.sides.train, self.sides.validation])
        data = replace(self.sides.data, records=tuple(self.sides.records(learning)))
        tuner = self.kit.tuner(
            copy.deepcopy(self.network).cpu(), self.shipped, data, self.sides.targets[learning],
            device=self.device, say=self.say, should_stop=self.should_stop, log=self.log,
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

    def _scores(self, network: Any, rows: Rows, looked_at: str, what: str) -> NDArray[np.float64]:
        """Mean class probabilities of each row, (n, n_classes)."""
        if len(rows) == 0:
            return np.zeros((0, len(self.info.classes)))
        return self.kit.scores(
            network, self._cache_of(network), self.sides.records(rows), looked_at,
            self.should_stop, lambda done, of: self.log.write(f"{what} cells", done, of),
        )  # fmt: skip

    def _cache_of(self, network: Any) -> FeatureSource:
        """The parent's features where the trunk is the parent's."""
        if trunk_hash(network) == self.cache.trunk:
            return self.cache
        return self.kit.features(network, self.out / "features", self.should_stop)

    def _calibrate(self, validated: NDArray[np.float64]) -> tuple[Calibration | None, str]:
        rows = self.sides.validation
        if len(rows) == 0:
            return None, (
                f"Not calibrated: there are no validation {self.kit.things} that can be chosen on."
            )
        return self.kit.calibrate(self.sides.data, self.sides.targets, rows, validated)

    def _report(
        self, child: Any, threshold: float, calibration: Calibration | None
    ) -> dict[str, Any]:
        rows, looked_at = self.sides.frozen, self.recipe.evaluation
        cells = self.kit.frozen(self.sides.records(rows), self.sides.targets[rows])
        parent = Candidate(
            self.entry.label, self._scores(self.network, rows, looked_at, "frozen"),
            self.info.threshold, self.info.calibration, self.kit.judge(child=False),
        )  # fmt: skip
        after = Candidate(
            self.recipe.name, self._scores(child, rows, looked_at, "frozen again"), threshold,
            calibration, self.kit.judge(child=True),
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

    def _features(self, child: Any, head_only: bool) -> dict[str, NDArray[Any]]:
        """What the child carries: its new cells and, where the trunk is the same, the parent's."""
        own = self.kit.shipped(
            self._training_features(child), self.sides.data, self.sides.targets, self.sides.train
        )
        if self.shipped is None or not head_only:
            return own
        return merged_features(self.kit.carried(self.shipped), own)

    def _arrays(self, child: Any, head_only: bool) -> dict[str, NDArray[Any]]:
        exact = network_arrays(child, half=False)
        if not head_only:
            return self.kit.whole(exact)
        stored = self.kit.tensors(self.entry.folder)
        return self.kit.whole({k: v.astype(stored[k].dtype) for k, v in exact.items()})

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
                    "grouped_by": data.grouped_by,
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
                "metrics": _metrics(report, self.kit.unit, self.kit.things),
            }
            | self.kit.facts()
        )  # fmt: skip


def _metrics(report: dict[str, Any], unit: str, things: str) -> dict[str, Any]:
    """What the model folder says of the model: itself first, its parent beside it."""
    if "models" not in report:
        return {}
    return {
        "frozen": {
            "protocol": f"{things} of {unit} kept apart, of which neither model learnt; views: "
            f"{report['views']}",
            "as_marked": report["models"]["child"],
            "parent": report["models"]["parent"],
        },
        "paired": report["paired"],
    }
