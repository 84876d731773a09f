"""The red-cell dock's sentences: what there is, what one region holds, what to do next."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from napari_cellpath.bridge.kinds import RED_CELLS
from napari_cellpath.bridge.red_cells import RedCellsLayer
from napari_cellpath.core.annotations import joined, parted
from napari_cellpath.core.results import RegionCall
from napari_cellpath.core.vocabulary import ABNORMAL
from napari_cellpath.models import ModelEntry
from napari_cellpath.widgets.type_bars import TypeLine
from napari_cellpath.widgets.wording import in_words

NO_MODEL = (
    "No red-cell model is on this machine; ‘cellpath models list’ shows what there is. Boxes can "
    "be drawn and labelled without one."
)
LIMIT = (
    "A region may hold several cells that touch or overlap: regions are counted here, not cells."
)


def summary(regions: RedCellsLayer, waiting: int, stale: int) -> str:
    """All regions of a layer on one line, rich text; what is zero is left out."""
    table = regions.table
    if not len(regions):
        return "No regions yet."
    verdicts = table.features["verdict"]
    parts = [f"<b>{RED_CELLS.count(len(regions))}</b>"]
    for count, word in (
        (int((verdicts == ABNORMAL).sum()), "abnormal"),
        (int(((verdicts != ABNORMAL) & (verdicts != "")).sum()), "normal"),
        (len(regions.doubtful()), "doubtful"),
        (int((table.features["correction"] != "").sum()), "decided by you"),
        (waiting, "not classified"),
        (stale, "stale"),
        (int(table.unassessable.sum()), "not assessable"),
        (int(table.outside.sum()), "off the image"),
    ):
        if count:
            parts.append(f"{count:,} {word}")
    return " · ".join(parts)


def detail(regions: RedCellsLayer, selected: Sequence[str], entry: ModelEntry | None) -> str:
    """The selected region: its verdict, what it holds, and which model says so. Rich text."""
    if len(selected) != 1:
        return f"{RED_CELLS.count(len(selected))} selected." if selected else ""
    table = regions.table
    row = int(table.rows(selected)[0])
    call = table.call_of(selected[0])
    columns = table.features
    said = str(columns["correction"][row])
    if table.outside[row]:
        return "Off the image: not classified."
    if not isinstance(call, RegionCall):
        return _of_a_person(said) or (
            "Being classified…" if table.pending[row] else "Not classified."
        )
    if np.isnan(call.score):
        return f"<b>Not assessable</b>: {escape(in_words(call.flags))}. {_of_a_person(said)}"
    held = ", ".join(call.labels)
    text = f"<b>{escape(call.label)}</b> {call.score:.3f}"
    text += f", holds {escape(held)}" if held else _of_all_types(call.label)
    text += f"; by {escape(call.model)}"
    if entry is None or call.model != entry.label:
        text += " (not the model chosen above)"
    if columns["stale"][row]:
        text += "; <b>stale</b>: moved, or made with other settings"
    notes = [flag for flag in call.flags if flag != "unlabelled"]
    if notes:
        text += f"; note: {escape(in_words(notes))}"
    text += "."
    if said and set(parted(said)) != set(call.labels):
        chance = float(columns["abnormal"][row])
        text += (
            f" <b>You say {escape(joined(parted(said)))}</b>: with that, "
            f"{escape(str(columns['verdict'][row]))} {chance:.3f}."
        )
    elif said:
        text += " <b>You agree.</b>"
    return text


def _of_all_types(verdict: str) -> str:
    """What is said where no type stands out: the verdict weighs the chances of all."""
    return f": {escape(verdict)} by all types together, none alone is above its threshold"


def _of_a_person(said: str) -> str:
    return f"<b>You say {escape(said)}.</b>" if said else ""


def lines(regions: RedCellsLayer | None, selected: Sequence[str], classes: Sequence[str],
          colours: Sequence[str]) -> list[TypeLine]:  # fmt: skip
    """What the bars show of the selected regions: one in full, of several the shares."""
    blank = [TypeLine(n, c) for n, c in zip(classes, colours, strict=True)]
    if regions is None or not selected or regions.table.scheme.classes != tuple(classes):
        return blank
    table = regions.table
    rows = table.rows(selected)
    standing = table.standing(rows)
    if len(rows) != 1:
        shares = standing.mean(axis=0) if len(rows) else np.zeros(len(classes))
        return [
            TypeLine(n, c, float(share), held=bool(share == 1.0))
            for n, c, share in zip(classes, colours, shares, strict=True)
        ]
    call = table.calls.get(str(selected[0]))
    p = table.probabilities(rows)[0]
    thresholds = table.thresholds if isinstance(call, RegionCall) else [np.nan] * len(classes)
    called = table.sets("call", rows)[0]
    has_call = isinstance(call, RegionCall) and not np.isnan(call.score)
    return [
        TypeLine(n, c, float(p[i]), float(thresholds[i]), bool(standing[0, i]),
                 bool(has_call and standing[0, i] != called[i]))
        for i, (n, c) in enumerate(zip(classes, colours, strict=True))
    ]  # fmt: skip


def hint(drawing: bool, *, has_image: bool, has_model: bool, has_regions: bool) -> str:
    """What to do next."""
    if not has_image:
        return "Open an image: drop a file on the window, or File · Open Sample · Cellpath."
    if drawing:
        return "Drag a box round a region of red cells; it is classified when you let go."
    if has_regions:
        return "Click a box to select it, drag it or its corners to change it."
    if not has_model:
        return ""
    return "Detect all regions, or draw boxes by hand."
