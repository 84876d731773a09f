"""Measure a HEp-2 model folder on labelled cells that it was not trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_cellpath.core.vocabulary import Average, Channel, System
from napari_cellpath.models import ModelInfo
from napari_cellpath.systems.hep2.cells import CellInput
from training import class_metrics as cm
from training.datasets import CellData, targets_of
from training.evaluation import Part, open_evaluation, written
from training.hep2.data import crop_cells, layout_of, read_cells, read_project
from training.hep2.recipe import Hep2Data
from training.hep2.scoring import score_cells
from training.project_data import is_project


def evaluate_hep2(
    model: str | Path,
    data: str | Path,
    out: Path | str | None = None,
    *,
    average: Average | str = Average.MODEL,
    channel: Channel | str = Channel.GREEN,
    part: Part | None = None,
    groups: Sequence[str] | None = None,
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
        Folder (with ``labels.csv``, or one folder of images a pattern) or a project.
    out
        Report to write (JSON), or None.
    average
        ``none``: each cell as it is; ``d4``: the mean over its eight turns and mirrors;
        ``model``: as the model was measured.
    channel
        Which plane of a colour image is looked at.
    part, groups, device, should_stop, on_progress
        As of `training.deeppap_evaluation.evaluate_deeppap`.

    Returns
    -------
    dict
        The report (see `training.class_metrics.class_report`), ``specimens``, and which cells it
        is of.

    Raises
    ------
    RecipeError
        The cells asked for were trained on (they are named), there are none, or a pattern is not
        the model's.
    """

    def read(info: ModelInfo) -> CellData:
        if is_project(data):
            return read_project(data, info.classes)
        where = Hep2Data(
            layout=layout_of(data),
            folder=str(data),
            channel=Channel(channel),  # type: ignore[arg-type]
        )
        return read_cells(where)

    found = open_evaluation(model, System.HEP2, read, part, groups, device)
    records = [found.cells.records[i] for i in found.chosen]
    truth = targets_of(found.cells, found.info)[found.chosen]
    wanted = CellInput.of(found.info.input, found.info.name)
    looks = wanted.average if Average(average) is Average.MODEL else Average(average)
    probabilities = score_cells(
        found.network, crop_cells(records, Channel(channel), wanted), looks,
        should_stop=should_stop, on_progress=on_progress,
    )  # fmt: skip
    where = [r.group for r in records]
    names = list(found.info.class_names)
    report: dict[str, Any] = {
        **found.facts,
        "average": str(looks),
        "channel": str(Channel(channel)),
        "grouped_by": found.cells.grouped_by,
        **cm.class_report(truth, probabilities, where, names),
        "specimens": cm.specimen_table(truth, probabilities, where, names),
    }
    if found.info.calibration is not None:
        better = np.asarray(found.info.calibration.apply_many(probabilities))
        report["calibrated"] = {
            "brier": round(cm.class_brier(truth, better), 4),
            "calibration_error": round(cm.top_calibration_error(truth, better), 4),
        }
    return written(report, out)
