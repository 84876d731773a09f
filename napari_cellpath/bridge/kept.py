"""What outlives a layer's table: an object as a journal holds it, and what columns do not tell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from napari_cellpath.bridge.scheme import Call


@dataclass(frozen=True)
class Kept:
    """What a journal holds of one object: place, name, a person's word, the last call.

    ``readings`` is the text of the feature table's column; ``moved`` says that the call is of
    another place. ``box`` is (row0, col0, row1, col1) where the objects have boxes.
    """

    uid: str
    position: tuple[float, float]
    id: str = ""
    correction: str = ""
    seen: bool = False
    call: Call | None = None
    readings: str = ""
    moved: bool = False
    box: tuple[int, int, int, int] | None = None


@dataclass(frozen=True)
class Remembered:
    """What a layer's columns do not tell of an object: its place, call, and how that was made."""

    at: tuple[float, ...]
    call: Call | None
    settings: tuple[Any, ...] | None
    moved: bool
