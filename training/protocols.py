"""Train and measure as a paper did, beside what a stricter split says.

DeepPap (Zhang et al. 2017, papers.md 1.8, 1.9): five folds, every cell scored once by a model
that did not train on its fold. Split by cell, as published, cells of one slide lie on both
sides; split by slide they do not. Each finished fold is kept, so a stopped protocol goes on.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from napari_cellpath.core.errors import RecipeError
from napari_cellpath.core.vocabulary import Border, System
from training.budget import fit_to_budget, measure_speed, planned_seconds
from training.cells import Cells
from training.checkpoint import write_whole
from training.datasets import CellData, read_cells
from training.deeppap import DeepPapTrainer, views_of_cells
from training.deeppap_recipe import Recipe
from training.fit import StopCheck
from training.plots import draw_report
from training.protocol_folds import Look, Protocol, ProtocolFolds
from training.protocol_parts import Say, csv_text, open_protocol
from training.recipe import check_recipe, recipe_of
from training.scoring import ScoredViews

FOLDS = 5
RECIPES = Path(__file__).parent / "recipes"
DEFAULT_RECIPE = RECIPES / "deeppap-herlev.yaml"


_MARKED = Look("as_marked")
_JITTERED = (Look("off_by_5_px", 5), Look("off_by_10_px", 10))
_BORDERS = (
    Look("border_reflect", border=Border.REFLECT),
    Look("border_background", border=Border.BACKGROUND),
)
PROTOCOLS = {
    "herlev": Protocol("herlev", (_MARKED, _JITTERED[0], *_BORDERS)),
    "herlev-jitter": Protocol("herlev-jitter", (_MARKED, *_JITTERED)),
    "herlev-7": Protocol("herlev-7", (_MARKED,), classes=7),
    # Both classes are shown alike there (papers.md 1.3); the masks and sizes are Herlev's alone.
    "hemlbc": Protocol(
        "hemlbc", (_MARKED, *_JITTERED), layout="folders",
        changes=(("views_per_epoch", (1, 1)), ("more_views", {}),),
    ),
}  # fmt: skip


def reproduce(
    protocol: str,
    data: Path | str,
    out: Path | str,
    *,
    recipe_path: Path | str | None = None,
    split: str = "both",
    views: ScoredViews | None = None,
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
        One of `PROTOCOLS`.
    data
        Folder of labelled cells.
    out
        Folder of this run: ``report.json``, ``scores.csv``, ``roc.png``, ``boxes.png``.
    recipe_path
        Network and settings; by default the starter model's. The paper's are in
        ``recipes/deeppap-paper.yaml`` (which needs CaffeNet weights).
    split
        ``cell``, ``group`` or ``both``.
    views
        How cells are looked at; by default as the recipe's folds are.
    folds, run_folds
        Parts, and how many of them are trained and scored.
    budget
        Seconds for all; views and epochs shrink to fit, and the report says so.
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
    asked = PROTOCOLS[protocol]
    recipe = _recipe(asked, Path(recipe_path or DEFAULT_RECIPE), Path(data), folds, seed)
    cells = read_cells(recipe.data)
    if asked.classes == 7 and len(cells.fine_classes) != 7:
        raise RecipeError(f"{cells.folder} has {len(cells.fine_classes)} classes, not Herlev's 7.")
    if len(set(cells.abnormal.tolist())) < 2:
        raise RecipeError(f"{cells.folder} holds only normal or only abnormal cells.")
    modes = ("cell", "group") if split == "both" else (split,)
    if "group" in modes and len(set(cells.groups)) == len(cells.records):
        if split == "group":
            raise RecipeError(f"{cells.folder} does not say which slide a cell is of.")
        say("The data do not say which slide a cell is of: split by cell only.")
        modes = ("cell",)
    out = Path(out)
    open_protocol(out, {"protocol": protocol, "splits": list(modes)}, recipe, resume)
    started = time.time()
    loaded = Cells.load(cells, asked.classes)
    trainer = DeepPapTrainer(recipe, cells, loaded, device=device, say=say, should_stop=should_stop)
    run_folds = min(run_folds or folds, folds)
    recipe = recipe.model_copy(
        update={"split": recipe.split.model_copy(update={"run_folds": run_folds})}
    )
    if budget is not None:
        recipe = _within(recipe, budget / len(modes), trainer, cells, len(asked.looks), say)
    trainer.recipe = recipe
    looked_at: ScoredViews = views or recipe.fold_evaluation
    report: dict[str, Any] = {
        "protocol": protocol,
        "data": cells.name,
        "data_sha256": cells.sha256,
        "cells": len(cells.records),
        "groups": len(set(cells.groups)),
        "network": recipe.network.backbone,
        "folds": folds,
        "folds_run": run_folds,
        "epochs": recipe.fold_epochs or recipe.epochs,
        "views_per_epoch": list(recipe.views_per_epoch),
        "views": looked_at,
        "budget_seconds": budget,
        "device": device,
        "splits": {},
    }
    rows: list[dict[str, Any]] = []
    for mode in modes:
        runner = ProtocolFolds(
            recipe, cells, trainer, protocol, mode, out / mode, say, resume, asked, looked_at
        )
        measured, scored = runner.run()
        report["splits"][mode] = measured
        rows += scored
    report["initial_weights"] = trainer.origin or "see the first run of this folder"
    report["seconds"] = round(time.time() - started, 1)
    report["machine"] = {"threads": torch.get_num_threads(), "torch": torch.__version__}
    write_whole(out / "report.json", json.dumps(report, indent=1).encode())
    write_whole(out / "scores.csv", csv_text(rows).encode())
    draw_report(out, rows)
    return report


def _recipe(asked: Protocol, path: Path, data: Path, folds: int, seed: int | None) -> Recipe:
    recipe = recipe_of(path, System.DEEPPAP)
    changed = recipe.model_dump(mode="json")
    changed["data"] |= {"folder": str(data), "layout": asked.layout, "classes": asked.classes}
    changed["network"]["measures"] = False  # masks of cells are not the paper's input
    changed["split"] |= {"reserve": 0.0, "folds": folds, "run_folds": folds}
    # The folds are the result here, so they are trained at least as long as a final model.
    longest = max(changed["epochs"], changed["fold_epochs"])
    changed |= {"final_start": "initial", "budget_seconds": None, "fold_epochs": longest}
    changed |= dict(asked.changes)
    if seed is not None:
        changed["seed"] = changed["split"]["seed"] = seed
    return cast("Recipe", check_recipe(changed, str(path)))


def _within(
    recipe: Recipe, seconds: float, trainer: DeepPapTrainer, cells: CellData, looks: int, say: Say
) -> Recipe:
    everything = np.arange(len(cells.records))
    speed = measure_speed(trainer, everything)
    fitted = fit_to_budget(
        recipe, seconds, speed, lambda r: views_of_cells(r, cells), 0, final=False, looks=looks
    )
    epochs = fitted.fold_epochs or fitted.epochs
    least = sum(
        planned_seconds(fitted, speed, views_of_cells(fitted, cells), 0, final=False, looks=looks)
    )
    plural = "epoch" if epochs == 1 else "epochs"
    say(f"a budget of {seconds:g} s a split: {epochs} {plural} of {fitted.views_per_epoch} views")
    if least > 1.1 * seconds:
        say(
            f"that is the least, and takes about {least:.0f} s a split all the same; --run-folds 1 "
            "or one --split takes less"
        )
    return fitted
