"""How long a run will take, told before it starts from a few measured steps on this machine."""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import nn

from napari_cellpath.core.vocabulary import System
from napari_cellpath.models import find_model
from training.budget import Speed, measure_speed, planned_seconds
from training.finetune_data import Sides, read_sides
from training.finetune_head import MIXES
from training.finetune_kit import SETTLING, FineTuneKit, kit_of
from training.progress import ProgressLog
from training.recipe import CommonRecipe
from training.systems import entry, load
from training.trainer import epoch_batches
from training.trunk_features import head_input, through_head

_STARTING = 5.0
"""Seconds for starting, writing the model, and the report's intervals and pictures."""


def estimate_seconds(recipe: CommonRecipe) -> float:
    """Seconds a run of this recipe takes here, on the CPU; takes a few seconds itself.

    Raises
    ------
    CellpathError
        What the run itself would refuse of recipe, parent or data.
    """
    if recipe.finetune is not None:
        found = find_model(recipe.finetune.parent, System(recipe.system))
        kit = kit_of(recipe, found.info)
        plan = finetune_plan(recipe, kit.load(found.folder), read_sides(recipe, found.info), kit)
        return _STARTING + sum(plan.values())
    trainer, views, n_reserve, looks = load(entry(recipe.system).blank)(recipe)
    speed = measure_speed(trainer, np.arange(recipe.batch))
    seconds = sum(planned_seconds(recipe, speed, views, n_reserve, looks=looks))
    seconds += trainer.further_seconds
    return min(seconds, recipe.budget_seconds or np.inf) + _STARTING


def finetune_plan(
    recipe: CommonRecipe, network: nn.Module, sides: Sides, kit: FineTuneKit
) -> dict[str, float]:
    """Seconds of each stage of a fine-tuning run, by the stage's name in the progress file."""
    assert recipe.finetune is not None  # the caller looked  # noqa: S101
    if own := kit.plan(recipe, network, sides):
        return own
    speed = _speed(recipe, network, kit)
    train, validation, frozen = len(sides.train), len(sides.validation), len(sides.frozen)
    looks, chosen = kit.inputs(kit.learning_views), kit.inputs(kit.choosing_views)
    # Timed once: heads of trials and of the booster's folds take as long.
    head = 0.0
    if recipe.finetune.method == "head" or kit.settling_fits:
        head = _head_fit(recipe, network, kit, train)
    judged = frozen * kit.inputs(recipe.evaluation) * speed.score
    if recipe.finetune.method == "full":
        views = kit.views(sides.data, sides.train)
        plan = {
            "final": recipe.epochs * (views * speed.step + validation * speed.score),
            "validation cells": validation * chosen * speed.score,
            "frozen cells": judged,
            "frozen again cells": judged,
            "training cells": train * looks * speed.score,
        }
    else:
        plan = {
            "training cells": train * looks * speed.score,
            "validation cells": validation * chosen * speed.score,
        }
        trials = len(MIXES) if validation and recipe.finetune.replay > 0 else 1
        for number in range(trials):
            plan[f"head {number + 1} of {trials}"] = head
        plan["frozen cells"] = judged
        plan["frozen again cells"] = judged if kit.judged_again(network) else 0.0
    if kit.settling_fits:
        plan[SETTLING] = kit.settling_fits * head
    return plan


def _head_fit(recipe: CommonRecipe, network: nn.Module, kit: FineTuneKit, train: int) -> float:
    """Seconds of fitting a head to the features of so many cells."""
    rows = np.arange(train * kit.examples())
    steps = len(epoch_batches(rows, np.ones(len(rows), np.int64), recipe.batch, 0, 0))
    return recipe.epochs * (steps * _head_step(recipe, network, kit) + 0.03)


def fit_finetune_to_budget(
    recipe: CommonRecipe, network: nn.Module, sides: Sides, kit: FineTuneKit, seconds: float
) -> CommonRecipe:
    """Shrink a fine-tuning run: first the views of the report, then the epochs, one at least."""
    plan = finetune_plan(recipe, network, sides, kit)
    if sum(plan.values()) + _STARTING <= seconds:
        return recipe
    if kit.inputs(recipe.evaluation) > kit.inputs(kit.learning_views):
        recipe = recipe.model_copy(update={"evaluation": kit.learning_views})
        plan = finetune_plan(recipe, network, sides, kit)
    learning = sum(v for k, v in plan.items() if k in ("final", SETTLING) or k.startswith("head"))
    left = seconds - _STARTING - (sum(plan.values()) - learning)
    share = min(max(left, 0.0) / learning, 1.0) if learning > 0 else 1.0
    return recipe.model_copy(update={"epochs": max(1, int(recipe.epochs * share))})


def _speed(recipe: CommonRecipe, network: nn.Module, kit: FineTuneKit) -> Speed:
    assert recipe.finetune is not None  # the caller looked  # noqa: S101
    if recipe.finetune.method == "full":
        rows = np.arange(recipe.batch)
        tuner = kit.tuner(
            network, None, None, kit.no_targets(len(rows)), device="cpu",
            say=lambda _line: None, should_stop=None, log=ProgressLog(),
        )  # fmt: skip
        return measure_speed(tuner, rows)
    inputs = torch.zeros(10, *kit.input_shape).contiguous(memory_format=torch.channels_last)
    device = next(network.parameters()).device
    with torch.inference_mode():
        for _ in range(2):  # the first one pays for memory and kernels
            started = time.perf_counter()
            head_input(network, inputs.to(device))
            taken = time.perf_counter() - started
    return Speed(0.0, 1.3 * taken / len(inputs))  # cutting the views takes its share too


def _head_step(recipe: CommonRecipe, network: nn.Module, kit: FineTuneKit) -> float:
    """Seconds of one step of the head alone, old and new features together."""
    head = network.get_submodule("head")
    with torch.inference_mode():
        one = head_input(network, torch.zeros(1, *kit.input_shape))
    features = torch.zeros(2 * recipe.batch, one.shape[1])
    targets = kit.objective.tensor(kit.no_targets(len(features)))
    for _ in range(2):
        started = time.perf_counter()
        kit.objective.loss(through_head(head, features), targets, None, 0.0).backward()
        taken = time.perf_counter() - started
    head.zero_grad(set_to_none=True)
    return 2 * taken  # the optimiser's step comes on top
