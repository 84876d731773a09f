"""One training run from recipe to model folder, in a folder of its own.

``out/``: ``recipe.yaml`` (every key as used), ``run.json`` (what happened), ``checkpoints/``,
``fold-N.json`` (out-of-fold scores), ``model/NAME`` (the model folder). A run that was
stopped goes on with ``resume``.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

from napari_cellpath.core.errors import OutputError, RecipeError
from napari_cellpath.core.vocabulary import Border
from napari_cellpath.models import Calibration, ClassInfo, save_model
from napari_cellpath.systems.deeppap.network import DeepPapNetwork
from training import metrics as m
from training.allocator import keep_freed_memory
from training.budget import fit_to_budget, measure_speed, stages
from training.calibration import fit_calibration
from training.card import write_card
from training.cells import Cells
from training.checkpoint import write_whole
from training.datasets import TWO_CLASSES, CellData, read_cells
from training.deeppap import (
    Rows,
    Trainer,
    mean_state,
    network_arrays,
    views_of_cells,
)
from training.fit import Metrics, StopCheck
from training.progress import ProgressLog
from training.recipe import Recipe, check_recipe, read_recipe, write_recipe
from training.record import model_info, trained_rows
from training.scoring import score_cells
from training.splits import SplitPlan, make_split
from training.trunk_features import FeatureCache, shipped_features

Say = Callable[[str], None]
OTHER_BORDERS = (Border.REFLECT, Border.BACKGROUND)
"""Looked at beside zero: the black of a tight crop must not be what decides (papers.md 1.13)."""
HALF_PRECISION_TOLERANCE = 0.002


def run_deeppap(
    recipe: Path | str | Recipe,
    out: Path | str,
    *,
    on_progress: Say | None = None,
    should_stop: StopCheck | None = None,
    budget: float | None = None,
    resume: bool = False,
    device: str = "auto",
) -> Path:
    """Train DeepPap as a recipe says; see `training.run`."""
    say = on_progress or (lambda _line: None)
    out = Path(out)
    keep_freed_memory()
    if not isinstance(recipe, Recipe):
        recipe = read_recipe(recipe)
    _check_run(recipe, out, resume)
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    if recipe.finetune is not None:
        from training.finetune import run_finetune

        return run_finetune(
            recipe, out, say=say, should_stop=should_stop, budget=budget, resume=resume,
            device=device, opened=partial(_open_run, recipe, out),
        )  # fmt: skip
    data = read_cells(recipe.data)
    if recipe.data.classes == 7 and len(data.fine_classes) != 7:
        raise RecipeError(
            f"data.classes is 7, but {data.folder} has {len(data.fine_classes)} classes."
        )
    split = make_split(
        data.groups, data.labels.tolist(), mode=recipe.split.mode,
        reserve=recipe.split.reserve, folds=recipe.split.folds, seed=recipe.split.seed,
    )  # fmt: skip
    if len(set(data.abnormal[split.development].tolist())) < 2:
        raise RecipeError(f"{data.folder} holds only normal or only abnormal cells.")
    views_of_cells(recipe, data)
    _open_run(recipe, out)  # only now: a refused recipe leaves no folder behind
    say(
        f"{len(data.records)} cells of {len(set(data.groups))} slide groups; "
        f"reserve {len(split.reserve)} cells; {recipe.split.run_folds} of {recipe.split.folds} "
        "folds are trained for validation"
    )
    cells = Cells.load(data, recipe.data.classes)
    trainer = Trainer(recipe, data, cells, device, say=say, should_stop=should_stop)
    speed = measure_speed(trainer, split.development)
    seconds = budget if budget is not None else recipe.budget_seconds
    if seconds is not None and not (out / "used.json").is_file():
        recipe = fit_to_budget(
            recipe,
            seconds,
            speed,
            lambda r: views_of_cells(r, data)[split.development],
            len(split.reserve),
            looks=2 + len(OTHER_BORDERS),
        )
        say(
            f"to stay within {seconds:.0f} s: {recipe.epochs} epochs of "
            f"{recipe.views_per_epoch} views"
        )
    write_whole(out / "used.json", recipe.model_dump_json(indent=1).encode())
    recipe = check_recipe(json.loads((out / "used.json").read_text()), str(out / "used.json"))
    trainer.recipe = recipe
    views = views_of_cells(recipe, data)[split.development]
    trainer.log = ProgressLog(out, stages(recipe, speed, views))
    return _Run(recipe, data, split, trainer, out, say, should_stop, resume).go()


def _check_run(recipe: Recipe, out: Path, resume: bool) -> None:
    """Refuse a folder that holds a run, unless it is the same recipe's and to be resumed."""
    path = out / "recipe.yaml"
    if path.is_file():
        if not resume:
            raise OutputError(f"{out} holds a run already. Resume it, or choose another folder.")
        if read_recipe(path) != recipe:
            raise RecipeError(f"{out} was begun with another recipe. Choose another folder.")


def _open_run(recipe: Recipe, out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out} cannot be made ({error.strerror}).") from None
    write_recipe(recipe, out / "recipe.yaml")


@dataclass
class _Run:
    """The parts of a run, in order; each leaves a file and is not done twice."""

    recipe: Recipe
    data: CellData
    split: SplitPlan
    trainer: Trainer
    out: Path
    say: Say
    should_stop: StopCheck | None
    resume: bool

    def go(self) -> Path:
        """Run all parts; return the model folder."""
        started = time.time()
        folder = self.out / "model" / self.recipe.name
        if folder.exists():
            self.say("the model is there already")
            return folder
        out_of_fold = self._out_of_fold()
        threshold = self._threshold(out_of_fold)
        validation = self._validation_report(out_of_fold, threshold)
        network, history = self._final()
        network, half = self._halve(network)
        reserve = self._reserve_report(network, threshold)
        measured: dict[str, Any] = {
            k: v for k, v in (("out_of_fold", validation), ("reserve", reserve)) if v
        }
        info = model_info(
            self.recipe, self.data, self.split, self._classes(), threshold=threshold,
            calibration=self._calibration(out_of_fold), measured=measured, history=history,
            initial_weights=self.trainer.origin,
        )  # fmt: skip
        written = save_model(
            folder, info, network_arrays(network, half), write_card(info, self.data),
            self._features(network),
        )  # fmt: skip
        self.trainer.log.write("done")
        record = {
            "model": written.name,
            "sha256": written.sha256,
            "seconds": round(time.time() - started, 1),
            "seconds_per_epoch": self.trainer.seconds_per_epoch,
            "metrics": measured,
            "history": history,
            "machine": {"processor": platform.machine(), "threads": torch.get_num_threads()},
        }
        write_whole(self.out / "run.json", json.dumps(record, indent=1).encode())
        return folder

    def _out_of_fold(self) -> dict[str, NDArray[Any]]:
        """Scores of cells by models that did not see their slide, pooled over the folds."""
        pooled: dict[str, list[Any]] = {}
        for fold in range(self.recipe.split.run_folds):
            path = self.out / f"fold-{fold}.json"
            if not path.is_file():
                network, fit = self.trainer.fit(
                    self.split.training(fold), self.recipe.seed, f"fold {fold + 1}",
                    self.out / "checkpoints" / f"fold-{fold}", resume=self.resume,
                    epochs=self.recipe.fold_epochs,
                )  # fmt: skip
                state = {k: v.detach().cpu().contiguous()
                         for k, v in fit.result.state_dict().items()}  # fmt: skip
                write_whole(self.out / f"fold-{fold}.safetensors", save_safetensors(state))
                rows = self.split.folds[fold]
                scores = {
                    "rows": rows.tolist(),
                    "as_marked": self._score(network, rows, 0).tolist(),
                    "jittered": self._score(network, rows, self.recipe.evaluation_jitter).tolist(),
                }
                for border in OTHER_BORDERS:
                    scores[f"border_{border}"] = self._score(
                        network, rows, self.recipe.evaluation_jitter, border=border
                    ).tolist()
                write_whole(path, json.dumps(scores).encode())
                report = self._report(rows, np.array(scores["jittered"]), 0.5)
                self.say(
                    f"fold {fold + 1}: accuracy {report['accuracy']} at 0.5, AUC {report['auc']} "
                    f"on {len(rows)} cells, centres off by up to "
                    f"{self.recipe.evaluation_jitter} px"
                )
            for key, values in json.loads(path.read_text()).items():
                pooled.setdefault(key, []).extend(values)
        return {k: np.array(v) for k, v in pooled.items()}

    def _score(
        self, network: DeepPapNetwork, rows: Rows, jitter: int, *,
        border: Border = Border.ZERO, views: str | None = None,
    ) -> NDArray[np.float64]:  # fmt: skip
        """Probability of abnormal of each row."""
        probabilities = score_cells(
            network, [self.data.records[int(i)] for i in rows],
            looked_at=views or self.recipe.fold_evaluation,  # type: ignore[arg-type]
            border=border, jitter=jitter, seed=self.recipe.seed, should_stop=self.should_stop,
        )  # fmt: skip
        abnormal = np.array([c.abnormal for c in self._classes()])
        return np.asarray(probabilities[:, abnormal].sum(axis=1))

    def _classes(self) -> tuple[ClassInfo, ...]:
        return TWO_CLASSES if self.recipe.data.classes == 2 else self.data.fine_classes

    def _threshold(self, pooled: dict[str, NDArray[Any]]) -> float:
        if self.recipe.threshold == "half" or not pooled:
            return 0.5
        rows = pooled["rows"]
        truth = self.data.abnormal[np.concatenate([rows, rows])]
        scores = np.concatenate([pooled["as_marked"], pooled["jittered"]])
        chosen = m.best_threshold(truth, scores, self.recipe.threshold)
        self.say(f"threshold {chosen:.2f}, chosen out of fold ({self.recipe.threshold})")
        return chosen

    def _report(self, rows: Rows, scores: NDArray[np.float64], threshold: float) -> dict[str, Any]:
        groups = self.data.groups
        names = [self.data.fine_classes[i].name for i in self.data.labels[rows]]
        return m.binary_report(
            self.data.abnormal[rows], scores, [groups[int(i)] for i in rows], threshold,
            classes=names,
        )  # fmt: skip

    def _validation_report(
        self, pooled: dict[str, NDArray[Any]], threshold: float
    ) -> dict[str, Any]:
        if not pooled:
            return {}
        rows = pooled["rows"].astype(np.intp)
        return {
            "protocol": f"{self.recipe.split.run_folds} of {self.recipe.split.folds} folds by "
            f"{'slide group' if self.recipe.split.mode == 'group' else 'cell'}; each cell scored "
            f"by a model that saw none of its fold; views: {self.recipe.fold_evaluation}; the "
            "threshold was chosen on these scores, so measures at it are slightly optimistic; "
            f"other borders with centres off by up to {self.recipe.evaluation_jitter} px",
            "as_marked": self._report(rows, pooled["as_marked"], threshold),
            f"jittered_{self.recipe.evaluation_jitter}_px": self._report(
                rows, pooled["jittered"], threshold
            ),
            **{
                key: self._report(rows, pooled[key], threshold)
                for key in (f"border_{border}" for border in OTHER_BORDERS)
                if key in pooled
            },
        }

    def _final(self) -> tuple[DeepPapNetwork, list[Metrics]]:
        """Train on everything but the reserve (and, to keep the best epoch, fold 1)."""
        best = self.recipe.keep == "best"
        rows = self.split.training(0) if best else self.split.development
        checkpoints = self.out / "checkpoints" / "final"
        start = None
        if self.recipe.final_start == "folds":
            files = [self.out / f"fold-{i}.safetensors" for i in range(self.recipe.split.run_folds)]
            start = mean_state([load_safetensors(f.read_bytes()) for f in files])
        if not best:
            network, run = self.trainer.fit(
                rows, self.recipe.seed, "final", checkpoints, resume=self.resume, start_from=start
            )
            return network, run.history
        return self.trainer.fit_keeping_best(
            rows, self.split.folds[0], self.recipe.seed, checkpoints, resume=self.resume,
            start_from=start,
        )  # fmt: skip

    def _halve(self, network: DeepPapNetwork) -> tuple[DeepPapNetwork, bool]:
        """Round the weights to float16 if no measure of the reserve moves by more than 0.002."""
        before = {k: v.clone() for k, v in network.state_dict().items()}
        rows = self.split.reserve if len(self.split.reserve) else self.split.folds[0]
        exact = self._score(network, rows, 0, views="fast")
        network.load_state_dict({k: v.half().float() for k, v in before.items()})
        rounded = self._score(network, rows, 0, views="fast")
        truth = self.data.abnormal[rows]
        moved = max(
            abs(m.binary_counts(truth, exact).accuracy - m.binary_counts(truth, rounded).accuracy),
            abs(np.nan_to_num(m.auc(truth, exact) - m.auc(truth, rounded))),
        )
        if moved <= HALF_PRECISION_TOLERANCE:
            self.say(f"weights stored as float16; scores move by {abs(exact - rounded).max():.1e}")
            return network, True
        network.load_state_dict(before)
        self.say(f"weights stored as float32: rounding would move a measure by {moved:.4f}")
        return network, False

    def _reserve_report(self, network: DeepPapNetwork, threshold: float) -> dict[str, Any]:
        rows = self.split.reserve
        if len(rows) == 0:
            return {}
        r = self.recipe
        report: dict[str, Any] = {
            "protocol": f"cells of slide groups set apart before training; "
            f"preset {r.evaluation}; borders other than zero with views: "
            f"{r.fold_evaluation}",
            "as_marked": self._report(
                rows, self._score(network, rows, 0, views=r.evaluation), threshold
            ),
            f"jittered_{r.evaluation_jitter}_px": self._report(
                rows, self._score(network, rows, r.evaluation_jitter, views=r.evaluation), threshold
            ),
        }
        for border in OTHER_BORDERS:
            scores = self._score(network, rows, 0, border=border)
            report[f"border_{border}"] = self._report(rows, scores, threshold)
        for key in ("as_marked", f"jittered_{r.evaluation_jitter}_px"):
            self.say(
                f"reserve, {key}: accuracy {report[key]['accuracy']}, AUC {report[key]['auc']}"
            )
        return report

    def _features(self, network: DeepPapNetwork) -> dict[str, NDArray[Any]]:
        """What the model carries of its training cells, for fine-tuning elsewhere."""
        rows = trained_rows(self.recipe, self.split)
        cache = FeatureCache(network, self.out / "features", self.should_stop)
        records = [self.data.records[int(i)] for i in rows]
        fine = self.data.labels[rows].tolist()
        abnormal = self.data.abnormal[rows].astype(int).tolist()
        targets = abnormal if self.recipe.data.classes == 2 else fine
        return shipped_features(cache.of(records), targets, fine, [r.group for r in records])

    def _calibration(self, pooled: dict[str, NDArray[Any]]) -> Calibration | None:
        """Fitted to out-of-fold scores: each cell scored by a model that saw none of its fold."""
        if not pooled:
            self.say("Not calibrated: no folds were trained for validation.")
            return None
        rows = pooled["rows"].astype(np.intp)
        groups = self.data.groups
        found, why = fit_calibration(
            self.data.abnormal[rows], pooled["as_marked"], [groups[int(i)] for i in rows],
            f"the validation folds of {self.data.name}",
        )  # fmt: skip
        self.say(why)
        return found
