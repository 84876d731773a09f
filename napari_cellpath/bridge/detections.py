"""What a detector found, kept so that sliders act on it without asking anybody again.

All candidates of at least the floor's score came back once; which of them are regions, score and
overlap decide here, as the command line decides it (`systems.rbc.boxes.suppress`). A candidate
keeps its uid, so a region that a slider brings back is the one that was there before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.bridge.boxed import centres_of
from napari_cellpath.bridge.regions import Area
from napari_cellpath.core.requests import new_uid
from napari_cellpath.core.results import FoundRegion
from napari_cellpath.systems.rbc.boxes import overlap

SAME = 0.5
"""Boxes that share more of their union than this mark the same region."""


class Detections:
    """Candidates of one image.

    Attributes
    ----------
    boxes
        (n, 4) half-open pixel edges.
    scores
        (n,) how sure the detector was.
    uids
        Of the regions they are, or would be.
    dismissed
        Uids of those a person has deleted: no slider brings them back.
    """

    def __init__(self) -> None:
        self.boxes = np.zeros((0, 4), dtype=np.int64)
        self.scores = np.zeros(0)
        self.uids: list[str] = []
        self.dismissed: set[str] = set()
        self._accepted: tuple[tuple[float, float], NDArray[np.bool_]] | None = None
        self._pairs: tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]] | None = None

    def __len__(self) -> int:
        return len(self.uids)

    def take(self, found: Sequence[FoundRegion], area: Area | None) -> None:
        """Take in what was found in an area (None: the whole image) in place of what was known.

        A box that was found before keeps its uid: to detect twice changes nothing.
        """
        boxes = np.array([f.box for f in found], dtype=np.int64).reshape(-1, 4)
        scores = np.array([f.detection for f in found], dtype=float)
        if area is not None and len(boxes):
            inside = area.holds(centres_of(boxes))
            boxes, scores = boxes[inside], scores[inside]
        known = {tuple(box): uid for box, uid in zip(self.boxes.tolist(), self.uids, strict=True)}
        uids = [known.get(tuple(box)) or new_uid() for box in boxes.tolist()]
        kept = self._outside(area) & ~np.isin(np.array(self.uids, dtype=object), uids)
        self.boxes = np.concatenate([self.boxes[kept], boxes])
        self.scores = np.concatenate([self.scores[kept], scores])
        self.uids = [u for u, is_kept in zip(self.uids, kept, strict=True) if is_kept] + uids
        self._accepted = self._pairs = None

    def _outside(self, area: Area | None) -> NDArray[np.bool_]:
        if area is None or not len(self):
            return np.zeros(len(self), dtype=bool)
        row, col, height, width = area.box
        centres = centres_of(self.boxes)
        low, high = np.array([row, col]) - 0.5, np.array([row + height, col + width]) - 0.5
        inside = ((centres >= low) & (centres < high)).all(axis=1)
        inside &= area.holds(centres)
        return np.asarray(~inside)

    def accepted(self, score: float, most: float) -> NDArray[np.bool_]:
        """(n,) which candidates are regions: of at least this score, the stronger of two.

        As `systems.rbc.boxes.suppress` decides among those of that score; which candidates meet
        is worked out once, so that a slider over 10,000 of them does not lag.
        """
        key = (score, most)
        if self._accepted is None or self._accepted[0] != key:
            stronger, weaker, ratio = self._meetings()
            mask = self.scores >= score
            at = np.flatnonzero((ratio > most) & mask[stronger] & mask[weaker])
            for one, other in zip(stronger[at].tolist(), weaker[at].tolist(), strict=True):
                if mask[one]:
                    mask[other] = False
            self._accepted = key, mask
        return self._accepted[1]

    def _meetings(self) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
        """Pairs of candidates that meet, the strongest first: stronger, weaker, and their share."""
        if self._pairs is None:
            order = strongest_first(self.boxes, self.scores)
            rank = np.empty(len(order), dtype=np.intp)
            rank[order] = np.arange(len(order))
            left, right, ratio = overlapping(self.boxes, self.boxes)
            once = rank[left] < rank[right]
            left, right, ratio = left[once], right[once], ratio[once]
            by_rank = np.argsort(rank[left], kind="stable")
            self._pairs = left[by_rank], right[by_rank], ratio[by_rank]
        return self._pairs

    def wanted(self, score: float, most: float, others: NDArray[Any]) -> dict[str, int]:
        """Uid to row of the candidates that are to be regions beside others' boxes (m, 4).

        Those that a person has dismissed are not, nor those that mark a region that is there.
        """
        rows = [
            row for row in np.flatnonzero(self.accepted(score, most)).tolist()
            if self.uids[row] not in self.dismissed
        ]  # fmt: skip
        taken = covered(self.boxes[rows], others)
        return {self.uids[r]: r for r, is_taken in zip(rows, taken, strict=True) if not is_taken}

    def dismiss(self, uids: Iterable[str]) -> None:
        """Note that a person has deleted these."""
        self.dismissed |= set(uids).intersection(self.uids)

    def scores_of(self, uids: Iterable[str]) -> Mapping[str, float]:
        """Detection score by uid."""
        wanted = set(uids)
        pairs = zip(self.uids, self.scores.tolist(), strict=True)
        return {uid: score for uid, score in pairs if uid in wanted}


def strongest_first(boxes: NDArray[Any], scores: NDArray[np.float64]) -> NDArray[np.intp]:
    """Rows by falling score; of equal scores the upper, then the left box comes first."""
    edges = np.asarray(boxes, dtype=float).reshape(-1, 4)
    return np.lexsort((*edges.T[::-1], -np.asarray(scores, dtype=float)))


def covered(boxes: NDArray[Any], others: NDArray[Any]) -> NDArray[np.bool_]:
    """(n,) which boxes (n, 4) mark what one of others (m, 4) marks."""
    if not len(boxes) or not len(others):
        return np.zeros(len(boxes), dtype=bool)
    return best_overlaps(boxes, others)[0] > SAME


def best_overlaps(
    boxes: NDArray[Any], others: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """The largest intersection over union of each box (n, 4) with others (m, 4), and with which.

    -1 where a box meets none.
    """
    best, which = np.zeros(len(boxes)), np.full(len(boxes), -1, dtype=np.intp)
    left, right, ratio = overlapping(boxes, others)
    order = np.argsort(ratio, kind="stable")  # the last one written is the largest
    best[left[order]], which[left[order]] = ratio[order], right[order]
    return best, which


def overlapping(
    boxes: NDArray[Any], others: NDArray[Any]
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    """Pairs of boxes (n, 4) and others (m, 4) that meet: both rows, and intersection over union.

    Only neighbours are compared: 10,000 with 10,000 take a tenth of a second.
    """
    none = np.zeros(0, dtype=np.intp)
    if not len(boxes) or not len(others):
        return none, none, np.zeros(0)
    from scipy.spatial import cKDTree

    ours, theirs = np.asarray(boxes, dtype=float), np.asarray(others, dtype=float)
    # Two boxes that meet have middles no farther apart than half their sides together.
    reach = ((ours[:, 2:] - ours[:, :2]).max() + (theirs[:, 2:] - theirs[:, :2]).max()) / 2
    near = cKDTree(centres_of(theirs)).query_ball_point(centres_of(ours), float(reach), p=np.inf)
    counts = np.array([len(n) for n in near])
    left = np.repeat(np.arange(len(ours)), counts)
    right = np.array([i for n in near for i in n], dtype=np.intp)
    ratio = overlap(ours[left], theirs[right])
    meet = ratio > 0
    return left[meet], right[meet], ratio[meet]
