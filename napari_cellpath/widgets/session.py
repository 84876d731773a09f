"""What a nuclei dock is about: its image, its nuclei, and what the user does to them.

The one class that touches the viewer. Views ask it by method and hear from it by signal; all of
it runs on the main thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from napari.layers import Image, Labels, Layer, Points
from psygnal import Signal, SignalInstance

from napari_cellpath.backend.job import Backend
from napari_cellpath.bridge import conventions, export, held
from napari_cellpath.bridge.appearance import symbols
from napari_cellpath.bridge.nuclei import NucleiLayer
from napari_cellpath.bridge.sources import Source
from napari_cellpath.core.errors import CellpathError
from napari_cellpath.core.geometry import centroids
from napari_cellpath.core.vocabulary import Role
from napari_cellpath.widgets import keys
from napari_cellpath.widgets.inquiry import Inquiry
from napari_cellpath.widgets.keeper import Keeper
from napari_cellpath.widgets.method import Method

SMALLEST = 12.0  # a nucleus jumped to is shown at least this many screen pixels wide


class NucleiSession:
    """State of one nuclei dock.

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
    image, nuclei
        The image layer that is analysed, and the controller of its nuclei layer; None if there
        is none yet.
    inquiry
        What was asked of the backend.
    """

    images_changed = Signal()
    subject_changed = Signal()
    """Another image, model or pixel size is current."""
    nuclei_changed = Signal()
    """Another nuclei layer is current, or its rows are others than before."""
    rows_added = Signal()
    """The current nuclei layer has more rows, at the end."""
    rows_changed = Signal(object)
    reading_changed = Signal()
    """Threshold, review band or classes changed."""
    selection_changed = Signal()
    clicking_changed = Signal(bool)
    told = Signal(str, str)
    """Severity (``info``, ``warning``, ``error``) and a sentence for the user."""

    def __init__(self, viewer: Any, backend: Callable[[], Backend], method: Method) -> None:
        # napari hands plugins a proxy, whose layers are proxies too: `is` and `type` then never
        # hold, and the dock would stay on the wrong image. Only public names are used on it.
        self.viewer = getattr(viewer, "__wrapped__", viewer)
        self.method = method
        self.image: Image | None = None
        self.nuclei: NucleiLayer | None = None
        self.inquiry = Inquiry(backend, lambda: self.method)
        self.inquiry.told.connect(self.told.emit)
        self.inquiry.source_known.connect(self._on_source_known)
        self.inquiry.mpp_settled.connect(self._on_mpp_settled)
        self.keeper = Keeper.of(self.viewer)
        self.keeper.enter()
        self._held: dict[Layer, NucleiLayer] = {}
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
        """Turn to another image; adding nuclei goes on there if it was on."""
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
        """Change model, preset, border, seed, threshold or band; nothing is scored by it."""
        self.method = self.method.with_changes(**changes)
        for nuclei in self._held.values():
            nuclei.read_with(self._scheme(nuclei.image))
        self.reading_changed.emit()
        if "entry" in changes:
            self.subject_changed.emit()
            self.inquiry.warm_up()

    # Adding and scoring.

    @property
    def clicking(self) -> bool:
        """Whether a click on the canvas adds a nucleus now."""
        if self.nuclei is None:
            return False
        active = self.viewer.layers.selection.active
        return active is self.nuclei.layer and str(self.nuclei.layer.mode) == "add"

    def set_clicking(self, on: bool) -> None:
        """Make a click on the canvas add a nucleus, or select one."""
        if on:
            nuclei = self.ready_nuclei()
            if nuclei is not None:
                self.viewer.layers.selection.active = nuclei.layer
                nuclei.layer.mode = "add"
        elif self.nuclei is not None:
            self.nuclei.layer.mode = "select"
        self.clicking_changed.emit(self.clicking)

    def score_all(self) -> int:
        """Score every nucleus of the layer that has no valid score; returns how many."""
        if self.nuclei is None:
            return 0
        uids = [*self.nuclei.unscored(), *self.nuclei.stale()]
        if uids:
            self.inquiry.ask(self.nuclei, uids)
        else:
            self.told.emit("info", "Every nucleus has a score made with these settings.")
        return len(uids)

    def layers_with_centres(self) -> list[Labels | Points]:
        """Layers whose objects can be taken over as nuclei, topmost first."""
        return [
            layer
            for layer in reversed(self.viewer.layers)
            if type(layer) is Labels
            or (type(layer) is Points and not conventions.is_nuclei_layer(layer))
        ]

    def add_from(self, layer: Labels | Points) -> None:
        """Add the centroids of a labels layer, or the points of another layer, as nuclei."""
        nuclei = self.ready_nuclei()
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

    # Looking and correcting.

    def select(self, uids: Iterable[str]) -> None:
        """Select nuclei on the layer."""
        if self.nuclei is not None:
            self.nuclei.select(uids)

    def show(self, row: int) -> None:
        """Bring a nucleus to the middle of the canvas, large enough to be seen."""
        if self.nuclei is None or not 0 <= row < len(self.nuclei):
            return
        layer = self.nuclei.layer
        world = layer.data_to_world(tuple(self.nuclei.table.positions[row]))
        camera = self.viewer.scene.camera
        camera.center = (0.0, *(float(x) for x in world[-2:]))
        wide = float(layer.size[row]) * abs(float(layer.scale[-1]))
        if wide * camera.zoom < SMALLEST:
            camera.zoom = 2 * SMALLEST / wide

    def go_to_doubtful(self, step: int) -> None:
        """Select and show the next (+1) or previous (-1) doubtful nucleus, going round."""
        self._go_to(None if self.nuclei is None else self.nuclei.next_doubtful(step),
                    "No doubtful nuclei are left.")  # fmt: skip

    def go_to_unseen(self) -> None:
        """Select and show the most abnormal nucleus that nobody has looked at."""
        rows = [] if self.nuclei is None else self.nuclei.unseen()
        self._go_to(int(rows[0]) if len(rows) else None, "Every scored nucleus has been looked at.")

    def _go_to(self, row: int | None, otherwise: str) -> None:
        if self.nuclei is None:
            return
        if row is None:
            self.told.emit("info", otherwise)
            return
        self.nuclei.select([str(self.nuclei.table.uids[row])])
        self.show(row)

    def correct(self, label: str) -> None:
        """Write what the person says of the selected nuclei."""
        if self.nuclei is None:
            return
        selected = self.nuclei.selected()
        if selected:
            self.nuclei.correct(selected, label)
        else:
            self.told.emit("info", "Select the nuclei to correct first.")

    def accept(self) -> None:
        """Take the calls of the selected nuclei as the person's own word."""
        if self.nuclei is not None and not self.nuclei.accept(self.nuclei.selected()):
            self.told.emit("info", "Select scored nuclei to accept first.")

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
        source, image = self.source, self.nuclei.image
        name = export.image_name(source.image) if source else export.layer_name(image)
        return export.export_csv(path, self.nuclei, name)

    def command(self, points: str, out: str) -> str:
        """The command line that scores these nuclei with these settings.

        Raises
        ------
        CellpathError
            No image, no model, or an image that only exists in memory.
        """
        if self.image is None or self.method.entry is None:
            raise CellpathError("Open an image and choose a model first.")
        source = self.inquiry.source(self.image)
        if source is None and self.inquiry.refusal(self.image):
            raise CellpathError(self.inquiry.refusal(self.image))
        if source is None:
            raise CellpathError(f"'{self.image.name}' is still being read; try again in a moment.")
        request = self.method.request(source.image, ())
        return export.command_line(request, points, out, model=self.method.name_for_command)

    # Layers come and go.

    def _on_inserted(self, event: Any) -> None:
        for layer in list(self.viewer.layers):
            self._take_up(layer)  # nuclei may have come before their image
        if isinstance(event.value, Image):
            self.images_changed.emit()
            if self.image is None:
                self._set_image(event.value)

    def _on_removed(self, event: Any) -> None:
        layer = event.value
        for kept, nuclei in list(self._held.items()):
            if layer is kept or layer is nuclei.image:
                self._let_go(kept)
        if isinstance(layer, Image):
            self.inquiry.forget_image(layer)
            if layer is self.image:
                self.inquiry.errands.cancel_all()  # nobody can use what they would find
                self._set_image(self.images[0] if self.images else None)
            self.images_changed.emit()
        elif self.nuclei is None:
            self._set_nuclei(self._latest_nuclei(self.image))

    def _on_renamed(self, event: Any) -> None:
        self.images_changed.emit()

    def _on_active(self, event: Any = None) -> None:
        active = self.viewer.layers.selection.active
        if active in self._held:
            nuclei = self._held[active]
            if nuclei.image is not self.image:
                self._set_image(nuclei.image)
            self._set_nuclei(nuclei)
        elif conventions.is_analysable(active) and active is not self.image:
            self._set_image(active)
        self.clicking_changed.emit(self.clicking)

    def _take_up(self, layer: Layer) -> None:
        if layer in self._held or not conventions.is_nuclei_layer(layer):
            return
        layers = self.viewer.layers
        image = conventions.image_of(layer, layers) or conventions.reunite(layer, layers)
        if image is None:
            return
        hold = self._holds[layer] = held.take(layer, image, self._scheme(image))
        nuclei = self._held[layer] = hold.nuclei
        self._unbind[layer] = keys.bind(layer, self._actions)
        hold.listen(nuclei.scoring_requested, lambda uids: self.inquiry.ask(nuclei, uids))
        hold.listen(nuclei.answer_unwanted, self.inquiry.forget)
        hold.listen(nuclei.rows_changed, lambda rows: self._on_rows(nuclei, rows))
        hold.listen(nuclei.rows_added, lambda: self._on_shape(nuclei, self.rows_added))
        hold.listen(nuclei.rows_reset, lambda: self._on_shape(nuclei, self.nuclei_changed))
        hold.listen(nuclei.selection_changed, lambda: self._on_selection(nuclei))
        hold.listen(nuclei.notice, lambda text: self.told.emit("warning", text))
        layer.events.mode.connect(self._on_mode)
        self.keeper.watch(nuclei, self.inquiry.latest_source(image))

    def _let_go(self, layer: Layer) -> None:
        nuclei = self._held.pop(layer)
        layer.events.mode.disconnect(self._on_mode)
        self._unbind.pop(layer)()
        if self._holds.pop(layer).release(asked=True):
            self.keeper.forget(nuclei)
        self.inquiry.drop(nuclei)
        if self.nuclei is nuclei:
            self.nuclei = None

    def _on_mode(self) -> None:
        self.clicking_changed.emit(self.clicking)

    def _on_rows(self, nuclei: NucleiLayer, rows: Any) -> None:
        if nuclei is self.nuclei:
            self.rows_changed.emit(rows)

    def _on_shape(self, nuclei: NucleiLayer, signal: SignalInstance) -> None:
        if nuclei is self.nuclei:
            signal.emit()

    def _on_selection(self, nuclei: NucleiLayer) -> None:
        if nuclei is self.nuclei:
            self.selection_changed.emit()

    def _on_source_known(self, image: Image) -> None:
        source = self.inquiry.latest_source(image)
        if image is self.image and self.nuclei is None and self.keeper.holds(source):
            self.ready_nuclei()
        for nuclei in self._held.values():
            if nuclei.image is image:
                self.keeper.watch(nuclei, source)
        self.keeper.show_areas(self.viewer, image, source)
        if image is self.image:
            self.subject_changed.emit()

    def _on_mpp_settled(self, image: Image) -> None:
        for nuclei in self._held.values():
            if nuclei.image is image:
                nuclei.read_with(self._scheme(image))

    def _set_image(self, image: Image | None) -> None:
        self.image = image
        self._set_nuclei(self._latest_nuclei(image))
        if image is not None:
            self.inquiry.look_into(image)
        self.subject_changed.emit()

    def _set_nuclei(self, nuclei: NucleiLayer | None) -> None:
        if nuclei is not self.nuclei or nuclei is None:
            self.nuclei = nuclei
            self.nuclei_changed.emit()
            self.clicking_changed.emit(self.clicking)

    def _latest_nuclei(self, image: Image | None) -> NucleiLayer | None:
        if image is None:
            return None
        layers = conventions.nuclei_layers_of(image, self.viewer.layers)
        return next((self._held[x] for x in reversed(layers) if x in self._held), None)

    def holds(self, nuclei: NucleiLayer) -> bool:
        """Whether a nuclei layer is still in the viewer, with its image."""
        return self._held.get(nuclei.layer) is nuclei

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

    def ready_nuclei(self) -> NucleiLayer | None:
        """The nuclei layer to add to, made if there is none; None where that cannot be."""
        if self.image is None:
            self.told.emit("warning", "Open an image first (File, Open Sample has one to try).")
            return None
        if self.nuclei is None:
            mpp = self.source.mpp if self.source else None
            try:
                layer = conventions.create_nuclei_layer(self.image, mpp=mpp)
            except CellpathError as error:
                self.told.emit("error", str(error))
                return None
            self.viewer.add_layer(layer)  # comes back through _on_inserted
            self._set_nuclei(self._held[layer])
        return self.nuclei

    def _scheme(self, image: Image) -> Any:
        return self.method.scheme(self.inquiry.mpp(image))

    def _key_actions(self) -> dict[str, Callable[[], None]]:
        def run() -> None:
            self.score_all()

        actions: dict[str, Callable[[], None]] = {
            "run": run,
            "accept": self.accept,
            "next_doubtful": lambda: self.go_to_doubtful(1),
            "previous_doubtful": lambda: self.go_to_doubtful(-1),
            "next_unseen": self.go_to_unseen,
            "undo": self.keeper.undo,
            "redo": self.keeper.redo,
        }
        for number in range(keys.MOST_CLASSES):
            actions[f"class_{number + 1}"] = lambda n=number: self._correct_to(n)
        return actions

    def _correct_to(self, number: int) -> None:
        if number < len(self.method.classes):
            self.correct(self.method.classes[number])
