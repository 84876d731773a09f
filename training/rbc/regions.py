"""Regions of red cells and what is known of their labels. NumPy and scikit-image only.

A region is a connected group of cells, one cell or many (papers.md 2.1). It holds a type where
one of its cells is of that type. Where some of its cells carry no type, the types seen are known
to be there, and of all others nothing is known: they are masked, never taken for absent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Boxes = NDArray[np.int64]
UNKNOWN = -1
"""Of a label, or of the verdict: not known."""
MIN_AREA = 20
"""Pixels below which a component of a mask is no region."""


def boxes_of_mask(mask: ArrayLike, connectivity: int = 8, min_area: int = MIN_AREA) -> Boxes:
    """Boxes round the connected components of a mask (papers.md 2.2), in order of their labels.

    Parameters
    ----------
    mask
        (H, W); above 0 is foreground.
    connectivity
        8: pixels that meet at a corner are one component; 4: they are two.
    min_area
        Components of fewer pixels are left out.

    Returns
    -------
    ndarray
        (n, 4) row0, col0, row1, col1, half-open pixel edges, so that no box is without area.

    Raises
    ------
    ValueError
        Another connectivity, or no two-dimensional mask.
    """
    from skimage.measure import label, regionprops

    if connectivity not in (4, 8):
        raise ValueError(f"connectivity is 4 or 8, not {connectivity}")
    foreground = np.asarray(mask) > 0
    if foreground.ndim != 2:
        raise ValueError(f"a mask is (H, W), not {foreground.shape}")
    found = label(foreground, connectivity=1 if connectivity == 4 else 2)
    boxes = [region.bbox for region in regionprops(found) if region.area >= min_area]
    return np.array(boxes, dtype=np.int64).reshape(-1, 4)


def merged_groups(boxes: ArrayLike) -> list[list[int]]:
    """Which boxes form one region: those that share a pixel, and whatever these share one with.

    Boxes that only abut are two regions. Groups are in the order of their first box.
    """
    b = np.asarray(boxes, dtype=np.int64).reshape(-1, 4)
    group_of = np.arange(len(b))
    for i in range(len(b)):
        meets = (
            (b[:i, 0] < b[i, 2])
            & (b[i, 0] < b[:i, 2])
            & (b[:i, 1] < b[i, 3])
            & (b[i, 1] < b[:i, 3])
        )
        joined = np.unique(group_of[:i][meets])
        if joined.size:
            first = joined[0]
            group_of[: i + 1][np.isin(group_of[: i + 1], [*joined.tolist(), i])] = first
    return [np.flatnonzero(group_of == g).tolist() for g in np.unique(group_of)]


@dataclass(frozen=True)
class Region:
    """One region of an image and what is known of it.

    Attributes
    ----------
    box
        (row0, col0, row1, col1), half-open pixel edges.
    targets
        Of each type: 1 there, 0 not there, `UNKNOWN`.
    abnormal
        1, 0 or `UNKNOWN`.
    cells
        How many boxes were merged.
    """

    box: tuple[int, int, int, int]
    targets: tuple[int, ...]
    abnormal: int
    cells: int = 1

    @property
    def known(self) -> bool:
        """Whether every label is known."""
        return UNKNOWN not in self.targets


def region_of(
    boxes: Boxes, types: Sequence[int], abnormal: Sequence[bool], unnamed: int = UNKNOWN
) -> Region:
    """The region that some boxes, each of one cell, form together.

    Parameters
    ----------
    boxes
        (n, 4) of its cells.
    types
        Type of each, counted in the list of types; below 0 where a cell carries none.
    abnormal
        Whether each type of the list is abnormal.
    unnamed
        A number below -1 that stands for "looked at, and none of the types": such a cell adds no
        label, leaves none unknown, and is not normal.
    """
    b = np.asarray(boxes, dtype=np.int64).reshape(-1, 4)
    there = {t for t in types if t >= 0}
    whole = all(t >= 0 or (t == unnamed and t != UNKNOWN) for t in types)
    targets = tuple(1 if k in there else 0 if whole else UNKNOWN for k in range(len(abnormal)))
    bad = any(abnormal[t] for t in there) or (unnamed != UNKNOWN and unnamed in types)
    row0, col0 = b[:, :2].min(axis=0).tolist()
    row1, col1 = b[:, 2:].max(axis=0).tolist()
    return Region((row0, col0, row1, col1), targets, 1 if bad else 0 if whole else UNKNOWN, len(b))


def abnormal_of(targets: ArrayLike, abnormal: Sequence[bool]) -> NDArray[np.int8]:
    """The verdict that label vectors imply (papers.md 2.9, 9): any abnormal type is there.

    Parameters
    ----------
    targets
        (n, n_types) of 1, 0 and `UNKNOWN`.
    abnormal
        Whether each type is abnormal.

    Returns
    -------
    ndarray
        (n,): 1, 0, or `UNKNOWN` where an abnormal type may be there. A vector of noughts gives 0.
    """
    bad = np.asarray(targets, dtype=np.int8).reshape(-1, len(abnormal))[:, np.asarray(abnormal)]
    found = np.where((bad == UNKNOWN).any(axis=1), UNKNOWN, 0)
    found[(bad == 1).any(axis=1)] = 1
    return found.astype(np.int8)
