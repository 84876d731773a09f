"""Rows for the CSV, and the command line that gives the same numbers again."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Image as ImageLayer

from napari_cellpath.bridge.nuclei import NucleiLayer
from napari_cellpath.bridge.objects import ObjectLayer
from napari_cellpath.bridge.scheme import Call
from napari_cellpath.core.errors import CellpathError
from napari_cellpath.core.requests import FileImage, Image, NucleusRequest
from napari_cellpath.core.results import NucleusCall
from napari_cellpath.core.summary import summarise, write_summary
from napari_cellpath.core.tables import OUTSIDE, nucleus_columns, write_calls
from napari_cellpath.core.vocabulary import Border

CORRECTION = "correction"


def image_name(image: Image) -> str:
    """What the CSV calls an image: the file's name, or that of the layer."""
    return Path(image.path).name if isinstance(image, FileImage) else image.name


def layer_name(layer: ImageLayer) -> str:
    """What the CSV calls an image of which nothing but its layer is known."""
    return Path(str(layer.source.path)).name if layer.source.path else str(layer.name)


def csv_rows(nuclei: NucleiLayer, image: str) -> list[dict[str, Any]]:
    """One mapping a nucleus, in the layer's order; unscored ones have no score.

    The label is the call as shown (current threshold); what a person said stands beside it in
    ``correction`` and never in its place. Calls of other settings carry the flag ``stale``.
    """
    table = nuclei.table
    several = len(table.scheme.classes) > 2
    rows = []
    for row, call in rows_of(nuclei, image):
        if isinstance(call, NucleusCall):
            row |= {"n_views": call.n_views, "label": call.label, "model": call.model}
            if np.isfinite(call.score):
                row |= {"score": call.score, "std": call.std}
                if call.calibrated is not None:
                    row["calibrated"] = call.calibrated
            if several:
                row |= probabilities_of(call, table.scheme.classes)
        rows.append(row)
    return rows


def rows_of(objects: ObjectLayer, image: str) -> Iterator[tuple[dict[str, Any], Call | None]]:
    """What every table says of each object, and its call; None where it has none at its place."""
    table = objects.table
    named = {str(name) for name in table.features["id"]}
    for number, uid in enumerate(table.uids):
        # Clicked objects have no id of their own; the row's number must not repeat another's id.
        own = str(number) if str(number) not in named else f"row{number}"
        call = None if table.outside[number] else table.call_of(str(uid))
        flags: tuple[str, ...] = (OUTSIDE,) if table.outside[number] else ()
        if call is not None:
            flags += call.flags + (("stale",) if table.features["stale"][number] else ())
        yield (
            {
                "image": image,
                "id": table.features["id"][number] or own,
                "row": float(table.positions[number, 0]),
                "col": float(table.positions[number, 1]),
                CORRECTION: table.features["correction"][number],
                "flags": flags,
            },
            call,
        )


def probabilities_of(call: Call, classes: Sequence[str]) -> dict[str, float]:
    """The ``p_CLASS`` fields of a call; empty where it is of other classes or no answer."""
    if len(call.probabilities) != len(classes):
        return {}
    given = zip(classes, call.probabilities, strict=True)
    return {f"p_{name}": p for name, p in given if np.isfinite(p)}


def csv_columns(classes: Sequence[str], calibrated: bool = False) -> tuple[str, ...]:
    """Columns of the CSV: those of ``cellpath predict deeppap``, then the correction.

    ``calibrated``: the model has a calibration, whose score stands beside the raw one.
    """
    return (*nucleus_columns(classes, calibrated), CORRECTION)


def export_csv(path: str | os.PathLike[str], nuclei: NucleiLayer, image: str) -> int:
    """Write all nuclei of a layer; returns how many. The file appears whole or not at all.

    Beside it goes a summary, ``NAME.summary.json``: cells by band, the most abnormal first.

    It can be given back to ``cellpath predict deeppap --points``. ``image`` is its image's name.

    Raises
    ------
    CellpathError
        There is nothing to write, or the file cannot be written.
    """
    rows = csv_rows(nuclei, image)
    if not rows:
        raise CellpathError("There are no nuclei to export yet; click some first.")
    calibrated = any("calibrated" in row for row in rows)
    write_calls(path, rows, csv_columns(nuclei.table.scheme.classes, calibrated))
    scheme, seen = nuclei.table.scheme, nuclei.table.features["seen"]
    summary = summarise(
        [{**row, "seen": bool(s)} for row, s in zip(rows, seen, strict=True)],
        threshold=scheme.threshold, band=scheme.band, model=scheme.settings[0] if scheme.settings
        else scheme.model,
        abnormal=[name for name, bad in zip(scheme.classes, scheme.abnormal, strict=True) if bad],
    )  # fmt: skip
    write_summary(Path(path), summary)
    return len(rows)


def file_of(image: Image) -> FileImage:
    """The image as a command can name it.

    Raises
    ------
    CellpathError
        It is only in memory.
    """
    if not isinstance(image, FileImage):
        raise CellpathError(
            f"'{image.name}' is only in memory (or differs from its file); save it as "
            "TIFF or PNG and open that file, then a command can name it."
        )
    return image


def command_line(request: NucleusRequest, points: str, out: str, *, model: str) -> str:
    """The command that scores these points with these settings, quoted for a POSIX shell.

    Parameters
    ----------
    request
        Image, model and settings; its nuclei are read from ``points``.
    points, out
        CSV files to read and to write.
    model
        How the command names the model.

    Raises
    ------
    CellpathError
        The image is only in memory: a command cannot name it.
    """
    image = file_of(request.image)
    words = ["cellpath", "predict", "deeppap", image.path, "--points", points]
    words += ["--out", out, "--views", str(request.preset), "--model", model]
    words += ["--seed", str(request.seed)]
    if request.threshold is not None:
        words += ["--threshold", f"{request.threshold:g}"]
    if image.mpp is not None:
        words += ["--mpp", f"{image.mpp:g}"]
    if request.border is not Border.ZERO:
        words += ["--border", str(request.border)]
    return shlex.join(words)
