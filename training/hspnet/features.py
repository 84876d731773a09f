"""What the last 1x1 convolution sees of single pixels: training it alone takes seconds.

That convolution stands at a quarter of the image's size. A feature is of the middle of four by
four pixels; it is learnt from where all sixteen that count are of one class.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from napari_cellpath.core.errors import JobCancelledError
from napari_cellpath.systems.hspnet.tiles import tile_starts
from training.hspnet.crops import Region
from training.hspnet.losses import IGNORE
from training.hspnet.scoring import BATCH, Tiling
from training.trunk_features import shipped_features

STRIDE = 4
"""Pixels of the image to one of the features."""
PER_REGION = 1500
"""Places of one class of one region that are kept at most."""


@dataclass(frozen=True, eq=False)
class PixelFeatures:
    """Features of places in regions.

    ``features`` (m, d) float32, ``targets`` (m,) their classes, ``region`` (m,) number of the
    region, counted in the list that was given.
    """

    features: NDArray[np.float32]
    targets: NDArray[np.intp]
    region: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.targets)


def coarse_classes(classes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Class of each block of `STRIDE` x `STRIDE` pixels that is of one, else `IGNORE`."""
    height, width = (n // STRIDE for n in classes.shape)
    blocks = classes[: height * STRIDE, : width * STRIDE].reshape(height, STRIDE, width, STRIDE)
    low, high = blocks.min(axis=(1, 3)), blocks.max(axis=(1, 3))
    return np.where(low == high, low, IGNORE).astype(np.uint8)


def pixel_features(
    network: Any,
    regions: Sequence[Region],
    tiling: Tiling,
    *,
    per_class: int = PER_REGION,
    should_stop: Callable[[], bool] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> PixelFeatures:
    """Features of labelled places of regions, seen in tiles side by side.

    Parameters
    ----------
    network
        An `HSPNet` in evaluation mode, on its device.
    regions
        As `training.hspnet.crops.load_regions` gives them.
    tiling
        Its side counts.
    per_class
        Places of one class of one region kept at most; drawn evenly, always the same ones.
    should_stop, on_progress
        As of `training.hspnet.scoring.score_regions`.
    """
    found: list[tuple[NDArray[np.float32], NDArray[np.intp], int]] = []
    for number, region in enumerate(regions):
        found.append((*_of_region(network, region, tiling.side, per_class, should_stop), number))
        if on_progress is not None:
            on_progress(len(found), len(regions))
    return PixelFeatures(
        np.concatenate([f for f, _, _ in found]),
        np.concatenate([t for _, t, _ in found]),
        np.concatenate([np.full(len(t), n, dtype=np.intp) for _, t, n in found]),
    )


def _of_region(
    network: Any,
    region: Region,
    side: int,
    per_class: int,
    should_stop: Callable[[], bool] | None,
) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    coarse = coarse_classes(region.classes)
    rows, cols = _places(coarse, per_class)
    device = next(network.parameters()).device
    # The grid of tiles is laid on whole features, so that every place is seen at its middle.
    high, wide = (n // STRIDE * STRIDE for n in region.classes.shape)
    corners = [
        (r // STRIDE * STRIDE, c // STRIDE * STRIDE)
        for r in tile_starts(high, side, side)
        for c in tile_starts(wide, side, side)
    ]
    owner = _owners(rows, cols, corners, side)
    features: NDArray[np.float32] | None = None
    needed = [k for k in range(len(corners)) if (owner == k).any()]
    for first in range(0, len(needed), BATCH):
        if should_stop is not None and should_stop():
            raise JobCancelledError("The run was cancelled.")
        some = needed[first : first + BATCH]
        tiles = np.stack(
            [region.pixels[r : r + side, c : c + side] for r, c in (corners[k] for k in some)]
        )
        inputs = torch.from_numpy(tiles).movedim(3, 1).to(device)
        with torch.inference_mode():
            maps = network.features(
                network.normalise(inputs).contiguous(memory_format=torch.channels_last)
            )
        maps = maps.float().cpu().numpy()
        if features is None:
            features = np.zeros((len(rows), maps.shape[1]), np.float32)
        for k, seen in zip(some, maps, strict=True):
            here = owner == k
            top, left = corners[k]
            features[here] = seen[:, rows[here] - top // STRIDE, cols[here] - left // STRIDE].T
    if features is None:
        features = np.zeros((0, head_inputs(network)), np.float32)
    return features, coarse[rows, cols].astype(np.intp)


def _places(coarse: NDArray[np.uint8], per_class: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows and columns of places of every class, drawn evenly."""
    chosen = []
    for kind in np.unique(coarse[coarse != IGNORE]):
        places = np.flatnonzero(coarse.ravel() == kind)
        chosen.append(np.random.default_rng(len(places)).permutation(places)[:per_class])
    flat = np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, dtype=np.intp)
    rows, cols = np.unravel_index(flat, coarse.shape)
    return rows.astype(np.intp), cols.astype(np.intp)


def _owners(
    rows: NDArray[np.intp],
    cols: NDArray[np.intp],
    corners: Sequence[tuple[int, int]],
    side: int,
) -> NDArray[np.intp]:
    """Which tile each place is taken from: of those that hold it, the one it is most inside of."""
    best = np.full(len(rows), -1, dtype=np.intp)
    depth = np.full(len(rows), -1.0)
    for k, (top, left) in enumerate(corners):
        down, right = rows - top // STRIDE, cols - left // STRIDE
        last = side // STRIDE - 1
        inside = np.minimum.reduce([down, right, last - down, last - right]).astype(float)
        better = inside > depth
        best[better], depth[better] = k, inside[better]
    return best


def head_inputs(network: Any) -> int:
    """How many numbers the last convolution sees of a place."""
    last: nn.Conv2d = network.head[-1]
    return last.in_channels


def shipped_pixels(drawn: PixelFeatures, groups: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Arrays of ``features.safetensors``: places as cells are, even over classes and groups."""
    targets = drawn.targets.tolist()
    return shipped_features(
        drawn.features[:, None], targets, targets, [groups[int(i)] for i in drawn.region]
    )
