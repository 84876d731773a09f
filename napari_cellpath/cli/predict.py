"""``cellpath predict``: score images from the command line, the same numbers as in napari."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from napari_cellpath.backend import connect
from napari_cellpath.cli import options as o
from napari_cellpath.cli.predict_hep2 import hep2
from napari_cellpath.cli.predict_hspnet import hspnet
from napari_cellpath.cli.predict_rbc import rbc
from napari_cellpath.cli.running import check_names, rows_of_images, run
from napari_cellpath.core.errors import TableError
from napari_cellpath.core.geometry import check_inside
from napari_cellpath.core.requests import (
    NUCLEUS_CONTRAST,
    NUCLEUS_UM,
    FileImage,
    FindNucleiRequest,
    Nucleus,
    NucleusRequest,
)
from napari_cellpath.core.results import FoundNucleus, NucleusCall
from napari_cellpath.core.summary import summarise, summary_path, write_summary
from napari_cellpath.core.tables import OUTSIDE, PointRow, nucleus_columns, read_points, write_calls
from napari_cellpath.core.vocabulary import UNLIKE_FLAGS, Border, Preset, System
from napari_cellpath.models import find_model
from napari_cellpath.models.registry import DEFAULT_MODELS
from napari_cellpath.slides.windows import image_mpp, image_notes, image_shape
from napari_cellpath.systems.deeppap.presets import USUAL_MPP

MPP_TOLERANCE = 0.05
"""Share by which a given pixel size may differ from the file's without a word."""

app = typer.Typer(no_args_is_help=True, help="Score cells or regions of images.")


@app.callback()
def _group() -> None:
    """Score cells or regions of images."""


app.command("hep2")(hep2)
app.command("hspnet")(hspnet)
app.command("rbc")(rbc)


@app.command("deeppap")
def deeppap(
    images: o.Images,
    out: Annotated[Path, typer.Option("--out", help="CSV to write.")],
    points: Annotated[
        Path | None,
        typer.Option("--points", help="CSV of nucleus centres: row,col and, for several, image."),
    ] = None,
    find_nuclei: Annotated[
        bool, typer.Option("--find-nuclei", help="Find the nuclei instead of taking points.")
    ] = False,
    region: Annotated[
        tuple[int, int, int, int] | None,
        typer.Option(
            "--region", metavar="ROW COL HEIGHT WIDTH", help="Find nuclei only there, pixels."
        ),
    ] = None,
    nucleus_um: Annotated[
        tuple[float, float],
        typer.Option(
            "--nucleus-um", metavar="SMALLEST LARGEST", help="Diameters of nuclei to find, um."
        ),
    ] = NUCLEUS_UM,
    contrast: Annotated[
        float,
        typer.Option(help="How much denser than round it a nucleus to find is."),
    ] = NUCLEUS_CONTRAST,
    model: o.ModelOption = DEFAULT_MODELS[System.DEEPPAP],
    views: o.ViewsOption = Preset.BALANCED,
    threshold: o.ThresholdOption = None,
    review_band: o.ReviewBandOption = None,
    border: o.BorderOption = Border.ZERO,
    mpp: o.MppOption = None,
    seed: o.SeedOption = 0,
    device: o.DeviceOption = o.Device.auto,
    precision: o.PrecisionOption = o.Precision.auto,
    backend: o.BackendOption = None,
    credentials: o.CredentialsOption = None,
    as_json: o.JsonOption = False,
) -> None:
    """Score cervical cells around nucleus centres (DeepPap)."""
    if (points is None) != find_nuclei:
        raise TableError("Give --points with the nuclei's centres, or --find-nuclei; not both.")
    if region is not None and not find_nuclei:
        raise TableError("--region goes with --find-nuclei; points say themselves where they are.")
    if not find_nuclei and (tuple(nucleus_um) != NUCLEUS_UM or contrast != NUCLEUS_CONTRAST):
        raise TableError("--nucleus-um and --contrast go with --find-nuclei, not with --points.")
    files = o.image_files(images)
    check_names(files)
    for path in (out, summary_path(out)):
        o.check_output(path, [*files, *([] if points is None else [points])])
    entry = find_model(model, System.DEEPPAP)
    band = entry.info.review_band if review_band is None else review_band
    rows_of: dict[Path, list[PointRow]] = {}
    if points is not None:
        rows_of = rows_of_images(read_points(points), files, points)
        _check_points(rows_of, points)
    connection = connect(
        address=backend, device=device, precision=precision, inline=backend is None,
        credentials=credentials,
    )  # fmt: skip
    try:
        if points is None:
            for file in files:
                found = FindNucleiRequest(
                    FileImage(str(file), mpp=mpp), str(entry.folder), region, *nucleus_um, contrast
                )
                rows_of[file] = _found_rows(run(connection, found, quiet=as_json), file)
        on_image = {file: [r for r in rows if not r.outside] for file, rows in rows_of.items()}
        for file, rows in on_image.items():
            for note in image_notes(FileImage(str(file))) if rows else ():
                typer.echo(f"{file.name}: {note}", err=True)
            own = image_mpp(FileImage(str(file))) if rows else None
            if mpp is not None and own is not None and abs(own / mpp - 1.0) > MPP_TOLERANCE:
                typer.echo(
                    f"{file.name} itself says {own:.4g} um per pixel; --mpp {mpp:g} is used.",
                    err=True,
                )
        requests = [
            NucleusRequest(
                image=FileImage(str(file), mpp=mpp),
                nuclei=tuple(Nucleus(r.row, r.col, uid=f"{n}:{r.line}") for r in on_image[file]),
                model=str(entry.folder),
                preset=views,
                seed=seed,
                threshold=threshold,
                border=border,
            )
            for n, file in enumerate(files)
            if on_image[file]
        ]
        calls = [call for r in requests for call in run(connection, r, quiet=as_json)]
    finally:
        connection.close()
    answers = iter(calls)  # requests keep the rows' order, and so do their results
    records = [
        _unscored(file.name, row)
        if row.outside
        else _record(file.name, row.id, next(answers), entry.info.class_names)
        for file in files
        for row in rows_of[file]
    ]
    _say_unknown_scale(records, entry.info.mpp or USUAL_MPP)
    columns = nucleus_columns(entry.info.class_names, entry.info.calibration is not None)
    write_calls(out, records, columns)
    effective = entry.info.threshold if threshold is None else threshold
    write_summary(out, summarise(records, threshold=effective, band=band, model=entry.label))
    _summarise(records, calls, entry.label, band, out, as_json)


def _check_points(rows_of: dict[Path, list[PointRow]], table: Path) -> None:
    for file, rows in rows_of.items():
        on_image = [r for r in rows if not r.outside]
        shape = image_shape(FileImage(str(file))) if on_image else (0, 0)
        for r in on_image:
            check_inside(r.row, r.col, shape, f"{table} line {r.line}", file.name)


def _found_rows(found: Sequence[FoundNucleus], file: Path) -> list[PointRow]:
    if not found:
        typer.echo(f"{file.name}: no nucleus was found.", err=True)
    return [PointRow(file.name, str(n), f.row, f.col, n, False) for n, f in enumerate(found)]


def _unscored(image: str, row: PointRow) -> dict[str, Any]:
    return {"image": image, "id": row.id, "row": row.row, "col": row.col, "flags": (OUTSIDE,)}


def _record(
    image: str, identity: str, call: NucleusCall, class_names: Sequence[str]
) -> dict[str, Any]:
    record: dict[str, Any] = {
        "image": image,
        "id": identity,
        "row": call.row,
        "col": call.col,
        "n_views": call.n_views,
        "label": call.label,
        "model": call.model,
        "flags": call.flags,
    }
    if not math.isfinite(call.score):
        return record  # the flags say why there is none
    record |= {"score": call.score, "std": call.std}
    if call.calibrated is not None:
        record["calibrated"] = call.calibrated
    if len(class_names) > 2:
        record |= {f"p_{name}": p for name, p in zip(class_names, call.probabilities, strict=True)}
    return record


def _say_unknown_scale(records: Sequence[dict[str, Any]], usual: float) -> None:
    for name in dict.fromkeys(r["image"] for r in records if "unknown-scale" in r["flags"]):
        typer.echo(
            f"{name} does not say its pixel size; the model's {usual:g} um was taken. Give --mpp.",
            err=True,
        )


def _summarise(
    records: Sequence[dict[str, Any]],
    calls: Sequence[NucleusCall],
    model: str,
    band: float,
    out: Path,
    as_json: bool,
) -> None:
    counts: dict[str, int] = {}
    for call in calls:
        if call.label:
            counts[call.label] = counts.get(call.label, 0) + 1
    unscored = len(records) - sum(counts.values())
    doubtful = sum(call.doubtful(band) for call in calls)
    unlike = sum(not UNLIKE_FLAGS.isdisjoint(call.flags) for call in calls)
    if as_json:
        summary = {
            "model": model, "out": str(out), "cells": len(records), "labels": counts,
            "unscored": unscored, "doubtful": doubtful, "unlike": unlike, "review_band": band,
            "results": list(records),
        }  # fmt: skip
        typer.echo(json.dumps(summary, ensure_ascii=False))
        return
    what = ", ".join(f"{n} {label}" for label, n in sorted(counts.items())) or "none scored"
    if unscored:
        what += f", {unscored} not scored (blank or off the image; see flags)"
    cells = "1 cell" if len(records) == 1 else f"{len(records)} cells"
    strange = f"; {unlike} unlike the cells the model was trained on (see flags)" if unlike else ""
    typer.echo(
        f"{cells}: {what}; {doubtful} within {band:g} of the threshold, "
        f"worth a look{strange}. Model {model}. Written to {out}."
    )
