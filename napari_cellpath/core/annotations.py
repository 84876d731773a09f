"""What people and models say of places on images: the one shape all rooms share.

An `Annotation` is one object of a project: a nucleus, a box of red cells, an outlined area. What
a person says of it (``labels``) and what a model said (``prediction``) stand side by side and
never in each other's place.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any

from napari_cellpath.core.errors import TableError
from napari_cellpath.core.vocabulary import System


class Shape(StrEnum):
    """The shapes an object may have."""

    POINT = "point"
    BOX = "box"
    POLYGON = "polygon"


class Part(StrEnum):
    """On which side of the split a slide, patient or specimen stands."""

    TRAIN = "train"
    VALIDATION = "validation"  # chooses epochs, thresholds and the calibration
    FROZEN = "frozen"  # never learnt from: the report and the gate are made on it


Point = tuple[float, float]
Geometry = tuple[Any, ...]

JOINED = "; "
"""Between several labels of one object, where they stand in one text."""


def joined(labels: Iterable[str]) -> str:
    """Labels of one object as one text."""
    return JOINED.join(labels)


CLASSES = ": "
"""Between the classes of one prediction, as QuPath names derived classes."""


def parted(text: str) -> tuple[str, ...]:
    """Inverse of `joined`; spaces and empty parts do not count."""
    return tuple(part for part in (p.strip() for p in text.split(JOINED.strip())) if part)


@dataclass(frozen=True)
class ImageFacts:
    """An image of a project.

    Attributes
    ----------
    key
        Its identity in the project: from its content, so that a renamed file stays the same one.
    name
        File name, or layer name of an image that is only in memory.
    path
        Absolute path as last seen; empty for an image that is only in memory.
    height, width
        Of level 0, pixels.
    mpp
        Micrometres per pixel, None if not known.
    group
        Slide, patient or specimen: the unit of the split.
    """

    key: str
    name: str
    path: str = ""
    height: int = 0
    width: int = 0
    mpp: float | None = None
    group: str = ""


@dataclass(frozen=True)
class Prediction:
    """What a model said of one object; `core.results.NucleusCall` says what the fields mean.

    ``at`` is the geometry it was made for: an object moved since has a stale prediction.
    ``calibrated`` is the score after the model's calibration, None where it has none.
    """

    label: str
    score: float | None
    std: float | None = None
    n_views: int = 0
    probabilities: tuple[tuple[str, float], ...] = ()
    threshold: float | None = None
    model: str = ""
    precision: str = "fp32"
    flags: tuple[str, ...] = ()
    at: Geometry = ()
    calibrated: float | None = None

    def to_facts(self) -> dict[str, Any]:
        """Only what differs from the default, ready for JSON."""
        facts = _spare(self)
        if self.probabilities:
            facts["probabilities"] = dict(self.probabilities)
        return facts

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Prediction:
        """Inverse of `to_facts`; unknown keys are passed over."""
        known = {k: v for k, v in facts.items() if k in _PREDICTION_FIELDS}
        known["probabilities"] = tuple(dict(facts.get("probabilities", ())).items())
        known["flags"] = tuple(facts.get("flags", ()))
        known["at"] = tuplify(facts.get("at", ()))
        return cls(**{"label": "", "score": None, **known})


@dataclass(frozen=True)
class Annotation:
    """One object of a project.

    Attributes
    ----------
    uid
        Identity for life; everything is written by it.
    image
        `ImageFacts.key` of its image.
    system
        Whose layer it stands on.
    shape, geometry
        ``point``: (row, col), level-0 pixels, integers are pixel centres. ``box``: (row0, col0,
        row1, col1), half-open pixel edges. ``polygon``: rings of (row, col) pixel edges, the
        first the outline, the others holes; a ring does not repeat its first point.
    labels
        What a person says it is; several only where the system gives several (red cells).
    complete
        This is no object but a *Complete here* rectangle: whatever of ``labels`` (all classes if
        empty) is not marked inside it is not there.
    id
        The name it had in a table it came from.
    seen
        Whether a person has looked at it.
    readings
        (reader, label) pairs of blind second readings.
    author, at
        Who gave the labels, and when (ISO 8601, UTC); the journal fills them in.
    prediction
        What a model said last, None if nothing yet.
    """

    uid: str
    image: str
    system: System = System.DEEPPAP
    shape: Shape = Shape.POINT
    geometry: Geometry = ()
    labels: tuple[str, ...] = ()
    complete: bool = False
    id: str = ""
    seen: bool = False
    readings: tuple[tuple[str, str], ...] = ()
    author: str = ""
    at: str = ""
    prediction: Prediction | None = None

    def to_facts(self) -> dict[str, Any]:
        """Only what differs from the default, ready for JSON; the uid stands elsewhere."""
        facts = _spare(self)
        facts.pop("uid")
        if self.readings:
            facts["readings"] = dict(self.readings)
        if self.prediction is not None:
            facts["prediction"] = self.prediction.to_facts()
        return facts

    @classmethod
    def from_facts(cls, uid: str, facts: Mapping[str, Any]) -> Annotation:
        """Inverse of `to_facts`; unknown keys are passed over."""
        prediction = facts.get("prediction")
        known = {k: v for k, v in facts.items() if k in _ANNOTATION_FIELDS}
        return cls(**{
            **known,
            "uid": uid,
            "image": facts["image"],
            "system": System(facts.get("system", System.DEEPPAP)),
            "shape": Shape(facts.get("shape", Shape.POINT)),
            "geometry": tuplify(facts.get("geometry", ())),
            "labels": tuple(facts.get("labels", ())),
            "readings": tuple(dict(facts.get("readings", ())).items()),
            "prediction": None if prediction is None else Prediction.from_facts(prediction),
        })  # fmt: skip

    @property
    def centre(self) -> Point:
        """(row, col) in the convention of points: integers are pixel centres."""
        if self.shape is Shape.POINT:
            return float(self.geometry[0]), float(self.geometry[1])
        r0, c0, r1, c1 = self.bounds
        return (r0 + r1 - 1) / 2, (c0 + c1 - 1) / 2

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(row0, col0, row1, col1), pixel edges; a point is its own pixel."""
        if self.shape is Shape.BOX:
            r0, c0, r1, c1 = (float(x) for x in self.geometry)
            return r0, c0, r1, c1
        if self.shape is Shape.POINT:
            row, col = (float(x) for x in self.geometry)
            return row, col, row + 1, col + 1
        rows = [float(p[0]) for p in self.geometry[0]]
        cols = [float(p[1]) for p in self.geometry[0]]
        return min(rows), min(cols), max(rows), max(cols)


_PREDICTION_FIELDS = frozenset(f.name for f in fields(Prediction))
_ANNOTATION_FIELDS = frozenset(f.name for f in fields(Annotation)) - {"uid"}


def tuplify(value: Any) -> Any:
    """Lists as tuples, all the way down: geometry compares equal before and after JSON."""
    return tuple(tuplify(v) for v in value) if isinstance(value, list | tuple) else value


_DEFAULTS = {of: tuple((f.name, f.default) for f in fields(of)) for of in (Annotation, Prediction)}


def _spare(thing: Any) -> dict[str, Any]:
    kept = {}
    for name, default in _DEFAULTS[type(thing)]:
        value = getattr(thing, name)
        if name in ("image", "label", "score") or value != default:
            kept[name] = value
    return kept


def check_geometry(
    shape: Shape, geometry: Geometry, what: str, size: tuple[int, int] | None = None
) -> None:
    """Raise unless the geometry is finite, of its shape's form and, with ``size``, on the image.

    Parameters
    ----------
    shape, geometry
        See `Annotation`.
    what
        How the message names the object, e.g. ``"cells.geojson feature 17"``.
    size
        Height and width of the image, level-0 pixels; None where they are not known.

    Raises
    ------
    TableError
        Not finite, malformed, without area, or outside the image.
    """
    numbers = list(_numbers(geometry))
    if not all(isinstance(n, int | float) and math.isfinite(n) for n in numbers):
        raise TableError(f"{what}: a coordinate is not a finite number.")
    if shape is Shape.POINT:
        if len(numbers) != 2:
            raise TableError(f"{what}: a point needs a row and a column.")
        row0, col0 = (n + 0.5 for n in numbers)
        row1, col1 = row0, col0
    elif shape is Shape.BOX:
        if len(numbers) != 4:
            raise TableError(f"{what}: a box needs row0, col0, row1 and col1.")
        row0, col0, row1, col1 = numbers
        if row1 <= row0 or col1 <= col0:
            raise TableError(
                f"{what}: the box has no area ({row0:g}, {col0:g}, {row1:g}, {col1:g})."
            )
    else:
        if not geometry or any(len(ring) < 3 for ring in geometry):
            raise TableError(f"{what}: an outline needs at least three corners.")
        rows, cols = [p[0] for p in geometry[0]], [p[1] for p in geometry[0]]
        row0, row1, col0, col1 = min(rows), max(rows), min(cols), max(cols)
        if row1 <= row0 or col1 <= col0:
            raise TableError(f"{what}: the outline has no area.")
    if size is not None and not (row0 >= 0 and row1 <= size[0] and col0 >= 0 and col1 <= size[1]):
        raise TableError(
            f"{what} lies outside its image of {size[0]} x {size[1]} pixels (rows x columns)."
        )


def _numbers(geometry: Any) -> Any:
    for part in geometry:
        if isinstance(part, list | tuple):
            yield from _numbers(part)
        else:
            yield part


@dataclass(frozen=True)
class LabelledData:
    """What a project offers for training one system: labelled objects, images, the split.

    Attributes
    ----------
    name
        Of the project.
    classes
        Class names in order, as the project knows them.
    images
        By `ImageFacts.key`.
    annotations
        Objects with at least one label, in order of image and position.
    parts
        Part of each group.
    boxes
        Boxes of this system, labelled or not.
    complete
        Rectangles in which every object of it is marked, whatever its class.
    """

    name: str
    classes: tuple[str, ...]
    images: Mapping[str, ImageFacts]
    annotations: tuple[Annotation, ...]
    parts: Mapping[str, Part] = field(default_factory=dict)
    boxes: tuple[Annotation, ...] = ()
    complete: tuple[Annotation, ...] = ()
