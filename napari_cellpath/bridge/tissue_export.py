"""A region as it stands, in files: OME-Zarr, OME-TIFF, GeoJSON, CSV, a report; and its command."""

from __future__ import annotations

import json
import secrets
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np

from napari_cellpath.bridge.corrected import CorrectedStore
from napari_cellpath.bridge.export import file_of
from napari_cellpath.bridge.tissue_reading import Reading, read_region
from napari_cellpath.bridge.tissue_report import write_report
from napari_cellpath.core.errors import CellpathError, OutputError
from napari_cellpath.core.files import write_atomically
from napari_cellpath.core.requests import Image, SegmentRequest
from napari_cellpath.core.vocabulary import Blend, RegionMode
from napari_cellpath.slides.region_store import RegionStore
from napari_cellpath.systems.hspnet.summary import LEAST_LESION_MM2

FORMATS = {
    ".ome.zarr": "OME-Zarr labels",
    ".geojson": "QuPath GeoJSON outlines",
    ".ome.tif": "OME-TIFF labels",
    ".csv": "CSV of areas",
}
"""Ending of a file, and what it holds."""
REPORTS = {".html": "HTML page", ".pdf": "PDF page"}
_BAND = 512


def writer(
    store: CorrectedStore, path: Path, least_lesion_mm2: float, image: Image | None
) -> Callable[[], str]:
    """What writes a region to a file as its ending says, on any thread, and says what it wrote.

    Parameters
    ----------
    store
        The region as it stands.
    path
        Of the file to write.
    least_lesion_mm2
        See `summarise`.
    image
        Shown in a report; None: there is no picture.

    Raises
    ------
    CellpathError
        The ending names no format.
    """
    ending = next((e for e in (*FORMATS, *REPORTS) if path.name.lower().endswith(e)), "")
    if not ending:
        raise OutputError(
            f"{path.name}: the ending decides the format; {', '.join((*FORMATS, *REPORTS))} "
            "are known."
        )

    def write() -> str:
        summary = read_region(store, least_lesion_mm2)
        summary.pop("places")
        if ending in REPORTS:
            write_report(path, store, summary, image)
        elif ending == ".csv":
            from napari_cellpath.project.interchange.region import write_areas

            write_areas(path, summary)
        elif ending == ".geojson":
            from napari_cellpath.project.interchange.region import write_outlines

            count, _ = write_outlines(path, cast("Any", store))
            return f"{count:,} outlines written to {path}."
        elif ending == ".ome.tif":
            from napari_cellpath.project.interchange.region import write_tiff

            write_tiff(path, cast("Any", store))
            _write_summary(path, ending, summary)
        else:
            _write_zarr(path, store)
            _write_summary(path, ending, summary)
        return f"The region was written to {path}."

    return write


def _write_summary(path: Path, ending: str, summary: Reading) -> None:
    """Beside labels stands what the command line writes there: ``NAME.summary.json``."""
    stem = path.name[: -len(ending)]
    text = json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(path.with_name(f"{stem}.summary.json"), text + "\n")


def _write_zarr(path: Path, store: CorrectedStore) -> None:
    """A store of the region as it stands, whole or not at all."""
    if path.exists():
        raise OutputError(f"{path} exists already; choose another name.")
    draft = path.with_name(f".{secrets.token_hex(4)}.{path.name}")
    try:
        copy = RegionStore.create(draft, store.facts)
        done = store.progress.rows_done
        for row in range(0, done, _BAND):
            end = min(row + _BAND, done)
            chances = (
                np.asarray(store.probabilities[0][:, row:end]) if store.probabilities else None
            )
            copy.write_rows(row, store.rows(row, end), chances)
        told = store.store.progress
        copy.note(
            damaged=told.damaged, segments=told.segments, precision=told.precision,
            device=told.device,
        )  # fmt: skip
        draft.rename(path)
    except OSError as error:
        if isinstance(error, CellpathError):
            raise
        raise OutputError(f"{path} cannot be written ({error.strerror or error}).") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def command_line(
    request: SegmentRequest, out: str, *, model: str, least_lesion_mm2: float = LEAST_LESION_MM2
) -> str:
    """The command that segments the same region with the same settings, for a POSIX shell.

    Raises
    ------
    CellpathError
        The image is only in memory: a command cannot name it.
    """
    image = file_of(request.image)
    words = ["cellpath", "predict", "hspnet", image.path, "--out", out, "--model", model]
    if request.region is not None:
        words += ["--region", *(str(n) for n in request.region)]
    if request.polygon:
        corners = (f"{float(row)!r},{float(col)!r}" for row, col in request.polygon)
        words += ["--within", " ".join(corners)]
    if request.mode is not RegionMode.EXACT:
        words += ["--mode", str(request.mode)]
    if request.blend is not Blend.RBF:
        words += ["--blend", str(request.blend)]
    if request.stride is not None:
        words += ["--stride", str(request.stride)]
    words += ["--probabilities"] if request.probabilities and out.endswith(".zarr") else []
    words += ["--skip-empty"] if request.skip_empty else []
    if least_lesion_mm2 != LEAST_LESION_MM2:
        words += ["--min-lesion", f"{least_lesion_mm2:g}"]
    if image.mpp is not None:
        words += ["--mpp", f"{image.mpp:g}"]
    return shlex.join(words)
