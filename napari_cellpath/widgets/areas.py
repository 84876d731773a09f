"""What is drawn on images beside objects: *Complete here* rectangles, and painted classes.

Each layer of them is recorded in the viewer's project from its first stroke on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from napari.layers import Image, Labels, Layer, Shapes

from napari_cellpath.bridge import conventions, painting
from napari_cellpath.bridge.box_recording import BoxRecorder
from napari_cellpath.bridge.paint_recording import PaintRecorder
from napari_cellpath.bridge.sources import Source
from napari_cellpath.bridge.tissue import Piece
from napari_cellpath.core.errors import ProjectError
from napari_cellpath.core.vocabulary import CLASS_COLOURS, System
from napari_cellpath.project import Event, Kind, Project, Stroke
from napari_cellpath.project.painted import raster_name
from napari_cellpath.project.state import Raster
from napari_cellpath.widgets import keys

Recorder = BoxRecorder | PaintRecorder
CLASSES = f"classes/{System.HSPNET}"
"""Setting of a project: the names and colours that painted numbers count in."""


class Areas:
    """Layers that are drawn or painted on, each recorded in the project.

    Parameters
    ----------
    actions
        What the shortcuts do on these layers.
    """

    def __init__(self, actions: Mapping[str, Callable[[], None]]) -> None:
        self._actions = actions
        self.recorders: dict[Layer, Recorder] = {}
        self._left: dict[Layer, tuple[Recorder, Raster]] = {}

    # Complete here.

    def ready(
        self, viewer: Any, image: Image, project: Project, source: Source, system: System
    ) -> Shapes:
        """The image's layer of rectangles, made and recorded if it is not yet.

        Raises
        ------
        CellpathError
            The image is not one 2-D plane.
        """
        layer = conventions.complete_layer_of(image, viewer.layers, system)
        if layer is None:
            layer = conventions.create_complete_layer(image, system)
            viewer.add_layer(layer)
        if layer not in self.recorders:
            self.recorders[layer] = BoxRecorder(layer, project, source.key, system, complete=True)
            self._watch(viewer, layer)
        return layer

    # Painted classes.

    def ready_to_paint(
        self, viewer: Any, image: Image, project: Project, source: Source, window: painting.Box,
        names: Sequence[str], colours: Sequence[str],
    ) -> Labels:  # fmt: skip
        """The image's layer to paint on, over this window or, where it is one, as it is.

        Raises
        ------
        CellpathError
            The project's painted classes are others, or the image is not one 2-D plane.
        """
        declared = project.state.settings.get(CLASSES, {}).get("names")
        if declared is not None and tuple(declared) != tuple(names):
            raise ProjectError(
                f"In {project.name} the classes {', '.join(declared)} are painted, and this model "
                f"tells {', '.join(names)}; choose a model of the same classes, or save this "
                "project and begin another."
            )
        layer = painting.painted_layer_of(image, viewer.layers)
        if layer is None:
            layer = painting.create_painted_layer(image, window, colours, source.mpp)
            viewer.add_layer(layer)
        elif not painting.holds(painting.window_of(layer), window):
            self._forget(layer)
            painting.move_window(layer, image, window)
        if declared is None:
            facts = {"names": list(names), "colours": list(colours)}
            project.record(Kind.SETTING, {"settings": {CLASSES: facts}})
        if layer not in self.recorders:
            self._record_painted(layer, project, source.key)
            self._watch(viewer, layer)
        return layer

    def paint(self, project: Project, image: str, pieces: Sequence[Piece]) -> Event | None:
        """Paint windows of an image, whether a layer shows them or not, as one gesture."""
        name = raster_name(image)
        now = project.state.rasters.get(name) or Raster()
        strokes = [
            Stroke(name, row, col, now.read(row, col, *labels.shape), labels)
            for row, col, labels in pieces
        ]
        event = project.record(Kind.PAINT, {}, strokes)
        if event is not None:
            self.replay([event])
        return event

    def _record_painted(self, layer: Labels, project: Project, image: str) -> None:
        row, col, _, _ = painting.window_of(layer)
        self.recorders[layer] = PaintRecorder(layer, project, raster_name(image), (row, col))

    # Both.

    def show(
        self, viewer: Any, image: Image, project: Project, source: Source, system: System
    ) -> None:
        """Show what the project holds of an image and a system, where no layer shows it yet."""
        active = viewer.layers.selection.active
        if system == System.HSPNET:
            self._show_painted(viewer, image, project, source)
        there = conventions.complete_layer_of(image, viewer.layers, system) is not None
        if not there and any(
            o["image"] == source.key
            and o.get("complete")
            and o.get("system", System.DEEPPAP) == system
            for o in project.state.objects.values()
        ):
            self.ready(viewer, image, project, source, system)
        if viewer.layers.selection.active is not active:
            viewer.layers.selection.active = active

    def _show_painted(self, viewer: Any, image: Image, project: Project, source: Source) -> None:
        raster = project.state.rasters.get(raster_name(source.key))
        box = None if raster is None else painting.painted_box(raster)
        said = project.state.settings.get(CLASSES, {})
        if box is None or not said or painting.painted_layer_of(image, viewer.layers) is not None:
            return
        names = said["names"]
        colours = said.get("colours") or [
            CLASS_COLOURS[i % len(CLASS_COLOURS)] for i in range(len(names))
        ]
        window = painting.window_round(box, image)
        self.ready_to_paint(viewer, image, project, source, window, names, colours)

    def drop(self) -> dict[Layer, Recorder]:
        """Record no more; returns the layers and what recorded them."""
        dropped = dict(self.recorders)
        for layer in dropped:
            self._forget(layer)
        return dropped

    def take_over(self, dropped: Mapping[Layer, Recorder], project: Project, *, same: bool) -> None:
        """Record dropped layers in another project, emptied unless it is the same one renamed."""
        for layer, before in dropped.items():
            if isinstance(before, PaintRecorder) and isinstance(layer, Labels):
                if not same:
                    layer.data[...] = 0
                self._record_painted(layer, project, before.raster.partition("/")[0])
                layer.refresh()
            elif isinstance(before, BoxRecorder) and isinstance(layer, Shapes):
                if not same:
                    layer.data = []
                self.recorders[layer] = BoxRecorder(
                    layer, project, before.image, before.system, complete=True
                )

    def leave(self, project: Project) -> None:
        """Record no more until `take_up`."""
        for layer, recorder in self.drop().items():
            kept = project.state.rasters.get(getattr(recorder, "raster", ""))
            self._left[layer] = recorder, kept or Raster()

    def take_up(self, project: Project) -> None:
        """Go on recording in the project that was left; what was drawn in between goes to it."""
        for layer, (before, kept) in self._left.items():
            if isinstance(before, PaintRecorder) and isinstance(layer, Labels):
                self.recorders[layer] = PaintRecorder(
                    layer, project, before.raster, before.origin, since=kept
                )
            elif isinstance(before, BoxRecorder) and isinstance(layer, Shapes):
                self.recorders[layer] = BoxRecorder(
                    layer, project, before.image, before.system, complete=True
                )
        self._left.clear()

    def replay(self, events: Iterable[Event]) -> int:
        """Put on the layers what events changed; returns how many things."""
        events = list(events)
        return sum(recorder.replay(events) for recorder in self.recorders.values())

    def _watch(self, viewer: Any, layer: Layer) -> None:
        keys.bind(layer, self._actions)
        viewer.layers.events.removed.connect(self._on_removed)

    def _forget(self, layer: Layer) -> None:
        recorder = self.recorders.pop(layer, None)
        if recorder is not None:
            recorder.close()

    def _on_removed(self, event: Any) -> None:
        self._left.pop(event.value, None)
        self._forget(event.value)
