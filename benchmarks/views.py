"""P4: the paper's 1000 inputs of a cell against the network alone, and against a plain PIL loop."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.measuring import interleave
from napari_cellpath.backend.device import cpu_threads
from napari_cellpath.backend.inline import InlineBackend
from napari_cellpath.core.requests import FileImage, Nucleus, NucleusRequest
from napari_cellpath.core.vocabulary import Preset, System
from napari_cellpath.models import find_model
from napari_cellpath.samples.fields import cytology_field
from napari_cellpath.systems.deeppap.predict import load_network
from napari_cellpath.systems.deeppap.presets import CROPS
from napari_cellpath.systems.protocol import ModelRef

READY = 20
LOOP_VIEWS = 10  # of the hundred; the plain loop's time is scaled up
_CROPS = ((0, 0), (0, 29), (29, 0), (29, 29), (14, 14))


def plain_loop(network: Any, image: Image.Image, row: int, col: int, device: str) -> None:
    """What one writes first: rotate, crop, resize, crop with PIL; one input at a time."""
    mean, std = network.mean.flatten(), network.std.flatten()
    rng = np.random.default_rng(0)
    with torch.inference_mode():
        for k in range(LOOP_VIEWS):
            turned = image.rotate(
                36 * k, resample=Image.Resampling.BILINEAR, center=(col, row), expand=False
            )
            down, right = (int(v) for v in rng.integers(-10, 11, 2))
            top, left = row + down - 64, col + right - 64
            view = turned.crop((left, top, left + 128, top + 128)).resize(
                (256, 256), Image.Resampling.BILINEAR
            )
            for source in (view, view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)):
                for y, x in _CROPS:
                    pixels = np.asarray(source.crop((x, y, x + 227, y + 227)), dtype=np.float32)
                    tensor = torch.from_numpy(pixels.transpose(2, 0, 1).copy())
                    tensor = (tensor - mean.view(3, 1, 1)) / std.view(3, 1, 1)
                    network(tensor[None].to(device)).softmax(1).cpu()


def measure(model: str, device: str, rounds: int) -> dict[str, Any]:
    """Seconds of the whole, of the network alone and of the plain loop; and their ratios."""
    entry = find_model(model, System.DEEPPAP)
    field = cytology_field()
    row, col = (round(float(v)) for v in field.centres[len(field.centres) // 2])
    network, _ = load_network(entry.folder)
    network.to(device)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "field.png"
        image = Image.fromarray(field.image)
        image.save(path)
        backend = InlineBackend(device, "auto")
        request = NucleusRequest(
            FileImage(str(path)), (Nucleus(row, col),), str(entry.folder), preset=Preset.PAPER
        )
        backend.submit(request).result()
        engine = backend._engine
        ref = ModelRef(entry.name, str(entry.folder), entry.info.sha256)
        computing = engine.predictor(System.DEEPPAP, ref).computing
        size = CROPS if device == "cpu" else 5 * CROPS
        # More than the caches hold: the real crops are new in memory each time, too.
        ready = [
            torch.randn(size, 3, 227, 227, device=device).contiguous(
                memory_format=torch.channels_last
            )
            for _ in range(READY)
        ]

        def pure() -> None:
            for k in range(1000 // size):
                out = engine.forward(computing, ready[k % READY], lambda: False)
            out.cpu()

        kinds = {
            "pure": pure,
            "whole": lambda: backend.submit(request).result(),
            "loop": lambda: plain_loop(network, image, row, col, device),
        }
        threads = cpu_threads() if device == "cpu" else 1
        found = interleave(kinds, "pure", rounds, threads)
        backend.close()
    loop = found.best["loop"] * 100 / LOOP_VIEWS
    return {
        "model": entry.label,
        "precision": engine.forward.precision,
        "whole_s": round(found.best["whole"], 3),
        "pure_forward_s": round(found.best["pure"], 3),
        "plain_loop_s": round(loop, 2),
        "whole_over_pure": round(found.best["whole"] / found.best["pure"], 3),
        "loop_over_whole": round(loop / found.best["whole"], 2),
        "steady": found.steady,
        "busy_cores": round(found.busy, 2),
    }
