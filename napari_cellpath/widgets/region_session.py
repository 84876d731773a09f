"""A red-cell dock's own: boxes drawn or detected, labels flipped, the truth, the slide."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from napari.layers import Image, Layer
from numpy.typing import NDArray
from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_cellpath.backend.job import Backend
from napari_cellpath.bridge import region_export, regions
from napari_cellpath.bridge.bring import Bringer
from napari_cellpath.bridge.cell_sources import layers_with_cells, regions_of_layer
from napari_cellpath.bridge.detections import covered
from napari_cellpath.bridge.kinds import RED_CELLS
from napari_cellpath.bridge.red_cells import RedCellsLayer
from napari_cellpath.bridge.truth import Judged, Truth, by_own_word, compared, truth_of_layer
from napari_cellpath.core.errors import CellpathError
from napari_cellpath.core.requests import DETECTION_FLOOR, DETECTION_OVERLAP, DetectRegionsRequest
from napari_cellpath.core.results import FoundRegion
from napari_cellpath.models import ModelEntry
from napari_cellpath.systems.rbc.boxes import DETECTION_SCORE, RegionInput
from napari_cellpath.systems.rbc.detect_plan import has_detector
from napari_cellpath.systems.rbc.verdict import Verdict, read_verdict
from napari_cellpath.widgets.method import RegionMethod
from napari_cellpath.widgets.region_layers import RegionLayers
from napari_cellpath.widgets.search import Where
from napari_cellpath.widgets.session import ObjectSession

SETTLED = 350  # ms a slider rests before regions come and go
NO_SUPPRESSION = 1.0
"""All candidates come back, and the overlap is decided here: as the command line does, once."""
OWN_WORD = "own word"
"""What you have said of the regions counts as the truth."""


class RegionSession(ObjectSession):
    """State of one red-cell dock; see `ObjectSession`.

    Attributes
    ----------
    where
        Where regions are looked for, or the layer that marks them.
    score, most
        Detections of at least this score are shown, the weaker of two that share more than this.
    truth
        The layer that marks true regions, `OWN_WORD`, or None.
    shown
        The layers beside the regions.
    """

    kind = RED_CELLS
    sources_changed = Signal()
    """There are other layers that may mark regions, or the true ones."""
    judged = Signal(str)
    """How the regions stand beside the truth, in words."""
    sliders_changed = Signal()
    """Score and overlap were set by something else than the user."""

    def __init__(self, viewer: Any, backend: Callable[[], Backend], method: RegionMethod) -> None:
        self.where: Where | Layer = Where.IMAGE
        self.score, self.most = DETECTION_SCORE, DETECTION_OVERLAP
        self.truth: Layer | str | None = None
        self._truth_read: tuple[Layer, Image, Truth] | None = None
        self._found: dict[RedCellsLayer, Bringer] = {}
        self._settle = QTimer()
        self._settle.setSingleShot(True)
        self._settle.setInterval(SETTLED)
        self._settle.timeout.connect(self._bring)
        self.shown: RegionLayers | None = None
        super().__init__(viewer, backend, method)
        self.shown = RegionLayers(self.viewer, self._actions, self._coming, self._beside)
        self.shown.told.connect(lambda severity, text: self.told.emit(severity, text))
        self.shown.selected.connect(self.select)
        self.shown.mode_changed.connect(lambda: self.clicking_changed.emit(self.clicking))
        for objects in self._held.values():
            self._show(objects)
        self.selection_changed.connect(self.shown.show_soon)
        self.objects_changed.connect(self.shown.show_soon)
        for signal in (self.rows_changed, self.rows_added, self.reading_changed):
            signal.connect(self.shown.draw_soon)
        self.viewer.layers.events.inserted.connect(self._on_sources)
        self.viewer.layers.events.removed.connect(self._on_sources)
        self._use_detector_score()
        self._read_verdict()

    def close(self, *_: Any) -> None:
        """Let go of everything; safe to call twice."""
        if not self._closed:
            with suppress(RuntimeError):  # Qt may have deleted it before us, on the way out
                self._settle.stop()
            self.viewer.layers.events.inserted.disconnect(self._on_sources)
            self.viewer.layers.events.removed.disconnect(self._on_sources)
            if self.shown is not None:
                self.shown.close()
        super().close()

    @property
    def cells(self) -> RedCellsLayer | None:
        """The controller of the current layer of regions; None if there is none yet."""
        return self.objects

    # Model.

    def use(self, **changes: Any) -> None:
        """Change the model or a setting of the method; nothing is classified by it."""
        super().use(**changes)
        if "entry" in changes:
            self._use_detector_score()
            self._read_verdict()

    @property
    def can_detect(self) -> bool:
        """Whether the model finds regions as well as telling what they hold."""
        entry: ModelEntry | None = self.method.entry
        return entry is not None and has_detector(entry.info.architecture, entry.info.arguments)

    def _use_detector_score(self) -> None:
        entry: ModelEntry | None = self.method.entry
        if entry is not None:
            with suppress(CellpathError):  # the request will say what is wrong with it
                self.score = max(RegionInput.of(entry.info.input, entry.name).score,
                                 DETECTION_FLOOR)  # fmt: skip
        self.sliders_changed.emit()

    def _read_verdict(self) -> None:
        """Read the model's booster on a thread: a flipped label is judged here, at once."""
        entry: ModelEntry | None = self.method.entry
        if entry is None:
            return

        def done(verdict: Verdict) -> None:
            if self.method.entry is entry and not self._closed:
                self.use(verdict=verdict)

        self.inquiry.in_background(lambda: read_verdict(entry.folder), done)

    # Layers.

    def _take_up(self, layer: Layer) -> None:
        before = set(self._held)
        super()._take_up(layer)
        if layer in self._held and layer not in before:
            self._show(self._held[layer])

    def _show(self, objects: RedCellsLayer) -> None:
        if self.shown is not None:
            self.shown.take(objects)
            self._found[objects] = Bringer(objects)

    def _let_go(self, layer: Layer) -> None:
        objects = self._held[layer]
        super()._let_go(layer)
        found = self._found.pop(objects, None)
        if found is not None:
            found.close()
        if self.shown is not None:
            self.shown.drop(objects, gone=not self._closed and layer not in self.viewer.layers)

    def _on_active(self, event: Any = None) -> None:
        active = self.viewer.layers.selection.active
        objects = None if self.shown is None else self.shown.regions_on(active)
        if objects is None:
            super()._on_active(event)
            return
        if objects.image is not self.image:
            self._set_image(objects.image)
        self._set_objects(objects)
        self.clicking_changed.emit(self.clicking)

    # Drawing.

    @property
    def clicking(self) -> bool:
        """Whether a drag on the canvas draws a box now."""
        return self.shown is not None and self.shown.drawing

    def set_clicking(self, on: bool) -> None:
        """Make a drag on the canvas draw a box, or select and move one."""
        objects = self.ready() if on else self.objects
        if objects is not None and self.shown is not None:
            self.shown.set_drawing(objects, on)
        self.clicking_changed.emit(self.clicking)

    # What a person says.

    def correct(self, label: str) -> None:
        """Flip a type of the selected regions; an empty one takes back what was said of them."""
        if self.cells is None:
            return
        selected = self.cells.selected()
        if not selected:
            self.told.emit("info", f"Select the {self.kind.many} to correct first.")
        elif label:
            self.cells.toggle(selected, label)
        else:
            self.cells.correct_each(dict.fromkeys(selected, ""))

    # Finding.

    def take_over(self, layer: Layer) -> None:
        """Take the regions that a layer marks and have them classified; none is doubled."""
        objects = self.ready()
        if objects is None:
            return

        def done(boxes: NDArray[Any]) -> None:
            if not self.holds(objects):
                return
            new = ~covered(boxes, objects.table.boxes)
            uids = objects.add_boxes(boxes[new], score=False)
            objects.select([])  # napari selects what was added; a key meant for one would hit all
            there = len(boxes) - len(uids)
            text = f"{RED_CELLS.count(len(uids))} taken over from '{layer.name}'"
            self.told.emit("info", text + (f" ({there:,} were there already)." if there else "."))
            if uids and self.method.entry is not None:
                self.inquiry.ask(objects, uids)

        self.inquiry.in_background(
            lambda: regions_of_layer(layer, objects.image, objects.table.side), done
        )

    def detect(self) -> None:
        """Find the regions and have them classified; those that are there are not doubled."""
        entry, image = self.method.entry, self.image
        if entry is None:
            self.told.emit("warning", "Choose a model first; it will find the regions.")
            return
        if not self.can_detect:
            self.told.emit("warning", f"The model '{entry.name}' has no detector; draw boxes.")
            return
        source, objects = self.inquiry.source(image), self.ready()
        if objects is None or image is None:
            return
        if source is None:
            self.told.emit("info", f"'{image.name}' is still being read; try again.")
            return
        area: regions.Area | None = None
        if self.where is Where.VIEW:
            area = regions.visible_area(image)
            if area is None:
                self.told.emit("info", f"Nothing of '{image.name}' is in view.")
                return
        request = DetectRegionsRequest(
            source.image, str(entry.folder), None if area is None else area.box,
            DETECTION_FLOOR, NO_SUPPRESSION,
        )  # fmt: skip

        def done(found: Sequence[FoundRegion], complete: bool) -> None:
            self._take(objects, found, area, complete)

        self.inquiry.send("detect", "Finding regions", request, done)

    def _take(
        self, objects: RedCellsLayer, found: Sequence[FoundRegion], area: Any, complete: bool
    ) -> None:
        if not self.holds(objects):
            return
        bringer = self._found[objects]
        bringer.detections.take(found, area)
        new = self._bring_to(objects)
        where = "in view" if area is not None else f"in '{objects.image.name}'"
        strong = sum(f.detection >= self.score for f in found)
        if not found:
            text = f"No region of red cells was found {where}."
        elif not strong:
            text = (
                f"No region {where} scores {self.score:.2f} or more; {len(found):,} candidates "
                "score less: lower ‘Score ≥’ to see them."
            )
        elif not new:
            text = f"No new region was found {where}: what the search finds is there already."
        else:
            text = f"{RED_CELLS.count(len(new))} found {where}."
        if not complete:
            text += " The search was stopped; this is what it had found."
        self.told.emit("info", text)
        if new and self.shown is not None and not self.clicking:
            self.set_clicking(False)

    def slide_to(self, score: float, most: float) -> None:
        """Show detections of at least this score, and of two that share more the stronger."""
        self.score, self.most = max(score, DETECTION_FLOOR), most
        self._settle.start()
        if self.shown is not None:
            self.shown.draw_now()

    def _coming(self, objects: RedCellsLayer) -> tuple[NDArray[np.bool_], NDArray[Any]]:
        if not self._settle.isActive():  # what the sliders say is so already
            return np.zeros(len(objects), dtype=bool), np.zeros((0, 4))
        return self._found[objects].preview(self.score, self.most)

    def _bring(self) -> None:
        """Have regions come and go as the sliders say, once they rest."""
        for objects in list(self._held.values()):
            self._bring_to(objects)

    def _bring_to(self, objects: RedCellsLayer) -> list[str]:
        new = self._found[objects].bring(self.score, self.most)
        left = [uid for uid in new if uid in set(objects.unscored())]
        if left and self.method.entry is not None:
            self.inquiry.ask(objects, left)
        if self.shown is not None:
            self.shown.draw_now()
        return new

    # The truth.

    def sources(self) -> list[Layer]:
        """Layers of the user's that may mark regions, topmost first."""
        return layers_with_cells(self.viewer.layers)

    def choose_truth(self, truth: Layer | str | None) -> None:
        """Show the regions beside what is true; None shows them by verdict again."""
        self.truth, self._truth_read = truth, None
        self._redraw()

    def _redraw(self) -> None:
        if self.truth is None:
            self.judged.emit("")
        if self.shown is not None:
            self.shown.draw_now()

    def _on_sources(self, event: Any) -> None:
        if isinstance(self.truth, Layer) and self.truth not in self.viewer.layers:
            self.choose_truth(None)
        if isinstance(self.where, Layer) and self.where not in self.viewer.layers:
            self.where = Where.IMAGE
        self.sources_changed.emit()

    def _beside(self, objects: RedCellsLayer) -> tuple[Judged, Truth] | None:
        truth, table = self.truth, objects.table
        if truth is None or objects is not self.objects:
            return None
        calls, strength = table.features["call"], table.features["detection"]
        if isinstance(truth, str):
            searched = len(self._found[objects].detections) > 0
            found = ~np.isnan(strength) | (not searched)
            judged = by_own_word(calls, table.features["correction"], found)
            answer = judged, Truth(table.boxes, ("",) * len(table))
        else:
            if self._truth_read is None or self._truth_read[:2] != (truth, objects.image):
                try:
                    self._truth_read = truth, objects.image, truth_of_layer(truth, objects.image)
                except CellpathError as error:
                    self.told.emit("error", str(error))
                    self.truth = None
                    self.sources_changed.emit()
                    return None
            known = self._truth_read[2]
            answer = compared(table.boxes, calls, strength, known), known
        self.judged.emit(answer[0].sentence())
        return answer

    # Out.

    def summary_reader(self) -> Callable[[], Any]:
        """What gives the slide's counts; see `napari_cellpath.core.region_summary`."""
        if self.cells is None:
            return lambda: None
        return region_export.summary_of(self.cells, self.image_name())

    def export_csv(self, path: str) -> int:
        """Write the current regions and their slide's counts; returns how many regions.

        Raises
        ------
        CellpathError
            Nothing to write, or it cannot be written.
        """
        if self.cells is None:
            raise CellpathError("There are no regions of an open image to export; detect or draw.")
        return region_export.export_regions(path, self.cells, self.image_name())

    def command(self, boxes: str, out: str) -> str:
        """The command line that classifies these boxes with these settings.

        Raises
        ------
        CellpathError
            No image, no model, or an image that only exists in memory.
        """
        request = self.method.request(self.read_source().image, ())
        return region_export.regions_command(
            request, boxes, out, model=self.method.name_for_command
        )
