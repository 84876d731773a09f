"""The protocol of Qiu, Guo, Li and others (papers.md 2.6): heads by five folds, detector, booster.

Model A learns from regions of one cell and of several and is tested on both; A* is the same heads
on regions of one cell alone; B learns from regions of one cell and is tested on both. The booster
of a fold sees probabilities of inner folds alone. Each finished fold is kept, so a stopped
protocol goes on.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from napari_cellpath.core.errors import RecipeError
from napari_cellpath.core.vocabulary import System
from training import metrics as m
from training.budget import measure_speed
from training.checkpoint import write_whole
from training.fit import StopCheck
from training.protocol_parts import Say, csv_text, open_protocol
from training.rbc import label_metrics as lm
from training.rbc.boosting import fit_booster, largest_abnormal
from training.rbc.data import layout_of, read_cells
from training.rbc.detection_metrics import IOU
from training.rbc.detector import DetectorTrainer
from training.rbc.heads import trainer_of
from training.rbc.measured import VERDICT, detector_report
from training.rbc.patches import RbcPatches
from training.rbc.recipe import RbcRecipe
from training.rbc.scoring import score_patches
from training.rbc.table import RedCells
from training.rbc.trainer import RbcTrainer, input_of
from training.recipe import check_recipe, recipe_of
from training.splits import SplitPlan, make_split

RECIPES = Path(__file__).parents[1] / "recipes"
DEFAULT_RECIPE = RECIPES / "rbc-paper.yaml"
FOLDS, INNER = 5, 3
PAPER: dict[str, Any] = {
    "A": {"auc": [0.971, 0.943, 0.967, 0.933, 0.985, 0.908], "exact_match": 0.722},
    "A*": {"auc": [0.995, 0.994, 1.000, 0.998, 0.999, 0.998], "exact_match": 0.932},
    "B": {"auc": [0.974, 0.891, 0.952, 0.819, 0.935, 0.671], "exact_match": 0.649},
    "booster_accuracy": 0.851,
    "detector_ap": 0.899,
}
"""The paper's results on its own data and its own six types (papers.md 2.6)."""
Rows = NDArray[np.intp]


def reproduce(
    protocol: str,
    data: Path | str,
    out: Path | str,
    *,
    recipe_path: Path | str | None = None,
    folds: int = FOLDS,
    run_folds: int | None = None,
    iou: float = IOU,
    budget: float | None = None,
    device: str = "auto",
    seed: int | None = None,
    resume: bool = False,
    on_progress: Say | None = None,
    should_stop: StopCheck | None = None,
) -> dict[str, Any]:
    """Run the protocol; the report is returned and written to ``out``.

    Parameters
    ----------
    protocol
        ``rbc``.
    data
        Folder of labelled regions.
    out
        Folder of this run: ``results.json``, ``scores.csv``.
    recipe_path
        Network and settings; by default the paper's, ``recipes/rbc-paper.yaml``.
    folds, run_folds
        Parts, and how many of them are trained and tested.
    iou
        Overlap that makes a detection a true one; the paper states none.
    budget
        Seconds for all; epochs and iterations shrink to fit, and the report says so.
    device, seed, resume
        As for `training.run`.

    Raises
    ------
    RecipeError
        The data or the recipe cannot be used for it.
    OutputError
        ``out`` holds another run.
    JobCancelledError
        Stopped; finished folds are kept.
    """
    say = on_progress or (lambda _line: None)
    started = time.monotonic()
    recipe = _recipe(Path(recipe_path or DEFAULT_RECIPE), Path(data), folds, seed)
    cells = _regions(read_cells(recipe.data))
    plan = make_split(
        cells.groups, cells.labels.tolist(), mode=recipe.split.mode, reserve=0.0, folds=folds,
        seed=recipe.split.seed,
    )  # fmt: skip
    run_folds = min(run_folds or folds, folds)
    out = Path(out)
    asked = {"protocol": protocol, "folds": folds, "iou": iou, "data_sha256": cells.sha256}
    open_protocol(out, asked, recipe, resume)
    several = cells.cells > 1
    many_types = (cells.targets == 1).sum(axis=1) > 1
    say(
        f"{len(several)} fully labelled regions, {int(several.sum())} of several cells, "
        f"{int((several & many_types).sum())} of these with two types or more"
    )
    patches = RbcPatches.load(cells, input_of(recipe))
    trainer = trainer_of(recipe, cells, patches, device=device, say=say, should_stop=should_stop)
    finder = DetectorTrainer(recipe, [], device, say, should_stop)
    used = _within(recipe, budget, trainer, finder, cells, plan, run_folds, out, started, say)
    trainer.recipe = finder.recipe = used
    folds_run = _Folds(used, cells, trainer, plan, out, say, resume)
    done = [folds_run.fold(number) for number in range(run_folds)]
    report: dict[str, Any] = {
        **asked,
        "data": cells.name,
        "regions": len(several),
        "multi": int(several.sum()),
        "multi_of_several_types": int((several & many_types).sum()),
        "groups": len(set(cells.groups)),
        "grouped_by": cells.grouped_by,
        "folds_run": run_folds,
        "trunk": used.network.trunk,
        "learning": used.learning,
        "epochs": used.epochs,
        "asked_epochs": recipe.epochs,
        "budget_seconds": budget,
        "types": [c.name for c in cells.fine_classes],
        "paper": PAPER,
        **_measured(cells, done),
        "detector": _detector(finder, cells, plan, out, iou, resume),
    }
    report["seconds"] = round(time.monotonic() - started, 1)
    report["machine"] = {"threads": torch.get_num_threads(), "torch": torch.__version__}
    write_whole(out / "results.json", json.dumps(report, indent=1).encode())
    write_whole(out / "scores.csv", csv_text(_rows(cells, done)).encode())
    return report


def _recipe(path: Path, data: Path, folds: int, seed: int | None) -> RbcRecipe:
    changed = recipe_of(path, System.RBC).model_dump(mode="json")
    changed["data"] |= {"folder": str(data), "layout": layout_of(data)}
    changed["split"] |= {"reserve": 0.0, "folds": folds, "run_folds": folds}
    changed |= {"budget_seconds": None, "fold_epochs": 0, "finetune": None}
    if seed is not None:
        changed["seed"] = changed["split"]["seed"] = seed
    return cast("RbcRecipe", check_recipe(changed, str(path)))


def _regions(cells: RedCells) -> RedCells:
    """The fully labelled connected regions: what the paper's patches are."""
    rows = np.flatnonzero((cells.kinds == "region") & cells.known)
    if not len(rows):
        raise RecipeError(f"{cells.folder} holds no fully labelled regions.")
    found = replace(cells, records=tuple(cells.records[int(i)] for i in rows))
    if not (found.cells > 1).any() and not ((found.targets == 1).sum(axis=1) > 1).any():
        raise RecipeError(
            f"{cells.folder} holds no region of several cells or types; Models A and B would be "
            "the same."
        )
    return found


def _single(cells: RedCells) -> NDArray[np.bool_]:
    """Regions of one cell or, where cells were not counted, of one type."""
    if (cells.cells > 1).any():
        return np.asarray(cells.cells == 1)
    return np.asarray((cells.targets == 1).sum(axis=1) <= 1)


def _within(
    recipe: RbcRecipe,
    budget: float | None,
    trainer: RbcTrainer,
    finder: DetectorTrainer,
    cells: RedCells,
    plan: SplitPlan,
    run_folds: int,
    out: Path,
    started: float,
    say: Say,
) -> RbcRecipe:
    """Fewer epochs and iterations where a budget asks for it; what was used is read again."""
    path = out / "used.json"
    if not path.is_file():
        used = {"epochs": recipe.epochs, "iterations": recipe.detector.iterations}
        if budget is not None:
            speed = measure_speed(trainer, plan.training(0))  # features, too, are computed here
            looks = (
                8 if recipe.learning == "heads" and recipe.augmentation.rotation != "none" else 1
            )
            rows = len(plan.training(0)) * looks
            single = float(_single(cells).mean())
            epoch = run_folds * rows * speed.step * (1 + single + (INNER - 1))
            finder.fields = _sides(cells, plan)[0]
            detector = finder.seconds()
            left = max(0.0, budget - (time.monotonic() - started))
            share = min(1.0, left / max(recipe.epochs * epoch + detector, 1e-9))
            used = {k: max(1, int(v * share)) for k, v in used.items()}
            say(
                f"a budget of {budget:g} s: {used['epochs']} epochs, {used['iterations']} "
                "iterations"
            )
        write_whole(path, json.dumps(used).encode())
    used = json.loads(path.read_text())
    detector_settings = recipe.detector.model_copy(update={"iterations": used["iterations"]})
    return recipe.model_copy(update={"epochs": used["epochs"], "detector": detector_settings})


@dataclass
class _Folds:
    """The outer folds, each trained, scored and kept."""

    recipe: RbcRecipe
    cells: RedCells
    trainer: RbcTrainer
    plan: SplitPlan
    out: Path
    say: Say
    resume: bool

    def fold(self, number: int) -> dict[str, Any]:
        """``rows`` of a fold, and what Models A and B and the booster say of them."""
        path = self.out / f"fold-{number + 1}.json"
        if path.is_file():
            done: dict[str, Any] = json.loads(path.read_text())
            return done
        learn, held = self.plan.training(number), self.plan.folds[number]
        single = learn[_single(self.cells)[learn]]
        a = self._given(learn, held, f"fold {number + 1}, model A")
        b = self._given(single, held, f"fold {number + 1}, model B")
        groups = [self.cells.groups[int(i)] for i in learn]
        inner = make_split(
            groups, self.cells.labels[learn].tolist(), mode=self.recipe.split.mode, reserve=0.0,
            folds=INNER, seed=self.recipe.split.seed,
        )  # fmt: skip
        seen = np.full((len(learn), a.shape[1]), np.nan)
        for k, part in enumerate(inner.folds):
            name = f"fold {number + 1}, inner {k + 1} of {INNER}"
            seen[part] = self._given(learn[inner.training(k)], learn[part], name)
        boosted = fit_booster(
            seen, self.cells.verdicts[learn], groups, self.recipe.booster, self.recipe.seed
        )
        abnormal = [c.abnormal for c in self.cells.fine_classes]
        rule = largest_abnormal(a, abnormal)
        said = rule if boosted.booster is None else boosted.booster.probability(a)
        done = {
            "rows": held.tolist(), "A": a.tolist(), "B": b.tolist(), "booster": said.tolist(),
            "rule": rule.tolist(),
        }  # fmt: skip
        write_whole(path, json.dumps(done).encode())
        truth = self.cells.targets[held]
        self.say(
            f"fold {number + 1}: A macro AUC {lm.macro_auc(truth, a):.4f}, exact match "
            f"{lm.exact_match(truth, a > 0.5):.4f}"
        )
        return done

    def _given(self, learn: Rows, held: Rows, name: str) -> NDArray[np.float64]:
        slug = name.replace(",", "").replace(" ", "-")
        network, _ = self.trainer.fit(
            learn, self.recipe.seed, name, self.out / "checkpoints" / slug, resume=self.resume
        )
        return score_patches(
            network, self.trainer.patches.pictures[held], self.recipe.fold_evaluation,
            should_stop=self.trainer.should_stop,
        )  # fmt: skip


def _measured(cells: RedCells, done: list[dict[str, Any]]) -> dict[str, Any]:
    rows = np.concatenate([np.array(d["rows"], dtype=np.intp) for d in done])
    a, b, booster, rule = (
        np.concatenate([np.array(d[k], dtype=float) for d in done])
        for k in ("A", "B", "booster", "rule")
    )
    names = [c.name for c in cells.fine_classes]
    groups = [cells.groups[int(i)] for i in rows]
    half = [0.5] * len(names)
    truth, single = cells.targets[rows], np.flatnonzero(_single(cells)[rows])
    several = np.flatnonzero(~_single(cells)[rows])
    where = np.array(groups, dtype=str)

    def of(given: NDArray[np.float64], here: Rows) -> dict[str, Any]:
        return lm.label_report(truth[here], given[here], half, where[here].tolist(), names)

    everything = np.arange(len(rows))
    verdicts = cells.verdicts[rows]
    return {
        "models": {
            "A": of(a, everything), "A*": of(a, single), "A, several cells": of(a, several),
            "B": of(b, everything), "B, several cells": of(b, several),
        },
        "booster": lm.verdict_report(verdicts, booster, VERDICT, groups),
        "max_rule": lm.verdict_report(verdicts, rule, VERDICT, groups),
        "always_abnormal": m.plain(float((verdicts == 1).mean())),
    }  # fmt: skip


def _sides(cells: RedCells, plan: SplitPlan) -> tuple[list[Any], list[Any]]:
    """Fields to learn from and to test on: the first fold's groups are the fifth kept apart."""
    tested = {cells.groups[int(i)] for i in plan.folds[0]}
    return (
        [f for f in cells.fields if f.group not in tested],
        [f for f in cells.fields if f.group in tested],
    )


def _detector(
    finder: DetectorTrainer, cells: RedCells, plan: SplitPlan, out: Path, iou: float, resume: bool
) -> dict[str, Any] | None:
    """The detector on fields it never saw, and what a watershed makes of these."""
    settings = finder.recipe.detector
    path = out / "detector.json"
    if settings.architecture == "none":
        return None
    if not path.is_file():
        finder.fields, held = _sides(cells, plan)
        network, _ = finder.run(out / "checkpoints" / "detector", resume=resume)
        reports = {
            truth: detector_report(
                network, held, settings.scale, truth, iou=iou, score=settings.score, baseline=True
            )
            for truth in ("cells", "regions")
        }
        found = {
            "architecture": settings.architecture, "iterations": settings.iterations,
            "learnt_from": settings.truth, "fields": len(finder.fields), **reports,
        }  # fmt: skip
        write_whole(path, json.dumps(found).encode())
    done: dict[str, Any] = json.loads(path.read_text())
    return done


def _rows(cells: RedCells, done: list[dict[str, Any]]) -> list[dict[str, Any]]:
    names = [c.name for c in cells.fine_classes]
    table = []
    for number, fold in enumerate(done):
        for place, row in enumerate(fold["rows"]):
            record = cells.records[row]
            assert record.box is not None  # regions have one  # noqa: S101
            box = dict(zip(("row0", "col0", "row1", "col1"), record.box, strict=True))
            table.append(
                {"fold": number + 1, "image": record.image.name, "group": record.group, **box}
                | {"cells": int(cells.cells[row]), "abnormal": int(cells.verdicts[row])}
                | {f"is_{n}": int(t) for n, t in zip(names, cells.targets[row], strict=True)}
                | {f"a_{n}": p for n, p in zip(names, fold["A"][place], strict=True)}
                | {f"b_{n}": p for n, p in zip(names, fold["B"][place], strict=True)}
                | {"booster": fold["booster"][place], "rule": fold["rule"][place]}
            )
    return table
