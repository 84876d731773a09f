"""What a dock is about: its image, its objects, and the layers that come and go.

With `session.ObjectSession` the one class that touches the viewer. Views ask it by method and
hear from it by signal; all of it runs on the main thread.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from napari.layers import Image, Layer
from psygnal import Signal, SignalInstance

from napari_cellpath.backend.job import Backend
from napari_cellpath.bridge import conventions, held
from napari_cellpath.bridge.appearance import symbols
from napari_cellpath.bridge.kinds import Kind, create_layer, kind_of
from napari_cellpath.bridge.objects import ObjectLayer
from napari_cellpath.bridge.sources import Source
from napari_cellpath.core.errors import CellpathError
from napari_cellpath.widgets import keys
from napari_cellpath.widgets.inquiry import Inquiry
from napari_cellpath.widgets.keeper import Keeper


class LayerSession:
    """State of one dock: whose layers they are, and which is current.

    Parameters
    ----------
    viewer
        The napari viewer.
    backend
        Gives the backend when it is first needed.
    method
        Model, preset and reading to start with.

    Attributes
    ----------
    image, objects
        The image layer that is analysed, and the controller of its layer of objects; None if there
        is none yet.
    inquiry
        What was asked of the backend.
    """

    kind: ClassVar[Kind]
    images_changed = Signal()
    subject_changed = Signal()
    """Another image, model or pixel size is current."""
    objects_changed = Signal()
    """Another layer of objects is current, or its rows are others than before."""
    rows_added = Signal()
    """The current layer of objects has more rows, at the end."""
    rows_changed = Signal(object)
    reading_changed = Signal()
    """How calls are read, or which classes there are, changed."""
    selection_changed = Signal()
    clicking_changed = Signal(bool)
    told = Signal(str, str)
    """Severity (``info``, ``warning``, ``error``) and a sentence for the user."""

    def __init__(self, viewer: Any, backend: Callable[[], Backend], method: Any) -> None:
        # napari hands plugins a proxy, whose layers are proxies too: `is` and `type` then never
        # hold, and the dock would stay on the wrong image. Only public names are used on it.
        self.viewer = getattr(viewer, "__wrapped__", viewer)
        self.method = method
        self.image: Image | None = None
        self.objects: ObjectLayer | None = None
        self.inquiry = Inquiry(backend, lambda: self.method)
        self.inquiry.told.connect(self.told.emit)
        self.inquiry.source_known.connect(self._on_source_known)
        self.inquiry.mpp_settled.connect(self._on_mpp_settled)
        self.keeper = Keeper.of(self.viewer)
        self.keeper.enter()
        self._held: dict[Layer, ObjectLayer] = {}
        self._holds: dict[Layer, held.Hold] = {}
        self._unbind: dict[Layer, Callable[[], None]] = {}
        self._closed = False
        self._actions = self._key_actions()
        symbols()  # napari takes 0.2 s to make them: now, not at the first click
        layers = viewer.layers
        layers.events.inserted.connect(self._on_inserted)
        layers.events.removed.connect(self._on_removed)
        layers.events.renamed.connect(self._on_renamed)
        layers.selection.events.active.connect(self._on_active)
        for layer in list(layers):
            self._take_up(layer)
        self._on_active()
        if self.image is None and self.images:
            self._set_image(self.images[0])

    def close(self, *_: Any) -> None:
        """Cancel what runs and let go of everything; safe to call twice, at any time."""
        if self._closed:
            return
        self._closed = True
        layers = self.viewer.layers
        layers.events.inserted.disconnect(self._on_inserted)
        layers.events.removed.disconnect(self._on_removed)
        layers.events.renamed.disconnect(self._on_renamed)
        layers.selection.events.active.disconnect(self._on_active)
        self.inquiry.close()
        for layer in list(self._held):
            self._let_go(layer)
        self.keeper.leave()

    # What it is about.

    @property
    def images(self) -> list[Image]:
        """Image layers, topmost first."""
        return conventions.image_layers(self.viewer.layers)[::-1]

    @property
    def source(self) -> Source | None:
        """What is read for the current image, as last known; None until it is."""
        return self.inquiry.latest_source(self.image)

    def choose_image(self, image: Image | None) -> None:
        """Turn to another image; adding objects goes on there if it was on."""
        was_clicking = self.clicking
        self._set_image(image)
        if was_clicking:
            self.set_clicking(True)

    def choose_mpp(self, mpp: float | None) -> None:
        """Override the pixel size of the current image; None takes its own again."""
        if self.image is not None:
            self.inquiry.set_mpp(self.image, mpp)
            self.subject_changed.emit()

    def use(self, **changes: Any) -> None:
        """Change the model or a setting of the method; nothing is scored by it."""
        self.method = self.method.with_changes(**changes)
        for objects in self._held.values():
            objects.read_with(self._scheme(objects.image))
        self.reading_changed.emit()
        if "entry" in changes:
            self.subject_changed.emit()
            self.inquiry.warm_up()

    @property
    def busy(self) -> bool:
        """Whether something goes on that is no job of the backend."""
        return False

    # Layers come and go.

    def _on_inserted(self, event: Any) -> None:
        for layer in list(self.viewer.layers):
            self._take_up(layer)  # objects may have come before their image
        if isinstance(event.value, Image):
            self.images_changed.emit()
            if self.image is None:
                self._set_image(event.value)

    def _on_removed(self, event: Any) -> None:
        layer = event.value
        for kept, objects in list(self._held.items()):
            if layer is kept or layer is objects.image:
                self._let_go(kept)
        if isinstance(layer, Image):
            self.inquiry.forget_image(layer)
            if layer is self.image:
                self.inquiry.errands.cancel_all()  # nobody can use what they would find
                self._set_image(self.images[0] if self.images else None)
            self.images_changed.emit()
        elif self.objects is None:
            self._set_objects(self._latest(self.image))

    def _on_renamed(self, event: Any) -> None:
        self.images_changed.emit()

    def _on_active(self, event: Any = None) -> None:
        active = self.viewer.layers.selection.active
        if active in self._held:
            objects = self._held[active]
            if objects.image is not self.image:
                self._set_image(objects.image)
            self._set_objects(objects)
        elif conventions.is_analysable(active) and active is not self.image:
            self._set_image(active)
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
            and self.keeper.holds(source, self.kind.system)
        ):
            self.ready()
        for objects in self._held.values():
            if objects.image is image:
                self.keeper.watch(objects, source)
        self.keeper.show_areas(self.viewer, image, source, self.kind.system)
        if image is self.image:
            self.subject_changed.emit()

    def _on_mpp_settled(self, image: Image) -> None:
        for objects in self._held.values():
            if objects.image is image:
                objects.read_with(self._scheme(image))

    def _set_image(self, image: Image | None) -> None:
        self.image = image
        self._set_objects(self._latest(image))
        if image is not None:
            self.inquiry.look_into(image)
        self.subject_changed.emit()

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
            self.viewer.add_layer(layer)  # comes back through _on_inserted
            self._set_objects(self._held[layer])
        return self.objects

    def _scheme(self, image: Image) -> Any:
        return self.method.scheme(self.inquiry.mpp(image))
