"""Training: data folders, splits, recipes, the fit loop, evaluation, reports.

Entry points: `run`, `finetune_recipe`, `estimate_seconds`, `evaluate` and `reproduce`; the
command line and the viewer call the same ones.
Importing this package imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from training.recipe import CommonRecipe

__all__ = ["estimate_seconds", "evaluate", "finetune_recipe", "reproduce", "run"]


def run(
    system: str,
    recipe: Path | str | CommonRecipe,
    out: Path | str,
    *,
    on_progress: Callable[[str], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    budget: float | None = None,
    resume: bool = False,
    device: str = "auto",
) -> Path:
    """Train a model as a recipe says.

    Parameters
    ----------
    system
        Whose recipe it is; see `training.systems`.
    recipe
        YAML file, or what was read from one; see `training.recipe`.
    out
        Folder of this run.
    on_progress
        Takes one line of text at a time.
    should_stop
        Asked between steps; the checkpoint is kept.
    budget
        Seconds; views and epochs shrink to fit. None takes the recipe's own.
    resume
        Go on from the last checkpoint in ``out``.
    device
        ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Returns
    -------
    Path
        The finished model folder.

    Raises
    ------
    CellpathError
        The recipe or the data cannot be used; `JobCancelledError` when stopped.
    """
    from training.training_run import run_training

    return run_training(
        system, recipe, out, on_progress=on_progress, should_stop=should_stop, budget=budget,
        resume=resume, device=device,
    )  # fmt: skip


def finetune_recipe(
    parent: str | Path, data: str | Path, preset: str = "fast", name: str | None = None
) -> CommonRecipe:
    """The recipe of a fine-tuning preset; see `training.presets.finetune_recipe`."""
    from training.presets import finetune_recipe as make

    return make(parent, data, preset, name)


def estimate_seconds(recipe: Path | str | CommonRecipe) -> float:
    """Seconds a run of a recipe takes on this machine's CPU; see `training.estimate`."""
    from training.estimate import estimate_seconds as estimate
    from training.recipe import CommonRecipe, read_recipe

    return estimate(recipe if isinstance(recipe, CommonRecipe) else read_recipe(recipe))


def evaluate(
    system: str,
    model: str | Path,
    data: str | Path,
    out: Path | str | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Measure a model on labelled cells it was not trained on.

    See `training.deeppap_evaluation`, and `evaluation` in the room of each other system.
    """
    from training.systems import entry, load

    report: dict[str, Any] = load(entry(system).evaluate)(model, data, out, **options)
    return report


def reproduce(protocol: str, data: Path | str, out: Path | str, **options: Any) -> dict[str, Any]:
    """Train and measure as a paper did.

    See `training.protocols.reproduce`, and `protocols` in the room of each other system.

    Raises
    ------
    CellpathError
        No such protocol, or the data cannot be used for it.
    """
    from inspect import signature

    from napari_cellpath.core.errors import RecipeError
    from training.systems import load_protocol

    run_protocol = load_protocol(protocol)
    if foreign := sorted(set(options) - set(signature(run_protocol).parameters)):
        raise RecipeError(f"The protocol {protocol} has no option '{foreign[0]}'.")
    report: dict[str, Any] = run_protocol(protocol, data, out, **options)
    return report
