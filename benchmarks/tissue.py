"""Regions of a slide: HSP-Net's whole pipeline against the network alone, and against MONAI.

``python -m benchmarks.tissue [--architecture hspnet-resnet34] [--device cpu] [--monai FOLDER]``
needs no trained model: the weights are random, which changes no time. What is measured:

* ``whole_over_pure``: from the file to the finished store, over the same tiles through the network
  in the same precision, that lie ready (P1);
* ``own_ms``: what a tile costs beside the network, with a network that costs almost nothing, in
  memory as MONAI does it, and from the file to the store (P2); MONAI's, where it is installed (it
  is no dependency: ``pip install --no-deps --target FOLDER monai``, then ``--monai FOLDER``);
* ``blend_difference``: the largest one to MONAI's blended probabilities (1e-5 allowed);
* ``monai_over_default``: MONAI in fp32 over ours in the default precision (P3);
* ``decoded``: how often each pixel of the file was decoded (P8);
* ``memory``: how much more a process holds at most for 16,000 x 16,000 pixels than for
  4,000 x 4,000, as a ratio of its peaks (P7);
* ``first_look_s``: from the request to the first provisional rows, the model being loaded.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from torch import Tensor, nn

from benchmarks.measuring import interleave
from benchmarks.tissue_memory import memory
from benchmarks.tissue_setting import AlmostFree, drive, write_untrained
from napari_cellpath.backend.device import cpu_threads
from napari_cellpath.backend.engine import BatchedForward
from napari_cellpath.backend.inline import InlineBackend
from napari_cellpath.core.requests import FileImage, MemoryImage, SegmentRequest
from napari_cellpath.core.vocabulary import CIN_CLASSES, System
from napari_cellpath.slides.windows import slide_of
from napari_cellpath.systems.catalogue import build
from napari_cellpath.systems.hspnet.network import HSPNet
from napari_cellpath.systems.hspnet.plan import SegmentPlan
from napari_cellpath.systems.hspnet.predict import TissuePredictor
from napari_cellpath.systems.hspnet.strips import Strips, blend_image
from napari_cellpath.systems.hspnet.tiles import STRIDE, TILE, importance_map

FREE_SIDE = 2000
"""Side of the image of the almost free network: 289 tiles."""


def picture(side: int) -> np.ndarray:
    """Blotches of colour (side, side, 3) uint8."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (side // 16 + 1, side // 16 + 1, 3), dtype=np.uint8)
    return np.ascontiguousarray(coarse.repeat(16, 0).repeat(16, 1)[:side, :side])


def write_slide(path: Path, pixels: np.ndarray) -> FileImage:
    """A tiled TIFF of 1 um per pixel."""
    tifffile.imwrite(
        path, pixels, photometric="rgb", tile=(256, 256), compression="zlib",
        compressionargs={"level": 1}, resolution=(1e4, 1e4), resolutionunit="CENTIMETER",
    )  # fmt: skip
    return FileImage(str(path))


def whole_over_pure(
    architecture: str, device: str, precision: str, side: int, rounds: int
) -> dict[str, Any]:
    """From the file to the store, and the network alone on as many tiles."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model = write_untrained(folder / "model", architecture)
        image = write_slide(folder / "s.tif", picture(side))
        backend = InlineBackend(device, precision)
        backend.warm_up(model)
        engine = backend._engine
        numbers = iter(range(1000))
        probe = SegmentPlan(SegmentRequest(image, model, str(folder / "probe.ome.zarr")))
        layout, tiles = probe.layout, probe.tiles.total
        predictor = engine.predictor(System.HSPNET, probe.model)
        # A fresh tile each time: the real ones are new in memory, too.
        ready = [
            torch.rand(1, 3, TILE, TILE).contiguous(memory_format=torch.channels_last)
            for _ in range(4)
        ]

        def pure() -> None:
            for number in range(tiles):
                engine.forward(predictor.network, ready[number % 4], lambda: False)
            if device == "cuda":
                torch.cuda.synchronize()

        def whole() -> None:
            store = str(folder / f"{next(numbers)}.ome.zarr")
            backend.submit(SegmentRequest(image, model, store)).result()

        found = interleave({"pure": pure, "whole": whole}, "pure", rounds, cpu_threads())
        first = first_look(backend, image, model, folder)
        decoded = _decoded(image, backend, model, folder)
    return {
        "architecture": architecture, "precision": engine.status().precision, "tiles": tiles,
        "tile": layout.tile[0], "pure_s": round(found.best["pure"], 2),
        "whole_s": round(found.best["whole"], 2),
        "whole_over_pure": round(found.best["whole"] / found.best["pure"], 3),
        "steady": found.steady, "busy": round(found.busy, 2), "first_look_s": round(first, 2),
        "decoded": round(decoded, 3),
    }  # fmt: skip


def first_look(backend: InlineBackend, image: FileImage, model: str, folder: Path) -> float:
    """Seconds from the request to its first provisional rows."""
    start, seen = time.perf_counter(), []

    def listen(event: Any) -> None:
        if any(rows.provisional for rows in event.results) and not seen:
            seen.append(time.perf_counter() - start)
            event.job.cancel()

    store = str(folder / "look.ome.zarr")
    backend.submit(SegmentRequest(image, model, store, first_estimate=True), listener=listen)
    return float(seen[0])


def _decoded(image: FileImage, backend: InlineBackend, model: str, folder: Path) -> float:
    """Pixels decoded over pixels there are, of one more run of a file opened anew."""
    Path(image.path).touch()  # another time: another slide
    backend.submit(SegmentRequest(image, model, str(folder / "d.ome.zarr"))).result()
    slide = slide_of(image)
    high, wide = slide.tile_shape()
    down, across = (-(-n // side) for n, side in zip(slide.shape, (high, wide), strict=True))
    return slide.decoded_pixels / (down * high * across * wide)


def own_cost(rounds: int) -> dict[str, Any]:
    """Milliseconds a tile beside an almost free network: in memory, with a store; MONAI's."""
    # Laid out as the worker lays it out; MONAI's loop runs faster with the plain layout.
    network = AlmostFree().eval().to(memory_format=torch.channels_last)
    plain = AlmostFree().eval()
    plain.load_state_dict(network.state_dict())
    pixels = picture(FREE_SIDE)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        info_folder = write_untrained(folder / "model", "hspnet-squeezenet")
        image = write_slide(folder / "s.tif", pixels)
        plan = SegmentPlan(
            SegmentRequest(MemoryImage(pixels, mpp=1.0), info_folder, str(folder / "p.ome.zarr"))
        )
        layout, tiles = plan.layout, plan.tiles.total
        predictor = TissuePredictor(network, torch.device("cpu"), "fp32", 2, TILE)
        forward = BatchedForward(torch.device("cpu"), "fp32")
        numbers = iter(range(1000))
        ready = network.normalise(torch.randint(0, 256, (1, 3, TILE, TILE)))
        ready = ready.contiguous(memory_format=torch.channels_last)

        def pure() -> None:
            with torch.inference_mode():
                for _ in range(tiles):
                    network(ready)

        def strips() -> None:
            with torch.inference_mode():
                _classes(pixels, layout, network)

        def stored() -> None:
            store = str(folder / f"{next(numbers)}.ome.zarr")
            drive(SegmentPlan(SegmentRequest(image, info_folder, store)), predictor, forward)

        kinds: dict[str, Callable[[], Any]] = {"pure": pure, "strips": strips, "stored": stored}
        monai = _monai(pixels, plain)
        if monai is not None:
            kinds["monai"] = monai
        found = interleave(kinds, "pure", rounds, cpu_threads())
        difference = None if monai is None else _difference(pixels, layout, network)
    best = found.best

    def each(name: str) -> float:
        return round((best[name] - best["pure"]) / tiles * 1000, 3)

    return {
        "tiles": tiles, "own_ms": each("strips"), "own_with_store_ms": each("stored"),
        "monai_ms": each("monai") if monai is not None else None,
        "blend_difference": difference, "steady_free": found.steady,
    }  # fmt: skip


def _classes(pixels: np.ndarray, layout: Any, network: Any) -> list[np.ndarray]:
    """What the worker does with a region, without the tasks."""
    strips = Strips(layout, 2, network.normalise, torch.device("cpu"))
    out, read = [], 0
    for number, row in enumerate(layout.row_starts):
        begin, end = max(read, row), row + TILE
        strips.add_source(begin, pixels[begin:end])
        read = end
        strips.begin_row(row, layout.col_starts)
        for col in layout.col_starts:
            strips.add(row, col, network(strips.tile(row, col))[0])
        out += [band.labels for band in strips.finish(*layout.band(number))]
    return out


def _monai(pixels: np.ndarray, network: Any) -> Callable[[], Tensor] | None:
    """MONAI's sliding window with the same map, window and overlap; None where it is missing."""
    try:
        from monai.inferers.utils import sliding_window_inference
    except ImportError:
        return None
    from napari_cellpath.core.vocabulary import Blend

    image = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    weights = torch.from_numpy(importance_map(Blend.RBF, TILE))

    def run() -> Tensor:
        with torch.inference_mode():
            blended: Tensor = sliding_window_inference(
                network.normalise(image), TILE, 1, network, overlap=1 - STRIDE / TILE,
                roi_weight_map=weights,
            )  # fmt: skip
            return blended

    return run


def _difference(pixels: np.ndarray, layout: Any, network: Any) -> float:
    run = _monai(pixels, network)
    if run is None:
        raise RuntimeError("MONAI is not installed")
    theirs = run()[0].numpy()
    with torch.inference_mode():
        ours = blend_image(pixels, layout, network, network.normalise, 2)
    return float(np.abs(ours - theirs).max())


def monai_over_default(architecture: str, side: int, rounds: int) -> float | None:
    """MONAI in fp32, as the network is, over our default precision and folded network."""
    pixels = picture(side)
    network = build(architecture, n_classes=len(CIN_CLASSES)).eval()

    class Plain(nn.Module):
        def __init__(self, inner: HSPNet) -> None:
            super().__init__()
            self.inner, self.normalise = inner, inner.normalise

        def forward(self, x: Tensor) -> Tensor:
            return torch.softmax(self.inner.classify(x), dim=1)

    run = _monai(pixels, Plain(network))
    if run is None:
        return None
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model = write_untrained(folder / "model", architecture)
        image = MemoryImage(pixels, mpp=1.0)
        backend = InlineBackend()
        backend.warm_up(model)
        numbers = iter(range(1000))

        def ours() -> None:
            store = str(folder / f"{next(numbers)}.ome.zarr")
            backend.submit(SegmentRequest(image, model, store)).result()

        found = interleave({"monai": run, "ours": ours}, "monai", rounds, cpu_threads())
    return round(found.best["monai"] / found.best["ours"], 2)


def measure(
    architecture: str = "hspnet-resnet34",
    device: str = "cpu",
    rounds: int = 2,
    side: int = 700,
    with_memory: bool = True,
) -> dict[str, Any]:
    """All of it."""
    found = whole_over_pure(architecture, device, "fp32", side, rounds)
    found |= own_cost(max(rounds, 3))
    found["monai_over_default"] = monai_over_default(architecture, side, rounds)
    if with_memory:
        found |= memory()
    return found


def main() -> None:
    """Print the measurement as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architecture", default="hspnet-resnet34")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--side", type=int, default=700, help="of the real network's region")
    parser.add_argument("--monai", default="", help="folder that holds MONAI")
    parser.add_argument("--only", default="", choices=("", "own", "memory"))
    options = parser.parse_args()
    if options.monai:
        sys.path.append(options.monai)
    if options.only == "own":
        found = own_cost(options.rounds)
    elif options.only == "memory":
        found = memory()
    else:
        found = measure(options.architecture, options.device, options.rounds, options.side)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
