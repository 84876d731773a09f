"""A run of RBC: what its recipe decides beside what `training_run` does for all systems.

Trunk and heads are trained fold by fold; on what they say of regions they never saw the booster
is fitted and the thresholds are chosen. Then trunk and heads learn from everything but the
reserve, and so does the detector.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from napari_cellpath.core.vocabulary import Average, System
from napari_cellpath.models import Calibration, ModelInfo
from napari_cellpath.systems.rbc.network import Cascade
from training.budget import measure_speed
from training.calibration import fit_calibration
from training.fit import Metrics, StopCheck
from training.rbc import label_metrics as lm
from training.rbc.boosting import Boosted, fit_booster
from training.rbc.card import write_card
from training.rbc.data import chosen, read_cells
from training.rbc.detector import DetectorTrainer, build_detector
from training.rbc.features import shipped_regions
from training.rbc.heads import trainer_of
from training.rbc.measured import Judge, detector_report, judged, shown
from training.rbc.patches import RbcPatches
from training.rbc.recipe import RbcRecipe
from training.rbc.scoring import mean_features, score_patches
from training.rbc.table import Field, RedCells
from training.rbc.trainer import PatchNetwork, RbcTrainer, input_of
from training.record import data_facts, names_of, training_facts, versions
from training.trainer import Rows, network_arrays
from training.training_run import Pooled, Say, TrainingRun, plan_time, split_of


def run_rbc(
    recipe: RbcRecipe,
    out: Path,
    *,
    say: Say,
    should_stop: StopCheck | None,
    budget: float | None,
    resume: bool,
    device: str,
    opened: Any,
) -> Path:
    """Train RBC as a recipe says; see `training.run`. ``opened`` makes the run's folder."""
    data = chosen(read_cells(recipe.data), recipe.regions)
    split = split_of(recipe, data)
    build_detector(recipe.detector)
    opened()  # only now: a refused recipe leaves no folder behind
    several = int((data.cells > 1).sum())
    say(
        f"{len(data.records)} labelled boxes ({several} of several cells) on {len(data.fields)} "
        f"images of {len(set(data.groups))} groups ({data.grouped_by}); reserve "
        f"{len(split.reserve)} boxes; {recipe.split.run_folds} of {recipe.split.folds} folds are "
        "trained for validation"
    )
    patches = RbcPatches.load(data, input_of(recipe))
    trainer = trainer_of(recipe, data, patches, device=device, say=say, should_stop=should_stop)
    finder = DetectorTrainer(
        recipe, fields_of(data, split.reserve, False), device, say, should_stop
    )
    trainer.further_seconds = finder.seconds()
    seconds = budget
    if budget is not None and not (out / "used.json").is_file():
        seconds = max(1.0, budget - min(trainer.further_seconds, budget / 3))
    plan_time(
        trainer, out, measure_speed(trainer, split.development),
        lambda _r: np.ones(len(split.development), dtype=np.int64), len(split.reserve),
        seconds=seconds, looks=1, say=say,
    )  # fmt: skip
    finder.log = trainer.log
    finder.recipe = trainer.recipe = _with_iterations(trainer.recipe, out, budget, finder)
    run = RbcRun(trainer.recipe, data, split, trainer, out, say, should_stop, resume, finder)
    return run.go()


def _with_iterations(
    recipe: RbcRecipe, out: Path, budget: float | None, finder: DetectorTrainer
) -> RbcRecipe:
    """The detector's share of a budget: a third at most; what was used is read again."""
    path = out / "detector.json"
    settings = recipe.detector
    if not path.is_file():
        iterations = settings.iterations
        seconds = finder.seconds()
        if budget is not None and seconds > budget / 3:
            iterations = max(1, int(iterations * budget / 3 / seconds))
            finder.say(f"the detector: {iterations} iterations instead of {settings.iterations}")
        path.write_text(json.dumps({"iterations": iterations}))
    used = json.loads(path.read_text())["iterations"]
    return recipe.model_copy(update={"detector": settings.model_copy(update={"iterations": used})})


def blank_run(recipe: RbcRecipe) -> tuple[RbcTrainer, NDArray[np.int64], int, int]:
    """What a run's time is measured with; see `training.systems.TrainingEntry`."""
    data = chosen(read_cells(recipe.data), recipe.regions)
    split = split_of(recipe, data)
    size = recipe.network.size
    blank = RbcPatches(
        torch.zeros(recipe.batch, 3, size, size, dtype=torch.uint8),
        torch.zeros(recipe.batch, len(data.fine_classes), dtype=torch.int8),
    )
    trainer = trainer_of(recipe, data, blank)
    finder = DetectorTrainer(recipe, fields_of(data, split.reserve, False))
    trainer.further_seconds = finder.seconds()
    return trainer, np.ones(len(split.development), dtype=np.int64), len(split.reserve), 1


def fields_of(data: RedCells, reserve: Rows, inside: bool) -> list[Field]:
    """The fields of the reserve's groups, or all others."""
    groups = {data.groups[int(i)] for i in reserve}
    return [f for f in data.fields if (f.group in groups) is inside]


@dataclass
class RbcRun(TrainingRun[RbcRecipe]):
    """The parts of a run that are RBC's own."""

    finder: DetectorTrainer
    boosted: Boosted | None = field(default=None, init=False)
    thresholds: tuple[float, ...] = field(default=(), init=False)
    told: NDArray[np.float64] | None = field(default=None, init=False)

    @property
    def _rbc(self) -> RbcTrainer:
        assert isinstance(self.trainer, RbcTrainer)  # run_rbc made it  # noqa: S101
        return self.trainer

    @property
    def _cells(self) -> RedCells:
        assert isinstance(self.data, RedCells)  # run_rbc read it  # noqa: S101
        return self.data

    def final(self) -> tuple[Cascade, list[Metrics]]:
        """Trunk, heads and detector on everything but the reserve."""
        network, history = super().final()
        detector = None
        if self.recipe.detector.architecture != "none":
            detector, _ = self.finder.run(self.out / "checkpoints" / "detector", resume=self.resume)
        return Cascade(detector, network.trunk, network.head).eval(), history

    def _score(self, network: Any, rows: Rows, average: Average) -> NDArray[np.float64]:
        return score_patches(
            network, self._rbc.patches.pictures[rows], average, should_stop=self.should_stop
        )

    def score_fold(self, network: PatchNetwork, rows: Rows) -> Pooled:
        """Probability of every type."""
        return {"probabilities": self._score(network, rows, self.recipe.fold_evaluation)}

    def fold_words(self, rows: Rows, scores: Pooled) -> str:
        """Macro AUC and exact match."""
        truth, given = self._cells.targets[rows], scores["probabilities"]
        return (
            f"macro AUC {lm.macro_auc(truth, given, lm.LEAST):.4f}, exact match "
            f"{lm.exact_match(truth, given > 0.5):.4f} on {len(rows)} boxes"
        )

    def decide(self, out_of_fold: Pooled) -> None:
        """The booster and the thresholds, on boxes whose heads never saw them."""
        self.thresholds = tuple(0.5 for _ in self._cells.fine_classes)
        if not out_of_fold:
            self.say("No folds were trained: no booster, thresholds of 0.5, the max rule stands in")
            return
        rows = out_of_fold["rows"].astype(np.intp)
        given = out_of_fold["probabilities"]
        self.told = np.full(self._cells.targets.shape, np.nan)
        self.told[rows] = given
        groups = self._cells.groups
        self.boosted = fit_booster(
            given, self._cells.verdicts[rows], [groups[int(i)] for i in rows],
            self.recipe.booster, self.recipe.seed,
        )  # fmt: skip
        self.thresholds = lm.best_thresholds(self._cells.targets[rows], given)

    def _judge(self) -> Judge:
        return Judge(
            self._cells.fine_classes, self.thresholds,
            None if self.boosted is None else self.boosted.booster,
        )  # fmt: skip

    def validation_report(self, pooled: Pooled) -> dict[str, Any]:
        """Labels and verdicts out of fold; the booster's own by boosters of other folds."""
        rows = pooled["rows"].astype(np.intp)
        s = self.recipe.split
        by = self._cells.grouped_by if s.mode == "group" else "box"
        assert self.boosted is not None  # decide() made it  # noqa: S101
        report = judged(
            self._cells, rows, pooled["probabilities"], self._judge(), self.boosted.probabilities
        )
        self.say(f"out of fold: {shown(report)}")
        return {
            "protocol": f"{s.run_folds} of {s.folds} folds by {by}; each box scored by a model "
            "that saw none of its fold",
            **report,
        }

    def measures(self, network: Cascade, rows: Rows) -> dict[str, float]:
        """What rounding the weights must not move."""
        truth, given = self._cells.targets[rows], self._score(network, rows, self.recipe.evaluation)
        judge = self._judge()
        verdicts = self._cells.verdicts[rows]
        found = {
            "macro_auc": lm.macro_auc(truth, given, lm.LEAST),
            "exact_match": lm.exact_match(truth, judge.labels(given)),
            "hamming": lm.hamming_loss(truth, judge.labels(given)),
            "abnormal": lm.verdict_accuracy(verdicts, judge.abnormal(given) > 0.5),
        }
        if network.detector is not None:
            fields = fields_of(self._cells, rows, True)
            found["ap"] = self._found(network, fields)["ap"]
        return found

    def _found(
        self, network: Cascade, fields: list[Field], baseline: bool = False
    ) -> dict[str, Any]:
        s = self.recipe.detector
        return detector_report(
            network.detector, fields, s.scale, s.truth, score=s.score, baseline=baseline,
            should_stop=self.should_stop,
        )  # fmt: skip

    def reserve_report(self, network: Cascade) -> dict[str, Any]:
        """The reserve as ``evaluation`` says: labels, verdicts, and the detector."""
        rows = self.split.reserve
        given = self._score(network, rows, self.recipe.evaluation)
        report = judged(self._cells, rows, given, self._judge())
        if network.detector is not None:
            fields = fields_of(self._cells, rows, True)
            report["detector"] = self._found(network, fields, baseline=True)
        self.say(f"reserve: {shown(report)}")
        return {
            "protocol": f"images of groups ({self._cells.grouped_by}) set apart before training",
            **report,
        }

    def calibrate(self, pooled: Pooled) -> tuple[Calibration | None, str]:
        """Of *abnormal*, on what boosters of other folds say."""
        assert self.boosted is not None  # decide() made it  # noqa: S101
        rows = pooled["rows"].astype(np.intp)
        said = np.flatnonzero(np.isfinite(self.boosted.probabilities))
        groups = self._cells.groups
        return fit_calibration(
            self._cells.verdicts[rows][said] == 1, self.boosted.probabilities[said],
            [groups[int(i)] for i in rows[said]], f"the validation folds of {self.data.name}",
        )  # fmt: skip

    def arrays(self, network: Cascade, half: bool) -> dict[str, NDArray[Any]]:
        """The cascade's weights, and the booster's trees as they are."""
        trees = {} if self.boosted is None or self.boosted.booster is None else (
            self.boosted.booster.tensors()
        )  # fmt: skip
        return network_arrays(network, half) | trees

    def info(
        self, calibration: Calibration | None, measured: dict[str, Any], history: list[Metrics]
    ) -> ModelInfo:
        """What ``model.json`` will say."""
        r, data = self.recipe, self._cells
        facts = data_facts(r, data, self.split.development, np.array([], dtype=np.intp))
        trained_on = fields_of(data, self.split.reserve, False)
        return ModelInfo(
            name=r.name,
            system=System.RBC,
            architecture="rbc-cascade",
            arguments=architecture_of(r),
            classes=data.fine_classes,
            input=input_of(r).facts() | {"thresholds": list(self.thresholds)},
            mpp=data.mpp,
            calibration=calibration,
            data=facts | {"fields": len(trained_on)},
            reserve=names_of(r, data, self.split.reserve),
            seed=r.seed,
            licence="BSD-3-Clause (weights); the images are MIT, see card.md" if data.note else "",
            versions=versions(),
            training=training_facts(r, self.trainer.origin, history)
            | {"detector_weights": self.finder.origin},
            metrics=measured,
        )

    def card(self, info: ModelInfo) -> str:
        """See `training.rbc.card.write_card`."""
        return write_card(info)

    def features(self, network: Cascade) -> dict[str, NDArray[Any]]:
        """What the model carries of its training boxes, for fine-tuning elsewhere."""
        rows = self.split.development
        found = mean_features(
            network, self._rbc.patches.pictures[rows], self.recipe.evaluation,
            should_stop=self.should_stop,
        )  # fmt: skip
        groups = self.data.groups
        told = self.told
        return shipped_regions(
            found, self._cells.targets[rows], self._cells.verdicts[rows],
            [groups[int(i)] for i in rows],
            np.full((len(rows), len(self._cells.fine_classes)), np.nan) if told is None
            else told[rows],
        )  # fmt: skip


def architecture_of(recipe: RbcRecipe) -> dict[str, Any]:
    """Arguments of ``rbc-cascade`` for a recipe."""
    detector = recipe.detector
    return {
        "detector": None if detector.architecture == "none" else detector.architecture,
        "detector_arguments": dict(detector.arguments),
        "trunk": recipe.network.trunk,
        "hidden": recipe.network.hidden,
        "dropout": recipe.network.dropout,
    }
