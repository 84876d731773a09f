"""Segmented regions of a viewer: their layers come and go, are painted over and reviewed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from napari.layers import Image, Layer
from psygnal import Signal

from napari_cellpath.backend.job import Backend
from napari_cellpath.bridge import conventions
from napari_cellpath.bridge.timing import napari_call, timed
from napari_cellpath.bridge.tissue import TissueRegion, region_of, tissue_layers_of
from napari_cellpath.bridge.tissue_tiles import Tiles, read_tiles
from napari_cellpath.core.requests import SegmentRequest
from napari_cellpath.core.vocabulary import Role
from napari_cellpath.slides.region_store import RegionStore
from napari_cellpath.widgets import keys
from napari_cellpath.widgets.method import TissueMethod
from napari_cellpath.widgets.paint_session import PaintSession


class TissueLayerSession(PaintSession):
    """State of a dock about segmented regions; see `PaintSession`."""

    region_changed = Signal()
    """Another region is current, or the current one has ended."""

    def __init__(self, viewer: Any, backend: Callable[[], Backend], method: TissueMethod) -> None:
        super().__init__(viewer, backend, method)
        self._regions: dict[Layer, TissueRegion] = {}
        self._requests: dict[Layer, SegmentRequest] = {}
        self._unbind: dict[Layer, Callable[[], None]] = {}
        self._counted: Any = ()
        self._dismissed: SegmentRequest | None = None
        self._actions = self._key_actions()
        self.keeper.switched.connect(self._on_switched)

    def close(self, *_: Any) -> None:
        """Let go of everything; safe to call twice."""
        self.keeper.switched.disconnect(self._on_switched, missing_ok=True)
        super().close()

    @property
    def under_way(self) -> SegmentRequest | None:
        """What is being segmented; None if nothing is."""
        raise NotImplementedError

    def _key_actions(self) -> dict[str, Callable[[], None]]:
        """What the shortcuts do on layers of regions, painted ones too."""
        return self.paint_actions()

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
        region.look_after(self)
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
            # Still recorded: napari's own undo would go past the journal.
            keys.bind(layer, {"undo": self.keeper.undo, "redo": self.keeper.redo})
        region = self._regions.pop(layer, None)
        if region is not None:
            region.leave(self)
        self._requests.pop(layer, None)

    def _let_go_of_all(self) -> None:
        for layer in list(self._unbind):
            self._let_go(layer)

    def _on_removed(self, event: Any) -> None:
        layer = event.value
        if layer in self._unbind:
            asked = self._requests.get(layer)
            if asked is not None and asked == self.under_way:
                self._dismissed = asked
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

    def _turn_to(self, region: TissueRegion) -> None:
        """Make a region the current one, and have it seen: over the others of its image."""
        layers = self.viewer.layers
        others = [layers.index(x) for x in self._regions if self._regions[x].image is region.image]
        with napari_call():
            region.layer.visible = True
            layers.move(layers.index(region.layer), max(others) + 1)
        self._set_region(region)

    def _on_switched(self) -> None:
        if self.image is not None:
            self.keeper.show_areas(self.viewer, self.image, self.source, self.system)

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
