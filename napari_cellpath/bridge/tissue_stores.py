"""Where regions that docks segment are kept: stores that a later session goes on with.

A store is a cache: the request makes it again. Equal requests have the same folder, so pressing
the button again after a cancel, or after napari was closed, goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable
from pathlib import Path

from napari_cellpath.core.requests import SegmentRequest
from napari_cellpath.project.unsaved import sessions_folder

KEPT = 20
"""Stores kept; the oldest others go when a new one is begun."""
SUFFIX = ".ome.zarr"


def stores_folder() -> Path:
    """The account's folder of stores; ``CELLPATH_STATE`` puts it elsewhere."""
    return sessions_folder().parent / "tissue"


def store_for(request: SegmentRequest, image_key: str, model: str) -> Path:
    """The folder of a request's store, whatever ``request.store`` says.

    Parameters
    ----------
    request
        Region and settings.
    image_key
        Identity of the image, by its content.
    model
        Name and hash of the model.
    """
    said = [
        image_key, request.image.mpp, model, request.region, request.polygon, request.stride,
        request.blend, request.mode, request.probabilities, request.skip_empty,
    ]  # fmt: skip
    digest = hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]
    return stores_folder() / f"{image_key[:8]}-{digest}{SUFFIX}"


def prune(in_use: Iterable[Path] = ()) -> int:
    """Delete the oldest stores beyond `KEPT` that nobody uses; returns how many."""
    folder, used = stores_folder(), {Path(p).resolve() for p in in_use}
    if not folder.is_dir():
        return 0
    stores = sorted(folder.glob(f"*{SUFFIX}"), key=lambda p: p.stat().st_mtime, reverse=True)
    gone = [p for p in stores[KEPT:] if p.resolve() not in used]
    for path in gone:
        shutil.rmtree(path, ignore_errors=True)
    return len(gone)
