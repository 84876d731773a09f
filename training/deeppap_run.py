"""A run of DeepPap: what its recipe decides beside what `training_run` does for all systems."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load as load_safetensors

from napari_cellpath.core.errors import RecipeError
from napari_cellpath.core.vocabulary import Border
from napari_cellpath.models import Calibration, ClassInfo, ModelInfo
from napari_cellpath.systems.deeppap.measuring import fuse, measured
from napari_cellpath.systems.deeppap.network import DeepPapNetwork
from training import metrics as m
from training.budget import measure_speed
from training.calibration import fit_calibration
from training.card import write_card
from training.cells import Cells
from training.checkpoint import write_whole
from training.datasets import TWO_CLASSES, read_cells
from training.deeppap import DeepPapTrainer, views_of_cells
from training.deeppap_finetune import blank_cells
from training.deeppap_measuring import Fusion, MeasurerTrainer, mask_areas
from training.deeppap_recipe import Recipe
from training.fit import Metrics, StopCheck
from training.record import model_info, trained_rows
from training.scoring import score_cells
from training.trainer import Rows, mean_state, packed
from training.training_run import Pooled, Say, TrainingRun, plan_time, split_of
from training.trunk_features import FeatureCache, shipped_features

OTHER_BORDERS = (Border.REFLECT, Border.BACKGROUND)
"""Looked at beside zero: the black of a tight crop must not be what decides (papers.md 1.13)."""


def run_deeppap(
    recipe: Recipe,
    out: Path,
    *,
    say: Say,
    should_stop: StopCheck | None,
    budget: float | None,
    resume: bool,
    device: str,
    opened: Any,
) -> Path:
    """Train DeepPap as a recipe says; see `training.run`. ``opened`` makes the run's folder."""
    data = read_cells(recipe.data)
    if recipe.data.classes == 7 and len(data.fine_classes) != 7:
        raise RecipeError(
            f"data.classes is 7, but {data.folder} has {len(data.fine_classes)} classes."
        )
    split = split_of(recipe, data)
    if len(set(data.abnormal[split.development].tolist())) < 2:
        raise RecipeError(f"{data.folder} holds only normal or only abnormal cells.")
    views_of_cells(recipe, data)
    opened()  # only now: a refused recipe leaves no folder behind
    say(
        f"{len(data.records)} cells of {len(set(data.groups))} slide groups; "
        f"reserve {len(split.reserve)} cells; {recipe.split.run_folds} of {recipe.split.folds} "
        "folds are trained for validation"
    )
    cells = Cells.load(data, recipe.data.classes)
    trainer = DeepPapTrainer(recipe, data, cells, device=device, say=say, should_stop=should_stop)
    plan_time(
        trainer, out, measure_speed(trainer, split.development),
        lambda r: views_of_cells(r, data)[split.development], len(split.reserve),
        seconds=budget, looks=2 + len(OTHER_BORDERS), say=say,
    )  # fmt: skip
    return DeepPapRun(trainer.recipe, data, split, trainer, out, say, should_stop, resume).go()


def blank_run(recipe: Recipe) -> tuple[DeepPapTrainer, NDArray[np.int64], int, int]:
    """What a run's time is measured with; see `training.systems.TrainingEntry`."""
    data = read_cells(recipe.data)
    split = split_of(recipe, data)
    trainer = DeepPapTrainer(recipe, data, blank_cells(data, recipe.batch), device="cpu")
    views = views_of_cells(recipe, data)[split.development]
    return trainer, views, len(split.reserve), 2 + len(OTHER_BORDERS)


@dataclass
class DeepPapRun(TrainingRun[Recipe]):
    """The parts of a run that are DeepPap's own."""

    threshold: float = field(default=0.5, init=False)

    def train_fold(self, fold: int) -> DeepPapNetwork:
        """Train one fold's network and keep its weights, which the final model may start from."""
        network, fit = self.trainer.fit(
            self.split.training(fold), self.recipe.seed, f"fold {fold + 1}",
            self.out / "checkpoints" / f"fold-{fold}", resume=self.resume,
            epochs=self.recipe.fold_epochs,
        )  # fmt: skip
        write_whole(self.out / f"fold-{fold}.safetensors", packed(fit.result))
        kept: DeepPapNetwork = network
        return self._measuring(kept, self.split.training(fold), f"fold {fold + 1}", f"fold-{fold}")

    def _measuring(self, look: DeepPapNetwork, rows: Rows, name: str, place: str) -> DeepPapNetwork:
        """The network with a measurer taught on the same rows, if the recipe wants one."""
        if not self.recipe.network.measures:
            return look
        trainer = self.trainer
        assert isinstance(trainer, DeepPapTrainer)  # noqa: S101
        teacher = MeasurerTrainer(
            self.recipe, self.data, trainer.cells, device=trainer.device, say=self.say,
            should_stop=self.should_stop, log=trainer.log,
        )  # fmt: skip
        measurer, _ = teacher.fit(
            rows, self.recipe.seed, f"{name}, outlines",
            self.out / "checkpoints" / f"{place}-parts",
            resume=self.resume, epochs=self.recipe.measuring_epochs,
        )  # fmt: skip
        network = measured(look, measurer).eval()
        fusion = Fusion.fit(mask_areas(teacher, rows), self.data.abnormal[rows])
        fuse(network, fusion.scale, fusion.weights, fusion.bias)
        return network

    def score_fold(self, network: DeepPapNetwork, rows: Rows) -> Pooled:
        """Scores as marked, with centres moved, and under other borders."""
        jitter = self.recipe.evaluation_jitter
        return {
            "as_marked": self._score(network, rows, 0),
            "jittered": self._score(network, rows, jitter),
        } | {
            f"border_{border}": self._score(network, rows, jitter, border=border)
            for border in OTHER_BORDERS
        }

    def fold_words(self, rows: Rows, scores: Pooled) -> str:
        """Accuracy and AUC with centres moved."""
        report = self._report(rows, scores["jittered"], 0.5)
        return (
            f"accuracy {report['accuracy']} at 0.5, AUC {report['auc']} on {len(rows)} cells, "
            f"centres off by up to {self.recipe.evaluation_jitter} px"
        )

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

    def decide(self, pooled: Pooled) -> None:
        """Choose the threshold."""
        if self.recipe.threshold == "half" or not pooled:
            return
        rows = pooled["rows"]
        truth = self.data.abnormal[np.concatenate([rows, rows])]
        scores = np.concatenate([pooled["as_marked"], pooled["jittered"]])
        self.threshold = m.best_threshold(truth, scores, self.recipe.threshold)
        self.say(f"threshold {self.threshold:.2f}, chosen out of fold ({self.recipe.threshold})")

    def _report(self, rows: Rows, scores: NDArray[np.float64], threshold: float) -> dict[str, Any]:
        groups = self.data.groups
        names = [self.data.fine_classes[i].name for i in self.data.labels[rows]]
        return m.binary_report(
            self.data.abnormal[rows], scores, [groups[int(i)] for i in rows], threshold,
            classes=names,
        )  # fmt: skip

    def validation_report(self, pooled: Pooled) -> dict[str, Any]:
        """Every way of looking at the cells."""
        threshold = self.threshold
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

    def final(self) -> tuple[DeepPapNetwork, list[Metrics]]:
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
            history = run.history
        else:
            network, history = self.trainer.fit_keeping_best(
                rows, self.split.folds[0], self.recipe.seed, checkpoints, resume=self.resume,
                start_from=start,
            )  # fmt: skip
        return self._measuring(network, rows, "final", "final"), history

    def measures(self, network: DeepPapNetwork, rows: Rows) -> dict[str, float]:
        """Accuracy and AUC of the fast view."""
        truth, scores = self.data.abnormal[rows], self._score(network, rows, 0, views="fast")
        return {"accuracy": m.binary_counts(truth, scores).accuracy, "auc": m.auc(truth, scores)}

    def reserve_report(self, network: DeepPapNetwork) -> dict[str, Any]:
        """As marked, with centres moved, and under other borders."""
        rows, threshold = self.split.reserve, self.threshold
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

    def features(self, network: DeepPapNetwork) -> dict[str, NDArray[Any]]:
        """What the model carries of its training cells, for fine-tuning elsewhere."""
        rows = trained_rows(self.recipe, self.split)
        cache = FeatureCache(network, self.out / "features", self.should_stop)
        records = [self.data.records[int(i)] for i in rows]
        fine = self.data.labels[rows].tolist()
        abnormal = self.data.abnormal[rows].astype(int).tolist()
        targets = abnormal if self.recipe.data.classes == 2 else fine
        return shipped_features(cache.of(records), targets, fine, [r.group for r in records])

    def calibrate(self, pooled: Pooled) -> tuple[Calibration | None, str]:
        """Fitted to out-of-fold scores: each cell scored by a model that saw none of its fold."""
        rows = pooled["rows"].astype(np.intp)
        groups = self.data.groups
        return fit_calibration(
            self.data.abnormal[rows], pooled["as_marked"], [groups[int(i)] for i in rows],
            f"the validation folds of {self.data.name}",
        )  # fmt: skip

    def info(
        self, calibration: Calibration | None, measured: dict[str, Any], history: list[Metrics]
    ) -> ModelInfo:
        """See `training.record.model_info`."""
        return model_info(
            self.recipe, self.data, self.split, self._classes(), threshold=self.threshold,
            calibration=calibration, measured=measured, history=history,
            initial_weights=self.trainer.origin,
        )  # fmt: skip

    def card(self, info: ModelInfo) -> str:
        """See `training.card.write_card`."""
        return write_card(info, self.data)
