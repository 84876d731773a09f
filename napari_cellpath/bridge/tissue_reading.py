"""A region summed up as the command line does it, and where the largest part of each class lies."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from scipy import ndimage

from napari_cellpath.bridge.corrected import CorrectedStore
from napari_cellpath.systems.hspnet.summary import labels_within, summarise

Reading = dict[str, Any]
MOST_SEARCHED = 1 << 21
"""Largest parts are looked for on the finest level that has no more pixels."""


def read_region(store: CorrectedStore, least_lesion_mm2: float) -> Reading:
    """Facts about a region as it stands.

    Returns
    -------
    dict
        What `summarise` gives, with ``corrected`` (pixels whose class a person changed, their
        share and area) and ``places`` (class to (row, column) of the store in the middle of its
        largest part).
    """
    summary = summarise(cast("Any", store), least_lesion_mm2)
    changed, mpp = store.changed, store.facts.mpp
    classified = summary["classified"]["pixels"]
    summary["corrected"] = {
        "pixels": changed,
        "share": changed / classified if classified else 0.0,
        "area_mm2": None if mpp is None else changed * mpp**2 / 1e6,
    }
    summary["places"] = _places(store)
    return summary


def _places(store: CorrectedStore) -> dict[str, tuple[float, float]]:
    labels, level = labels_within(cast("Any", store), MOST_SEARCHED)
    found = {}
    for number, name in enumerate(store.facts.class_names):
        parts, count = ndimage.label(labels == number)
        if not count:
            continue
        sizes = np.bincount(parts.ravel())
        sizes[0] = 0
        largest = int(sizes.argmax())
        box = ndimage.find_objects(parts, max_label=largest)[largest - 1]
        # Not its centre of gravity: a ring's lies outside it.
        inside = ndimage.distance_transform_edt(np.pad(parts[box] == largest, 1))[1:-1, 1:-1]
        row, col = np.unravel_index(int(inside.argmax()), inside.shape)
        found[name] = (
            float((box[0].start + row) * 2**level), float((box[1].start + col) * 2**level)
        )  # fmt: skip
    return found
