"""The HEp-2 dock's sentences: what there is, what one cell is, what to do next."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from napari_cellpath.bridge.cells import CellsLayer
from napari_cellpath.bridge.kinds import CELLS
from napari_cellpath.models import ModelEntry
from napari_cellpath.widgets.wording import in_words

NO_MODEL = (
    "No HEp-2 model is on this machine; ‘cellpath models list’ shows what there is. Cells can be "
    "marked and labelled without one."
)


def summary(cells: CellsLayer, waiting: int, stale: int) -> str:
    """All cells of a layer on one line, rich text; what is zero is left out."""
    table = cells.table
    if not len(cells):
        return "No cells yet."
    parts = [f"<b>{CELLS.count(len(cells))}</b>"]
    for count, word in (
        (int((table.features["call"] != "").sum()), "classified"),
        (len(cells.doubtful()), "doubtful"),
        (int((table.features["correction"] != "").sum()), "decided by you"),
        (waiting, "not classified"),
        (stale, "stale"),
        (int(table.unassessable.sum()), "not assessable"),
        (int(table.outside.sum()), "off the image"),
    ):
        if count:
            parts.append(f"{count:,} {word}")
    return " · ".join(parts)


def detail(cells: CellsLayer, selected: Sequence[str], entry: ModelEntry | None) -> str:
    """The selected cell: its pattern, what comes next, and which model says so. Rich text."""
    if len(selected) != 1:
        return f"{CELLS.count(len(selected))} selected." if selected else ""
    table = cells.table
    row = int(table.rows(selected)[0])
    call = table.call_of(selected[0])
    if table.outside[row]:
        return "Off the image: not classified."
    if call is None:
        return "Being classified…" if table.pending[row] else "Not classified."
    if np.isnan(call.score):
        return f"<b>Not assessable</b>: {escape(in_words(call.flags))}."
    text = f"<b>{escape(call.label)}</b> {call.score:.3f}"
    names = table.scheme.classes
    if len(call.probabilities) == len(names):
        second = int(np.argsort(call.probabilities)[-2])
        text += f", then {escape(names[second])} {call.probabilities[second]:.3f}"
    text += f"; margin {call.margin:.3f}, by {escape(call.model)}"
    if entry is None or call.model != entry.label:
        text += " (not the model chosen above)"
    if table.features["stale"][row]:
        text += "; <b>stale</b>: moved, or made with other settings"
    if call.flags:
        text += f"; note: {escape(in_words(call.flags))}"
    return text + "."


def hint(clicking: bool, *, has_image: bool, has_model: bool, has_cells: bool) -> str:
    """What to do next."""
    if not has_image:
        return "Open an image: drop a file on the window, or File · Open Sample · Cellpath."
    if clicking:
        return "Click the middle of a cell; it is classified at once."
    if has_cells:
        return ""  # the cell that is selected is told in words below the table
    if not has_model:
        return ""
    return "Find all cells, or click single ones."
