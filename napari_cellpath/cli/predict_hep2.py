"""``cellpath predict hep2``: patterns of cells and the reading of their specimen."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from napari_cellpath.backend import connect
from napari_cellpath.cli import options as o
from napari_cellpath.cli.given import boxes_of_table, pixels_of_labels
from napari_cellpath.cli.running import check_names, rows_of_images, run
from napari_cellpath.core.errors import OutputError, TableError
from napari_cellpath.core.files import write_atomically
from napari_cellpath.core.geometry import check_inside
from napari_cellpath.core.pattern_table import pattern_columns
from napari_cellpath.core.requests import (
    CELL_UM,
    CellBox,
    FileImage,
    FindCellsRequest,
    PatternRequest,
)
from napari_cellpath.core.results import FoundCell, PatternCall
from napari_cellpath.core.specimen import SpecimenRule, judged_of, read_specimen, specimen_path
from napari_cellpath.core.tables import OUTSIDE, read_points, write_calls
from napari_cellpath.core.vocabulary import Average, Channel, Intensity, System
from napari_cellpath.models import ModelEntry, find_model
from napari_cellpath.models.registry import DEFAULT_MODELS
from napari_cellpath.slides.windows import image_mpp, image_notes, image_shape, is_colour
from napari_cellpath.systems.hep2.cells import USUAL_MPP, box_round, boxes_in, check_box
from napari_cellpath.systems.tiling import check_mpp

NUCLEUS_UM = 18.0
"""Diameter of a HEp-2 nucleus round a point, micrometres."""


@dataclass
class _Cells:
    """The cells of one image as given or found; ``off`` are those known to lie outside it."""

    boxes: list[CellBox] = field(default_factory=list)
    specimens: list[str] = field(default_factory=list)
    off: list[tuple[str, float, float]] = field(default_factory=list)
    found: Sequence[FoundCell] = ()
    calls: Sequence[PatternCall] = ()

    def add(self, box: CellBox, specimen: str = "") -> None:
        self.boxes.append(box)
        self.specimens.append(specimen)

    def take(self, found: Sequence[FoundCell], image: str) -> None:
        """Cells found in the image of this name."""
        self.found = found
        for number, cell in enumerate(found):
            self.add(CellBox(*cell.box, uid=str(number)))
        if not found:
            typer.echo(f"{image}: no cell was found.", err=True)


def hep2(
    images: o.Images,
    out: Annotated[Path, typer.Option("--out", help="CSV to write.")],
    labels: Annotated[
        list[Path] | None,
        typer.Option("--labels", help="Label TIFF of the nuclei, one for each image in turn."),
    ] = None,
    boxes: Annotated[
        Path | None,
        typer.Option("--boxes", help="CSV of row0,col0,row1,col1 and, for several, image."),
    ] = None,
    points: Annotated[
        Path | None, typer.Option("--points", help="CSV of row,col and, for several, image.")
    ] = None,
    single_cells: Annotated[
        bool, typer.Option("--single-cells", help="Each image is one cell.")
    ] = False,
    cell_um: Annotated[
        tuple[float, float],
        typer.Option("--cell-um", metavar="SMALLEST LARGEST", help="Diameters to find, um."),
    ] = CELL_UM,
    sensitivity: Annotated[float, typer.Option(help="Above 1, dimmer cells are found too.")] = 1.0,
    diameter: Annotated[
        float, typer.Option(min=1.0, max=200.0, help="Of the nuclei round --points, um.")
    ] = NUCLEUS_UM,
    masks: Annotated[
        Path | None, typer.Option("--masks", help="Label TIFF to write the found cells to.")
    ] = None,
    model: o.ModelOption = DEFAULT_MODELS[System.HEP2],
    channel: o.ChannelOption = Channel.GREEN,
    average: o.AverageOption = Average.MODEL,
    intensity: o.IntensityOption = None,
    specimen: Annotated[str, typer.Option(help="Name of the specimen the images are of.")] = "",
    confidence: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="Least share of cells for the specimen's reading."),
    ] = SpecimenRule.confidence,
    mpp: o.MppOption = None,
    device: o.DeviceOption = o.Device.auto,
    precision: o.PrecisionOption = o.Precision.auto,
    backend: o.BackendOption = None,
    credentials: o.CredentialsOption = None,
    as_json: o.JsonOption = False,
) -> None:
    """Tell the staining pattern of HEp-2 cells, and read their specimen.

    Without --labels, --boxes, --points or --single-cells the cells are found.
    """
    ways = [bool(labels), boxes is not None, points is not None, single_cells]
    if sum(ways) > 1:
        raise TableError("Give one of --labels, --boxes, --points and --single-cells, not several.")
    files = o.image_files(images)
    check_names(files)
    if masks is not None and (any(ways) or len(files) > 1):
        raise OutputError("--masks goes with cells that are found, in one image at a time.")
    given = [*files, *(labels or ()), *(path for path in (boxes, points) if path is not None)]
    for path in (out, specimen_path(out), *(() if masks is None else (masks,))):
        o.check_output(path, given)
    entry = find_model(model, System.HEP2)
    if mpp is not None:
        check_mpp(mpp)
    cells_of: dict[Path, _Cells] = {file: _Cells() for file in files}
    if labels:
        _take_labels(labels, cells_of)
    elif boxes is not None:
        _take_boxes(boxes, cells_of)
    elif points is not None:
        _take_points(points, cells_of, diameter, mpp, entry)
    elif single_cells:
        for file, cells in cells_of.items():
            cells.add(CellBox(0, 0, *image_shape(FileImage(str(file))), uid="0"))
    connection = connect(
        address=backend, device=device, precision=precision, inline=backend is None,
        credentials=credentials,
    )  # fmt: skip
    try:
        for file, cells in cells_of.items():
            image = FileImage(str(file), mpp=mpp)
            _say(image, file.name, channel)
            if not any(ways):
                search = FindCellsRequest(
                    image, str(entry.folder), None, *cell_um, sensitivity, channel
                )
                cells.take(run(connection, search, as_json), file.name)
            if cells.boxes:
                asked = PatternRequest(
                    image, tuple(cells.boxes), str(entry.folder), single_cells, channel, average
                )
                cells.calls = run(connection, asked, as_json)
    finally:
        connection.close()
    names = entry.info.class_names
    records = [r for file in files for r in _records(file.name, cells_of[file], names)]
    columns = pattern_columns(names, entry.info.calibration is not None)
    rule = SpecimenRule(confidence=confidence)
    reading = {
        "model": entry.label,
        "specimen": specimen or None,
        **_readings(cells_of, names, rule, intensity),
    }
    write_calls(out, records, columns)
    text = json.dumps(reading, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(specimen_path(out), text + "\n")
    if masks is not None:
        _write_masks(masks, files[0], cells_of[files[0]], mpp)
    _summarise(records, reading, entry.label, out, as_json)


def _take_labels(labels: Sequence[Path], cells_of: dict[Path, _Cells]) -> None:
    given = pixels_of_labels(labels, list(cells_of), "--labels", "label images")
    for path, file, pixels in given:
        for box in boxes_in(pixels):
            cells_of[file].add(box)
        if not cells_of[file].boxes:
            typer.echo(f"{path.name}: no label; there is no cell to look at.", err=True)


def _take_boxes(table: Path, cells_of: dict[Path, _Cells]) -> None:
    why = "a cell that is there twice would vote twice"
    for file, box, row in boxes_of_table(table, list(cells_of), check_box, why):
        cells_of[file].add(box, row.specimen)


def _take_points(
    table: Path, cells_of: dict[Path, _Cells], diameter: float, mpp: float | None, entry: ModelEntry
) -> None:
    for file, rows in rows_of_images(read_points(table), list(cells_of), table).items():
        if not rows:
            continue
        image = FileImage(str(file), mpp)
        pixels = diameter / (image_mpp(image) or entry.info.mpp or USUAL_MPP)
        for row in rows:
            if row.outside:
                cells_of[file].off.append((row.id, row.row, row.col))
                continue
            where = f"{table.name} line {row.line}"
            check_inside(row.row, row.col, image_shape(image), where, file.name)
            cells_of[file].add(box_round(row.row, row.col, pixels, row.id))


def _say(image: FileImage, name: str, channel: Channel) -> None:
    """What was done to an image's pixels, and which channel of a colour image is looked at."""
    for note in image_notes(image):
        typer.echo(f"{name}: {note}", err=True)
    if is_colour(image):
        what = "the mean of its channels" if channel is Channel.MEAN else f"its {channel} channel"
        typer.echo(f"{name}: a colour image; {what} is used (--channel takes another).", err=True)


def _records(image: str, cells: _Cells, names: Sequence[str]) -> list[dict[str, Any]]:
    return [_record(image, call, names) for call in cells.calls] + [
        {"image": image, "id": identity, "row": row, "col": col, "flags": (OUTSIDE,)}
        for identity, row, col in cells.off
    ]


def _record(image: str, call: PatternCall, names: Sequence[str]) -> dict[str, Any]:
    record: dict[str, Any] = {
        "image": image, "id": call.uid, "row": call.row, "col": call.col,
        "pattern": call.label, "model": call.model, "flags": call.flags,
    }  # fmt: skip
    if call.label:
        record |= {f"p_{name}": p for name, p in zip(names, call.probabilities, strict=True)}
    if call.calibrated:
        record["calibrated"] = call.calibrated[names.index(call.label)]
    return record


def _readings(
    cells_of: dict[Path, _Cells],
    names: Sequence[str],
    rule: SpecimenRule,
    intensity: Intensity | None,
) -> dict[str, Any]:
    """The roll-up of all cells, of each image and of each specimen that a table names."""

    def read(calls: Sequence[PatternCall]) -> dict[str, Any]:
        labels, probabilities, calibrated = judged_of(calls, len(names))
        return read_specimen(
            labels, probabilities, names, rule=rule, intensity=intensity, calibrated=calibrated
        )

    of_specimen: dict[str, list[PatternCall]] = {}
    for cells in cells_of.values():
        for call, named in zip(cells.calls, cells.specimens, strict=True):
            if named:
                of_specimen.setdefault(named, []).append(call)
    return {
        **read([call for cells in cells_of.values() for call in cells.calls]),
        "images": {file.name: read(cells.calls) for file, cells in cells_of.items()},
        "specimens": {name: read(calls) for name, calls in sorted(of_specimen.items())},
    }


def _write_masks(masks: Path, file: Path, cells: _Cells, mpp: float | None) -> None:
    from io import BytesIO

    import tifffile

    from napari_cellpath.systems.hep2.find_plan import mask_image

    image = FileImage(str(file), mpp)
    known = image_mpp(image)
    stream = BytesIO()
    tifffile.imwrite(
        stream,
        mask_image(cells.found, image_shape(image)),
        compression="zlib",
        resolution=(1e4 / known, 1e4 / known) if known else None,
        resolutionunit="CENTIMETER" if known else None,
    )
    write_atomically(masks, stream.getvalue())


def _summarise(
    records: Sequence[dict[str, Any]], reading: dict[str, Any], model: str, out: Path, as_json: bool
) -> None:
    if as_json:
        facts = {
            "model": model, "out": str(out), "cells": len(records), "specimen": reading,
            "results": list(records),
        }  # fmt: skip
        typer.echo(json.dumps(facts, ensure_ascii=False))
        return
    votes = ", ".join(f"{n} {name}" for name, n in reading["votes"].items() if n) or "none judged"
    unjudged = len(records) - reading["judged"]
    if unjudged:
        votes += f", {unjudged} not judged (see flags)"
    cells = "1 cell" if len(records) == 1 else f"{len(records)} cells"
    what = "no reading" if reading["abstained"] else f"reading {reading['reading']}"
    mixed = f" Mixed with {', '.join(reading['mixed_with'])}." if reading["mixed"] else ""
    typer.echo(
        f"{cells}: {votes}; {what}. {reading['why']}{mixed} Model {model}. Written to {out}."
    )
