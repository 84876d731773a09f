"""Measure a model folder on labelled cells that it was not trained on.

Which cells those are is read from ``model.json``, which lists the slide groups it was trained
on, validated on, and its reserve; and, by content, the images it was trained or chosen on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from napari_cellpath.core.annotations import Part as AnnotationPart
from napari_cellpath.core.errors import RecipeError
from napari_cellpath.core.vocabulary import Border, Preset, System
from napari_cellpath.models import ModelInfo, find_model
from napari_cellpath.systems.deeppap.predict import load_network
from training import metrics as m
from training.calibration import calibrated
from training.checkpoint import write_whole
from training.datasets import CellData, read_cells
from training.finetune_data import targets_of
from training.project_data import is_project, read_project
from training.provenance import named, refuse_seen, seen_by_content, seen_by_name
from training.recipe import Data
from training.scoring import score_cells

Part = Literal["reserve", "validation", "frozen", "held-out", "all"]


def evaluate_deeppap(
    model: str | Path,
    data: str | Path,
    out: Path | str | None = None,
    *,
    preset: Preset | str = Preset.BALANCED,
    jitter: int = 0,
    border: Border | str = Border.ZERO,
    part: Part | None = None,
    groups: Sequence[str] | None = None,
    threshold: float | None = None,
    seed: int = 0,
    layout: Literal["herlev", "folders"] = "herlev",
    device: str = "auto",
    should_stop: Callable[[], bool] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Score the cells of a data folder and report measures with intervals.

    Parameters
    ----------
    model
        Name or folder.
    data
        Folder, in the layout ``layout``, or a project (``NAME.cellpath``).
    out
        Report to write (JSON), or None.
    preset, border, jitter, seed
        How cells are looked at; ``jitter`` moves centres by up to so many pixels.
    part
        None: the whole folder, which must hold nothing the model was trained or chosen on; of a
        project its frozen part, of which the same holds. ``frozen``: that part of a project.
        ``held-out``: what it was neither trained nor chosen on; the report names what was left
        out. ``reserve``, ``validation``: that part. ``all``: also what it was trained on; the
        report then says so.
    groups
        Only these slide groups, of the part.
    threshold
        None takes the model's own.
    device
        ``auto``, ``cpu``, ``cuda`` or ``mps``.
    on_progress
        Called with the cells done and to be done.

    Returns
    -------
    dict
        The report (see `training.metrics.binary_report`), and which cells it is of.

    Raises
    ------
    RecipeError
        The cells asked for were trained on (they are named), or there are none.
    """
    entry = find_model(model, System.DEEPPAP)
    if Preset(preset) is Preset.ADAPTIVE:
        raise RecipeError("Evaluation needs a fixed number of views: fast, balanced or paper.")
    if is_project(data):
        cells = read_project(data, entry.info.classes, entry.info.mpp)
        part = part or "frozen"
    else:
        cells = read_cells(Data(layout=layout, folder=str(data), classes=2))
    chosen, trained_on = choose_cells(entry.info, cells, part, groups)
    network, info = load_network(entry.folder)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    records = [cells.records[i] for i in chosen]
    probabilities = score_cells(
        network, records, looked_at=Preset(preset).value,  # type: ignore[arg-type]
        border=Border(border), jitter=jitter, seed=seed, should_stop=should_stop,
        on_progress=on_progress,
    )  # fmt: skip
    scores = probabilities[:, [c.abnormal for c in info.classes]].sum(axis=1)
    report: dict[str, Any] = {
        "model": entry.label,
        "data": cells.name,
        "data_sha256": cells.sha256,
        "part": part or "whole folder",
        "trained_on_these": trained_on,
        "left_out": _left_out(cells, chosen),
        "preset": str(preset),
        "border": str(Border(border)),
        "jitter": jitter,
        "seed": seed,
        **m.binary_report(
            np.array([r.abnormal for r in records]), scores, [r.group for r in records],
            info.threshold if threshold is None else threshold,
            classes=[cells.fine_classes[r.fine_class].name for r in records],
        ),
    }  # fmt: skip
    if info.calibration is not None:
        better = calibrated(info.calibration, scores)
        truth = np.array([r.abnormal for r in records])
        report["calibrated"] = {
            "brier": round(m.brier(truth, better), 4),
            "calibration_error": round(m.calibration_error(truth, better), 4),
        }
    if len(info.classes) > 2 and len(info.classes) == len(cells.fine_classes):
        called = probabilities.argmax(axis=1)
        truth = targets_of(cells, info)[chosen]
        report["confusion"] = m.confusion(truth, called, len(info.classes)).tolist()
        report["class_accuracy"] = round(float(np.mean(called == truth)), 4)
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
