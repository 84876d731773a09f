"""A smear in one page: in how many regions each type stands. Regions are never called cells.

A region of touching cells gives one answer however many cells it holds, so the number of cells of
a type cannot be known from it. What can be said is in how many regions the type was seen, and, of
those regions that are about as large as one cell, how many are of that type. NumPy only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.core.region_table import is_judged

LEVEL = 0.95
_QUANTILE = 1.959963984540054  # of the normal distribution, for LEVEL
DRAWS = 2000
_SEED = 0
LEAST_IMAGES = 5
"""With fewer images an interval over images says less than one over regions."""
ONE_CELL = (0.5, 1.6)
"""Areas of boxes that hold about one cell, in areas of the commonest box."""
LEAST_REGIONS = 10
"""With fewer whole regions nobody knows how large one cell is."""

COUNTED = (
    "Regions of touching cells are counted, not cells: a region counts once for each type it "
    "holds, however many of its cells are of that type."
)


def summarise_regions(
    records: Sequence[Mapping[str, Any]],
    types: Sequence[str],
    *,
    model: str,
    thresholds: Sequence[float],
    abnormal_threshold: float,
    images: Sequence[str] = (),
) -> dict[str, Any]:
    """Sum up the rows of a region table.

    Parameters
    ----------
    records
        As `napari_cellpath.core.region_table.region_record` gives them.
    types
        Of the model, in its order. A label that is none of them is counted, too.
    model
        Name and short hash of the weights.
    thresholds, abnormal_threshold
        By which labels and calls were made.
    images
        All images looked at, those without a region included.

    Returns
    -------
    dict
        Ready for JSON, the same for the same rows in whatever order: the whole slide's regions by
        type with intervals, the same over regions of about one cell, and each image.
    """
    names = [*types, *sorted({label for r in records for label in _labels(r)} - set(types))]
    every = sorted({*images, *(str(r["image"]) for r in records)})
    of_image: dict[str, list[Mapping[str, Any]]] = {name: [] for name in every}
    for record in records:
        of_image[str(record["image"])].append(record)
    single, criterion = _of_one_cell(records)
    flags: dict[str, int] = {}
    for record in records:
        for flag in record.get("flags") or ():
            flags[flag] = flags.get(flag, 0) + 1
    chosen = {id(r) for r, one in zip(records, single, strict=True) if one}
    return {
        "model": model,
        "counted": COUNTED,
        "thresholds": dict(zip(types, thresholds, strict=True)),
        "abnormal_threshold": abnormal_threshold,
        **_counts(list(of_image.values()), names),
        "flags": dict(sorted(flags.items())),
        "of_one_cell": {
            "criterion": criterion,
            **(
                _counts([[r for r in rows if id(r) in chosen] for rows in of_image.values()], names)
                if chosen
                else {}
            ),
        },
        "images": {name: _counts([rows], names) for name, rows in of_image.items()},
    }


def _labels(record: Mapping[str, Any]) -> Sequence[str]:
    labels: Sequence[str] = record.get("labels") or ()
    return labels


def _counts(images: Sequence[Sequence[Mapping[str, Any]]], names: Sequence[str]) -> dict[str, Any]:
    judged = [[r for r in rows if is_judged(r)] for rows in images]
    n_of = np.array([len(rows) for rows in judged])

    def share(holds: Any) -> dict[str, Any]:
        k_of = np.array([sum(map(holds, rows)) for rows in judged])
        total, n = int(k_of.sum()), int(n_of.sum())
        return {
            "regions": total, "share": total / n if n else None, "interval": _interval(k_of, n_of),
        }  # fmt: skip

    return {
        "regions": sum(len(rows) for rows in images),
        "judged": int(n_of.sum()),
        "types": {name: share(lambda r, name=name: name in _labels(r)) for name in names},
        "abnormal": share(lambda r: r["call"] == "abnormal"),
        "without_a_type": share(lambda r: not _labels(r)),
        "interval": {"level": LEVEL, "method": _method(n_of)},
    }


def _method(n_of: NDArray[np.int_]) -> str:
    if np.count_nonzero(n_of) >= LEAST_IMAGES:
        return "images drawn again with replacement (percentile bootstrap)"
    return "Wilson's, over regions as if each were drawn by itself"


def _interval(k_of: NDArray[np.int_], n_of: NDArray[np.int_]) -> list[float] | None:
    """Interval of a share: by image where there are enough, else Wilson's."""
    n = int(n_of.sum())
    if not n:
        return None
    there = n_of > 0
    if np.count_nonzero(there) < LEAST_IMAGES:
        return wilson(int(k_of.sum()), n)
    # Sorted first: the same images in another order give the same draws.
    pairs = np.array(sorted(zip(n_of[there].tolist(), k_of[there].tolist(), strict=True)))
    drawn = np.random.default_rng(_SEED).integers(len(pairs), size=(DRAWS, len(pairs)))
    shares = pairs[drawn, 1].sum(axis=1) / pairs[drawn, 0].sum(axis=1)
    tail = 100 * (1 - LEVEL) / 2
    return [float(v) for v in np.percentile(shares, (tail, 100 - tail))]


def wilson(k: int, n: int) -> list[float]:
    """Wilson's score interval of a share of k in n, at `LEVEL`."""
    z = _QUANTILE
    middle = (k + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * float(np.sqrt(k * (n - k) / n + z * z / 4))
    return [max(0.0, middle - half), min(1.0, middle + half)]


def _of_one_cell(records: Sequence[Mapping[str, Any]]) -> tuple[list[bool], str]:
    """Which regions are about as large as one cell, and by what that was told."""
    areas = [
        (r["row1"] - r["row0"]) * (r["col1"] - r["col0"])
        if is_judged(r) and "border" not in (r.get("flags") or ())
        else 0
        for r in records
    ]
    whole = np.sort(np.array([a for a in areas if a > 0], dtype=float))
    if len(whole) < LEAST_REGIONS:
        return [False] * len(records), (
            f"Not told: fewer than {LEAST_REGIONS} regions are judged and whole, too few to know "
            "how large a cell is."
        )
    usual = float(np.exp(_commonest(np.log(whole))))
    low, high = (limit * usual for limit in ONE_CELL)
    words = (
        f"Boxes not cut by the image's edge, of {low:.0f} to {high:.0f} square pixels: "
        f"{ONE_CELL[0]:g} to {ONE_CELL[1]:g} times the commonest size ({usual:.0f}), taken for one "
        "cell's. A small clump may be among them, a large cell may not."
    )
    return [low <= area <= high for area in areas], words


def _commonest(values: NDArray[np.float64]) -> float:
    """Where sorted values lie closest together: the half-sample mode.

    Single cells are alike in size and clumps are not, so the mode finds the cell even where most
    regions are clumps; a median would not.
    """
    while len(values) > 2:
        half = (len(values) + 1) // 2
        widths = values[half - 1 :] - values[: len(values) - half + 1]
        start = int(np.argmin(widths))
        values = values[start : start + half]
    return float(values.mean())
