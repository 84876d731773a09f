"""The sums of one region on a device: constant memory in its height (papers.md 3.6).

Only as many rows as a tile is high are held: the source as bytes, the weighted sums of the
probabilities as float32. Both lie in rings, so nothing is moved on; a tile that wraps round is
taken and added in two parts. Rows that no later tile reaches leave as bytes.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_cellpath.core.errors import ModelError
from napari_cellpath.slides.region_store import SKIPPED
from napari_cellpath.systems.hspnet.layout import Layout
from napari_cellpath.systems.hspnet.sums import Sums

WINDOW_TILES = 4
"""Tiles' widths that are normalised at once: less is redone where windows overlap, more is held."""
BLOCK = 2000
"""Columns that are read out at once, about: what that needs beside the sums does not grow."""
KINDS = 8
"""Patterns of weights that are kept; inner blocks are all alike."""


@dataclass(frozen=True, eq=False)
class Band:
    """Rows that are final.

    Attributes
    ----------
    row
        First of them, in the padded frame.
    labels
        (n, kept columns) uint8 class numbers; `SKIPPED` where no tile was computed.
    probabilities
        (classes, n, kept columns) uint8, or None.
    """

    row: int
    labels: NDArray[np.uint8]
    probabilities: NDArray[np.uint8] | None = None


class Strips:
    """Source rows and probability sums of a region.

    Parameters
    ----------
    layout
        Of the region.
    n_classes
        Classes of the network.
    normalise
        Images (1, 3, H, W) uint8 to the network's input.
    device
        Where all of it lies.
    probabilities
        Whether bands carry them.
    """

    def __init__(
        self,
        layout: Layout,
        n_classes: int,
        normalise: Callable[[Tensor], Tensor],
        device: torch.device,
        probabilities: bool = False,
    ) -> None:
        self.layout = layout
        self._normalise = normalise
        self._device = device
        self._probabilities = probabilities
        self._weights = torch.from_numpy(layout.weights()).to(device)
        high, wide = layout.tile[0], layout.padded[1]
        self._high = high
        self._source = torch.zeros(high, wide, 3, dtype=torch.uint8, device=device)
        self._step = layout.stride[1] * max(1, BLOCK // layout.stride[1])
        self._sums = Sums(n_classes, high, wide, device, self._step)
        self._n_classes = n_classes
        self._window: Tensor | None = None
        self._window_at = (-1, -1)
        # Tile rows whose weights still count, with the columns that were computed.
        self._recent: deque[tuple[int, tuple[int, ...]]] = deque()
        self._kinds: dict[tuple[object, ...], Tensor] = {}

    @property
    def memory_bytes(self) -> int:
        """Of the two rings, as far as they are held in memory."""
        return self._source.nbytes + self._sums.memory_bytes

    def add_source(self, row: int, pixels: NDArray[np.uint8]) -> None:
        """Take in source rows (n, width, 3) of the padded frame, from ``row`` on."""
        given = torch.from_numpy(pixels)
        for offset, at, count in self._parts(row, row + len(pixels)):
            self._source[at : at + count].copy_(given[offset : offset + count])
        self._window_at = (-1, -1)

    def begin_row(self, row: int, cols: Sequence[int]) -> None:
        """Note that a tile row is being added, and which of its tiles (all of them, in order)."""
        self._recent.append((row, tuple(cols)))

    def tile(self, row: int, col: int) -> Tensor:
        """The normalised input (1, 3, tile, tile) at a place: a view, valid until the next one."""
        high, wide = self.layout.tile
        width = self.layout.padded[1]
        at_row, at_col = self._window_at
        if (
            self._window is None
            or at_row != row
            or not (at_col <= col and col + wide <= at_col + self._window.shape[3])
        ):
            end = min(width, col + WINDOW_TILES * wide)
            parts = [
                self._source[at : at + count, col:end]
                for _, at, count in self._parts(row, row + high)
            ]
            image = parts[0] if len(parts) == 1 else torch.cat(parts)
            self._window = self._normalise(image.permute(2, 0, 1).unsqueeze(0))
            self._window_at = row, col
            at_col = col
        return self._window[..., col - at_col : col - at_col + wide]

    def add(self, row: int, col: int, probabilities: Tensor) -> None:
        """Add a tile's probabilities (classes, tile, tile), weighted."""
        for left, sums in self._sums.parts(col, col + self.layout.tile[1]):
            cols = slice(left - col, left - col + sums.shape[2])
            for offset, at, count in self._parts(row, row + self._high):
                rows = slice(offset, offset + count)
                sums[:, at : at + count].addcmul_(
                    probabilities[:, rows, cols], self._weights[rows, cols]
                )

    def finish(self, row: int, end: int, emit: bool = True) -> list[Band]:
        """Rows from ``row`` to ``end`` are final: give them out, and make room.

        Raises
        ------
        ModelError
            The network gave something that is no number.
        """
        while self._recent and self._recent[0][0] + self._high <= row:
            self._recent.popleft()
        parts = list(self._parts(row, end))
        bands = [self._blank(row + offset, count) for offset, _, count in parts] if emit else []
        for left, sums in self._sums.parts(0, self.layout.padded[1], backwards=True):
            for number, (_, at, count) in enumerate(parts):
                rows = sums[:, at : at + count]
                if emit:
                    self._fill(bands[number], rows, left)
                rows.zero_()
        return bands

    def _blank(self, row: int, count: int) -> Band:
        shape = count, self.layout.shape[1]
        shares = np.empty((self._n_classes, *shape), np.uint8) if self._probabilities else None
        return Band(row, np.empty(shape, np.uint8), shares)

    def _fill(self, band: Band, rows: Tensor, left: int) -> None:
        """Write a band's columns from ``left`` of the frame on, as far as they are kept."""
        offset, width = self.layout.offset[1], self.layout.shape[1]
        kept = max(left, offset), min(left + rows.shape[2], offset + width)
        for begin, end in self._blocks(*kept):
            sums = rows[:, :, begin - left : end - left]
            weights = self._weight_sums(band.row, sums.shape[1], begin, end)
            here = slice(begin - offset, end - offset)
            band.labels[:, here] = self._labels(sums, weights).cpu().numpy()
            if band.probabilities is not None:
                found = sums / weights.clamp_min(1e-12)
                shares = found.mul_(255).round_().to(torch.uint8)
                band.probabilities[:, :, here] = shares.cpu().numpy()

    def _blocks(self, begin: int, end: int) -> Iterator[tuple[int, int]]:
        """Columns cut where tiles begin, so that inner blocks lie alike under the tiles."""
        while begin < end:
            following = min(end, begin - begin % self._step + self._step)
            yield begin, following
            begin = following

    def _labels(self, sums: Tensor, weights: Tensor) -> Tensor:
        labels = torch.zeros(sums.shape[1:], dtype=torch.uint8, device=self._device)
        # Class by class: torch's argmax over the first dimension is several times slower.
        best = sums[0].clone()
        for number in range(1, len(sums)):
            higher = sums[number] > best
            labels.masked_fill_(higher, number)
            torch.maximum(best, sums[number], out=best)
        if not bool(torch.isfinite(best).all()):
            raise ModelError("The network gave no numbers; its weights are damaged.")
        return labels.masked_fill_(weights <= 0, SKIPPED)

    def _weight_sums(self, row: int, count: int, begin: int, end: int) -> Tensor:
        """Sums of the tiles' weights over rows row..row+count, (count, end - begin)."""
        high, wide = self.layout.tile
        reach = [
            (start - row, tuple(c - begin for c in cols[bisect_right(cols, begin - wide) :
                                                        bisect_left(cols, end)]))
            for start, cols in self._recent
            if row - high < start < row + count
        ]  # fmt: skip
        key = count, end - begin, *reach
        if key in self._kinds:
            return self._kinds[key]
        total = torch.zeros(count, end - begin, device=self._device)
        for start, cols in reach:
            first, last = max(0, start), min(count, start + high)
            rows = self._weights[first - start : last - start]
            for col in cols:
                left, right = max(0, col), min(end - begin, col + wide)
                total[first:last, left:right] += rows[:, left - col : right - col]
        if len(self._kinds) >= KINDS:
            self._kinds.clear()
        self._kinds[key] = total
        return total

    def _parts(self, row: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Rows of the frame in the ring: offset from ``row``, place in the ring, how many."""
        offset = 0
        while row + offset < end:
            at = (row + offset) % self._high
            count = min(end - row - offset, self._high - at)
            yield offset, at, count
            offset += count


def blend_image(
    pixels: NDArray[np.uint8],
    layout: Layout,
    network: Callable[[Tensor], Tensor],
    normalise: Callable[[Tensor], Tensor],
    n_classes: int,
) -> NDArray[np.float32]:
    """Blended probabilities (classes, H, W) of a whole image: the strip engine's sums, unrounded.

    For tests and comparisons; holds the whole answer.

    Parameters
    ----------
    pixels
        (H, W, 3) uint8, as large as the layout's padded frame.
    layout
        Of the image.
    network
        Inputs (1, 3, tile, tile) to probabilities (1, classes, tile, tile).
    normalise
        Images (1, 3, H, W) uint8 to the network's input.
    n_classes
        Classes of the network.
    """
    strips = Strips(layout, n_classes, normalise, torch.device("cpu"))
    out = np.empty((n_classes, *layout.padded), np.float32)
    read = 0
    with torch.inference_mode():
        for number, row in enumerate(layout.row_starts):
            end = row + layout.tile[0]
            begin = max(read, row)
            strips.add_source(begin, np.ascontiguousarray(pixels[begin:end]))
            read = end
            strips.begin_row(row, layout.col_starts)
            for col in layout.col_starts:
                strips.add(row, col, network(strips.tile(row, col))[0])
            first, last = layout.band(number)
            for offset, at, count in strips._parts(first, last):
                weights = strips._weight_sums(first + offset, count, 0, layout.padded[1])
                rows = slice(first + offset, first + offset + count)
                for left, sums in strips._sums.parts(0, layout.padded[1]):
                    cols = slice(left, left + sums.shape[2])
                    out[:, rows, cols] = (sums[:, at : at + count] / weights[:, cols]).numpy()
            strips.finish(first, last, emit=False)
    return out
