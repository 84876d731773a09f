"""``cellpath predict hspnet``: the classes of a slide's region, as OME-Zarr or OME-TIFF."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from napari_cellpath.backend import connect
from napari_cellpath.cli import options as o
from napari_cellpath.cli.given import outline_of_file
from napari_cellpath.cli.running import run
from napari_cellpath.core.errors import JobCancelledError, MissingFileError, OutputError
from napari_cellpath.core.files import write_atomically
from napari_cellpath.core.requests import FileImage, SegmentRequest
from napari_cellpath.core.vocabulary import Blend, RegionMode, System
from napari_cellpath.models import find_model
from napari_cellpath.models.registry import DEFAULT_MODELS
from napari_cellpath.slides.region_store import JOURNAL, RegionStore
from napari_cellpath.slides.windows import image_mpp, image_notes, image_shape, stain_notes
from napari_cellpath.systems.hspnet.summary import LEAST_LESION_MM2, summarise, without_lesion
from napari_cellpath.systems.tiling import check_mpp, clip_region

_CORNER = re.compile(r"[-+]?[0-9.]+,[-+]?[0-9.]+")
_ZARR = (".ome.zarr", ".zarr")
_TIFF = (".ome.tif", ".ome.tiff", ".tif", ".tiff")


def hspnet(
    slide: Annotated[Path, typer.Argument(help="A slide or image.")],
    out: Annotated[Path, typer.Option("--out", help="NAME.ome.zarr or NAME.tif to write.")],
    region: Annotated[
        tuple[int, int, int, int] | None,
        typer.Option("--region", metavar="ROW COL HEIGHT WIDTH", help="In level-0 pixels."),
    ] = None,
    within: Annotated[
        str | None,
        typer.Option(
            "--within",
            metavar="CORNERS | FILE",
            help="Only what lies inside: 'ROW,COL ROW,COL ...' in level-0 pixels, as the window "
            "counts them, or a GeoJSON file with one polygon (QuPath).",
        ),
    ] = None,
    stride: Annotated[
        int | None, typer.Option(min=1, help="Between tiles, pixels; default the model's own.")
    ] = None,
    mpp: o.MppOption = None,
    blend: Annotated[
        Blend, typer.Option(help="How overlapping tiles are weighted; none is side by side.")
    ] = Blend.RBF,
    mode: Annotated[
        RegionMode,
        typer.Option(help="preview is one pass of large tiles: faster, other numbers."),
    ] = RegionMode.EXACT,
    probabilities: Annotated[
        bool,
        typer.Option("--probabilities", help="Also store the classes' probabilities (OME-Zarr)."),
    ] = False,
    polygons: Annotated[
        bool,
        typer.Option("--polygons", help="Also write NAME.geojson (QuPath) and NAME.areas.csv."),
    ] = False,
    skip_empty: Annotated[
        bool, typer.Option("--skip-empty", help="Leave out what is glass on the thumbnail.")
    ] = False,
    min_lesion: Annotated[
        float, typer.Option(min=0.0, help="Least area of a lesion for the worst grade, mm2.")
    ] = LEAST_LESION_MM2,
    model: o.ModelOption = DEFAULT_MODELS[System.HSPNET],
    device: o.DeviceOption = o.Device.auto,
    precision: o.PrecisionOption = o.Precision.auto,
    backend: o.BackendOption = None,
    credentials: o.CredentialsOption = None,
    as_json: o.JsonOption = False,
) -> None:
    """Tell the classes of a slide's pixels; run again, it goes on where it was stopped."""
    if not slide.exists():
        raise MissingFileError(f"{slide} does not exist.")
    stem, is_tiff = _kind(out)
    if is_tiff and probabilities:
        raise OutputError("--probabilities goes with an OME-Zarr; give --out NAME.ome.zarr.")
    store_path = out.with_name(f"{stem}.unfinished.ome.zarr") if is_tiff else out
    sidecars = [out.with_name(f"{stem}.summary.json")]
    if polygons:
        sidecars += [out.with_name(f"{stem}.geojson"), out.with_name(f"{stem}.areas.csv")]
    for path in (*sidecars, *((out,) if is_tiff else ())):
        o.check_output(path, [slide])
    if not out.resolve().parent.is_dir():
        raise OutputError(f"{out} cannot be written: its folder does not exist.")
    entry = find_model(model, System.HSPNET)
    if mpp is not None:
        check_mpp(mpp)
    image = FileImage(str(slide), mpp)
    notes = [
        *image_notes(image), *_clipped(region, image_shape(image)), *_given(mpp, slide),
        *stain_notes(image),
    ]  # fmt: skip
    for note in notes:
        typer.echo(f"{slide.name}: {note}", err=True)
    request = SegmentRequest(
        image=image,
        model=str(entry.folder),
        store=str(store_path),
        region=region,
        polygon=_corners(within) if within else (),
        stride=stride,
        blend=blend,
        mode=mode,
        probabilities=probabilities,
        skip_empty=skip_empty,
    )
    connection = connect(
        address=backend, device=device, precision=precision, inline=backend is None,
        credentials=credentials,
    )  # fmt: skip
    try:
        run(connection, request, as_json)
    except JobCancelledError:
        raise JobCancelledError(_kept(store_path)) from None
    finally:
        connection.close()
    store = RegionStore.open(store_path)
    summary = summarise(store, min_lesion) | {"notes": notes}
    _write(store, summary, out if is_tiff else None, sidecars)
    if is_tiff:
        shutil.rmtree(store_path)
    _say(summary, out, as_json)


def _kind(out: Path) -> tuple[str, bool]:
    """The output's name without its ending, and whether it is a TIFF.

    Raises
    ------
    OutputError
        It is neither OME-Zarr nor TIFF.
    """
    name = out.name.lower()
    for ending in (*_ZARR, *_TIFF):
        if name.endswith(ending) and len(name) > len(ending):
            return out.name[: -len(ending)], ending in _TIFF
    raise OutputError(f"{out.name}: give --out a name that ends in .ome.zarr or .tif.")


def _corners(within: str) -> tuple[tuple[float, float], ...]:
    """Corners (row, col) as written, or of the one polygon of a file; napari's points.

    Raises
    ------
    CellpathError
        They are no corners; there is no such file, or it holds another number of polygons.
    """
    words = within.split()
    if words and all(_CORNER.fullmatch(word) for word in words):
        return tuple((float(row), float(col)) for row, col in (w.split(",") for w in words))
    path = Path(within)
    if not path.is_file():
        raise MissingFileError(
            f"--within {within}: neither corners 'ROW,COL ROW,COL ...' nor a file."
        )
    return outline_of_file(path)


def _clipped(region: tuple[int, int, int, int] | None, shape: tuple[int, int]) -> list[str]:
    """A sentence where a region leaves the image."""
    if region is None:
        return []
    row, col, height, width = region
    clip_region(region, shape)  # one that does not meet the image is refused, not clipped
    if row >= 0 and col >= 0 and row + height <= shape[0] and col + width <= shape[1]:
        return []
    return [
        f"The region leaves the image ({shape[0]} x {shape[1]} pixels); the part on it is used."
    ]


def _given(mpp: float | None, slide: Path) -> list[str]:
    """A sentence where the pixel size is the user's and not the file's."""
    stated = image_mpp(FileImage(str(slide)))
    if mpp is None or mpp == stated:
        return []
    own = "states none" if stated is None else f"states {stated:.4g}"
    return [f"{mpp:g} µm per pixel as given with --mpp; the file {own}."]


def _kept(store_path: Path) -> str:
    """What is said after a cancel."""
    if not (store_path / JOURNAL).is_file():
        return "cancelled; nothing was written."
    progress = RegionStore.open(store_path).progress
    rows = RegionStore.open(store_path).facts.shape[0]
    return (
        f"cancelled; {progress.rows_done} of {rows} rows are kept in {store_path}. The same "
        "command goes on from there."
    )


def _write(
    store: RegionStore, summary: dict[str, Any], tiff: Path | None, sidecars: Sequence[Path]
) -> None:
    # Imported here: they load shapely and the tracing.
    from napari_cellpath.project.interchange.region import write_areas, write_outlines, write_tiff

    if tiff is not None:
        write_tiff(tiff, store)
    if len(sidecars) > 1:
        count, level = write_outlines(sidecars[1], store)
        write_areas(sidecars[2], summary)
        summary["polygons"] = {"count": count, "drawn_on_level": level}
    text = json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(sidecars[0], text + "\n")


def _say(summary: dict[str, Any], out: Path, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"out": str(out), **summary}, ensure_ascii=False, allow_nan=False))
        return
    shares = ", ".join(
        f"{name} {100 * part['share']:.1f} %" for name, part in summary["classes"].items()
    )
    area = summary["classified"]["area_mm2"]
    size = f"{summary['classified']['pixels']} pixels" if area is None else f"{area:.3f} mm2"
    worst = summary["worst_grade"]
    none = without_lesion(summary, shares=False)  # which are said before
    grade = none if worst is None else f"worst {worst['class']}"
    left = ""
    if summary["skipped"]["pixels"]:
        left += f" {100 * summary['skipped']['share']:.1f} % skipped as empty."
    if summary["unreadable"]["file_tiles"]:
        bad = summary["unreadable"]
        left += f" {bad['file_tiles']} of {bad['of']} tiles of the file unreadable."
    kind = "" if summary["mode"] == RegionMode.EXACT else f" ({summary['mode']})"
    typer.echo(
        f"{size}{kind}: {shares}; {grade}.{left} Model {summary['model']}. Written to {out}."
    )
