"""Weights are stored in half precision where they fit into it."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from training.trainer import network_arrays


def test_a_variance_too_large_for_half_precision_stays_whole() -> None:
    """It would become infinite, and what it divides nothing."""
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    network[1].running_var.fill_(4e6)  # type: ignore[union-attr, operator]
    stored = network_arrays(network, half=True)
    assert stored["0.weight"].dtype == np.float16
    assert stored["1.running_var"].dtype == np.float32
    assert stored["1.running_var"].tolist() == [4e6] * 4
    assert stored["1.num_batches_tracked"].dtype == np.int64
    assert {a.dtype for k, a in network_arrays(network, half=False).items() if "num" not in k} == {
        np.dtype(np.float32)
    }
    assert torch.isfinite(torch.from_numpy(stored["0.bias"])).all()
