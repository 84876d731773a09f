"""What a person paints over tissue: an editable layer at the image's own resolution.

napari cannot edit labels of several levels, and a slide's pixels do not fit into one level. So
the layer is a window of the slide; what was painted outside it is kept in the project's raster,
and comes back when the window is moved there. Painted pixels hold the number of their class plus
one; 0 says nothing (`napari_cellpath.project.painted`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from napari.layers import Image, Labels
from napari.utils.colormaps import DirectLabelColormap
from numpy.typing import NDArray

from napari_cellpath.bridge.appearance import rgba
from napari_cellpath.bridge.conventions import (
    facts_of,
    image_facts,
    image_shape,
    layers_of,
    placing_at,
    set_facts,
)
from napari_cellpath.bridge.timing import napari_call
from napari_cellpath.core.vocabulary import Role, System
from napari_cellpath.project.painted import class_of_painted, painted_value
from napari_cellpath.project.state import TILE, Raster
from napari_cellpath.slides.region_store import FIRST_NO_CLASS, RegionStore

LARGEST = 4096
"""Side of the window that can be painted at once, level-0 pixels: 17 MB."""
OPACITY = 0.75
BRUSH_UM, BRUSH_PIXELS = 20.0, 30
Box = tuple[int, int, int, int]
"""(row, column, height, width), level-0 pixels."""


def painted_colours(colours: Sequence[str]) -> DirectLabelColormap:
    """Colours of painted numbers, the background's too: it was said, so it is to be seen."""
    nothing = np.zeros(4)
    by_label: dict[int | None, Any] = {None: nothing, 0: nothing}
    for number, colour in enumerate(colours):
        by_label[painted_value(number)] = rgba(colour)
    return DirectLabelColormap(color_dict=by_label)


def window_round(area: Box, image: Image, largest: int = LARGEST) -> Box:
    """The window to paint in: the area, or its middle where that is too large."""
    height, width = image_shape(image)
    row, high = _middle(area[0], area[2], height, largest)
    col, wide = _middle(area[1], area[3], width, largest)
    return row, col, high, wide


def _middle(start: int, length: int, limit: int, largest: int) -> tuple[int, int]:
    start, end = max(0, start), min(limit, start + length)
    over = max(0, end - start - largest)
    return start + over // 2, end - start - over


def holds(window: Box, area: Box) -> bool:
    """Whether a window holds the middle of an area."""
    row, col = area[0] + area[2] / 2, area[1] + area[3] / 2
    return window[0] <= row < window[0] + window[2] and window[1] <= col < window[1] + window[3]


def overlap(one: Box, other: Box) -> Box | None:
    """What two areas share; None for nothing."""
    row, col = max(one[0], other[0]), max(one[1], other[1])
    high = min(one[0] + one[2], other[0] + other[2]) - row
    wide = min(one[1] + one[3], other[1] + other[3]) - col
    return (row, col, high, wide) if high > 0 and wide > 0 else None


def create_painted_layer(
    image: Image, window: Box, colours: Sequence[str], mpp: float | None
) -> Labels:
    """Empty layer to paint on, over a window of an image; not yet in a viewer."""
    row, col, height, width = window
    layer = Labels(
        np.zeros((height, width), np.uint8),
        name=f"painted · {image.name}",
        metadata=image_facts(image, Role.PAINTED, system=str(System.HSPNET), window=list(window)),
        opacity=OPACITY,
        colormap=painted_colours(colours),
        **placing_at(image, row, col),
    )
    layer.brush_size = BRUSH_PIXELS if mpp is None else max(3, round(BRUSH_UM / mpp))
    layer.selected_label = painted_value(min(1, len(colours) - 1))
    return layer


def move_window(layer: Labels, image: Image, window: Box) -> None:
    """Make an empty window elsewhere of a layer; nobody may be recording it."""
    row, col, height, width = window
    with napari_call():
        layer.data = np.zeros((height, width), np.uint8)
        placed = placing_at(image, row, col)
        layer.translate = placed["translate"]
    set_facts(layer, window=list(window))


def window_of(layer: Labels) -> Box:
    """Which window of its image a layer covers."""
    row, col, height, width = facts_of(layer)["window"]
    return int(row), int(col), int(height), int(width)


def painted_layer_of(image: Image, layers: Any) -> Labels | None:
    """The layer that is painted on over an image, or None."""
    found = [x for x in layers_of(image, Role.PAINTED, layers) if isinstance(x, Labels)]
    return found[-1] if found else None


def painted_box(raster: Raster) -> Box | None:
    """The box round everything that was painted, to a tile; None for nothing."""
    if not raster.tiles:
        return None
    rows, cols = zip(*raster.tiles, strict=True)
    return (
        min(rows) * TILE, min(cols) * TILE,
        (max(rows) + 1 - min(rows)) * TILE, (max(cols) + 1 - min(cols)) * TILE,
    )  # fmt: skip


def painted_counts(raster: Raster | None, classes: int) -> list[int]:
    """Pixels painted of each class."""
    counts = np.zeros(classes, np.int64)
    for tile in () if raster is None else list(raster.tiles.values()):
        said = class_of_painted(tile[tile > 0])
        counts += np.bincount(said[said < classes], minlength=classes)
    return [int(n) for n in counts]


def sampled(raster: Raster, rows: NDArray[np.intp], cols: NDArray[np.intp]) -> NDArray[np.uint32]:
    """(len(rows), len(cols)) painted numbers at level-0 rows and columns, both ascending."""
    out = np.zeros((len(rows), len(cols)), np.uint32)
    for (i, j), tile in list(raster.tiles.items()):
        r0, r1 = np.searchsorted(rows, (i * TILE, (i + 1) * TILE))
        c0, c1 = np.searchsorted(cols, (j * TILE, (j + 1) * TILE))
        if r0 < r1 and c0 < c1:
            out[r0:r1, c0:c1] = tile[np.ix_(rows[r0:r1] - i * TILE, cols[c0:c1] - j * TILE)]
    return out


def accepted(store: RegionStore, raster: Raster | None, window: Box) -> NDArray[np.uint32]:
    """Painted numbers of a window once the store's classes are accepted where none is painted.

    Of store pixels that are not done, skipped or unreadable nothing is said.
    """
    row, col, height, width = window
    said = (raster or Raster()).read(row, col, height, width)
    facts = store.facts
    at = []
    for start, length, corner, step, side in zip(
        (row, col), (height, width), facts.corner, facts.step, facts.shape, strict=True
    ):
        index = np.floor((start + np.arange(length) + 0.5 - corner) / step).astype(np.intp)
        at.append((np.clip(index, 0, side - 1), (index >= 0) & (index < side)))
    (rows, row_in), (cols, col_in) = at
    labels = np.asarray(store.levels[0][rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1])
    called = labels[np.ix_(rows - rows[0], cols - cols[0])]
    free = (said == 0) & (called < FIRST_NO_CLASS) & row_in[:, None] & col_in[None, :]
    said[free] = called[free].astype(np.uint32) + painted_value(0)
    return said
