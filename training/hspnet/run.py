"""A run of HSP-Net: what its recipe decides beside what `training_run` does for all systems."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.core.errors import RecipeError
from napari_cellpath.core.vocabulary import System
from napari_cellpath.models import Calibration, ModelInfo
from training import class_metrics as cm
from training import region_metrics as rm
from training.budget import measure_speed
from training.calibration import fit_class_calibration
from training.datasets import CellData
from training.fit import Metrics, StopCheck
from training.hspnet.card import write_card
from training.hspnet.crops import CropList, Region, list_crops, load_regions
from training.hspnet.data import read_regions
from training.hspnet.features import pixel_features, shipped_pixels
from training.hspnet.recipe import HspRecipe
from training.hspnet.scoring import RegionScores, Tiling, score_regions
from training.hspnet.trainer import BASELINE, HspTrainer
from training.record import data_facts, names_of, training_facts, versions
from training.splits import SplitPlan, make_split
from training.trainer import Rows
from training.training_run import Pooled, Say, TrainingRun, plan_time, split_of

UNIT = "pixels"


def tiling_of(recipe: HspRecipe) -> Tiling:
    """How regions are looked at under a recipe."""
    return Tiling(recipe.crops.side, recipe.tiles.stride, recipe.tiles.blend)


def split_regions(recipe: HspRecipe, data: CellData) -> SplitPlan:
    """The split that a recipe asks for.

    Raises
    ------
    RecipeError
        A group that is to be set apart is not there, or nothing is left.
    """
    named = recipe.split.reserve_groups
    if not named:
        return split_of(recipe, data)
    groups = np.array(data.groups)
    if missing := sorted(set(named) - set(groups.tolist())):
        raise RecipeError(f"split.reserve_groups: {data.folder} has no group '{missing[0]}'.")
    apart = np.isin(groups, named)
    rest = np.flatnonzero(~apart)
    if recipe.split.run_folds == 0 and len(rest):
        folds: tuple[NDArray[np.intp], ...] = (rest,)
    else:
        plan = make_split(
            groups[rest].tolist(), data.labels[rest].tolist(), mode=recipe.split.mode,
            reserve=0.0, folds=recipe.split.folds, seed=recipe.split.seed,
        )  # fmt: skip
        folds = tuple(rest[f] for f in plan.folds)
    return SplitPlan(np.flatnonzero(apart), folds)


def run_hspnet(
    recipe: HspRecipe,
    out: Path,
    *,
    say: Say,
    should_stop: StopCheck | None,
    budget: float | None,
    resume: bool,
    device: str,
    opened: Any,
) -> Path:
    """Train HSP-Net as a recipe says; see `training.run`. ``opened`` makes the run's folder."""
    if recipe.network.architecture == BASELINE:
        raise RecipeError(
            "network.architecture 'unet' is there to be measured beside HSP-Net: use it with "
            "'cellpath reproduce glas' or 'mtchi'; it makes no model."
        )
    data = read_regions(recipe.data)
    split = split_regions(recipe, data)
    opened()  # only now: a refused recipe leaves no folder behind
    say(
        f"{len(data.records)} regions of {len(set(data.groups))} groups ({data.grouped_by}); "
        f"reserve {len(split.reserve)} regions; {recipe.split.run_folds} of {recipe.split.folds} "
        "folds are trained for validation"
    )
    trainer = make_trainer(recipe, data, device=device, say=say, should_stop=should_stop)
    plan_time(
        trainer, out, measure_speed(trainer, split.development),
        lambda r: views_of(trainer, r, split.development), len(split.reserve),
        seconds=budget, looks=1, say=say,
    )  # fmt: skip
    return HspRun(trainer.recipe, data, split, trainer, out, say, should_stop, resume).go()


def make_trainer(recipe: HspRecipe, data: CellData, **options: Any) -> HspTrainer:
    """A trainer with all regions in memory."""
    regions = load_regions(data, range(len(data.records)), recipe.crops.side, data.mpp)
    painted = recipe.data.layout == "project"
    return HspTrainer(recipe, data, regions, list_crops(regions, recipe.crops, painted), **options)


def blank_run(recipe: HspRecipe) -> tuple[HspTrainer, NDArray[np.int64], int, int]:
    """What a run's time is measured with; see `training.systems.TrainingEntry`."""
    data = read_regions(recipe.data)
    split = split_regions(recipe, data)
    side = recipe.crops.side
    blank = Region(np.full((side, side, 3), 128, np.uint8), np.ones((side, side), np.uint8))
    places = np.zeros((max(recipe.batch, len(data.records)), 3), dtype=np.int64)
    crops = CropList(places, np.ones(len(places), dtype=np.int64))
    trainer = HspTrainer(recipe, data, [blank] * len(places), crops)
    per_region = _crops_of_shapes(data, recipe)
    return trainer, per_region[split.development], len(split.reserve), 1


def _crops_of_shapes(data: CellData, recipe: HspRecipe) -> NDArray[np.int64]:
    """Crops of each region by its size alone: all of the grid count, whatever they hold."""
    if recipe.crops.per_epoch:
        return np.full(len(data.records), -(-recipe.crops.per_epoch // len(data.records)))
    from napari_cellpath.systems.hspnet.tiles import tile_starts

    def along(length: int) -> int:
        return len(tile_starts(length, recipe.crops.side, recipe.crops.stride))

    windows = [r.window for r in data.records]  # type: ignore[attr-defined]
    return np.array([along(b - t) * along(r - left) for t, left, b, r in windows])


def views_of(trainer: HspTrainer, recipe: HspRecipe, rows: Rows) -> NDArray[np.int64]:
    """Crops in an epoch of each region that is learnt from."""
    if recipe.crops.per_epoch:
        return np.full(len(rows), -(-recipe.crops.per_epoch // len(rows)), dtype=np.int64)
    return np.bincount(trainer.crops.places[:, 0], minlength=len(trainer.regions))[rows]


def scores_of(pooled: Pooled) -> RegionScores:
    """Out-of-fold scores as they were read back from the folds' files."""
    return RegionScores(
        np.asarray(pooled["tables"], dtype=np.int64),
        np.asarray(pooled["probabilities"], dtype=np.float32),
        np.asarray(pooled["truth"], dtype=np.int16),
    )


def region_report(
    scores: RegionScores, groups: Sequence[str], names: Sequence[str], grouped_by: str
) -> dict[str, Any]:
    """Measures of scored regions: of every pixel, and how far their probabilities are to be
    believed, on the pixels drawn.
    """  # noqa: D205
    report = rm.region_report(scores.tables, groups, names, grouped_by=grouped_by)
    given, truth, _ = scores.pixels
    report["brier"] = round(cm.class_brier(truth, given), 4)
    report["calibration_error"] = round(cm.top_calibration_error(truth, given), 4)
    return report


@dataclass
class HspRun(TrainingRun[HspRecipe]):
    """The parts of a run that are HSP-Net's own."""

    @property
    def _hsp(self) -> HspTrainer:
        assert isinstance(self.trainer, HspTrainer)  # run_hspnet made it  # noqa: S101
        return self.trainer

    @property
    def _names(self) -> list[str]:
        return [c.name for c in self.data.fine_classes]

    def _groups(self, rows: Rows) -> list[str]:
        groups = self.data.groups
        return [groups[int(i)] for i in rows]

    def _score(self, network: Any, rows: Rows, tiling: Tiling | None = None) -> RegionScores:
        return score_regions(
            network, [self._hsp.regions[int(i)] for i in rows], len(self._names),
            tiling or tiling_of(self.recipe), should_stop=self.should_stop,
        )  # fmt: skip

    def score_fold(self, network: Any, rows: Rows) -> Pooled:
        """Confusion matrices, and some pixels with their probabilities."""
        found = self._score(network, rows)
        return {
            "tables": found.tables,
            "probabilities": np.round(found.probabilities.astype(np.float64), 5),
            "truth": found.truth,
        }

    def fold_words(self, rows: Rows, scores: Pooled) -> str:
        """Mean Dice, and Dice of the foreground."""
        table = scores["tables"].sum(axis=0)
        each = ", ".join(
            f"{n} {d:.3f}" for n, d in zip(self._names, rm.dice_of_classes(table), strict=True)
        )
        return (
            f"mean Dice {rm.mean_of_present(rm.dice_of_classes(table)):.4f} ({each}); all but "
            f"{self._names[0]} against it {rm.foreground_dice(table):.4f}, on {len(rows)} regions"
        )

    def validation_report(self, pooled: Pooled) -> dict[str, Any]:
        """The folds' regions, whole."""
        s = self.recipe.split
        rows = pooled["rows"].astype(np.intp)
        return {
            "protocol": f"{s.run_folds} of {s.folds} folds by {self.data.grouped_by}; each region "
            f"segmented by a model that saw none of its fold; tiles of {self.recipe.crops.side} "
            f"every {tiling_of(self.recipe).step} pixels",
            "regions": region_report(
                scores_of(pooled), self._groups(rows), self._names, self.data.grouped_by
            ),
        }

    def measures(self, network: Any, rows: Rows) -> dict[str, float]:
        """What rounding the weights must not move; in tiles side by side, which is quick."""
        side = self.recipe.crops.side
        found = self._score(network, rows, Tiling(side, side))
        table = found.tables.sum(axis=0)
        given, truth, _ = found.pixels
        dice = rm.dice_of_classes(table)
        return {
            "dice": rm.mean_of_present(dice),
            "miou": rm.mean_of_present(rm.iou_of_classes(table)),
            "foreground_dice": rm.foreground_dice(table),
            "accuracy": rm.pixel_accuracy(table),
            "brier": cm.class_brier(truth, given),
            "calibration_error": cm.top_calibration_error(truth, given),
        } | {f"dice {n}": float(d) for n, d in zip(self._names, dice, strict=True)}

    def reserve_report(self, network: Any) -> dict[str, Any]:
        """The reserve, whole."""
        rows = self.split.reserve
        report = region_report(
            self._score(network, rows), self._groups(rows), self._names, self.data.grouped_by
        )
        self.say(
            f"reserve: mean Dice {report['dice']}, all but {self._names[0]} against it "
            f"{report['foreground_dice']} on {report['n']} regions"
        )
        return {
            "protocol": f"{self.data.grouped_by}s set apart before training",
            "regions": report,
        }

    def calibrate(self, pooled: Pooled) -> tuple[Calibration | None, str]:
        """One temperature for all classes, fitted to pixels drawn from the folds' regions."""
        rows = self._groups(pooled["rows"].astype(np.intp))
        given, truth, region = scores_of(pooled).pixels
        return fit_class_calibration(
            truth, given, [rows[int(i)] for i in region],
            f"the validation folds of {self.data.name}", unit=UNIT,
        )  # fmt: skip

    def info(
        self, calibration: Calibration | None, measured: dict[str, Any], history: list[Metrics]
    ) -> ModelInfo:
        """What ``model.json`` will say."""
        r, data = self.recipe, self.data
        facts = data_facts(r, data, self.split.development, np.array([], dtype=np.intp))
        return ModelInfo(
            name=r.name,
            system=System.HSPNET,
            architecture=r.network.architecture,
            arguments=dict(r.network.arguments),
            classes=data.fine_classes,
            input=input_facts(r),
            mpp=data.mpp,
            calibration=calibration,
            data=facts | {"unit": "regions"},
            reserve=names_of(r, data, self.split.reserve),
            seed=r.seed,
            licence="BSD-3-Clause (weights); the data are for research use, see card.md"
            if data.note
            else "",
            versions=versions(),
            training=training_facts(r, self.trainer.origin, history),
            metrics=measured,
        )

    def card(self, info: ModelInfo) -> str:
        """See `training.hspnet.card.write_card`."""
        return write_card(info)

    def features(self, network: Any) -> dict[str, NDArray[Any]]:
        """What the model carries of its training regions, for fine-tuning elsewhere."""
        rows = self.split.development
        drawn = pixel_features(
            network, [self._hsp.regions[int(i)] for i in rows], tiling_of(self.recipe),
            should_stop=self.should_stop,
        )  # fmt: skip
        return shipped_pixels(drawn, self._groups(rows))


def input_facts(recipe: HspRecipe) -> dict[str, Any]:
    """What ``model.json`` says of the input."""
    return {
        "tile": recipe.crops.side,
        "stride": recipe.tiles.stride,
        "blend": str(recipe.tiles.blend),
        "colour": "RGB 0..255",
    }
