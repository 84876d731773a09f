"""The eight ways round an input: right-angle turns and their mirrors (the dihedral group D4)."""

from __future__ import annotations

import torch
from torch import Tensor


def eight_ways(cells: Tensor) -> Tensor:
    """Every cell in all eight ways round (papers.md 4.4, 4.9 fact 2).

    Parameters
    ----------
    cells
        (N, C, S, S).

    Returns
    -------
    Tensor
        (N, 8, C, S, S), channels innermost in memory: turned by 0, 90, 180, 270 degrees, then the
        same of the mirror image.
    """
    inner = cells.permute(0, 2, 3, 1)  # channels last: each way is written once, as networks want
    ways = torch.empty(len(cells), 8, *inner.shape[1:], dtype=cells.dtype, device=cells.device)
    for number, seen in enumerate((inner, inner.flip(2))):
        for quarter in range(4):
            ways[:, 4 * number + quarter] = torch.rot90(seen, quarter, dims=(1, 2))
    return ways.permute(0, 1, 4, 2, 3)
