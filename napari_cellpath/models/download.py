"""Fetch a starter model whose hash is pinned in this release, for installs without weights."""

from __future__ import annotations

import json
import os
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from napari_cellpath.core.errors import ModelError
from napari_cellpath.models.format import INFO, verify

MAX_BYTES = 24 * 2**20


@lru_cache(maxsize=1)
def known_starters() -> dict[str, dict[str, Any]]:
    """Starter models of this release: name to {file name: sha256}; ``starters.json``."""
    text = (files("napari_cellpath.models") / "starters.json").read_text(encoding="utf-8")
    content: dict[str, dict[str, Any]] = json.loads(text)
    return content


def download_starter(name: str, cache: Path) -> Path:
    """Download a starter into ``cache/NAME``, every file checked against its pinned SHA-256.

    The base address comes from ``CELLPATH_WEIGHTS_URL`` (the raw URL of a repository's
    ``weights`` folder); HTTPS only.

    Raises
    ------
    ModelError
        No address is set, the network failed, or a file differs: what is missing and how to
        get it. Nothing half-downloaded is left where a model would be looked for.
    """
    base = os.environ.get("CELLPATH_WEIGHTS_URL", "").rstrip("/")
    how = (
        f"Get the folder weights/{name} from the project's repository and put it into {cache}, "
        "or set CELLPATH_WEIGHTS_URL to the https address of that weights folder."
    )
    if not base:
        raise ModelError(f"The starter model '{name}' is not on this machine. {how}")
    if not base.startswith("https://"):
        raise ModelError(f"CELLPATH_WEIGHTS_URL must be an https address, not '{base}'.")
    import pooch

    folder = cache / name
    downloader = pooch.HTTPDownloader(timeout=30, stream=True)
    try:
        # model.json last: a folder without it is no model, so a broken download is never one.
        for file in sorted(known_starters()[name], key=lambda file: file == INFO):
            pooch.retrieve(
                f"{base}/{name}/{file}",
                known_hash=f"sha256:{known_starters()[name][file]}",
                fname=file,
                path=folder,
                downloader=downloader,
            )
    except Exception as error:  # pooch and requests raise many classes; all mean the same here
        raise ModelError(
            f"The starter model '{name}' could not be downloaded ({error}). {how}"
        ) from (error)
    verify(folder)
    return folder
