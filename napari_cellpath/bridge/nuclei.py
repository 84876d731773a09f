"""Nuclei on a points layer: what a call says of them, and what a request asks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.bridge import appearance
from napari_cellpath.bridge.columns import ObjectTable, Rows
from napari_cellpath.bridge.followed import Gesture
from napari_cellpath.bridge.kinds import NUCLEI
from napari_cellpath.bridge.objects import ObjectLayer
from napari_cellpath.bridge.scheme import Scheme
from napari_cellpath.core.doubt import margins
from napari_cellpath.core.requests import Nucleus
from napari_cellpath.core.results import NucleusCall

__all__ = ["Gesture", "NucleiLayer", "NucleusTable"]


class NucleusTable(ObjectTable):
    """Facts about n nuclei: a score and its spread over the views."""

    @property
    def margins(self) -> NDArray[np.float64]:
        """(n,) distance of each score to the threshold."""
        return np.abs(self.features["score"] - self.scheme.threshold)

    @property
    def urgency(self) -> NDArray[np.float64]:
        """(n,) the most abnormal come first."""
        return -self.features["score"]

    def take_numbers(self, rows: Sequence[int], calls: Sequence[NucleusCall]) -> None:
        """Write the spread."""
        self.features["std"][rows] = [call.std for call in calls]

    def call_from_columns(self, row: int) -> NucleusCall:
        """The call that stands in the columns; of the probabilities only two are known."""
        columns, (at_row, at_col) = self.features, self.positions[row]
        score = float(columns["score"][row])
        return NucleusCall(
            uid=str(self.uids[row]), row=float(at_row), col=float(at_col),
            score=score, std=float(columns["std"][row]), n_views=int(columns["n_views"][row]),
            label=str(columns["call"][row]), probabilities=(1.0 - score, score),
            threshold=self.scheme.threshold, model=str(columns["model"][row]),
            precision=str(columns["precision"][row]),
            flags=tuple(str(columns["flags"][row]).split()),
        )  # fmt: skip

    def clearness(self) -> NDArray[np.float64]:
        """(n,) margins as a review sorts by: of more classes, by how much the first leads."""
        scores, count = self.features["score"], len(self.scheme.classes)
        if count < 3:
            return margins(scores, self.scheme.threshold)
        blank = (np.nan,) * count
        calls = [self.calls.get(uid) for uid in self.uids]
        per_class = [blank if c is None else c.probabilities for c in calls]
        if any(len(p) != count for p in per_class):  # reopened: only the score was kept
            return margins(scores, self.scheme.threshold)
        return margins(scores, self.scheme.threshold, np.array(per_class).reshape(-1, count))


class NucleiLayer(ObjectLayer):
    """One points layer of nuclei over one image."""

    kind = NUCLEI

    def make_table(self, scheme: Scheme) -> NucleusTable:
        """An empty table of nuclei."""
        return NucleusTable(scheme)

    def faces(self, rows: Rows) -> NDArray[np.float64]:
        """Face colours (k, 4) of rows: the score."""
        return appearance.score_faces(self.table, rows)

    def nuclei(self, uids: Iterable[str]) -> tuple[Nucleus, ...]:
        """Those of these nuclei that exist and lie on the image, where they are now."""
        table = self.table
        return tuple(
            Nucleus(float(table.positions[r, 0]), float(table.positions[r, 1]), str(table.uids[r]))
            for r in table.rows(uids)
            if not table.outside[r]
        )

    def wanted(self, uids: Iterable[str]) -> tuple[Any, ...]:
        """See `nuclei`."""
        return self.nuclei(uids)

    def thing_at(self, position: NDArray[np.float64], uid: str) -> Nucleus | None:
        """The nucleus that a click here would add; None beside the image."""
        if not self.inside(np.asarray(position, dtype=float)[None])[0]:
            return None
        return Nucleus(float(position[0]), float(position[1]), uid)
