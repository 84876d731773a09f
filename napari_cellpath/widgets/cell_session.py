"""A HEp-2 dock's own: cells found or taken from other layers, their masks, the specimen."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from napari.layers import Image, Labels, Layer
from numpy.typing import NDArray
from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_cellpath.backend.job import Backend
from napari_cellpath.bridge import cell_export, conventions, regions
from napari_cellpath.bridge.cell_sources import cells_of_layer, layers_with_cells
from napari_cellpath.bridge.cells import CellsLayer
from napari_cellpath.bridge.conventions import image_shape
from napari_cellpath.bridge.kinds import CELLS
from napari_cellpath.bridge.masks import Masks, create_masks_layer, masks_layer_of
from napari_cellpath.bridge.placing import Before, Placed, place_found, place_given
from napari_cellpath.bridge.specimen import reading_of
from napari_cellpath.core.errors import CellpathError
from napari_cellpath.core.requests import CELL_UM, FindCellsRequest
from napari_cellpath.core.results import FoundCell
from napari_cellpath.project import Kind
from napari_cellpath.slides.windows import is_colour
from napari_cellpath.systems.hep2.cells import USUAL_MPP
from napari_cellpath.widgets.method import CellMethod
from napari_cellpath.widgets.search import Where
from napari_cellpath.widgets.session import ObjectSession

CLICK_UM = 18.0
"""Diameter of a HEp-2 nucleus that was only clicked, micrometres."""
SINGLE_CELL = 128
"""Images up to this side, pixels, are taken for one cell; the I3A cells measure 78."""
RECOLOUR_SOON, RECOLOUR_AGAIN, RECOLOUR_AT_LAST = 200, 1500, 4000  # ms
SHARE = 0.2  # of the main thread's time, at most, for colouring masks


class CellSession(ObjectSession):
    """State of one HEp-2 dock; see `ObjectSession`.

    Attributes
    ----------
    given
        The layer that marks the cells; the image itself: it is one cell; None: they are found.
    where
        Where they are looked for.
    smallest, largest, sensitivity
        What counts as a cell, see `FindCellsRequest`.
    click_um
        Diameter of cells that are clicked or that points mark, micrometres.
    staged
        Cells were just found, and are classified in the same go.
    """

    kind = CELLS
    sources_changed = Signal()
    """There are other layers that may mark cells."""

    def __init__(self, viewer: Any, backend: Callable[[], Backend], method: CellMethod) -> None:
        self.given: Layer | None = None
        self.where = Where.IMAGE
        self.smallest, self.largest = CELL_UM
        self.sensitivity = 1.0
        self.click_um = CLICK_UM
        self.staged = False
        self._placing = 0
        self._sized_up: Image | None = None
        self._masks: dict[Labels, Masks] = {}
        self._colour: WeakKeyDictionary[Image, bool] = WeakKeyDictionary()
        self._recolour_timer = QTimer()
        self._recolour_timer.setSingleShot(True)
        self._recolour_timer.timeout.connect(self._recolour)
        self._rest = 0.0
        super().__init__(viewer, backend, method)
        self.viewer.layers.events.inserted.connect(self._on_sources)
        self.viewer.layers.events.removed.connect(self._on_sources)
        for signal in (self.rows_changed, self.rows_added, self.objects_changed,
                       self.reading_changed):  # fmt: skip
            signal.connect(self.recolour_soon)
        self.subject_changed.connect(self._know_single_cell)
        self.inquiry.source_known.connect(self._look_at_colour)
        self.subject_changed.connect(self.size_clicks)
        self.objects_changed.connect(self.size_clicks)
        self.size_clicks()

    def close(self, *_: Any) -> None:
        """Let go of everything; safe to call twice."""
        if not self._closed:
            with suppress(RuntimeError):  # Qt may have deleted it before us, on the way out
                self._recolour_timer.stop()
            self.viewer.layers.events.inserted.disconnect(self._on_sources)
            self.viewer.layers.events.removed.disconnect(self._on_sources)
        super().close()

    @property
    def cells(self) -> CellsLayer | None:
        """The controller of the current layer of cells; None if there is none yet."""
        return self.objects

    @property
    def busy(self) -> bool:
        """Whether cells that were found are being put on the layer."""
        return self._placing > 0

    @property
    def colour(self) -> bool:
        """Whether the planes of the image differ, so that one of them has to be chosen."""
        return self.image is not None and self._colour.get(self.image, False)

    def _look_at_colour(self, image: Image) -> None:
        source = self.inquiry.source(image)
        if source is None:
            return

        def done(colour: bool) -> None:
            self._colour[image] = colour
            if image is self.image:
                self.subject_changed.emit()

        self.inquiry.in_background(lambda: is_colour(source.image), done)

    # What marks the cells.

    def sources(self) -> list[Layer]:
        """Layers that may mark cells, topmost first."""
        return layers_with_cells(self.viewer.layers)

    def choose_source(self, layer: Layer | None) -> None:
        """Take cells from a layer; None finds them."""
        self.given = layer
        self.sources_changed.emit()

    def _know_single_cell(self) -> None:
        """Take an image as small as a cell for one, until the user says otherwise."""
        image = self.image
        if image is self._sized_up:
            return
        self._sized_up = image
        single = image is not None and image.ndim == 2 and max(image_shape(image)) <= SINGLE_CELL
        if single or isinstance(self.given, Image):
            self.choose_source(image if single else None)

    def _on_sources(self, event: Any) -> None:
        if self.given is not None and self.given not in self.viewer.layers:
            self.given = None
        self._masks = {x: m for x, m in self._masks.items() if x in self.viewer.layers}
        self.sources_changed.emit()

    def mpp_or_usual(self) -> float:
        """Pixel size in effect, else the model's, else the usual one."""
        source, entry = self.source, self.method.entry
        mpp = source.mpp if source is not None else None
        return mpp or (entry.info.mpp if entry is not None else None) or USUAL_MPP

    def size_clicks(self) -> None:
        """Give cells that are clicked from now on the diameter that is set."""
        if self.cells is not None:
            self.cells.table.side = max(3, round(self.click_um / self.mpp_or_usual()))

    # The specimen.

    @property
    def intensity(self) -> str:
        """How bright a person says the specimen is: empty, ``positive`` or ``intermediate``."""
        image = self.image
        if image is None:
            return ""
        group, project = self.keeper.group_of(self.source), self.keeper.project
        if project is not None and group:
            kept = project.state.settings.get(f"specimen/{group}", {})
            if "intensity" in kept:
                return str(kept["intensity"])
        return str(conventions.facts_of(image).get("intensity", ""))

    def set_intensity(self, intensity: str) -> None:
        """Note how bright the specimen is, with the image and in the project."""
        if self.image is None:
            return
        conventions.set_facts(self.image, intensity=intensity)
        group, project = self.keeper.group_of(self.source), self.keeper.project
        if project is not None and group:
            project.record(
                Kind.SETTING, {"settings": {f"specimen/{group}": {"intensity": intensity}}}
            )

    def specimen_layers(self) -> list[CellsLayer]:
        """Layers of cells of the current image's specimen: of all its images that are open."""
        cells, group = self.cells, self.keeper.group_of(self.source)
        if cells is None or not group:
            return [] if cells is None else [cells]
        return [
            x for x in self._held.values()
            if x is cells
            or self.keeper.group_of(self.inquiry.latest_source(x.image)) == group
        ]  # fmt: skip

    def specimen_name(self) -> str:
        """What the specimen is called; empty if nobody says."""
        return self.keeper.group_of(self.source)

    def specimen_reader(self) -> Callable[[], dict[str, Any]]:
        """What gives the specimen's roll-up; see `napari_cellpath.bridge.specimen.reading_of`."""
        return reading_of(self.specimen_layers(), self.intensity)

    # Out.

    def export_csv(self, path: str) -> int:
        """Write the current cells and their specimen's reading; returns how many cells.

        Raises
        ------
        CellpathError
            Nothing to write, or it cannot be written.
        """
        if self.cells is None:
            raise CellpathError("There are no cells of an open image to export; find some first.")
        model = "" if self.method.entry is None else self.method.entry.label
        reading = {"model": model, "specimen": self.specimen_name() or None}
        reading |= self.specimen_reader()()
        return cell_export.export_cells(path, self.cells, self.image_name(), reading)

    def command(self, boxes: str, out: str) -> str:
        """The command line that classifies these cells with these settings.

        Raises
        ------
        CellpathError
            No image, no model, or an image that only exists in memory.
        """
        request = self.method.request(self.read_source().image, ())
        return cell_export.cells_command(
            request, boxes, out, model=self.method.name_for_command, intensity=self.intensity
        )

    # Finding and classifying.

    def run(self) -> None:
        """Find cells, or take those of the layer chosen, and classify all."""
        entry, image = self.method.entry, self.image
        if entry is None:
            self.told.emit("warning", "Choose a model first; it will tell the patterns.")
            return
        source, cells = self.inquiry.source(image), self.ready()
        if cells is None or image is None:
            return
        if source is None:
            self.told.emit("info", f"'{image.name}' is still being read; try again.")
            return
        self.size_clicks()
        if self.given is not None:
            self._take(cells, self.given)
            return
        area: regions.Area | None = None
        if self.where is not Where.IMAGE:
            view = self.where is Where.VIEW
            area = (
                regions.visible_area(image) if view
                else regions.drawn_area(self.viewer.layers, image)
            )  # fmt: skip
            if area is None:
                self.told.emit("info", f"Nothing of '{image.name}' is in view." if view else
                               "Draw a rectangle or polygon on a shapes layer first.")  # fmt: skip
                return
        request = FindCellsRequest(
            source.image, str(entry.folder), None if area is None else area.box,
            self.smallest, self.largest, self.sensitivity, self.method.channel,
        )  # fmt: skip

        def done(found: Sequence[FoundCell], complete: bool) -> None:
            self._place(
                cells, lambda known, before: place_found(found, area, known, before), complete
            )

        self.staged = True
        self.inquiry.send("find", "Finding cells", request, done)

    def _take(self, cells: CellsLayer, layer: Layer) -> None:
        image, side = cells.image, cells.table.side

        def given(known: NDArray[Any], before: Before) -> Placed:
            return place_given(cells_of_layer(layer, image, side), known, before)

        self._place(cells, given, complete=True)

    def _place(
        self,
        cells: CellsLayer,
        work: Callable[[NDArray[Any], Before], Placed],
        complete: bool,
    ) -> None:
        """Work out on a thread what is new, put it on the layers, and have it classified."""
        if not self.holds(cells):
            return
        layer = masks_layer_of(cells.image, self.viewer.layers)
        held = None if layer is None else self._masks_of(layer)
        shape = cells.shape
        before = Before(shape, None, []) if held is None else Before(
            shape, np.asarray(held.layer.data), held.uids
        )  # fmt: skip
        known = cells.table.boxes
        self._placing += 1

        def done(placed: Placed) -> None:
            self._placing -= 1
            if self.holds(cells):
                self._put(cells, placed, complete)
            self.inquiry.changed.emit()

        def failed(error: Exception) -> None:
            self._placing -= 1
            self.told.emit("error", str(error))
            self.inquiry.changed.emit()

        self.inquiry.in_background(lambda: work(known, before), done, failed)
        self.inquiry.changed.emit()

    def _put(self, cells: CellsLayer, placed: Placed, complete: bool) -> None:
        if placed.masks is not None:
            self._show_masks(cells.image, placed.masks, placed.mask_uids)
        if len(placed.boxes):
            cells.add_boxes(placed.boxes, placed.names, score=False, uids=placed.uids)
            cells.select([])  # napari selects what was added; a key meant for one would hit all
        new, known = len(placed.boxes), placed.total - len(placed.boxes)
        text = f"{CELLS.count(new)} {'found' if self.given is None else 'taken over'}"
        text += f" ({known:,} were there already or lie elsewhere)." if known else "."
        if complete:
            left = [*cells.unscored(), *cells.stale()]
            if left:
                self.inquiry.ask(cells, left)
        else:
            text += " The search was stopped; ‘Classify all’ goes on with what it had found."
        self.told.emit("info", text)

    # Masks.

    def _masks_of(self, layer: Labels) -> Masks:
        if layer not in self._masks:
            self._masks[layer] = Masks(layer)
        return self._masks[layer]

    def _show_masks(self, image: Image, data: NDArray[np.int32], uids: Sequence[str]) -> None:
        layers = self.viewer.layers
        layer = masks_layer_of(image, layers)
        if layer is not None:
            self._masks_of(layer).take(data, uids)
            return
        active = layers.selection.active
        layer = create_masks_layer(image, data, uids)
        cells = [i for i, x in enumerate(layers)
                 if x in self._held and self._held[x].image is image]  # fmt: skip
        # Above the image, whatever lies below, and under its cells.
        layers.insert(max(min(cells, default=len(layers)), layers.index(image) + 1), layer)
        layers.selection.active = active

    def recolour_soon(self, *_: Any) -> None:
        """Have masks take the colours of their cells' patterns, not more often than they can."""
        if not self._recolour_timer.isActive() and not self._closed:
            wait = self._rest - time.monotonic() * 1000
            self._recolour_timer.start(max(RECOLOUR_SOON, round(wait)))

    def recolour_now(self) -> None:
        """Have masks take their colours at once: nothing more is to come."""
        self._rest = 0.0
        self._recolour_timer.start(0)

    def _recolour(self) -> None:
        started = time.monotonic()
        for cells in self._held.values():
            layer = masks_layer_of(cells.image, self.viewer.layers)
            if layer is not None:
                self._masks_of(layer).recolour(cells.table)
        spent = (time.monotonic() - started) * 1000
        rest = min(max(RECOLOUR_AGAIN, spent / SHARE), RECOLOUR_AT_LAST)
        self._rest = time.monotonic() * 1000 + rest
