"""What a finished run writes into ``model.json``."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from napari_cellpath.core.vocabulary import System
from napari_cellpath.models import Calibration, ClassInfo, ModelInfo
from training.datasets import CellData
from training.domain import domain_of_cells
from training.fit import Metrics
from training.provenance import image_hashes
from training.recipe import Recipe
from training.splits import Indices, SplitPlan

_PACKAGES = ("napari-cellpath", "torch", "torchvision", "lightning", "numpy", "safetensors")


def trained_rows(recipe: Recipe, split: SplitPlan) -> Indices:
    """Rows the final model learns from: all but the reserve and what chooses the best epoch."""
    return split.training(0) if recipe.keep == "best" else split.development


def model_info(
    r: Recipe,
    data: CellData,
    split: SplitPlan,
    classes: tuple[ClassInfo, ...],
    *,
    threshold: float,
    calibration: Calibration | None,
    measured: dict[str, Any],
    history: list[Metrics],
    initial_weights: str,
) -> ModelInfo:
    """Gather everything needed to judge the model, and to train it again."""
    groups = data.groups
    by_cell = r.split.mode == "cell"

    def names(rows: Indices) -> tuple[str, ...]:
        if by_cell:
            return tuple(sorted(data.records[int(i)].image.name for i in rows))
        return tuple(sorted({groups[int(i)] for i in rows}))

    held_back = split.folds[0] if r.keep == "best" else np.array([], dtype=np.intp)
    trained = trained_rows(r, split)
    learnt_from = [data.records[int(i)] for i in np.concatenate([trained, held_back])]
    arguments = dict(r.network.arguments)
    if r.network.mean_image:
        arguments["mean"] = "image"
    return ModelInfo(
        name=r.name,
        system=System.DEEPPAP,
        architecture=r.network.backbone,
        arguments=arguments,
        classes=classes,
        input={
            "patch": 128,
            "view": 256,
            "crop": 227,
            "colour": "RGB 0..255",
            "domain": domain_of_cells([data.records[int(i)] for i in trained], data.mpp),
        },
        mpp=data.mpp,
        threshold=threshold,
        calibration=calibration,
        data={
            "name": data.name,
            "sha256": data.sha256,
            "cells": len(data.records),
            "groups": len(set(groups)),
            "trained_on_cells": len(trained),
            "split_by": r.split.mode,
            "validation": names(held_back),
            "trained_on": names(trained),
            "images": image_hashes(learnt_from),
            "note": data.note,
        },
        reserve=names(split.reserve),
        seed=r.seed,
        licence="BSD-3-Clause (weights); the data have no stated terms, see card.md"
        if data.name == "herlev"
        else "",
        versions=versions(),
        training={
            "recipe": r.model_dump(mode="json"),
            "initial_weights": initial_weights,
            "loss_by_epoch": [round(h["loss"], 4) for h in history],
        },
        metrics=measured,
    )


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide what comes out of a run."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
