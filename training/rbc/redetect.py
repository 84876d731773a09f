"""A detector that goes on learning, from rectangles in which a person marked every region."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from torch import nn

from napari_cellpath.core.errors import RecipeError
from napari_cellpath.models import ModelInfo
from training.finetune_kit import Taught
from training.rbc.detector import DetectorTrainer
from training.rbc.measured import detector_report
from training.rbc.recipe import RbcDetector, RbcRecipe
from training.rbc.table import Field, RedCells

ITERATIONS, RATE = 60, 2e-4
"""Of going on; a parent knows most of what there is to find."""


def retrained_detector(
    parent: nn.Module | None, taught: Taught, recipe: RbcRecipe, info: ModelInfo, out: Path
) -> tuple[nn.Module, dict[str, Any]]:
    """The detector after the training part's complete rectangles, and both measured on the frozen.

    Where the frozen part holds rectangles and the new detector is below the parent's on them, the
    parent's stays.

    Raises
    ------
    RecipeError
        The model has no detector, or no rectangle is complete.
    """
    if parent is None:
        raise RecipeError(f"{info.name} has no detector that could be trained.")
    data = taught.data
    assert isinstance(data, RedCells)  # RbcKit reads it  # noqa: S101
    sides: dict[str, list[Field]] = {"train": [], "frozen": []}
    for field in data.fields:
        part = str(data.parts.get(field.group, ""))
        if part in sides and field.boxes:
            sides[part].append(field)
    if not sides["train"]:
        raise RecipeError(
            f"{data.folder}: no rectangle of the training part is marked 'complete here'; the "
            "detector learns from such alone."
        )
    used = recipe.model_copy(update={"detector": detector_settings(info, recipe.detector)})
    trainer = DetectorTrainer(used, sides["train"], parent=copy.deepcopy(parent).cpu())
    child, history = trainer.run(out / "checkpoints" / "detector", resume=True)
    told: dict[str, Any] = {
        "detector_fields": len(sides["train"]),
        "detector_loss": [round(h["loss"], 4) for h in history],
    }
    if sides["frozen"]:
        s = used.detector
        before = detector_report(parent, sides["frozen"], s.scale, s.truth)
        after = detector_report(child, sides["frozen"], s.scale, s.truth)
        told |= {"detector_parent": before, "detector_child": after}
        if (after["ap"] or 0.0) < (before["ap"] or 0.0):
            return parent, told | {"detector": "the parent's: the new one finds less"}
    return child, told | {"detector": "trained on"}


def detector_settings(info: ModelInfo, asked: RbcDetector) -> RbcDetector:
    """How a parent's detector was built and is looked through; how it goes on."""
    return asked.model_copy(
        update={
            "architecture": info.arguments.get("detector") or "none",
            "arguments": dict(info.arguments.get("detector_arguments", {})),
            "scale": float(info.input.get("scale", 1.0)),
            "iterations": min(asked.iterations, ITERATIONS),
            "lr": min(asked.lr, RATE),
            "warmup": 5,
        }
    )
