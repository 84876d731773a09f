"""What measurements of regions share: a network that costs almost nothing, untrained ones."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_cellpath.backend.engine import BatchedForward
from napari_cellpath.core.vocabulary import CIN_CLASSES, CIN_COLOURS, System
from napari_cellpath.models import ClassInfo, ModelInfo, save_model
from napari_cellpath.systems.catalogue import build
from napari_cellpath.systems.hspnet.plan import SegmentPlan
from napari_cellpath.systems.hspnet.predict import TissuePredictor
from napari_cellpath.systems.hspnet.tiles import STRIDE, TILE


class AlmostFree(nn.Module):
    """One 8 x 8 convolution: what is left is the loop round it."""

    def __init__(self, n_classes: int = 2) -> None:
        super().__init__()
        self.look = nn.Conv2d(3, n_classes, 8, stride=8)

    def normalise(self, images: Tensor) -> Tensor:
        """0..255 to -0.5..0.5."""
        return images.float().mul_(1 / 255).sub_(0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Probabilities (N, classes, H, W)."""
        return F.interpolate(torch.softmax(self.look(x), dim=1), scale_factor=8, mode="nearest")


def write_untrained(folder: Path, architecture: str) -> str:
    """A model folder of an architecture with fresh weights, the paper's classes and tiles."""
    network = build(architecture, n_classes=len(CIN_CLASSES))
    info = ModelInfo(
        name="untrained",
        system=System.HSPNET,
        architecture=architecture,
        classes=tuple(
            ClassInfo(name=name, colour=colour, abnormal=number > 1)
            for number, (name, colour) in enumerate(zip(CIN_CLASSES, CIN_COLOURS, strict=True))
        ),
        input={"tile": TILE, "stride": STRIDE},
        mpp=1.0,
    )
    tensors = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    save_model(folder, info, tensors, "# Untrained, to measure times\n")
    return str(folder)


def drive(plan: SegmentPlan, predictor: TissuePredictor, forward: BatchedForward) -> None:
    """Run a plan to its end with a predictor."""
    while not plan.finished:
        task = plan.take()
        if task is None:
            raise RuntimeError("the plan waits for nothing")
        plan.give(task, predictor.run(task.payload, forward, lambda: False))
