"""Measure a model folder on labelled cells that it was not trained on.

Which cells those are is read from ``model.json``, which lists the slide groups it was trained
on, validated on, and its reserve.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
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
    part: Part = "held-out",
    groups: Sequence[str] | None = None,
    threshold: float | None = None,
    seed: int = 0,
    layout: Literal["herlev", "folders"] = "herlev",
    device: str = "auto",
    should_stop: Callable[[], bool] | None = None,
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
        ``held-out``: all that was neither trained nor validated on. ``reserve``,
        ``validation``: that part. ``all``: also what it was trained on; the report then says so.
    groups
        Only these slide groups, of the part.
    threshold
        None takes the model's own.
    device
        ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Returns
    -------
    dict
        The report (see `training.metrics.binary_report`), and which cells it is of.

    Raises
    ------
    RecipeError
        The cells asked for were trained on, or there are none.
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
    )  # fmt: skip
    scores = probabilities[:, [c.abnormal for c in info.classes]].sum(axis=1)
    report: dict[str, Any] = {
        "model": entry.label,
        "data": cells.name,
        "data_sha256": cells.sha256,
        "part": part,
        "trained_on_these": trained_on,
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


def choose_cells(
    info: ModelInfo, cells: CellData, part: Part, groups: Sequence[str] | None
) -> tuple[list[int], bool]:
    """Row numbers of the cells to measure on, and whether the model saw any of them.

    ``model.json`` lists the slide groups (or, split by cell, the images) of the training, the
    validation and the reserve. They are known by name within data of the same name, so a
    shortened or enlarged copy of the training data is not taken for new data.

    Raises
    ------
    RecipeError
        ``groups`` names cells the model was trained on, or nothing is left.
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
        return part == "all" or key not in trained | validation

    wanted = None if groups is None else set(groups)
    in_groups = [i for i, r in enumerate(cells.records) if wanted is None or r.group in wanted]
    if wanted is not None and part != "all":
        seen = sorted({cells.records[i].group for i in in_groups if keys[i] in trained})
        if seen:
            raise RecipeError(
                f"Slide group '{seen[0]}' was in the training of {info.name}; a measurement on "
                "it would flatter the model. Choose groups of its reserve, or part 'all'."
            )
    rows = [i for i in in_groups if belongs(keys[i])]
    if not rows:
        raise RecipeError(
            f"{cells.folder} holds no cells that {info.name} was not trained on (part '{part}'). "
            "Use other data, or say part 'all'."
        )
    return rows, any(keys[i] in trained for i in rows)
