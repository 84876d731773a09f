"""What a model of red cells carries of its training boxes: features and all that is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.models.format import OUT_OF_FOLD, STANDS_FOR
from training.trunk_features import Features, choose_views, room_for

Values = NDArray[np.float64]
FURTHER = 5
"""Bytes of a row beside its features, types and group: the verdict, and what it stands for."""
A_TYPE = 3
"""Bytes of a type: whether it is there, and what was said of it out of fold."""


def rarest_types(targets: NDArray[np.int8]) -> NDArray[np.intp]:
    """The rarest type of each row, (n,); as many as there are types where a row holds none."""
    there = targets == 1
    counts = np.where(there.sum(axis=0) > 0, there.sum(axis=0), len(targets) + 1)
    order = np.where(there, counts, len(targets) + 2)
    return np.where(there.any(axis=1), order.argmin(axis=1), targets.shape[1])


def shipped_regions(
    features: Features,
    targets: NDArray[np.int8],
    verdicts: NDArray[np.int8],
    groups: Sequence[str],
    told: Values,
) -> dict[str, NDArray[Any]]:
    """Arrays of ``features.safetensors`` from features (n, views, d) of the training boxes.

    Boxes whose labels are all known come first: they teach the most. Types take turns by the
    rarest type of each, so rare ones are all there; ``stands_for`` says how many of the training
    boxes a row stands for, which gives common ones their share back. ``told`` (n, n_types) are
    probabilities by heads that never saw the box; NaN where there are none.
    """
    fine = rarest_types(targets)
    room = room_for(features.shape[2], A_TYPE * targets.shape[1] + FURTHER)
    known = (targets >= 0).all(axis=1)
    rows: list[tuple[int, int]] = []
    stands_for: list[Values] = []
    for part in (np.flatnonzero(known), np.flatnonzero(~known)):
        if len(part) and len(rows) < room:
            chosen = choose_views(
                fine[part].tolist(),
                [groups[int(i)] for i in part],
                features.shape[1],
                room - len(rows),
            )
            rows += [(int(part[cell]), view) for cell, view in chosen]
            taken = fine[[int(part[cell]) for cell, _ in chosen]]
            stands_for.append(np.bincount(fine[part])[taken] / np.bincount(taken)[taken])
    boxes = np.array([box for box, _ in rows], dtype=np.intp)
    numbers = np.unique(np.asarray(groups, dtype=str), return_inverse=True)[1]
    return {
        "features": np.stack([features[box, view] for box, view in rows]).astype(np.float16),
        "targets": targets[boxes].astype(np.int8),
        "verdicts": verdicts[boxes].astype(np.int8),
        "fine": fine[boxes].astype(np.int16),
        "groups": numbers[boxes].astype(np.int32),
        OUT_OF_FOLD: told[boxes].astype(np.float16),
        STANDS_FOR: np.concatenate(stands_for).astype(np.float32),
    }
