"""Labelled cells in memory, ready for training: their windows and what they are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from napari_cellpath.core.geometry import edge_of_point
from napari_cellpath.core.requests import FileImage
from napari_cellpath.slides.windows import image_shape, read
from napari_cellpath.systems.deeppap.presets import WINDOW
from training.augment import WINDOW as TRAINING_WINDOW
from training.augment import CellWindow, cut_window
from training.datasets import CellData, CellRecord

SMALL_IMAGE = 1024
"""Pixels a side up to which an image is read whole."""


def window_of(record: CellRecord) -> CellWindow:
    """Cut one cell's window, at the model's scale; of a large image only what is needed is read."""
    source = FileImage(str(record.image))
    shape = image_shape(source)
    if record.half == WINDOW // 2 and max(shape) <= SMALL_IMAGE:
        mask = None if record.mask is None else np.asarray(Image.open(record.mask))
        return cut_window(read(source, 0, 0, *shape), (record.row, record.col), mask=mask)
    scale = WINDOW / (2 * record.half)
    reach = math.ceil(TRAINING_WINDOW / scale)  # twice what is cut: an edge is reflected from it
    row, col = edge_of_point(record.row, record.col)
    top, left = max(row - reach, 0), max(col - reach, 0)
    bottom, right = min(row + reach, shape[0]), min(col + reach, shape[1])
    image = read(source, top, left, bottom - top, right - left)
    if scale != 1.0:
        size = (max(round(image.shape[0] * scale), 1), max(round(image.shape[1] * scale), 1))
        planes = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float()
        scaled = F.interpolate(
            planes, size=size, mode="bilinear", align_corners=False, antialias=True
        )
        image = scaled[0].permute(1, 2, 0).round().to(torch.uint8).numpy()
    # Edges to points: a point's integer is a pixel's centre.
    return cut_window(image, ((row - top) * scale - 0.5, (col - left) * scale - 0.5))


@dataclass(eq=False)
class Cells:
    """Everything training looks at, in memory: uint8 windows, targets, features."""

    windows: Tensor
    backgrounds: Tensor
    targets: Tensor
    fine: Tensor
    features: Tensor
    n_fine: int
    has_masks: bool

    @classmethod
    def load(cls, data: CellData, n_classes: int) -> Cells:
        """Cut the window of every cell."""
        windows = [window_of(record) for record in data.records]
        fine = torch.from_numpy(data.labels.astype(np.int64))
        targets = torch.from_numpy(data.abnormal.astype(np.int64)) if n_classes == 2 else fine
        return cls(
            windows=torch.from_numpy(np.stack([w.pixels for w in windows])),
            backgrounds=torch.from_numpy(np.stack([w.background for w in windows])),
            targets=targets,
            fine=fine,
            features=torch.from_numpy(data.features()),
            n_fine=len(data.fine_classes),
            has_masks=all(r.mask is not None for r in data.records),
        )
