"""Measure a model folder on labelled cells that it was not trained on.

Which cells those are is read from ``model.json``, which lists the slide groups it was trained
on, validated on, and its reserve.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from napari_cellpath.core.errors import RecipeError
from napari_cellpath.core.vocabulary import Border, Preset, System
from napari_cellpath.models import ModelInfo, find_model
from napari_cellpath.systems.deeppap.predict import load_network
from training import metrics as m
from training.checkpoint import write_whole
from training.datasets import CellData, read_cells
from training.recipe import Data
from training.scoring import score_cells

Part = Literal["reserve", "validation", "held-out", "all"]


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
        Folder, in the layout ``layout``.
    out
        Report to write (JSON), or None.
    preset, border, jitter, seed
        How cells are looked at; ``jitter`` moves centres by up to so many pixels.
    part
        None: the whole folder, which must hold nothing the model was trained or chosen on.
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
    if len(info.classes) > 2 and len(info.classes) == len(cells.fine_classes):
        called = probabilities.argmax(axis=1)
        truth = [r.fine_class for r in records]
        report["confusion"] = m.confusion(truth, called, len(info.classes)).tolist()
        report["class_accuracy"] = round(float(np.mean(called == np.array(truth))), 4)
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
    shortened or enlarged copy of the training data is not taken for new data.

    Raises
    ------
    RecipeError
        Cells asked for by ``groups`` or by default were trained on, or nothing is left.
    """
    by_cell = info.data.get("split_by") == "cell"
    same_data = bool(info.data) and (
        info.data.get("name") == cells.name or info.data.get("sha256") == cells.sha256
    )
    keys = [r.image.name if by_cell else r.group for r in cells.records]
    trained = set(info.data.get("trained_on", ())) if same_data else set()
    reserve, validation = set(info.reserve), set(info.data.get("validation", ()))
    if same_data and not trained:  # an older or foreign model: what it names is all we know
        trained = set(keys) - reserve - validation

    def belongs(key: str) -> bool:
        if part == "reserve":
            return key in reserve
        if part == "validation":
            return key in validation
        return part in ("all", None) or key not in trained | validation

    wanted = None if groups is None else set(groups)
    in_groups = [i for i, r in enumerate(cells.records) if wanted is None or r.group in wanted]
    if part is None or (wanted is not None and part != "all"):
        refused = trained | (validation if part is None else set())
        seen = [i for i in in_groups if keys[i] in refused]
        if seen:
            raise RecipeError(
                f"{len(seen)} of {len(in_groups)} cells of '{cells.name}' were in the training of "
                f"{info.name} ({_named(keys[i] for i in seen)}); a measurement on them would "
                "flatter the model. Measure on its other cells with --part held-out, or on all "
                "with --part all, which the report will say."
            )
    rows = [i for i in in_groups if belongs(keys[i])]
    if not rows:
        raise RecipeError(
            f"{cells.folder} holds no cells that {info.name} was not trained on (--part "
            f"{part}). Use other data, or --part all, which the report will say."
        )
    return rows, any(keys[i] in trained for i in rows)


def _named(keys: Iterable[str], most: int = 5) -> str:
    """The first few of some groups or images, and how many more there are."""
    names = sorted(set(keys))
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
