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
        (N, 8, C, S, S): turned by 0, 90, 180, 270 degrees, then the same of the mirror image.
    """
    turned = [
        torch.rot90(seen, quarter, dims=(2, 3))
        for seen in (cells, cells.flip(3))
        for quarter in range(4)
    ]
    return torch.stack(turned, dim=1)
