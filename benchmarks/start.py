"""P11: what the plugin adds before its first use, and that a second request loads nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from statistics import median
from typing import Any

_IMPORT = """
import json, sys, time
import napari, npe2
from qtpy import QtWidgets
start = time.perf_counter()
from npe2 import PluginManager
PluginManager.instance().discover()
import napari_cellpath
added = time.perf_counter() - start
start = time.perf_counter()
import napari_cellpath.widgets.nuclei
dock = time.perf_counter() - start
print(json.dumps({"plugin": added, "dock": dock, "torch": "torch" in sys.modules}))
"""
_SECOND = """
import json, time, sys
import numpy as np
from napari_cellpath.backend.inline import InlineBackend
from napari_cellpath.core.requests import MemoryImage, Nucleus, NucleusRequest
from napari_cellpath.core.vocabulary import Preset
from napari_cellpath.samples.fields import cytology_field
field = cytology_field()
image = MemoryImage(field.image, mpp=field.mpp)
backend = InlineBackend(sys.argv[2], "auto")
times = []
for row, col in field.centres[:4]:
    start = time.perf_counter()
    request = NucleusRequest(image, (Nucleus(row, col),), sys.argv[1], preset=Preset.FAST)
    backend.submit(request).result()
    times.append(time.perf_counter() - start)
print(json.dumps(times))
"""


def _run(code: str, *arguments: str) -> Any:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def measure(model: str, device: str, rounds: int) -> dict[str, Any]:
    """Milliseconds; medians of fresh processes, the first discarded."""
    added = [_run(_IMPORT) for _ in range(rounds + 1)][1:]
    clicks = [_run(_SECOND, model, device) for _ in range(2)][-1]
    return {
        "plugin_ms": round(1000 * median(a["plugin"] for a in added), 1),
        "open_dock_modules_ms": round(1000 * median(a["dock"] for a in added), 1),
        "torch_imported": any(a["torch"] for a in added),
        "first_request_ms": round(1000 * clicks[0]),
        "second_request_ms": round(1000 * clicks[1]),
    }
