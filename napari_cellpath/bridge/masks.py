"""The masks of cells as a labels layer, each in the colour of its pattern.

A label's number is one more than the place of its cell's uid in the layer's facts. napari maps
labels to colours by a table that costs it a third of a second to take in for 10,000 cells, so it
is made anew only when asked, and only if a colour changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from napari.layers import Image, Labels
from napari.utils.colormaps import DirectLabelColormap
from numpy.typing import NDArray

from napari_cellpath.bridge.appearance import class_palette
from napari_cellpath.bridge.columns import ObjectTable
from napari_cellpath.bridge.conventions import (
    facts_of,
    image_facts,
    layers_of,
    placing,
    set_facts,
)
from napari_cellpath.bridge.timing import napari_call, timed
from napari_cellpath.core.results import FoundCell
from napari_cellpath.core.vocabulary import Role

OPACITY = 0.35  # the pattern itself has to be seen through its colour
_NOTHING = np.zeros(4)


def create_masks_layer(image: Image, data: NDArray[np.int32], uids: Sequence[str]) -> Labels:
    """Layer of masks (H, W) of an image, not yet in a viewer; label i + 1 is that of uid i."""
    layer = Labels(
        data,
        name=f"masks · {image.name}",
        metadata=image_facts(image, Role.MASKS, uids=list(uids)),
        opacity=OPACITY,
        **placing(image),
    )
    layer.editable = False
    return layer


def masks_layer_of(image: Image, layers: Any) -> Labels | None:
    """The masks layer of an image, or None."""
    found = [x for x in layers_of(image, Role.MASKS, layers) if isinstance(x, Labels)]
    return found[-1] if found else None


def with_cells(
    before: NDArray[np.int32] | None, shape: tuple[int, int], cells: Sequence[FoundCell], first: int
) -> NDArray[np.int32]:
    """Masks with these cells added, as a new array; the first gets the label ``first``.

    What lay there before stays on top: a cell that was known keeps its mask.
    """
    data = np.zeros(shape, np.int32) if before is None else np.array(before, dtype=np.int32)
    for number, cell in enumerate(cells, start=first):
        row0, col0, row1, col1 = cell.box
        part = data[row0:row1, col0:col1]
        part[cell.mask & (part == 0)] = number
    return data


class Masks:
    """One masks layer and the cells it belongs to.

    Parameters
    ----------
    layer
        See `create_masks_layer`.
    """

    def __init__(self, layer: Labels) -> None:
        self.layer = layer
        self._shown: NDArray[np.intp] | None = None
        self._palette = b""

    @property
    def uids(self) -> list[str]:
        """Uid of each label, from 1 on."""
        return list(facts_of(self.layer).get("uids", ()))

    def take(self, data: NDArray[np.int32], uids: Sequence[str]) -> None:
        """Show other masks, of these cells."""
        set_facts(self.layer, uids=list(uids))
        with napari_call():
            self.layer.data = data

    @timed
    def recolour(self, table: ObjectTable) -> bool:
        """Show what each cell is by now: a person's word, else the call; whether it changed.

        Cells without an answer are gray, those that are no more not to be seen.
        """
        palette = class_palette(table.scheme)
        gone, pending = len(palette), len(palette) - 1
        at = table.places(self.uids)
        there = at >= 0
        codes = np.full(len(at), gone, dtype=np.intp)
        standing = np.where(table.correction_code >= 0, table.correction_code, table.call_code)
        codes[there] = np.where(standing[at[there]] >= 0, standing[at[there]], pending)
        same = palette.tobytes() == self._palette
        if same and self._shown is not None and np.array_equal(codes, self._shown):
            return False
        self._shown, self._palette = codes, palette.tobytes()
        colours = [*palette, _NOTHING]
        by_label: dict[int | None, Any] = {None: _NOTHING, 0: _NOTHING}
        by_label.update((i, colours[code]) for i, code in enumerate(codes.tolist(), start=1))
        with napari_call():
            self.layer.colormap = DirectLabelColormap(color_dict=by_label)
        return True
