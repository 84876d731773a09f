"""A tissue dock's own: regions that are segmented, the layers that grow, and what is painted."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from weakref import WeakSet

from napari.layers import Image
from psygnal import Signal
from qtpy.QtCore import QTimer

from napari_cellpath.backend.job import Backend
from napari_cellpath.bridge import conventions, regions, tissue_export, tissue_stores
from napari_cellpath.bridge.timing import timed
from napari_cellpath.bridge.tissue import TissueRegion
from napari_cellpath.core.errors import CellpathError
from napari_cellpath.core.requests import SegmentRequest
from napari_cellpath.core.results import SegmentedRows
from napari_cellpath.core.vocabulary import System
from napari_cellpath.slides.region_store import RegionStore
from napari_cellpath.slides.windows import stain_notes
from napari_cellpath.widgets.method import TissueMethod
from napari_cellpath.widgets.search import Where
from napari_cellpath.widgets.tissue_layers import TissueLayerSession

SEGMENT = "segment"
REFRESH_MS = 400
"""Between two redraws of a growing layer: more often would be felt and shows nothing more."""
SHARE = 0.2  # of the main thread's time, at most, for redrawing


class TissueSession(TissueLayerSession):
    """State of one tissue dock.

    Attributes
    ----------
    where
        What of the image is segmented.
    """

    grew = Signal()
    """The current region has more rows."""

    def __init__(self, viewer: Any, backend: Callable[[], Backend], method: TissueMethod) -> None:
        super().__init__(viewer, backend, method)
        self.where = Where.VIEW
        self._redraw = QTimer()
        self._redraw.setSingleShot(True)
        self._redraw.timeout.connect(self._refresh)
        self._earliest = 0.0
        self._wanted: Image | None = None
        self._stain_seen: WeakSet[Image] = WeakSet()
        self._opening: dict[str, list[Callable[[], None]]] = {}
        self._begin()

    def close(self, *_: Any) -> None:
        """Let go of everything; safe to call twice."""
        if not self._closed:
            with suppress(RuntimeError):  # Qt may have deleted it before us, on the way out
                self._redraw.stop()
        super().close()

    @property
    def system(self) -> System:
        """Whose models it uses."""
        return System.HSPNET

    @property
    def under_way(self) -> SegmentRequest | None:
        """What is being segmented; None if nothing is."""
        jobs = [e.job for e in self.inquiry.errands.under_way if e.kind == SEGMENT]
        return jobs[-1].request if jobs and jobs[-1] is not None else None

    @property
    def running(self) -> bool:
        """Whether a region is being segmented."""
        return self.under_way is not None

    # Segmenting.

    def missing(self) -> str:
        """Why nothing can be segmented now, as what to do about it; empty if it can."""
        if self.image is None:
            return "Open an image first (File, Open Sample has one to try)."
        if self.method.entry is None:
            return "Choose a model first."
        refused = self.inquiry.refusal(self.image)
        if refused:
            return refused
        source = self.inquiry.source(self.image)
        if source is None:
            return f"'{self.image.name}' is still being read."
        if self.needs_scale:
            return (
                f"'{self.image.name}' does not state how large a pixel is. Type its µm / pixel "
                "above (the model looks at tissue at one scale only), or choose another image."
            )
        return ""

    @property
    def needs_scale(self) -> bool:
        """Whether nobody has said yet how large a pixel of the image is."""
        source, entry = self.inquiry.source(self.image), self.method.entry
        known = source is None or entry is None or entry.info.mpp is None
        return not known and source is not None and source.mpp is None

    def area(self) -> regions.Area | None:
        """What of the current image is to be segmented; None where nothing is chosen."""
        if self.image is None:
            return None
        if self.where is Where.IMAGE:
            height, width = conventions.image_shape(self.image)
            return regions.Area((0, 0, height, width))
        if self.where is Where.VIEW:
            return regions.visible_area(self.image)
        return regions.drawn_area(self.viewer.layers, self.image, one=True)

    def request(self) -> SegmentRequest:
        """What would be segmented now.

        Raises
        ------
        CellpathError
            Nothing can, or no area is chosen.
        """
        missing = self.missing()
        if missing:
            raise CellpathError(missing)
        source, area = self.read_source(), self.area()
        if area is None:
            name = "" if self.image is None else self.image.name
            raise CellpathError(
                f"Nothing of '{name}' is in view." if self.where is Where.VIEW else
                "Draw a rectangle or polygon on a shapes layer over the image first."
            )  # fmt: skip
        corners = [tuple(map(float, p)) for p in area.polygons[0]] if area.polygons else []
        polygon = () if _is_box(corners) else tuple(corners)
        draft = self.method.request(source.image, "", area.box, polygon)
        store = tissue_stores.store_for(draft, source.key, self.method.entry.label)
        return self.method.request(source.image, str(store), area.box, polygon)

    def segment(self) -> None:
        """Segment what is chosen; what is done of it already is gone on with.

        An image that is still being read is waited for.
        """
        self._wanted = self.image if self._being_read else None
        if self._wanted is not None:
            self.told.emit("info", f"'{self._wanted.name}' is still being read; it is segmented "
                           "as soon as it can be.")  # fmt: skip
            return
        try:
            request = self.request()
        except CellpathError as error:
            self.told.emit("warning", str(error))
            return
        self._send(self.image, request)

    @property
    def _being_read(self) -> bool:
        image = self.image
        if image is None or self.method.entry is None or self.inquiry.refusal(image):
            return False
        return self.inquiry.source(image) is None

    def _on_source_known(self, image: Image) -> None:
        super()._on_source_known(image)
        if image is self._wanted:
            self._wanted = None
            if image is self.image:
                self.segment()

    def go_on(self) -> None:
        """Go on with the current region where it was stopped."""
        region = self.region
        request = None if region is None else self._requests.get(region.layer)
        if region is None or request is None:
            self.told.emit("info", "Nothing was stopped that could be gone on with.")
        else:
            self._send(region.image, request)

    @property
    def unfinished(self) -> bool:
        """Whether the current region was stopped before its end and can be gone on with."""
        region = self.region
        return (
            region is not None and not self.running and region.layer in self._requests
            and not region.store.progress.complete
        )  # fmt: skip

    def _send(self, image: Image | None, request: SegmentRequest) -> None:
        if image is None:
            return
        self._say_what_stops(request)
        self._dismissed = None
        known = self._region_of(request)
        if known is not None:  # of an earlier press: everything below is about this one again
            self._turn_to(known)
        with suppress(OSError):
            tissue_stores.stores_folder().mkdir(parents=True, exist_ok=True)
        if image not in self._stain_seen:
            self._stain_seen.add(image)
            self.inquiry.in_background(lambda: stain_notes(request.image), self._say_notes)
        in_use = [*(r.store.path for r in self._regions.values()), Path(request.store)]
        self.inquiry.in_background(lambda: tissue_stores.prune(in_use), lambda _count: None)

        def some(rows: Sequence[SegmentedRows]) -> None:
            self._grow(image, request, rows)

        def done(rows: Sequence[SegmentedRows], complete: bool) -> None:
            self._end(image, request, complete)

        self.inquiry.send(SEGMENT, "Segmenting", request, done, some)

    def _say_notes(self, notes: Sequence[str]) -> None:
        for note in notes:
            self.told.emit("warning", note)

    def _say_what_stops(self, request: SegmentRequest) -> None:
        """One region is segmented at a time; nobody must wonder what became of the other."""
        before = self.under_way
        if before is None or before.image == request.image:
            return
        known = [r for layer, r in self._regions.items() if self._requests.get(layer) == before]
        name = f"'{known[0].image.name}'" if known else "the other image"
        self.told.emit(
            "info", f"One region is segmented at a time: that of {name} was stopped. What is done "
            "of it stays; choose that image and press ‘Go on’ for the rest.",
        )  # fmt: skip

    @timed
    def _grow(self, image: Image, request: SegmentRequest, rows: Sequence[SegmentedRows]) -> None:
        """Show rows that came; the layer is made when the first are there."""
        if request == self._dismissed:
            return
        if self._region_of(request) is None:
            self._open(image, request)
        elif not self._redraw.isActive():
            wait = self._earliest - time.monotonic() * 1000
            self._redraw.start(max(0, round(wait)))

    def _open(
        self, image: Image, request: SegmentRequest, then: Callable[[], None] | None = None
    ) -> None:
        """Open a store on a thread and show it: zarr alone takes seconds to be imported."""
        first = request.store not in self._opening
        waiting = self._opening.setdefault(request.store, [])
        waiting += [then] if then is not None else []
        if not first:
            return

        def done(store: RegionStore) -> None:
            waiting = self._opening.pop(request.store)
            if image not in self.viewer.layers:
                return
            if self._region_of(request) is None:
                self._show(image, request, store)
            for function in waiting:
                function()

        def failed(error: CellpathError) -> None:
            del self._opening[request.store]
            self.told.emit("error", str(error))

        self.inquiry.in_background(lambda: RegionStore.open(request.store), done, failed)

    def _region_of(self, request: SegmentRequest) -> TissueRegion | None:
        return next(
            (r for layer, r in self._regions.items() if self._requests.get(layer) == request), None
        )

    @timed
    def _refresh(self) -> None:
        if self._closed or self.region is None:
            return
        started = time.monotonic()
        self.region.refresh()
        now = time.monotonic()
        self._earliest = now * 1000 + max(REFRESH_MS, (now - started) * 1000 * (1 - SHARE) / SHARE)
        self.grew.emit()

    def _end(self, image: Image, request: SegmentRequest, complete: bool) -> None:
        region = self._region_of(request)
        if request == self._dismissed:  # its layer was removed: it must not come back by itself
            self._dismissed = None
            self.told.emit(
                "info", "Stopped, as its layer was removed. What is done is kept: segment the "
                "same place again to go on.",
            )  # fmt: skip
            return
        if region is None:  # complete already, or ended before its first rows were shown
            if image in self.viewer.layers and Path(request.store).is_dir():
                self._open(image, request, lambda: self._end(image, request, complete))
            return
        with suppress(CellpathError):
            region.reread()
        region.refresh()
        self._read_tiles(region)
        self.region_changed.emit()
        if not complete and not region.store.progress.complete:
            share = region.store.progress.rows_done / max(1, region.facts.shape[0])
            self.told.emit(
                "info", f"Stopped at {100 * share:.0f} %; what is done stays, and ‘Go on’ does "
                "the rest.",
            )  # fmt: skip

    def command(self, out: str) -> str:
        """The command line that segments the current region, or what would be segmented now.

        Raises
        ------
        CellpathError
            There is none, or the image only exists in memory.
        """
        request = None if self.region is None else self._requests.get(self.region.layer)
        return tissue_export.command_line(
            request or self.request(), out, model=self.method.name_for_command,
            least_lesion_mm2=self.method.smallest,
        )  # fmt: skip

    def _key_actions(self) -> dict[str, Callable[[], None]]:
        return {"run": self.segment, **self.paint_actions()}


def _is_box(corners: Sequence[tuple[float, ...]]) -> bool:
    """Whether four corners are those of an upright rectangle, one after the other."""
    if len(corners) != 4:
        return False
    sides = [{round(corner[axis], 3) for corner in corners} for axis in (0, 1)]
    # Each side runs along one axis only: the same corners crossed over are two triangles.
    runs = zip(corners, (*corners[1:], corners[0]), strict=True)
    along = [sum(abs(a - b) > 1e-3 for a, b in zip(*ends, strict=True)) for ends in runs]
    return all(len(side) == 2 for side in sides) and all(n == 1 for n in along)
