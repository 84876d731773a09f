"""Measuring a model folder on labelled cells that it was not trained on: what all systems share.

Which cells those are is read from ``model.json``, which lists the groups it was trained on,
validated on, and its reserve; and, by content, the images it was trained or chosen on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from napari_cellpath.core.annotations import Part as AnnotationPart
from napari_cellpath.core.errors import RecipeError
from napari_cellpath.core.vocabulary import System
from napari_cellpath.models import ModelInfo, find_model
from napari_cellpath.systems.loading import load_network
from training.checkpoint import write_whole
from training.datasets import CellData
from training.provenance import named, refuse_seen, seen_by_content, seen_by_name

Part = Literal["reserve", "validation", "frozen", "held-out", "all"]


@dataclass(frozen=True, eq=False)
class Opened:
    """A model on its device, the cells to measure it on, and what the report says of both."""

    network: Any
    info: ModelInfo
    cells: CellData
    chosen: list[int]
    facts: dict[str, Any]
    folder: Path


def open_evaluation(
    model: str | Path,
    system: System,
    read: Callable[[ModelInfo], CellData],
    part: Part | None,
    groups: Sequence[str] | None,
    device: str,
) -> Opened:
    """Find a model and the cells it may be measured on; see `choose_cells`.

    ``read`` gives the data for a model; of a project the frozen part is the default.
    """
    entry = find_model(model, system)
    cells = read(entry.info)
    if cells.parts and part is None:
        part = "frozen"
    chosen, trained_on = choose_cells(entry.info, cells, part, groups)
    network, info = load_network(entry.folder)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    network.to(device).to(memory_format=torch.channels_last)
    facts = {
        "model": entry.label,
        "data": cells.name,
        "data_sha256": cells.sha256,
        "part": part or "whole folder",
        "trained_on_these": trained_on,
        "left_out": _left_out(cells, chosen),
    }
    return Opened(network, info, cells, chosen, facts, entry.folder)


def written(report: dict[str, Any], out: Path | str | None) -> dict[str, Any]:
    """The report, written as JSON where ``out`` names a file."""
    if out is not None:
        write_whole(Path(out), json.dumps(report, indent=1).encode())
    return report


def _left_out(cells: CellData, chosen: Sequence[int]) -> dict[str, Any]:
    """How many cells were not measured on, and of which groups."""
    there = set(chosen)
    others = [r.group for i, r in enumerate(cells.records) if i not in there]
    return {"cells": len(others), "groups": sorted(set(others))}


def choose_cells(
    info: ModelInfo, cells: CellData, part: Part | None, groups: Sequence[str] | None
) -> tuple[list[int], bool]:
    """Row numbers of the cells to measure on, and whether the model saw any of them.

    ``model.json`` lists the slide groups (or, split by cell, the images) of the training, the
    validation and the reserve. They are known by name within data of the same name, so a
    shortened or enlarged copy of the training data is not taken for new data; and images are
    known by content, under whatever name.

    Raises
    ------
    RecipeError
        Cells asked for by ``groups`` or by default were trained on, or nothing is left.
    """
    by_cell = info.data.get("split_by") == "cell"
    keys = [r.image.name if by_cell else r.group for r in cells.records]
    seen = set(seen_by_content(info, cells.records)) | set(seen_by_name(info, cells))
    reserve, validation = set(info.reserve), set(info.data.get("validation", ()))

    def belongs(row: int) -> bool:
        if part == "frozen":
            return cells.parts.get(cells.records[row].group) is AnnotationPart.FROZEN
        if part == "reserve":
            return keys[row] in reserve and row not in seen
        if part == "validation":
            return keys[row] in validation
        return part in ("all", None) or row not in seen

    wanted = None if groups is None else set(groups)
    in_groups = [i for i, r in enumerate(cells.records) if wanted is None or r.group in wanted]
    if part is None or (wanted is not None and part != "all"):
        refused = [
            i for i in in_groups if i in seen and (part is None or keys[i] not in validation)
        ]
        if refused:
            raise RecipeError(
                f"{len(refused)} of {len(in_groups)} cells of '{cells.name}' were in the training "
                f"of {info.name} ({named(keys[i] for i in refused)}); a measurement on them would "
                "flatter the model. Measure on its other cells with --part held-out, or on all "
                "with --part all, which the report will say."
            )
    rows = [i for i in in_groups if belongs(i)]
    if not rows:
        raise RecipeError(
            f"{cells.folder} holds no cells that {info.name} was not trained on (--part "
            f"{part}). Use other data, or --part all, which the report will say."
        )
    if part == "frozen":
        refuse_seen(info, cells, rows, f"the frozen part of '{cells.name}'")
    return rows, any(i in seen and keys[i] not in validation for i in rows)
