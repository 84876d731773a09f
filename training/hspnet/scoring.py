"""Segment labelled regions with a network, tile by tile, as ``cellpath predict hspnet`` would."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from napari_cellpath.core.errors import JobCancelledError
from napari_cellpath.core.vocabulary import Blend
from napari_cellpath.systems.hspnet.tiles import importance_map, tile_starts
from training.hspnet.crops import Region
from training.hspnet.losses import IGNORE
from training.region_metrics import pixel_table

BATCH = 4
"""Tiles of one batch."""
SAMPLE = 400
"""Pixels of a region that are kept with their probabilities, drawn evenly."""


@dataclass(frozen=True)
class Tiling:
    """How a region is looked at."""

    side: int
    stride: int
    blend: Blend = Blend.RBF

    @property
    def step(self) -> int:
        """Between tiles; without blending they lie side by side."""
        return self.side if self.blend is Blend.NONE else self.stride


@dataclass(frozen=True, eq=False)
class RegionScores:
    """What a network makes of labelled regions.

    Attributes
    ----------
    tables
        (n, K, K) confusion matrices of every pixel that counts.
    probabilities
        (n, SAMPLE, K) of pixels drawn evenly from those.
    truth
        (n, SAMPLE) their classes; -1 where a region has fewer pixels.
    """

    tables: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    truth: NDArray[np.int16]

    def __len__(self) -> int:
        return len(self.tables)

    @property
    def pixels(self) -> tuple[NDArray[np.float64], NDArray[np.intp], NDArray[np.intp]]:
        """Probabilities (m, K), classes (m,) and region (m,) of the pixels drawn."""
        here = self.truth >= 0
        region = np.broadcast_to(np.arange(len(self))[:, None], here.shape)
        given = self.probabilities[here].astype(np.float64)
        return given, self.truth[here].astype(np.intp), np.asarray(region[here], dtype=np.intp)


def empty_scores(n_classes: int) -> RegionScores:
    """Of no regions."""
    return RegionScores(
        np.zeros((0, n_classes, n_classes), np.int64),
        np.zeros((0, SAMPLE, n_classes), np.float32),
        np.zeros((0, SAMPLE), np.int16),
    )


def segment(
    network: nn.Module,
    pixels: NDArray[np.uint8],
    tiling: Tiling,
    should_stop: Callable[[], bool] | None = None,
) -> NDArray[np.float32]:
    """Probabilities (K, H, W) of an image at least as large as a tile.

    Probabilities of overlapping tiles are averaged by `importance_map` (papers.md 3.6).
    """
    device = next(network.parameters()).device
    height, width = pixels.shape[:2]
    side = tiling.side
    weight = torch.from_numpy(importance_map(tiling.blend, side)).to(device)
    corners = [
        (row, col)
        for row in tile_starts(height, side, tiling.step)
        for col in tile_starts(width, side, tiling.step)
    ]
    total: torch.Tensor | None = None
    weights = torch.zeros(height, width, device=device)
    for first in range(0, len(corners), BATCH):
        if should_stop is not None and should_stop():
            raise JobCancelledError("Scoring was cancelled.")
        some = corners[first : first + BATCH]
        tiles = np.stack([pixels[r : r + side, c : c + side] for r, c in some])
        inputs = torch.from_numpy(tiles).movedim(3, 1).float().to(device)
        with torch.inference_mode():
            given = network(inputs.contiguous(memory_format=torch.channels_last)).float()
            given = given.softmax(dim=1)
        if total is None:
            total = torch.zeros(given.shape[1], height, width, device=device)
        for (r, c), tile in zip(some, given, strict=True):
            total[:, r : r + side, c : c + side] += tile * weight
            weights[r : r + side, c : c + side] += weight
    assert total is not None  # there is at least one tile  # noqa: S101
    return (total / weights).cpu().numpy()


def score_regions(
    network: nn.Module,
    regions: Sequence[Region],
    n_classes: int,
    tiling: Tiling,
    *,
    should_stop: Callable[[], bool] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    least_pixels: int = 0,
) -> RegionScores:
    """Segment regions and count.

    Parameters
    ----------
    network
        In evaluation mode, on its device; images (N, 3, H, W) in 0..255 to logits.
    regions
        As `training.hspnet.crops.load_regions` gives them.
    n_classes
        Of the network.
    tiling
        How they are looked at.
    should_stop
        Asked before every batch.
    on_progress
        Called after every region with the number done and the number of all.
    least_pixels
        Pieces of called tissue smaller than this count as background; see `without_specks`.
    """
    tables, probabilities, truths = [], [], []
    for region in regions:
        given = segment(network, region.pixels, tiling, should_stop)
        called = without_specks(given.argmax(axis=0), least_pixels)
        tables.append(pixel_table(_signed(region.classes), called, n_classes))
        drawn, truth = _sample(given, region.classes)
        probabilities.append(drawn)
        truths.append(truth)
        if on_progress is not None:
            on_progress(len(tables), len(regions))
    if not tables:
        return empty_scores(n_classes)
    return RegionScores(np.stack(tables), np.stack(probabilities), np.stack(truths))


def without_specks(called: NDArray[np.intp], least: int) -> NDArray[np.intp]:
    """A class map without pieces of tissue (of any classes, touching) of fewer pixels."""
    if least <= 1:
        return called
    from skimage.measure import label

    pieces = label(called > 0, connectivity=2)
    small = np.bincount(pieces.ravel()) < least
    return np.where(small[pieces], 0, called)


def _signed(classes: NDArray[np.uint8]) -> NDArray[np.int16]:
    """Classes with -1 for those that do not count."""
    wanted = classes.astype(np.int16)
    wanted[classes == IGNORE] = -1
    return wanted


def _sample(
    given: NDArray[np.float32], classes: NDArray[np.uint8]
) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
    """`SAMPLE` pixels drawn evenly from those that count; the same ones for every network."""
    places = np.flatnonzero(classes.ravel() != IGNORE)
    chosen = np.random.default_rng(len(places)).permutation(places)[:SAMPLE]
    flat = given.reshape(len(given), -1)
    probabilities = np.zeros((SAMPLE, len(given)), np.float32)
    truth = np.full(SAMPLE, -1, np.int16)
    probabilities[: len(chosen)] = flat[:, chosen].T
    truth[: len(chosen)] = classes.ravel()[chosen]
    return probabilities, truth
