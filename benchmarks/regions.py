"""Red-cell regions: the pipeline against its networks alone, one box drawn, one label flipped (P6).

``python -m benchmarks.regions [--model FOLDER] [--boxes 400] [--device cpu]``. Without a model a
cascade of SqueezeNets with random weights is measured, which changes no time but that of a
detector's second look: it is given as many proposals as it may take.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.measuring import Rounds, interleave
from napari_cellpath.backend import connect
from napari_cellpath.backend.device import cpu_threads
from napari_cellpath.backend.inline import InlineBackend
from napari_cellpath.core.requests import (
    CellBox,
    DetectRegionsRequest,
    FileImage,
    LabelRegionsRequest,
)
from napari_cellpath.core.vocabulary import CLASS_COLOURS, RBC_TYPES, System
from napari_cellpath.models import ClassInfo, ModelInfo, find_model, save_model
from napari_cellpath.samples import smear_field
from napari_cellpath.systems.catalogue import build
from napari_cellpath.systems.protocol import ModelRef
from napari_cellpath.systems.rbc.plan import groups_of_task
from napari_cellpath.systems.rbc.predict import RegionPredictor
from napari_cellpath.systems.rbc.verdict import Booster, read_verdict

DEPTH, TREES = 3, 100
"""Of scikit-learn's default booster."""
DRAWN = 30
ARGUMENTS = {"detector": "squeezenet-fpn", "trunk": "squeezenet-features"}


def write_untrained(folder: Path) -> str:
    """A model folder of fresh weights and a booster of random trees."""
    network = build("rbc-cascade", n_classes=len(RBC_TYPES), **ARGUMENTS)
    info = ModelInfo(
        name="untrained",
        system=System.RBC,
        architecture="rbc-cascade",
        arguments=ARGUMENTS,
        classes=tuple(
            ClassInfo(name=name, colour=colour, abnormal=name != RBC_TYPES[0])
            for name, colour in zip(RBC_TYPES, CLASS_COLOURS, strict=False)
        ),
    )
    tensors = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    save_model(
        folder, info, tensors | random_booster().tensors(), "# Untrained, to measure times\n"
    )
    return str(folder)


def random_booster() -> Booster:
    """As many full trees as scikit-learn grows by default."""
    rng = np.random.default_rng(0)
    nodes, inner = 2 ** (DEPTH + 1) - 1, 2**DEPTH - 1
    first = np.arange(TREES)[:, None] * nodes
    own = np.arange(nodes)
    leaf = own >= inner
    left = (first + np.where(leaf, own, 2 * own + 1)).ravel().astype(np.int32)
    right = (first + np.where(leaf, own, 2 * own + 2)).ravel().astype(np.int32)
    feature = np.where(leaf, 0, rng.integers(0, len(RBC_TYPES), (TREES, nodes)))
    values = np.where(leaf, rng.normal(0, 1, (TREES, nodes)), 0.0)
    return Booster(
        roots=first.ravel().astype(np.int32),
        left=left,
        right=right,
        feature=feature.ravel().astype(np.int32),
        threshold=rng.random(TREES * nodes),
        value=values.ravel(),
        start=np.array([0.0, 0.1]),
    )


def measure(model: str, device: str, rounds: int, boxes: int = 400) -> dict[str, Any]:
    """Ratios of the patches and of the detector to their networks alone; two waiting times."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = model or write_untrained(folder / "model")
        label = find_model(model, System.RBC).label
        image, truth = _field(folder / "field.png")
        asked = _boxes(truth, boxes)
        patches, detector = _pipelines(model, image, asked, device, rounds)
        drawn = _drawn(model, image, asked, device)
        flips = [_seconds(lambda: _flip(model)) for _ in range(DRAWN)]
    return {
        "model": label,
        "boxes": boxes,
        "patches_whole_over_pure": _ratio(patches),
        "patch_ms": round(1000 * patches.best["whole"] / boxes, 2),
        "detector_whole_over_pure": _ratio(detector),
        "detector_640x480_ms": round(1000 * detector.best["whole"], 1),
        "drawn_to_answer_ms": _percentiles(drawn),
        "flip_to_verdict_ms": _percentiles(flips),
        "steady": patches.steady and detector.steady,
        "busy": round(min(patches.busy, detector.busy), 2),
    }


def _field(path: Path) -> tuple[FileImage, NDArray[np.int64]]:
    """A small field, and the boxes of its regions."""
    field = smear_field(shape=(480, 640), n_regions=20)
    Image.fromarray(field.image).save(path)
    return FileImage(str(path)), field.boxes


def _boxes(truth: NDArray[np.int64], n: int) -> tuple[CellBox, ...]:
    """As many boxes, each a little beside a region's: glass alone is not asked about."""
    moved = np.random.default_rng(0).integers(-3, 4, (n, 4)) + truth[np.arange(n) % len(truth)]
    return tuple(CellBox(row0, col0, row1, col1) for row0, col0, row1, col1 in moved.tolist())


def _pipelines(
    model: str, image: FileImage, asked: tuple[CellBox, ...], device: str, rounds: int
) -> tuple[Rounds, Rounds]:
    """Whole against alone: of the patches, and of the detector on a small field."""
    info, boxes = find_model(model, System.RBC), len(asked)
    request = LabelRegionsRequest(image, asked, model)
    detect = DetectRegionsRequest(image, model)
    backend = InlineBackend(device, "fp32")
    backend.warm_up(model)
    engine = backend._engine
    predictor = engine.predictor(
        System.RBC, ModelRef(info.name, str(info.folder), info.info.sha256)
    )
    if not isinstance(predictor, RegionPredictor) or predictor.detector is None:
        raise ValueError(f"{model} has no detector to be measured")
    loose = predictor.detector
    side, group = predictor.wanted.patch, predictor.group
    # A fresh batch each time: the real ones are new in memory, too.
    ready = [
        torch.rand(group, 3, side, side).contiguous(memory_format=torch.channels_last)
        for _ in range(8)
    ]
    field = torch.rand(1, 3, 480, 640)
    in_task = groups_of_task(info.info) * group

    def alone() -> None:
        for start in range(0, boxes, in_task):
            groups = math.ceil(min(in_task, boxes - start) / group)
            features = [
                engine.forward(predictor.trunk, ready[k % len(ready)], lambda: False).cpu()
                for k in range(groups)
            ]
            with torch.inference_mode():
                predictor.heads.probabilities(torch.cat(features).double())

    threads = cpu_threads()
    patches = interleave(
        {"pure": alone, "whole": lambda: backend.submit(request).result()}, "pure", rounds, threads
    )
    detector = interleave(
        {
            "pure": lambda: engine.forward(loose, field, lambda: False),
            "whole": lambda: backend.submit(detect).result(),
        },
        "pure", 3 * rounds, threads,
    )  # fmt: skip
    return patches, detector


def _drawn(model: str, image: FileImage, boxes: tuple[CellBox, ...], device: str) -> list[float]:
    """Seconds from a box to its answer, through the worker that napari uses."""
    backend = connect(device=device, precision="fp32")
    try:
        times = []
        for number in range(DRAWN + 3):  # the first ones start the worker and load the model
            request = LabelRegionsRequest(image, (boxes[number % len(boxes)],), model)
            taken = _seconds(lambda request=request: backend.submit(request).result())
            if number >= 3:
                times.append(taken)
    finally:
        backend.close()
    return times


def _flip(model: str) -> None:
    verdict = read_verdict(find_model(model, System.RBC).folder)
    verdict.revised([0.3] * len(verdict.names), {verdict.names[-1]: True})


def _seconds(work: Callable[[], Any]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _ratio(found: Rounds) -> float:
    return round(found.best["whole"] / found.best["pure"], 3)


def _percentiles(seconds: list[float]) -> dict[str, float]:
    p50, p95 = np.percentile(seconds, [50, 95]) * 1000
    return {"p50": round(float(p50), 1), "p95": round(float(p95), 1)}


def main() -> None:
    """Print the measurement as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="", help="a model's name or folder; default untrained")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--boxes", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    found = measure(options.model, options.device, options.rounds, options.boxes)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
