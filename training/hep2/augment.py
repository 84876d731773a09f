"""Random views of HEp-2 cells for training, a whole batch at a time, on whatever device holds it.

A cell is a grey picture in 0..1. Turning, mirroring, zoom, stretch and shift are one bilinear
sample, mirrored beyond the edges; right angles alone move pixels and change none. Random numbers
come from a CPU generator, so that the same state gives the same views on every device.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from training.hep2.recipe import Hep2Augmentation

Uniform = Callable[[float, float], Tensor]
_KERNEL = torch.tensor([1.0, 2.0, 1.0])
_KERNEL = (_KERNEL[:, None] * _KERNEL)[None, None] / 16


def turned(cells: Tensor, turn: int) -> Tensor:
    """One of the eight turns and mirrors (the dihedral group D4) of (n, 1, S, S) cells.

    0 to 3 are right-angle turns, 4 to 7 those of the mirror image, in the order of
    `napari_cellpath.systems.eight_ways.eight_ways`; no pixel value changes.
    """
    return torch.rot90(cells.flip(3) if turn >= 4 else cells, turn % 4, (2, 3))


def turn_each(cells: Tensor, turns: Tensor) -> Tensor:
    """Each of (n, 1, S, S) cells turned by its own of the eight, (n,)."""
    if not turns.any():
        return cells
    found = torch.empty_like(cells)
    for turn in turns.unique().tolist():
        here = turns == turn
        found[here] = turned(cells[here], turn)
    return found


def random_views(cells: Tensor, settings: Hep2Augmentation, generator: torch.Generator) -> Tensor:
    """One random training view of every cell.

    Parameters
    ----------
    cells
        (n, 1, S, S) float in 0..1.
    settings
        How far each kind of change goes.
    generator
        CPU generator.

    Returns
    -------
    Tensor
        (n, 1, S, S) on the cells' device, not clipped.
    """
    n = len(cells)

    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(n, generator=generator) * (high - low) + low

    def each(low: float, high: float) -> Tensor:
        return uniform(low, high).view(n, 1, 1, 1).to(cells)

    s = settings
    if s.rotation != "any" and s.scale == s.aspect == s.shift == 0:
        turns = torch.randint(4, (n,), generator=generator) * (s.rotation == "right")
        mirrored = torch.randint(2, (n,), generator=generator) * 4 * s.mirror
        views = turn_each(cells, turns + mirrored)
    else:
        views = _moved(cells, s, uniform, generator)
    if s.gamma > 0:
        views = views.clamp(0, 1) ** each(-s.gamma, s.gamma).exp()
    views = views * each(*s.gain) + each(*s.offset)
    if s.blur > 0:
        share = each(-s.blur, s.blur).clamp(min=0)
        soft = F.conv2d(F.pad(views, (1, 1, 1, 1), mode="reflect"), _KERNEL.to(views))
        views = torch.lerp(views, soft, share)
    if s.noise > 0:
        noise = torch.randn(views.shape, generator=generator).to(views)
        views = views + noise * each(-s.noise, s.noise).clamp(min=0)
    return views


def _moved(
    cells: Tensor, s: Hep2Augmentation, uniform: Uniform, generator: torch.Generator
) -> Tensor:
    """Turned, mirrored, zoomed, stretched and shifted in one bilinear sample."""
    n = len(cells)
    if s.rotation == "any":
        angle = uniform(0, 2 * math.pi)
    else:
        steps = 4 if s.rotation == "right" else 1
        angle = torch.randint(steps, (n,), generator=generator) * (math.pi / 2)
    scale = uniform(-s.scale, s.scale).exp()
    flip = 1.0 - 2.0 * torch.randint(2, (n,), generator=generator) * s.mirror
    aspect = uniform(-s.aspect, s.aspect).exp()
    cos, sin = angle.cos() / scale, angle.sin() / scale
    # Places run from -1 to 1, so a share of the side counts twice.
    right, down = uniform(-2 * s.shift, 2 * s.shift), uniform(-2 * s.shift, 2 * s.shift)
    matrix = torch.stack(
        [torch.stack([cos * flip * aspect, -sin, right], 1),
         torch.stack([sin * flip, cos / aspect, down], 1)], 1,
    ).to(cells)  # fmt: skip
    grid = F.affine_grid(matrix, list(cells.shape), align_corners=False)
    return F.grid_sample(cells, grid, padding_mode="reflection", align_corners=False)
