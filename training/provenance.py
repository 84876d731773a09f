"""Which images a model has learnt from, told by content: a renamed copy is the same image."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from napari_cellpath.core.errors import MissingFileError, RecipeError
from napari_cellpath.models import ModelInfo
from training.datasets import CellData, CellRecord

DIGITS = 16
"""Hexadecimal digits kept of a SHA-256: two of a million images agree by chance once in 1e7."""


def image_hash(path: Path) -> str:
    """First 16 hexadecimal digits of the SHA-256 of a file's bytes.

    Raises
    ------
    MissingFileError
        The image cannot be read.
    """
    try:
        facts = path.stat()
        return _hash_of(path, facts.st_size, facts.st_mtime_ns)
    except OSError as error:
        raise MissingFileError(f"The image {path} cannot be read ({error.strerror}).") from None


@lru_cache(maxsize=100_000)
def _hash_of(path: Path, _size: int, _changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:DIGITS]


def image_hashes(records: Iterable[CellRecord]) -> list[str]:
    """Hashes of the cells' images, each once, sorted."""
    return sorted({image_hash(path) for path in {r.image for r in records}})


def seen_by_content(info: ModelInfo, records: Sequence[CellRecord]) -> list[int]:
    """Row numbers of cells on images that a model was trained or chosen on, by content."""
    known = set(info.data.get("images", ()))
    return [i for i, r in enumerate(records) if image_hash(r.image) in known] if known else []


def seen_by_name(info: ModelInfo, data: CellData) -> list[int]:
    """Row numbers of cells a model was trained or chosen on, by slide name (or file name).

    Names count only within data of the same name or table; an older model that lists no
    training groups has seen everything of its data but its reserve. What a parent was trained
    on, its child was too.
    """
    seen: set[int] = set()
    facts: dict[str, Any] = {**info.data, "reserve": list(info.reserve)} if info.data else {}
    while facts:
        if facts.get("name") == data.name or facts.get("sha256") == data.sha256:
            by_cell = facts.get("split_by") == "cell"
            keys = [r.image.name if by_cell else r.group for r in data.records]
            validation = set(facts.get("validation", ()))
            trained = set(facts.get("trained_on", ()))
            trained = trained or set(keys) - set(facts.get("reserve", ())) - validation
            seen |= {i for i, key in enumerate(keys) if key in trained | validation}
        facts = facts.get("parent", {})
    return sorted(seen)


def refuse_seen(info: ModelInfo, data: CellData, rows: Sequence[int], what: str) -> None:
    """Refuse to measure a model on cells that it was trained or chosen on.

    Parameters
    ----------
    info
        The model.
    data, rows
        The cells to be measured on.
    what
        How the message names them, e.g. ``"the frozen part"``.

    Raises
    ------
    RecipeError
        Naming images and slides.
    """
    seen = set(seen_by_content(info, data.records)) | set(seen_by_name(info, data))
    mine = [data.records[i] for i in rows if int(i) in seen]
    if mine:
        raise RecipeError(
            f"{len(mine)} of {len(rows)} cells of {what} were in the training of {info.name} "
            f"({named(f'{r.image.name} of {r.group}' for r in mine)}); a measurement on them "
            "would flatter the model. Put those slides into another part, or use another model."
        )


def named(keys: Iterable[str], most: int = 5) -> str:
    """The first few of some names, and how many more there are."""
    names = sorted(set(keys))
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
