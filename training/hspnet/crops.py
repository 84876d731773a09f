"""Regions in memory, and the crops that are cut out of them to learn from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from napari_cellpath.core.errors import RecipeError
from napari_cellpath.core.geometry import scale_between
from napari_cellpath.systems.hspnet.tiles import tile_starts
from training.augment import blur_views, jitter_stain
from training.datasets import CellData
from training.hspnet.data import PixelArray, RegionRecord, load_region
from training.hspnet.losses import IGNORE
from training.hspnet.recipe import Crops, HspAugmentation

LEAST_SAID = 0.005
"""Share of a crop of painted tissue of which something must be said."""


@dataclass(frozen=True, eq=False)
class Region:
    """One region at the model's scale.

    ``pixels`` (H, W, 3) and ``classes`` (H, W) have at least the side of a crop each way (what is
    smaller is mirrored, and does not count there).
    """

    pixels: PixelArray
    classes: PixelArray


def load_regions(data: CellData, rows: Sequence[int], side: int, mpp: float | None) -> list[Region]:
    """Read regions with so much of their surroundings that a crop fits, at the model's scale.

    Parameters
    ----------
    data, rows
        Which regions.
    side
        Of a crop, pixels of the model's scale.
    mpp
        The model's; an image of another scale is resampled, one of unknown scale is not.
    """
    found = []
    for row in rows:
        record = data.records[int(row)]
        assert isinstance(record, RegionRecord)  # HSP-Net's readers make no others  # noqa: S101
        scale = scale_between(record.mpp, mpp)
        pixels, classes = load_region(record, math.ceil(side / 2 * scale), len(data.fine_classes))
        if scale != 1.0:
            pixels, classes = resample(pixels, classes, scale)
        found.append(Region(*filled_up(pixels, classes, side)))
    return found


def resample(
    pixels: PixelArray, classes: PixelArray, scale: float
) -> tuple[PixelArray, PixelArray]:
    """Pixels (smoothed) and classes (nearest) with so many old pixels to a new one."""
    size = tuple(max(1, round(n / scale)) for n in classes.shape)
    image = torch.from_numpy(pixels).movedim(2, 0)[None].float()
    image = F.interpolate(image, size, mode="bilinear", antialias=scale > 1)
    near = F.interpolate(torch.from_numpy(classes)[None, None].float(), size, mode="nearest-exact")
    rgb = image[0].movedim(0, 2).round().clamp(0, 255).to(torch.uint8).numpy()
    return np.ascontiguousarray(rgb), near[0, 0].to(torch.uint8).numpy()


def filled_up(pixels: PixelArray, classes: PixelArray, side: int) -> tuple[PixelArray, PixelArray]:
    """What is smaller than a crop, mirrored evenly all round, as prediction does; not counted."""
    lacks = [max(side - n, 0) for n in classes.shape]
    if any(lacks):
        around = [(lack // 2, lack - lack // 2) for lack in lacks]
        pixels = np.pad(pixels, (*around, (0, 0)), mode="reflect")
        classes = np.pad(classes, around, constant_values=IGNORE)
    return pixels, classes


@dataclass(frozen=True, eq=False)
class CropList:
    """Where crops lie: ``places`` (n, 3) region, row, column; ``main`` their tissue class."""

    places: NDArray[np.int64]
    main: NDArray[np.int64]

    def of(self, regions: NDArray[np.intp]) -> NDArray[np.int64]:
        """Numbers of the crops of some regions."""
        return np.flatnonzero(np.isin(self.places[:, 0], regions))


def list_crops(regions: Sequence[Region], settings: Crops, painted: bool) -> CropList:
    """Crops on a grid over every region, the last ones at its border (papers.md 3.1).

    Those with a smaller share of tissue than ``settings.foreground`` are left out; of painted
    regions, those of which almost nothing is said.

    Raises
    ------
    RecipeError
        None is left.
    """
    places, main = [], []
    for number, region in enumerate(regions):
        height, width = region.classes.shape
        for row in tile_starts(height, settings.side, settings.stride):
            for col in tile_starts(width, settings.side, settings.stride):
                here = region.classes[row : row + settings.side, col : col + settings.side]
                tissue = here[(here > 0) & (here != IGNORE)]
                said = float((here != IGNORE).mean())
                enough = (
                    said >= LEAST_SAID
                    if painted
                    else tissue.size >= settings.foreground * here.size and said > 0
                )
                if enough:
                    places.append((number, row, col))
                    main.append(int(np.bincount(tissue).argmax()) if tissue.size else 0)
    if not places:
        raise RecipeError(
            f"No crop of {settings.side} pixels holds {settings.foreground:.0%} tissue; lower "
            "crops.foreground or crops.side."
        )
    return CropList(np.array(places, dtype=np.int64), np.array(main, dtype=np.int64))


def draw_crops(
    crops: CropList, regions: NDArray[np.intp], settings: Crops, epoch: int, seed: int
) -> NDArray[np.int64]:
    """Numbers of the crops of one epoch, shuffled; depends on the seed and the epoch alone.

    ``per_epoch`` of them, the classes in turn, within a class the regions in turn, each time
    another crop; 0 is every crop once.
    """
    rng = np.random.default_rng([seed, epoch])
    mine = crops.of(regions)
    if settings.per_epoch == 0:
        return rng.permutation(mine)
    chosen: list[int] = []
    kinds = np.unique(crops.main[mine])
    queues = {int(k): _by_turns(crops, mine[crops.main[mine] == k], rng) for k in kinds}
    for turn in range(settings.per_epoch):
        queue = queues[int(kinds[turn % len(kinds)])]
        chosen.append(queue[(turn // len(kinds)) % len(queue)])
    return rng.permutation(np.array(chosen, dtype=np.int64))


def _by_turns(crops: CropList, some: NDArray[np.int64], rng: np.random.Generator) -> list[int]:
    """Crops in an order in which every region has its turn."""
    shuffled = rng.permutation(some)
    region_of = crops.places[shuffled, 0]
    turn = np.zeros(len(shuffled), dtype=np.int64)
    for region in np.unique(region_of):
        here = region_of == region
        turn[here] = np.arange(int(here.sum()))
    order = np.lexsort((rng.random(len(shuffled)), turn))
    return [int(n) for n in shuffled[order]]


def cut_crops(
    regions: Sequence[Region],
    places: NDArray[np.int64],
    side: int,
    settings: HspAugmentation,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Cut crops and vary them.

    Returns
    -------
    images
        (n, 3, side, side) float32, 0..255.
    classes
        (n, side, side) int64, `IGNORE` where a pixel does not count.
    """
    images, classes = [], []
    for number, row, col in places.tolist():
        image, wanted = _cut_one(regions[number], row, col, side, settings, generator)
        images.append(image)
        classes.append(wanted)
    rgb = torch.stack(images)
    if settings.stain > 0 or settings.colour > 0:
        rgb = jitter_stain(rgb, settings, generator, len(rgb))
    if settings.blur > 0:
        sigmas = torch.rand(len(rgb), generator=generator) * settings.blur
        rgb = blur_views(rgb, sigmas * (torch.rand(len(rgb), generator=generator) < 0.5))
    return rgb, torch.stack(classes).long()


def _cut_one(
    region: Region,
    row: int,
    col: int,
    side: int,
    settings: HspAugmentation,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    zoom, down, right = (torch.rand(3, generator=generator) * 2 - 1).tolist()
    height, width = region.classes.shape
    seen = min(round(side * math.exp(zoom * settings.scale)), height, width)
    top = round(row + (side - seen) / 2 + down * settings.shift)
    left = round(col + (side - seen) / 2 + right * settings.shift)
    top, left = min(max(top, 0), height - seen), min(max(left, 0), width - seen)
    window = np.s_[top : top + seen, left : left + seen]
    image = torch.from_numpy(region.pixels[window]).movedim(2, 0).float()
    wanted = torch.from_numpy(region.classes[window])
    if seen != side:
        image = F.interpolate(image[None], (side, side), mode="bilinear", antialias=seen > side)[0]
        near = F.interpolate(wanted[None, None].float(), (side, side), mode="nearest-exact")
        wanted = near[0, 0].to(torch.uint8)
    if settings.turns == "d4":
        way = int(torch.randint(8, (), generator=generator))
        image, wanted = image.rot90(way % 4, (1, 2)), wanted.rot90(way % 4, (0, 1))
        if way >= 4:
            image, wanted = image.flip(-1), wanted.flip(-1)
    return image.contiguous(), wanted.contiguous()
