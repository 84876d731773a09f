"""``cellpath predict rbc``: regions of red cells, what they hold, whether any is abnormal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from napari_cellpath.backend import connect
from napari_cellpath.cli import options as o
from napari_cellpath.cli.given import boxes_of_table, pixels_of_labels
from napari_cellpath.cli.running import check_names, run
from napari_cellpath.core.annotations import CLASSES, Annotation, ImageFacts, Prediction, Shape
from napari_cellpath.core.errors import OutputError, TableError
from napari_cellpath.core.region_summary import summarise_regions
from napari_cellpath.core.region_table import region_columns, region_record
from napari_cellpath.core.requests import (
    DETECTION_OVERLAP,
    CellBox,
    DetectRegionsRequest,
    FileImage,
    LabelRegionsRequest,
    new_uid,
)
from napari_cellpath.core.results import FoundRegion, RegionCall
from napari_cellpath.core.summary import summary_path, write_summary
from napari_cellpath.core.tables import write_calls
from napari_cellpath.core.vocabulary import Average, Fit, System
from napari_cellpath.models import ModelEntry, find_model
from napari_cellpath.models.registry import DEFAULT_MODELS
from napari_cellpath.slides.windows import image_mpp, image_notes, image_shape
from napari_cellpath.systems.rbc.boxes import RegionInput, boxes_of_mask, check_box
from napari_cellpath.systems.rbc.verdict import read_verdict
from napari_cellpath.systems.tiling import check_mpp

_GEOJSON = (".geojson", ".json")


@dataclass
class _Regions:
    """The regions of one image as given or found."""

    boxes: list[CellBox] = field(default_factory=list)
    detections: list[float | None] = field(default_factory=list)
    calls: Sequence[RegionCall] = ()

    def add(self, box: CellBox, detection: float | None = None) -> None:
        self.boxes.append(box)
        self.detections.append(detection)

    def take(self, found: Sequence[FoundRegion], image: str) -> None:
        """Regions detected in the image of this name."""
        for number, region in enumerate(found):
            self.add(CellBox(*region.box, uid=str(number)), region.detection)
        if not found:
            typer.echo(f"{image}: no region of red cells was found.", err=True)


def rbc(
    images: o.Images,
    out: Annotated[Path, typer.Option("--out", help="CSV or GeoJSON to write.")],
    boxes: Annotated[
        Path | None,
        typer.Option("--boxes", help="CSV of row0,col0,row1,col1 and, for several, image."),
    ] = None,
    masks: Annotated[
        list[Path] | None,
        typer.Option("--masks", help="TIFF of the cells' pixels, one for each image in turn."),
    ] = None,
    score: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, help="Least score of a detection; default the model's."),
    ] = None,
    overlap: Annotated[
        float,
        typer.Option(min=0.0, max=1.0, help="Detections that overlap more than this are one."),
    ] = DETECTION_OVERLAP,
    region: Annotated[
        tuple[int, int, int, int] | None,
        typer.Option("--region", metavar="ROW COL HEIGHT WIDTH", help="Detect there only, pixels."),
    ] = None,
    fit: Annotated[
        Fit, typer.Option(help="How a box becomes a square; model: as its model was trained.")
    ] = Fit.MODEL,
    average: o.AverageOption = Average.MODEL,
    model: o.ModelOption = DEFAULT_MODELS[System.RBC],
    threshold: o.ThresholdOption = None,
    review_band: o.ReviewBandOption = None,
    mpp: o.MppOption = None,
    device: o.DeviceOption = o.Device.auto,
    precision: o.PrecisionOption = o.Precision.auto,
    backend: o.BackendOption = None,
    credentials: o.CredentialsOption = None,
    as_json: o.JsonOption = False,
) -> None:
    """Tell which types of red cells each region holds, and whether any is abnormal (RBC).

    Without --boxes or --masks the regions are detected. A region of touching cells has one answer.
    """
    if boxes is not None and masks:
        raise TableError("Give --boxes or --masks, not both.")
    given = boxes is not None or bool(masks)
    if given and (region is not None or score is not None):
        raise TableError("--region and --score go with detection; boxes say where they are.")
    files = o.image_files(images)
    check_names(files)
    geojson = _is_geojson(out, files)
    for path in (out, summary_path(out)):
        o.check_output(path, [*files, *(masks or ()), *([] if boxes is None else [boxes])])
    entry = find_model(model, System.RBC)
    band = entry.info.review_band if review_band is None else review_band
    if mpp is not None:
        check_mpp(mpp)
    regions_of: dict[Path, _Regions] = {file: _Regions() for file in files}
    if boxes is not None:
        _take_boxes(boxes, regions_of)
    elif masks:
        _take_masks(masks, regions_of)
    connection = connect(
        address=backend, device=device, precision=precision, inline=backend is None,
        credentials=credentials,
    )  # fmt: skip
    try:
        for file, regions in regions_of.items():
            image = FileImage(str(file), mpp=mpp)
            for note in image_notes(image):
                typer.echo(f"{file.name}: {note}", err=True)
            if not given:
                wanted = RegionInput.of(entry.info.input, entry.name).score
                search = DetectRegionsRequest(
                    image, str(entry.folder), region, wanted if score is None else score, overlap
                )
                regions.take(run(connection, search, as_json), file.name)
            if regions.boxes:
                asked = LabelRegionsRequest(
                    image, tuple(regions.boxes), str(entry.folder), fit, average
                )
                regions.calls = _called(run(connection, asked, as_json), threshold)
    finally:
        connection.close()
    names = entry.info.class_names
    records = [
        region_record(
            file.name, box.uid, (box.row0, box.col0, box.row1, box.col1), names, call, detection
        )
        for file, regions in regions_of.items()
        for box, detection, call in zip(
            regions.boxes, regions.detections, regions.calls, strict=True
        )
    ]
    verdict = read_verdict(entry.folder)
    summary = summarise_regions(
        records, names, model=entry.label, thresholds=verdict.thresholds.tolist(),
        abnormal_threshold=verdict.threshold if threshold is None else threshold,
        images=[file.name for file in files],
    )  # fmt: skip
    if geojson:
        _write_geojson(out, files[0], regions_of[files[0]], entry, mpp)
    else:
        write_calls(out, records, region_columns(names))
    write_summary(out, summary)
    calls = [call for regions in regions_of.values() for call in regions.calls]
    doubtful = sum(call.margin <= band + 1e-12 for call in calls)
    _summarise(records, summary, doubtful, band, out, as_json)


def _is_geojson(out: Path, files: Sequence[Path]) -> bool:
    suffix = out.suffix.lower()
    if suffix not in (".csv", *_GEOJSON):
        raise OutputError(f"{out} is neither .csv nor .geojson; choose one of them.")
    if suffix == ".csv":
        return False
    if len(files) > 1:
        raise OutputError(
            f"GeoJSON is of one image and {len(files)} were given; write a CSV, or one file each."
        )
    return True


def _take_boxes(table: Path, regions_of: dict[Path, _Regions]) -> None:
    why = "a region that is there twice would count twice"
    given = boxes_of_table(table, list(regions_of), check_box, why, may_be_empty=True)
    for file, box, row in given:
        regions_of[file].add(box, row.detection)


def _take_masks(masks: Sequence[Path], regions_of: dict[Path, _Regions]) -> None:
    for path, file, pixels in pixels_of_labels(masks, list(regions_of), "--masks", "masks"):
        regions = regions_of[file]
        for box in boxes_of_mask(pixels):
            regions.add(box)
        if not regions.boxes:
            typer.echo(f"{path.name}: no pixel is set; there is no region to look at.", err=True)


def _called(calls: Sequence[RegionCall], threshold: float | None) -> list[RegionCall]:
    """The calls by another threshold of abnormal than the model's, where one was given."""
    if threshold is None:
        return list(calls)
    return [
        replace(
            call, abnormal_threshold=threshold,
            label=("abnormal" if call.abnormal > threshold else "normal") if call.label else "",
        )
        for call in calls
    ]  # fmt: skip


def _write_geojson(
    out: Path, file: Path, regions: _Regions, entry: ModelEntry, mpp: float | None
) -> None:
    from napari_cellpath.project.images import key_of_file
    from napari_cellpath.project.interchange.geojson import write_geojson

    image = FileImage(str(file), mpp=mpp)
    height, width = image_shape(image)
    facts = ImageFacts(
        key_of_file(file), file.name, height=height, width=width, mpp=image_mpp(image)
    )
    names = entry.info.class_names
    annotations = []
    for box, call in zip(regions.boxes, regions.calls, strict=True):
        edges = (box.row0, box.col0, box.row1, box.col1)
        annotations.append(
            Annotation(
                new_uid(), facts.key, System.RBC, Shape.BOX, edges, id=box.uid,
                prediction=Prediction(
                    CLASSES.join(call.labels), call.abnormal if call.label else None,
                    n_views=call.n_views, threshold=call.abnormal_threshold, model=call.model,
                    probabilities=tuple(zip(names, call.probabilities, strict=True))
                    if call.label else (),
                    precision=call.precision, flags=call.flags, at=edges,
                ),
            )
        )  # fmt: skip
    colours = {c.name: c.colour for c in entry.info.classes}
    write_geojson(out, annotations, facts, colours)


def _summarise(
    records: Sequence[dict[str, Any]],
    summary: dict[str, Any],
    doubtful: int,
    band: float,
    out: Path,
    as_json: bool,
) -> None:
    if as_json:
        facts = {
            "model": summary["model"], "out": str(out), "regions": len(records),
            "doubtful": doubtful, "review_band": band, "summary": summary,
            "results": list(records),
        }  # fmt: skip
        typer.echo(json.dumps(facts, ensure_ascii=False))
        return
    held = ", ".join(
        f"{told['regions']} with {name}"
        for name, told in summary["types"].items()
        if told["regions"]
    )
    unjudged = len(records) - summary["judged"]
    if unjudged:
        held = f"{held or 'none judged'}, {unjudged} not judged (see flags)"
    regions = "1 region" if len(records) == 1 else f"{len(records)} regions"
    typer.echo(
        f"{regions}: {held or 'no type above its threshold'}; {summary['abnormal']['regions']} "
        f"abnormal; {doubtful} doubtful (verdict or a type near its threshold, --review-band "
        f"{band:g}), worth a look. "
        f"Model {summary['model']}. Written to {out}."
    )
