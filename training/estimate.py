"""How long a run will take, told before it starts from a few measured steps on this machine."""

from __future__ import annotations

import time

import numpy as np
import torch
from torch.nn import functional as F

from napari_cellpath.core.vocabulary import System
from napari_cellpath.models import find_model
from napari_cellpath.systems.deeppap.network import DeepPapNetwork
from napari_cellpath.systems.deeppap.predict import load_network
from training.augment import WINDOW
from training.budget import INPUTS, Speed, measure_speed, planned_seconds
from training.cells import Cells
from training.datasets import CellData, read_cells
from training.deeppap import Trainer, epoch_batches, views_of_cells
from training.finetune_data import Sides, read_sides
from training.finetune_full import FineTuner
from training.finetune_head import MIXES
from training.recipe import Recipe
from training.splits import make_split
from training.trunk_features import head_input, pools, through_head

_STARTING = 5.0
"""Seconds for starting, writing the model, and the report's intervals and pictures."""


def estimate_seconds(recipe: Recipe) -> float:
    """Seconds a run of this recipe takes here, on the CPU; takes a few seconds itself.

    Raises
    ------
    CellpathError
        What the run itself would refuse of recipe, parent or data.
    """
    if recipe.finetune is not None:
        entry = find_model(recipe.finetune.parent, System.DEEPPAP)
        network, info = load_network(entry.folder)
        return _STARTING + sum(finetune_plan(recipe, network, read_sides(recipe, info)).values())
    data = read_cells(recipe.data)
    s = recipe.split
    split = make_split(
        data.groups, data.labels.tolist(), mode=s.mode, reserve=s.reserve, folds=s.folds,
        seed=s.seed,
    )  # fmt: skip
    trainer = Trainer(recipe, data, _blank_cells(data, recipe.batch), "cpu")
    speed = measure_speed(trainer, np.arange(recipe.batch))
    views = views_of_cells(recipe, data)[split.development]
    seconds = sum(planned_seconds(recipe, speed, views, len(split.reserve), looks=4))
    return min(seconds, recipe.budget_seconds or np.inf) + _STARTING


def finetune_plan(recipe: Recipe, network: DeepPapNetwork, sides: Sides) -> dict[str, float]:
    """Seconds of each stage of a fine-tuning run, by the stage's name in the progress file."""
    assert recipe.finetune is not None  # the caller looked  # noqa: S101
    speed = _speed(recipe, network)
    train, validation, frozen = len(sides.train), len(sides.validation), len(sides.frozen)
    looks = INPUTS["rotations"]
    judged = frozen * INPUTS[recipe.evaluation] * speed.score
    if recipe.finetune.method == "full":
        views = views_of_cells(recipe, sides.data)[sides.train]
        plan = {
            "final": recipe.epochs * (float(views.sum()) * speed.step + validation * speed.score),
            "validation cells": validation * looks * speed.score,
            "frozen cells": judged,
            "frozen again cells": judged,
            "training cells": train * looks * speed.score,
        }
    else:
        plan = {
            "training cells": train * looks * speed.score,
            "validation cells": validation * looks * speed.score,
        }
        trials = len(MIXES) if validation and recipe.finetune.replay > 0 else 1
        step = _head_step(recipe, network)
        rows = np.arange(train * looks)
        steps = len(epoch_batches(rows, np.ones(len(rows), np.int64), recipe.batch, 0, 0))
        for number in range(trials):
            plan[f"head {number + 1} of {trials}"] = recipe.epochs * (steps * step + 0.03)
        plan["frozen cells"] = judged
        same = pools(network.head) or recipe.evaluation == "rotations"
        plan["frozen again cells"] = 0.0 if same else judged
    return plan


def fit_finetune_to_budget(
    recipe: Recipe, network: DeepPapNetwork, sides: Sides, seconds: float
) -> Recipe:
    """Shrink a fine-tuning run: first the views of the report, then the epochs, one at least."""
    plan = finetune_plan(recipe, network, sides)
    if sum(plan.values()) + _STARTING <= seconds:
        return recipe
    if recipe.evaluation in ("balanced", "paper"):
        recipe = recipe.model_copy(update={"evaluation": "rotations"})
        plan = finetune_plan(recipe, network, sides)
    learning = sum(v for k, v in plan.items() if k == "final" or k.startswith("head"))
    left = seconds - _STARTING - (sum(plan.values()) - learning)
    share = min(max(left, 0.0) / learning, 1.0) if learning > 0 else 1.0
    return recipe.model_copy(update={"epochs": max(1, int(recipe.epochs * share))})


def _speed(recipe: Recipe, network: DeepPapNetwork) -> Speed:
    assert recipe.finetune is not None  # the caller looked  # noqa: S101
    if recipe.finetune.method == "full":
        blank = _blank_cells(None, recipe.batch)
        tuner = FineTuner(
            recipe, None, blank, "cpu", parent=network,  # type: ignore[arg-type]
            parent_classes=_outputs(network),
        )  # fmt: skip
        return measure_speed(tuner, np.arange(recipe.batch))
    crops = torch.zeros(10, 3, 227, 227).contiguous(memory_format=torch.channels_last)
    device = next(network.parameters()).device
    with torch.inference_mode():
        for _ in range(2):  # the first one pays for memory and kernels
            started = time.perf_counter()
            head_input(network, crops.to(device))
            taken = time.perf_counter() - started
    return Speed(0.0, 1.3 * taken / len(crops))  # cutting the views takes its share too


def _outputs(network: DeepPapNetwork) -> int:
    with torch.inference_mode():
        return int(network(torch.zeros(1, 3, 227, 227)).shape[1])


def _head_step(recipe: Recipe, network: DeepPapNetwork) -> float:
    """Seconds of one step of the head alone, old and new features together."""
    with torch.inference_mode():
        one = head_input(network, torch.zeros(1, 3, 227, 227))
    features = torch.zeros(2 * recipe.batch, one.shape[1])
    targets = torch.zeros(len(features), dtype=torch.int64)
    for _ in range(2):
        started = time.perf_counter()
        F.cross_entropy(through_head(network.head, features), targets).backward()
        taken = time.perf_counter() - started
    network.head.zero_grad(set_to_none=True)
    return 2 * taken  # the optimiser's step comes on top


def _blank_cells(data: CellData | None, n: int) -> Cells:
    """Cells of nothing, for measuring speed without reading images."""
    n_fine = 2 if data is None else len(data.fine_classes)
    features = 0 if data is None else data.features().shape[1]
    return Cells(
        windows=torch.full((n, 6, WINDOW, WINDOW), 255, dtype=torch.uint8),
        backgrounds=torch.zeros(n, 3),
        targets=torch.arange(n) % 2,
        fine=torch.arange(n) % n_fine,
        features=torch.zeros(n, features),
        n_fine=n_fine,
        has_masks=data is not None and all(r.mask is not None for r in data.records),
    )
