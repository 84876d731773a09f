"""COCO: several images, boxes and outlines with one category each.

A point is written as the box of its pixel, with ``attributes.point`` = [row, col], level-0 pixel
centres less the offset; programs that know nothing of it see a box of one pixel. The category is
the person's label, else the model's call, else ``unlabelled``; ``score`` stands only beside a
model's call, as it does in COCO results: reading takes an annotation with ``score`` for a
prediction, one without for a person's label. COCO's polygons have no holes: those of ours stay
under ``cellpath``, where everything else is kept that COCO has no field for. *Complete here*
rectangles are no objects; they stand under ``cellpath`` of their image.

Run-length masks are not read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from napari_cellpath.core.annotations import (
    Annotation,
    Geometry,
    ImageFacts,
    Prediction,
    Shape,
    tuplify,
)
from napari_cellpath.core.errors import CellpathError, TableError
from napari_cellpath.core.files import write_atomically
from napari_cellpath.project.interchange.facts import (
    KEY,
    exact_geometry,
    file_facts,
    from_own_facts,
    not_finite,
    own_facts,
    plain,
    stated_offset,
)
from napari_cellpath.project.interchange.frame import Frame, Offset, moved, shape_of
from napari_cellpath.project.interchange.intake import (
    MAX_OBJECTS,
    Intake,
    TooManyError,
    labels_of,
    number,
    text,
    with_parts,
)
from napari_cellpath.project.interchange.outlines import Parts, mended

UNLABELLED = "unlabelled"


def write_coco(
    path: str | Path,
    annotations: Sequence[Annotation],
    images: Sequence[ImageFacts],
    classes: Sequence[str] = (),
    *,
    offset: Offset = (0.0, 0.0),
) -> int:
    """Write the objects of some images; returns how many.

    Parameters
    ----------
    path
        Replaced as a whole, or left as it was.
    annotations
        Those of other images are passed over.
    images
        All are listed, those without objects too.
    classes
        Categories in order; classes that only occur in the annotations follow.
    offset
        (row, col) on level 0 of the upper left corner of what the file is for.

    Raises
    ------
    OutputError
        A number is not finite, or the file cannot be written.
    """
    name, frame = Path(path).name, Frame(offset)
    image_ids = {image.key: n for n, image in enumerate(images, start=1)}
    kept = [a for a in annotations if a.image in image_ids]
    names = list(dict.fromkeys([*classes, *(_category(a) for a in kept if not a.complete)]))
    category_ids = {category: n for n, category in enumerate(names, start=1)}
    objects: list[dict[str, Any]] = []
    regions: dict[str, list[dict[str, Any]]] = {key: [] for key in image_ids}
    for annotation in kept:
        if annotation.complete:
            regions[annotation.image].append(_region(annotation))
        else:
            entry = _entry(annotation, frame)
            entry |= {"id": len(objects) + 1, "image_id": image_ids[annotation.image],
                      "category_id": category_ids[_category(annotation)]}  # fmt: skip
            objects.append(entry)
    document = {
        "info": {"description": "napari-cellpath", KEY: file_facts(images, offset)},
        "images": [
            {"id": image_ids[i.key], "file_name": i.name, "height": i.height, "width": i.width}
            | ({KEY: {"complete": regions[i.key]}} if regions[i.key] else {})
            for i in images
        ],
        "categories": [
            {"id": n, "name": category, "supercategory": ""} for category, n in category_ids.items()
        ],
        "annotations": objects,
    }
    try:
        written = json.dumps(document, default=plain, allow_nan=False)
    except ValueError as error:
        raise not_finite(name, "one of the objects") from error
    write_atomically(path, written + "\n")
    return len(kept)


def _category(annotation: Annotation) -> str:
    if annotation.labels:
        return annotation.labels[0]
    called = annotation.prediction.label if annotation.prediction is not None else ""
    return called or UNLABELLED


def _region(annotation: Annotation) -> dict[str, Any]:
    """A *Complete here* rectangle, in the coordinates of the image: no other program reads it."""
    return own_facts(annotation, ())


def _entry(annotation: Annotation, frame: Frame) -> dict[str, Any]:
    """One annotation without its ids."""
    entry, back = _placed(annotation, frame)
    prediction = annotation.prediction
    attributes: dict[str, Any] = entry.pop("attributes", {})
    if len(annotation.labels) > 1:
        attributes["labels"] = list(annotation.labels)
    if attributes:
        entry["attributes"] = attributes
    if not annotation.labels and prediction is not None and prediction.score is not None:
        entry["score"] = prediction.score
    entry[KEY] = own_facts(annotation, back)
    return entry


def _placed(annotation: Annotation, frame: Frame) -> tuple[dict[str, Any], Geometry]:
    """Box and outline in COCO's fields, and the geometry that reading them gives."""
    row0, col0, row1, col1 = annotation.bounds
    x, y = frame.edge_to_file(row0, col0)
    box = [x, y, col1 - col0, row1 - row0]
    entry = {"bbox": box, "area": box[2] * box[3], "iscrowd": 0, "segmentation": []}
    if annotation.shape is Shape.POINT:
        point = [annotation.geometry[0] - frame.offset[0], annotation.geometry[1] - frame.offset[1]]
        return entry | {"attributes": {"point": point}}, _point(point, frame)
    if annotation.shape is Shape.BOX:
        return entry, _box(box, frame)
    outline = [frame.edge_to_file(*p) for p in annotation.geometry[0]]
    entry["segmentation"] = [[value for xy in outline for value in xy]]
    return entry, (tuple(frame.edge(*xy) for xy in outline),)


def _point(point: Sequence[float], frame: Frame) -> Geometry:
    row, col = (frame.length(value) for value in point)
    return row + frame.offset[0], col + frame.offset[1]


def _box(box: Sequence[float], frame: Frame) -> Geometry:
    x, y, width, height = box
    return (*frame.edge(x, y), *frame.edge(x + width, y + height))


def read_coco(data: Mapping[str, Any], intake: Intake) -> None:
    """Take in a COCO document.

    With one image asked for, a file that names several gives that image's objects only.

    Raises
    ------
    TableError
        Its lists are none, or an object is refused.
    """
    reader = _Reader(data, intake)
    objects = _list(data, "annotations", intake.name)
    if len(objects) > MAX_OBJECTS:
        raise TooManyError(
            f"{intake.name} holds more than {MAX_OBJECTS:,} objects; split it into several files."
        )
    reader.take_regions()
    used: dict[Any, int] = {}
    for count, entry in enumerate(objects, start=1):
        what = f"{intake.name} annotation {count}"
        try:
            if not isinstance(entry, dict):
                raise TableError(f"{what} is none.")
            written_id = entry.get("id")
            if isinstance(written_id, int | str) and used.setdefault(written_id, count) != count:
                raise TableError(
                    f"{what}: its id was used before, by annotation {used[written_id]}."
                )
            image = reader.image_of(entry, what)
            if image is not None:
                intake.take(reader.annotations(entry, image, what), image, what)
        except TooManyError:
            raise
        except CellpathError as error:
            intake.refuse(error)


def _list(data: Mapping[str, Any], key: str, name: str) -> list[Any]:
    value = data.get(key)
    if not isinstance(value, list):
        raise TableError(f"{name}: its {key} are no list.")
    return value


class _Reader:
    """Annotations of one COCO document to ours."""

    def __init__(self, data: Mapping[str, Any], intake: Intake) -> None:
        self._intake = intake
        info = data.get("info")
        self._facts = info.get(KEY) if isinstance(info, dict) else None
        self._names: dict[Any, str] = {}
        self._entries: list[dict[str, Any]] = []
        for n, entry in enumerate(_list(data, "images", intake.name), start=1):
            what = f"{intake.name} image {n}"
            if not isinstance(entry, dict) or not isinstance(entry.get("id"), int | str):
                raise TableError(f"{what} has no id.")
            if entry["id"] in self._names:
                raise TableError(f"{what}: its id was used before.")
            self._names[entry["id"]] = text(entry.get("file_name"), f"{what}: its file_name")
            self._entries.append(entry)
        self._categories: dict[Any, str] = {}
        for n, entry in enumerate(_list(data, "categories", intake.name), start=1):
            what = f"{intake.name} category {n}"
            if not isinstance(entry, dict) or not isinstance(entry.get("id"), int | str):
                raise TableError(f"{what} has no id.")
            self._categories[entry["id"]] = text(entry.get("name"), f"{what}: its name")
        self._images: dict[Any, ImageFacts | None] = {}
        self._frames: dict[str, tuple[Frame, Offset]] = {}

    def image_of(self, entry: Mapping[str, Any], what: str) -> ImageFacts | None:
        """Its image in the project; None for one that was not asked for."""
        ident = entry.get("image_id")
        if not isinstance(ident, int | str) or ident not in self._names:
            raise TableError(f"{what}: its image_id names no image of the file.")
        if ident not in self._images:
            self._images[ident] = self._intake.image_called(
                self._names[ident], self._names.values(), what
            )
        return self._images[ident]

    def frame(self, image: ImageFacts) -> tuple[Frame, Offset]:
        """How to read coordinates, and by how much they are moved since they were written."""
        if image.key not in self._frames:
            written_at, same = stated_offset(self._facts, image, self._intake.name)
            frame = self._intake.frame(image, written_at if same else (0.0, 0.0))
            shift = (frame.offset[0] - written_at[0], frame.offset[1] - written_at[1])
            self._frames[image.key] = frame, shift
        return self._frames[image.key]

    def take_regions(self) -> None:
        """Take in the *Complete here* rectangles of our own files."""
        for entry in self._entries:
            own = entry.get(KEY)
            regions = own.get("complete") if isinstance(own, dict) else None
            for n, facts in enumerate(regions if isinstance(regions, list) else [], start=1):
                what = f"{self._intake.name} region {n} of image {self._names[entry['id']][:80]}"
                try:
                    image = self.image_of({"image_id": entry["id"]}, what)
                    if image is not None:
                        self._intake.take([self._region(facts, image, what)], image, what)
                except CellpathError as error:
                    self._intake.refuse(error)

    def _region(self, facts: Any, image: ImageFacts, what: str) -> Annotation:
        geometry: Any = tuplify(facts.get("geometry")) if isinstance(facts, dict) else None
        shape = shape_of(geometry)
        if shape is None:
            raise TableError(f"{what} is no rectangle.")
        _, shift = self.frame(image)
        facts = {**facts, "shape": shape}
        region = from_own_facts(facts, moved(shape, geometry, shift), image, shift, what)
        return self._named(region, image, what)

    def _named(self, annotation: Annotation, image: ImageFacts, what: str) -> Annotation:
        if annotation.uid:
            return annotation
        return replace(annotation, uid=self._intake.free_uid(image, what))

    def annotations(
        self, entry: Mapping[str, Any], image: ImageFacts, what: str
    ) -> list[Annotation]:
        """What one annotation of the file says; several where its outline is in pieces."""
        frame, shift = self.frame(image)
        ident = entry.get("category_id")
        if ident is not None and (
            not isinstance(ident, int | str) or ident not in self._categories
        ):
            raise TableError(f"{what}: its category_id names no category of the file.")
        category = self._categories[ident] if ident is not None else ""
        own = entry.get(KEY)
        parts = _parts(entry, frame, what)
        if not isinstance(own, dict):
            return self._foreign(entry, category, mended(parts, what), image, what)
        shape, geometry = parts[0]
        exact = exact_geometry(own, shape)
        if exact is not None:
            probe = Annotation("", "", shape=shape, geometry=exact)
            written_at = (frame.offset[0] - shift[0], frame.offset[1] - shift[1])
            fields, _ = _placed(probe, Frame(written_at))
            if all(_same(entry.get(key), value) for key, value in fields.items()):
                geometry = moved(shape, exact, shift)
        annotation = self._named(
            from_own_facts({**own, "shape": shape}, geometry, image, shift, what), image, what
        )
        if category != _category(annotation):  # a person changed it in another program
            annotation = replace(annotation, labels=(category,) if category else ())
        return with_parts(annotation, [(shape, geometry), *parts[1:]])

    def _foreign(
        self, entry: Mapping[str, Any], category: str, parts: Parts, image: ImageFacts, what: str
    ) -> list[Annotation]:
        ident = entry.get("id")
        name = str(ident) if isinstance(ident, int | str) else ""
        text(name, f"{what}: its id")
        attributes = entry.get("attributes")
        several = attributes.get("labels") if isinstance(attributes, dict) else None
        labels = labels_of(category, self._intake.system)
        if isinstance(several, list) and several:
            labels = tuple(text(label, f"{what}: a label") for label in several)
        prediction, score = None, entry.get("score")
        if score is not None:
            value = number(score, f"{what}: its score")
            if not 0 <= value <= 1:
                raise TableError(f"{what}: its score is not between 0 and 1.")
            prediction, labels = Prediction(category, value), ()
        uid = self._intake.free_uid(image, name, repr(parts), category)
        return with_parts(
            Annotation(uid, image.key, self._intake.system, labels=labels, id=name,
                       seen=bool(labels), prediction=prediction),
            parts,
        )  # fmt: skip


def _same(read: Any, written: Any) -> bool:
    """Whether a field is as we wrote it, whatever else stands beside it."""
    if isinstance(written, dict):
        return isinstance(read, dict) and all(_same(read.get(k), v) for k, v in written.items())
    return bool(tuplify(read) == tuplify(written))


def _parts(entry: Mapping[str, Any], frame: Frame, what: str) -> Parts:
    """Point, outlines or box of an annotation, whichever says most."""
    attributes = entry.get("attributes")
    point = attributes.get("point") if isinstance(attributes, dict) else None
    if point is not None:
        return [(Shape.POINT, _point(_numbers(point, 2, what), frame))]
    outlines = entry.get("segmentation")
    if isinstance(outlines, dict):
        raise TableError(f"{what} is a run-length mask; export polygons or a label TIFF instead.")
    if outlines:
        if not isinstance(outlines, list):
            raise TableError(f"{what}: its segmentation is none.")
        parts: Parts = []
        for flat in outlines:
            values = _numbers(flat, None, what)
            ring = [frame.edge(*xy) for xy in zip(values[::2], values[1::2], strict=True)]
            if len(ring) > 3 and ring[0] == ring[-1]:
                del ring[-1]
            parts.append((Shape.POLYGON, (tuple(ring),)))
        return parts
    return [(Shape.BOX, _box(_numbers(entry.get("bbox"), 4, what), frame))]


def _numbers(values: Any, count: int | None, what: str) -> list[float]:
    if not isinstance(values, list) or (len(values) != count if count else len(values) % 2):
        raise TableError(f"{what}: its {'box' if count == 4 else 'place'} is none.")
    return [number(value, what) for value in values]
