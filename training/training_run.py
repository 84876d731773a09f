"""One training run from recipe to model folder, in a folder of its own: what all systems share.

``out/``: ``recipe.yaml`` (every key as asked), ``used.json`` (as used after the budget),
``run.json`` (what happened), ``checkpoints/``, ``fold-N.json`` (out-of-fold scores),
``model/NAME`` (the model folder). A run that was stopped goes on with ``resume``.
"""

from __future__ import annotations

import json
import platform
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, cast

import numpy as np
import torch
from numpy.typing import NDArray

from napari_cellpath.core.errors import OutputError, RecipeError
from napari_cellpath.core.vocabulary import System
from napari_cellpath.models import Calibration, ModelInfo, save_model
from training.allocator import keep_freed_memory
from training.budget import Speed, fit_to_budget, stages
from training.checkpoint import write_whole
from training.datasets import CellData
from training.fit import Metrics, StopCheck
from training.progress import ProgressLog
from training.recipe import CommonRecipe, check_recipe, read_recipe, recipe_of, write_recipe
from training.splits import SplitPlan, make_split
from training.systems import entry, load
from training.trainer import R, Rows, Trainer, halved, network_arrays

Say = Callable[[str], None]
Pooled = dict[str, NDArray[Any]]
HALF_PRECISION_TOLERANCE = 0.002


def run_training(
    system: System | str,
    recipe: Path | str | CommonRecipe,
    out: Path | str,
    *,
    on_progress: Say | None = None,
    should_stop: StopCheck | None = None,
    budget: float | None = None,
    resume: bool = False,
    device: str = "auto",
) -> Path:
    """Train as a recipe says, from initial weights or from a parent; see `training.run`."""
    row = entry(system)
    asked, out = recipe_of(recipe, system), Path(out)
    keep_freed_memory()
    _check_run(asked, out, resume)
    if asked.threads:
        torch.set_num_threads(asked.threads)
    options: dict[str, Any] = {
        "say": on_progress or (lambda _line: None),
        "should_stop": should_stop,
        "budget": budget if budget is not None else asked.budget_seconds,
        "resume": resume,
        "device": device,
        "opened": partial(_open_run, asked, out),
    }
    if asked.finetune is not None:
        from training.finetune import run_finetune

        return run_finetune(asked, out, **options)
    return cast("Path", load(row.run)(asked, out, **options))


def _check_run(recipe: CommonRecipe, out: Path, resume: bool) -> None:
    """Refuse a folder that holds a run, unless it is the same recipe's and to be resumed."""
    path = out / "recipe.yaml"
    if path.is_file():
        if not resume:
            raise OutputError(f"{out} holds a run already; --resume goes on with it.")
        if read_recipe(path) != recipe:
            raise RecipeError(f"{out} was begun with another recipe. Choose another folder.")


def _open_run(recipe: CommonRecipe, out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out} cannot be made ({error.strerror}).") from None
    write_recipe(recipe, out / "recipe.yaml")


def split_of(recipe: CommonRecipe, data: CellData) -> SplitPlan:
    """The split that a recipe asks for."""
    s = recipe.split
    return make_split(
        data.groups, data.labels.tolist(), mode=s.mode, reserve=s.reserve, folds=s.folds,
        seed=s.seed,
    )  # fmt: skip


def as_used(recipe: R, out: Path, shrink: Callable[[R], R]) -> R:
    """The recipe as used: shrunk when the run begins, read again when it goes on."""
    path = out / "used.json"
    if not path.is_file():
        write_whole(path, shrink(recipe).model_dump_json(indent=1).encode())
    return cast("R", check_recipe(json.loads(path.read_text()), str(path)))


def plan_time(
    trainer: Trainer[R],
    out: Path,
    speed: Speed,
    views_of: Callable[[R], NDArray[np.int64]],
    n_reserve: int,
    *,
    seconds: float | None,
    looks: int,
    say: Say,
) -> None:
    """Shrink a trainer's recipe to its budget, and tell its log how long each stage will take.

    ``views_of`` gives, under a recipe, the views an epoch of every cell trained on; ``looks`` is
    how often each fold is scored.
    """

    def shrink(recipe: R) -> R:
        if seconds is None:
            return recipe
        used = fit_to_budget(recipe, seconds, speed, views_of, n_reserve, looks=looks)
        say(f"to stay within {seconds:.0f} s: {used.epochs} epochs of {views_of(used).sum()} views")
        return used

    trainer.recipe = as_used(trainer.recipe, out, shrink)
    trainer.log = ProgressLog(out, stages(trainer.recipe, speed, views_of(trainer.recipe)))


@dataclass
class TrainingRun(ABC, Generic[R]):
    """The parts of a run, in order; each leaves a file and is not done twice."""

    recipe: R
    data: CellData
    split: SplitPlan
    trainer: Trainer[R]
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
        self.decide(out_of_fold)
        validation = self.validation_report(out_of_fold) if out_of_fold else {}
        network, history = self.final()
        half = self._halve(network)
        reserve = self.reserve_report(network) if len(self.split.reserve) else {}
        measured: dict[str, Any] = {
            k: v for k, v in (("out_of_fold", validation), ("reserve", reserve)) if v
        }
        calibration: Calibration | None = None
        if out_of_fold:
            calibration, why = self.calibrate(out_of_fold)
            self.say(why)
        else:
            self.say("Not calibrated: no folds were trained for validation.")
        info = self.info(calibration, measured, history)
        written = save_model(
            folder, info, self.arrays(network, half), self.card(info), self.features(network)
        )
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

    def _out_of_fold(self) -> Pooled:
        """Scores of cells by models that did not see their group, pooled over the folds."""
        pooled: dict[str, list[Any]] = {}
        for fold in range(self.recipe.split.run_folds):
            path = self.out / f"fold-{fold}.json"
            if not path.is_file():
                network = self.train_fold(fold)
                rows = self.split.folds[fold]
                scores = self.score_fold(network, rows)
                listed = {"rows": rows.tolist()} | {k: v.tolist() for k, v in scores.items()}
                write_whole(path, json.dumps(listed).encode())
                self.say(f"fold {fold + 1}: {self.fold_words(rows, scores)}")
            else:
                self.trainer.log.skip(f"fold {fold + 1}")
            for key, values in json.loads(path.read_text()).items():
                pooled.setdefault(key, []).extend(values)
        return {k: np.array(v) for k, v in pooled.items()}

    def train_fold(self, fold: int) -> Any:
        """Train one fold's network."""
        network, _ = self.trainer.fit(
            self.split.training(fold), self.recipe.seed, f"fold {fold + 1}",
            self.out / "checkpoints" / f"fold-{fold}", resume=self.resume,
            epochs=self.recipe.fold_epochs,
        )  # fmt: skip
        return network

    def final(self) -> tuple[Any, list[Metrics]]:
        """Train on everything but the reserve."""
        network, fit = self.trainer.fit(
            self.split.development, self.recipe.seed, "final", self.out / "checkpoints" / "final",
            resume=self.resume,
        )  # fmt: skip
        return network, fit.history

    def _halve(self, network: torch.nn.Module) -> bool:
        """Round the weights to float16 if no measure of the reserve moves by more than 0.002."""
        before = {k: v.clone() for k, v in network.state_dict().items()}
        rows = self.split.reserve if len(self.split.reserve) else self.split.folds[0]
        exact = self.measures(network, rows)
        network.load_state_dict({k: halved(v).to(v.dtype) for k, v in before.items()})
        rounded = self.measures(network, rows)
        moved = float(np.nanmax([abs(exact[k] - rounded[k]) for k in exact]))
        if moved <= HALF_PRECISION_TOLERANCE:
            self.say(f"weights stored as float16; a measure moves by {moved:.1e} at most")
            return True
        network.load_state_dict(before)
        self.say(f"weights stored as float32: rounding would move a measure by {moved:.4f}")
        return False

    def arrays(self, network: Any, half: bool) -> dict[str, NDArray[Any]]:
        """What ``model.safetensors`` will hold."""
        return network_arrays(network, half)

    @abstractmethod
    def score_fold(self, network: Any, rows: Rows) -> Pooled:
        """Scores of a fold's cells, by the way they are looked at."""

    @abstractmethod
    def fold_words(self, rows: Rows, scores: Pooled) -> str:
        """What to say of a finished fold."""

    def decide(self, out_of_fold: Pooled) -> None:
        """Choose what is chosen on out-of-fold scores; nothing, unless a system has something."""

    @abstractmethod
    def validation_report(self, out_of_fold: Pooled) -> dict[str, Any]:
        """Measures of the out-of-fold scores."""

    @abstractmethod
    def measures(self, network: Any, rows: Rows) -> dict[str, float]:
        """The measures that rounding the weights must not move."""

    @abstractmethod
    def reserve_report(self, network: Any) -> dict[str, Any]:
        """Measures of the reserve, scored once."""

    @abstractmethod
    def calibrate(self, out_of_fold: Pooled) -> tuple[Calibration | None, str]:
        """A calibration fitted to out-of-fold scores, and what to say of it."""

    @abstractmethod
    def info(
        self, calibration: Calibration | None, measured: dict[str, Any], history: list[Metrics]
    ) -> ModelInfo:
        """What ``model.json`` will say."""

    @abstractmethod
    def card(self, info: ModelInfo) -> str:
        """The card, Markdown."""

    @abstractmethod
    def features(self, network: Any) -> dict[str, NDArray[Any]]:
        """What the model carries of its training cells, for fine-tuning elsewhere."""
