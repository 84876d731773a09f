"""Measure an HSP-Net model folder on labelled regions that it was not trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_cellpath.core.errors import RecipeError
from napari_cellpath.core.vocabulary import Blend, System
from napari_cellpath.models import ModelInfo
from napari_cellpath.systems.hspnet.summary import UNKNOWN_SCALE_UM
from training import class_metrics as cm
from training.datasets import CellData
from training.evaluation import Part, open_evaluation, written
from training.hspnet.crops import Region, load_regions
from training.hspnet.data import layout_of, read_project, read_regions
from training.hspnet.losses import IGNORE
from training.hspnet.recipe import HspData
from training.hspnet.run import region_report
from training.hspnet.scoring import Tiling, score_regions
from training.project_data import is_project


def tiling_of_model(
    info: ModelInfo, stride: int | None = None, blend: Blend | str | None = None
) -> Tiling:
    """How a model looks at regions, unless told otherwise."""
    side = int(info.input["tile"])
    wanted = Blend(blend or info.input.get("blend", Blend.RBF))
    return Tiling(side, int(stride or info.input.get("stride", side)), wanted)


def evaluate_hspnet(
    model: str | Path,
    data: str | Path,
    out: Path | str | None = None,
    *,
    stride: int | None = None,
    blend: Blend | str | None = None,
    least_lesion_mm2: float = 0.0,
    part: Part | None = None,
    groups: Sequence[str] | None = None,
    device: str = "auto",
    should_stop: Callable[[], bool] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Segment the regions of a data folder and report measures with intervals.

    Parameters
    ----------
    model
        Name or folder.
    data
        Folder (layout ``glas`` or ``mtchi``) or a project, what is painted in it.
    out
        Report to write (JSON), or None.
    stride, blend
        Of the tiles; None is the model's own.
    least_lesion_mm2
        Pieces of called tissue below this area count as background.
    part, groups, device, should_stop, on_progress
        As of `training.deeppap_evaluation.evaluate_deeppap`.

    Returns
    -------
    dict
        The report (see `training.region_metrics.region_report`), and which regions it is of.

    Raises
    ------
    RecipeError
        The regions asked for were trained on (they are named), there are none, or a class is not
        the model's.
    """

    def read(info: ModelInfo) -> CellData:
        if is_project(data):
            return read_project(data, info.classes)
        layout = layout_of(data)
        return read_regions(HspData(layout=layout, folder=str(data)))  # type: ignore[arg-type]

    found = open_evaluation(model, System.HSPNET, read, part, groups, device)
    info, cells = found.info, found.cells
    tiling = tiling_of_model(info, stride, blend)
    regions = as_models(load_regions(cells, found.chosen, tiling.side, info.mpp), cells, info)
    least = round(least_lesion_mm2 * 1e6 / (info.mpp or UNKNOWN_SCALE_UM) ** 2)
    scores = score_regions(
        found.network, regions, len(info.classes), tiling, should_stop=should_stop,
        on_progress=on_progress, least_pixels=least,
    )  # fmt: skip
    where = [cells.records[i].group for i in found.chosen]
    report: dict[str, Any] = {
        **found.facts,
        "unit": "regions",
        "tile": tiling.side,
        "stride": tiling.step,
        "blend": str(tiling.blend),
        "least_lesion_mm2": least_lesion_mm2,
        **region_report(scores, where, info.class_names, cells.grouped_by),
    }
    if info.calibration is not None:
        given, truth, _ = scores.pixels
        better = info.calibration.apply_many(given)
        report["calibrated"] = {
            "brier": round(cm.class_brier(truth, better), 4),
            "calibration_error": round(cm.top_calibration_error(truth, better), 4),
        }
    return written(report, out)


def as_models(regions: list[Region], cells: CellData, info: ModelInfo) -> list[Region]:
    """Regions with their classes in the model's order, by name.

    Raises
    ------
    RecipeError
        A class that occurs is none of the model's.
    """
    names, own = info.class_names, [c.name for c in cells.fine_classes]
    if tuple(own) == tuple(names):
        return regions
    table = np.full(256, IGNORE, dtype=np.uint8)
    for number, name in enumerate(own):
        if name in names:
            table[number] = names.index(name)
    for region in regions:
        for value in np.unique(region.classes).tolist():
            if value != IGNORE and table[value] == IGNORE:
                raise RecipeError(
                    f"{cells.folder} has pixels of the class '{own[value]}', which {info.name} "
                    f"does not know; it knows {', '.join(names)}."
                )
    return [Region(r.pixels, table[r.classes]) for r in regions]
