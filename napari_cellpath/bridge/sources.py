"""Image layer -> the image a request names: its file where that is what is shown, else pixels.

A file is better: the worker reads it itself, and the command line can name it. But the layer
may have been edited since it was opened, so a few windows of both are compared first. That
opens and decodes: `prepare` belongs on a background thread, `Sources` remembers its answer.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import pint
from napari.layers import Image as ImageLayer
from numpy.typing import NDArray
from psygnal import Signal

from napari_cellpath.bridge.conventions import facts_of, image_shape
from napari_cellpath.core.errors import CellpathError, UnreadableImageError
from napari_cellpath.core.geometry import plausible_mpp
from napari_cellpath.core.requests import FileImage, Image, MemoryImage
from napari_cellpath.project.images import key_of_file, key_of_pixels
from napari_cellpath.slides import windows
from napari_cellpath.slides.convert import channels_of, to_rgb8, value_range_of

COMPARED = 64  # side of a compared window in pixels
GREY_LEVELS = 2.0  # mean difference that two JPEG decoders may have; an edit has more
SAME_SCALE = 0.02  # relative difference below which two pixel sizes are one (papers.md)


class ScaleOrigin(StrEnum):
    """Who says how large a pixel is."""

    FILE = "from file"
    LAYER = "from the layer's scale"
    USER = "from you"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Source:
    """What the backend is to read for one image layer.

    Attributes
    ----------
    image
        For requests; carries a pixel size only where the file's own is not the one to use.
    mpp, origin
        Micrometres per pixel in effect, and who says so.
    notes
        Sentences on conversions, for the user.
    key
        Identity of the image in projects, from its content.
    """

    image: Image
    mpp: float | None
    origin: ScaleOrigin
    notes: tuple[str, ...] = ()
    key: str = ""

    def with_mpp(self, mpp: float | None) -> Source:
        """The same image with the user's own pixel size; None takes it back."""
        if mpp is None:
            return self
        return replace(self, image=replace(self.image, mpp=mpp), mpp=mpp, origin=ScaleOrigin.USER)


def plane_of(layer: ImageLayer) -> Any:
    """Level 0 of a layer: anything that slices to (H, W) or (H, W, channels).

    Raises
    ------
    CellpathError
        The layer is not one 2-D plane.
    """
    image_shape(layer)
    return layer.data[0] if layer.multiscale else layer.data


def layer_mpp(layer: ImageLayer) -> float | None:
    """Micrometres per pixel by the layer's scale and units; None unless both axes agree."""
    try:
        sizes = [
            float((size * unit).to("micrometer").magnitude)
            for size, unit in zip(layer.scale, layer.units, strict=True)
        ]
    except pint.DimensionalityError:  # pixels: the scale says nothing about micrometres
        return None
    if abs(sizes[-1] - sizes[-2]) > SAME_SCALE * sizes[-1]:
        return None
    return plausible_mpp(sizes[-1])


def prepare(layer: ImageLayer) -> Source:
    """Find out what to read for a layer. May take a second: not for the main thread.

    Raises
    ------
    CellpathError
        The layer is no 2-D plane, or its pixels cannot be read as an image.
    """
    plane = plane_of(layer)
    channels_of(tuple(plane.shape), f"'{layer.name}'")
    by_layer = layer_mpp(layer)
    notes: tuple[str, ...] = ()
    value_range, range_note = _value_range(layer, plane)
    path = _path_of(layer)
    if path is not None and range_note is None:
        file = FileImage(str(path))
        if _shows_file(plane, value_range, file):
            return _file_source(file, by_layer)
        notes = (f"'{layer.name}' differs from {path.name}; what the layer shows is analysed.",)
    if range_note is not None:
        notes += (range_note,)
    image = MemoryImage(plane, name=layer.name, mpp=by_layer, value_range=value_range)
    origin = ScaleOrigin.UNKNOWN if by_layer is None else ScaleOrigin.LAYER
    return Source(image, by_layer, origin, notes, key_of_pixels(plane))


def _file_source(file: FileImage, by_layer: float | None) -> Source:
    by_file = windows.image_mpp(file)
    notes = windows.image_notes(file)
    key = key_of_file(file.path)
    if by_layer is None or (by_file and abs(by_layer / by_file - 1.0) <= SAME_SCALE):
        origin = ScaleOrigin.UNKNOWN if by_file is None else ScaleOrigin.FILE
        return Source(file, by_file, origin, notes, key)
    # A layer scale in micrometres that is not the file's was set by somebody on purpose.
    return Source(replace(file, mpp=by_layer), by_layer, ScaleOrigin.LAYER, notes, key)


def _path_of(layer: ImageLayer) -> Path | None:
    named = facts_of(layer).get("path") or layer.source.path
    if not named:
        return None
    path = Path(str(named))
    return path.resolve() if path.is_file() else None


def _value_range(layer: ImageLayer, plane: Any) -> tuple[tuple[float, float] | None, str | None]:
    """Values that become 0 and 255; None for 8 bits. The second is a sentence if it was a guess."""
    if np.dtype(plane.dtype) in (np.dtype(np.uint8), np.dtype(bool)):
        return None, None
    try:
        return value_range_of(plane, name=f"'{layer.name}'"), None
    except UnreadableImageError:
        if layer.rgb:
            raise
        lowest, highest = (float(v) for v in layer.contrast_limits)
        if not highest > lowest:
            raise
        return (lowest, highest), (
            f"'{layer.name}' states no value range; its contrast limits {lowest:g} to "
            f"{highest:g} are taken as black and white."
        )


def _shows_file(plane: Any, value_range: tuple[float, float] | None, file: FileImage) -> bool:
    """Whether a layer's pixels are those of a file, by size and a few windows."""
    try:
        if windows.image_shape(file) != tuple(plane.shape[:2]):
            return False
        for row, col, height, width in _probes(plane.shape[0], plane.shape[1]):
            ours = windows.read(file, row, col, height, width)
            shown = _window(plane, row, col, height, width, value_range)
            if np.abs(ours.astype(np.int16) - shown).mean() > GREY_LEVELS:
                return False
    except CellpathError:  # not a file of ours (another plugin's format): pixels will do
        return False
    return True


def _window(
    plane: Any, row: int, col: int, height: int, width: int, value_range: Any
) -> NDArray[np.uint8]:
    pixels = np.asarray(plane[row : row + height, col : col + width])
    return to_rgb8(pixels, value_range or value_range_of(pixels))


def _probes(height: int, width: int) -> Iterator[tuple[int, int, int, int]]:
    """Nine windows over the image, fewer where they would be the same."""
    high, wide = min(COMPARED, height), min(COMPARED, width)
    rows = sorted({0, (height - high) // 2, height - high})
    cols = sorted({0, (width - wide) // 2, width - wide})
    for row in rows:
        for col in cols:
            yield row, col, high, wide


class Sources:
    """What `prepare` found out, by layer, until the layer's pixels or scale change.

    Used on the main thread only; `prepare` itself runs elsewhere.
    """

    doubted = Signal(object)
    """A watched layer that changed or was redrawn: what is known of it needs another look."""

    def __init__(self) -> None:
        self._known: weakref.WeakKeyDictionary[ImageLayer, Source] = weakref.WeakKeyDictionary()
        self._latest: weakref.WeakKeyDictionary[ImageLayer, Source] = weakref.WeakKeyDictionary()
        self._watched: weakref.WeakSet[ImageLayer] = weakref.WeakSet()
        self._versions: weakref.WeakKeyDictionary[ImageLayer, int] = weakref.WeakKeyDictionary()

    def get(self, layer: ImageLayer) -> Source | None:
        """What is known of a layer, or None: prepare it."""
        return self._known.get(layer)

    def latest(self, layer: ImageLayer) -> Source | None:
        """What was last known of a layer, though it may be under another look now.

        To be shown, and to name the image by; not to be scored.
        """
        return self._latest.get(layer)

    def forget(self, layer: ImageLayer) -> None:
        """A layer turned out to be unreadable."""
        self._known.pop(layer, None)
        self._latest.pop(layer, None)

    def version(self, layer: ImageLayer) -> int:
        """Number of changes seen; an answer to an older one is not to be kept."""
        return self._versions.get(layer, 0)

    def put(self, layer: ImageLayer, source: Source, version: int) -> bool:
        """Keep an answer unless the layer changed meanwhile; returns whether it was kept."""
        if version != self.version(layer):
            return False
        self._known[layer] = self._latest[layer] = source
        return True

    def watch(self, layer: ImageLayer) -> None:
        """Doubt what is known of a layer whenever it may no longer be true.

        A redraw need not mean other pixels: napari also redraws an image when a point is dragged
        beyond its edge.
        """
        if layer in self._watched:
            return
        self._watched.add(layer)
        for name in ("data", "scale", "units"):
            getattr(layer.events, name).connect(self._on_change)
        if not layer.multiscale:
            # Pixels edited in place are followed by a refresh; a pyramid refreshes at every pan.
            layer.events.set_data.connect(self._on_change)

    def close(self) -> None:
        """Stop watching."""
        for layer in list(self._watched):
            for name in ("data", "scale", "units", "set_data"):
                getattr(layer.events, name).disconnect(self._on_change)
        self._watched.clear()
        self._known.clear()
        self._latest.clear()

    def _on_change(self, event: Any) -> None:
        layer = event.source
        self._versions[layer] = self.version(layer) + 1
        self._known.pop(layer, None)
        self.doubted.emit(layer)
