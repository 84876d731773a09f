"""What every reader shares: limits, the image an object belongs to, checks, refusals."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from napari_cellpath.core.annotations import Annotation, ImageFacts, Shape, check_geometry
from napari_cellpath.core.errors import CellpathError, MissingFileError, TableError
from napari_cellpath.core.vocabulary import System
from napari_cellpath.project.interchange.frame import Frame, Offset, frame_for
from napari_cellpath.project.interchange.identity import derived_uid

MAX_BYTES = 512 << 20
"""Size of a file that is still read; a larger one is taken for a mistake."""

MAX_OBJECTS = 5_000_000
"""Objects read from one file."""

SEVERAL_LABELS = frozenset({System.RBC})
"""Systems in which one object may have several labels."""


@dataclass(frozen=True)
class Imported:
    """What a file held.

    Attributes
    ----------
    annotations
        In the order of the file. Theirs is the image's key, not its name.
    refused
        One sentence for each object left out; empty unless ``skip_bad`` was asked for.
    format
        ``geojson``, ``coco``, ``csv`` or ``labels``.
    """

    annotations: tuple[Annotation, ...]
    refused: tuple[str, ...]
    format: str


@dataclass
class Intake:
    """One reading: what was asked for, and what has been taken in so far.

    Attributes
    ----------
    name
        File name, for messages.
    images
        Images of the project.
    image
        The one everything belongs to; None where the file is to say it.
    classes
        Known classes; empty where any is welcome.
    unit, offset
        See `napari_cellpath.project.interchange.read_file`.
    skip_bad
        Whether to go on after a refused object.
    system
        Whose objects these are where the file does not say.
    """

    name: str
    images: Sequence[ImageFacts]
    image: ImageFacts | None = None
    classes: Sequence[str] = ()
    unit: str = "px"
    offset: Offset | None = None
    skip_bad: bool = False
    system: System = System.DEEPPAP
    annotations: list[Annotation] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    _named: dict[str, str] = field(default_factory=dict)

    def refuse(self, error: CellpathError) -> None:
        """Note why an object is left out, or raise."""
        if not self.skip_bad:
            raise error
        self.refused.append(str(error))

    def take(self, objects: Iterable[Annotation], image: ImageFacts, what: str) -> None:
        """Take in what one feature, row or value of the file says: all of it or nothing.

        Raises
        ------
        TableError
            An unknown class, a geometry that cannot be or lies outside, an identity used before.
        """
        taken = list(objects)
        if len(self.annotations) + len(taken) > MAX_OBJECTS:
            raise TooManyError(
                f"{self.name} holds more than {MAX_OBJECTS:,} objects; split it into several files."
            )
        size = (image.height, image.width) if image.height and image.width else None
        for annotation in taken:
            check_geometry(annotation.shape, annotation.geometry, what, size)
            for label in annotation.labels:
                if self.classes and label not in self.classes:
                    raise TableError(
                        f"{what}: unknown class '{label[:60]}'; known are "
                        f"{', '.join(self.classes)}."
                    )
            before = self._named.get(annotation.uid)
            if before is not None:
                raise TableError(f"{what}: its id was used before, by {before}.")
        uids = [annotation.uid for annotation in taken]
        if len(set(uids)) < len(uids):
            raise TableError(f"{what}: two of its parts have one id.")
        self._named.update(dict.fromkeys(uids, what))
        self.annotations.extend(taken)

    def free_uid(self, image: ImageFacts, *parts: str) -> str:
        """A uid for an object without identity, the same at the next reading of the file."""
        uid, again = derived_uid(image.key, *parts), 1
        while uid in self._named:
            again += 1
            uid = derived_uid(image.key, *parts, str(again))
        return uid

    def frame(self, image: ImageFacts, stated: Offset = (0.0, 0.0)) -> Frame:
        """How to read coordinates; ``stated`` counts where no offset was given."""
        return frame_for(image, self.unit, stated if self.offset is None else self.offset)

    def only_image(self) -> ImageFacts:
        """The image of a file that names none.

        Raises
        ------
        TableError
            It was not given and there are several, or none.
        """
        if self.image is not None:
            return self.image
        if len(self.images) == 1:
            return self.images[0]
        raise TableError(
            f"{self.name} does not say to which image it belongs; say it, the project has "
            f"{len(self.images)}."
        )

    def image_named(self, name: str, what: str) -> ImageFacts:
        """The project's image by that file name.

        Raises
        ------
        TableError
            There is none, or there are several.
        """
        base = base_name(name)
        for found in (
            [i for i in self.images if name in (i.path, i.key, i.name)],
            [i for i in self.images if base in (i.name, Path(i.path).name)],
        ):
            if len(found) == 1:
                return found[0]
            if found:
                raise TableError(f"{what}: {len(found)} images are named '{base[:80]}'; say which.")
        raise TableError(f"{what}: the image '{base[:80]}' is not in the project; add it first.")

    def image_called(self, name: str, names: Collection[str], what: str) -> ImageFacts | None:
        """The image of an object in a file that names ``names``; None if not asked for.

        A file that names one image only gives all to the image asked for, whatever it calls it.

        Raises
        ------
        TableError
            It is not known, or not among the names.
        """
        asked = self.image
        if asked is None:
            return self.image_named(name, what)
        if len(names) <= 1:
            return asked
        if asked.name in names:  # two images of one file name differ in their folder
            return asked if name == asked.name else None
        if asked.name not in map(base_name, names):
            raise TableError(f"{self.name} names {len(names)} images and none is {asked.name}.")
        return asked if base_name(name) == asked.name else None

    def result(self, form: str) -> Imported:
        """What was read.

        Raises
        ------
        TableError
            Nothing, not even something refused.
        """
        if not self.annotations and not self.refused:
            raise TableError(f"{self.name} holds no objects.")
        return Imported(tuple(self.annotations), tuple(self.refused), form)


def base_name(path: str) -> str:
    """File name of a path of any system."""
    return path.replace("\\", "/").rsplit("/", 1)[-1]


class TooManyError(TableError):
    """More objects than a file may hold: no reason to go on with the rest of it."""


def check_file(path: Path) -> None:
    """Raise unless this is a file of a size that can be read.

    Raises
    ------
    MissingFileError
        There is none.
    TableError
        It is a folder, empty, or too large.
    """
    if not path.exists():
        raise MissingFileError(f"{path} does not exist.")
    if path.is_dir():
        raise TableError(f"{path} is a folder; give a GeoJSON, COCO, CSV or label TIFF file.")
    size = path.stat().st_size
    if size == 0:
        raise TableError(f"{path.name} is empty.")
    if size > MAX_BYTES:
        raise TableError(
            f"{path.name} is larger than {MAX_BYTES >> 20} MB; split it into several files."
        )


def load_json(path: Path) -> Any:
    """Contents of a JSON file in UTF-8, -16 or -32, with or without a byte-order mark.

    Raises
    ------
    TableError
        It cannot be read, or is not JSON that a program would write.
    """
    try:
        raw = path.read_bytes()
        return json.loads(raw.decode(json.detect_encoding(raw)))
    except UnicodeError as error:
        raise TableError(f"{path.name} is not text in UTF-8 or UTF-16; save it again.") from error
    except json.JSONDecodeError as error:
        raise TableError(f"{path.name} line {error.lineno}: {error.msg}; not JSON.") from error
    except RecursionError as error:
        raise TableError(f"{path.name} is nested too deeply to be an annotation file.") from error
    except ValueError as error:  # an integer of thousands of digits
        raise TableError(f"{path.name} holds a number that is none ({error}).") from error
    except OSError as error:
        raise TableError(f"{path.name} cannot be read ({error.strerror}).") from error


def number(value: Any, what: str) -> float:
    """A JSON number as a float, infinite ones included: `check_geometry` names them.

    Raises
    ------
    TableError
        Text, true, or nothing.
    """
    if type(value) not in (int, float):
        raise TableError(f"{what}: a coordinate is not a number.")
    try:
        return float(value)
    except OverflowError:
        return float("inf")


def text(value: Any, what: str) -> str:
    """A string that can be written again; None is empty.

    Raises
    ------
    TableError
        It is no string, or holds half of a character.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TableError(f"{what} is not text.")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise TableError(f"{what} is not text.") from error
    return value


def labels_of(written: str, system: System) -> tuple[str, ...]:
    """Labels of a class name; ``A: B`` is two where the system gives several."""
    if not written:
        return ()
    return tuple(written.split(": ")) if system in SEVERAL_LABELS else (written,)


def with_parts(template: Annotation, geometries: Sequence[tuple[Shape, Any]]) -> list[Annotation]:
    """One annotation for each part of a multiple geometry; the first keeps the identity."""
    if [(template.shape, template.geometry)] == geometries:
        return [template]
    return [
        replace(
            template,
            uid=template.uid if n == 1 else derived_uid(template.uid, str(n)),
            id=template.id if n == 1 or not template.id else f"{template.id}/{n}",
            shape=shape,
            geometry=geometry,
        )
        for n, (shape, geometry) in enumerate(geometries, start=1)
    ]
