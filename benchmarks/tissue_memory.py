"""P7: how much more a process holds at most for a large region than for a small one.

``python -m benchmarks.tissue --only memory``; each region has a process of its own
(``python -m benchmarks.tissue_memory SIDE``), with a network that costs almost nothing.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch

from benchmarks.tissue_setting import AlmostFree, drive, write_untrained
from napari_cellpath.backend.engine import BatchedForward
from napari_cellpath.core.requests import FileImage, SegmentRequest
from napari_cellpath.core.vocabulary import CIN_CLASSES
from napari_cellpath.systems.hspnet.plan import SegmentPlan
from napari_cellpath.systems.hspnet.predict import TissuePredictor
from napari_cellpath.systems.hspnet.tiles import TILE

MEMORY_SIDES = (4000, 16_000)


def write_large_slide(path: Path, side: int) -> FileImage:
    """A slide of this side, written tile by tile: this process must not have held it."""
    row, col = np.ogrid[:256, :256]
    square = np.stack([(row * 7 + col * 3) % 251, (row + col) % 256, row ^ col], 2).astype(np.uint8)
    count = (-(-side // 256)) ** 2
    tifffile.imwrite(
        path, (square for _ in range(count)), shape=(side, side, 3), dtype=np.uint8,
        photometric="rgb", tile=(256, 256), compression="zlib", compressionargs={"level": 1},
        resolution=(1e4, 1e4), resolutionunit="CENTIMETER",
    )  # fmt: skip
    return FileImage(str(path))


def hold(side: int) -> None:
    """In a process of its own: run a region of this side, print the peaks of memory (bytes)."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        model = write_untrained(folder / "model", "hspnet-squeezenet")
        predictor = TissuePredictor(
            AlmostFree(len(CIN_CLASSES)), torch.device("cpu"), "fp32", len(CIN_CLASSES), TILE
        )
        forward = BatchedForward(torch.device("cpu"), "fp32")

        def run(name: str, size: int) -> None:
            image = write_large_slide(folder / f"{name}.tif", size)
            store = str(folder / f"{name}.ome.zarr")
            plan = SegmentPlan(SegmentRequest(image, model, store))
            drive(plan, predictor, forward)

        run("warm", 1000)
        before = _peak()
        run("region", side)
        print(json.dumps({"before": before, "after": _peak()}))


def _peak() -> int:
    """Largest resident memory of this program, bytes.

    Where it can be read, not ``ru_maxrss``: that of a child begins with its parent's.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def memory() -> dict[str, Any]:
    """Peaks of two processes, for the small and the large region."""
    peaks = {}
    for side in MEMORY_SIDES:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.tissue_memory", str(side)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        peaks[side] = json.loads(done.stdout.strip().splitlines()[-1])
    small, large = (peaks[side] for side in MEMORY_SIDES)
    return {
        "memory_peak_mb": {str(s): round(p["after"] / 2**20) for s, p in peaks.items()},
        "memory_above_warm_mb": {
            str(s): round((p["after"] - p["before"]) / 2**20) for s, p in peaks.items()
        },
        "memory_ratio": round(large["after"] / small["after"], 3),
    }


if __name__ == "__main__":
    hold(int(sys.argv[1]))
