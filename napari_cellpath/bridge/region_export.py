"""Regions of red cells for the CSV, for the slide's summary, and as a command line."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from napari_cellpath.bridge.export import CORRECTION, file_of, rows_of
from napari_cellpath.bridge.red_cells import RedCellsLayer
from napari_cellpath.core.errors import CellpathError
from napari_cellpath.core.region_summary import summarise_regions
from napari_cellpath.core.region_table import region_columns, region_record
from napari_cellpath.core.requests import LabelRegionsRequest
from napari_cellpath.core.results import RegionCall
from napari_cellpath.core.summary import write_summary
from napari_cellpath.core.tables import write_calls
from napari_cellpath.core.vocabulary import Average, Fit

VERDICT = "verdict"
"""What follows from the call and what a person said: beside both, in place of neither."""


def region_rows(regions: RedCellsLayer, image: str) -> list[dict[str, Any]]:
    """One mapping a region, in the layer's order, named as ``cellpath predict rbc`` names them.

    Beside them stands what a person said, and the verdict that follows.
    """
    table, types = regions.table, regions.table.scheme.classes
    rows = []
    for number, (row, call) in enumerate(rows_of(regions, image)):
        of_model = isinstance(call, RegionCall) and table.is_of_scheme(call)
        detection = float(table.features["detection"][number])
        record = region_record(
            image, row["id"], table.boxes_as_kept(number), types,
            call if isinstance(call, RegionCall) and of_model else None,
            None if np.isnan(detection) else detection,
        )  # fmt: skip
        record |= {CORRECTION: row[CORRECTION], "flags": row["flags"]}
        rows.append(record | {VERDICT: str(table.features["verdict"][number])})
    return rows


def export_regions(path: str | os.PathLike[str], regions: RedCellsLayer, image: str) -> int:
    """Write all regions of a layer and beside them, as ``NAME.summary.json``, the slide's counts.

    Returns how many regions there are. Each file appears whole or not at all.

    Raises
    ------
    CellpathError
        There is nothing to write, or a file cannot be written.
    """
    rows = region_rows(regions, image)
    if not rows:
        raise CellpathError("There are no regions to export yet; detect or draw some first.")
    write_calls(path, rows, (*region_columns(regions.table.scheme.classes), VERDICT, CORRECTION))
    write_summary(Path(path), summary_of(regions, image)())
    return len(rows)


def summary_of(regions: RedCellsLayer, image: str) -> Callable[[], dict[str, Any]]:
    """What gives the slide's counts, of the regions as they are now; it may run on any thread.

    A person's word goes before the model's. Regions off the image do not count, stale ones only
    where a person spoke. See `napari_cellpath.core.region_summary.summarise_regions`.
    """
    table, scheme = regions.table, regions.table.scheme
    columns = table.features
    here = np.flatnonzero(~table.outside)
    boxes, standing = table.clipped(here).tolist(), table.standing(here)
    valid = ~columns["stale"][here] | (columns["correction"][here] != "")
    verdicts = np.where(valid, columns["verdict"][here], "").tolist()
    flags = columns["flags"][here].tolist()
    thresholds = table.thresholds

    def read() -> dict[str, Any]:
        names = np.array(scheme.classes, dtype=object)
        records = [
            {
                "image": image, "row0": box[0], "col0": box[1], "row1": box[2], "col1": box[3],
                "labels": tuple(names[held]), "call": verdict, "flags": tuple(flag.split()),
            }
            for box, held, verdict, flag in zip(boxes, standing, verdicts, flags, strict=True)
        ]  # fmt: skip
        return summarise_regions(
            records, scheme.classes, thresholds=thresholds, images=[image],
            model=scheme.settings[0] if scheme.settings else scheme.model,
            abnormal_threshold=scheme.threshold,
        )  # fmt: skip

    return read


def regions_command(request: LabelRegionsRequest, boxes: str, out: str, *, model: str) -> str:
    """The command that classifies these boxes with these settings, quoted for a POSIX shell.

    Parameters
    ----------
    request
        Image, model and settings; its boxes are read from ``boxes``.
    boxes, out
        CSV files to read and to write.
    model
        How the command names the model.

    Raises
    ------
    CellpathError
        The image is only in memory: a command cannot name it.
    """
    image = file_of(request.image)
    words = ["cellpath", "predict", "rbc", image.path, "--boxes", boxes, "--out", out]
    words += ["--model", model]
    if request.fit is not Fit.MODEL:
        words += ["--fit", str(request.fit)]
    if request.average is not Average.MODEL:
        words += ["--average", str(request.average)]
    if image.mpp is not None:
        words += ["--mpp", f"{image.mpp:g}"]
    return shlex.join(words)
