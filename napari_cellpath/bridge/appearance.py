"""How an object looks, from the facts about it.

Face: the score on one sequential, colour-blind safe map, or, of a pattern, the colour of its
class; gray without an answer, grayish when stale. Shape: a ring in the review band, a cross off
the image, a diamond where the cell is unlike those the model was trained on, else a disc. Border:
dark, or the colour of the class a person gave it. So colour says *how abnormal* or *which
pattern*, shape says *look here* and the border says *somebody decided*, and none of the three
needs another to be read.
"""

from __future__ import annotations

import operator
from functools import lru_cache
from typing import Any

import numpy as np
from napari.layers import Points
from napari.utils.colormaps import DirectLabelColormap
from numpy.typing import NDArray

from napari_cellpath.bridge.columns import ObjectTable, Rows
from napari_cellpath.bridge.conventions import PENDING_COLOUR
from napari_cellpath.bridge.scheme import Scheme
from napari_cellpath.core.vocabulary import SCORE_COLOURS

BORDER_COLOUR = "#1a1a1a"
OTHER_COLOUR = "#ffffff"
PLAIN_WIDTH = 0.08
STALE_GRAY = 0.65  # how much of a stale score's colour is gray
DISC, RING, CROSS, DIAMOND = 0, 1, 2, 3
_NAMES = ("disc", "ring", "x", "diamond")


def rgba(colour: str, alpha: float = 1.0) -> NDArray[np.float64]:
    """``#rrggbb`` as four floats 0..1."""
    return np.array([*(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)), alpha])


def compile_label_colours(dtype: Any) -> None:
    """Have napari compile how labels of a type become colours.

    It does so when such labels are shown for the first time, on the main thread, which then stands
    still for one to three seconds. Called on another thread beforehand that is over by then.
    """
    nothing = np.zeros(4)
    colours = DirectLabelColormap(color_dict={None: nothing, 0: nothing, 1: np.ones(4)})
    colours.map(np.zeros((1, 1), dtype))


_STOPS = np.stack([rgba(colour) for colour in SCORE_COLOURS])
_PENDING = rgba(PENDING_COLOUR)
_BORDER = rgba(BORDER_COLOUR)


def score_colours(scores: NDArray[np.float64], threshold: float = 0.5) -> NDArray[np.float64]:
    """Colours (n, 4) of scores 0..1; the map's pale middle sits at the threshold.

    So the two hues are the two calls, whatever the threshold, and moving it is seen at once.
    NaN is gray.
    """
    threshold = min(max(threshold, 1e-6), 1.0 - 1e-6)
    below = scores / threshold * 0.5
    above = 0.5 + (scores - threshold) / (1.0 - threshold) * 0.5
    place = np.clip(np.where(scores <= threshold, below, above), 0.0, 1.0)
    stops = np.linspace(0.0, 1.0, len(_STOPS))
    known = ~np.isnan(place)
    colours = np.tile(_PENDING, (len(scores), 1))
    for channel in range(3):
        colours[known, channel] = np.interp(place[known], stops, _STOPS[:, channel])
    return colours


def score_faces(table: ObjectTable, rows: Rows) -> NDArray[np.float64]:
    """Face colours (k, 4) of rows, by score."""
    scores = np.where(table.outside[rows], np.nan, table.features["score"][rows])
    return paled(table, rows, score_colours(scores, table.scheme.threshold))


def class_faces(table: ObjectTable, rows: Rows) -> NDArray[np.float64]:
    """Face colours (k, 4) of rows, by the class called."""
    codes = np.where(table.outside[rows], -1, table.call_code[rows])
    return paled(table, rows, class_palette(table.scheme)[codes])


def class_palette(scheme: Scheme) -> NDArray[np.float64]:
    """Colours (classes + 1, 4); the last, at -1, is that of no class."""
    return np.stack([*(rgba(colour) for colour in scheme.colours), _PENDING])


def paled(table: ObjectTable, rows: Rows, colours: NDArray[np.float64]) -> NDArray[np.float64]:
    """Colours (k, 4) of rows, grayish in place where the call is stale."""
    stale = table.features["stale"][rows]
    colours[stale] = (1 - STALE_GRAY) * colours[stale] + STALE_GRAY * _PENDING
    return colours


def borders(table: ObjectTable, rows: Rows) -> NDArray[np.float64]:
    """Border colours (k, 4) of rows: the corrected class' colour, else dark.

    White stands for a correction to a class that the current model does not have.
    """
    palette = np.stack([*(rgba(c) for c in table.scheme.colours), _BORDER])
    colours: NDArray[np.float64] = palette[table.correction_code[rows]]
    colours[_decided(table, rows) & (table.correction_code[rows] < 0)] = rgba(OTHER_COLOUR)
    return colours


def border_widths(table: ObjectTable, rows: Rows) -> NDArray[np.float64]:
    """Border widths (k,) relative to the size: a correction has to be seen at a glance."""
    return np.where(_decided(table, rows), 0.35, PLAIN_WIDTH)


def _decided(table: ObjectTable, rows: Rows) -> NDArray[np.bool_]:
    decided: NDArray[np.bool_] = table.features["correction"][rows] != ""
    return decided


def shapes(table: ObjectTable, rows: Rows) -> NDArray[np.intp]:
    """Shape codes (k,): `DISC`, `RING`, `CROSS`, or `DIAMOND` for what is unlike the training."""
    doubtful = table.doubtful[rows] & ~table.features["stale"][rows]
    broken = table.outside[rows] | table.unassessable[rows]
    plain = np.where(table.unlike[rows], DIAMOND, DISC)
    return np.where(broken, CROSS, np.where(doubtful, RING, plain))


@lru_cache(maxsize=1)
def symbols() -> NDArray[Any]:
    """Symbol objects of napari for the shape codes, got through its public interface."""
    return np.asarray(Points(np.zeros((len(_NAMES), 2)), symbol=list(_NAMES)).symbol)


def paint(
    layer: Points,
    table: ObjectTable,
    rows: Rows,
    faces: NDArray[np.float64],
) -> bool:
    """Bring rows of a layer up to date in place; returns whether anything looks different.

    ``faces`` are the face colours (k, 4) of the rows.

    A layer that the user coloured by a feature of their own choice keeps its colours.
    Nothing is redrawn here: the caller announces the change once.
    """
    if not len(rows):
        return False
    changed = False
    if layer.face_color_mode == "direct":
        changed |= _assign(layer.face_color, rows, faces)
    if layer.border_color_mode == "direct":
        changed |= _assign(layer.border_color, rows, borders(table, rows))
        changed |= _assign(layer.border_width, rows, border_widths(table, rows))
    changed |= _assign(layer.symbol, rows, symbols()[shapes(table, rows)])
    return changed


def _assign(column: NDArray[Any], rows: Rows, values: NDArray[Any]) -> bool:
    if column.dtype == object:  # symbols: each is one object, and comparing them by value is slow
        same = all(map(operator.is_, column[rows], values))
    else:
        same = np.array_equal(column[rows], values)
    if same:
        return False
    column[rows] = values
    return True
