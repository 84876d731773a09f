"""Training: data folders, splits, recipes, the fit loop, evaluation, reports.

Entry points: `run`, `finetune_recipe`, `estimate_seconds`, `evaluate` and `reproduce`; the
command line and the viewer call the same ones.
Importing this package imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cellpath.core.errors import UnknownNameError
from napari_cellpath.core.vocabulary import Preset, System

if TYPE_CHECKING:
    from training.recipe import Recipe

__all__ = ["estimate_seconds", "evaluate", "finetune_recipe", "reproduce", "run"]


def _check_system(system: str) -> None:
    if system not in [System.DEEPPAP]:
        raise UnknownNameError(f"There is no training for '{system}' yet. Known: deeppap.")


def run(
    system: str,
    recipe: Path | str | Recipe,
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
        ``deeppap``.
    recipe
        YAML file, or what was read from one; see `training.recipe.Recipe`.
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
    _check_system(system)
    from training.deeppap_run import run_deeppap

    return run_deeppap(
        recipe, out, on_progress=on_progress, should_stop=should_stop, budget=budget,
        resume=resume, device=device,
    )  # fmt: skip


def finetune_recipe(
    parent: str | Path, data: str | Path, preset: str = "fast", name: str | None = None
) -> Recipe:
    """The recipe of a fine-tuning preset; see `training.presets.finetune_recipe`."""
    from training.presets import finetune_recipe as make

    return make(parent, data, preset, name)


def estimate_seconds(recipe: Path | str | Recipe) -> float:
    """Seconds a run of a recipe takes on this machine's CPU; see `training.estimate`."""
    from training.estimate import estimate_seconds as estimate
    from training.recipe import Recipe, read_recipe

    return estimate(recipe if isinstance(recipe, Recipe) else read_recipe(recipe))


def evaluate(
    system: str,
    model: str | Path,
    data: str | Path,
    out: Path | str | None = None,
    *,
    preset: Preset | str = Preset.BALANCED,
    jitter: int = 0,
    **options: Any,
) -> dict[str, Any]:
    """Measure a model on labelled cells it was not trained on; see `training.evaluate`."""
    _check_system(system)
    from training.evaluation import evaluate_deeppap

    return evaluate_deeppap(model, data, out, preset=preset, jitter=jitter, **options)


def reproduce(protocol: str, data: Path | str, out: Path | str, **options: Any) -> dict[str, Any]:
    """Train and measure as a paper did; see `training.protocols.reproduce`.

    Raises
    ------
    CellpathError
        No such protocol, or the data cannot be used for it.
    """
    from training.protocols import reproduce as run_protocol

    return run_protocol(protocol, data, out, **options)
