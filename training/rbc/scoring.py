"""Score labelled boxes and fields with networks in training, as inference would."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_cellpath.core.errors import JobCancelledError
from napari_cellpath.core.vocabulary import Average
from napari_cellpath.systems.eight_ways import eight_ways
from napari_cellpath.systems.rbc.network import Cascade
from training.rbc.detection_metrics import Found
from training.rbc.detector import pixels_of, scaled, truth_of
from training.rbc.table import Field

StopCheck = Callable[[], bool]
Progress = Callable[[int, int], None]
BATCH = 64  # network inputs at once


def _over(
    pictures: Tensor,
    average: Average,
    of: Callable[[Tensor], Tensor],
    device: torch.device,
    should_stop: StopCheck | None,
    on_progress: Progress | None,
) -> Tensor:
    """What ``of`` gives of each look at each patch, (n, looks, ...)."""
    found, done = [], 0
    with torch.inference_mode():
        for some in pictures.split(BATCH // average.ways):
            if should_stop is not None and should_stop():
                raise JobCancelledError("Scoring was cancelled.")
            x = some.float() / 255 if some.dtype == torch.uint8 else some
            ways = eight_ways(x) if average is Average.D4 else x[:, None]
            seen = ways.flatten(0, 1).to(device).contiguous(memory_format=torch.channels_last)
            found.append(of(seen).unflatten(0, (len(some), -1)).cpu())
            done += len(some)
            if on_progress is not None:
                on_progress(done, len(pictures))
    return torch.cat(found) if found else torch.zeros(0)


def score_patches(
    network: Any,
    pictures: Tensor,
    average: Average,
    *,
    should_stop: StopCheck | None = None,
    on_progress: Progress | None = None,
) -> NDArray[np.float64]:
    """Probability of each type, (n, n_types), of patches (n, 3, S, S).

    The heads see the mean of the trunk's features over the ways round that ``average`` names.
    """
    seen = mean_features(
        network, pictures, average, should_stop=should_stop, on_progress=on_progress
    )
    head = network.heads if isinstance(network, Cascade) else network.head
    with torch.inference_mode():
        device = next(network.parameters()).device
        logits: Tensor = head(torch.from_numpy(seen[:, 0]).to(device))
        return np.asarray(logits.double().sigmoid().cpu().numpy())


def mean_features(
    network: Any,
    pictures: Tensor,
    average: Average,
    *,
    should_stop: StopCheck | None = None,
    on_progress: Progress | None = None,
) -> NDArray[np.float32]:
    """The mean over the ways round of what the heads see of each patch, (n, 1, d)."""
    found = trunk_features(
        network, pictures, average, should_stop=should_stop, on_progress=on_progress
    )
    return np.asarray(found.mean(axis=1, keepdims=True, dtype=np.float32))


def trunk_features(
    network: Any,
    pictures: Tensor,
    average: Average = Average.NONE,
    *,
    should_stop: StopCheck | None = None,
    on_progress: Progress | None = None,
) -> NDArray[np.float32]:
    """What the heads see of each patch, (n, looks, d): one look, or all eight ways round."""
    device = next(network.parameters()).device
    found = _over(
        pictures, average, lambda x: network.trunk(x).float(), device, should_stop, on_progress
    )
    return np.asarray(found.numpy())


def detect(
    detector: Any,
    fields: Sequence[Field],
    scale: float,
    truth: str,
    should_stop: StopCheck | None = None,
) -> list[Found]:
    """What a detector finds on fields, one at a time, and what is there."""
    device = next(detector.parameters()).device
    found = []
    with torch.inference_mode():
        for field in fields:
            if should_stop is not None and should_stop():
                raise JobCancelledError("Detection was cancelled.")
            answer = detector.eval()([scaled(pixels_of(field), scale).to(device)])[0]
            boxes = answer["boxes"].cpu().numpy()[:, [1, 0, 3, 2]] / scale
            found.append(
                Found(truth_of(field, truth), boxes, answer["scores"].cpu().numpy(), field.group)
            )
    return found
