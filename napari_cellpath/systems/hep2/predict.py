"""The worker's half of HEp-2: cut the cells out, run the network, average over views."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from napari_cellpath.core.errors import JobCancelledError
from napari_cellpath.core.vocabulary import Average
from napari_cellpath.slides.windows import read
from napari_cellpath.systems.boxed_features import FeaturesPayload
from napari_cellpath.systems.eight_ways import eight_ways
from napari_cellpath.systems.hep2.cells import CellInput, crop_of, is_blank, plane_of, prepare
from napari_cellpath.systems.hep2.find_plan import (
    GroundPayload,
    SurveyPayload,
    TilePayload,
    search,
)
from napari_cellpath.systems.hep2.plan import PatternOutput, PatternPayload
from napari_cellpath.systems.loading import load_referred, memory_of
from napari_cellpath.systems.protocol import Forward, ModelRef, StopCheck


class PatternPredictor:
    """A loaded HEp-2 model on a device (`napari_cellpath.systems.protocol.Predictor`)."""

    def __init__(
        self,
        network: nn.Module,
        device: torch.device,
        precision: str,
        wanted: CellInput,
        n_classes: int,
    ) -> None:
        self.network = network.to(device).eval()
        self.network.to(memory_format=torch.channels_last)
        self.device = device
        self.precision = precision
        self.wanted = wanted
        self.n_classes = n_classes
        self.memory_bytes = memory_of(network)

    @classmethod
    def load(cls, ref: ModelRef, device: torch.device, precision: str) -> PatternPredictor:
        """Load a model folder; refuse it if its hash is not the one the client saw."""
        network, info = load_referred(ref)
        wanted = CellInput.of(info.input, info.name)
        return cls(network, device, precision, wanted, len(info.classes))

    def warm_up(self, forward: Forward) -> None:
        """Run one cell of zeros: kernels and memory pools are made on first use."""
        size = self.wanted.size
        forward(self.network, torch.zeros(1, 1, size, size), lambda: False)

    def run(self, payload: Any, forward: Forward, stop: StopCheck) -> Any:
        """Do what a task of any of HEp-2's plans asks."""
        if isinstance(payload, SurveyPayload | GroundPayload | TilePayload):
            return search(payload)
        if isinstance(payload, FeaturesPayload):
            return self.describe(payload.boxes, forward, stop)
        return self.judge(payload, forward, stop)

    def judge(self, payload: PatternPayload, forward: Forward, stop: StopCheck) -> PatternOutput:
        """Probabilities of a task's cells, one batch; blank cells are not asked about."""
        cells = self.cut(payload)
        if stop():
            raise JobCancelledError("The job was cancelled.")
        seen = [cell for cell in cells if cell is not None]
        blank = np.array([cell is None for cell in cells])
        probabilities = np.full((len(cells), self.n_classes), np.nan)
        if seen:
            batch = torch.stack(seen)
            if payload.average is Average.D4:
                batch = eight_ways(batch).flatten(0, 1)
            batch = batch.contiguous(memory_format=torch.channels_last)
            logits = forward(self.network, batch, stop)
            each = F.softmax(logits.double(), dim=1).unflatten(0, (len(seen), -1))
            probabilities[~blank] = each.mean(dim=1).cpu().numpy()
        return PatternOutput(probabilities, blank, self.precision)

    def describe(
        self, payload: PatternPayload, forward: Forward, stop: StopCheck
    ) -> NDArray[np.float32]:
        """Trunk features (n cells, d) of the cells as they are; NaN in the rows of blank ones."""
        cells = self.cut(payload)
        seen = [cell for cell in cells if cell is not None]
        if not seen:  # one of zeros tells how many features there would be
            seen = [torch.zeros(1, self.wanted.size, self.wanted.size)]
        batch = torch.stack(seen).contiguous(memory_format=torch.channels_last)
        features = forward(self.network.trunk, batch, stop).float().cpu().numpy()
        found = np.full((len(cells), features.shape[1]), np.nan, np.float32)
        there = np.array([cell is not None for cell in cells])
        found[there] = features[: int(there.sum())]
        return found

    def cut(self, payload: PatternPayload) -> list[Tensor | None]:
        """The network's inputs (1, size, size), in order; None where nothing is to be seen."""
        cells: list[Tensor | None] = []
        for pool in payload.pools:
            top, left, bottom, right = pool.window
            rgb = read(pool.source, top, left, bottom - top, right - left)
            plane = plane_of(rgb, payload.channel)
            for frame in pool.frames:
                crop = None if frame is None else crop_of(plane, frame, payload.shape, (top, left))
                cells.append(
                    None
                    if crop is None or is_blank(crop)
                    else prepare(crop, payload.channel, self.wanted.contrast, self.wanted.size)
                )
        return cells
