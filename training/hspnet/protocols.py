"""The protocol of the HSP-Net paper (papers.md 3.4, 3.7): folds by slide, the test set one of them.

``mtchi`` takes regions in the layout of that name. ``glas`` takes the same steps on glands of the
colon, with the recipe's own split: it serves to compare networks, never to be compared with the
paper. ``ablation`` trains the four networks of the paper's Table 3.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from napari_cellpath.core.errors import RecipeError
from napari_cellpath.core.vocabulary import System
from training.budget import fit_to_budget, measure_speed
from training.checkpoint import write_whole
from training.fit import StopCheck
from training.hspnet.data import layout_of, read_regions
from training.hspnet.folds import BLENDED, PLAIN, RegionFolds, plan_of
from training.hspnet.recipe import HspRecipe
from training.hspnet.run import make_trainer, views_of
from training.hspnet.trainer import BASELINE, HspTrainer
from training.plots import confusion_axes, pyplot
from training.protocol_parts import Say, csv_text, open_protocol
from training.recipe import check_recipe, recipe_of
from training.splits import SplitPlan

RECIPES = Path(__file__).parents[1] / "recipes"
DEFAULT_RECIPES = {
    "mtchi": RECIPES / "hspnet-paper.yaml",
    "glas": RECIPES / "hspnet-glas-colon.yaml",
}
FOLDS = 4
VARIANTS: dict[str, dict[str, bool]] = {
    "no DS-Blocks": {"ds14": False, "ds5": False},
    "DS-Blocks 1-4": {"ds14": True, "ds5": False},
    "DS-Block 5": {"ds14": False, "ds5": True},
    "all DS-Blocks": {"ds14": True, "ds5": True},
}
"""The networks of the paper's Table 3, as arguments."""
PAPER_ABLATION = {
    "no DS-Blocks": (0.5646, 0.4065, 0.5802),
    "DS-Blocks 1-4": (0.7029, 0.5599, 0.7152),
    "DS-Block 5": (0.7134, 0.5673, 0.7370),
    "all DS-Blocks": (0.7390, 0.5998, 0.7533),
}
"""Table 3 (ResNet-101, CE-Loss, no post-processing, test set): Dice, mIoU, pixel accuracy."""
PAPER_FOLDS = {
    "DeepLab v3+, CE-Loss": ((0.5033, 0.1218), (0.3678, 0.1098), (0.5611, 0.0984)),
    "HSP-Net, CE-Loss": ((0.5125, 0.1551), (0.3856, 0.1457), (0.5693, 0.1306)),
    "HSP-Net, AE-Loss, post-processing": ((0.5416, 0.1681), (0.4186, 0.1624), (0.6086, 0.1353)),
}
"""Table 2, four folds: mean and deviation of the same."""
PAPER_TEST = {
    "ResNet-34, CE-Loss": (0.6845, 0.5421, 0.7004),
    "ResNet-101, CE-Loss": (0.7390, 0.5998, 0.7533),
    "ResNet-101, AE-Loss": (0.7517, 0.6150, 0.7646),
    "ResNet-101, AE-Loss, post-processing": (0.7822, 0.6549, 0.7976),
}
"""Tables 4 and 5, test set."""
ELASTIC = (
    "The loss ordinal_elastic is ours: the formula of the paper's AE-Loss was not available to us. "
    "These numbers are no reproduction of those with AE-Loss."
)


def reproduce(
    protocol: str,
    data: Path | str,
    out: Path | str,
    *,
    recipe_path: Path | str | None = None,
    folds: int | None = None,
    run_folds: int | None = None,
    ablation: bool = False,
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
        ``mtchi`` or ``glas``.
    data
        Folder of labelled regions.
    out
        Folder of this run: ``results.json``, ``results.csv``, figures.
    recipe_path
        Network and settings; by default the paper's for ``mtchi``, the starter's for ``glas``.
    folds, run_folds
        Parts where the data do not tell them (mtchi: 4; glas: the recipe's), and how many are
        trained and tested.
    ablation
        Train the four networks of the paper's Table 3, on the first fold unless ``run_folds``
        says more.
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
    path = Path(recipe_path or DEFAULT_RECIPES[protocol])
    recipe = _recipe(path, Path(data), protocol, folds, seed)
    regions = read_regions(recipe.data)
    plan = plan_of(regions, recipe)
    run_folds = min(run_folds or (1 if ablation else len(plan.folds)), len(plan.folds))
    if ablation and recipe.network.architecture == BASELINE:
        raise RecipeError("A U-Net has no DS-Blocks; give a recipe of HSP-Net for the ablation.")
    variants = VARIANTS if ablation else {"": {}}
    out = Path(out)
    asked = {
        "protocol": protocol, "ablation": ablation, "data_sha256": regions.sha256,
    }  # fmt: skip
    open_protocol(out, asked, recipe, resume)
    if recipe.loss.name == "ordinal_elastic":
        say(ELASTIC)
    started = time.time()
    trainer = make_trainer(recipe, regions, device=device, say=say, should_stop=should_stop)
    trainer.recipe = recipe = _within(recipe, budget, trainer, plan, run_folds * len(variants), say)
    rows = []
    report: dict[str, Any] = {}
    for name, switches in variants.items():
        network = recipe.network.model_copy(
            update={"arguments": {**recipe.network.arguments, **switches}}
        )
        used = recipe.model_copy(update={"network": network})
        trainer.recipe = used
        folder = out / "group" if not name else out / name.replace(" ", "-").lower()
        runner = RegionFolds(used, regions, trainer, protocol, "group", folder, say, resume)
        report = runner.run(plan, run_folds)
        rows += _rows_of(name or recipe.network.architecture, report)
    report |= {
        **asked,
        "data": regions.name,
        "regions": len(regions.records),
        "groups": len(set(regions.groups)),
        "grouped_by": regions.grouped_by,
        "network": recipe.network.architecture,
        "arguments": dict(recipe.network.arguments),
        "loss": recipe.loss.name,
        "epochs": recipe.fold_epochs or recipe.epochs,
        "budget_seconds": budget,
        "device": device,
        "table": rows,
        "paper": _paper(protocol, ablation),
        "note": ELASTIC if recipe.loss.name == "ordinal_elastic" else "",
        "seconds": round(time.time() - started, 1),
        "machine": {"threads": torch.get_num_threads(), "torch": torch.__version__},
    }
    _write(out, report)
    return report


def _recipe(
    path: Path, data: Path, protocol: str, folds: int | None, seed: int | None
) -> HspRecipe:
    changed = recipe_of(path, System.HSPNET).model_dump(mode="json")
    changed["data"] |= {"folder": str(data), "layout": layout_of(data)}
    if protocol == "mtchi":
        changed["split"] |= {"reserve": 0.0, "folds": folds or FOLDS}
        changed["fold_epochs"] = 0  # the folds are the result here
    elif folds is not None:
        changed["split"]["folds"] = folds
    changed["split"]["run_folds"] = 0
    changed |= {"budget_seconds": None, "finetune": None}
    if seed is not None:
        changed["seed"] = changed["split"]["seed"] = seed
    return cast("HspRecipe", check_recipe(changed, str(path)))


def _within(
    recipe: HspRecipe,
    budget: float | None,
    trainer: HspTrainer,
    plan: SplitPlan,
    fits: int,
    say: Say,
) -> HspRecipe:
    """Fewer epochs where a budget asks for it; says what is left."""
    if budget is None:
        return recipe
    n = len(plan.folds)
    parts = recipe.split.model_copy(update={"folds": max(2, n), "run_folds": min(fits, 20)})
    counted = recipe.model_copy(update={"split": parts})
    speed = measure_speed(trainer, plan.training(0))
    fitted = fit_to_budget(
        counted, budget * min(fits, 20) / fits, speed,
        lambda r: views_of(trainer, r, plan.development), 0, final=False, looks=1,
    )  # fmt: skip
    say(f"a budget of {budget:g} s: epochs {fitted.epochs} instead of {recipe.epochs}")
    return recipe.model_copy(update={"epochs": fitted.epochs, "fold_epochs": fitted.fold_epochs})


def _rows_of(name: str, report: dict[str, Any]) -> list[dict[str, Any]]:
    """Lines of the table, one a way of looking and reading of the background."""
    found = []
    for way in (PLAIN, BLENDED):
        for reading in ("ignore_background", "with_background"):
            if way in report:
                means = report[way]["over_folds"][reading]
                found.append(
                    {
                        "network": name,
                        "parameters": report["parameters"],
                        "tiles": way,
                        "background": reading.replace("_", " "),
                        **{key: mean for key, (mean, _) in means.items()},
                        **{f"{key}_deviation": spread for key, (_, spread) in means.items()},
                        "mean_dice_all_classes": report[way]["dice"],
                        "foreground_dice": report[way]["foreground_dice"],
                    }
                )
    return found


def _paper(protocol: str, ablation: bool) -> dict[str, Any]:
    """The paper's numbers; none for other data."""
    if protocol != "mtchi":
        return {}
    if ablation:
        return {"table 3": PAPER_ABLATION}
    return {"table 2": PAPER_FOLDS, "tables 4 and 5": PAPER_TEST}


def _write(out: Path, report: dict[str, Any]) -> None:
    write_whole(out / "results.json", json.dumps(report, indent=1).encode())
    write_whole(out / "results.csv", csv_text(report["table"]).encode())
    way = BLENDED if BLENDED in report else PLAIN
    names = report[way]["classes"]
    table = np.array(report[way]["confusion"])
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    side = 2.2 + 0.65 * len(names)
    figure, axes = pyplot().subplots(figsize=(side + 0.6, side), dpi=150, layout="constrained")
    words = [[f"{100 * v:.1f}" for v in row] for row in share]
    confusion_axes(axes, share, words, names)
    axes.set(ylabel="truth", title=f"{report['protocol']}, {way}: % of the true pixels")
    figure.savefig(out / "confusion.png", metadata={"Software": None})
    pyplot().close(figure)
