"""Measure an RBC model folder on labelled regions that it was not trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from napari_cellpath.core.vocabulary import System
from napari_cellpath.models import ModelInfo, read_tensors
from napari_cellpath.systems.rbc.boxes import RegionInput
from napari_cellpath.systems.rbc.network import Cascade
from napari_cellpath.systems.rbc.verdict import Booster
from training.datasets import CellRecord
from training.evaluation import Opened, Part, open_evaluation, written
from training.project_data import is_project
from training.rbc.data import layout_of, read_cells
from training.rbc.detection_metrics import IOU
from training.rbc.measured import Judge, detector_report, judged
from training.rbc.patches import exact_patches
from training.rbc.project import read_project
from training.rbc.recipe import RbcData
from training.rbc.scoring import score_patches
from training.rbc.table import RedCells, targets_for

AT_ONCE = 512
"""Boxes in memory at once."""


def evaluate_rbc(
    model: str | Path,
    data: str | Path,
    out: Path | str | None = None,
    *,
    iou: float = IOU,
    part: Part | None = None,
    groups: Sequence[str] | None = None,
    device: str = "auto",
    should_stop: Callable[[], bool] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Score the regions of a data folder and report measures with intervals.

    Parameters
    ----------
    model
        Name or folder.
    data
        Folder (with ``boxes_derived.csv``, or ``labels.csv``) or a project.
    out
        Report to write (JSON), or None.
    iou
        Intersection over union from which a detection is a true one.
    part, groups, device, should_stop, on_progress
        As of `training.deeppap_evaluation.evaluate_deeppap`.

    Returns
    -------
    dict
        ``cells``, ``regions``, ``single``, ``multi`` (see `training.rbc.data.kinds_of`),
        ``detector`` on the boxes as they are given and ``detector_regions`` on merged ones, each
        with a watershed beside it, ``summary``, and which regions it is of.

    Raises
    ------
    RecipeError
        The regions asked for were trained on (they are named), there are none, or a type is not
        the model's.
    """

    def read(info: ModelInfo) -> RedCells:
        if is_project(data):
            return read_project(data, info.classes)
        return read_cells(RbcData(layout=layout_of(data), folder=str(data)))  # type: ignore[arg-type, call-arg]

    found = open_evaluation(model, System.RBC, read, part, groups, device)
    cells, info, network = found.cells, found.info, found.network
    assert isinstance(cells, RedCells)  # read() gives it  # noqa: S101
    assert isinstance(network, Cascade)  # the registry knows no other kind of model  # noqa: S101
    judge = judge_of(found.folder, info)
    records = [cells.records[i] for i in found.chosen]
    given = probabilities_of(
        network, records, RegionInput.of(info.input, info.name), should_stop, on_progress
    )
    seen = _in_types_of(cells, info, found.chosen)
    report: dict[str, Any] = {
        **found.facts,
        "grouped_by": cells.grouped_by,
        "booster": judge.booster is not None,
        **judged(seen, np.arange(len(records)), given, judge),
    }
    if network.detector is not None:
        report |= _detected(found, cells, iou, should_stop)
    report["summary"] = _summary(report)
    return written(report, out)


def judge_of(folder: Path, info: ModelInfo) -> Judge:
    """How a model folder's probabilities are read."""
    booster = Booster.of_tensors(read_tensors(folder), len(info.classes), str(folder))
    thresholds = info.input.get("thresholds", [0.5] * len(info.classes))
    return Judge(info.classes, thresholds, booster, info.threshold)


def probabilities_of(
    network: Any,
    records: Sequence[CellRecord],
    wanted: RegionInput,
    should_stop: Callable[[], bool] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float64]:
    """Probability of each type, (n, n_types), of boxes cut as ``cellpath predict`` cuts them."""
    patches = exact_patches(records, wanted)
    found = []
    for start in range(0, len(records), AT_ONCE):
        some = torch.stack([patches[i] for i in range(start, min(start + AT_ONCE, len(records)))])
        found.append(score_patches(network, some, wanted.average, should_stop=should_stop))
        if on_progress is not None:
            on_progress(start + len(some), len(records))
    return np.concatenate(found)


def _in_types_of(cells: RedCells, info: ModelInfo, rows: list[int]) -> RedCells:
    """The chosen records, their labels in the model's types."""
    targets = targets_for(cells, info.classes)[rows]
    records = tuple(
        replace(cells.records[i], targets=tuple(row))  # type: ignore[call-arg]
        for i, row in zip(rows, targets.tolist(), strict=True)
    )
    return replace(cells, records=records, fine_classes=info.classes)


def _detected(
    found: Opened, cells: RedCells, iou: float, should_stop: Callable[[], bool] | None
) -> dict[str, Any]:
    """The detector on the fields of the chosen regions' groups."""
    groups = {cells.records[i].group for i in found.chosen}
    fields = [f for f in cells.fields if f.group in groups and f.boxes]
    if not fields:
        return {}
    wanted = RegionInput.of(found.info.input, found.info.name)
    reports = {}
    for key, truth in (("detector", "cells"), ("detector_regions", "regions")):
        reports[key] = detector_report(
            found.network.detector, fields, wanted.scale, truth, iou=iou, score=wanted.score,
            baseline=True, should_stop=should_stop,
        )  # fmt: skip
    return reports


def _summary(report: dict[str, Any]) -> dict[str, Any]:
    """What is asked for first."""
    summary: dict[str, Any] = {}
    if "detector" in report:
        summary["detector_ap"] = report["detector"]["ap"]
        summary["watershed_ap"] = report["detector"]["watershed"]["ap"]
    for kind in ("cells", "multi"):
        if kind in report:
            measured = report[kind]
            summary[kind] = {
                "n": measured["n"],
                "macro_auc": measured["macro_auc"],
                "exact_match": measured["exact_match"],
                "abnormal_accuracy": measured["abnormal"]["accuracy"],
                "max_rule_accuracy": measured["max_rule"]["accuracy"],
            }
    return summary
