"""Make a run fit into a number of seconds: first fewer views of each cell, then fewer epochs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray

from napari_cellpath.backend.device import choose_device
from training.recipe import CommonRecipe

if TYPE_CHECKING:
    from training.trainer import Trainer

R = TypeVar("R", bound=CommonRecipe)
_LEAST_EPOCHS = 1
_INPUTS = 20


@dataclass(frozen=True)
class Speed:
    """Seconds an image takes in a training step, and an input in scoring."""

    step: float
    score: float


def measure_speed(trainer: Trainer[R], rows: NDArray[np.intp]) -> Speed:
    """Time two real steps on the CPU and a forward pass on a network that is thrown away."""
    module = trainer.start(rows, 0)
    bf16 = choose_device("cpu", trainer.recipe.precision).precision == "bf16"
    generator = torch.Generator().manual_seed(0)
    loss = trainer.make_loss(rows, generator, torch.device("cpu"))
    batch = torch.from_numpy(np.resize(rows, trainer.recipe.batch))
    for _ in range(2):  # the first one pays for memory and kernels
        started = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            lost = loss(module, batch)
        lost.backward()
        step = time.perf_counter() - started
    crops = torch.zeros(_INPUTS, *trainer.input_shape).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        started = time.perf_counter()
        module.network.eval()(crops)
        score = time.perf_counter() - started
    return Speed(step / len(batch), score / len(crops))


def planned_seconds(
    recipe: CommonRecipe,
    speed: Speed,
    views: NDArray[np.int64],
    n_reserve: int,
    *,
    final: bool = True,
    looks: int = 2,
) -> tuple[float, float]:
    """Seconds of training and of scoring that a recipe asks for; see `fit_to_budget`."""
    images = float(views.sum())
    fold_epochs = recipe.fold_epochs or recipe.epochs
    folds = fold_epochs * recipe.split.run_folds * (1 - 1 / recipe.split.folds)
    training = (folds + (recipe.epochs if final else 0)) * images * speed.step
    validated = len(views) * recipe.split.run_folds / recipe.split.folds
    inputs = looks * validated * recipe.inputs[0]
    inputs += 2 * n_reserve * sum(recipe.inputs)
    return training, inputs * speed.score


def fit_to_budget(
    recipe: R,
    seconds: float,
    speed: Speed,
    views_of: Callable[[R], NDArray[np.int64]],
    n_reserve: int,
    *,
    final: bool = True,
    looks: int = 2,
) -> R:
    """Shrink views and epochs so that the whole run takes about ``seconds``.

    Parameters
    ----------
    recipe
        As asked.
    seconds
        For training and scoring together.
    speed
        Of this machine, now.
    views_of
        Gives, under a recipe, the views an epoch of every cell that may be trained on.
    n_reserve
        Cells of the reserve.
    final
        Whether a model of all folds is trained after them.
    looks
        How often each fold is scored.

    Returns
    -------
    Recipe
        At least one view of each cell and one epoch; unchanged where the time suffices.
    """
    plan = partial(planned_seconds, final=final, looks=looks)
    training, scoring = plan(recipe, speed, views_of(recipe), n_reserve)
    share = max(seconds - scoring, 0.0) / training
    if share >= 1.0:
        return recipe
    recipe = cast("R", recipe.thinned(share))
    training, _ = plan(recipe, speed, views_of(recipe), n_reserve)
    share = min(max(seconds - scoring, 0.0) / training, 1.0)
    fewer = {"epochs": max(_LEAST_EPOCHS, int(recipe.epochs * share))}
    if recipe.fold_epochs:
        fewer["fold_epochs"] = max(_LEAST_EPOCHS, int(recipe.fold_epochs * share))
    return recipe.model_copy(update=fewer)


def stages(recipe: CommonRecipe, speed: Speed, views: NDArray[np.int64]) -> dict[str, float]:
    """Seconds of training of each fold and of the final model, by name, for the progress file."""
    images = float(views.sum()) * speed.step
    a_fold = (recipe.fold_epochs or recipe.epochs) * images * (1 - 1 / recipe.split.folds)
    plan = {f"fold {i + 1}": a_fold for i in range(recipe.split.run_folds)}
    return plan | {"final": recipe.epochs * images}
