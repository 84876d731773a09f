"""HEp-2 cells as a CSV with their specimen's reading, and the command line for the same."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from napari_cellpath.bridge.cells import CellsLayer
from napari_cellpath.bridge.export import CORRECTION, file_of, probabilities_of, rows_of
from napari_cellpath.core.box_table import BOX_COLUMNS
from napari_cellpath.core.errors import CellpathError
from napari_cellpath.core.files import write_atomically
from napari_cellpath.core.pattern_table import pattern_columns
from napari_cellpath.core.requests import PatternRequest
from napari_cellpath.core.results import PatternCall
from napari_cellpath.core.specimen import specimen_path
from napari_cellpath.core.tables import write_calls
from napari_cellpath.core.vocabulary import Average, Channel


def cell_rows(cells: CellsLayer, image: str) -> list[dict[str, Any]]:
    """One mapping a cell, in the layer's order, named as ``cellpath predict hep2`` names them.

    Beside them stand the boxes, so that the file can be given back with ``--boxes``, and what a
    person said.
    """
    table, classes = cells.table, cells.table.scheme.classes
    rows = []
    for number, (row, call) in enumerate(rows_of(cells, image)):
        row |= dict(zip(BOX_COLUMNS, table.boxes_as_kept(number), strict=True))
        if isinstance(call, PatternCall):
            row |= {"pattern": call.label, "model": call.model}
            row |= probabilities_of(call, classes)
            if call.calibrated and call.label in classes:
                row["calibrated"] = call.calibrated[classes.index(call.label)]
        rows.append(row)
    return rows


def export_cells(
    path: str | os.PathLike[str], cells: CellsLayer, image: str, reading: Mapping[str, Any]
) -> int:
    """Write all cells of a layer and beside them, as ``NAME.specimen.json``, their reading.

    Returns how many cells there are. Each file appears whole or not at all.

    Raises
    ------
    CellpathError
        There is nothing to write, or a file cannot be written.
    """
    rows = cell_rows(cells, image)
    if not rows:
        raise CellpathError("There are no cells to export yet; find or click some first.")
    columns = pattern_columns(cells.table.scheme.classes, any("calibrated" in row for row in rows))
    write_calls(path, rows, (*columns, *BOX_COLUMNS, CORRECTION))
    text = json.dumps(reading, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(specimen_path(Path(path)), text + "\n")
    return len(rows)


def cells_command(
    request: PatternRequest, boxes: str, out: str, *, model: str, intensity: str = ""
) -> str:
    """The command that classifies these boxes with these settings, quoted for a POSIX shell.

    Parameters
    ----------
    request
        Image, model and settings; its cells are read from ``boxes``.
    boxes, out
        CSV files to read and to write.
    model
        How the command names the model.
    intensity
        Of the specimen; empty if nobody says.

    Raises
    ------
    CellpathError
        The image is only in memory: a command cannot name it.
    """
    image = file_of(request.image)
    words = ["cellpath", "predict", "hep2", image.path, "--boxes", boxes, "--out", out]
    words += ["--model", model]
    if request.channel is not Channel.GREEN:
        words += ["--channel", str(request.channel)]
    if request.average is not Average.MODEL:
        words += ["--average", str(request.average)]
    if intensity:
        words += ["--intensity", intensity]
    if image.mpp is not None:
        words += ["--mpp", f"{image.mpp:g}"]
    return shlex.join(words)
