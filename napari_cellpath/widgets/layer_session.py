"""A dock's objects, and the layers of them that come and go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar
from weakref import WeakSet

from napari.layers import Image, Layer
from psygnal import Signal, SignalInstance

from napari_cellpath.backend.job import Backend
from napari_cellpath.bridge import conventions, held
from napari_cellpath.bridge.appearance import symbols
from napari_cellpath.bridge.kinds import Kind, create_layer, kind_of
from napari_cellpath.bridge.objects import ObjectLayer
from napari_cellpath.core.errors import CellpathError
from napari_cellpath.core.vocabulary import System
from napari_cellpath.widgets import keys
from napari_cellpath.widgets.image_session import ImageSession


class LayerSession(ImageSession):
    """State of one dock about objects: whose layers they are, and which is current.

    Attributes
    ----------
    objects
        The controller of the image's layer of objects; None if there is none yet.
    """

    kind: ClassVar[Kind]
    objects_changed = Signal()
    """Another layer of objects is current, or its rows are others than before."""
    rows_added = Signal()
    """The current layer of objects has more rows, at the end."""
    rows_changed = Signal(object)
    selection_changed = Signal()
    clicking_changed = Signal(bool)

    def __init__(self, viewer: Any, backend: Callable[[], Backend], method: Any) -> None:
        super().__init__(viewer, backend, method)
        self.objects: ObjectLayer | None = None
        self._held: dict[Layer, ObjectLayer] = {}
        self._holds: dict[Layer, held.Hold] = {}
        self._unbind: dict[Layer, Callable[[], None]] = {}
        self._put_away: WeakSet[Image] = WeakSet()
        """Images whose layer of objects somebody removed: it does not come back unasked."""
        self._actions = self._key_actions()
        symbols()  # napari takes 0.2 s to make them: now, not at the first click
        self._begin()

    def _let_go_of_all(self) -> None:
        for layer in list(self._held):
            self._let_go(layer)

    @property
    def system(self) -> System:
        """Whose models it uses."""
        return self.kind.system

    def choose_image(self, image: Image | None) -> None:
        """Turn to another image; adding objects goes on there if it was on."""
        was_clicking = self.clicking
        self._set_image(image)
        if was_clicking:
            self.set_clicking(True)

    def _method_changed(self) -> None:
        for objects in self._held.values():
            objects.read_with(self._scheme(objects.image))

    # Layers come and go.

    def _on_removed(self, event: Any) -> None:
        layer = event.value
        for kept, objects in list(self._held.items()):
            if layer is kept:
                self._put_away.add(objects.image)
            if layer is kept or layer is objects.image:
                self._let_go(kept)
        super()._on_removed(event)
        if not isinstance(layer, Image) and self.objects is None:
            self._set_objects(self._latest(self.image))

    def _on_active(self, event: Any = None) -> None:
        active = self.viewer.layers.selection.active
        if active in self._held:
            objects = self._held[active]
            if objects.image is not self.image:
                self._set_image(objects.image)
            self._set_objects(objects)
        else:
            super()._on_active(event)
        self.clicking_changed.emit(self.clicking)

    def _take_up(self, layer: Layer) -> None:
        if layer in self._held or kind_of(layer) is not self.kind:
            return
        layers = self.viewer.layers
        image = conventions.image_of(layer, layers) or conventions.reunite(layer, layers)
        if image is None:
            return
        hold = self._holds[layer] = held.take(layer, image, self._scheme(image))
        objects = self._held[layer] = hold.objects
        self._unbind[layer] = keys.bind(layer, self._actions)
        hold.listen(objects.scoring_requested, lambda uids: self.inquiry.ask(objects, uids))
        hold.listen(objects.answer_unwanted, self.inquiry.forget)
        hold.listen(objects.rows_changed, lambda rows: self._on_rows(objects, rows))
        hold.listen(objects.rows_added, lambda: self._on_shape(objects, self.rows_added))
        hold.listen(objects.rows_reset, lambda: self._on_shape(objects, self.objects_changed))
        hold.listen(objects.selection_changed, lambda: self._on_selection(objects))
        hold.listen(objects.notice, lambda text: self.told.emit("warning", text))
        layer.events.mode.connect(self._on_mode)
        self.keeper.watch(objects, self.inquiry.latest_source(image))

    def _let_go(self, layer: Layer) -> None:
        objects = self._held.pop(layer)
        layer.events.mode.disconnect(self._on_mode)
        self._unbind.pop(layer)()
        if self._holds.pop(layer).release(asked=True):
            self.keeper.forget(objects)
        self.inquiry.drop(objects)
        if self.objects is objects:
            self.objects = None

    def _on_mode(self) -> None:
        self.clicking_changed.emit(self.clicking)

    def _on_rows(self, objects: ObjectLayer, rows: Any) -> None:
        if objects is self.objects:
            self.rows_changed.emit(rows)

    def _on_shape(self, objects: ObjectLayer, signal: SignalInstance) -> None:
        if objects is self.objects:
            signal.emit()

    def _on_selection(self, objects: ObjectLayer) -> None:
        if objects is self.objects:
            self.selection_changed.emit()

    def _on_source_known(self, image: Image) -> None:
        source = self.inquiry.latest_source(image)
        if (
            image is self.image
            and self.objects is None
            and image not in self._put_away
            and self.keeper.holds(source, self.kind.system)
        ):
            self.ready()
        for objects in self._held.values():
            if objects.image is image:
                self.keeper.watch(objects, source)
        super()._on_source_known(image)

    def _on_mpp_settled(self, image: Image) -> None:
        for objects in self._held.values():
            if objects.image is image:
                objects.read_with(self._scheme(image))

    def _image_set(self) -> None:
        self._set_objects(self._latest(self.image))

    def _set_objects(self, objects: ObjectLayer | None) -> None:
        if objects is not self.objects or objects is None:
            self.objects = objects
            self.objects_changed.emit()
            self.clicking_changed.emit(self.clicking)

    def _latest(self, image: Image | None) -> ObjectLayer | None:
        if image is None:
            return None
        layers = conventions.layers_of(image, self.kind.role, self.viewer.layers)
        return next((self._held[x] for x in reversed(layers) if x in self._held), None)

    def holds(self, objects: ObjectLayer) -> bool:
        """Whether a layer of objects is still in the viewer, with its image."""
        return self._held.get(objects.layer) is objects

    def ready(self) -> ObjectLayer | None:
        """The layer of objects to add to, made if there is none; None where that cannot be."""
        if self.image is None:
            self.told.emit("warning", "Open an image first (File, Open Sample has one to try).")
            return None
        if self.objects is None:
            mpp = self.source.mpp if self.source else None
            try:
                layer = create_layer(self.kind, self.image, mpp=mpp)
            except CellpathError as error:
                self.told.emit("error", str(error))
                return None
            self._put_away.discard(self.image)
            self.viewer.add_layer(layer)  # comes back through _on_inserted
            self._set_objects(self._held[layer])
        return self.objects

    def _scheme(self, image: Image) -> Any:
        return self.method.scheme(self.inquiry.mpp(image))
