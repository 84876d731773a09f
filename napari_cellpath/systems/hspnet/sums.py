"""Where the sums of a region lie: on the device, those of a wide region mostly in a file.

Wide sums are cut into blocks of columns. A tile row is added from left to right and finished from
right to left, so two blocks at a time are held; the others wait in a nameless file, which the
system keeps in its cache as long as nobody else needs the memory.
"""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
from collections import OrderedDict
from collections.abc import Iterator
from typing import IO

import torch
from torch import Tensor

HELD_WHOLE = 64 << 20
"""Bytes of sums up to which a file is not worth its while."""
BLOCK_BYTES = 16 << 20
"""Of a block of a wide region, about."""
HELD = 2
"""Blocks in memory: a tile may lie on two."""


class Sums:
    """Sums (classes, rows, columns), float32, of zeros to begin with.

    Parameters
    ----------
    n_classes, high, wide
        Their shape.
    device
        What they are computed with; only a processor's are ever put into a file.
    unit
        Blocks are cut at multiples of so many columns.
    """

    def __init__(
        self, n_classes: int, high: int, wide: int, device: torch.device, unit: int = 1
    ) -> None:
        self._shape = n_classes, high
        self._wide = wide
        self._device = device
        self._step = wide
        self._file: IO[bytes] | None = None
        column = n_classes * high * 4
        if device.type == "cpu" and column * wide > HELD_WHOLE:
            step = unit * max(1, BLOCK_BYTES // column // unit)
            self._file = _nameless(column * step * math.ceil(wide / step))
            if self._file is not None:
                self._step = step
        self._held: OrderedDict[int, Tensor] = OrderedDict()
        self._known: set[int] = set()

    @property
    def memory_bytes(self) -> int:
        """What is held in memory."""
        return sum(block.nbytes for block in self._held.values())

    def parts(
        self, begin: int, end: int, *, backwards: bool = False
    ) -> Iterator[tuple[int, Tensor]]:
        """The columns from ``begin`` to ``end``: first column and view (classes, rows, columns).

        A view is valid until the next one is asked for, and is written to as the sums are.
        """
        numbers = range(begin // self._step, -(-end // self._step))
        for number in reversed(numbers) if backwards else numbers:
            first = number * self._step
            block = self._block(number)
            left, right = max(begin, first), min(end, first + self._step)
            yield left, block[:, :, left - first : right - first]

    def _block(self, number: int) -> Tensor:
        if number in self._held:
            self._held.move_to_end(number)
            return self._held[number]
        if len(self._held) >= HELD:
            gone, block = self._held.popitem(last=False)
            self._put(gone, block)
        else:
            columns = min(self._step, self._wide)
            block = torch.empty((*self._shape, columns), device=self._device)
        self._held[number] = self._filled(number, block)
        return block

    def _put(self, number: int, block: Tensor) -> None:
        assert self._file is not None  # else there is one block  # noqa: S101
        self._file.seek(number * block.nbytes)
        self._file.write(block.numpy().data)
        self._known.add(number)

    def _filled(self, number: int, block: Tensor) -> Tensor:
        """A block's sums, read into the memory of another."""
        if number not in self._known:
            return block.zero_()
        assert self._file is not None  # it was put there  # noqa: S101
        self._file.seek(number * block.nbytes)
        self._file.readinto(block.numpy().data.cast("B"))  # type: ignore[attr-defined]
        return block


def _nameless(size: int) -> IO[bytes] | None:
    """A file of this size without a name; None where there is no room for it."""
    with contextlib.suppress(OSError):
        file = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the sums
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)  # a disk must not be full half-way
        except OSError:
            file.close()
            raise
        return file
    return None
