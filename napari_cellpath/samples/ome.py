"""Sample images on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray


def write_ome(path: Path, image: NDArray[np.uint8], mpp: float) -> Path:
    """Write an image, (H, W) or (H, W, 3), as an OME-TIFF with its pixel size."""
    colour = image.ndim == 3
    tifffile.imwrite(
        path, image, photometric="rgb" if colour else "minisblack", ome=True, compression="zlib",
        metadata={"axes": "YXS" if colour else "YX", "PhysicalSizeX": mpp,
                  "PhysicalSizeXUnit": "µm", "PhysicalSizeY": mpp, "PhysicalSizeYUnit": "µm"},
    )  # fmt: skip
    return path
