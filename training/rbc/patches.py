"""Patches of labelled regions in memory, and how they vary while a trunk learns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from napari_cellpath.core.errors import CellpathError, MissingFileError
from napari_cellpath.core.requests import FileImage
from napari_cellpath.slides.windows import image_shape, read
from napari_cellpath.systems.rbc.boxes import RegionInput
from napari_cellpath.systems.rbc.patches import patch_of
from training.datasets import CellRecord
from training.rbc.recipe import RbcAugmentation
from training.rbc.table import RedCells


def cut_patches(records: Sequence[CellRecord], wanted: RegionInput) -> Tensor:
    """Boxes as the trunk takes them, (n, 3, S, S) uint8; the very steps of inference.

    Kept in whole grey levels, a quarter of the memory: rounding moves a pixel by 1/510 at most.

    Raises
    ------
    CellpathError
        An image cannot be read; it is named.
    """
    found = torch.empty(len(records), 3, wanted.patch, wanted.patch, dtype=torch.uint8)
    for number, patch in enumerate(exact_patches(records, wanted)):
        found[number] = (patch * 255).round().to(torch.uint8)
    return found


def exact_patches(records: Sequence[CellRecord], wanted: RegionInput) -> Sequence[Tensor]:
    """Boxes as inference gives them to the trunk: (3, S, S) float32 in 0..1 each."""
    return _Patches(records, wanted)


class _Patches(Sequence[Tensor]):
    """Cut one at a time when asked for; consecutive records of an image read it once."""

    def __init__(self, records: Sequence[CellRecord], wanted: RegionInput) -> None:
        self.records, self.wanted = records, wanted
        self._open: tuple[str, np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, number: int) -> Tensor:  # type: ignore[override]
        record = self.records[number]
        pixels = self._image(record)
        assert record.box is not None  # regions have one  # noqa: S101
        row0, col0, row1, col1 = record.box
        height, width = pixels.shape[:2]
        crop = pixels[max(row0, 0) : min(row1, height), max(col0, 0) : min(col1, width)]
        if crop.size == 0:
            raise CellpathError(f"{record.image}: a box lies outside the image {record.box}.")
        return patch_of(crop, self.wanted.patch, self.wanted.fit, self.wanted.least)

    def _image(self, record: CellRecord) -> np.ndarray:
        name = str(record.image)
        if self._open is None or self._open[0] != name:
            source = FileImage(name)
            try:
                self._open = name, read(source, 0, 0, *image_shape(source))
            except OSError as error:
                raise MissingFileError(f"{name} cannot be read ({error}).") from None
        return self._open[1]


@dataclass(eq=False)
class RbcPatches:
    """Everything training looks at: (n, 3, S, S) uint8, (n, n_types) of 1, 0 and -1."""

    pictures: Tensor
    targets: Tensor

    @classmethod
    def load(cls, data: RedCells, wanted: RegionInput) -> RbcPatches:
        """Cut every box."""
        return cls(cut_patches(data.records, wanted), torch.from_numpy(data.targets))


def random_views(pictures: Tensor, settings: RbcAugmentation, rng: torch.Generator) -> Tensor:
    """One varied view of each patch: (n, 3, S, S) uint8 in, float32 in 0..1 out."""
    n = len(pictures)

    def spread(*shape: int) -> Tensor:
        return torch.rand(n, *shape, generator=rng) * 2 - 1

    x = pictures.float() / 255
    turn = {"none": torch.zeros(n), "any": math.pi * spread()}.get(
        settings.rotation, torch.randint(4, (n,), generator=rng) * (math.pi / 2)
    )
    flip = torch.where(spread() < 0, -1.0, 1.0) if settings.mirror else torch.ones(n)
    zoom = torch.exp(settings.scale * spread())
    matrix = torch.zeros(n, 2, 3)
    matrix[:, 0, 0], matrix[:, 0, 1] = zoom * turn.cos() * flip, -zoom * turn.sin()
    matrix[:, 1, 0], matrix[:, 1, 1] = zoom * turn.sin() * flip, zoom * turn.cos()
    matrix[:, :, 2] = 2 * settings.shift * spread(2)
    grid = F.affine_grid(matrix, list(x.shape), align_corners=False)
    x = F.grid_sample(x, grid, padding_mode="border", align_corners=False)
    middle = x.mean(dim=(2, 3), keepdim=True)
    x = (x - middle) * (1 + settings.contrast * spread(1, 1, 1)) + middle
    x = x * (1 + settings.gain * spread(1, 1, 1)) * (1 + settings.colour * spread(3, 1, 1))
    return (x + settings.offset * spread(1, 1, 1)).clamp(0, 1)
