"""A region summed up: read on a thread, shown in the dock's table, written to files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_cellpath.bridge import tissue_export
from napari_cellpath.bridge.corrected import CorrectedStore, frozen
from napari_cellpath.bridge.tissue import TissueRegion
from napari_cellpath.bridge.tissue_reading import Reading, read_region
from napari_cellpath.core.errors import CellpathError
from napari_cellpath.widgets.areas import CLASSES
from napari_cellpath.widgets.score_scale import swatch
from napari_cellpath.widgets.table import Column
from napari_cellpath.widgets.tissue_session import TissueSession
from napari_cellpath.widgets.tissue_words import area

SOON = 250  # ms


class TissueSummary:
    """What the current region of a session amounts to.

    Attributes
    ----------
    reading
        None while there is nothing to go by.
    """

    changed = Signal()

    def __init__(self, session: TissueSession) -> None:
        self.session = session
        self.reading: Reading | None = None
        self._of: TissueRegion | None = None
        self._painted: list[int] = []
        self._number = 0
        self._timer = QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(SOON)
        self._timer.timeout.connect(self._read)

    # What the table shows.

    @property
    def names(self) -> tuple[str, ...]:
        """Classes of the region, else of the model."""
        region = self.session.region
        return region.facts.class_names if region is not None else self.session.method.classes

    @property
    def colours(self) -> tuple[str, ...]:
        """Their colours."""
        region = self.session.region
        return region.facts.colours if region is not None else self.session.method.colours

    @property
    def rows(self) -> NDArray[np.intp]:
        """Every row of the table."""
        return np.arange(len(self.names), dtype=np.intp)

    def values(self, name: str) -> NDArray[Any]:
        """A column: ``pixels`` or ``share`` of each class; NaN while not known."""
        if self.reading is None:
            return np.full(len(self.names), np.nan)
        return np.array([part[name] for part in self.reading["classes"].values()], dtype=float)

    def area_text(self, pixels: float) -> str:
        """An area of the table."""
        if np.isnan(pixels):
            return ""
        return area(pixels, None if self.reading is None else self.reading["mpp"])

    # Reading.

    def read_soon(self) -> None:
        """Have the region summed up anew, unless it is still growing."""
        region = self.session.region
        if region is not self._of:
            self._of, self.reading = region, None
            self.changed.emit()
        if not self.session.running:
            self._timer.start()

    def painted(self, counts: list[int]) -> None:
        """Sum up anew if something was painted."""
        self.session.take_painted(counts)
        if counts != self._painted:
            self._painted = counts
            self.read_soon()

    def standing(self) -> CorrectedStore:
        """The current region as it stands, for a thread to read.

        Raises
        ------
        CellpathError
            There is none.
        """
        session, region = self.session, self.session.region
        if region is None:
            raise CellpathError("Segment a region first.")
        project = session.keeper.project
        names = () if project is None else project.state.settings.get(CLASSES, {}).get("names", ())
        raster = session.keeper.painted(session.inquiry.latest_source(region.image))
        return CorrectedStore(region.store, frozen(raster), names)

    def _read(self) -> None:
        region = self.session.region
        if region is None or self.session.running:
            return
        self._number += 1
        number, smallest, standing = self._number, self.session.method.smallest, self.standing()

        def done(reading: Reading) -> None:
            if number == self._number:
                self.reading = reading
                self.changed.emit()

        self.session.inquiry.in_background(lambda: read_region(standing, smallest), done)

    def go_to(self, row: int) -> None:
        """Bring the largest lesion of a class to the middle of the canvas."""
        region, reading = self.session.region, self.reading
        if region is None or reading is None or not 0 <= row < len(self.names):
            return
        place = reading["places"].get(self.names[row])
        if place is None:
            self.session.told.emit("info", f"There is no {self.names[row]} in this region.")
            return
        at = [
            corner + (p + 0.5) * step - 0.5
            for corner, p, step in zip(region.facts.corner, place, region.facts.step, strict=True)
        ]
        world = region.image.data_to_world(tuple(at))
        self.session.viewer.scene.camera.center = (0.0, *(float(x) for x in world[-2:]))

    # Out.

    def writer(self, path: Path) -> Callable[[], str]:
        """What writes the region to a file, on any thread, and says what it wrote.

        Raises
        ------
        CellpathError
            There is no region, or the ending names no format.
        """
        standing, session = self.standing(), self.session
        assert session.region is not None  # else there is nothing standing  # noqa: S101
        source = session.inquiry.latest_source(session.region.image)
        image = None if source is None else source.image
        return tissue_export.writer(standing, path, session.method.smallest, image)


def area_columns(summary: TissueSummary) -> tuple[Column, ...]:
    """Columns of the table of classes."""
    names = lambda: np.array(summary.names, dtype=object)  # noqa: E731
    return (
        Column("Class", "Click to go to the largest region of it", names, str,
               lambda row: swatch(summary.colours[row]), 116),
        Column("Area", "Of the region as it stands, painted corrections included",
               lambda: summary.values("pixels"), summary.area_text, width=92, right=True),
        Column("Share", "Of what was assessed", lambda: summary.values("share"),
               lambda v: "" if np.isnan(v) else f"{100 * v:.1f} %", width=56, right=True),
    )  # fmt: skip
