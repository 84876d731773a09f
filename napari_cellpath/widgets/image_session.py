"""What a dock is about: an image of the viewer, a model, and a project that remembers.

The classes of sessions are the only ones that touch the viewer. Views ask them by method and
hear from them by signal; all of it runs on the main thread.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from napari.layers import Image, Layer
from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_cellpath.backend.job import Backend
from napari_cellpath.bridge import conventions, export, left_behind, pixel_sizes
from napari_cellpath.bridge.sources import Source
from napari_cellpath.core.errors import CellpathError
from napari_cellpath.core.vocabulary import System
from napari_cellpath.widgets import garbage
from napari_cellpath.widgets.inquiry import Inquiry
from napari_cellpath.widgets.keeper import Keeper


class ImageSession:
    """State of one dock: which image it is about, and how that is looked at.

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
    image
        The image layer that is analysed.
    inquiry
        What was asked of the backend.
    """

    images_changed = Signal()
    subject_changed = Signal()
    """Another image, model or pixel size is current."""
    reading_changed = Signal()
    """How answers are read, or which classes there are, changed."""
    told = Signal(str, str)
    """Severity (``info``, ``warning``, ``error``) and a sentence for the user."""

    def __init__(self, viewer: Any, backend: Callable[[], Backend], method: Any) -> None:
        # napari hands plugins a proxy, whose layers are proxies too: `is` and `type` then never
        # hold, and the dock would stay on the wrong image. Only public names are used on it.
        self.viewer = getattr(viewer, "__wrapped__", viewer)
        self.method = method
        self.image: Image | None = None
        self.inquiry = Inquiry(backend, lambda: self.method)
        self.inquiry.told.connect(self.told.emit)
        self.inquiry.source_known.connect(self._on_source_known)
        self.inquiry.mpp_settled.connect(self._on_mpp_settled)
        self.keeper = Keeper.of(self.viewer)
        self.keeper.enter()
        self._closed = False

    def _begin(self) -> None:
        """Take up what is in the viewer; the last thing that a session does when it is made."""
        layers = self.viewer.layers
        layers.events.inserted.connect(self._on_inserted)
        layers.events.removed.connect(self._on_removed)
        layers.events.renamed.connect(self._on_renamed)
        layers.selection.events.active.connect(self._on_active)
        for layer in list(layers):
            self._take_up(layer)
        self._on_active()
        if self.image is None and self.images:
            self._set_image(self.images[0])
        garbage.set_aside()

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
        self._let_go_of_all()
        self.keeper.leave()
        garbage.take_back()

    # What it is about.

    @property
    def system(self) -> System:
        """Whose models it uses."""
        raise NotImplementedError

    @property
    def images(self) -> list[Image]:
        """Image layers, topmost first."""
        return conventions.image_layers(self.viewer.layers)[::-1]

    @property
    def source(self) -> Source | None:
        """What is read for the current image, as last known; None until it is."""
        return self.inquiry.latest_source(self.image)

    def choose_image(self, image: Image | None) -> None:
        """Turn to another image."""
        self._set_image(image)

    def choose_mpp(self, mpp: float | None) -> None:
        """Override the pixel size of the current image; None takes its own again."""
        if self.image is not None:
            self.inquiry.set_mpp(self.image, mpp)
            own = self.inquiry.stated(self.image)
            if own is not None and own.mpp is None and own.key:
                pixel_sizes.remember(own.key, mpp)  # nobody is to be asked twice
            self.subject_changed.emit()

    def use(self, **changes: Any) -> None:
        """Change the model or a setting of the method; nothing is computed by it."""
        self.method = self.method.with_changes(**changes)
        self._method_changed()
        self.reading_changed.emit()
        if "entry" in changes:
            self.subject_changed.emit()
            self.inquiry.warm_up()

    def _method_changed(self) -> None:
        """Read what there is with the new method."""

    @property
    def busy(self) -> bool:
        """Whether something goes on that is no job of the backend."""
        return False

    # Layers come and go.

    def _take_up(self, layer: Layer) -> None:
        """Take up a layer that is in the viewer, if it is one of ours."""
        raise NotImplementedError

    def _let_go_of_all(self) -> None:
        """Let go of every layer of ours."""
        raise NotImplementedError

    def _on_inserted(self, event: Any) -> None:
        for layer in list(self.viewer.layers):
            self._take_up(layer)  # layers of ours may have come before their image
        if isinstance(event.value, Image):
            for image in left_behind.show_again(self.viewer.layers):
                # Once napari has done with the insertion that this is told in.
                QTimer.singleShot(0, partial(left_behind.lay_under, image, self.viewer.layers))
            self.images_changed.emit()
            if self.image is None:
                self._set_image(event.value)

    def _on_removed(self, event: Any) -> None:
        layer = event.value
        if isinstance(layer, Image):
            self.inquiry.forget_image(layer)
            garbage.search_soon()
            if layer is self.image:
                self.inquiry.errands.cancel_all()  # nobody can use what they would find
                self._set_image(self.images[0] if self.images else None)
            self.images_changed.emit()
            hidden = left_behind.hide(layer, self.viewer.layers)  # 0 if another dock did it
            if hidden:
                self.told.emit("info", _hidden_words(hidden, layer.name))

    def _on_renamed(self, event: Any) -> None:
        self.images_changed.emit()

    def _on_active(self, event: Any = None) -> None:
        active = self.viewer.layers.selection.active
        if conventions.is_analysable(active) and active is not self.image:
            self._set_image(active)

    def _on_source_known(self, image: Image) -> None:
        source = self.inquiry.source(image)
        if source is not None and source.mpp is None and source.key:
            mpp = pixel_sizes.remembered(source.key)
            if mpp is not None:
                self.inquiry.set_mpp(image, mpp)
        self.keeper.show_areas(self.viewer, image, self.inquiry.latest_source(image), self.system)
        if image is self.image:
            self.subject_changed.emit()

    def _on_mpp_settled(self, image: Image) -> None:
        """The pixel size in effect of an image changed."""

    def _set_image(self, image: Image | None) -> None:
        self.image = image
        self._image_set()
        if image is not None:
            self.inquiry.look_into(image)
        self.subject_changed.emit()

    def _image_set(self) -> None:
        """Another image is current."""

    # Out.

    def image_name(self) -> str:
        """What a table calls the current image."""
        source = self.source
        return export.image_name(source.image) if source is not None else ""

    def read_source(self) -> Source:
        """What is read for the current image, for a command line.

        Raises
        ------
        CellpathError
            No image, no model, or nothing known of the image yet.
        """
        if self.image is None or self.method.entry is None:
            raise CellpathError("Open an image and choose a model first.")
        source = self.inquiry.source(self.image)
        if source is None and self.inquiry.refusal(self.image):
            raise CellpathError(self.inquiry.refusal(self.image))
        if source is None:
            raise CellpathError(f"'{self.image.name}' is still being read; try again in a moment.")
        return source


def _hidden_words(count: int, image: str) -> str:
    layers = "1 layer is" if count == 1 else f"{count} layers are"
    return (
        f"'{image}' was closed; {layers} hidden with it. Open it again, or use the eye in the "
        "layer list, to see them."
    )
