"""The cells on a specimen's layers, as the roll-up takes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from napari_cellpath.bridge.cells import CellsLayer
from napari_cellpath.core.results import PatternCall
from napari_cellpath.core.specimen import judged_of, read_specimen


def reading_of(
    layers: Sequence[CellsLayer], intensity: str | None = None
) -> Callable[[], dict[str, Any]]:
    """What gives the roll-up of these layers' cells, as they are now; it may run on any thread.

    A person's word goes before the model's, and counts as certain. Stale patterns and cells off
    the image do not count.
    See `napari_cellpath.core.specimen.read_specimen` for the result.
    """
    calls: list[PatternCall] = []
    said: list[str] = []
    classes: tuple[str, ...] = ()
    for cells in layers:
        table = cells.table
        classes = classes or table.scheme.classes
        columns = table.features
        blank = PatternCall("", 0.0, 0.0, "", (), 0, "")
        counted = table.has_call & ~columns["stale"]
        here = ~table.outside
        counted &= columns["correction"] == ""  # what a person said needs no call beside it
        for uid, counts in zip(table.uids[here].tolist(), counted[here].tolist(), strict=True):
            call = table.calls.get(uid) if counts else None
            fits = isinstance(call, PatternCall) and len(call.probabilities) == len(classes)
            calls.append(call if fits else blank)  # type: ignore[arg-type]
        said += columns["correction"][here].tolist()

    def read() -> dict[str, Any]:
        labels, probabilities, calibrated = judged_of(calls, len(classes))
        for row, word in enumerate(said):
            if word in classes:
                probabilities[row] = np.equal(classes, word)
        standing = [word or label for word, label in zip(said, labels, strict=True)]
        return read_specimen(
            standing, probabilities, classes, intensity=intensity or None, calibrated=calibrated
        )

    return read
