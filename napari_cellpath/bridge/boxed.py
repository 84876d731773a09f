"""Objects that have boxes, on a points layer: each point carries the box round it.

HEp-2 cells and regions of red cells are both such objects.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.bridge.columns import ObjectTable, Rows
from napari_cellpath.bridge.kept import Kept, Remembered
from napari_cellpath.bridge.kinds import P_COLUMN
from napari_cellpath.bridge.objects import ObjectLayer
from napari_cellpath.bridge.scheme import Call, Scheme
from napari_cellpath.core.box_table import BOX_COLUMNS
from napari_cellpath.core.requests import CellBox

USUAL_SIDE = 70
"""Side of the box round an object that was only clicked, pixels, until somebody says better."""


def boxes_round(positions: NDArray[np.float64], side: int) -> NDArray[np.int64]:
    """Square boxes (n, 4), half-open pixel edges, round points (n, 2)."""
    first = np.round(np.nan_to_num(positions) + 0.5 - side / 2).astype(np.int64)
    return np.hstack([first, first + side])


def centres_of(boxes: NDArray[Any]) -> NDArray[np.float64]:
    """Middles (n, 2) of boxes (n, 4), integers are pixel centres."""
    boxes = np.asarray(boxes, dtype=float).reshape(-1, 4)
    return (boxes[:, :2] + boxes[:, 2:] - 1) / 2


class BoxTable(ObjectTable):
    """Facts about n objects with boxes, and the probability of each class.

    Attributes
    ----------
    side
        Of the boxes of objects that come without one, pixels.
    next_boxes
        (n, 4) boxes of the objects that are about to be appended, None for squares.
    """

    def __init__(self, scheme: Scheme, shape: tuple[int, int], columns: Mapping[str, Any]) -> None:
        self.side = USUAL_SIDE
        self.next_boxes: NDArray[np.int64] | None = None
        self.shape = shape
        super().__init__(scheme, columns)
        self._know_classes()

    def _know_classes(self) -> None:
        """Have a column for the probability of each class there is."""
        for name in self.scheme.classes:
            if P_COLUMN + name not in self.columns:
                self.columns[P_COLUMN + name] = np.nan
                self.features[P_COLUMN + name] = np.full(len(self), np.nan)

    @property
    def boxes(self) -> NDArray[np.int64]:
        """(n, 4) row0, col0, row1, col1 as kept: they may reach beyond the image."""
        return np.stack([self.features[name] for name in BOX_COLUMNS], axis=1)

    def clipped(self, rows: Rows) -> NDArray[np.int64]:
        """(k, 4) the part of each box that lies on the image."""
        boxes = np.stack([self.features[name][rows] for name in BOX_COLUMNS], axis=1)
        return np.clip(boxes, 0, np.tile(self.shape, 2))

    def boxes_as_kept(self, row: int) -> list[int]:
        """row0, col0, row1, col1 of one row, on the image."""
        box: list[int] = self.clipped(np.array([row]))[0].tolist()
        return box

    def put_boxes(self, rows: Rows, boxes: NDArray[Any]) -> None:
        """Give objects these boxes (k, 4)."""
        for name, values in zip(BOX_COLUMNS, np.asarray(boxes).reshape(-1, 4).T, strict=True):
            self.features[name][rows] = values

    @property
    def has_call(self) -> NDArray[np.bool_]:
        """(n,) whether an answer stands in the row; one that says why there is none counts."""
        return self.features["model"] != ""

    @property
    def margins(self) -> NDArray[np.float64]:
        """(n,) how clear each call is, as the column says."""
        return self.features["margin"]

    @property
    def urgency(self) -> NDArray[np.float64]:
        """(n,) the least certain come first."""
        return self.features["margin"]

    def append(
        self,
        positions: NDArray[np.float64],
        ids: Sequence[str] | None = None,
        uids: Sequence[str] | None = None,
    ) -> Rows:
        """Add objects nothing is known of, with a square box round each; returns their rows."""
        rows = super().append(positions, ids, uids)
        boxes = self.next_boxes
        if boxes is None or len(boxes) != len(rows):
            boxes = boxes_round(self.positions[rows], self.side)
        self.put_boxes(rows, boxes)
        return rows

    def adopt(
        self, frame: Any, positions: NDArray[np.float64], taken: set[str],
        before: Mapping[str, Remembered] | None = None,
    ) -> None:  # fmt: skip
        """Take over a layer; objects without a box of any area get one."""
        for name in frame.columns:
            if name.startswith(P_COLUMN) and name not in self.columns:
                self.columns[name] = np.nan
                self.features[name] = np.full(len(self), np.nan)
        super().adopt(frame, positions, taken, before)
        boxes = self.boxes
        rows = np.flatnonzero((boxes[:, 2:] <= boxes[:, :2]).any(axis=1))
        self.put_boxes(rows, boxes_round(self.positions[rows], self.side))

    def move(self, rows: Rows, positions: NDArray[np.float64]) -> None:
        """Objects are somewhere else now, and their boxes with them."""
        with np.errstate(invalid="ignore"):
            steps = np.nan_to_num(np.round(positions - self.positions[rows])).astype(np.int64)
        self.put_boxes(rows, self.boxes[rows] + np.tile(steps, 2))
        super().move(rows, positions)

    def restore(self, kept: Sequence[Kept]) -> Rows:
        """Set everything but the place; the boxes are those that were kept."""
        boxed = [k for k in kept if k.box is not None and k.uid in self]
        self.put_boxes(self.rows(k.uid for k in boxed), np.array([k.box for k in boxed], int))
        return super().restore(kept)

    def reread(self, scheme: Scheme | None = None) -> None:
        """Read every call again, after the model or its settings changed."""
        self.scheme = self.scheme if scheme is None else scheme
        self._know_classes()
        super().reread()

    def take_probabilities(self, rows: Sequence[int], calls: Sequence[Any]) -> None:
        """Write the probability of each class of the model; of another model's none."""
        names = self.scheme.classes
        blank = (np.nan,) * len(names)
        given = np.array(
            [c.probabilities or blank if self.is_of_scheme(c) else blank for c in calls],
            dtype=float,
        ).reshape(len(calls), len(names))  # fmt: skip
        for name in self.p_columns:
            self.features[name][rows] = np.nan
        for number, name in enumerate(names):
            self.features[P_COLUMN + name][rows] = given[:, number]

    def probabilities(self, rows: Rows) -> NDArray[np.float64]:
        """(k, classes) probability of each class; NaN where there is no answer."""
        columns = [self.features[P_COLUMN + name][rows] for name in self.scheme.classes]
        return np.stack(columns, axis=1) if columns else np.zeros((len(rows), 0))

    def is_of_scheme(self, call: Call) -> bool:
        """Whether a call is of the scheme's model and names a probability of each class, or none.

        None: there was no answer.
        """
        same = call.model.partition("@")[0] == self.scheme.model
        return same and len(call.probabilities) in (0, len(self.scheme.classes))

    @property
    def p_columns(self) -> list[str]:
        """The columns of probabilities."""
        return [name for name in self.columns if name.startswith(P_COLUMN)]


class BoxedLayer(ObjectLayer):
    """One points layer of objects with boxes over one image."""

    table: BoxTable

    def wanted(self, uids: Iterable[str]) -> tuple[CellBox, ...]:
        """Those of these objects that exist and lie on the image, with their boxes on it."""
        table = self.table
        rows = table.rows(uids)
        rows = rows[~table.outside[rows]]
        boxes = table.clipped(rows)
        has_area = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        return tuple(
            CellBox(row0, col0, row1, col1, uid)
            for (row0, col0, row1, col1), uid in zip(
                boxes[has_area].tolist(), table.uids[rows[has_area]].tolist(), strict=True
            )
        )

    def add_boxes(
        self,
        boxes: NDArray[Any],
        ids: Sequence[str] | None = None,
        *,
        score: bool = True,
        uids: Sequence[str] | None = None,
    ) -> list[str]:
        """Add objects with their boxes (n, 4), half-open pixel edges; returns their uids."""
        boxes = np.asarray(boxes, dtype=np.int64).reshape(-1, 4)
        self.table.next_boxes = boxes
        try:
            return self.add(centres_of(boxes), ids, score=score, uids=uids)
        finally:
            self.table.next_boxes = None
