"""PNG, JPEG and BMP: decoded once and held.

The pixel grid is the one stored. An EXIF orientation is *not* applied: annotations, masks and
other programs speak of stored rows and columns; a note says that the tag was there.

Pillow's plug-in classes are called by name. ``Image.open`` would offer the bytes to every codec
it knows, and guards against bombs by a process-wide limit that is not ours to move.
"""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import BmpImagePlugin, JpegImagePlugin, PngImagePlugin
from PIL.ImageFile import ImageFile

from napari_cellpath.slides.convert import range_note, to_rgb8, value_range_of
from napari_cellpath.slides.damage import too_large, unreadable
from napari_cellpath.slides.planes import ArrayPlane, Opened

_PLUGINS: dict[str, Any] = {
    "png": PngImagePlugin.PngImageFile,
    "jpeg": JpegImagePlugin.JpegImageFile,
    "bmp": BmpImagePlugin.BmpImageFile,
}
_ORIENTATION_TAG = 0x0112


def open_raster(path: Path, form: str, budget: int) -> Opened:
    """Decode a PNG, JPEG or BMP.

    Raises
    ------
    ImageTooLargeError
        Its header claims more than ``budget`` bytes; nothing was decoded.
    UnreadableImageError, or whatever the decoder raises
        The file is damaged.
    """
    notes: list[str] = []
    with path.open("rb") as stream:
        image: ImageFile = _PLUGINS[form](stream)
        width, height = image.size
        if min(height, width) < 1:
            raise unreadable(path.name, f"it claims {height} x {width} pixels")
        deep = form == "png" and _png_depth(stream) == 16
        needed = height * width * max(3, len(image.getbands()) * (2 if deep else 1))
        if needed > budget:
            raise too_large(path.name, height, width, needed, budget)
        pixels = _decode_deep_png(stream) if deep else _decode(image, notes)
        orientation = image.getexif().get(_ORIENTATION_TAG, 1) if form == "jpeg" else 1
    if pixels.ndim == 3 and pixels.shape[2] == 2:  # these formats define it as grey with alpha
        pixels = pixels[..., 0]
        notes.append("Transparency was dropped.")
    elif pixels.ndim == 3 and pixels.shape[2] == 4:
        notes.append("Transparency was dropped.")
    value_range = value_range_of(pixels, name=path.name)
    note = range_note(pixels.dtype, value_range)
    if note:
        notes.append(note)
    if orientation not in (0, 1):
        notes.append(
            f"The file asks viewers to turn it (EXIF orientation {orientation}); "
            "rows and columns are kept as stored."
        )
    plane = ArrayPlane(to_rgb8(pixels, value_range, name=path.name))
    return Opened((plane,), None, tuple(notes), plane.pixels.nbytes)


def _png_depth(stream: IO[bytes]) -> int:
    """Bits per sample by the header chunk, which the signature and its length precede."""
    position = stream.tell()
    stream.seek(24)
    depth = stream.read(1)
    stream.seek(position)
    return depth[0]


def _decode_deep_png(stream: IO[bytes]) -> NDArray[Any]:
    """16-bit PNG. Pillow keeps only the high byte of colour, which blackens 12-bit cameras."""
    stream.seek(0)
    return imagecodecs.png_decode(stream.read())


def _decode(image: ImageFile, notes: list[str]) -> NDArray[Any]:
    mode = image.mode
    if mode in ("1", "L", "LA", "RGB", "RGBA"):
        # np.array copies; np.asarray would lend Pillow's read-only buffer.
        return np.array(image)
    if mode in ("P", "PA", "CMYK", "YCbCr"):
        if mode == "CMYK":
            notes.append("CMYK was converted to RGB without a colour profile.")
        return np.array(image.convert("RGB"))
    return np.array(image)
