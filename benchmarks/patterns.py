"""Ten thousand HEp-2 cells of a field: the whole pipeline against the network alone.

``python -m benchmarks.patterns [--cells 10000] [--architecture resnet8] [--device cpu]`` needs
no trained model: the weights are random, which changes no time.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy import ndimage

from benchmarks.measuring import interleave
from napari_cellpath.backend.device import cpu_threads
from napari_cellpath.backend.inline import InlineBackend
from napari_cellpath.core.requests import CellBox, FileImage, PatternRequest
from napari_cellpath.core.vocabulary import CLASS_COLOURS, PATTERNS, System
from napari_cellpath.models import ClassInfo, ModelInfo, save_model
from napari_cellpath.samples.fluorescence import HEP2_MPP
from napari_cellpath.systems.catalogue import SYSTEMS, build
from napari_cellpath.systems.hep2.plan import PatternPlan

PITCH = 64
"""Pixels from cell to cell: a confluent field."""


def write_untrained(folder: Path, architecture: str) -> str:
    """A model folder of an architecture with fresh weights."""
    network = build(architecture, n_classes=len(PATTERNS))
    info = ModelInfo(
        name="untrained",
        system=System.HEP2,
        architecture=architecture,
        classes=tuple(
            ClassInfo(name=name, colour=colour)
            for name, colour in zip(PATTERNS, CLASS_COLOURS, strict=False)
        ),
        mpp=HEP2_MPP,
    )
    tensors = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    save_model(folder, info, tensors, "# Untrained, to measure times\n")
    return str(folder)


def measure(architecture: str, device: str, cells: int, rounds: int) -> dict[str, Any]:
    """Seconds of the pipeline, from the file to the calls, and of the network; their ratio."""
    side = math.ceil(math.sqrt(cells))
    rng = np.random.default_rng(0)
    # Blotches, not noise: noise alone is blank, and the network is not asked about it.
    smooth = ndimage.gaussian_filter(rng.random((side * PITCH, side * PITCH), np.float32), 3)
    pixels = ((smooth - smooth.min()) / np.ptp(smooth) * 255).astype(np.uint8)
    sizes = rng.integers(46, PITCH - 4, (cells, 2)).tolist()
    corners = [(n // side * PITCH + 2, n % side * PITCH + 2) for n in range(cells)]
    boxes = tuple(
        CellBox(row, col, row + high, col + wide)
        for (row, col), (high, wide) in zip(corners, sizes, strict=True)
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "field.png"
        Image.fromarray(pixels).save(path, compress_level=1)
        model = write_untrained(Path(folder) / "model", architecture)
        request = PatternRequest(FileImage(str(path), HEP2_MPP), boxes, model)
        backend = InlineBackend(device, "fp32")
        plan = PatternPlan(request)
        task = plan.take()
        if task is None:
            raise ValueError("give at least one cell")
        backend.warm_up(model)
        engine = backend._engine
        predictor = engine.predictor(System.HEP2, task.model)
        # A fresh batch each time: the real ones are new in memory, too.
        size = len(task.payload.numbers)
        ready = [
            torch.rand(size, 1, 60, 60).contiguous(memory_format=torch.channels_last)
            for _ in range(8)
        ]

        def pure() -> None:
            for k in range(math.ceil(cells / size)):
                engine.forward(predictor.network, ready[k % len(ready)], lambda: False).cpu()

        found = interleave(
            {"pure": pure, "whole": lambda: backend.submit(request).result()}, "pure", rounds,
            cpu_threads(),
        )  # fmt: skip
    whole, alone = found.best["whole"], found.best["pure"]
    return {
        "architecture": architecture, "cells": cells, "batch": size, "whole_s": round(whole, 2),
        "pure_s": round(alone, 2), "ratio": round(whole / alone, 3), "steady": found.steady,
        "busy": round(found.busy, 2),
    }  # fmt: skip


def main() -> None:
    """Print the measurement as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = sorted(SYSTEMS[System.HEP2].architectures)
    parser.add_argument("--architecture", default="resnet8", choices=known)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    found = measure(options.architecture, options.device, options.cells, options.rounds)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
