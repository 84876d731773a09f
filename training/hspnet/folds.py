"""The folds of an HSP-Net protocol: each trained, scored with and without blending, and pooled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.core.errors import RecipeError
from napari_cellpath.core.vocabulary import Blend, System
from training import region_metrics as rm
from training.datasets import CellData
from training.hspnet.data import TEST, RegionRecord
from training.hspnet.recipe import HspRecipe
from training.hspnet.run import input_facts, split_regions, tiling_of
from training.hspnet.scoring import Tiling, score_regions
from training.hspnet.trainer import BASELINE, HspTrainer
from training.protocol_parts import Folds
from training.splits import Indices, SplitPlan, check_no_leak, make_split

PLAIN, BLENDED = "tiles side by side", "blended tiles"
"""Without and with the paper's post-processing."""


def plan_of(data: CellData, recipe: HspRecipe) -> SplitPlan:
    """The data's own folds where it tells them, the test set first; else folds by slide.

    Groups that the recipe sets apart are the first fold, all others the second.

    Where only the test set is told, it is one fold and the rest is dealt out into the others
    (papers.md 3.7).

    Raises
    ------
    RecipeError
        Folds are told of some regions only, or a slide is on two sides.
    """
    s = recipe.split
    if s.reserve_groups:
        apart = split_regions(recipe.model_copy(
            update={"split": s.model_copy(update={"run_folds": 0})}), data)  # fmt: skip
        return SplitPlan(np.array([], dtype=np.intp), (apart.reserve, apart.development))
    told = [r.fold if isinstance(r, RegionRecord) else "" for r in data.records]
    if not any(told):
        return make_split(
            data.groups, data.labels.tolist(), mode="group", reserve=s.reserve, folds=s.folds,
            seed=s.seed,
        )  # fmt: skip
    folds: list[Indices] = []
    if TEST in told:
        folds.append(_rows(told, TEST))
    if set(told) == {TEST, ""}:
        rest = _rows(told, "")
        groups, labels = data.groups, data.labels
        plan = make_split(
            [groups[int(i)] for i in rest], labels[rest].tolist(), mode="group", reserve=0.0,
            folds=max(s.folds - 1, 2), seed=s.seed,
        )  # fmt: skip
        folds += [rest[f] for f in plan.folds]
    elif "" in told:
        raise RecipeError(
            f"{data.folder}: the fold of some regions is not told. Fill the column 'fold' of "
            "slides.csv, or leave it out (only 'test' may stand alone)."
        )
    else:
        folds += [_rows(told, name) for name in sorted(set(told) - {TEST})]
    check_no_leak(data.groups, {f"fold {i + 1}": f for i, f in enumerate(folds)})
    return SplitPlan(np.array([], dtype=np.intp), tuple(folds))


def _rows(told: Sequence[str], name: str) -> Indices:
    return np.array([i for i, fold in enumerate(told) if fold == name], dtype=np.intp)


@dataclass
class RegionFolds(Folds[HspRecipe]):
    """The folds of one split."""

    @property
    def _hsp(self) -> HspTrainer:
        assert isinstance(self.trainer, HspTrainer)  # the protocol made it  # noqa: S101
        return self.trainer

    @property
    def names(self) -> list[str]:
        """Of the classes."""
        return [c.name for c in self.cells.fine_classes]

    def _keep(self, network: Any, learnt: Indices, number: int) -> None:
        if self.recipe.network.architecture != BASELINE:
            super()._keep(network, learnt, number)

    def model_facts(self, _network: Any) -> dict[str, Any]:
        """Of the recipe's network."""
        return {
            "system": System.HSPNET,
            "architecture": self.recipe.network.architecture,
            "arguments": dict(self.recipe.network.arguments),
            "classes": self.cells.fine_classes,
            "input": input_facts(self.recipe),
        }

    def scores(self, network: Any, rows: Indices) -> dict[str, Any]:
        """Confusion matrices of every region, both ways."""
        blended = tiling_of(self.recipe)
        ways = {PLAIN: Tiling(blended.side, blended.side, Blend.NONE)}
        if blended.blend is not Blend.NONE:
            ways[BLENDED] = blended
        found: dict[str, Any] = {"parameters": sum(p.numel() for p in network.parameters())}
        for way, tiling in ways.items():
            scored = score_regions(
                network, [self._hsp.regions[int(i)] for i in rows], len(self.names), tiling,
                should_stop=self.trainer.should_stop,
            )  # fmt: skip
            found[way] = scored.tables.tolist()
        return found

    def words(self, _rows: Indices, done: dict[str, Any]) -> str:
        """The paper's measures."""
        said = []
        for way in (PLAIN, BLENDED):
            if way in done:
                total = np.array(done[way], dtype=np.int64).sum(axis=0)
                found = rm.summarise(total)
                said.append(
                    f"{way}: Dice {found.dice:.4f}, mIoU {found.iou:.4f}, pixel accuracy "
                    f"{found.accuracy:.4f} without background"
                )
        return "; ".join(said)

    def run(self, plan: SplitPlan, run_folds: int) -> dict[str, Any]:
        """Measures pooled over the folds and, as the paper has them, their mean and deviation."""
        done = [self.fold(plan, number) for number in range(run_folds)]
        rows = np.concatenate([np.array(d["rows"], dtype=np.intp) for d in done])
        groups = self.cells.groups
        report: dict[str, Any] = {
            "parameters": done[0]["parameters"],
            "folds": len(plan.folds),
            "folds_run": run_folds,
            "regions_by_fold": [len(d["rows"]) for d in done],
        }
        for way in (PLAIN, BLENDED):
            if way not in done[0]:
                continue
            by_fold = [np.array(d[way], dtype=np.int64) for d in done]
            report[way] = rm.region_report(
                np.concatenate(by_fold), [groups[int(i)] for i in rows], self.names,
                grouped_by=self.cells.grouped_by,
            ) | {"over_folds": over_folds([t.sum(axis=0) for t in by_fold])}  # fmt: skip
        return report


def over_folds(tables: Sequence[NDArray[np.int64]]) -> dict[str, dict[str, list[float]]]:
    """Mean and deviation over folds of the paper's measures, either reading of the background."""

    def spread(of: Callable[[rm.Summary], float], ignore: bool) -> list[float]:
        values = [of(rm.summarise(t, ignore)) for t in tables]
        return [round(float(np.mean(values)), 4), round(float(np.std(values)), 4)]

    return {
        reading: {
            "dice": spread(lambda s: s.dice, ignore),
            "miou": spread(lambda s: s.iou, ignore),
            "pixel_accuracy": spread(lambda s: s.accuracy, ignore),
        }
        for reading, ignore in (("ignore_background", True), ("with_background", False))
    }
