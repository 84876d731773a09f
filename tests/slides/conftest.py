"""Images written on the fly: a smooth, coloured picture in every format."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from napari_cellpath.samples import data_folder


def picture(height: int = 300, width: int = 400, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth colours with noise, so that compression, order and channels all show."""
    rows, cols = np.mgrid[0:height, 0:width]
    rgb = np.stack(
        [rows * 255 / height, cols * 255 / width, (rows + cols) * 255 / (height + width)], axis=2
    )
    noise = np.random.default_rng(seed).integers(-10, 11, rgb.shape)
    return np.clip(rgb + noise, 0, 255).astype(np.uint8)


@pytest.fixture
def small_slide() -> Path:
    """OpenSlide's small Aperio slide, of the real data."""
    return _real("wsi_small/CMU-1-Small-Region.svs")


@pytest.fixture
def jpeg2000_slide() -> Path:
    """An Aperio slide with JPEG 2000 tiles and two levels, of the real data."""
    return _real("wsi_small/tcga-cr-7395-01a-01-ts1.svs")


def _real(name: str) -> Path:
    folder = data_folder()
    if folder is None or not (folder / name).is_file():
        pytest.skip(f"needs {name} in the folder that CELLPATH_DATA names")
    return folder / name
