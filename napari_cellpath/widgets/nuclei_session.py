"""A nuclei dock's own: nuclei from other layers, maps, the CSV and the command line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
from napari.layers import Image, Labels, Layer, Points
from qtpy.QtCore import QTimer

from napari_cellpath.bridge import conventions, export
from napari_cellpath.bridge.kinds import NUCLEI, kind_of
from napari_cellpath.bridge.nuclei import NucleiLayer
from napari_cellpath.core.errors import CellpathError
from napari_cellpath.core.geometry import centroids
from napari_cellpath.core.vocabulary import Role
from napari_cellpath.widgets.session import ObjectSession


class NucleiSession(ObjectSession):
    """State of one nuclei dock; see `ObjectSession`."""

    kind = NUCLEI

    # A click is asked for when the button goes down.

    def _take_up(self, layer: Layer) -> None:
        known = layer in self._held
        super()._take_up(layer)
        if not known and layer in self._held:
            layer.mouse_drag_callbacks.append(self._on_press)

    def _let_go(self, layer: Layer) -> None:
        with suppress(ValueError):
            layer.mouse_drag_callbacks.remove(self._on_press)
        super()._let_go(layer)

    def _on_press(self, layer: Layer, event: Any) -> Iterator[None]:
        objects = self._held.get(layer)
        if objects is None or event.button != 1 or str(layer.mode) != "add":
            return
        self.inquiry.ask_ahead(objects, np.asarray(layer.world_to_data(event.position))[-2:])
        yield
        while event.type == "mouse_move":
            yield
        # napari's own callback adds the point in this round or not at all.
        QTimer.singleShot(0, self.inquiry.ahead.drop)

    @property
    def nuclei(self) -> NucleiLayer | None:
        """The controller of the current nuclei layer; None if there is none yet."""
        return self.objects

    def layers_with_centres(self) -> list[Labels | Points]:
        """Layers whose objects can be taken over as nuclei, topmost first."""
        return [
            layer
            for layer in reversed(self.viewer.layers)
            if type(layer) is Labels or (type(layer) is Points and kind_of(layer) is None)
        ]

    def add_from(self, layer: Labels | Points) -> None:
        """Add the centroids of a labels layer, or the points of another layer, as nuclei."""
        nuclei = self.ready()
        if nuclei is None:
            return
        if layer.ndim != 2:
            self.told.emit("error", f"'{layer.name}' is a stack; select a 2-D plane of it first.")
        elif isinstance(layer, Points):
            self._add_centres(nuclei, layer, np.array(layer.data, dtype=float), None)
        else:
            data = layer.data[0] if layer.multiscale else layer.data

            def find() -> tuple[Any, list[str]]:
                labels = np.asarray(data)
                return centroids(labels), [str(v) for v in np.unique(labels) if v]

            self.inquiry.in_background(find, lambda found: self._add_centres(nuclei, layer, *found))

    def _add_centres(
        self, nuclei: NucleiLayer, layer: Labels | Points, positions: Any, ids: Any
    ) -> None:
        if nuclei.layer not in self._held:
            return
        if not len(positions):
            self.told.emit("warning", f"'{layer.name}' holds no objects.")
            return
        nuclei.add(conventions.to_image_pixels(positions, layer, nuclei.image), ids)

    # Out.

    def export_csv(self, path: str) -> int:
        """Write the current nuclei; returns how many.

        Raises
        ------
        CellpathError
            Nothing to write, or it cannot be written.
        """
        if self.nuclei is None:
            raise CellpathError(
                "There are no nuclei of an open image to export; click some, or open their image."
            )
        return export.export_csv(path, self.nuclei, self.image_name())

    def command(self, points: str, out: str) -> str:
        """The command line that scores these nuclei with these settings.

        Raises
        ------
        CellpathError
            No image, no model, or an image that only exists in memory.
        """
        request = self.method.request(self.read_source().image, ())
        return export.command_line(request, points, out, model=self.method.name_for_command)

    def put_map(self, layer: Image) -> None:
        """Show a map of ours below the nuclei; one of the same nucleus is replaced."""
        layers, active = self.viewer.layers, self.viewer.layers.selection.active
        uid = conventions.facts_of(layer).get("uid")
        for other in [x for x in layers if type(x) is Image]:
            facts = conventions.facts_of(other)
            if facts.get("role") == Role.OCCLUSION and facts.get("uid") == uid:
                layers.remove(other)
        layers.append(layer)
        if self.nuclei is not None:
            layers.move(len(layers) - 1, layers.index(self.nuclei.layer))
        if active in layers:
            layers.selection.active = active
