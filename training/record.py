"""What a finished run writes into ``model.json``."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from napari_cellpath.core.vocabulary import System
from napari_cellpath.models import Calibration, ClassInfo, ModelInfo
from training.datasets import CellData
from training.deeppap_recipe import Recipe
from training.domain import domain_of_cells
from training.fit import Metrics
from training.provenance import image_hashes
from training.recipe import CommonRecipe
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
    held_back = split.folds[0] if r.keep == "best" else np.array([], dtype=np.intp)
    trained = trained_rows(r, split)
    arguments = dict(r.network.arguments)
    if r.network.mean_image:
        arguments["mean"] = "image"
    return ModelInfo(
        name=r.name,
        system=System.DEEPPAP,
        architecture=r.network.backbone + ("-measured" if r.network.measures else ""),
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
        data=data_facts(r, data, trained, held_back),
        reserve=names_of(r, data, split.reserve),
        seed=r.seed,
        licence="BSD-3-Clause (weights); the data have no stated terms, see card.md"
        if data.name == "herlev"
        else "",
        versions=versions(),
        training=training_facts(r, initial_weights, history),
        metrics=measured,
    )


def names_of(r: CommonRecipe, data: CellData, rows: Indices) -> tuple[str, ...]:
    """The groups of some cells or, split by cell, their images; sorted."""
    records = [data.records[int(i)] for i in rows]
    by_cell = r.split.mode == "cell"
    return tuple(sorted({x.image.name if by_cell else x.group for x in records}))


def data_facts(
    r: CommonRecipe, data: CellData, trained: Indices, held_back: Indices
) -> dict[str, Any]:
    """What ``model.json`` says of the data: ``held_back`` are cells that chose an epoch."""
    learnt_from = [data.records[int(i)] for i in np.concatenate([trained, held_back])]
    return {
        "name": data.name,
        "sha256": data.sha256,
        "cells": len(data.records),
        "groups": len(set(data.groups)),
        "grouped_by": data.grouped_by,
        "trained_on_cells": len(trained),
        "split_by": r.split.mode,
        "validation": names_of(r, data, held_back),
        "trained_on": names_of(r, data, trained),
        "images": image_hashes(learnt_from),
        "note": data.note,
    }


def training_facts(r: CommonRecipe, origin: str, history: list[Metrics]) -> dict[str, Any]:
    """What ``model.json`` says of the training."""
    return {
        "recipe": r.model_dump(mode="json"),
        "initial_weights": origin,
        "loss_by_epoch": [round(h["loss"], 4) for h in history],
    }


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide what comes out of a run."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
