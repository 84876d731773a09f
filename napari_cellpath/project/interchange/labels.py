"""Label images: one integer a pixel, one value an object, 0 nothing; a sidecar says the rest.

``NAME.tif`` is an OME-TIFF with pixel size and position; ``NAME.labels.json`` beside it says of
each value its class, who said so, and everything else of its object. Points are one pixel; of
objects that overlap, the later lies on top. *Complete here* rectangles stand in the sidecar only.

Read with its sidecar, values whose pixels are as they were written give equal annotations; values
painted over since keep what is known of them and get the outline of their pixels. Without
one, each value is an outline along pixel edges without a label, in pieces where its pixels are;
its ``id`` is the value, so that writing gives the identical array again.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_cellpath.core.annotations import Annotation, ImageFacts, Shape, tuplify
from napari_cellpath.core.errors import CellpathError, MissingFileError, OutputError, TableError
from napari_cellpath.core.files import write_atomically
from napari_cellpath.project.interchange.facts import (
    KEY,
    file_facts,
    from_own_facts,
    not_finite,
    own_facts,
    plain,
    stated_offset,
)
from napari_cellpath.project.interchange.frame import Offset, moved, shape_of
from napari_cellpath.project.interchange.geojson import shown_class
from napari_cellpath.project.interchange.intake import (
    Intake,
    TooManyError,
    check_file,
    load_json,
    with_parts,
)
from napari_cellpath.project.interchange.outlines import fill
from napari_cellpath.project.interchange.trace import trace
from napari_cellpath.slides.damage import human_bytes, reading, unreadable
from napari_cellpath.slides.pixel_size import stated_mpp

MAX_PIXELS = 1 << 28
"""Pixels of a label image; tracing one takes about ten times its memory."""

_OUR_ID = re.compile(r"(\d{1,10})(/\d+)?", re.ASCII)
_MARK = "napari-cellpath labels "


def sidecar_path(path: str | Path) -> Path:
    """``NAME.labels.json`` of ``NAME.tif`` and ``NAME.ome.tif``."""
    name = re.sub(r"(\.ome)?\.tiff?$", "", Path(path).name, flags=re.IGNORECASE)
    return Path(path).with_name(f"{name}.labels.json")


def write_labels(
    path: str | Path,
    annotations: Sequence[Annotation],
    image: ImageFacts,
    *,
    offset: tuple[int, int] = (0, 0),
    size: tuple[int, int] | None = None,
) -> int:
    """Write the objects of one image as label TIFF and sidecar; returns how many.

    Parameters
    ----------
    path
        The TIFF. It and its sidecar are replaced as a whole, or left as they were.
    annotations
        Those of other images are passed over.
    image
        Theirs.
    offset, size
        (row, col) and (height, width) of the part of level 0 that is written; by default all
        that is right of and below the offset.

    Raises
    ------
    OutputError
        The size is not known or too large, a number is not finite, or a file cannot be written.
    """
    name = Path(path).name
    height, width = size or (image.height - offset[0], image.width - offset[1])
    if height < 1 or width < 1:
        raise OutputError(f"{name} was not written: the size of {image.name} is not known.")
    if height * width > MAX_PIXELS:
        raise OutputError(
            f"{name} was not written: {height} x {width} pixels are too many for one label image; "
            "write a region of it."
        )
    kept = [a for a in annotations if a.image == image.key]
    objects = [a for a in kept if not a.complete]
    values = _values(objects)
    largest = max(values, default=0)
    pixels = np.zeros((height, width), np.uint16 if largest < 1 << 16 else np.uint32)
    for annotation, value in zip(objects, values, strict=True):
        fill(_shifted(annotation, (-offset[0], -offset[1])), pixels, value)
    document = {
        KEY: file_facts([image], offset),
        "objects": [
            {"value": v, "class": shown_class(a), "by": "person" if a.labels else "model",
             KEY: own_facts(a, ())}
            for a, v in zip(objects, values, strict=True)
        ],
        "complete": [own_facts(a, ()) for a in kept if a.complete],
    }  # fmt: skip
    try:
        written = json.dumps(document, default=plain, allow_nan=False)
    except ValueError as error:
        raise not_finite(name, "one of the objects") from error
    write_atomically(path, _tiff(pixels, image, offset, _token(written)))
    write_atomically(sidecar_path(path), written)
    return len(kept)


def _values(objects: Sequence[Annotation]) -> list[int]:
    """Values as the ids say them, parts of one object sharing theirs; else 1, 2, 3."""
    found = [_OUR_ID.fullmatch(annotation.id) for annotation in objects]
    values = [int(match[1]) if match else 0 for match in found]
    if all(0 < value < 1 << 32 for value in values) and len(
        {annotation.id for annotation in objects}
    ) == len(objects):
        return values
    return list(range(1, len(objects) + 1))


def _shifted(annotation: Annotation, by: Offset) -> Annotation:
    return replace(annotation, geometry=moved(annotation.shape, annotation.geometry, by))


def _token(sidecar: str) -> str:
    """Ties a TIFF to its sidecar: a crash between the two must not pair old with new."""
    return hashlib.sha256(sidecar.encode()).hexdigest()[:16]


def _tiff(pixels: NDArray[Any], image: ImageFacts, offset: tuple[int, int], token: str) -> bytes:
    scale, unit = (image.mpp, "µm") if image.mpp else (1.0, "pixel")
    place = {"PositionX": [offset[1] * scale], "PositionXUnit": [unit],
             "PositionY": [offset[0] * scale], "PositionYUnit": [unit]}  # fmt: skip
    metadata: dict[str, Any] = {"axes": "YX", "Name": image.name, "Plane": place}
    resolution: dict[str, Any] = {}
    if image.mpp:
        for axis in "XY":
            metadata |= {f"PhysicalSize{axis}": image.mpp, f"PhysicalSize{axis}Unit": "µm"}
        resolution = {"resolution": (1e4 / image.mpp,) * 2, "resolutionunit": "CENTIMETER"}
    stream = io.BytesIO()
    tifffile.imwrite(
        stream, pixels, ome=True, metadata=metadata, compression="zlib", photometric="minisblack",
        software=_MARK + token, **resolution,
    )  # fmt: skip
    return stream.getvalue()


def read_labels(path: str | Path, intake: Intake) -> None:
    """Take in a label TIFF, with its sidecar where there is one.

    Raises
    ------
    MissingFileError
        There is no such file.
    UnreadableImageError, ImageTooLargeError
        It is no TIFF that can be read, or claims more than `MAX_PIXELS`.
    TableError
        It is no label image, or does not fit the image.
    """
    file = Path(path)
    pixels, mpp, software = label_pixels(file)
    sidecar = _sidecar(file, software)
    facts = sidecar.get(KEY)
    image = intake.only_image()
    written_at, same_image = stated_offset(facts, image, file.name)
    offset = intake.offset
    if offset is None:
        offset = written_at if same_image else (0.0, 0.0)
        _check_fit(pixels.shape, mpp, image, file.name, anywhere=same_image)
    shift = (offset[0] - written_at[0], offset[1] - written_at[1])
    reader = _Reader(intake, image, offset, shift)
    known = reader.objects(sidecar, "objects")
    changed = _changed(
        pixels, [(value, _shifted(a, (-offset[0], -offset[1]))) for value, a in known]
    )
    templates: dict[int, Annotation] = {}
    for value, annotation in known:
        if value in changed:
            templates.setdefault(value, annotation)
        else:
            reader.take([annotation], f"value {value}")
    remaining = np.where(np.isin(pixels, list(changed)), pixels, 0) if changed else pixels[:0]
    for value, parts in trace(remaining):
        geometries = [(Shape.POLYGON, moved(Shape.POLYGON, rings, offset)) for rings in parts]
        template = templates.get(value) or Annotation(
            intake.free_uid(image, file.name, str(value), repr(geometries[0])), image.key,
            intake.system, id=str(value),
        )  # fmt: skip
        reader.take(with_parts(template, geometries), f"value {value}")
    for _, region in reader.objects(sidecar, "complete"):
        reader.take([region], "a complete region")


def label_pixels(file: Path) -> tuple[NDArray[Any], float | None, str]:
    """Labels (H, W), micrometres per pixel and the program that wrote them.

    Raises
    ------
    UnreadableImageError, ImageTooLargeError
        It is no TIFF that can be read.
    TableError
        It is no label image, or claims more than `MAX_PIXELS`.
    """
    if not file.exists():
        raise MissingFileError(f"{file} does not exist; give a label TIFF.")
    with reading(file), tifffile.TiffFile(file) as tiff:
        page = tiff.pages.first
        if len(tiff.pages) > 1 and not tiff.series[0].is_pyramidal:
            raise TableError(f"{file.name} is a stack; give one label image.")
        if len(page.shape) != 2 or page.dtype is None or page.dtype.kind not in "iu":
            raise TableError(f"{file.name} is no label image: one whole number a pixel is needed.")
        if page.shape[0] * page.shape[1] > MAX_PIXELS:
            raise TableError(
                f"{file.name} claims {page.shape[0]} x {page.shape[1]} pixels "
                f"({human_bytes(page.nbytes)}), too many for one label image; cut it into regions."
            )
        pixels = page.asarray()
        if pixels.shape != page.shape or not pixels.size:  # without its data, a page reads as empty
            raise unreadable(file.name, "its pixels are missing")
        x, y = page.get_resolution()
        mpp, _ = stated_mpp(page.description, (x, y), int(page.resolutionunit or 1))
        software = str(page.software)
    if pixels.min() < 0 or pixels.max() >= 1 << 32:
        raise TableError(f"{file.name} holds values below 0 or above 4294967295.")
    return pixels, mpp, software


def _sidecar(file: Path, software: str) -> dict[str, Any]:
    path = sidecar_path(file)
    if not path.exists():
        return {}
    check_file(path)
    document = load_json(path)
    if not isinstance(document, dict):
        raise TableError(f"{path.name} says nothing about labels.")
    if software.startswith(_MARK) and software != _MARK + _token(_text(path)):
        raise TableError(
            f"{path.name} is of another version of {file.name}; remove it or write both again."
        )
    return document


def _text(path: Path) -> str:
    return path.read_bytes().decode("utf-8", "replace")


def _check_fit(
    shape: tuple[int, ...], mpp: float | None, image: ImageFacts, name: str, *, anywhere: bool
) -> None:
    """Raise unless a label image given without an offset covers its image, pixel by pixel."""
    if mpp is not None and image.mpp and abs(mpp / image.mpp - 1) > 0.02:
        raise TableError(
            f"{name} has pixels of {mpp:g} um, {image.name} of {image.mpp:g} um; its labels would "
            "not lie where they belong."
        )
    size = (image.height, image.width)
    if not anywhere and all(size) and tuple(shape) != size:
        raise TableError(
            f"{name} has {shape[0]} x {shape[1]} pixels, {image.name} {size[0]} x {size[1]}; give "
            "the offset of the region it covers."
        )


def _changed(pixels: NDArray[Any], known: Sequence[tuple[int, Annotation]]) -> set[int]:
    """Values whose pixels are not those that writing these objects gives."""
    expected = np.zeros(pixels.shape, np.uint32)
    for value, annotation in known:
        fill(annotation, expected, value)
    differ = pixels != expected
    return {int(v) for v in (*np.unique(pixels[differ]), *np.unique(expected[differ])) if v}


class _Reader:
    """Sidecar entries to annotations, each refused by name or taken in."""

    def __init__(self, intake: Intake, image: ImageFacts, offset: Offset, shift: Offset) -> None:
        self._intake, self._image, self._offset, self._shift = intake, image, offset, shift

    def take(self, annotations: list[Annotation], which: str) -> None:
        what = f"{self._intake.name} {which}"
        try:
            self._intake.take(annotations, self._image, what)
        except TooManyError:
            raise
        except CellpathError as error:
            self._intake.refuse(error)

    def objects(self, sidecar: dict[str, Any], key: str) -> list[tuple[int, Annotation]]:
        """Value and object of each entry that makes sense."""
        entries = sidecar.get(key, [])
        if not isinstance(entries, list):
            raise TableError(f"{self._intake.name}: the {key} of its sidecar are no list.")
        return list(self._objects(entries, key))

    def _objects(self, entries: list[Any], key: str) -> Iterator[tuple[int, Annotation]]:
        for number, entry in enumerate(entries, start=1):
            what = f"{self._intake.name} sidecar, {key} {number}"
            try:
                value = entry.get("value") if isinstance(entry, dict) else None
                if key == "objects" and (type(value) is not int or not 0 < value < 1 << 32):
                    raise TableError(f"{what} has no value.")
                own = entry.get(KEY) if key == "objects" else entry
                geometry: Any = tuplify(own.get("geometry")) if isinstance(own, dict) else None
                shape = shape_of(geometry)
                if shape is None or not isinstance(own, dict):
                    raise TableError(f"{what} has no geometry.")
                annotation = from_own_facts(
                    {**own, "shape": shape}, moved(shape, geometry, self._shift), self._image,
                    self._shift, what,
                )  # fmt: skip
                if not annotation.uid:
                    raise TableError(f"{what} has no uid.")
                yield int(value or 0), annotation
            except CellpathError as error:
                self._intake.refuse(error)
