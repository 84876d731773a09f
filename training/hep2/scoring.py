"""Score labelled HEp-2 cells with a network, exactly as ``cellpath predict hep2`` would."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_cellpath.core.errors import JobCancelledError
from napari_cellpath.core.vocabulary import Average
from napari_cellpath.systems.eight_ways import eight_ways
from napari_cellpath.systems.hep2.network import Hep2Network

BATCH = 256


def _over(
    network: Hep2Network,
    pictures: Tensor,
    average: Average,
    of: Callable[[Tensor], Tensor],
    should_stop: Callable[[], bool] | None,
    on_progress: Callable[[int, int], None] | None,
) -> Tensor:
    """What ``of`` gives of each look at each cell, (n, looks, ...), batch by batch."""
    device, done = next(network.parameters()).device, 0
    found = []
    with torch.inference_mode():
        for some in pictures.split(BATCH):
            if should_stop is not None and should_stop():
                raise JobCancelledError("Scoring was cancelled.")
            ways = eight_ways(some) if average is Average.D4 else some[:, None]
            seen = ways.flatten(0, 1).to(device).contiguous(memory_format=torch.channels_last)
            found.append(of(seen).unflatten(0, (len(some), -1)).cpu())
            done += len(some)
            if on_progress is not None:
                on_progress(done, len(pictures))
    return torch.cat(found)


def score_cells(
    network: Hep2Network,
    pictures: Tensor,
    average: Average = Average.NONE,
    *,
    should_stop: Callable[[], bool] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float64]:
    """Mean probabilities of the patterns of each cell, (n, n_classes).

    Parameters
    ----------
    network
        In evaluation mode, on its device.
    pictures
        (n, 1, S, S) as `training.hep2.data.crop_cells` gives them.
    average
        How many ways round each is looked at.
    should_stop
        Asked before every batch.
    on_progress
        Called after every batch with the number done and the number of all.

    Raises
    ------
    JobCancelledError
        ``should_stop`` said so.
    """

    def of(x: Tensor) -> Tensor:
        probabilities: Tensor = network(x).double().softmax(dim=1)
        return probabilities

    each = _over(network, pictures, average, of, should_stop, on_progress)
    return np.asarray(each.mean(dim=1).numpy())


def trunk_features(
    network: Hep2Network,
    pictures: Tensor,
    average: Average = Average.D4,
    *,
    should_stop: Callable[[], bool] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """What the head sees of each look at each cell, (n, looks, d)."""

    def of(x: Tensor) -> Tensor:
        features: Tensor = network.trunk(x).float()
        return features

    return np.asarray(_over(network, pictures, average, of, should_stop, on_progress).numpy())
