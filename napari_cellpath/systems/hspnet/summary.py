"""What a region says as a whole: area and share of each class, the worst grade, what was left out.

Counts come from the store's journal, so they are of the rows that are done and cost nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.core.vocabulary import CIN_CLASSES, RESEARCH_ONLY
from napari_cellpath.slides.region_store import SKIPPED, UNREADABLE, UNSEEN, RegionStore

LEAST_LESION_MM2 = 0.01
"""Areas of a grade that hang together and are smaller do not make it the worst grade."""
UNKNOWN_SCALE_UM = 1.0
"""Micrometres a pixel is taken to have, for the least lesion only, where nobody says."""
MOST_PIXELS = 1 << 26
"""Lesions are measured on the finest level that has no more."""

_MERGED = {"LSIL": ("CIN1",), "HSIL": ("CIN2", "CIN3")}


def summarise(store: RegionStore, least_lesion_mm2: float = LEAST_LESION_MM2) -> dict[str, Any]:
    """Facts about a region, ready for JSON.

    Parameters
    ----------
    store
        Finished or not.
    least_lesion_mm2
        See `LEAST_LESION_MM2`.

    Returns
    -------
    dict
        ``classes``: of each class its pixels, its share of all classified pixels, whether it is
        abnormal and, where the scale is known, its area in mm2. ``mpp`` is that of the classified
        pixels, ``image_mpp`` that of the image's, in which ``region`` is. ``skipped``,
        ``outside`` and ``unreadable`` pixels are in no class. ``worst_grade``: the last class of
        the model's order that is marked abnormal and has a lesion large enough, or None.
        ``merged``: LSIL and HSIL, where the classes are CIN's.
    """
    facts, progress = store.facts, store.progress
    counts = np.asarray(progress.counts)
    known = len(facts.class_names)
    classified = int(counts[:known].sum())
    done = progress.rows_done * facts.shape[1]

    def area(pixels: int) -> float | None:
        return None if facts.mpp is None else pixels * facts.mpp**2 / 1e6

    def part(pixels: int, of: int) -> dict[str, Any]:
        return {
            "pixels": pixels, "share": pixels / of if of else 0.0, "area_mm2": area(pixels)
        }  # fmt: skip

    layout = facts.layout
    step, corner = facts.step, facts.corner
    summary: dict[str, Any] = {
        "image": facts.image["name"],
        "model": facts.model,
        "mode": layout["mode"],
        "blend": layout["blend"],
        "tile": layout["tile"],
        "stride": layout["stride"],
        "precision": progress.precision,
        "device": progress.device,
        "mpp": facts.mpp,
        "image_mpp": facts.image.get("mpp"),
        "region": [corner[0], corner[1], facts.shape[0] * step[0], facts.shape[1] * step[1]],
        "complete": progress.complete,
        "rows_done": progress.rows_done,
        "rows": facts.shape[0],
        "classified": {"pixels": classified, "area_mm2": area(classified)},
        "classes": {
            name: part(int(counts[number]), classified) | {"abnormal": bool(abnormal)}
            for number, (name, abnormal) in enumerate(
                zip(facts.class_names, facts.abnormal, strict=True)
            )
        },
        "skipped": part(int(counts[SKIPPED]), done),
        "outside": part(int(counts[UNSEEN]), done),
        "unreadable": part(int(counts[UNREADABLE]), done)
        | {"file_tiles": len(progress.damaged), "of": progress.segments},
        "least_lesion_mm2": least_lesion_mm2,
        "worst_grade": worst_grade(store, least_lesion_mm2),
    }  # fmt: skip
    if set(CIN_CLASSES[1:]) <= set(facts.class_names):
        summary["merged"] = {
            merged: part(
                sum(int(counts[facts.class_names.index(name)]) for name in names), classified
            )
            for merged, names in _MERGED.items()
        }
    summary["note"] = RESEARCH_ONLY
    return summary


def without_lesion(summary: Mapping[str, Any], *, shares: bool = True) -> str:
    """What to say where no lesion is large enough; with ``shares``, how much is abnormal too."""
    abnormal = {name: part for name, part in summary["classes"].items() if part["abnormal"]}
    if not abnormal:
        return "the model has no abnormal class"
    if not summary["classified"]["pixels"]:
        return "nothing was classified"
    found = [f"{name} {100 * p['share']:.1f} %" for name, p in abnormal.items() if p["pixels"]]
    if not found:
        return "nothing abnormal"
    least = f"no single lesion of {summary['least_lesion_mm2']:g} mm²"
    return ", ".join([*found, least]) if shares else least


def worst_grade(store: RegionStore, least_lesion_mm2: float) -> dict[str, Any] | None:
    """The last abnormal class of the model's order with a lesion of the least area, or None.

    A lesion is pixels of one class that touch by their sides.
    """
    from scipy import ndimage

    facts, counts = store.facts, store.progress.counts
    grades = [n for n, abnormal in enumerate(facts.abnormal) if abnormal and counts[n]]
    if not grades:
        return None
    labels, level = labels_within(store, MOST_PIXELS)
    pixel = 4**level
    mpp = facts.mpp or UNKNOWN_SCALE_UM
    least = least_lesion_mm2 * 1e6 / mpp**2
    for number in reversed(grades):
        parts, count = ndimage.label(labels == number)
        sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:] * pixel
        large = sizes[sizes >= least]
        if not large.size:
            continue
        area = None if facts.mpp is None else float(large.max()) * mpp**2 / 1e6
        return {
            "class": facts.class_names[number],
            "lesions": int(large.size),
            "largest_pixels": int(large.max()),
            "largest_mm2": area,
        }
    return None


def labels_within(store: RegionStore, most_pixels: int) -> tuple[NDArray[np.uint8], int]:
    """Class numbers of the finest level that has at most as many pixels, and its number."""
    last = len(store.levels) - 1
    number = next(
        (n for n, a in enumerate(store.levels) if a.shape[0] * a.shape[1] <= most_pixels), last
    )
    return np.asarray(store.levels[number][:], np.uint8), number
