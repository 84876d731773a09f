"""The worker's half of HSP-Net: read strips, run tiles, add up, give finished rows out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_cellpath.core.errors import JobCancelledError
from napari_cellpath.slides.planes import Box
from napari_cellpath.slides.scaled import read_grid
from napari_cellpath.systems.hspnet.inference import TissueInference
from napari_cellpath.systems.hspnet.layout import read_frame, tile_of
from napari_cellpath.systems.hspnet.payloads import (
    BeginOutput,
    BeginPayload,
    LookOutput,
    LookPayload,
    RegionOutput,
    RegionPayload,
    Step,
)
from napari_cellpath.systems.hspnet.states import States
from napari_cellpath.systems.hspnet.strips import Band, Strips
from napari_cellpath.systems.hspnet.tissue import tissue_mask
from napari_cellpath.systems.loading import load_referred, memory_of
from napari_cellpath.systems.protocol import Forward, ModelRef, StopCheck

BATCH = {"cpu": 1, "cuda": 8, "mps": 4}
"""Tiles of a network batch: one fills a processor's cores, a graphics card wants more."""
BAND_BYTES = 64 << 20
"""Of the pixels that are read at once for the thumbnail."""
READ_ROWS = 128
"""Of a region that are read at once: a wide one's must not lie beside their copies."""


class TissuePredictor:
    """A loaded HSP-Net model on a device (`napari_cellpath.systems.protocol.Predictor`).

    Parameters
    ----------
    network
        Has ``normalise`` (images to inputs) and gives probabilities when called, as
        `TissueInference` does.
    device, precision
        Where and in what it computes.
    n_classes
        Classes of the network.
    tile
        Side of the tile it is warmed up with.
    """

    def __init__(
        self, network: nn.Module, device: torch.device, precision: str, n_classes: int, tile: int
    ) -> None:
        self.network = network.to(device).eval()
        self.network.to(memory_format=torch.channels_last)
        self.device = device
        self.precision = precision
        self.n_classes = n_classes
        self.tile = tile
        self._weights = memory_of(network)
        self.states = States()

    @property
    def memory_bytes(self) -> int:
        """Of the weights and of the regions under way."""
        return self._weights + self.states.memory_bytes

    @classmethod
    def load(cls, ref: ModelRef, device: torch.device, precision: str) -> TissuePredictor:
        """Load a model folder; refuse it if its hash is not the one the client saw."""
        network, info = load_referred(ref)
        tile = tile_of(info)
        return cls(TissueInference(network), device, precision, len(info.classes), tile)

    def warm_up(self, forward: Forward) -> None:
        """Run one tile of zeros: kernels and memory pools are made on first use."""
        with torch.inference_mode():
            tile = self._normalised(np.zeros((self.tile, self.tile, 3), np.uint8))
        forward(self.network, tile, lambda: False)

    def run(self, payload: Any, forward: Forward, stop: StopCheck) -> Any:
        """Do what a task of a region's plan asks."""
        with torch.inference_mode():
            if isinstance(payload, BeginPayload):
                return self._begin(payload)
            if isinstance(payload, LookPayload):
                return self._look(payload, forward, stop)
            return self._advance(payload, forward, stop)

    def _begin(self, payload: BeginPayload) -> BeginOutput:
        tissue = None
        if payload.grid is not None:
            height, width = payload.grid.shape
            # In bands: the level that is read may be too large to hold.
            row_bytes = payload.grid.ratio * payload.grid.source_shape[1] * 3
            step = max(1, int(BAND_BYTES / row_bytes))
            parts = [
                read_grid(
                    payload.source, payload.grid, (row, 0, min(row + step, height), width), []
                )
                for row in range(0, height, step)
            ]
            tissue = tissue_mask(np.concatenate(parts))
        kind = self.device.type
        return BeginOutput(self.precision, kind, BATCH.get(kind, 1), tissue)

    def _look(self, payload: LookPayload, forward: Forward, stop: StopCheck) -> LookOutput:
        start = time.perf_counter()
        layout = payload.layout
        labels = np.empty((len(payload.places), *layout.tile), np.uint8)
        for number, ((row, col), source) in enumerate(
            zip(payload.places, payload.sources, strict=True)
        ):
            box = row, col, row + layout.tile[0], col + layout.tile[1]
            tile = self._normalised(read_frame(source, layout, box, []))
            found = forward(self.network, tile, stop)[0].argmax(dim=0)
            labels[number] = found.to(torch.uint8).cpu().numpy()
        return LookOutput(labels, time.perf_counter() - start)

    def _advance(self, payload: RegionPayload, forward: Forward, stop: StopCheck) -> RegionOutput:
        start = time.perf_counter()
        bands: list[Band] = []
        damaged: list[Box] = []

        def make() -> Strips:
            return Strips(
                payload.layout, self.n_classes, self.normalise, self.device, payload.probabilities
            )

        with self.states.taken(payload, make, stop) as strips:
            if strips is None:
                return RegionOutput(lost=True)
            for step in payload.steps:
                bands += self._step(strips, step, payload, damaged, forward, stop)
        last = payload.steps[-1]
        if last.last and last.row + 1 == len(payload.layout.row_starts):
            self.states.end(payload.run)
        seconds = time.perf_counter() - start
        return RegionOutput(tuple(bands), tuple(damaged), seconds, self.device.type)

    def _step(
        self,
        strips: Strips,
        step: Step,
        payload: RegionPayload,
        damaged: list[Box],
        forward: Forward,
        stop: StopCheck,
    ) -> Iterator[Band]:
        layout = payload.layout
        row = layout.row_starts[step.row]
        if stop():
            raise JobCancelledError("The job was cancelled.")
        if step.all_cols is not None:
            strips.begin_row(row, step.all_cols)
        if step.read is not None and step.source is not None:
            begin, end = step.read
            for top in range(begin, end, READ_ROWS):
                box = top, 0, min(top + READ_ROWS, end), layout.padded[1]
                strips.add_source(top, read_frame(step.source, layout, box, damaged))
        for first in range(0, len(step.cols), payload.batch):
            cols = step.cols[first : first + payload.batch]
            tiles = [strips.tile(row, col) for col in cols]
            batch = tiles[0] if len(tiles) == 1 else torch.cat(tiles)
            found = forward(self.network, batch, stop)
            for col, probabilities in zip(cols, found, strict=True):
                strips.add(row, col, probabilities)
        if step.last:
            yield from strips.finish(*layout.band(step.row), emit=step.emit)

    def normalise(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W) uint8 on the device to the network's input."""
        normalised: Tensor = self.network.normalise(images)  # type: ignore[operator]
        return normalised

    def _normalised(self, pixels: NDArray[np.uint8]) -> Tensor:
        image = torch.from_numpy(pixels).to(self.device)
        return self.normalise(image.permute(2, 0, 1).unsqueeze(0))
