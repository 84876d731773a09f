"""Score labelled cells with a network, exactly as ``cellpath predict`` would.

The windows, views and crops are the system's own functions; only the batches are larger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_cellpath.core.errors import JobCancelledError
from napari_cellpath.core.geometry import edge_of_point
from napari_cellpath.core.requests import FileImage
from napari_cellpath.core.seeds import generator_for
from napari_cellpath.core.vocabulary import Border, Preset
from napari_cellpath.slides.windows import image_shape
from napari_cellpath.systems.deeppap.network import DeepPapNetwork
from napari_cellpath.systems.deeppap.predict import window_tensor
from napari_cellpath.systems.deeppap.presets import view_batches
from napari_cellpath.systems.deeppap.views import CROP, VIEW, ten_crops, views
from training.datasets import CellRecord

ScoredViews = Literal["fast", "rotations", "balanced", "paper"]
"""A preset, or ``rotations``: the centre crop of its ten rotations, every second mirrored."""

BATCH = 50
VIEWS_AT_ONCE = 10


def jittered_centre(record: CellRecord, jitter: int, seed: int) -> tuple[float, float]:
    """A click beside the centre: off by up to ``jitter`` whole pixels in row and column.

    Seeded by the cell's own centre, so it does not depend on which other cells are scored;
    kept inside the image.
    """
    if jitter == 0:
        return record.row, record.col
    rng = generator_for(seed, *edge_of_point(record.row, record.col))
    down, right = rng.integers(-jitter, jitter + 1, size=2)
    height, width = image_shape(FileImage(str(record.image)))
    return (
        float(np.clip(record.row + down, 0, height - 1)),
        float(np.clip(record.col + right, 0, width - 1)),
    )


def _centre_crops(images: Tensor) -> Tensor:
    """Of `ten_crops` the fifth (centre) of every view, and of every second its mirror, (n, ...)."""
    low = round((VIEW - CROP) / 2)
    crops = images[..., low : low + CROP, low : low + CROP].clone()
    crops[1::2] = images[1::2].flip(-1)[..., low : low + CROP, low : low + CROP]
    return crops


def crops_of_cell(
    network: DeepPapNetwork,
    record: CellRecord,
    looked_at: ScoredViews = "balanced",
    border: Border = Border.ZERO,
    jitter: int = 0,
    seed: int = 0,
) -> Iterator[Tensor]:
    """The network's inputs of one cell, up to `BATCH` at a time; see `score_cells`.

    Yields
    ------
    Tensor
        (n, 3, 227, 227) normalised crops on the network's device, channels last.
    """
    preset = Preset.BALANCED if looked_at == "rotations" else Preset(looked_at)
    device = next(network.parameters()).device
    centre = edge_of_point(*jittered_centre(record, jitter, seed))
    window = window_tensor(FileImage(str(record.image)), *centre, record.half, border)
    specs = [spec for batch in view_batches(preset, generator_for(seed, *centre)) for spec in batch]
    for start in range(0, len(specs), VIEWS_AT_ONCE):
        some = specs[start : start + VIEWS_AT_ONCE]
        seen = network.normalise(views(window, some).to(device))
        crops = _centre_crops(seen) if looked_at == "rotations" else ten_crops(seen)
        for piece in crops.split(BATCH):
            yield piece.contiguous(memory_format=torch.channels_last)


def score_cells(
    network: DeepPapNetwork,
    records: Sequence[CellRecord],
    *,
    looked_at: ScoredViews = "balanced",
    border: Border = Border.ZERO,
    jitter: int = 0,
    seed: int = 0,
    should_stop: Callable[[], bool] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float64]:
    """Mean class probabilities of each cell, (n, n_classes).

    Parameters
    ----------
    network
        In evaluation mode, on its device.
    records
        Cells.
    looked_at
        Which views and crops are averaged.
    border
        What stands outside the image.
    jitter
        Pixels by which centres are moved at random.
    seed
        Of the shifts (preset ``paper``) and of the jitter.
    should_stop
        Asked before every batch of a cell.
    on_progress
        Called after every cell with the number done and the number of all.

    Raises
    ------
    JobCancelledError
        ``should_stop`` said so.
    """
    means = []
    with torch.inference_mode():
        for record in records:
            probabilities = []
            for piece in crops_of_cell(network, record, looked_at, border, jitter, seed):
                if should_stop is not None and should_stop():
                    raise JobCancelledError("Scoring was cancelled.")
                probabilities.append(network(piece).double().softmax(dim=1).cpu())
            means.append(torch.cat(probabilities).mean(dim=0).numpy())
            if on_progress is not None:
                on_progress(len(means), len(records))
    return np.stack(means)
