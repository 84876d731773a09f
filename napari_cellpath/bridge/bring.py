"""Regions come and go with the detector's sliders; what a person touched stays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.bridge.detections import Detections
from napari_cellpath.bridge.followed import Gesture
from napari_cellpath.bridge.red_cells import RedCellsLayer
from napari_cellpath.bridge.timing import timed


class Bringer:
    """The detections of one layer of regions.

    A region that was found, and that nobody has labelled, moved or deleted, is there while the
    sliders let it; its answer is kept while it is away, so that nothing is asked for twice.

    Attributes
    ----------
    detections
        All candidates.
    """

    def __init__(self, regions: RedCellsLayer) -> None:
        self.regions = regions
        self.detections = Detections()
        self._answers: dict[str, Any] = {}
        self._bringing = False
        regions.happened.connect(self._on_gesture)

    def close(self) -> None:
        """Let go of the regions."""
        self.regions.happened.disconnect(self._on_gesture, missing_ok=True)

    def _on_gesture(self, gesture: Gesture, uids: list[str]) -> None:
        if gesture is Gesture.DELETED and not self._bringing:
            self.detections.dismiss(uids)

    def _free(self) -> NDArray[np.bool_]:
        """(n,) regions that only the detector speaks for."""
        table, found = self.regions.table, self.detections
        rows = table.places(found.uids)
        there = np.flatnonzero(rows >= 0)
        free = np.zeros(len(table), dtype=bool)
        same = (table.boxes[rows[there]] == found.boxes[there]).all(axis=1)
        at = rows[there[same]]
        columns = table.features
        free[at] = (columns["correction"][at] == "") & (columns["readings"][at] == "")
        return free

    def _wanted(self, score: float, most: float) -> tuple[NDArray[np.bool_], dict[str, int]]:
        table, free = self.regions.table, self._free()
        self.detections.dismissed.difference_update(table.uids[free])  # undone: it is back
        return free, self.detections.wanted(score, most, table.boxes[~free])

    @timed
    def preview(self, score: float, most: float) -> tuple[NDArray[np.bool_], NDArray[Any]]:
        """What these settings would hide, (n,) of the regions, and the boxes they would bring."""
        table, found = self.regions.table, self.detections
        if not len(found):
            return np.zeros(len(table), dtype=bool), np.zeros((0, 4))
        free, wanted = self._wanted(score, most)
        kept = np.array([uid in wanted for uid in table.uids], dtype=bool)
        rows = [row for uid, row in wanted.items() if uid not in table]
        return free & ~kept, found.boxes[rows]

    @timed
    def bring(self, score: float, most: float) -> list[str]:
        """Have the regions that these settings want, and no others; returns those that came."""
        table, found = self.regions.table, self.detections
        free, wanted = self._wanted(score, most)
        leaving = [str(uid) for uid in table.uids[free] if uid not in wanted]
        coming = [uid for uid in wanted if uid not in table]
        self._bringing = True
        try:
            if leaving:
                self._answers.update(table.answers(leaving))
                self.regions.remove(leaving)
            if coming:
                rows = [wanted[uid] for uid in coming]
                self.regions.add_boxes(found.boxes[rows], score=False, uids=coming)
                self.regions.select([])  # napari selects what was added
                self.regions.note_detections(found.scores_of(coming))
                known = [uid for uid in coming if uid in self._answers]
                by_settings: dict[Any, list[Any]] = {}
                for uid in known:
                    call, settings = self._answers.pop(uid)
                    by_settings.setdefault(settings, []).append(call)
                for settings, calls in by_settings.items():
                    self.regions.write(calls, settings)
        finally:
            self._bringing = False
        return coming
