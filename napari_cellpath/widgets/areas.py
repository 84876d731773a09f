"""The *Complete here* rectangles of a project, on shapes layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from napari.layers import Image, Shapes

from napari_cellpath.bridge import conventions
from napari_cellpath.bridge.box_recording import BoxRecorder
from napari_cellpath.bridge.sources import Source
from napari_cellpath.core.vocabulary import System
from napari_cellpath.project import Project
from napari_cellpath.widgets import keys


class Areas:
    """Layers of rectangles in which everything is marked, each recorded in the project.

    Parameters
    ----------
    actions
        What the shortcuts do on these layers.
    """

    def __init__(self, actions: Mapping[str, Callable[[], None]]) -> None:
        self._actions = actions
        self.recorders: dict[Shapes, BoxRecorder] = {}

    def ready(
        self, viewer: Any, image: Image, project: Project, source: Source, system: System
    ) -> Shapes:
        """The image's layer of a system, made and recorded if it is not yet.

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
            self.record(layer, project, source.key)
            keys.bind(layer, self._actions)
            viewer.layers.events.removed.connect(self._on_removed)
        return layer

    def show(
        self, viewer: Any, image: Image, project: Project, source: Source, system: System
    ) -> None:
        """Draw a system's rectangles that the project holds of an image, if there are any."""
        there = conventions.complete_layer_of(image, viewer.layers, system) is not None
        if there or not any(
            o["image"] == source.key
            and o.get("complete")
            and o.get("system", System.DEEPPAP) == system
            for o in project.state.objects.values()
        ):
            return
        active = viewer.layers.selection.active
        self.ready(viewer, image, project, source, system)
        viewer.layers.selection.active = active

    def record(self, layer: Shapes, project: Project, image: str) -> None:
        """Keep a layer and a project the same from now on."""
        system = System(conventions.facts_of(layer).get("system", System.DEEPPAP))
        self.recorders[layer] = BoxRecorder(layer, project, image, system, complete=True)

    def drop(self) -> dict[Shapes, str]:
        """Record no more; returns the layers and the keys of their images."""
        images = {layer: recorder.image for layer, recorder in self.recorders.items()}
        for recorder in self.recorders.values():
            recorder.close()
        self.recorders.clear()
        return images

    def _on_removed(self, event: Any) -> None:
        recorder = self.recorders.pop(event.value, None)
        if recorder is not None:
            recorder.close()
