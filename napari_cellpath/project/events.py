"""Events of the journal: what changed, from what to what, by whom and when.

An event carries both sides of every change, so that it can be applied, taken back, and read by
a person years later, without knowing what came before it.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json  # three times as fast as json's

from napari_cellpath.core.errors import ProjectError

Facts = Mapping[str, Any]


class Kind(StrEnum):
    """What sort of gesture an event is."""

    ADD = "add"
    DELETE = "delete"
    MOVE = "move"
    LABEL = "label"
    PAINT = "paint"
    IMPORT = "import"
    UNDO = "undo"
    REDO = "redo"
    PREDICT = "predict"
    SEE = "see"
    READ = "read"  # a blind second reading
    IMAGE = "image"
    SPLIT = "split"
    SETTING = "setting"
    RUN = "run"


UNDOABLE = frozenset({Kind.ADD, Kind.DELETE, Kind.MOVE, Kind.LABEL, Kind.PAINT, Kind.IMPORT})
"""Gestures that Ctrl-Z takes back. What a model said, and that somebody looked, is history."""

TABLES = ("objects", "images", "groups", "settings", "runs")


class Change(NamedTuple):
    """One thing before and after.

    ``was`` None: it was not there; ``now`` None: it is gone. Otherwise both hold the same keys,
    those that differ; a key whose value is None is absent on that side.
    """

    table: str
    uid: str
    was: Facts | None
    now: Facts | None

    def inverse(self) -> Change:
        """The way back."""
        return Change(self.table, self.uid, self.now, self.was)


@dataclass(frozen=True, eq=False)
class Stroke:
    """Painted pixels of one raster.

    Attributes
    ----------
    raster
        Name of the raster, ``IMAGE/SYSTEM``.
    row, col
        Level-0 pixel of the first pixel of the arrays.
    before, after
        (h, w) labels of one unsigned integer type.
    """

    raster: str
    row: int
    col: int
    before: NDArray[Any]
    after: NDArray[Any]

    def inverse(self) -> Stroke:
        """The way back."""
        return replace(self, before=self.after, after=self.before)


class Event(NamedTuple):
    """One gesture.

    Attributes
    ----------
    kind, changes, strokes
        What happened.
    gesture
        Identity of the event; ``target`` is that of the event an undo or redo takes back.
    author, at, window
        Who, when (ISO 8601, UTC), and in which window of which process.
    seq
        Place in the journal, from 1; 0 while it is not written yet.
    """

    kind: Kind
    changes: tuple[Change, ...]
    strokes: tuple[Stroke, ...] = ()
    gesture: str = ""
    target: str = ""
    author: str = ""
    at: str = ""
    window: str = ""
    seq: int = 0


_RAW, _PACKED = b"J", b"Z"
_SMALL = 512
MAX_PAYLOAD = 2**31


def encode(event: Event) -> tuple[bytes, bytes]:
    """Payload and pixels of an event, as they stand in the journal."""
    content = {
        "changes": event.changes,
        "strokes": [
            [s.raster, s.row, s.col, list(s.after.shape), s.after.dtype.str] for s in event.strokes
        ],
    }
    text = json.dumps(content, separators=(",", ":"), allow_nan=False).encode()
    payload = _RAW + text if len(text) < _SMALL else _PACKED + zlib.compress(text, 1)
    raw = b"".join(
        np.ascontiguousarray(side).tobytes() for s in event.strokes for side in (s.before, s.after)
    )
    return payload, zlib.compress(raw, 1) if raw else b""


def decode(payload: bytes, pixels: bytes) -> tuple[tuple[Change, ...], tuple[Stroke, ...]]:
    """Inverse of `encode`.

    Raises
    ------
    ProjectError
        The bytes are no event.
    """
    try:
        text = payload[1:]
        if payload[:1] == _PACKED:
            text = _inflate(text)
        content = from_json(text)
        changes = tuple(Change(*c) for c in content["changes"])
        for change in changes:
            if change.table not in TABLES:
                raise ValueError("unknown table")
        if not content["strokes"]:
            return changes, ()
        raw, at = _inflate(pixels), 0
        strokes = []
        for raster, row, col, (height, width), kind in content["strokes"]:
            sides = []
            dtype = np.dtype(kind)
            if dtype.kind != "u":
                raise ValueError("labels are unsigned integers")
            for _ in range(2):
                side = np.frombuffer(raw, dtype, height * width, at).reshape(height, width)
                at += side.nbytes
                sides.append(side)
            strokes.append(Stroke(raster, row, col, *sides))
    except (ValueError, KeyError, TypeError, IndexError, zlib.error, RecursionError) as error:
        raise ProjectError(f"an event cannot be read ({error})") from None
    return changes, tuple(strokes)


def _inflate(packed: bytes) -> bytes:
    inflater = zlib.decompressobj()
    raw = inflater.decompress(packed, MAX_PAYLOAD)
    if inflater.unconsumed_tail:
        raise ValueError("it claims more than 2 GB")
    return raw


def chain(before: bytes, event: Event, payload: bytes, pixels: bytes) -> bytes:
    """Digest of an event and, through ``before``, of all that precede it (32 bytes).

    A changed, removed or inserted event breaks the chain from there on.
    """
    head = "\n".join(
        (event.kind, event.gesture, event.target, event.author, event.at, event.window)
    )
    lengths = b"%d %d\n" % (len(head), len(payload))  # so that no byte can change sides
    return hashlib.sha256(b"".join((before, lengths, head.encode(), payload, pixels))).digest()
