"""Classes of a region on disk: an OME-Zarr that grows row by row, and the journal of it.

::

    NAME.ome.zarr/            OME-NGFF 0.4, readable by other programs
      .zattrs .zgroup
      0/ 1/ 2/ ...            uint8 class numbers; level k holds every 2**k-th pixel
      probabilities/0/ 1/     uint8 (class, row, col), 255 = 1; where it was asked for
      provisional/0/          a first look at every 4th pixel; never part of the answer
      cellpath.json           the request, and how many rows are done

Values that are no class stand at the top of the range: `UNSEEN`, `SKIPPED`, `UNREADABLE`.
Rows are written top to bottom and counted in the journal after they are on disk, so whatever ends
the program, the rows the journal counts are whole.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.core.errors import CellpathError, OutputError, UnreadableImageError
from napari_cellpath.core.files import write_atomically
from napari_cellpath.core.requests import FileImage, Image

if TYPE_CHECKING:
    from collections.abc import Iterator

    import zarr

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

_CHUNK_COLS = 2048
_CHUNK_ROWS = (32, 512)
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


class RegionStore:
    """A store that is open. One writer, any number of readers.

    Attributes
    ----------
    path
        Its folder.
    facts
        What it is of.
    progress
        How far it is.
    levels
        Class numbers, full resolution first.
    probabilities
        (class, row, column) uint8 at every level, or an empty list.
    provisional
        The first look, ``provisional[y, x]`` of pixel (4 y, 4 x), or None.
    """

    def __init__(self, path: Path, facts: RegionFacts, progress: Progress, mode: str) -> None:
        import zarr

        self.path = path
        self.facts = facts
        self.progress = progress
        with _writing(path):
            group: Any = zarr.open_group(str(path), mode=mode)  # type: ignore[arg-type]
            n_levels = len(level_shapes(facts.shape))
            self.levels: list[zarr.Array] = [group[str(k)] for k in range(n_levels)]
            self.probabilities: list[zarr.Array] = []
            if facts.probabilities:
                self.probabilities = [group[f"probabilities/{k}"] for k in range(n_levels)]
            self.provisional: zarr.Array | None = None
            if "provisional" in group:
                self.provisional = group["provisional/0"]
        self._writable = mode != "r"

    # ------------------------------------------------------------------ opening

    @classmethod
    def create(cls, path: Path | str, facts: RegionFacts, chunk_rows: int = 256) -> RegionStore:
        """Make a new store.

        Raises
        ------
        OutputError
            Something is there already, or it cannot be written.
        """
        import zarr

        folder = Path(path)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise OutputError(f"{folder} exists and is no region of ours; choose another.")
        chunk_rows = int(np.clip(chunk_rows, *_CHUNK_ROWS))
        with _writing(folder):
            group = zarr.open_group(str(folder), mode="a", zarr_format=2)
            for number, shape in enumerate(level_shapes(facts.shape)):
                _array(group, str(number), shape, (chunk_rows, _CHUNK_COLS), UNSEEN)
                if facts.probabilities:
                    _array(
                        group, f"probabilities/{number}", (len(facts.class_names), *shape),
                        (1, chunk_rows, _CHUNK_COLS), 0,
                    )  # fmt: skip
            group.attrs.update(_multiscales(facts, facts.shape, "classes") | _labels(facts))
            if facts.probabilities:
                group["probabilities"].attrs.update(
                    _multiscales(facts, facts.shape, "probabilities", channels=True)
                )
        store = cls(folder, facts, Progress(), "r+")
        store._note()
        return store

    @classmethod
    def open(cls, path: Path | str, mode: str = "r") -> RegionStore:
        """Open a store, ``r`` to look or ``r+`` to go on.

        Raises
        ------
        UnreadableImageError
            It is none of ours, or damaged.
        """
        folder = Path(path)
        facts, progress = read_journal(folder)
        try:
            return cls(folder, facts, progress, mode)
        except CellpathError:
            raise
        except Exception as error:  # zarr raises many kinds for a missing or torn array
            raise UnreadableImageError(
                f"{folder} is damaged ({type(error).__name__}: {error}); remove it and predict "
                "again."
            ) from error

    @classmethod
    def resume(cls, path: Path | str, facts: RegionFacts, chunk_rows: int = 256) -> RegionStore:
        """Go on with a store of equal facts, or make one where there is nothing.

        Raises
        ------
        OutputError
            The store is of another request, which is named; or something else is there.
        UnreadableImageError
            It is damaged.
        """
        folder = Path(path)
        if not (folder / JOURNAL).is_file():
            return cls.create(folder, facts, chunk_rows)
        store = cls.open(folder, "r+")
        held, asked = store.facts.as_json(), facts.as_json()
        for kept in (held["layout"], held["image"], asked["layout"], asked["image"]):
            kept.pop("note", None)
        differing = sorted(_differing(held, asked))
        if differing:
            raise OutputError(
                f"{folder} holds another request (it differs in {', '.join(differing)}); choose "
                "another store, or remove this one."
            )
        return store

    # ------------------------------------------------------------------ writing

    def write_rows(
        self,
        row: int,
        labels: NDArray[np.uint8],
        probabilities: NDArray[np.uint8] | None = None,
    ) -> None:
        """Write the next rows, whole, at every level, then count them.

        Parameters
        ----------
        row
            First of them; must be the first that is not done.
        labels
            (n, width) uint8.
        probabilities
            (classes, n, width) uint8, where the store has them.

        Raises
        ------
        OutputError
            The disk is full or went away; the rows counted so far are intact.
        """
        if row != self.progress.rows_done:
            raise ValueError(f"row {row} written where {self.progress.rows_done} comes next")
        end = row + labels.shape[0]
        with _writing(self.path):
            for number, level in enumerate(self.levels):
                step = 1 << number
                first = -(-row // step)  # the first whole multiple from here on
                last = -(-end // step)
                if first >= last:
                    continue
                picked = slice(first * step - row, None, step)
                level[first:last] = labels[picked, ::step]
                if probabilities is not None:
                    self.probabilities[number][:, first:last] = probabilities[:, picked, ::step]
        counts = np.bincount(labels.ravel(), minlength=256)
        self.progress.counts = (np.asarray(self.progress.counts) + counts).tolist()
        self.progress.rows_done = end
        self.progress.complete = end == self.facts.shape[0]
        self._note()

    def look(self, row: int, col: int, labels: NDArray[np.uint8]) -> None:
        """Write a part of the first look; ``labels`` are of whole pixels from (row, col) on."""
        import zarr

        with _writing(self.path):
            if self.provisional is None:
                group = zarr.open_group(str(self.path), mode="r+")
                shape = tuple(-(-side // LOOK) for side in self.facts.shape)
                self.provisional = _array(group, "provisional/0", shape, (256, 256), UNSEEN)
                group["provisional"].attrs.update(
                    _multiscales(self.facts, shape, "provisional", factor=LOOK, levels=1)
                )
            first_row, first_col = -(-row // LOOK), -(-col // LOOK)
            part = labels[first_row * LOOK - row :: LOOK, first_col * LOOK - col :: LOOK]
            self.provisional[
                first_row : first_row + part.shape[0], first_col : first_col + part.shape[1]
            ] = part

    def note(self, **changes: Any) -> None:
        """Change facts of `progress` and write the journal."""
        for name, value in changes.items():
            setattr(self.progress, name, value)
        self._note()

    def _note(self) -> None:
        content = {
            "format": FORMAT,
            "request": self.facts.as_json(),
            "progress": asdict(self.progress),
        }
        write_atomically(
            self.path / JOURNAL, json.dumps(content, ensure_ascii=False, allow_nan=False)
        )

    # ------------------------------------------------------------------ reading

    def rows(self, row0: int, row1: int) -> NDArray[np.uint8]:
        """Class numbers of rows of the full level; `UNSEEN` below what is done."""
        return np.asarray(self.levels[0][row0:row1], np.uint8)

    def entropy(self, row0: int, row1: int, level: int = 0) -> NDArray[np.float32]:
        """How undecided each pixel is, 0 (sure) to 1 (all classes alike), from the probabilities.

        NaN where nothing was computed.

        Raises
        ------
        OutputError
            The store has no probabilities.
        """
        if not self.probabilities:
            raise OutputError(f"{self.path} holds no probabilities; predict it with probabilities.")
        return entropy_of(np.asarray(self.probabilities[level][:, row0:row1]))


def entropy_of(probabilities: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Entropy over the first axis as a share of the largest possible; NaN where all are 0."""
    values = probabilities.astype(np.float32)
    total = values.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = values / total
        terms = np.where(shares > 0, -shares * np.log(shares), 0.0)
    entropy: NDArray[np.float32] = (terms.sum(axis=0) / np.log(len(values))).astype(np.float32)
    entropy[total == 0] = np.nan
    return entropy


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


def _differing(held: Mapping[str, Any], asked: Mapping[str, Any]) -> Iterator[str]:
    for key in held.keys() | asked.keys():
        ours, theirs = held.get(key), asked.get(key)
        if isinstance(ours, dict) and isinstance(theirs, dict):
            yield from _differing(ours, theirs)
        elif ours != theirs:
            yield "the polygon" if key == "polygon" else f"{key}: {ours}, asked {theirs}"


def _array(
    group: Any, name: str, shape: Sequence[int], chunks: Sequence[int], fill: int
) -> zarr.Array:
    from numcodecs import Blosc

    array: zarr.Array = group.create_array(
        name,
        shape=tuple(shape),
        chunks=tuple(min(c, s) for c, s in zip(chunks, shape, strict=True)),
        dtype="uint8",
        fill_value=fill,
        compressors=Blosc(cname="zstd", clevel=1),
        chunk_key_encoding={"name": "v2", "separator": "/"},
    )
    return array


def _multiscales(
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


def _labels(facts: RegionFacts) -> dict[str, Any]:
    colours = [
        {"label-value": number, "rgba": [*bytes.fromhex(colour.removeprefix("#")), 255]}
        for number, colour in enumerate(facts.colours)
    ]
    names = [
        {"label-value": number, "class": name} for number, name in enumerate(facts.class_names)
    ]
    return {"image-label": {"version": "0.4", "colors": colours, "properties": names}}


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Let only our errors out of zarr's writing."""
    try:
        yield
    except OSError as error:
        if isinstance(error, CellpathError):
            raise
        reason = error.strerror or str(error)
        raise OutputError(
            f"{path} cannot be written ({reason}); the rows done so far are intact."
        ) from error
