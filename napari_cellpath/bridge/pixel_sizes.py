"""Pixel sizes that a person gave for images which state none, kept by the image's content."""

from __future__ import annotations

import json
from contextlib import suppress

from napari_cellpath.core.errors import CellpathError
from napari_cellpath.core.files import write_atomically
from napari_cellpath.core.geometry import plausible_mpp
from napari_cellpath.project.unsaved import sessions_folder

KEPT = 2000
NAME = "pixel-sizes.json"


def _read() -> dict[str, float]:
    path = sessions_folder().parent / NAME
    with suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(found, dict):
            return {str(k): float(v) for k, v in found.items() if isinstance(v, int | float)}
    return {}


def remembered(key: str) -> float | None:
    """Micrometres per pixel that a person gave for the image of this key, None if nobody did."""
    return plausible_mpp(_read().get(key))


def remember(key: str, mpp: float | None) -> None:
    """Keep a pixel size for next time; None forgets it. What cannot be written is not kept."""
    sizes = _read()
    sizes.pop(key, None)
    if mpp is not None:
        sizes[key] = mpp
    latest = dict(list(sizes.items())[-KEPT:])
    path = sessions_folder().parent / NAME
    with suppress(OSError, CellpathError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(latest, indent=0) + "\n")
