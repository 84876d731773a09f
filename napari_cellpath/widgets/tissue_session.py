"""A tissue dock's own: regions that are segmented, the layers that grow, and what is painted."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from napari.layers import Image, Layer
from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_cellpath.backend.job import Backend
from napari_cellpath.bridge import conventions, regions, tissue_export, tissue_stores
from napari_cellpath.bridge.timing import napari_call, timed
from napari_cellpath.bridge.tissue import TissueRegion, region_of, tissue_layers_of
from napari_cellpath.bridge.tissue_tiles import Tiles, read_tiles
from napari_cellpath.core.errors import CellpathError
from napari_cellpath.core.requests import SegmentRequest
from napari_cellpath.core.results import SegmentedRows
from napari_cellpath.core.vocabulary import Role, System
from napari_cellpath.slides.region_store import RegionStore
from napari_cellpath.widgets import keys
from napari_cellpath.widgets.method import TissueMethod
from napari_cellpath.widgets.paint_session import PaintSession
from napari_cellpath.widgets.search import Where

SEGMENT = "segment"
REFRESH_MS = 400
"""Between two redraws of a growing layer: more often would be felt and shows nothing more."""
SHARE = 0.2  # of the main thread's time, at most, for redrawing


class TissueSession(PaintSession):
    """State of one tissue dock.

    Attributes
    ----------
    where
        What of the image is segmented.
    """

    region_changed = Signal()
    """Another region is current, or the current one has ended."""
    grew = Signal()
    """The current region has more rows."""

    def __init__(self, viewer: Any, backend: Callable[[], Backend], method: TissueMethod) -> None:
        super().__init__(viewer, backend, method)
        self.where = Where.VIEW
        self._regions: dict[Layer, TissueRegion] = {}
        self._requests: dict[Layer, SegmentRequest] = {}
        self._unbind: dict[Layer, Callable[[], None]] = {}
        self._actions = self._key_actions()
        self._redraw = QTimer()
        self._redraw.setSingleShot(True)
        self._redraw.timeout.connect(self._refresh)
        self._earliest = 0.0
        self._counted: Any = ()
        self._opening: set[str] = set()
        self.keeper.switched.connect(self._on_switched)
        self._begin()

    def close(self, *_: Any) -> None:
        """Let go of everything; safe to call twice."""
        if not self._closed:
            with suppress(RuntimeError):  # Qt may have deleted it before us, on the way out
                self._redraw.stop()
            self.keeper.switched.disconnect(self._on_switched, missing_ok=True)
        super().close()

    @property
    def system(self) -> System:
        """Whose models it uses."""
        return System.HSPNET

    @property
    def running(self) -> bool:
        """Whether a region is being segmented."""
        return any(e.kind == SEGMENT for e in self.inquiry.errands.under_way)

    # Layers come and go.

    def _take_up(self, layer: Layer) -> None:
        role = conventions.facts_of(layer).get("role")
        if layer in self._unbind or role not in (Role.TISSUE, Role.PAINTED):
            return
        layers = self.viewer.layers
        image = conventions.image_of(layer, layers) or conventions.reunite(layer, layers)
        if image is None:
            return
        if role == Role.TISSUE and layer not in self._regions:
            region = region_of(layer, image)  # None, its store is gone: a picture, no region
            if region is not None:
                self._look_after(layer, region)
        self._unbind[layer] = keys.bind(layer, self._actions)
        layer.events.mode.connect(self._on_brush)
        if role == Role.PAINTED:
            layer.events.selected_label.connect(self._on_brush)
        if image is self.image:
            self._image_set()

    def _look_after(self, layer: Layer, region: TissueRegion) -> None:
        """Know a region, and let it know what is painted over its image."""
        self._regions[layer] = region
        image = region.image
        region.raster = lambda: self.keeper.painted(self.inquiry.latest_source(image))
        region.paint = lambda pieces: self.paint_pieces(image, pieces)
        self._read_tiles(region)

    def _read_tiles(self, region: TissueRegion) -> None:
        """Have a finished region looked through tile by tile, on a thread, for the review."""
        if not region.store.progress.complete:
            return

        def work() -> Tiles:
            return read_tiles(region.store)

        self.inquiry.in_background(work, region.take_tiles)

    def take_painted(self, counts: Sequence[int]) -> None:
        """Tell regions that something was painted over the current image, if that is so."""
        now = self.image, tuple(counts)
        if now != self._counted:
            self._counted = now
            for region in self._regions.values():
                if region.image is self.image:
                    region.painted_changed.emit()

    def _let_go(self, layer: Layer) -> None:
        self._unbind.pop(layer)()
        layer.events.mode.disconnect(self._on_brush)
        if conventions.facts_of(layer).get("role") == Role.PAINTED:
            layer.events.selected_label.disconnect(self._on_brush)
        region = self._regions.pop(layer, None)
        if region is not None:
            region.raster, region.paint = (lambda: None), (lambda _pieces: False)
        self._requests.pop(layer, None)

    def _let_go_of_all(self) -> None:
        for layer in list(self._unbind):
            self._let_go(layer)

    def _on_removed(self, event: Any) -> None:
        layer = event.value
        if layer in self._unbind:
            if self.region is not None and layer is self.region.layer and self.running:
                self.inquiry.errands.cancel_all()  # nobody could see what it would find
            self._let_go(layer)
        super()._on_removed(event)
        self._image_set()

    def _on_active(self, event: Any = None) -> None:
        active = self.viewer.layers.selection.active
        region = self._regions.get(active)
        if region is not None:
            if region.image is not self.image:
                self._set_image(region.image)
            self._set_region(region)
        else:
            super()._on_active(event)
        self.painting_changed.emit()

    def _image_set(self) -> None:
        layers = [] if self.image is None else tissue_layers_of(self.image, self.viewer.layers)
        known = [self._regions[x] for x in layers if x in self._regions]
        if self.region not in known:
            self._set_region(known[-1] if known else None)
        self.find_painted()

    def _set_region(self, region: TissueRegion | None) -> None:
        if region is not self.region:
            self.region = region
            self.region_changed.emit()

    def _on_switched(self) -> None:
        if self.image is not None:
            self.keeper.show_areas(self.viewer, self.image, self.source)

    # Segmenting.

    def missing(self) -> str:
        """Why nothing can be segmented now, as what to do about it; empty if it can."""
        if self.image is None:
            return "Open an image first (File, Open Sample has one to try)."
        if self.method.entry is None:
            return "Choose a model first."
        refused = self.inquiry.refusal(self.image)
        if refused:
            return refused
        source = self.inquiry.source(self.image)
        if source is None:
            return f"'{self.image.name}' is still being read; try again in a moment."
        if self.needs_scale:
            return (
                "The image does not state how large a pixel is. Type its µm / pixel above: the "
                "model looks at tissue at one scale only."
            )
        return ""

    @property
    def needs_scale(self) -> bool:
        """Whether nobody has said yet how large a pixel of the image is."""
        source, entry = self.inquiry.source(self.image), self.method.entry
        known = source is None or entry is None or entry.info.mpp is None
        return not known and source is not None and source.mpp is None

    def area(self) -> regions.Area | None:
        """What of the current image is to be segmented; None where nothing is chosen."""
        if self.image is None:
            return None
        if self.where is Where.IMAGE:
            height, width = conventions.image_shape(self.image)
            return regions.Area((0, 0, height, width))
        if self.where is Where.VIEW:
            return regions.visible_area(self.image)
        return regions.drawn_area(self.viewer.layers, self.image, one=True)

    def request(self) -> SegmentRequest:
        """What would be segmented now.

        Raises
        ------
        CellpathError
            Nothing can, or no area is chosen.
        """
        missing = self.missing()
        if missing:
            raise CellpathError(missing)
        source, area = self.read_source(), self.area()
        if area is None:
            name = "" if self.image is None else self.image.name
            raise CellpathError(
                f"Nothing of '{name}' is in view." if self.where is Where.VIEW else
                "Draw a rectangle or polygon on a shapes layer over the image first."
            )  # fmt: skip
        corners = [tuple(map(float, p)) for p in area.polygons[0]] if area.polygons else []
        polygon = () if _is_box(corners) else tuple(corners)
        draft = self.method.request(source.image, "", area.box, polygon)
        store = tissue_stores.store_for(draft, source.key, self.method.entry.label)
        return self.method.request(source.image, str(store), area.box, polygon)

    def segment(self) -> None:
        """Segment what is chosen; what is done of it already is gone on with."""
        try:
            request = self.request()
        except CellpathError as error:
            self.told.emit("warning", str(error))
            return
        self._send(self.image, request)

    def go_on(self) -> None:
        """Go on with the current region where it was stopped."""
        region = self.region
        request = None if region is None else self._requests.get(region.layer)
        if region is None or request is None:
            self.told.emit("info", "Nothing was stopped that could be gone on with.")
        else:
            self._send(region.image, request)

    @property
    def unfinished(self) -> bool:
        """Whether the current region was stopped before its end and can be gone on with."""
        region = self.region
        return (
            region is not None and not self.running and region.layer in self._requests
            and not region.store.progress.complete
        )  # fmt: skip

    def _send(self, image: Image | None, request: SegmentRequest) -> None:
        if image is None:
            return
        with suppress(OSError):
            tissue_stores.stores_folder().mkdir(parents=True, exist_ok=True)
            tissue_stores.prune([r.store.path for r in self._regions.values()])

        def some(rows: Sequence[SegmentedRows]) -> None:
            self._grow(image, request, rows)

        def done(rows: Sequence[SegmentedRows], complete: bool) -> None:
            self._end(image, request, complete)

        self.inquiry.send(SEGMENT, "Segmenting", request, done, some)

    @timed
    def _grow(self, image: Image, request: SegmentRequest, rows: Sequence[SegmentedRows]) -> None:
        """Show rows that came; the layer is made when the first are there."""
        if self._region_of(request) is None:
            self._open(image, request)
        elif not self._redraw.isActive():
            wait = self._earliest - time.monotonic() * 1000
            self._redraw.start(max(0, round(wait)))

    def _open(
        self, image: Image, request: SegmentRequest, then: Callable[[], None] | None = None
    ) -> None:
        """Open a store on a thread and show it: zarr alone takes seconds to be imported."""
        if request.store in self._opening:
            return
        self._opening.add(request.store)

        def done(store: RegionStore) -> None:
            self._opening.discard(request.store)
            if image not in self.viewer.layers:
                return
            if self._region_of(request) is None:
                self._show(image, request, store)
            if then is not None:
                then()

        def failed(error: CellpathError) -> None:
            self._opening.discard(request.store)
            self.told.emit("error", str(error))

        self.inquiry.in_background(lambda: RegionStore.open(request.store), done, failed)

    def _region_of(self, request: SegmentRequest) -> TissueRegion | None:
        return next(
            (r for layer, r in self._regions.items() if self._requests.get(layer) == request), None
        )

    @timed
    def _show(self, image: Image, request: SegmentRequest, store: RegionStore) -> None:
        """Put a region's layer over its image, in the place of one of other settings."""
        for layer, old in list(self._regions.items()):
            same = old.image is image and old.box == TissueRegion.box_of(store.facts)
            if same and old.facts.polygon == store.facts.polygon:
                self.viewer.layers.remove(layer)  # of other settings; its store stays
        region = TissueRegion(image, store)
        self._look_after(region.layer, region)
        self._requests[region.layer] = request
        layers = self.viewer.layers
        active = layers.selection.active
        # Over its image, under whatever of ours marks or paints on it.
        ours = [
            i for i, x in enumerate(layers)
            if conventions.facts_of(x).get("role") not in (None, Role.TISSUE)
            and conventions.image_of(x, layers) is image
        ]  # fmt: skip
        at = max(min(ours, default=len(layers)), layers.index(image) + 1)
        with napari_call():
            layers.insert(at, region.layer)
            layers.selection.active = active
        self._set_region(region)

    @timed
    def _refresh(self) -> None:
        if self._closed or self.region is None:
            return
        started = time.monotonic()
        self.region.refresh()
        now = time.monotonic()
        self._earliest = now * 1000 + max(REFRESH_MS, (now - started) * 1000 * (1 - SHARE) / SHARE)
        self.grew.emit()

    def _end(self, image: Image, request: SegmentRequest, complete: bool) -> None:
        region = self._region_of(request)
        if region is None:  # complete already, or ended before its first rows were shown
            if image in self.viewer.layers and Path(request.store).is_dir():
                self._open(image, request, lambda: self._end(image, request, complete))
            return
        with suppress(CellpathError):
            region.reread()
        region.refresh()
        self._read_tiles(region)
        self.region_changed.emit()
        if not complete:
            share = region.store.progress.rows_done / max(1, region.facts.shape[0])
            self.told.emit(
                "info", f"Stopped at {100 * share:.0f} %; what is done stays, and ‘Go on’ does "
                "the rest.",
            )  # fmt: skip

    def command(self, out: str) -> str:
        """The command line that segments the current region, or what would be segmented now.

        Raises
        ------
        CellpathError
            There is none, or the image only exists in memory.
        """
        request = None if self.region is None else self._requests.get(self.region.layer)
        return tissue_export.command_line(
            request or self.request(), out, model=self.method.name_for_command,
            least_lesion_mm2=self.method.smallest,
        )  # fmt: skip

    # Maps.

    def show_map(self, number: int | None) -> None:
        """Show the probability of a class of the current region; None: how undecided it is."""
        region = self.region
        if region is None or not region.store.probabilities:
            self.told.emit(
                "info", "This region was segmented without probabilities; switch ‘Keep "
                "probabilities’ on under More settings and segment it again.",
            )  # fmt: skip
            return
        layer = region.entropy_layer() if number is None else region.probability_layer(number)
        active = self.viewer.layers.selection.active
        self.viewer.layers.insert(self.viewer.layers.index(region.layer) + 1, layer)
        self.viewer.layers.selection.active = active

    def _key_actions(self) -> dict[str, Callable[[], None]]:
        return {"run": self.segment, **self.paint_actions()}


def _is_box(corners: Sequence[tuple[float, ...]]) -> bool:
    """Whether four corners are those of an upright rectangle."""
    if len(corners) != 4:
        return False
    sides = [{round(corner[axis], 3) for corner in corners} for axis in (0, 1)]
    return all(len(side) == 2 for side in sides)
