"""The protocols of Li, Zhang and Zheng (papers.md 4.6): whole specimens left out, or cells.

``hep2-loso`` leaves out one specimen after the other and pools all folds into one confusion
matrix. ``hep2-kfold`` deals cells (or groups) out to k folds; by cell it flatters, which is what
the paper shows. Each finished fold is kept, so a stopped protocol goes on.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch

from napari_cellpath.core.errors import RecipeError
from napari_cellpath.core.vocabulary import System
from training.budget import fit_to_budget, measure_speed, planned_seconds
from training.checkpoint import write_whole
from training.datasets import CellData
from training.fit import StopCheck
from training.hep2.data import SPECIMEN, Hep2Cells, layout_of, read_cells
from training.hep2.figures import draw_confusion, draw_curve, draw_specimens
from training.hep2.folds import PatternFolds
from training.hep2.recipe import Hep2Recipe
from training.hep2.sampling import copies_of_cells
from training.hep2.trainer import Hep2Trainer, input_of
from training.protocol_parts import Say, csv_text, open_protocol
from training.provenance import image_hash, named
from training.recipe import check_recipe, recipe_of
from training.splits import SplitPlan, leave_one_out, make_split

RECIPES = Path(__file__).parents[1] / "recipes"
DEFAULT_RECIPE = RECIPES / "hep2-paper.yaml"
FOLDS = 5
SETS: dict[int, dict[str, Any]] = {
    1: {"per_specimen": 0, "copies": 1, "copies_of": {}},
    2: {"per_specimen": 0, "copies": 8, "copies_of": {}},
    3: {"per_specimen": 41, "copies": 1, "copies_of": {}},
}
"""The paper's training sets, by their numbers, as a recipe's section ``sampling``."""
CURVE = (0.125, 0.25, 0.5)
"""Shares of the specimens that a learning curve is made of, beside all of them."""
PAPER: dict[str, dict[str, float]] = {
    "hep2-loso": {
        "set-1": 70.52, "set-2": 74.67, "set-3": 79.13, "Task-1 + Task-2": 82.90,
        "Task-1 + Task-2 augmented": 83.55,
    },
    "hep2-kfold": {"set-1": 91.16},
}  # fmt: skip
"""Mean class accuracies of the paper, percent."""
WARNING = (
    "Split by cell, cells of one specimen stand on both sides, and the result flatters: the paper "
    "has 91.16 % so, and 70.52 % with whole specimens left out (hep2-loso)."
)


def reproduce(
    protocol: str,
    data: Path | str,
    out: Path | str,
    *,
    recipe_path: Path | str | None = None,
    split: str = "cell",
    sampling: int = 1,
    extra: Sequence[Path | str] = (),
    curve: bool = False,
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
        ``hep2-loso`` or ``hep2-kfold``.
    data
        Folder of labelled cells.
    out
        Folder of this run: ``results.json``, ``scores.csv``, ``specimens.csv``, figures.
    recipe_path
        Network and settings; by default the paper's, ``recipes/hep2-paper.yaml``.
    split
        Of ``hep2-kfold``: ``cell`` or ``group``.
    sampling
        The paper's set: 1 all cells; 2 each in its eight turns and mirrors; 3 at most 41 of each
        specimen.
    extra
        Further folders of cells, which every fold learns from and none tests.
    curve
        Also train on shares of the specimens.
    folds, run_folds
        Parts of ``hep2-kfold``, and how many folds of either protocol are trained and tested.
    budget
        Seconds for all; epochs shrink to fit, and the report says so.
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
    loso = protocol == "hep2-loso"
    recipe = _recipe(Path(recipe_path or DEFAULT_RECIPE), Path(data), sampling, folds, seed)
    cells = read_cells(recipe.data)
    if loso and cells.grouped_by != SPECIMEN:
        raise RecipeError(
            f"hep2-loso leaves out whole specimens, and {cells.folder} does not say which specimen "
            f"a cell is of (it groups by {cells.grouped_by}, a stand-in at best). Add a column "
            "'specimen' to labels.csv, or run hep2-kfold --split group."
        )
    mode = "specimen" if loso else split
    plan = leave_one_out(cells.groups) if loso else _folds(cells, mode, folds, recipe.split.seed)
    tested = len(cells.records)
    cells = _with_extra(cells, extra, recipe)
    run_folds = min(run_folds or len(plan.folds), len(plan.folds))
    out = Path(out)
    shares = (*CURVE, 1.0) if curve else (1.0,)
    asked = {
        "protocol": protocol, "mode": mode, "set": sampling, "extra": [str(e) for e in extra],
        "curve": curve, "data_sha256": cells.sha256,
    }  # fmt: skip
    open_protocol(out, asked, recipe, resume)
    if mode == "cell":
        say(WARNING)
    started = time.time()
    loaded = Hep2Cells.load(cells, recipe.data.channel, input_of(recipe))
    trainer = Hep2Trainer(recipe, cells, loaded, device=device, say=say, should_stop=should_stop)
    trainer.recipe = recipe = _within(recipe, budget, trainer, plan, run_folds, shares, say)
    report: dict[str, Any] = {
        **asked,
        "data": cells.name,
        "cells": tested,
        "extra_cells": len(cells.records) - tested,
        "groups": len(set(cells.groups)),
        "grouped_by": cells.grouped_by,
        "network": recipe.network.architecture,
        "members": recipe.network.members,
        "epochs": recipe.epochs,
        "budget_seconds": budget,
        "device": device,
        "paper_mca_percent": PAPER[protocol],
        "warning": WARNING if mode == "cell" else "",
        "curve_points": [],
    }
    for share in shares:
        folder = out / (mode if share == 1.0 else f"{mode}-{share:g}")
        runner = PatternFolds(
            recipe, cells, trainer, protocol, mode, folder, say, resume, share, tested
        )
        measured, rows = runner.run(plan, run_folds)
        report["curve_points"].append(measured)
        say(
            f"mean class accuracy {100 * measured['mca']:.2f} % after learning from "
            f"{measured['groups_learnt_from']:g} groups"
        )
    report |= measured
    report["groups_with_fewer_cells"] = trainer.fewer
    report["seconds"] = round(time.time() - started, 1)
    report["machine"] = {"threads": torch.get_num_threads(), "torch": torch.__version__}
    _write(out, report, rows, [c.name for c in cells.fine_classes])
    return report


def _recipe(path: Path, data: Path, sampling: int, folds: int, seed: int | None) -> Hep2Recipe:
    if sampling not in SETS:
        raise RecipeError(f"There is no set {sampling}; the paper's are 1, 2 and 3.")
    changed = recipe_of(path, System.HEP2).model_dump(mode="json")
    changed["data"] |= {"folder": str(data), "layout": layout_of(data)}
    changed["split"] |= {"reserve": 0.0, "folds": folds, "run_folds": folds}
    if sampling != 1:
        changed["sampling"] = SETS[sampling]
    # The folds are the result here, so they are trained as long as a final model.
    changed |= {"budget_seconds": None, "fold_epochs": 0, "finetune": None}
    if seed is not None:
        changed["seed"] = changed["split"]["seed"] = seed
    return cast("Hep2Recipe", check_recipe(changed, str(path)))


def _folds(cells: CellData, mode: str, folds: int, seed: int) -> SplitPlan:
    if mode not in ("cell", "group"):
        raise RecipeError(f"hep2-kfold splits by cell or by group, not by {mode}.")
    if mode == "group" and len(set(cells.groups)) == len(cells.records):
        raise RecipeError(f"{cells.folder} does not say which cells belong together.")
    return make_split(
        cells.groups, cells.labels.tolist(), mode=mode, reserve=0.0, folds=folds, seed=seed
    )


def _with_extra(cells: CellData, extra: Sequence[Path | str], recipe: Hep2Recipe) -> CellData:
    """The cells, and after them those of further folders as specimens of their own.

    Raises
    ------
    RecipeError
        An image of theirs is among the cells to be tested, or a pattern is not one of them.
    """
    known = {image_hash(r.image) for r in cells.records} if extra else set()
    names = [c.name for c in cells.fine_classes]
    records, digests = list(cells.records), [cells.sha256]
    for number, folder in enumerate(extra):
        source = recipe.data.model_copy(
            update={"folder": str(folder), "layout": layout_of(Path(folder))}
        )
        more = read_cells(source)
        twice = [r.image.name for r in more.records if image_hash(r.image) in known]
        if twice:
            raise RecipeError(
                f"{len(twice)} images of {folder} ({named(twice)}) are also among those tested; "
                "extra specimens must be others."
            )
        for record in more.records:
            name = more.fine_classes[record.fine_class].name
            if name not in names:
                raise RecipeError(f"{folder}: '{name}' is no pattern of {cells.folder}.")
            group = f"extra {number + 1}: {record.group}"
            records.append(replace(record, fine_class=names.index(name), group=group))
        digests.append(more.sha256)
    return replace(cells, records=tuple(records), sha256="+".join(digests))


def _within(
    recipe: Hep2Recipe,
    budget: float | None,
    trainer: Hep2Trainer,
    plan: SplitPlan,
    run_folds: int,
    shares: Sequence[float],
    say: Say,
) -> Hep2Recipe:
    """Fewer epochs where a budget asks for it; says what is left."""
    if budget is None:
        return recipe
    seconds = budget / sum(shares)
    parts = recipe.split.model_copy(
        update={"folds": max(2, len(plan.folds)), "run_folds": run_folds}
    )
    counted = recipe.model_copy(update={"split": parts})
    speed = measure_speed(trainer, plan.training(0))
    views = copies_of_cells(recipe, trainer.data)
    n = recipe.sampling.per_specimen
    if n:
        views = views[: n * len(set(trainer.data.groups))]
    fitted = fit_to_budget(counted, seconds, speed, lambda _r: views, 0, final=False, looks=1)
    least = sum(planned_seconds(fitted, speed, views, 0, final=False, looks=1)) * sum(shares)
    say(f"a budget of {budget:g} s: epochs {fitted.epochs} instead of {recipe.epochs}")
    if least > 1.1 * budget:
        say(
            f"that is the least, and takes about {least:.0f} s all the same; --recipe with a "
            "smaller network (hep2-i3a.yaml), or fewer folds, takes less"
        )
    return recipe.model_copy(update={"epochs": fitted.epochs})


def _write(out: Path, report: dict[str, Any], rows: list[dict[str, Any]], names: list[str]) -> None:
    """Numbers, tables and figures."""
    write_whole(out / "results.json", json.dumps(report, indent=1).encode())
    write_whole(out / "scores.csv", csv_text(rows).encode())
    write_whole(out / "specimens.csv", csv_text(report["specimens"]).encode())
    title = f"{report['protocol']}, by {report['mode']}: MCA {100 * report['mca']:.2f} %"
    draw_confusion(out / "confusion.png", report, names, title)
    draw_specimens(out / "specimens.png", report, names)
    if report["curve"]:
        paper = PAPER[report["protocol"]].get(f"set-{report['set']}")
        draw_curve(out / "curve.png", report["curve_points"], paper)
