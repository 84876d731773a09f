"""QuPath's GeoJSON: a FeatureCollection of annotations and detections, in level-0 pixels.

What QuPath knows stands in its own fields: ``objectType`` (*annotation* where a person said
what it is, *detection* where only a model did), ``classification`` (the person's label, else the
model's call), ``name``, ``measurements`` (score and its companions), ``isLocked``. Everything
else stands under ``properties.cellpath``, so that reading gives equal annotations.

QuPath itself forgets keys it does not know. Our uid therefore is part of the feature's UUID, and
the model's call stands in ``metadata`` too: what comes back from QuPath is told apart into what
the model said and what a person changed. *Complete here* rectangles are locked, of QuPath's class
``Region*``.

A foreign feature's classification is what a person says. Its ``nucleusGeometry`` and foreign
measurements are passed over; child objects are taken in.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
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
from napari_cellpath.project.interchange.frame import Frame, Offset, moved, rectangle
from napari_cellpath.project.interchange.identity import derived_uid, is_uuid, uid_in, uuid_of
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

COMPLETE_CLASS = "Region*"
COMPLETE_NAME = "Complete here"
_CALL, _MODEL, _COMPLETE = "cellpath.call", "cellpath.model", "cellpath.complete"
_MEASURED = ("score", "std", "n_views", "calibrated", "threshold")
# QuPath 0.2 wrote the type of an object where its id belongs.
_TYPES_AS_IDS = frozenset({
    "PathTileObject", "PathCellObject", "TMACoreObject", "PathDetectionObject", "PathRootObject",
    "PathAnnotationObject",
})  # fmt: skip


def write_geojson(
    path: str | Path,
    annotations: Sequence[Annotation],
    image: ImageFacts,
    class_colours: Mapping[str, str] | None = None,
    *,
    offset: Offset = (0.0, 0.0),
) -> int:
    """Write the objects of one image; returns how many.

    Parameters
    ----------
    path
        Replaced as a whole, or left as it was.
    annotations
        Those of other images are passed over.
    image
        Theirs.
    class_colours
        ``#rrggbb`` by class name.
    offset
        (row, col) on level 0 of the upper left corner of what the file is for: a region cut from
        the slide has its own coordinates.

    Raises
    ------
    OutputError
        A number is not finite, or the file cannot be written.
    """
    name, frame, colours = Path(path).name, Frame(offset), class_colours or {}
    encode = json.JSONEncoder(default=plain, allow_nan=False, separators=(",", ":")).encode
    lines = []
    for annotation in annotations:
        if annotation.image != image.key:
            continue
        try:
            lines.append(encode(_feature(annotation, frame, colours)))
        except ValueError as error:
            raise not_finite(name, f"object {annotation.uid}") from error
    head = json.dumps(file_facts([image], offset), allow_nan=False)
    body = ",\n".join(lines)
    write_atomically(
        path, f'{{"type":"FeatureCollection","{KEY}":{head},"features":[\n{body}\n]}}\n'
    )
    return len(lines)


def _feature(annotation: Annotation, frame: Frame, colours: Mapping[str, str]) -> dict[str, Any]:
    geometry, back = _written(annotation, frame)
    prediction = annotation.prediction
    by_model = _by_model(annotation)
    properties: dict[str, Any] = {"objectType": "detection" if by_model else "annotation"}
    if annotation.complete or (annotation.id and not is_uuid(annotation.id)):
        properties["name"] = COMPLETE_NAME if annotation.complete else annotation.id
    shown = shown_class(annotation)
    if shown:
        properties["classification"] = {"name": shown}
        if shown in colours:
            value = int(colours[shown].lstrip("#"), 16)
            properties["classification"]["color"] = [value >> 16, value >> 8 & 255, value & 255]
    if annotation.complete:
        properties["isLocked"] = True
        properties["metadata"] = {_COMPLETE: json.dumps(annotation.labels)}
    if prediction is not None:
        measured = {key: getattr(prediction, key) for key in _MEASURED}
        measured |= {f"p_{name}": p for name, p in prediction.probabilities}
        properties["measurements"] = {k: v for k, v in measured.items() if v is not None}
        properties["metadata"] = properties.get("metadata", {}) | {
            _CALL: prediction.label, _MODEL: prediction.model,
        }  # fmt: skip
    properties[KEY] = own_facts(annotation, back)
    own_id = annotation.id if is_uuid(annotation.id) else uuid_of(annotation.uid)
    return {"type": "Feature", "id": own_id, "geometry": geometry, "properties": properties}


def _by_model(annotation: Annotation) -> bool:
    return not annotation.labels and not annotation.complete and annotation.prediction is not None


def shown_class(annotation: Annotation) -> str:
    """The class other programs see: the person's, else the model's; empty where there is none."""
    if annotation.complete:
        return COMPLETE_CLASS
    if annotation.labels:
        return ": ".join(annotation.labels)
    return annotation.prediction.label if annotation.prediction is not None else ""


def _written(annotation: Annotation, frame: Frame) -> tuple[dict[str, Any], Geometry]:
    """GeoJSON geometry, and what reading it gives."""
    if annotation.shape is Shape.POINT:
        xy = frame.centre_to_file(*annotation.geometry)
        return {"type": "Point", "coordinates": list(xy)}, frame.centre(*xy)
    if annotation.shape is Shape.BOX:
        row0, col0, row1, col1 = annotation.geometry
        corners = ((row0, col0), (row0, col1), (row1, col1), (row1, col0))
        rings = [[frame.edge_to_file(*p) for p in corners]]
        (x0, y0), (x1, y1) = rings[0][0], rings[0][2]
        back: Geometry = (*frame.edge(x0, y0), *frame.edge(x1, y1))
    else:
        rings = [[frame.edge_to_file(*p) for p in ring] for ring in annotation.geometry]
        back = tuple(tuple(frame.edge(*xy) for xy in ring) for ring in rings)
    closed = [[*ring, ring[0]] for ring in rings if ring]
    return {"type": "Polygon", "coordinates": closed}, back


def read_geojson(data: Any, intake: Intake) -> None:
    """Take in a FeatureCollection, a list of features, or a single feature.

    Raises
    ------
    TableError
        It is none of them, names a coordinate system, or holds an object that is refused.
    """
    facts: Any = None
    if isinstance(data, dict) and data.get("type") == "FeatureCollection":
        features, facts = data.get("features"), data.get(KEY)
        if data.get("crs"):
            raise TableError(
                f"{intake.name} is in geographic coordinates ('crs'); give pixels of the image."
            )
    else:
        features = [data] if isinstance(data, dict) else data
    if not isinstance(features, list):
        raise TableError(f"{intake.name} has no list of features.")
    if len(features) > MAX_OBJECTS:
        raise TooManyError(
            f"{intake.name} holds more than {MAX_OBJECTS:,} objects; split it into several files."
        )
    image = _image(intake, facts)
    written_at, same_image = stated_offset(facts, image, intake.name)
    frame = intake.frame(image, written_at if same_image else (0.0, 0.0))
    shift = (frame.offset[0] - written_at[0], frame.offset[1] - written_at[1])
    reader = _Reader(intake, image, frame, shift)
    for what, feature in _walk(features, intake.name):
        try:
            intake.take(reader.annotations(feature, what), image, what)
        except TooManyError:
            raise
        except CellpathError as error:
            intake.refuse(error)


def _image(intake: Intake, facts: Any) -> ImageFacts:
    """The image asked for, or the one our own file names."""
    if intake.image is None and len(intake.images) > 1 and isinstance(facts, dict):
        entries = facts.get("images")
        if isinstance(entries, list) and len(entries) == 1 and isinstance(entries[0], dict):
            keys = (entries[0].get("key"), entries[0].get("name"))
            found = [i for i in intake.images if i.key in keys or i.name in keys]
            if len(found) == 1:
                return found[0]
    return intake.only_image()


def _walk(features: Sequence[Any], name: str) -> Iterator[tuple[str, Any]]:
    """Features and, after each, its child objects: QuPath writes a hierarchy if asked to."""
    for number_, feature in enumerate(features, start=1):
        what = f"{name} feature {number_}"
        waiting = [feature]
        while waiting:
            current = waiting.pop()
            yield what, current
            properties = current.get("properties") if isinstance(current, dict) else None
            if isinstance(properties, dict):
                for key in ("childObjects", "children"):
                    children = properties.get(key)
                    if isinstance(children, list):
                        waiting.extend(reversed(children))


class _Reader:
    """Features of one file to annotations of one image."""

    def __init__(self, intake: Intake, image: ImageFacts, frame: Frame, shift: Offset) -> None:
        self._intake, self._image, self._frame, self._shift = intake, image, frame, shift

    def annotations(self, feature: Any, what: str) -> list[Annotation]:
        if not isinstance(feature, dict) or feature.get("type", "Feature") != "Feature":
            raise TableError(f"{what} is no GeoJSON feature.")
        properties = feature.get("properties")
        properties = {} if properties is None else properties
        if not isinstance(properties, dict):
            raise TableError(f"{what}: its properties are none.")
        parts = self._parts(feature.get("geometry"), what)
        own = properties.get(KEY)
        if isinstance(own, dict):
            return self._own(own, feature, parts, what)
        return self._foreign(feature, properties, mended(parts, what), what)

    def _own(
        self, own: dict[str, Any], feature: dict[str, Any], parts: Parts, what: str
    ) -> list[Annotation]:
        shape, geometry = parts[0]
        box = rectangle(geometry) if shape is Shape.POLYGON and own.get("shape") == "box" else None
        if box is not None:
            shape, geometry = Shape.BOX, box
        exact = exact_geometry(own, shape)
        if exact is not None:
            probe = Annotation("", "", shape=shape, geometry=exact)
            written_at = tuple(a - b for a, b in zip(self._frame.offset, self._shift, strict=True))
            written, _ = _written(probe, Frame((written_at[0], written_at[1])))
            read = feature["geometry"]
            if tuplify(read["coordinates"]) == tuplify(written["coordinates"]):
                geometry = moved(shape, exact, self._shift)
        annotation = from_own_facts(
            {**own, "shape": shape}, geometry, self._image, self._shift, what
        )
        if not annotation.uid:
            annotation = replace(annotation, uid=self._intake.free_uid(self._image, what))
        said = _classification(feature["properties"], what)
        if said != shown_class(annotation):  # a person changed it in another program
            annotation = replace(
                annotation, labels=labels_of(said, annotation.system), complete=False
            )
        return with_parts(annotation, [(shape, geometry), *parts[1:]])

    def _foreign(
        self, feature: dict[str, Any], properties: dict[str, Any], parts: Parts, what: str
    ) -> list[Annotation]:
        written = feature.get("id")
        own_id = str(written) if type(written) is int else text(written, f"{what}: its id")
        if own_id in _TYPES_AS_IDS:
            own_id = ""
        said = _classification(properties, what)
        metadata = properties.get("metadata")
        metadata = metadata if isinstance(metadata, dict) else {}
        returned = uid_in(own_id)
        prediction, labels, complete = None, labels_of(said, self._intake.system), False
        if _CALL in metadata or returned:
            prediction = _remembered(properties, metadata, what)
            by_model = properties.get("objectType") == "detection"
            if by_model and said == metadata.get(_CALL, said):
                prediction = replace(prediction or Prediction(said, None), label=said)
                labels = ()
        if said == COMPLETE_CLASS and _COMPLETE in metadata:
            complete, labels = True, _labels_in(metadata[_COMPLETE], what)
        name = "" if complete else text(properties.get("name"), f"{what}: its name")
        uid = returned or (
            derived_uid(self._image.key, own_id)
            if own_id
            else self._intake.free_uid(self._image, repr(parts), said)
        )
        template = Annotation(
            uid, self._image.key, self._intake.system, labels=labels, complete=complete,
            id=name or ("" if returned else own_id), seen=bool(labels), prediction=prediction,
        )  # fmt: skip
        return with_parts(template, parts)

    def _parts(self, geometry: Any, what: str) -> Parts:
        if not isinstance(geometry, dict):
            raise TableError(f"{what} has no geometry.")
        kind, places = geometry.get("type"), geometry.get("coordinates")
        if kind not in ("Point", "MultiPoint", "Polygon", "MultiPolygon"):
            raise TableError(
                f"{what} is a {str(kind)[:40]}; points and polygons can be read, nothing else."
            )
        if kind in ("Point", "Polygon"):
            places = [places]
        if not isinstance(places, list) or not places:
            raise TableError(f"{what} has no coordinates.")
        if kind.endswith("Point"):
            return [(Shape.POINT, self._frame.centre(*_xy(place, what))) for place in places]
        return [(Shape.POLYGON, self._outline(rings, what)) for rings in places]

    def _outline(self, rings: Any, what: str) -> Geometry:
        if not isinstance(rings, list) or not all(isinstance(ring, list) for ring in rings):
            raise TableError(f"{what}: its outline is none.")
        outline = []
        for ring in rings:
            places = [_xy(place, what) for place in ring]
            if len(places) > 1 and places[0] == places[-1]:
                del places[-1]
            outline.append(tuple(self._frame.edge(*place) for place in places))
        return tuple(outline)


def _xy(place: Any, what: str) -> tuple[float, float]:
    if not isinstance(place, list) or len(place) < 2:
        raise TableError(f"{what}: a position needs x and y.")
    return number(place[0], what), number(place[1], what)


def _classification(properties: Mapping[str, Any], what: str) -> str:
    """Class name as QuPath shows it, ``A: B`` for a derived one; empty where there is none."""
    classification = properties.get("classification")
    if isinstance(classification, dict):
        names = classification.get("names")
        if isinstance(names, list):
            return ": ".join(text(name, f"{what}: its class") for name in names)
        classification = classification.get("name")
    return text(classification, f"{what}: its class")


def _labels_in(written: Any, what: str) -> tuple[str, ...]:
    try:
        labels = json.loads(text(written, f"{what}: its classes"))
    except (ValueError, RecursionError):
        labels = None
    if not isinstance(labels, list):
        raise TableError(f"{what}: the classes of its rectangle are no list.")
    return tuple(text(label, f"{what}: a class") for label in labels)


def _remembered(
    properties: Mapping[str, Any], metadata: Mapping[str, Any], what: str
) -> Prediction | None:
    """The prediction of one of our objects that has been through QuPath."""
    written = properties.get("measurements")
    if isinstance(written, list):  # QuPath before 0.4
        written = {str(m.get("name")): m.get("value") for m in written if isinstance(m, dict)}
    numbers: dict[str, float] = {}
    for key, value in (written or {}).items() if isinstance(written, dict) else ():
        if type(value) in (int, float) and abs(value) < 1e15:  # QuPath measures NaN, too
            numbers[key] = value
    call = text(metadata.get(_CALL), f"{what}: its call")
    if not call and "score" not in numbers:
        return None
    return Prediction(
        call,
        numbers.get("score"),
        numbers.get("std"),
        int(numbers.get("n_views", 0)),
        tuple((key[2:], p) for key, p in numbers.items() if key.startswith("p_")),
        numbers.get("threshold"),
        text(metadata.get(_MODEL), f"{what}: its model"),
        calibrated=numbers.get("calibrated"),
    )
