"""Sample images on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

TILE = 256


def write_ome(path: Path, image: NDArray[np.uint8], mpp: float, levels: int = 1) -> Path:
    """Write an image, (H, W) or (H, W, 3), as an OME-TIFF with its pixel size.

    With ``levels`` above one it is tiled and holds smaller copies, each half the one before.
    """
    colour = image.ndim == 3
    about = {
        "axes": "YXS" if colour else "YX",
        "PhysicalSizeX": mpp, "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": mpp, "PhysicalSizeYUnit": "µm",
    }  # fmt: skip
    options = {"photometric": "rgb" if colour else "minisblack", "compression": "zlib"}
    if levels > 1:
        options["tile"] = (TILE, TILE)
    with tifffile.TiffWriter(path, ome=True) as file:
        file.write(image, metadata=about, subifds=levels - 1, **options)
        for _ in range(1, levels):
            image = _halved(image)
            file.write(image, subfiletype=1, metadata=None, **options)
    return path


def _halved(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Means of 2 x 2 pixels; an odd last row or column goes."""
    height, width = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
    pairs = image[:height, :width].reshape(height // 2, 2, width // 2, 2, *image.shape[2:])
    return np.rint(pairs.mean(axis=(1, 3), dtype=np.float32)).astype(np.uint8)
