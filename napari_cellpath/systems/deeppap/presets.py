"""Which views a preset looks at, in which order and batches, and when `adaptive` stops.

NumPy only: the plan on the client decides, the worker only computes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.core.vocabulary import Preset

USUAL_MPP = 0.2  # micrometres a pixel where neither image nor model state any
PATCH = 128  # pixels at the model's scale (papers.md 1.2)
VIEW = 256  # side of an enlarged patch
CROP = 227  # side of what the network takes
MAX_SHIFT = 10  # pixels (papers.md 1.3)
N_ROTATIONS = 10
N_SHIFTS = 10
CROPS = 10  # network inputs a view (papers.md 1.4)
GLANCE = 2  # network inputs of the first answer to a click: the middle crop and its mirror
WINDOW = 212  # even; half of it exceeds sqrt(2) * (64 + 10) + 1, the farthest sample of any view

BATCH_VIEWS = 5  # 50 inputs: 0.2-0.4 s on two CPU cores, so a cancel is quick
CONFIDENCE = 0.995
LEAST_DEVIATION = 0.02
"""Five views that happen to agree say little: the deviation is never believed to be smaller."""


@dataclass(frozen=True)
class ViewSpec:
    """One view: degrees of rotation, then (down, right) shift in the rotated frame, pixels."""

    angle: float
    shift: tuple[int, int] = (0, 0)


def draw_shifts(
    rng: np.random.Generator, n: int, max_shift: int = MAX_SHIFT, include_centre: bool = False
) -> list[tuple[int, int]]:
    """Draw n (down, right) offsets, each independently uniform on {-d..d} x {-d..d}."""
    drawn = rng.integers(-max_shift, max_shift + 1, size=(n, 2))
    shifts = [(int(a), int(b)) for a, b in drawn]
    if include_centre and shifts:
        shifts[0] = (0, 0)
    return shifts


def product_views(
    rng: np.random.Generator,
    n_rotations: int = N_ROTATIONS,
    n_shifts: int = N_SHIFTS,
    max_shift: int = MAX_SHIFT,
    include_centre: bool = False,
) -> list[ViewSpec]:
    """All rotations x all shifts, rotations outermost, shifts drawn once (papers.md 1.3)."""
    offsets = draw_shifts(rng, n_shifts, max_shift, include_centre)
    return [ViewSpec(k * 360.0 / n_rotations, o) for k in range(n_rotations) for o in offsets]


def view_batches(preset: Preset, rng: np.random.Generator) -> list[list[ViewSpec]]:
    """The views of a preset, cut into the batches in which the network sees them.

    The composition of a batch is part of the answer (floating point sums depend on it in the
    last digit), so it is fixed here and nowhere else.

    The paper's 100 views are walked along the diagonals of the rotation x shift table: every
    ten consecutive views hold each rotation and each shift once, so an early mean is already
    balanced.
    """
    upright = ViewSpec(0.0)
    if preset is Preset.FAST:
        return [[upright]]
    if preset is Preset.BALANCED:
        turned = [ViewSpec(k * 360.0 / N_ROTATIONS) for k in range(1, N_ROTATIONS)]
        return [[upright], turned[0:3], turned[3:6], turned[6:9]]
    table = product_views(rng)
    walk = [
        table[k * N_SHIFTS + (k + step) % N_SHIFTS]
        for step in range(N_SHIFTS)
        for k in range(N_ROTATIONS)
    ]
    return [walk[i : i + BATCH_VIEWS] for i in range(0, len(walk), BATCH_VIEWS)]


def mean_is_certain(margins: NDArray[np.float64], n_total: int) -> bool:
    """Whether the mean margin's confidence interval excludes zero.

    Parameters
    ----------
    margins
        (n,) signed distance from the decision, one value a view.
    n_total
        Views of the full preset: the interval shrinks to nothing as n approaches it, because
        what is estimated is the mean of exactly those views (finite population correction).
    """
    n = margins.size
    if n < BATCH_VIEWS:
        return False
    deviation = max(float(margins.std(ddof=1)), LEAST_DEVIATION)
    correction = np.sqrt(max(n_total - n, 0) / max(n_total - 1, 1))
    from scipy.special import stdtrit  # here: only adaptive needs it, and a first click waits

    half = stdtrit(n - 1, CONFIDENCE) * deviation / np.sqrt(n) * correction
    return bool(abs(float(margins.mean())) > half)
