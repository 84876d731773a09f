"""Labelled regions of red cells as all layouts give them: records, fields, one class of data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.core.errors import RecipeError
from napari_cellpath.models import ClassInfo
from training.datasets import CellData, CellRecord, finish
from training.rbc.regions import UNKNOWN, Region

Kind = Literal["region", "cell"]
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class RegionRecord(CellRecord):
    """One box and what is known of it.

    Attributes
    ----------
    targets
        Of each type: 1 there, 0 not there, -1 not known.
    verdict
        1 abnormal, 0 normal, -1 not known.
    cells
        Cells in it, as far as is known.
    kind
        ``region``: a connected group of cells, or one that stands alone. ``cell``: one cell of a
        group.
    """

    targets: tuple[int, ...] = ()
    verdict: int = UNKNOWN
    cells: int = 1
    kind: Kind = "region"

    @classmethod
    def of(
        cls, region: Region, image: Path, group: str, kind: Kind = "region", uid: str = ""
    ) -> RegionRecord:
        """A region of an image; ``fine_class`` is set when all are known."""
        row0, col0, row1, col1 = region.box
        return cls(
            image=image, row=(row0 + row1 - 1) / 2, col=(col0 + col1 - 1) / 2, fine_class=0,
            abnormal=region.abnormal == 1, group=group, uid=uid, box=region.box,
            targets=region.targets, verdict=region.abnormal, cells=region.cells, kind=kind,
        )  # fmt: skip


@dataclass(frozen=True)
class Field:
    """An image, or a part of one, of which every box is known: what a detector learns from.

    ``window`` is (row0, col0, row1, col1) of the part, None the whole; boxes are of the image.
    """

    image: Path
    group: str
    boxes: tuple[Box, ...]
    window: Box | None = None


@dataclass(frozen=True, eq=False)
class RedCells(CellData):
    """Records are `RegionRecord`; ``fine_class`` is the rarest type of each, for the split."""

    fields: tuple[Field, ...] = ()

    @property
    def targets(self) -> NDArray[np.int8]:
        """(n, n_types) of 1, 0 and -1."""
        shape = (len(self.records), len(self.fine_classes))
        return np.array([_of(r).targets for r in self.records], dtype=np.int8).reshape(shape)

    @property
    def verdicts(self) -> NDArray[np.int8]:
        """(n,) of 1 abnormal, 0 normal and -1."""
        return np.array([_of(r).verdict for r in self.records], dtype=np.int8)

    @property
    def known(self) -> NDArray[np.bool_]:
        """(n,) whether every label is known."""
        return np.asarray((self.targets != UNKNOWN).all(axis=1))

    @property
    def kinds(self) -> NDArray[np.str_]:
        """(n,) ``region`` or ``cell``."""
        return np.array([_of(r).kind for r in self.records], dtype=str)

    @property
    def cells(self) -> NDArray[np.intp]:
        """(n,) cells in each."""
        return np.array([_of(r).cells for r in self.records], dtype=np.intp)


def _of(record: CellRecord) -> RegionRecord:
    assert isinstance(record, RegionRecord)  # readers make no others  # noqa: S101
    return record


def with_fine_classes(records: Sequence[RegionRecord]) -> list[RegionRecord]:
    """Records with their rarest type as ``fine_class``; those of no type have one of their own."""
    n_types = len(records[0].targets) if records else 0
    counts = Counter(k for r in records for k, t in enumerate(r.targets) if t == 1)
    return [
        replace(
            r,
            fine_class=min(
                (k for k, t in enumerate(r.targets) if t == 1),
                key=lambda k: (counts[k], k),
                default=n_types,
            ),
        )
        for r in records
    ]


def finish_regions(
    name: str,
    folder: Path,
    records: Sequence[RegionRecord],
    found: Sequence[Field],
    classes: tuple[ClassInfo, ...],
    note: str,
    table: Path,
    grouped_by: str,
) -> RedCells:
    """Regions as data, with the hash of the table and of every image."""
    base = finish(
        name, folder, list(with_fine_classes(records)), classes, None, note, table, grouped_by
    )
    kept = {f.name: getattr(base, f.name) for f in fields(CellData)}
    return RedCells(**kept, fields=tuple(found))


def targets_for(data: RedCells, classes: Sequence[ClassInfo]) -> NDArray[np.int8]:
    """Labels of the records in another list of types, (n, len(classes)) of 1, 0 and -1.

    Of a type that the data do not have nothing is known.

    Raises
    ------
    RecipeError
        A record holds a type that is not in the list; it is named.
    """
    names = [c.name for c in classes]
    given = data.targets
    found = np.full((len(given), len(names)), UNKNOWN, dtype=np.int8)
    for k, kind in enumerate(data.fine_classes):
        if kind.name in names:
            found[:, names.index(kind.name)] = given[:, k]
        elif (given[:, k] == 1).any():
            raise RecipeError(
                f"{data.folder} has regions of the type '{kind.name}', which the model does not "
                f"know; it knows {', '.join(names)}."
            )
    return found
