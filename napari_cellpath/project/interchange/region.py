"""A segmented region for other programs: GeoJSON outlines, label OME-TIFF, CSV of areas.

Outlines run along pixel edges of the store and are given in level-0 pixels of the slide, so they
lie in QuPath where they lie here.
"""

from __future__ import annotations

import csv
import io
import os
import secrets
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_cellpath.core.annotations import Annotation, Geometry, ImageFacts, Prediction, Shape
from napari_cellpath.core.errors import CellpathError, OutputError
from napari_cellpath.core.files import write_atomically
from napari_cellpath.core.vocabulary import System
from napari_cellpath.project.interchange.geojson import write_geojson
from napari_cellpath.project.interchange.identity import derived_uid
from napari_cellpath.project.interchange.trace import trace
from napari_cellpath.slides.region_store import RegionStore
from napari_cellpath.systems.hspnet.summary import labels_within

MOST_TRACED = 1 << 25
"""Outlines are drawn on the finest level that has no more pixels; tracing takes memory."""
NO_OUTLINE = "background"
"""The class that is not drawn, where a model has it."""


def outlines_of(store: RegionStore) -> tuple[list[Annotation], int]:
    """Outlines (level-0 pixel edges) of each connected part of each class, and the level used."""
    facts = store.facts
    labels, level = labels_within(store, MOST_TRACED)
    values = np.zeros(256, np.uint8)
    for number, name in enumerate(facts.class_names):
        if name != NO_OUTLINE:
            values[number] = number + 1
    step = [s * 2**level for s in facts.step]
    # The last row and column of a coarser level reach over the region's end.
    ends = [c + n * s for c, n, s in zip(facts.corner, facts.shape, facts.step, strict=True)]

    def placed(geometry: Geometry) -> Geometry:
        return tuple(
            tuple(
                (
                    min(facts.corner[0] + row * step[0], ends[0]),
                    min(facts.corner[1] + col * step[1], ends[1]),
                )
                for row, col in ring
            )
            for ring in geometry
        )

    key = str(facts.image["fingerprint"])
    found = []
    for value, parts in trace(values[labels]):
        name = facts.class_names[value - 1]
        for geometry in parts:
            outline = placed(geometry)
            found.append(
                Annotation(
                    uid=derived_uid(key, facts.model, name, str(outline[0][0])),
                    image=key,
                    system=System.HSPNET,
                    shape=Shape.POLYGON,
                    geometry=outline,
                    prediction=Prediction(
                        label=name,
                        score=None,
                        model=facts.model,
                        precision=store.progress.precision or "fp32",
                        at=outline,
                    ),
                )
            )
    return found, level


def write_outlines(path: Path, store: RegionStore) -> tuple[int, int]:
    """Write a region's outlines as QuPath GeoJSON; returns how many, and the level drawn on.

    Raises
    ------
    OutputError
        It cannot be written.
    """
    facts = store.facts
    image = ImageFacts(
        key=str(facts.image["fingerprint"]),
        name=str(facts.image["name"]),
        height=int(facts.image["shape"][0]),
        width=int(facts.image["shape"][1]),
        mpp=facts.image["mpp"],
    )
    found, level = outlines_of(store)
    colours = dict(zip(facts.class_names, facts.colours, strict=True))
    return write_geojson(path, found, image, colours), level


def write_areas(path: Path, summary: dict[str, Any]) -> None:
    """Write the classes of a region's summary as CSV: class, pixels, share, area_mm2."""
    stream = io.StringIO()
    rows = csv.writer(stream, lineterminator="\n")
    rows.writerow(["class", "pixels", "share", "area_mm2"])
    for name, part in summary["classes"].items():
        area = part["area_mm2"]
        rows.writerow(
            [name, part["pixels"], repr(part["share"]), "" if area is None else repr(area)]
        )
    write_atomically(path, stream.getvalue())


def write_tiff(path: Path, store: RegionStore) -> None:
    """Write a region as a pyramidal label OME-TIFF with its scale and translation.

    Raises
    ------
    OutputError
        It cannot be written; what stood at the path before is intact.
    """
    facts = store.facts
    temporary = path.with_name(f".{secrets.token_hex(8)}.cellpath-tmp.tif")
    try:
        with tifffile.TiffWriter(temporary, bigtiff=True, ome=True) as writer:
            for number, level in enumerate(store.levels):
                first = number == 0
                writer.write(
                    _tiles(level),
                    shape=level.shape,
                    dtype=np.uint8,
                    tile=(512, 512),
                    compression="zlib",
                    photometric="minisblack",
                    subifds=len(store.levels) - 1 if first else None,
                    subfiletype=0 if first else 1,
                    metadata=_ome(facts) if first else None,
                    **_resolution(facts.mpp, number),
                )
        os.replace(temporary, path)  # noqa: PTH105 - one system call
    except OSError as error:
        if isinstance(error, CellpathError):
            raise
        raise OutputError(f"{path} cannot be written ({error.strerror or error}).") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def _tiles(level: Any) -> Iterator[NDArray[np.uint8]]:
    """A level in tiles of 512, read a row of them at a time; the last are filled up."""
    height, width = level.shape
    for row in range(0, height, 512):
        band = np.asarray(level[row : row + 512], np.uint8)
        full = np.zeros((512, -(-width // 512) * 512), np.uint8)
        full[: band.shape[0], :width] = band
        for col in range(0, full.shape[1], 512):
            yield np.ascontiguousarray(full[:, col : col + 512])


def _ome(facts: Any) -> dict[str, Any]:
    """Pixel size, and where the region lies on the slide: micrometres, or level-0 pixels."""
    metadata: dict[str, Any] = {"axes": "YX", "Name": f"{facts.image['name']} classes"}
    if facts.mpp is None:
        scale, unit = 1.0, "pixel"
    else:
        scale, unit = facts.mpp / ((facts.step[0] + facts.step[1]) / 2), "µm"
        for axis, step in zip("YX", facts.step, strict=True):
            metadata |= {f"PhysicalSize{axis}": step * scale, f"PhysicalSize{axis}Unit": unit}
    metadata["Plane"] = {
        "PositionX": [facts.corner[1] * scale], "PositionXUnit": [unit],
        "PositionY": [facts.corner[0] * scale], "PositionYUnit": [unit],
    }  # fmt: skip
    return metadata


def _resolution(mpp: float | None, level: int) -> dict[str, Any]:
    if mpp is None:
        return {}
    return {"resolution": (1e4 / (mpp * 2**level),) * 2, "resolutionunit": "CENTIMETER"}
