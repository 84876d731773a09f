"""Nuclei without clicks, and why a nucleus has its score: what the dock asks beside scoring."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import numpy as np
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QDoubleSpinBox, QHBoxLayout, QLabel, QWidget
from superqt.utils import signals_blocked

from napari_cellpath.bridge import occlusion, regions
from napari_cellpath.bridge.nuclei import NucleiLayer
from napari_cellpath.core.requests import (
    NUCLEUS_CONTRAST,
    NUCLEUS_UM,
    FindNucleiRequest,
    OcclusionRequest,
)
from napari_cellpath.core.results import FoundNucleus, OcclusionMap
from napari_cellpath.systems.deeppap.presets import USUAL_MPP
from napari_cellpath.widgets import wording
from napari_cellpath.widgets.nuclei_session import NucleiSession


class Where(StrEnum):
    """Where nuclei are looked for."""

    VIEW = "view"
    DRAWN = "drawn"
    IMAGE = "image"


class NucleusSearch:
    """Searches and explanations of one dock.

    Parameters
    ----------
    session
        Gives image, model and nuclei, and takes what is found.
    """

    def __init__(self, session: NucleiSession) -> None:
        self.session = session
        self.smallest, self.largest = NUCLEUS_UM
        self.contrast = NUCLEUS_CONTRAST

    def find(self, where: Where) -> None:
        """Find nuclei and have them scored; those on the layer already are not doubled."""
        session = self.session
        entry, image = session.method.entry, session.image
        if entry is None:
            session.told.emit("warning", "Choose a model first; it will score what is found.")
            return
        source = session.inquiry.source(image)
        nuclei = session.ready()
        if nuclei is None or image is None:
            return
        if source is None:
            session.told.emit("info", f"'{image.name}' is still being read; try again.")
            return
        area = None
        if where is Where.VIEW:
            area = regions.visible_area(image)
            if area is None:
                session.told.emit("info", f"Nothing of '{image.name}' is in view.")
                return
        elif where is Where.DRAWN:
            area = regions.drawn_area(session.viewer.layers, image)
            if area is None:
                session.told.emit(
                    "info",
                    "Draw a rectangle or polygon on a shapes layer over the image first.",
                )
                return
        request = FindNucleiRequest(
            source.image, str(entry.folder), None if area is None else area.box,
            self.smallest, self.largest, self.contrast,
        )  # fmt: skip
        mpp = source.mpp or entry.info.mpp or USUAL_MPP

        def done(found: Sequence[FoundNucleus], complete: bool) -> None:
            self._take(nuclei, found, area, mpp, complete)

        session.inquiry.send("find", "Finding nuclei", request, done)

    def _take(
        self, nuclei: NucleiLayer, found: Sequence[FoundNucleus], area: regions.Area | None,
        mpp: float, complete: bool,
    ) -> None:  # fmt: skip
        if not self.session.holds(nuclei):
            return
        places = regions.new_places(found, area, nuclei.table.positions, mpp)
        if len(places):
            nuclei.add(places, score=complete)
            nuclei.select([])  # napari selects what was added; a key meant for one would hit all
        known = len(found) - len(places)
        text = f"{wording.nuclei(len(places))} found"
        shapes = " or lie outside the shapes" if area is not None and area.polygons else ""
        text += f" ({known} were there already{shapes})." if known else "."
        if not complete:
            text += " The search was stopped"
            text += "; 'Score all' scores what it had found." if len(places) else "."
        self.session.told.emit("info", text)

    def explain(self) -> None:
        """Map what the score of the selected nucleus hangs on, as an image layer."""
        session = self.session
        nuclei, entry = session.nuclei, session.method.entry
        selected = nuclei.selected() if nuclei is not None else []
        if nuclei is None or entry is None or len(selected) != 1:
            session.told.emit("info", "Select one nucleus first.")
            return
        source, there = session.inquiry.source(nuclei.image), nuclei.nuclei(selected)
        if not np.isfinite(nuclei.table.features["score"][nuclei.table.rows(selected)]).all():
            session.told.emit("info", "This nucleus has no score that could be explained.")
            return
        if source is None or not there:
            session.told.emit("info", "This nucleus cannot be looked at now; try again.")
            return
        request = OcclusionRequest(source.image, there[0], str(entry.folder), session.method.border)

        def done(maps: Sequence[OcclusionMap], complete: bool) -> None:
            # Deleted or moved meanwhile: a map of the old place would explain nothing.
            if complete and session.holds(nuclei) and nuclei.nuclei(selected) == there:
                session.put_map(occlusion.map_layer(maps[-1], nuclei.image, there[0].uid))
                session.told.emit("info", occlusion.sentence(maps[-1]))

        session.inquiry.send("occlusion", "Covering place after place", request, done)

    def set_nuclei(self, smallest: float, largest: float, contrast: float) -> None:
        """What counts as a nucleus: diameters in micrometres, and contrast."""
        self.smallest, self.largest, self.contrast = smallest, largest, contrast


class FindSettings(QWidget):
    """Smallest and largest diameter of what is to be found, and how clearly it must stand out.

    Parameters
    ----------
    smallest, largest
        Diameters, micrometres.
    clearness
        The third setting's value.
    name, tip
        What that is called, and means.
    """

    changed = Signal(float, float, float)

    def __init__(
        self,
        smallest: float,
        largest: float,
        clearness: float,
        name: str = "contrast",
        tip: str = "How much denser than round it a nucleus is; less finds more",
    ) -> None:
        super().__init__()
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(4)
        self.smallest = number_box(smallest, 1.0, 99.0, 1, "Smallest diameter, µm")
        self.largest = number_box(largest, 2.0, 100.0, 1, "Largest diameter, µm")
        self.contrast = number_box(clearness, 0.01, 4.0, 2, tip)
        for widget in (self.smallest, QLabel("–"), self.largest, QLabel(name)):
            row.addWidget(widget)
        row.addWidget(self.contrast)
        row.addStretch(1)
        for box in (self.smallest, self.largest, self.contrast):
            box.valueChanged.connect(self._on_change)

    def _on_change(self) -> None:
        # One end pushes the other: a range that finds nothing cannot be set.
        if self.largest.value() <= self.smallest.value():
            pushed = self.largest if self.sender() is self.smallest else self.smallest
            step = 1.0 if pushed is self.largest else -1.0
            other = self.smallest if pushed is self.largest else self.largest
            with signals_blocked(pushed):
                pushed.setValue(other.value() + step)
        self.changed.emit(self.smallest.value(), self.largest.value(), self.contrast.value())


def number_box(value: float, low: float, high: float, decimals: int, tip: str) -> QDoubleSpinBox:
    """A small field for a number."""
    box = QDoubleSpinBox()
    box.setRange(low, high)
    box.setDecimals(decimals)
    box.setSingleStep(1.0 if decimals == 1 else 0.02)
    box.setValue(value)
    box.setToolTip(tip)
    box.setButtonSymbols(QDoubleSpinBox.ButtonSymbols.NoButtons)
    box.setObjectName("cellpath-small")
    box.setFixedWidth(44)
    box.setKeyboardTracking(False)
    return box
