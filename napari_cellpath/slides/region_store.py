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

import secrets
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.core.errors import CellpathError, OutputError, UnreadableImageError
from napari_cellpath.core.files import write_atomically
from napari_cellpath.slides.region_facts import FIRST_NO_CLASS as FIRST_NO_CLASS
from napari_cellpath.slides.region_facts import FORMAT as FORMAT
from napari_cellpath.slides.region_facts import JOURNAL as JOURNAL
from napari_cellpath.slides.region_facts import LOOK as LOOK
from napari_cellpath.slides.region_facts import SKIPPED as SKIPPED
from napari_cellpath.slides.region_facts import UNREADABLE as UNREADABLE
from napari_cellpath.slides.region_facts import UNSEEN as UNSEEN
from napari_cellpath.slides.region_facts import Progress as Progress
from napari_cellpath.slides.region_facts import RegionFacts as RegionFacts
from napari_cellpath.slides.region_facts import (
    differing,
    image_labels,
    journal_text,
    multiscales,
)
from napari_cellpath.slides.region_facts import fingerprint as fingerprint
from napari_cellpath.slides.region_facts import level_shapes as level_shapes
from napari_cellpath.slides.region_facts import read_journal as read_journal

if TYPE_CHECKING:
    from collections.abc import Iterator

    import zarr

_CHUNK_COLS = 2048
_CHUNK_ROWS = (32, 512)


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
        staging = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
        with _writing(folder):
            group = zarr.open_group(str(staging), mode="w", zarr_format=2)
            for number, shape in enumerate(level_shapes(facts.shape)):
                _array(group, str(number), shape, (chunk_rows, _CHUNK_COLS), UNSEEN)
                if facts.probabilities:
                    _array(
                        group, f"probabilities/{number}", (len(facts.class_names), *shape),
                        (1, chunk_rows, _CHUNK_COLS), 0,
                    )  # fmt: skip
            group.attrs.update(multiscales(facts, facts.shape, "classes") | image_labels(facts))
            if facts.probabilities:
                group["probabilities"].attrs.update(
                    multiscales(facts, facts.shape, "probabilities", channels=True)
                )
            # Complete or not at all: arrays without a journal would be nobody's.
            write_atomically(staging / JOURNAL, journal_text(facts, Progress()))
            if folder.exists():
                folder.rmdir()
            staging.rename(folder)
        return cls(folder, facts, Progress(), "r+")

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
        other = sorted(differing(held, asked))
        if other:
            raise OutputError(
                f"{folder} holds another request (it differs in {', '.join(other)}); choose "
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
        counts = np.asarray(self.progress.counts)
        for line in labels:  # one at a time: eight bytes a pixel are needed for it
            counts = counts + np.bincount(line, minlength=256)
        self.progress.counts = counts.tolist()
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
                    multiscales(self.facts, shape, "provisional", factor=LOOK, levels=1)
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
        write_atomically(self.path / JOURNAL, journal_text(self.facts, self.progress))

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


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Let only our errors out of zarr's writing."""
    try:
        yield
    except OSError as error:
        if isinstance(error, CellpathError):
            raise
        reason = error.strerror or str(error)
        try:
            begun = (path / JOURNAL).is_file()
        except OSError:
            begun = False
        kept = "the rows done so far are intact" if begun else "choose a folder that can be"
        raise OutputError(f"{path} cannot be written ({reason}); {kept}.") from error
