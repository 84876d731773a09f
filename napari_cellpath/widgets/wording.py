"""The nuclei dock's sentences: what there is, what one nucleus is, what to do next."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

from napari_cellpath.bridge.nuclei import NucleiLayer
from napari_cellpath.core.vocabulary import FLAG_WORDS, UNLIKE_FLAGS
from napari_cellpath.models import ModelEntry

MOST_NAMED = 3  # more classes than this do not fit on one line


def nuclei(count: int) -> str:
    """A number of nuclei."""
    return "1 nucleus" if count == 1 else f"{count:,} nuclei"


def summary(layer: NucleiLayer, unscored: int, stale: int) -> str:
    """All nuclei of a layer on one line, rich text; what is zero is left out."""
    table = layer.table
    if not len(layer):
        return "No nuclei yet."
    scheme, counts = table.scheme, layer.counts()
    parts = [f"<b>{nuclei(len(layer))}</b>"]
    if len(scheme.classes) <= MOST_NAMED:
        by_class = zip(scheme.classes, counts, strict=True)
        parts += [f"{count} {escape(name)}" for name, count in by_class if count]
    else:  # the class buttons count each; here what matters first
        abnormal = sum(n for n, is_so in zip(counts, scheme.abnormal, strict=True) if is_so)
        parts += [f"{abnormal} abnormal", f"{sum(counts) - abnormal} normal"]
    for count, word in (
        (len(layer.doubtful()), "doubtful"),
        (int((table.features["correction"] != "").sum()), "decided by you"),
        (unscored, "not scored"),
        (stale, "stale"),
        (int((table.unlike & ~table.outside).sum()), "unlike the training cells"),
        (int(table.unassessable.sum()), "not assessable"),
        (int(table.outside.sum()), "off the image"),
    ):
        if count:
            parts.append(f"{count:,} {word}")
    return " · ".join(parts)


def detail(layer: NucleiLayer, selected: Sequence[str], entry: ModelEntry | None) -> str:
    """The selected nucleus: its score, how sure it is, and which model gave it. Rich text."""
    if len(selected) != 1:
        return f"{nuclei(len(selected))} selected." if selected else ""
    table = layer.table
    row = int(table.rows(selected)[0])
    call = table.call_of(selected[0])
    if table.outside[row]:
        return "Off the image: not scored."
    if call is None:
        return "Being scored…" if table.pending[row] else "Not scored."
    if np.isnan(call.score):
        return f"<b>Not assessable</b>: {escape(in_words(call.flags))}."
    unlike = [flag for flag in call.flags if flag in UNLIKE_FLAGS]
    warning = f"<b>Take with care</b>: {escape(in_words(unlike))}. " if unlike else ""
    raw = "score" if call.calibrated is None else "raw score"
    text = warning + (
        f"<b>{escape(call.label) or 'no call'}</b>, {raw} {call.score:.3f} ± {call.std:.3f} "
        f"over {call.n_views} inputs by {escape(call.model)}"
    )
    if call.calibrated is not None:
        text += f"; calibrated {call.calibrated:.3f}"
    if entry is None or call.model != entry.label:
        text += " (not the model chosen above)"
    if table.features["stale"][row]:
        text += "; <b>stale</b>: moved, made with other settings, or stopped half-way"
    elif not table.final[row]:
        text += "; still being refined"
    others = [flag for flag in call.flags if flag not in UNLIKE_FLAGS]
    if others:
        text += f"; note: {escape(in_words(others))}"
    return text + "."


def in_words(flags: Sequence[str]) -> str:
    """Flags as a person reads them."""
    return ", ".join(FLAG_WORDS.get(flag, flag) for flag in flags)


def hint(clicking: bool, *, has_image: bool, has_model: bool, has_nuclei: bool) -> str:
    """What to do next."""
    if not has_image:
        return "Open an image: drop a file on the window, or File · Open Sample · Cellpath."
    if not has_model:
        return "No model is chosen. ‘cellpath models list’ shows which there are."
    if clicking:
        return "Click the middle of a nucleus. Drag the canvas to move, scroll to zoom."
    if has_nuclei:
        return "Click a nucleus to see its score, drag it to score it anew, Delete forgets it."
    return "Press the button, then click nuclei on the image."
