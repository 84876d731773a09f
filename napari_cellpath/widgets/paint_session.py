"""What a person paints over tissue: the brush and its class, what is accepted, what is complete."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from napari.layers import Image, Labels
from psygnal import Signal

from napari_cellpath.backend.job import Backend
from napari_cellpath.bridge import conventions, painting, regions
from napari_cellpath.bridge.tissue import Piece, TissueRegion
from napari_cellpath.project.painted import painted_value
from napari_cellpath.project.state import Raster
from napari_cellpath.widgets import keys
from napari_cellpath.widgets.areas import CLASSES
from napari_cellpath.widgets.image_session import ImageSession
from napari_cellpath.widgets.method import TissueMethod

_PAINTING = ("paint", "erase", "fill", "polygon", "pick")
"""Modes of a labels layer in which a press changes it."""


class PaintSession(ImageSession):
    """State of a dock in which classes are painted.

    Attributes
    ----------
    region
        The segmented region that is current; None if there is none.
    painted
        The layer that is painted on over the current image; None if there is none.
    """

    painting_changed = Signal()
    """Painting was begun or ended, or another class is on the brush."""

    def __init__(self, viewer: Any, backend: Callable[[], Backend], method: TissueMethod) -> None:
        super().__init__(viewer, backend, method)
        self.region: TissueRegion | None = None
        self.painted: Labels | None = None
        self._last_label = painted_value(0)

    def missing(self) -> str:
        """Why nothing can be done now, as what to do about it; empty if it can."""
        raise NotImplementedError

    def find_painted(self) -> None:
        """Look which layer is painted on over the current image."""
        image, layers = self.image, self.viewer.layers
        self.painted = None if image is None else painting.painted_layer_of(image, layers)
        self.painting_changed.emit()

    @property
    def painting(self) -> bool:
        """Whether the brush paints now."""
        layer = self.painted
        active = self.viewer.layers.selection.active
        return layer is not None and layer is active and str(layer.mode) in _PAINTING

    @property
    def brush(self) -> str:
        """The class on the brush; empty while it takes back, or there is nothing to paint on."""
        if self.painted is None:
            return ""
        number = int(self.painted.selected_label) - painted_value(0)
        erasing = str(self.painted.mode) == "erase"
        classes = self.method.classes
        return classes[number] if 0 <= number < len(classes) and not erasing else ""

    def set_painting(self, on: bool) -> None:
        """Take the brush to what is in view, or put it away."""
        if not on:
            if self.painted is not None:
                self.painted.mode = "pan_zoom"
            self.painting_changed.emit()
            return
        layer = self._ready_to_paint()
        if layer is not None:
            self.viewer.layers.selection.active = layer
            if str(layer.mode) not in _PAINTING:
                layer.mode = "paint"
        self.painting_changed.emit()

    def _ready_to_paint(self) -> Labels | None:
        image = self.image
        if image is None or self.method.entry is None:
            self.told.emit("warning", self.missing() or "Choose a model first.")
            return None
        view = regions.visible_area(image)
        if view is None:
            self.told.emit("info", f"Nothing of '{image.name}' is in view.")
            return None
        layer = self.keeper.ready_to_paint(
            self.viewer, image, self.source, self._window(view.box), self.method.classes,
            self.method.colours,
        )  # fmt: skip
        self.find_painted()
        return layer

    def _window(self, view: painting.Box) -> painting.Box:
        """Where the layer to paint on is to lie: the image, the region or what is in view."""
        image, region = self.image, self.region
        assert image is not None  # the callers ask  # noqa: S101
        if self.painted is not None:
            there = painting.window_of(self.painted)
            if painting.holds(there, view):
                return there
        for area in ((0, 0, *conventions.image_shape(image)), region and region.box):
            if area and max(area[2:]) <= painting.LARGEST and painting.holds(area, view):
                return painting.window_round(area, image)
        return painting.window_round(view, image)

    def choose_class(self, name: str) -> None:
        """Put a class on the brush, and take the brush up; empty takes painted pixels back."""
        if not self.painting:
            self.set_painting(True)
        layer = self.painted
        if layer is None:
            return
        if name:
            layer.selected_label = painted_value(self.method.classes.index(name))
        if str(layer.mode) in _PAINTING:
            wanted = str(layer.mode) if str(layer.mode) not in ("erase", "pick") else "paint"
            layer.mode = wanted if name else "erase"
        self.painting_changed.emit()

    def _on_brush(self, _event: Any = None) -> None:
        layer = self.painted
        if layer is not None and int(layer.selected_label) > painted_value(self._most_classes - 1):
            self.told.emit(
                "info", f"Label {int(layer.selected_label)} is no class; the brush stays as it "
                "was. Choose a class in the dock, or with Alt and its number.",
            )  # fmt: skip
            layer.selected_label = self._last_label
            return
        if layer is not None:
            self._last_label = int(layer.selected_label)
        self.painting_changed.emit()

    @property
    def _most_classes(self) -> int:
        """Of the model, or of what the project was painted with."""
        project = self.keeper.project
        settings = {} if project is None else project.state.settings
        return max(len(self.method.classes), len(settings.get(CLASSES, {}).get("names", ())))

    def painted_over(self, image: Image) -> Raster | None:
        """What was painted over an image; None for nothing."""
        return self.keeper.painted(self.inquiry.latest_source(image))

    def paint_pieces(self, image: Image, pieces: Sequence[Piece]) -> bool:
        """Paint windows of an image as one gesture, as a review does; whether it was done."""
        source = self.inquiry.latest_source(image)
        ready = self.keeper.ready_to_paint(
            self.viewer, image, source, painting.window_round(_box_of(pieces[0]), image),
            self.method.classes, self.method.colours,
        )  # fmt: skip
        self.find_painted()
        return ready is not None and source is not None and self.keeper.paint(source, pieces)

    def painted_counter(self) -> Callable[[], list[int]]:
        """What counts the pixels painted of each class over the current image, on any thread."""
        raster, classes = self.keeper.painted(self.source), len(self.method.classes)
        return lambda: painting.painted_counts(raster, classes)

    def mark_complete(self) -> None:
        """Let the user draw rectangles in which everything is painted."""
        if self.image is not None:
            self.keeper.mark_complete(self.viewer, self.image, self.source, None)

    def paint_actions(self) -> dict[str, Callable[[], None]]:
        """What the shortcuts do to what is painted."""
        actions: dict[str, Callable[[], None]] = {
            "accept": self.accept,
            "undo": self.keeper.undo,
            "redo": self.keeper.redo,
        }
        for number in range(keys.MOST_CLASSES):
            actions[f"class_{number + 1}"] = lambda n=number: self._choose_number(n)
        return actions

    def _choose_number(self, number: int) -> None:
        if number < len(self.method.classes):
            self.choose_class(self.method.classes[number])

    def accept(self) -> None:
        """Take what the model says of what is in view for the person's own word."""
        image, region = self.image, self.region
        if image is None or region is None:
            self.told.emit("info", "Segment a region first; its classes can then be accepted.")
            return
        view = regions.visible_area(image)
        if view is None or self._ready_to_paint() is None or self.source is None:
            return
        window = painting.overlap(painting.window_round(view.box, image), region.box)
        if window is None:
            self.told.emit("info", "The segmented region is not in view.")
            return
        said = painting.accepted(region.store, self.keeper.painted(self.source), window)
        if not self.keeper.paint(self.source, [(window[0], window[1], said)]):
            self.told.emit(
                "info",
                "Nothing in view is left to accept: it is painted, or not segmented yet.",
            )


def _box_of(piece: Piece) -> painting.Box:
    row, col, labels = piece
    return row, col, *labels.shape
