"""Measure a DeepPap model folder on labelled cells that it was not trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from napari_cellpath.core.errors import RecipeError
from napari_cellpath.core.vocabulary import Border, Preset, System
from napari_cellpath.models import ModelInfo
from training import metrics as m
from training.calibration import calibrated
from training.datasets import CellData, read_cells, targets_of
from training.deeppap_recipe import Data
from training.evaluation import Part, open_evaluation, written
from training.project_data import is_project, read_project
from training.scoring import score_cells


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
    if Preset(preset) is Preset.ADAPTIVE:
        raise RecipeError("Evaluation needs a fixed number of views: fast, balanced or paper.")

    def read(info: ModelInfo) -> CellData:
        if is_project(data):
            return read_project(data, info.classes, info.mpp)
        return read_cells(Data(layout=layout, folder=str(data), classes=2))

    found = open_evaluation(model, System.DEEPPAP, read, part, groups, device)
    network, info, cells, chosen = found.network, found.info, found.cells, found.chosen
    records = [cells.records[i] for i in chosen]
    probabilities = score_cells(
        network, records, looked_at=Preset(preset).value,  # type: ignore[arg-type]
        border=Border(border), jitter=jitter, seed=seed, should_stop=should_stop,
        on_progress=on_progress,
    )  # fmt: skip
    scores = probabilities[:, [c.abnormal for c in info.classes]].sum(axis=1)
    report: dict[str, Any] = {
        **found.facts,
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
    return written(report, out)
