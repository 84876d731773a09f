"""The systems that can be trained, and where each one's part lives. A table; a system is a row.

What all share, the fit loop, splits, budgets, progress, reports and gates, stands in the modules
of this package; what only one has, its recipe, its pictures of a cell, its run, in rooms of its
own, imported when first needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from napari_cellpath.core.errors import UnknownNameError
from napari_cellpath.core.vocabulary import System


@dataclass(frozen=True)
class TrainingEntry:
    """Where a system's parts live, as ``module:name``.

    Attributes
    ----------
    recipe
        The recipe class, a `training.recipe.CommonRecipe`.
    run
        Takes what `training.run` takes after the system.
    kit
        What fine-tuning does differently, a `training.finetune_kit.FineTuneKit`.
    blank
        Recipe to what its time is measured with: a trainer on blank cells, the views of an epoch of
        each cell, the cells of the reserve, and how often a fold is scored.
    evaluate
        Takes what `training.evaluate` takes after the system.
    presets
        Fine-tuning presets: name to what each sets beside parent and data.
    layout
        Of data folders, where none is named.
    """

    recipe: str
    run: str
    kit: str
    blank: str
    evaluate: str
    presets: str
    layout: str


SYSTEMS: Mapping[System, TrainingEntry] = {
    System.DEEPPAP: TrainingEntry(
        recipe="training.deeppap_recipe:Recipe",
        run="training.deeppap_run:run_deeppap",
        kit="training.deeppap_finetune:DeepPapKit",
        blank="training.deeppap_run:blank_run",
        evaluate="training.deeppap_evaluation:evaluate_deeppap",
        presets="training.presets:DEEPPAP",
        layout="herlev",
    ),
    System.HEP2: TrainingEntry(
        recipe="training.hep2.recipe:Hep2Recipe",
        run="training.hep2.run:run_hep2",
        kit="training.hep2.finetune:Hep2Kit",
        blank="training.hep2.run:blank_run",
        evaluate="training.hep2.evaluation:evaluate_hep2",
        presets="training.presets:HEP2",
        layout="hep2",
    ),
    System.HSPNET: TrainingEntry(
        recipe="training.hspnet.recipe:HspRecipe",
        run="training.hspnet.run:run_hspnet",
        kit="training.hspnet.finetune:HspKit",
        blank="training.hspnet.run:blank_run",
        evaluate="training.hspnet.evaluation:evaluate_hspnet",
        presets="training.presets:HSPNET",
        layout="glas",
    ),
    System.RBC: TrainingEntry(
        recipe="training.rbc.recipe:RbcRecipe",
        run="training.rbc.run:run_rbc",
        kit="training.rbc.finetune:RbcKit",
        blank="training.rbc.run:blank_run",
        evaluate="training.rbc.evaluation:evaluate_rbc",
        presets="training.presets:RBC",
        layout="chula",
    ),
}

PROTOCOLS: Mapping[str, str] = {
    "herlev": "training.protocols:reproduce",
    "herlev-jitter": "training.protocols:reproduce",
    "herlev-7": "training.protocols:reproduce",
    "hemlbc": "training.protocols:reproduce",
    "hep2-loso": "training.hep2.protocols:reproduce",
    "hep2-kfold": "training.hep2.protocols:reproduce",
    "mtchi": "training.hspnet.protocols:reproduce",
    "glas": "training.hspnet.protocols:reproduce",
    "rbc": "training.rbc.protocol:reproduce",
}
"""Protocol to what runs it."""


def entry(system: System | str) -> TrainingEntry:
    """The row of a system.

    Raises
    ------
    UnknownNameError
        It cannot be trained.
    """
    try:
        return SYSTEMS[System(system)]
    except (KeyError, ValueError):
        known = ", ".join(SYSTEMS)
        raise UnknownNameError(f"There is no training for '{system}'. Known: {known}.") from None


def load(target: str) -> Any:
    """Import ``module:name``."""
    module, _, name = target.partition(":")
    return getattr(import_module(module), name)


def load_protocol(name: str) -> Any:
    """The function that runs a protocol.

    Raises
    ------
    UnknownNameError
        No such protocol.
    """
    if name not in PROTOCOLS:
        raise UnknownNameError(
            f"There is no protocol '{name}'. Known: {', '.join(sorted(PROTOCOLS))}."
        )
    return load(PROTOCOLS[name])
