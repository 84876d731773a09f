"""Regions beside what is known to be true, in the paper's colours: missed, right, wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.layers import Image, Layer
from numpy.typing import NDArray

from napari_cellpath.bridge.cell_sources import cells_of_layer
from napari_cellpath.bridge.detections import overlapping
from napari_cellpath.core.annotations import joined, parted
from napari_cellpath.core.vocabulary import NO_TYPE

MISSED, RIGHT, WRONG = "#2b5cff", "#00a651", "#e01b24"
"""Blue, green and red, as the paper shows them (papers.md 2.7)."""
ALIKE = 0.5
"""Intersection over union from which a box marks the region that a true one marks."""
_LABELS = ("labels", "label", "types", "class")


@dataclass(frozen=True, eq=False)
class Truth:
    """True regions of an image.

    Attributes
    ----------
    boxes
        (m, 4) half-open pixel edges.
    labels
        The types of each as one text; empty where only the place is known.
    """

    boxes: NDArray[np.int64]
    labels: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Judged:
    """What became of regions and of true boxes.

    Attributes
    ----------
    right, wrong
        (n,) of the regions; neither where there is nothing to compare.
    missed
        (m,) of the true boxes.
    """

    right: NDArray[np.bool_]
    wrong: NDArray[np.bool_]
    missed: NDArray[np.bool_]

    def sentence(self) -> str:
        """The counts in words."""
        return (
            f"{int(self.right.sum()):,} right, {int(self.wrong.sum()):,} wrong, "
            f"{int(self.missed.sum()):,} missed"
        )


def truth_of_layer(layer: Layer, image: Image) -> Truth:
    """The regions that a layer marks as true; types from a feature ``labels`` or ``label``.

    Raises
    ------
    CellpathError
        The layer marks nothing on the image.
    """
    given = cells_of_layer(layer, image, 1)
    frame = getattr(layer, "features", None)
    texts = [""] * len(given.boxes)
    if frame is not None and len(frame) == len(given.boxes):
        column = next((c for c in _LABELS if c in frame), None)
        texts = texts if column is None else [_ordered(value) for value in frame[column]]
    return Truth(given.boxes, tuple(texts))


def compared(
    boxes: NDArray[Any], calls: NDArray[Any], strength: NDArray[np.float64], truth: Truth
) -> Judged:
    """Match regions with true ones, each once, the strongest first.

    Parameters
    ----------
    boxes
        (n, 4) of the regions.
    calls
        (n,) their types as one text each.
    strength
        (n,) detection scores; NaN counts as drawn by hand, and comes first.
    truth
        What is true.
    """
    right = np.zeros(len(boxes), dtype=bool)
    missed = np.ones(len(truth.boxes), dtype=bool)
    left, other, ratio = overlapping(boxes, truth.boxes)
    first = np.where(np.isnan(strength), np.inf, strength)
    alike = np.flatnonzero(ratio >= ALIKE)
    done = np.zeros(len(boxes), dtype=bool)
    for pair in alike[np.lexsort((-ratio[alike], left[alike], -first[left[alike]]))].tolist():
        row, at = left[pair], other[pair]
        if done[row] or not missed[at]:
            continue
        done[row], missed[at] = True, False
        said = truth.labels[at]
        right[row] = not said or said == _ordered(calls[row])
    return Judged(right, ~right, missed)


def by_own_word(calls: NDArray[Any], words: NDArray[Any], found: NDArray[np.bool_]) -> Judged:
    """Calls beside what a person said of the same regions, as texts.

    What was labelled and never found by the detector, (n,) ``found`` false, was missed: it is
    counted among the true boxes, which are here the regions themselves.
    """
    said = words != ""
    same = np.array(
        [_ordered(a) == _ordered(b) for a, b in zip(calls, words, strict=True)], dtype=bool
    )
    missed = said & ~found
    return Judged(said & same & found, said & ~same & found, missed)


def _ordered(text: Any) -> str:
    """A text of types in one order; that there are none is no type."""
    return joined(sorted({*parted(text)} - {NO_TYPE})) if isinstance(text, str) else ""
