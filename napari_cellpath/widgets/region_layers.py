"""The layers beside the regions of red cells: all outlines on a light one, a few boxes to change.

The regions themselves are points, as the objects of every dock are. Here they are shown: outlines
by verdict, or beside the truth; and whoever is selected has a rectangle that can be dragged.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
from napari.layers import Image, Layer
from numpy.typing import NDArray
from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_cellpath.bridge.appearance import rgba
from napari_cellpath.bridge.conventions import PENDING_COLOUR, TRANSFORM, follow_transform
from napari_cellpath.bridge.edited import MOST, EditedBoxes, create_edited_layer, edited_layer_of
from napari_cellpath.bridge.outlines import Outlines, create_outlines_layer, outlines_layer_of
from napari_cellpath.bridge.red_cells import RedCellsLayer, verdict_colours
from napari_cellpath.bridge.timing import timed
from napari_cellpath.bridge.truth import MISSED, RIGHT, WRONG, Judged, Truth
from napari_cellpath.widgets import keys

SOON, AT_LAST = 30, 1500  # ms
SHARE = 0.3  # of the main thread's time, at most, for outlines
STILL = 4  # pixels the mouse may move in a click
NEAR = 4.0  # screen pixels beside a box that still count as on it
NOTHING = np.zeros((0, 4)), np.zeros((0, 4)), np.zeros(0, dtype=bool)
SELECTING = ("select", "pan_zoom", "direct")

Preview = Callable[[RedCellsLayer], tuple[NDArray[np.bool_], NDArray[Any]]]
"""What a slider would hide, (n,) of the regions, and the boxes (m, 4) that it would bring."""
Beside = Callable[[RedCellsLayer], tuple[Judged, Truth] | None]
"""The truth, and what became of the regions beside it; None: they are shown by verdict."""


class RegionLayers:
    """What is shown of the regions of one session.

    Parameters
    ----------
    viewer
        Whose layers they are.
    actions
        What the keys do.
    preview, beside
        See there.
    """

    told = Signal(str, str)
    """Severity and a sentence for the user."""
    mode_changed = Signal()
    """A layer of boxes is drawn on, or no longer."""
    selected = Signal(list)
    """Uids that are to be selected."""
    judged = Signal(str)
    """How the current regions stand beside the truth, in words; empty where there is none."""

    def __init__(
        self,
        viewer: Any,
        actions: dict[str, Callable[[], None]],
        preview: Preview,
        beside: Beside,
    ) -> None:
        self.viewer = viewer
        self._actions = actions
        self._preview, self._beside = preview, beside
        self._held: dict[RedCellsLayer, None] = {}
        self._edited: dict[RedCellsLayer, EditedBoxes] = {}
        self._unbind: dict[EditedBoxes, Callable[[], None]] = {}
        self._outlines: dict[RedCellsLayer, Outlines] = {}
        self._closed = False
        self._rest = 0.0
        self._show_timer = self._timer(self._show)
        self._draw_timer = self._timer(self._draw)
        viewer.layers.events.removed.connect(self._on_removed)

    def _timer(self, slot: Callable[[], None]) -> QTimer:
        timer = QTimer()
        timer.setSingleShot(True)
        timer.timeout.connect(slot)
        return timer

    def close(self) -> None:
        """Let go of everything; layers stay as they are."""
        if self._closed:
            return
        self._closed = True
        with suppress(RuntimeError):  # Qt may have deleted them before us, on the way out
            self._show_timer.stop()
            self._draw_timer.stop()
        self.viewer.layers.events.removed.disconnect(self._on_removed)
        for regions in list(self._held):
            self.drop(regions)
        for signal in (self.told, self.mode_changed, self.selected, self.judged):
            signal.disconnect()

    # Layers.

    def take(self, regions: RedCellsLayer) -> None:
        """Show a layer of regions from now on."""
        self._held[regions] = None
        regions.layer.mouse_drag_callbacks.append(self._on_press)
        for name in TRANSFORM:
            getattr(regions.image.events, name).connect(self._on_image_moved)
        self.draw_soon()

    def drop(self, regions: RedCellsLayer, *, gone: bool = False) -> None:
        """Show it no more; ``gone``: its layer was removed, and what was beside it goes too."""
        if regions not in self._held:
            return
        del self._held[regions]
        with suppress(ValueError):
            regions.layer.mouse_drag_callbacks.remove(self._on_press)
        for name in TRANSFORM:
            getattr(regions.image.events, name).disconnect(self._on_image_moved)
        edited, outlines = self._edited.pop(regions, None), self._outlines.pop(regions, None)
        if edited is not None:
            self._let_go(edited)
        if gone:
            # Emptied, not removed: Mesa, which draws where there is no graphics card, ends the
            # process when shapes go and an image is all that is left (plain napari 0.9.2 does so).
            if edited is not None and edited.layer in self.viewer.layers:
                QTimer.singleShot(0, lambda: _empty(edited.layer))
            if outlines is not None and outlines.layer in self.viewer.layers:
                QTimer.singleShot(0, lambda: outlines.show(*NOTHING))

    def edited(self, regions: RedCellsLayer) -> EditedBoxes:
        """The boxes that are drawn or changed, on a layer made if there is none."""
        found = self._edited.get(regions)
        if found is not None:
            return found
        layer = edited_layer_of(regions.image, self.viewer.layers)
        if layer is None:
            layer = create_edited_layer(regions.image)
            self._insert(layer, len(self.viewer.layers))
        edited = self._edited[regions] = EditedBoxes(layer, regions)
        edited.drawn.connect(lambda uids: self.selected.emit(uids))
        edited.refused.connect(lambda text: self.told.emit("info", text))
        edited.doubted.connect(self.show_soon)
        layer.events.mode.connect(self._on_mode)
        layer.mouse_drag_callbacks.append(self._on_press)
        self._unbind[edited] = keys.bind(layer, self._actions)
        return edited

    def regions_on(self, layer: Layer | None) -> RedCellsLayer | None:
        """The regions whose boxes a layer is for."""
        return next((r for r, e in self._edited.items() if e.layer is layer), None)

    def _insert(self, layer: Layer, place: int) -> None:
        active = self.viewer.layers.selection.active
        self.viewer.layers.insert(place, layer)
        if active in self.viewer.layers:
            self.viewer.layers.selection.active = active

    def _let_go(self, edited: EditedBoxes) -> None:
        edited.layer.events.mode.disconnect(self._on_mode)
        with suppress(ValueError):
            edited.layer.mouse_drag_callbacks.remove(self._on_press)
        self._unbind.pop(edited)()
        edited.close()

    def _on_removed(self, event: Any) -> None:
        regions = self.regions_on(event.value)
        if regions is not None:
            self._let_go(self._edited.pop(regions))
            self.draw_soon()
        for regions, outlines in list(self._outlines.items()):
            if outlines.layer is event.value:
                del self._outlines[regions]

    # Drawing and selecting.

    @property
    def drawing(self) -> bool:
        """Whether a drag on the canvas draws a box now."""
        active = self.viewer.layers.selection.active
        return self.regions_on(active) is not None and str(active.mode) == "add_rectangle"

    def set_drawing(self, regions: RedCellsLayer, on: bool) -> None:
        """Make a drag on the canvas draw a box, or select and move one."""
        edited = self.edited(regions)
        self.viewer.layers.selection.active = edited.layer
        edited.layer.mode = "add_rectangle" if on else "select"
        self.show_soon()

    def _on_mode(self) -> None:
        self.mode_changed.emit()

    def _on_press(self, layer: Layer, event: Any) -> Iterator[None]:
        """Select the box that is clicked, wherever in it: napari knows only its edge or middle."""
        regions = self.regions_on(layer) or next((r for r in self._held if r.layer is layer), None)
        if regions is None or event.button != 1 or str(layer.mode) not in SELECTING:
            return
        edited = self._edited.get(regions)
        if edited is not None:
            edited.touched = True
        start, still = np.asarray(event.pos, dtype=float), True
        yield
        while event.type == "mouse_move":
            still &= bool(np.abs(np.asarray(event.pos) - start).max() <= STILL)
            yield
        if edited is not None:
            edited.touched = False
            self.show_soon()
        if not still:
            return
        at, more = layer.world_to_data(event.position)[-2:], "Shift" in event.modifiers
        # Later: napari's own callback clears the selection when this click ends.
        QTimer.singleShot(0, lambda: self._pick(regions, np.asarray(at), more))

    def _pick(self, regions: RedCellsLayer, at: NDArray[np.float64], more: bool) -> None:
        if self._closed or regions not in self._held:
            return
        uid = self.box_at(regions, at)
        before = regions.selected() if more else []
        chosen = [u for u in before if u != uid]
        if uid is not None and uid not in before:
            chosen.append(uid)
        self.selected.emit(chosen)

    def box_at(self, regions: RedCellsLayer, at: NDArray[np.float64]) -> str | None:
        """The smallest region whose box holds a place, data coordinates; None if none does."""
        table = regions.table
        scale = abs(float(regions.layer.scale[-1])) * float(self.viewer.scene.camera.zoom)
        near = NEAR / max(scale, 1e-9)
        boxes = table.boxes - 0.5
        inside = ((boxes[:, :2] - near <= at) & (at <= boxes[:, 2:] + near)).all(axis=1)
        rows = np.flatnonzero(inside)
        if not len(rows):
            return None
        areas = (boxes[rows, 2:] - boxes[rows, :2]).prod(axis=1)
        return str(table.uids[rows[int(areas.argmin())]])

    def show_soon(self, *_: Any) -> None:
        """Have the selected regions' rectangles on the layer of boxes, when napari is done."""
        if not self._closed and not self._show_timer.isActive():
            self._show_timer.start(0)

    def _show(self) -> None:
        for regions in self._held:
            chosen = regions.selected()
            if len(chosen) > MOST:
                chosen = []
            if chosen or regions in self._edited:
                self.edited(regions).show(chosen)
        self.draw_now()

    # Outlines.

    def draw_soon(self, *_: Any) -> None:
        """Bring outlines up to date, not more often than they can be drawn."""
        if not self._draw_timer.isActive() and not self._closed:
            wait = self._rest - time.monotonic() * 1000
            self._draw_timer.start(max(SOON, round(wait)))

    def draw_now(self) -> None:
        """Bring outlines up to date at once: nothing more is to come."""
        self._rest = 0.0
        self._draw_timer.start(0)

    @timed
    def _draw(self) -> None:
        started = time.monotonic()
        for regions in self._held:
            self._draw_one(regions)
        spent = (time.monotonic() - started) * 1000
        self._rest = time.monotonic() * 1000 + min(spent / SHARE, AT_LAST)

    def _draw_one(self, regions: RedCellsLayer) -> None:
        table = regions.table
        rows = np.arange(len(table))
        boxes, colours = table.boxes, verdict_colours(table, rows)
        bold = table.features["correction"] != ""
        beside = self._beside(regions)
        more, more_colours = np.zeros((0, 4)), np.zeros((0, 4))
        if beside is not None:
            judged, truth = beside
            colours[judged.right], colours[judged.wrong] = rgba(RIGHT), rgba(WRONG)
            more = np.asarray(truth.boxes[judged.missed], dtype=float)
            more_colours = np.tile(rgba(MISSED), (len(more), 1))
        hidden, coming = self._preview(regions)
        edited = self._edited.get(regions)
        if edited is not None and edited.layer.visible:
            hidden = hidden | np.isin(rows, table.rows(edited.uids))
        shown = ~hidden & (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
        everything = np.vstack([boxes[shown], more, coming.reshape(-1, 4)])
        paints = np.vstack(
            [colours[shown], more_colours, np.tile(rgba(PENDING_COLOUR), (len(coming), 1))]
        )
        thick = np.concatenate([bold[shown], np.zeros(len(more) + len(coming), dtype=bool)])
        outlines = self._outlines_of(regions, needed=len(everything) > 0)
        if outlines is not None:
            outlines.show(everything, paints, thick)

    def _outlines_of(self, regions: RedCellsLayer, *, needed: bool) -> Outlines | None:
        found = self._outlines.get(regions)
        if found is not None or not needed:
            return found
        layers = self.viewer.layers
        layer = outlines_layer_of(regions.image, layers)
        if layer is None:
            layer = create_outlines_layer(regions.image)
            below = layers.index(regions.layer) if regions.layer in layers else len(layers)
            self._insert(layer, max(below, _above(regions.image, layers)))
        found = self._outlines[regions] = Outlines(layer)
        return found

    def _on_image_moved(self) -> None:
        for regions in self._held:
            for thing in (self._edited.get(regions), self._outlines.get(regions)):
                if thing is not None:
                    follow_transform(thing.layer, regions.image)


def _empty(layer: Layer) -> None:
    layer.data = []


def _above(image: Image, layers: Any) -> int:
    return int(layers.index(image)) + 1 if image in layers else 0
