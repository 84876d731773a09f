"""What of an annotation no field of a foreign format holds: the key ``cellpath``.

Its geometry and image stand where the format has them. Where arithmetic with the file's offset
would not give the same bits back, the geometry is kept here too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from napari_cellpath.core.annotations import (
    Annotation,
    Geometry,
    ImageFacts,
    Shape,
    tuplify,
)
from napari_cellpath.core.errors import OutputError, TableError
from napari_cellpath.project.interchange.frame import Offset, moved, shape_of
from napari_cellpath.project.interchange.intake import text

KEY = "cellpath"
VERSION = 1


def file_facts(images: Sequence[ImageFacts], offset: Offset) -> dict[str, Any]:
    """What a file says of itself: version, offset and the images it was made of."""
    return {
        "version": VERSION,
        "offset": list(offset),
        "images": [
            {
                "key": i.key, "name": i.name, "height": i.height, "width": i.width,
                "mpp": i.mpp, "group": i.group,
            }
            for i in images
        ],
    }  # fmt: skip


def stated_offset(facts: Any, image: ImageFacts, name: str) -> tuple[Offset, bool]:
    """Offset with which a file was written, and whether it was made of this very image.

    Raises
    ------
    TableError
        The file was made by a newer version, or of another image with another pixel size.
    """
    if not isinstance(facts, dict):
        return (0.0, 0.0), False
    version = facts.get("version", VERSION)
    if type(version) is not int or version > VERSION:
        raise TableError(f"{name} was made by a newer version of cellpath; update to read it.")
    offset = facts.get("offset", [0.0, 0.0])
    if not _is_pair(offset):
        raise TableError(f"{name}: its offset is not two finite numbers.")
    made_of = facts.get("images", [])
    entries = [e for e in made_of if isinstance(e, dict)] if isinstance(made_of, list) else []
    own = any(entry.get("key") == image.key for entry in entries)
    if not own and len(entries) == 1:
        mpp: Any = entries[0].get("mpp")
        if type(mpp) in (int, float) and mpp > 0 and image.mpp and abs(mpp / image.mpp - 1) > 0.02:
            raise TableError(
                f"{name} was made on pixels of {mpp:g} um, {image.name} has pixels of "
                f"{image.mpp:g} um; its marks would not lie where they belong."
            )
    return (float(offset[0]), float(offset[1])), own


def _is_pair(value: Any) -> bool:
    """Whether these are two finite numbers."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(type(v) in (int, float) and abs(v) < 1e15 for v in value)
    )


def own_facts(annotation: Annotation, back: Geometry) -> dict[str, Any]:
    """What to write under `KEY`.

    Parameters
    ----------
    annotation
        The object.
    back
        The geometry that reading the file would give.
    """
    facts = {"uid": annotation.uid, **annotation.to_facts()}
    del facts["image"]
    if annotation.geometry == back:
        facts.pop("geometry", None)
    return facts


def from_own_facts(
    facts: Mapping[str, Any], geometry: Geometry, image: ImageFacts, shift: Offset, what: str
) -> Annotation:
    """Inverse of `own_facts`.

    Parameters
    ----------
    facts
        As read; nothing about it is trusted.
    geometry
        As the format's own field has it.
    image
        The image it now belongs to.
    shift
        By how much more than when it was written the file is moved, (rows, cols).
    what
        How messages name the object.

    Raises
    ------
    TableError
        The facts have been damaged.
    """
    try:
        _check_lists(facts)
        annotation = Annotation.from_facts(
            str(facts.get("uid", "")), {**facts, "geometry": geometry, "image": image.key}
        )
        check_types(annotation, what)
        prediction = annotation.prediction
        if prediction is None or not prediction.at:
            return annotation
        shape = shape_of(prediction.at)
        if shape is None:
            raise TableError(f"{what}: the place of its prediction is none.")
        if shift == (0.0, 0.0):
            return annotation
        at = moved(shape, prediction.at, shift)
        return replace(annotation, prediction=replace(prediction, at=at))
    except TableError:
        raise
    except (TypeError, ValueError, KeyError, AttributeError, OverflowError) as error:
        raise _damaged(what) from error


def exact_geometry(facts: Mapping[str, Any], shape: Shape) -> Geometry | None:
    """The geometry as kept under `KEY`, if one of that shape is kept."""
    kept = tuplify(facts.get("geometry"))
    return kept if shape_of(kept) is shape else None


def _check_lists(facts: Mapping[str, Any]) -> None:
    prediction = facts.get("prediction") or {}
    for holder, key in ((facts, "labels"), (prediction, "flags")):
        if not isinstance(holder.get(key, []), list):
            raise TypeError(key)


def _damaged(what: str) -> TableError:
    return TableError(f"{what}: what stands under '{KEY}' is damaged.")


def check_types(annotation: Annotation, what: str) -> None:
    """Raise `TableError` unless every field read from a file is of its type and finite."""
    texts = [annotation.uid, annotation.id, annotation.author, annotation.at]
    texts += [*annotation.labels, *(part for pair in annotation.readings for part in pair)]
    flags = [annotation.complete, annotation.seen]
    numbers: list[Any] = []
    prediction = annotation.prediction
    if prediction is not None:
        texts += [prediction.label, prediction.model, prediction.precision, *prediction.flags]
        texts += [name for name, _ in prediction.probabilities]
        numbers = [prediction.score, prediction.std, prediction.threshold, prediction.calibrated]
        numbers += [p for _, p in prediction.probabilities]
        if type(prediction.n_views) is not int or prediction.n_views < 0:
            raise TableError(f"{what}: its number of views is none.")
    if any(type(flag) is not bool for flag in flags):
        raise _damaged(what)
    for value in texts:
        if value is None:
            raise _damaged(what)
        text(value, f"{what}: a name")
    for value in numbers:
        if value is not None and (type(value) not in (int, float) or not math.isfinite(value)):
            raise TableError(f"{what}: a score is not a finite number.")


def plain(value: Any) -> Any:
    """For ``json.dumps``: NumPy's numbers as Python's."""
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} is nothing a file can hold")


def not_finite(name: str, what: str) -> OutputError:
    """The error for an object that holds NaN and is not written."""
    return OutputError(f"{name} was not written: {what} holds a number that is not finite.")
