"""Which point was which, when a layer's points changed and nobody said how."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def is_permutation(a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
    """Whether b holds exactly a's points, (n, 2) each, in another order."""
    if not len(a):
        return False
    return np.array_equal(a[np.lexsort(a.T)], b[np.lexsort(b.T)])


def rows_before(before: NDArray[np.float64], after: NDArray[np.float64]) -> NDArray[np.intp]:
    """For each point of ``after``, its row in ``before``, or -1 where it is new.

    Points are known by their exact coordinates; of several at one place, the first stay first.
    """
    rows_at: dict[tuple[float, ...], list[int]] = {}
    for row in range(len(before) - 1, -1, -1):
        rows_at.setdefault(tuple(before[row]), []).append(row)
    found = [places.pop() if (places := rows_at.get(tuple(point))) else -1 for point in after]
    return np.array(found, dtype=np.intp)
