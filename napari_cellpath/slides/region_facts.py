"""What a region's store is of, how far it is, and what its metadata says to other programs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from napari_cellpath.core.errors import UnreadableImageError
from napari_cellpath.core.requests import FileImage, Image

UNSEEN = 255
"""Not computed yet, or outside the polygon."""
SKIPPED = 254
"""Left out because the thumbnail shows no tissue there."""
UNREADABLE = 253
"""The file's pixels there are damaged."""
FIRST_NO_CLASS = 253

JOURNAL = "cellpath.json"
FORMAT = 1
LOOK = 4
"""Every as many pixels hold one of the first look."""


_COARSEST = 1024
_SAMPLE = 32


@dataclass(frozen=True)
class RegionFacts:
    """What a store is of: all that decides its pixels, and what is needed to show them.

    Attributes
    ----------
    image
        ``name``, ``shape``, ``fingerprint`` and ``mpp`` of the image.
    model
        ``name@hash``.
    sha256
        Of the model.
    class_names, colours, abnormal
        Of the model's classes, in order.
    shape
        Rows and columns.
    step
        Level-0 pixels (rows, columns) that one pixel of the store spans.
    corner
        Upper left corner in level-0 pixel edges (row, column).
    mpp
        Micrometres per pixel of the store, or None.
    layout
        How it was computed: level, ratio, tile, stride, blend, mode ...
    polygon
        Corners (row, col) in level-0 pixels, napari convention; empty without one.
    probabilities
        Whether those are stored too.
    """

    image: Mapping[str, Any]
    model: str
    sha256: str
    class_names: tuple[str, ...]
    colours: tuple[str, ...]
    abnormal: tuple[bool, ...]
    shape: tuple[int, int]
    step: tuple[float, float]
    corner: tuple[float, float]
    mpp: float | None
    layout: Mapping[str, Any]
    polygon: tuple[tuple[float, float], ...] = ()
    probabilities: bool = False

    def as_json(self) -> dict[str, Any]:
        """As the journal holds it, comparable with `==`."""
        facts: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return facts

    @classmethod
    def of_json(cls, facts: Mapping[str, Any]) -> RegionFacts:
        """The other way round."""
        kept = dict(facts)
        for key in ("class_names", "colours", "abnormal", "shape", "step", "corner"):
            kept[key] = tuple(kept[key])
        kept["polygon"] = tuple(tuple(corner) for corner in kept["polygon"])
        return cls(**kept)


@dataclass
class Progress:
    """What the journal says of how far a store is.

    ``counts`` has one number a value of a pixel (256); ``damaged`` are boxes (top, left, bottom,
    right) of the image's grid that could not be read, ``segments`` the file's tiles in the region.
    """

    rows_done: int = 0
    complete: bool = False
    counts: list[int] = field(default_factory=lambda: [0] * 256)
    damaged: list[tuple[int, int, int, int]] = field(default_factory=list)
    segments: int = 0
    precision: str = ""
    device: str = ""


def read_journal(folder: Path) -> tuple[RegionFacts, Progress]:
    """Facts and progress of a store, without opening its arrays.

    Raises
    ------
    UnreadableImageError
        There is no journal of ours, it is damaged, or made by a newer version.
    """
    path = folder / JOURNAL
    if not path.is_file():
        raise UnreadableImageError(f"{folder} is no region of ours: it has no {JOURNAL}.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        number = content["format"]
        if number == FORMAT:
            progress = Progress(**content["progress"])
            progress.damaged = [tuple(box) for box in progress.damaged]  # type: ignore[misc]
            facts = RegionFacts.of_json(content["request"])
            if len(progress.counts) != 256 or not 0 <= progress.rows_done <= facts.shape[0]:
                raise ValueError("its counts cannot be")
            return facts, progress
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UnreadableImageError(
            f"{path} is damaged ({error}); remove the store and predict again."
        ) from error
    raise UnreadableImageError(f"{path} is of format {number}; update napari-cellpath to read it.")


def journal_text(facts: RegionFacts, progress: Progress) -> str:
    """What the journal holds."""
    content = {"format": FORMAT, "request": facts.as_json(), "progress": asdict(progress)}
    return json.dumps(content, ensure_ascii=False, allow_nan=False)


def level_shapes(shape: tuple[int, int]) -> list[tuple[int, int]]:
    """Shapes of the levels: halved, rounded up, until the larger side is at most 1024."""
    shapes = [shape]
    while max(shapes[-1]) > _COARSEST:
        shapes.append((-(-shapes[-1][0] // 2), -(-shapes[-1][1] // 2)))
    return shapes


def fingerprint(image: Image) -> str:
    """What tells an image from another of its name and size, without reading all of it."""
    digest = hashlib.sha256()
    if isinstance(image, FileImage):
        path = Path(image.path)
        if path.is_dir():
            for name in (".zattrs", ".zgroup", "zarr.json", "0/.zarray", "0/zarr.json"):
                if (path / name).is_file():
                    digest.update((path / name).read_bytes())
            return digest.hexdigest()[:16]
        size = path.stat().st_size
        digest.update(str(size).encode())
        with path.open("rb") as file:
            digest.update(file.read(1 << 16))
            file.seek(max(0, size - (1 << 16)))
            digest.update(file.read())
        return digest.hexdigest()[:16]
    height, width = image.shape
    digest.update(f"{height} {width} {image.value_range}".encode())
    for row in (0, height // 2, max(0, height - _SAMPLE)):
        for col in (0, width // 2, max(0, width - _SAMPLE)):
            part = np.asarray(image.pixels[row : row + _SAMPLE, col : col + _SAMPLE])
            digest.update(str(part.dtype).encode() + part.tobytes())
    return digest.hexdigest()[:16]


def differing(held: Mapping[str, Any], asked: Mapping[str, Any]) -> Iterator[str]:
    """What two requests differ in, as a person reads it."""
    for key in held.keys() | asked.keys():
        ours, theirs = held.get(key), asked.get(key)
        if isinstance(ours, dict) and isinstance(theirs, dict):
            yield from differing(ours, theirs)
        elif ours != theirs:
            yield "the polygon" if key == "polygon" else f"{key}: {ours}, asked {theirs}"


def multiscales(
    facts: RegionFacts,
    shape: Sequence[int],
    name: str,
    channels: bool = False,
    factor: int = 1,
    levels: int | None = None,
) -> dict[str, Any]:
    """The multiscales metadata of OME-NGFF 0.4.

    Micrometres where the scale is known, else level-0 pixels. A level's pixel is the upper left
    of those it stands for, so all levels have the translation of the first.
    """
    unit = None if facts.mpp is None else facts.mpp / ((facts.step[0] + facts.step[1]) / 2)
    scale = 1.0 if unit is None else unit  # of a level-0 pixel
    axes: list[dict[str, str]] = [{"name": "c", "type": "channel"}] if channels else []
    for axis in "yx":
        space = {"name": axis, "type": "space"}
        axes.append(space if unit is None else space | {"unit": "micrometer"})
    # Of the first pixel's centre, as napari and OME count it.
    begin = [
        (edge + step / 2 - 0.5) * scale for edge, step in zip(facts.corner, facts.step, strict=True)
    ]
    head = [1.0] if channels else []
    start = [0.0] if channels else []
    datasets = []
    for number in range(len(level_shapes(facts.shape)) if levels is None else levels):
        pixel = [s * scale * factor * 2**number for s in facts.step]
        datasets.append(
            {
                "path": str(number),
                "coordinateTransformations": [
                    {"type": "scale", "scale": [*head, *pixel]},
                    {"type": "translation", "translation": [*start, *begin]},
                ],
            }
        )
    return {
        "multiscales": [
            {"version": "0.4", "name": name, "axes": axes, "datasets": datasets, "type": "nearest"}
        ]
    }


def image_labels(facts: RegionFacts) -> dict[str, Any]:
    """The image-label metadata of OME-NGFF 0.4: each class's colour and name."""
    colours = [
        {"label-value": number, "rgba": [*bytes.fromhex(colour.removeprefix("#")), 255]}
        for number, colour in enumerate(facts.colours)
    ]
    names = [
        {"label-value": number, "class": name} for number, name in enumerate(facts.class_names)
    ]
    return {"image-label": {"version": "0.4", "colors": colours, "properties": names}}
