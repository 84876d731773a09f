"""Pixels of any type to the 8-bit RGB that networks were trained on, with the mapping stated.

Nothing is clipped silently: either the range is inferred so that every value fits, or it is
given by the caller, who thereby chooses the contrast, or the image is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.core.errors import UnreadableImageError

Range = tuple[float, float]
"""The values that become 0 and 255."""

_DEPTHS = (8, 10, 12, 14, 16)
_BAND_BYTES = 64 << 20


def to_rgb8(
    pixels: Any,
    value_range: Range | None = None,
    *,
    refuse_outside: bool = False,
    name: str = "The image",
) -> NDArray[np.uint8]:
    """Convert an image to uint8 RGB.

    Parameters
    ----------
    pixels
        (H, W) grey, (H, W, 1) grey, (H, W, 3) RGB or (H, W, 4) RGBA, whose alpha is dropped;
        bool, integer or float.
    value_range
        Values mapped to 0 and 255, linearly; what lies beyond becomes 0 or 255. None infers it
        (`value_range_of`), which needs the whole image: for a window of a larger one, infer
        once and pass it.
    refuse_outside
        Raise instead of clipping what lies outside ``value_range``.
    name
        How messages name the image.

    Returns
    -------
    (H, W, 3) uint8, C-contiguous; may share memory with ``pixels`` if that is uint8 RGB.

    Raises
    ------
    UnreadableImageError
        Not 1, 3 or 4 channels, NaN or infinite values, or a range that cannot be told.
    """
    array = np.asarray(pixels)
    channels = channels_of(array.shape, name)
    if channels == 4:
        array = array[..., :3]
    lowest, highest = value_range or value_range_of(array, name=name)
    if not (np.isfinite(lowest) and np.isfinite(highest) and highest > lowest):
        raise UnreadableImageError(f"{name}: the value range {lowest}..{highest} is empty.")
    grey_or_rgb = _mapped(array, float(lowest), float(highest), refuse_outside, name)
    if array.ndim == 2:
        grey_or_rgb = grey_or_rgb[..., np.newaxis]
    if grey_or_rgb.shape[2] == 1:
        grey_or_rgb = np.broadcast_to(grey_or_rgb, (*grey_or_rgb.shape[:2], 3))
    return np.ascontiguousarray(grey_or_rgb)


def value_range_of(pixels: Any, *, name: str = "The image") -> Range:
    """Value range that shows every pixel of the whole image without clipping.

    bool: 0..1. uint8: 0..255. Other integers: 0 up to the smallest of 8, 10, 12, 14 and 16
    bits that holds the maximum, because cameras of 10 to 14 bits write 16-bit files. Float:
    0..1, and values beyond are refused. Reads lazy arrays in bands.

    Raises
    ------
    UnreadableImageError
        Negative or non-finite values, integers above 16 bits, floats above 1.
    """
    kind = np.dtype(pixels.dtype)
    if kind in (np.dtype(bool), np.dtype(np.uint8)):
        return dtype_range(kind, name=name)
    if kind.kind not in "uif":
        raise UnreadableImageError(f"{name} holds values of type {kind}, which are no pixels.")
    lowest, highest = 0.0, 0.0
    for band in _bands(pixels):
        if band.size:
            # min and max carry NaN and infinity through, so two reductions find everything.
            lowest = float(np.minimum(lowest, band.min()))
            highest = float(np.maximum(highest, band.max()))
    return range_holding(lowest, highest, kind, name=name)


def range_holding(
    lowest: float, highest: float, kind: np.dtype[Any], *, name: str = "The image"
) -> Range:
    """Range for an image of type ``kind`` whose values span ``lowest``..``highest``."""
    if not (np.isfinite(lowest) and np.isfinite(highest)):
        raise UnreadableImageError(
            f"{name} holds values that are not finite (NaN or infinity); replace them first."
        )
    if kind.kind == "f":
        if lowest < 0 or highest > 1:
            raise UnreadableImageError(
                f"{name} holds floating-point values from {lowest:g} to {highest:g}; scale them "
                "to 0..1 or give the value range."
            )
        return 0.0, 1.0
    if lowest < 0:
        raise UnreadableImageError(
            f"{name} holds negative values (down to {lowest:g}); give the value range."
        )
    for depth in _DEPTHS:
        if highest < 2**depth:
            return 0.0, float(2**depth - 1)
    raise UnreadableImageError(
        f"{name} holds values up to {highest:g}, more than 16 bits; give the value range."
    )


def dtype_range(kind: Any, *, name: str = "The image") -> Range:
    """Range of the data type itself: what a `MemoryImage` without a value range is mapped by.

    Raises
    ------
    UnreadableImageError
        The type says nothing about brightness (integers of 32 and 64 bits).
    """
    dtype = np.dtype(kind)
    if dtype.kind == "b" or dtype.kind == "f":
        return 0.0, 1.0
    if dtype.kind in "ui" and dtype.itemsize <= 2:
        return 0.0, float(np.iinfo(dtype).max)
    raise UnreadableImageError(f"{name} holds {dtype} values; give the value range.")


def range_note(kind: Any, value_range: Range) -> str | None:
    """Sentence telling how values of type ``kind`` were mapped; None for 8-bit ones."""
    dtype = np.dtype(kind)
    lowest, highest = value_range
    if dtype.kind == "f":
        return f"Floating-point values {lowest:g}..{highest:g} mapped to 0..255."
    if dtype.kind == "b" or dtype.itemsize == 1:
        return None
    depth = int(highest + 1).bit_length() - 1
    return (
        f"{8 * dtype.itemsize}-bit values read as {depth}-bit (0..{highest:g}) "
        "and mapped to 0..255."
    )


def channels_of(shape: tuple[int, ...], name: str = "The image") -> int:
    """Channels of an image of this shape: 1, 3 or 4.

    Raises
    ------
    UnreadableImageError
        Any other number, or not two or three dimensions.
    """
    if len(shape) not in (2, 3):
        raise UnreadableImageError(
            f"{name} has {len(shape)} dimensions; give one plane, (rows, columns) or "
            "(rows, columns, channels)."
        )
    channels = shape[2] if len(shape) == 3 else 1
    if channels not in (1, 3, 4):
        raise UnreadableImageError(
            f"{name} has {channels} channels; only grey (1), RGB (3) and RGBA (4) can be read."
        )
    return channels


def _bands(pixels: Any) -> Iterator[NDArray[Any]]:
    """The image in bands of rows small enough to hold, without alpha."""
    height = pixels.shape[0]
    row_bytes = max(1, int(np.prod(pixels.shape[1:], dtype=np.int64)) * pixels.dtype.itemsize)
    step = max(1, _BAND_BYTES // row_bytes)
    chunks = getattr(pixels, "chunks", None)
    if chunks:  # dask: tuples of sizes; zarr: sizes. Whole chunks are not decoded twice.
        rows = chunks[0][0] if isinstance(chunks[0], tuple) else chunks[0]
        step = max(step // rows, 1) * rows
    for start in range(0, height, step):
        band = np.asarray(pixels[start : start + step])
        yield band[..., :3] if band.ndim == 3 and band.shape[2] == 4 else band


def _mapped(
    array: NDArray[Any], lowest: float, highest: float, refuse_outside: bool, name: str
) -> NDArray[np.uint8]:
    if array.dtype == np.uint8 and (lowest, highest) == (0.0, 255.0):
        return array
    if array.dtype.kind not in "buif":
        raise UnreadableImageError(f"{name} holds values of type {array.dtype}.")
    if array.size == 0:
        return np.zeros(array.shape, np.uint8)
    if array.dtype == bool:
        array = array.view(np.uint8)
    elif array.dtype.kind == "f" and not np.isfinite(array).all():
        raise UnreadableImageError(
            f"{name} holds values that are not finite (NaN or infinity); replace them first."
        )
    if refuse_outside and (array.min() < lowest or array.max() > highest):
        raise UnreadableImageError(
            f"{name} holds values from {array.min():g} to {array.max():g}, outside "
            f"{lowest:g}..{highest:g}; give the value range."
        )
    if array.dtype in (np.dtype(np.uint8), np.dtype(np.uint16)):
        return _table(array.dtype.itemsize, lowest, highest)[array]
    single = array.dtype.itemsize <= 2 or array.dtype == np.float32
    scaled: NDArray[Any] = array.astype(np.float32 if single else np.float64)
    scaled -= lowest
    scaled *= 255.0 / (highest - lowest)
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


@lru_cache(maxsize=16)
def _table(itemsize: int, lowest: float, highest: float) -> NDArray[np.uint8]:
    """Look-up table from every value of an unsigned type: one gather a pixel, no arithmetic."""
    values = np.arange(2 ** (8 * itemsize), dtype=np.float64)
    table = np.clip(np.rint((values - lowest) * (255.0 / (highest - lowest))), 0, 255)
    return table.astype(np.uint8)
