"""A generated field of a blood smear with known regions, for tests, demos and tutorials.

Cells add optical density, alone or in clumps, and dim a pale field. They are drawn so that the six
types of papers.md 2.1 can be told apart by eye; no model is trained or measured on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_cellpath.core.vocabulary import RBC_TYPES
from napari_cellpath.samples.drawing import FloatArray, grains, scattered, texture
from napari_cellpath.samples.ome import write_ome

SMEAR_MPP = 0.17
"""Micrometres per pixel: a red cell of 7.2 um is about 42 pixels wide."""
_RADII = (18.5, 23.0)
_CLUMPED = 0.4  # share of the regions that are several touching cells
_OVAL, _ELON, _RETI, _GRAN, _ECHI, _STOM = range(len(RBC_TYPES))
_SHARES = np.array([0.5, 0.12, 0.08, 0.1, 0.1, 0.1])  # of the types, over cells

_BRIGHT_FIELD = np.array([170, 182, 180], np.float32)
_HAEMOGLOBIN = np.array([116, 96, 138], np.float32)
_POLYCHROMATIC = np.array([112, 108, 164], np.float32)
_BASOPHILIC = np.array([58, 48, 112], np.float32)
_PLATELET = np.array([128, 72, 124], np.float32)


@dataclass(frozen=True, eq=False)
class SmearField:
    """A generated field and the truth about it.

    Attributes
    ----------
    image
        uint8 (H, W, 3).
    labels
        int32 (H, W): cell i has label i + 1, background 0; where cells overlap, the upper one.
    boxes
        int64 (n, 4): row0, col0, row1, col1 of each region of touching cells, half-open, by row,
        then column.
    types
        bool (n, 6): which of `RBC_TYPES` each region holds.
    n_cells
        (n,): cells of each region.
    mpp
        Micrometres per pixel.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.int32]
    boxes: NDArray[np.int64]
    types: NDArray[np.bool_]
    n_cells: NDArray[np.int64]
    mpp: float = SMEAR_MPP

    @property
    def abnormal(self) -> NDArray[np.bool_]:
        """(n,): whether a region holds any type but the first."""
        found: NDArray[np.bool_] = self.types[:, 1:].any(axis=1)
        return found

    def save(self, path: Path) -> Path:
        """Write the image as an OME-TIFF with its pixel size."""
        return write_ome(path, self.image, self.mpp)


def smear_field(
    seed: int = 0, shape: tuple[int, int] = (600, 800), n_regions: int = 32
) -> SmearField:
    """Draw a field; equal arguments give equal pixels.

    Parameters
    ----------
    seed
        Of everything random in it.
    shape
        Height and width, at least 128 each.
    n_regions
        Single cells and clumps of two to four; none touches another or the border.

    Raises
    ------
    ValueError
        That many do not fit.
    """
    if min(shape) < 128:
        raise ValueError(f"a field needs at least 128 x 128 pixels, not {shape}")
    rng = np.random.default_rng(seed)
    sizes = np.where(rng.random(n_regions) < _CLUMPED, rng.integers(2, 5, n_regions), 1)
    clumps = [_Clump(rng, int(size)) for size in sizes]
    # The places are given for outlines that wander by a third; these keep within their reach.
    places = scattered(rng, shape, np.array([clump.reach for clump in clumps]) / 1.35)
    order = sorted(range(n_regions), key=lambda n: places[n])
    painter = _Painter(rng, shape)
    boxes, types = [], np.zeros((n_regions, len(RBC_TYPES)), bool)
    for at, number in enumerate(order):
        clump, middle = clumps[number], places[number]
        first = painter.n_cells
        for (row, col), cell in zip(clump.places, clump.cells, strict=True):
            painter.add(middle[0] + row, middle[1] + col, cell)
            types[at, cell.kind] = True
        rows, cols = np.nonzero(painter.labels > first)
        boxes.append((rows.min(), cols.min(), rows.max() + 1, cols.max() + 1))
    edges = np.array(boxes, np.int64)
    by_place = np.lexsort((edges[:, 1], edges[:, 0]))
    return SmearField(
        painter.develop(), painter.labels, edges[by_place], types[by_place],
        sizes[order][by_place].astype(np.int64),
    )  # fmt: skip


@dataclass(frozen=True)
class _Cell:
    """A cell to be drawn: its type, half its length and half its width, its turn and its bend."""

    kind: int
    long: float
    short: float
    turn: float
    bend: float


def _random_cell(rng: np.random.Generator) -> _Cell:
    kind = int(rng.choice(len(RBC_TYPES), p=_SHARES))
    radius, turn = rng.uniform(*_RADII), rng.uniform(0, np.pi)
    if kind == _ELON:
        sickle = rng.random() < 0.5
        stretch = rng.uniform(1.65, 1.95)
        return _Cell(kind, radius * stretch / 1.25, radius / stretch, turn, 0.5 if sickle else 0.0)
    stretch = rng.uniform(1.0, 1.18) if kind == _OVAL else rng.uniform(1.0, 1.06)
    return _Cell(kind, radius * stretch, radius / stretch, turn, 0.0)


class _Clump:
    """Cells that touch or overlap, placed round their common middle."""

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        self.cells = [_random_cell(rng) for _ in range(size)]
        places = [(0.0, 0.0)]
        while len(places) < size:
            host = int(rng.integers(len(places)))
            turn = rng.uniform(0, 2 * np.pi)
            # Overlapping by a quarter of the narrower cell: touching, whatever their turns.
            step = 1.5 * min(self.cells[host].short, self.cells[len(places)].short)
            place = places[host][0] + step * np.sin(turn), places[host][1] + step * np.cos(turn)
            apart = [np.hypot(place[0] - r, place[1] - c) for r, c in places]
            if min(apart) > 0.8 * step:
                places.append(place)
        middle = np.mean(places, axis=0)
        self.places = [(row - middle[0], col - middle[1]) for row, col in places]
        self.reach = max(
            float(np.hypot(*place)) + 1.1 * cell.long
            for place, cell in zip(self.places, self.cells, strict=True)
        )


class _Painter:
    """Collects optical density (H, W, 3) and develops it into a picture."""

    def __init__(self, rng: np.random.Generator, shape: tuple[int, int]) -> None:
        self.rng = rng
        self.labels = np.zeros(shape, np.int32)
        self.n_cells = 0
        self._density = np.zeros((*shape, 3), np.float32)
        self._fine, self._coarse = grains(rng, 1.0), grains(rng, 40.0)
        self._reticulum = grains(rng, 1.8)
        self._scatter_platelets()

    def _scatter_platelets(self) -> None:
        """Specks smaller than any cell, which are no regions."""
        height, width = self.labels.shape
        specks = np.zeros((height, width), np.float32)
        for _ in range(max(1, height * width // 40_000)):
            specks[int(self.rng.integers(height)), int(self.rng.integers(width))] = 1.0
        specks = ndimage.gaussian_filter(specks, 2.4) * (2 * np.pi * 2.4**2)
        self._add((slice(None), slice(None)), 0.6 * specks, _PLATELET)

    def _add(
        self, window: tuple[slice, slice], amount: FloatArray, colour: NDArray[np.float32]
    ) -> None:
        """Add ``amount`` (1 = the full colour) of a dye to the density."""
        self._density[window] += amount[..., None] * np.log10(_BRIGHT_FIELD / colour)

    def add(self, row: float, col: float, cell: _Cell) -> None:
        """Draw one cell."""
        reach = 1.15 * cell.long + 3
        top, left = max(int(row - reach), 0), max(int(col - reach), 0)
        bottom = min(int(row + reach) + 2, self.labels.shape[0])
        right = min(int(col + reach) + 2, self.labels.shape[1])
        window = slice(top, bottom), slice(left, right)
        rows = np.arange(top, bottom, dtype=np.float32)[:, None] - np.float32(row)
        cols = np.arange(left, right, dtype=np.float32)[None, :] - np.float32(col)
        along = (cols * np.cos(cell.turn) + rows * np.sin(cell.turn)) / cell.long
        across = (rows * np.cos(cell.turn) - cols * np.sin(cell.turn)) / cell.short
        across = across - cell.bend * (along**2 - 0.35) * cell.long / cell.short / 2
        if cell.kind == _ELON:  # pointed ends
            across = across / np.sqrt(np.clip(1.25 - 0.6 * along**2, 0.2, None))
        edge = np.ones_like(along)
        if cell.kind == _ECHI:
            spines = int(self.rng.integers(11, 16))
            edge = 1 + 0.09 * np.cos(spines * np.arctan2(across, along))
        away = np.hypot(along, across)
        inward = ((edge - away) * cell.short).astype(np.float32)
        self.n_cells += 1
        self.labels[window][inward > 0] = self.n_cells
        self._paint(window, cell, inward, along, across)

    def _paint(
        self,
        window: tuple[slice, slice],
        cell: _Cell,
        inward: FloatArray,
        along: FloatArray,
        across: FloatArray,
    ) -> None:
        rng = self.rng
        body: FloatArray = 1 / (1 + np.exp(-np.clip(inward / 0.8, -30, 30)))
        away = np.hypot(along, across)
        pallor = {
            _ELON: 0.0 * away,
            _ECHI: 0.12 * np.exp(-((away / 0.4) ** 2)),
            _STOM: 0.75 * np.exp(-((along / 0.5) ** 2) - (across / 0.16) ** 2),
        }.get(cell.kind, rng.uniform(0.4, 0.65) * np.exp(-((away / 0.4) ** 2)))
        grain = 1 + 0.04 * texture(rng, self._fine, inward.shape)
        depth = rng.uniform(0.8, 1.05)
        colour = _POLYCHROMATIC if cell.kind == _RETI else _HAEMOGLOBIN
        colour = colour + rng.normal(0, 3, 3).astype(np.float32)
        self._add(window, (depth * body * (1 - pallor) * grain).astype(np.float32), colour)
        inner = body * (away < 0.85)
        if cell.kind == _RETI:
            threads = np.exp(-((texture(rng, self._reticulum, inward.shape) / 0.25) ** 2))
            self._add(window, (0.45 * inner * threads).astype(np.float32), _BASOPHILIC)
        if cell.kind == _GRAN:
            dots = np.zeros_like(inward)
            for _ in range(int(rng.integers(12, 22))):
                turn, out = rng.uniform(0, 2 * np.pi), 0.75 * np.sqrt(rng.random())
                nearness = np.hypot(along - out * np.cos(turn), across - out * np.sin(turn))
                dots += np.exp(-((nearness * cell.short / 1.2) ** 2))
            self._add(window, (0.8 * body * np.minimum(dots, 1)).astype(np.float32), _BASOPHILIC)

    def develop(self) -> NDArray[np.uint8]:
        """Light through the density, out of focus by a little, with the camera's noise."""
        shape = self.labels.shape
        rows = (np.arange(shape[0], dtype=np.float32) % len(self._coarse)).astype(int)
        cols = (np.arange(shape[1], dtype=np.float32) % len(self._coarse)).astype(int)
        lamp = 1 + 0.02 * self._coarse[np.ix_(rows, cols)]
        seen = _BRIGHT_FIELD * lamp[..., None] * 10**-self._density
        seen = ndimage.gaussian_filter(seen, (0.8, 0.8, 0))
        seen += self.rng.normal(0, 1.6, seen.shape)
        return np.clip(np.rint(seen), 0, 255).astype(np.uint8)
