"""Score labelled boxes and fields with networks in training, as inference would."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_cellpath.core.errors import JobCancelledError
from training.rbc.detection_metrics import Found
from training.rbc.detector import pixels_of, scaled, truth_of
from training.rbc.patches import eight_ways
from training.rbc.table import Field

StopCheck = Callable[[], bool]
Progress = Callable[[int, int], None]
BATCH = 64


def _over(
    pictures: Tensor,
    turned: bool,
    of: Callable[[Tensor], Tensor],
    device: torch.device,
    should_stop: StopCheck | None,
    on_progress: Progress | None,
) -> Tensor:
    """What ``of`` gives of each look at each patch, (n, looks, ...)."""
    found, done = [], 0
    with torch.inference_mode():
        for some in pictures.split(BATCH):
            if should_stop is not None and should_stop():
                raise JobCancelledError("Scoring was cancelled.")
            x = some.float() / 255 if some.dtype == torch.uint8 else some
            ways = eight_ways(x) if turned else x[:, None]
            seen = ways.flatten(0, 1).to(device).contiguous(memory_format=torch.channels_last)
            found.append(of(seen).unflatten(0, (len(some), -1)).cpu())
            done += len(some)
            if on_progress is not None:
                on_progress(done, len(pictures))
    return torch.cat(found) if found else torch.zeros(0)


def score_patches(
    network: nn.Module,
    pictures: Tensor,
    *,
    should_stop: StopCheck | None = None,
    on_progress: Progress | None = None,
) -> NDArray[np.float64]:
    """Probability of each type, (n, n_types), of patches (n, 3, S, S)."""
    device = next(network.parameters()).device

    def of(x: Tensor) -> Tensor:
        logits: Tensor = network(x)
        return logits.double().sigmoid()

    return np.asarray(_over(pictures, False, of, device, should_stop, on_progress)[:, 0].numpy())


def trunk_features(
    network: Any,
    pictures: Tensor,
    turned: bool = False,
    *,
    should_stop: StopCheck | None = None,
    on_progress: Progress | None = None,
) -> NDArray[np.float32]:
    """What the heads see of each patch, (n, looks, d): one look, or the eight ways ``turned``."""
    device = next(network.parameters()).device
    found = _over(
        pictures, turned, lambda x: network.trunk(x).float(), device, should_stop, on_progress
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
