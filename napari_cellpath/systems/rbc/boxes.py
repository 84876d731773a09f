"""Boxes of red-cell regions: from a mask, checked, and as the square that the heads look at.

NumPy and scikit-image; the resize itself is torch's and lies in `patches`. Training and inference
both go this way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_cellpath.core.errors import ModelError
from napari_cellpath.core.geometry import boxes_of_labels
from napari_cellpath.core.geometry import check_box as check_edges
from napari_cellpath.core.requests import CellBox
from napari_cellpath.core.vocabulary import Average, Fit

PATCH = 224
"""Side of the square that a box becomes, pixels (papers.md 2.2)."""
MIN_AREA = 20
"""Components of fewer pixels are specks (papers.md 2.2)."""
LEAST_SIDE = 6
"""Boxes narrower than this many pixels are ``tiny``: nothing can be told of them."""
LARGEST_SIDE = 4096
"""Boxes with a longer side are a mistake: no region of touching cells has as many pixels."""
STRETCHED = 2.0
"""Sides of a box in a larger proportion than this look unlike themselves when scaled apart."""
DETECTION_SCORE = 0.5
"""Detections are kept from this score on, where a model does not say (papers.md 2.5)."""
_PAIRS = 2_000_000  # of boxes compared at once, for memory's sake
PASS_SIDES = (1200, 1920)
"""An image of no more detector pixels, shorter and longer side, is looked at in one pass."""


@dataclass(frozen=True)
class RegionInput:
    """How a model wants its boxes: what ``model.json`` says under ``input``.

    Attributes
    ----------
    patch
        Side of the square, pixels.
    fit
        ``stretch`` (the paper's) or ``letterbox``: how the model was trained.
    score
        Detections of at least this score are worth showing.
    least
        ``letterbox``: the square shows at least so many pixels of the image a side, so that small
        cells look small; 0: the longer side fills it.
    scale
        Detector pixels per pixel of the image (of the model's ``mpp``, where both are known):
        by how much images were enlarged when the detector was trained.
    average
        Over how many ways round a box the trunk's features were averaged when the model was
        measured.
    """

    patch: int = PATCH
    fit: Fit = Fit.STRETCH
    score: float = DETECTION_SCORE
    scale: float = 1.0
    least: int = 0
    average: Average = Average.NONE

    @classmethod
    def of(cls, facts: Mapping[str, Any], where: str) -> RegionInput:
        """Read it from ``model.json``'s ``input``; what is not there takes the default.

        Raises
        ------
        ModelError
            A value makes no sense; ``where`` names the model.
        """
        patch, fit = facts.get("patch", PATCH), facts.get("fit", Fit.STRETCH)
        score, scale = facts.get("score", DETECTION_SCORE), facts.get("scale", 1.0)
        if not isinstance(patch, int) or not 32 <= patch <= 512:
            raise ModelError(f"{where}: a patch of {patch} is not between 32 and 512 pixels.")
        if fit not in (Fit.STRETCH, Fit.LETTERBOX):
            raise ModelError(f"{where}: there is no fit '{fit}'; known: stretch, letterbox.")
        if not isinstance(score, int | float) or not 0.0 <= score < 1.0:
            raise ModelError(f"{where}: a detection score of {score} is not between 0 and 1.")
        if not isinstance(scale, int | float) or not 0.1 <= scale <= 10.0:
            raise ModelError(f"{where}: a detector scale of {scale} is not between 0.1 and 10.")
        least = facts.get("least", 0)
        if not isinstance(least, int) or not 0 <= least <= LARGEST_SIDE:
            raise ModelError(f"{where}: a least of {least} is no number of pixels.")
        average = facts.get("average", Average.NONE)
        if average not in (Average.NONE, Average.D4):
            raise ModelError(f"{where}: there is no average '{average}'; known: none, d4.")
        return cls(patch, Fit(fit), float(score), float(scale), least, Average(average))

    def facts(self) -> dict[str, Any]:
        """What `of` reads, for ``model.json``."""
        return {
            "channels": "RGB", "range": [0, 1], "patch": self.patch, "fit": str(self.fit),
            "score": self.score, "scale": self.scale, "least": self.least,
            "average": str(self.average),
        }  # fmt: skip


def boxes_of_mask(
    mask: NDArray[Any], connectivity: Literal[4, 8] = 8, min_area: int = MIN_AREA
) -> list[CellBox]:
    """One box round each connected component of a mask (papers.md 2.2).

    Parameters
    ----------
    mask
        (H, W), cells are not zero. Touching cells are one component, and one box.
    connectivity
        Whether pixels that meet at a corner are connected (8) or not (4); the paper does not say.
    min_area
        Components of fewer pixels are left out, as are those one pixel high or wide.

    Returns
    -------
    list
        Half-open boxes by row, then column; ``uid`` is the number of the box, from 0.
    """
    from skimage.measure import label

    labels = label(np.asarray(mask) > 0, connectivity=1 if connectivity == 4 else 2)
    return boxes_of_components(labels, min_area)


def boxes_of_components(labels: NDArray[Any], min_area: int = MIN_AREA) -> list[CellBox]:
    """Boxes of the components of a label image; see `boxes_of_mask`."""
    values, boxes = boxes_of_labels(labels)
    if not len(values):
        return []
    areas = np.bincount(np.searchsorted(values, labels[labels != 0]))
    sides = boxes[:, 2:] - boxes[:, :2]
    kept = boxes[(areas >= min_area) & (sides.min(axis=1) > 1)]
    ordered = kept[np.lexsort((kept[:, 1], kept[:, 0]))]
    return [
        CellBox(row0, col0, row1, col1, uid=str(n))
        for n, (row0, col0, row1, col1) in enumerate(ordered.tolist())
    ]


class Square(NamedTuple):
    """Where the pixels of a box lie within the square that the heads see.

    ``top``, ``left``, ``height`` and ``width`` in pixels of the square; stretched, it is all of it.
    """

    top: int
    left: int
    height: int
    width: int


def square_of(height: int, width: int, patch: int, fit: Fit, least: int = 0) -> Square:
    """Place a box of ``height`` x ``width`` pixels in a square of side ``patch``.

    ``least`` is `RegionInput`'s.
    """
    if fit is not Fit.LETTERBOX:
        return Square(0, 0, patch, patch)
    longer = max(height, width, least)
    high, wide = (max(1, (2 * side * patch + longer) // (2 * longer)) for side in (height, width))
    return Square((patch - high) // 2, (patch - wide) // 2, high, wide)


def check_box(box: CellBox, shape: tuple[int, int], what: str) -> None:
    """Raise unless a box can be one of a region on an image of this height and width.

    Raises
    ------
    OutsideImageError
        It is inverted, empty, does not meet the image, or is larger than any region; ``what``
        names it.
    """
    check_edges((box.row0, box.col0, box.row1, box.col1), shape, what, LARGEST_SIDE, "region")


def meets_border(box: CellBox, shape: tuple[int, int]) -> bool:
    """Whether the image's edge cuts the box; not of an image that is one box."""
    if (box.row0, box.col0, box.row1, box.col1) == (0, 0, *shape):
        return False
    return box.row0 <= 0 or box.col0 <= 0 or box.row1 >= shape[0] or box.col1 >= shape[1]


def is_tiny(edges: Sequence[int]) -> bool:
    """Whether too few pixels of a box (row0, col0, row1, col1) lie on the image."""
    return min(edges[2] - edges[0], edges[3] - edges[1]) < LEAST_SIDE


def is_stretched(edges: Sequence[int]) -> bool:
    """Whether its sides are so far apart that scaling them to one square distorts it."""
    height, width = edges[2] - edges[0], edges[3] - edges[1]
    return max(height, width) > STRETCHED * min(height, width)


def overlap(a: ArrayLike, b: ArrayLike) -> NDArray[np.float64]:
    """Intersection over union of boxes (..., 4), half-open; broadcast against each other.

    (0, 0, 2, 2) and (1, 0, 3, 2) share a third, whichever way round rows and columns are.
    """
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    low = np.maximum(first[..., :2], second[..., :2])
    high = np.minimum(first[..., 2:], second[..., 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=-1)
    areas = [np.prod(np.clip(x[..., 2:] - x[..., :2], 0, None), axis=-1) for x in (first, second)]
    union = areas[0] + areas[1] - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(union), where=union > 0))


def suppress(boxes: ArrayLike, scores: ArrayLike, most: float) -> NDArray[np.intp]:
    """Which boxes stay once weaker ones that overlap a stronger one are dropped.

    Greedy, by falling score; of equal scores the upper, then the left box is the stronger, so the
    answer does not depend on the order they came in.

    Parameters
    ----------
    boxes
        (n, 4) row0, col0, row1, col1.
    scores
        (n,).
    most
        Intersection over union up to which two boxes may both stay.

    Returns
    -------
    ndarray
        Indices into ``boxes``, strongest first.
    """
    edges = np.asarray(boxes, np.float64).reshape(-1, 4)
    order = np.lexsort((*edges.T[::-1], -np.asarray(scores, np.float64)))
    rank = np.empty(len(order), np.intp)
    rank[order] = np.arange(len(order))
    weaker: dict[int, list[int]] = {}
    for one, other in _overlapping(edges, most).tolist():
        first, second = (one, other) if rank[one] < rank[other] else (other, one)
        weaker.setdefault(first, []).append(second)
    dropped = np.zeros(len(order), bool)
    kept = []
    for number in order.tolist():
        if not dropped[number]:
            kept.append(number)
            dropped[weaker.get(number, [])] = True
    return np.array(kept, np.intp)


def _overlapping(edges: NDArray[np.float64], most: float) -> NDArray[np.intp]:
    """Pairs (n, 2) of boxes that overlap by more than ``most``; only neighbours are compared.

    Sorted by their first row, a box can meet those that follow it until one begins below its last
    row: of 10,000 boxes of a field a hundredth of all pairs.
    """
    by_row = np.argsort(edges[:, 0], kind="stable")
    ends = np.searchsorted(edges[by_row, 0], edges[by_row, 2], side="left")
    numbers = np.arange(len(edges))
    counts = np.maximum(ends - numbers - 1, 0)
    found = [np.zeros((0, 2), np.intp)]
    start = 0
    while start < len(edges):
        stop = start + max(1, int(np.searchsorted(np.cumsum(counts[start:]), _PAIRS, "right")))
        many = counts[start:stop]
        first = np.repeat(numbers[start:stop], many)
        second = first + 1 + np.arange(len(first)) - np.repeat(np.cumsum(many) - many, many)
        one, other = by_row[first], by_row[second]
        beside = (edges[one, 1] < edges[other, 3]) & (edges[other, 1] < edges[one, 3])
        one, other = one[beside], other[beside]
        near = overlap(edges[one], edges[other]) > most
        found.append(np.stack([one[near], other[near]], axis=1))
        start = stop
    return np.concatenate(found)
