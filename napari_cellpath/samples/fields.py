"""A generated Pap-smear field with known nuclei, for tests, demos and machines without data.

The picture is built as light is absorbed: every cell adds optical density, overlapping cells
add up, and the sum dims a mottled bright field (Beer-Lambert). It looks like a smear; it is not
evidence of anything, and no model is trained or measured on it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_cellpath.core.geometry import centroids
from napari_cellpath.samples.drawing import (
    FloatArray,
    grains,
    nucleus_outline,
    polar_window,
    scattered,
    texture,
)

HERLEV_MPP = 0.201
"""Micrometres per pixel of the Herlev images (papers.md 1), whose sizes the cells imitate."""

# Transmitted colours of thick cytoplasm and of nuclei, as seen in conventional Pap smears.
_BRIGHT_FIELD = np.array([222, 217, 207], np.float32)
_CYANOPHILIC = np.array([[160, 182, 174], [160, 176, 188], [168, 178, 180]], np.float32)
_EOSINOPHILIC = np.array([[218, 158, 168], [212, 166, 172], [220, 172, 166]], np.float32)
_DYSPLASTIC = np.array([[132, 150, 172], [146, 152, 178], [150, 164, 168]], np.float32)
_NORMAL_NUCLEUS = np.array([104, 80, 118], np.float32)
_ABNORMAL_NUCLEUS = np.array([62, 46, 88], np.float32)


@dataclass(frozen=True, eq=False)
class CytologyField:
    """A generated field and the truth about it.

    Attributes
    ----------
    image
        uint8 (H, W, 3).
    labels
        int32 (H, W): nucleus i has label i + 1, background 0.
    centres
        float64 (n, 2): centroid (row, col) of each nucleus, napari convention.
    abnormal
        bool (n,): drawn as dysplastic.
    mpp
        Micrometres per pixel.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.int32]
    centres: NDArray[np.float64]
    abnormal: NDArray[np.bool_]
    mpp: float = HERLEV_MPP


def cytology_field(
    seed: int = 0,
    shape: tuple[int, int] = (1024, 1024),
    n_cells: int = 24,
    abnormal_share: float = 0.4,
) -> CytologyField:
    """Draw a field; equal arguments give equal pixels.

    Parameters
    ----------
    seed
        Of everything random in it.
    shape
        Height and width, at least 128 each.
    n_cells
        Nuclei; none touches another or the border.
    abnormal_share
        Fraction of nuclei drawn large, irregular, dark and with little cytoplasm.

    Raises
    ------
    ValueError
        That many nuclei do not fit.
    """
    if min(shape) < 128:
        raise ValueError(f"a field needs at least 128 x 128 pixels, not {shape}")
    rng = np.random.default_rng(seed)
    abnormal = np.zeros(n_cells, bool)
    abnormal[: round(n_cells * abnormal_share)] = True
    rng.shuffle(abnormal)
    radii = np.where(abnormal, rng.uniform(24, 38, n_cells), rng.uniform(13, 18, n_cells))
    places = scattered(rng, shape, radii)

    painter = _Painter(rng, shape)
    painter.scatter_debris()
    # Cytoplasm first: in a smear all of it is translucent, and nuclei show through.
    for (row, col), radius, is_abnormal in zip(places, radii, abnormal, strict=True):
        painter.add_cytoplasm(row, col, radius, bool(is_abnormal))
    labels = np.zeros(shape, np.int32)
    for number, ((row, col), radius) in enumerate(zip(places, radii, strict=True), start=1):
        painter.add_nucleus(row, col, radius, bool(abnormal[number - 1]), labels, number)
    return CytologyField(painter.develop(), labels, centroids(labels), abnormal)


class _Painter:
    """Collects optical density (H, W, 3) and develops it into a picture."""

    def __init__(self, rng: np.random.Generator, shape: tuple[int, int]) -> None:
        self.rng = rng
        self.shape = shape
        self.density = np.zeros((*shape, 3), np.float32)
        self._fine = grains(rng, 1.0)
        self._medium = grains(rng, 3.0)
        self._coarse = grains(rng, 11.0)

    def _add(
        self, window: tuple[slice, slice], amount: FloatArray, colour: NDArray[np.float32]
    ) -> None:
        """Add ``amount`` (1 = the full colour) of a dye to the density."""
        full = np.log10(_BRIGHT_FIELD / colour)
        self.density[window] += np.maximum(amount, 0)[..., None] * full

    def scatter_debris(self) -> None:
        """Specks, rods and faint streaks of mucus on the glass."""
        rng, (height, width) = self.rng, self.shape
        specks = np.zeros(self.shape, np.float32)
        area = height * width / 2**20
        for _ in range(int(80 * area)):
            row, col = rng.uniform(0, height), rng.uniform(0, width)
            angle, length = rng.uniform(0, np.pi), rng.exponential(4.0)
            steps = np.arange(0, 1 + length)
            rows = np.clip(row + steps * np.sin(angle), 0, height - 1).astype(int)
            cols = np.clip(col + steps * np.cos(angle), 0, width - 1).astype(int)
            specks[rows, cols] += rng.uniform(0.2, 1.2)
        specks = ndimage.gaussian_filter(specks, 1.0) * 2.6
        self._add((slice(None), slice(None)), specks, np.array([110, 100, 120], np.float32))

    def add_cytoplasm(self, row: float, col: float, nucleus: float, abnormal: bool) -> None:
        """A translucent polygon with soft, wavy edges, grains, and folds in wide cells."""
        rng = self.rng
        if abnormal:
            size = nucleus * rng.uniform(1.5, 2.1)
            colour = _DYSPLASTIC[rng.integers(len(_DYSPLASTIC))]
            if rng.random() < 0.15:
                colour = _EOSINOPHILIC[rng.integers(len(_EOSINOPHILIC))]
            depth = rng.uniform(0.75, 1.15)
        else:
            size = rng.uniform(95, 135)
            family = _EOSINOPHILIC if rng.random() < 0.4 else _CYANOPHILIC
            colour = family[rng.integers(len(family))]
            depth = rng.uniform(0.45, 0.8)
        colour = colour + rng.normal(0, 4, 3).astype(np.float32)
        # The nucleus is seldom in the middle of its cell.
        away = 0.18 * (size - nucleus)
        row, col = row + rng.normal(0, away / 2), col + rng.normal(0, away / 2)
        outline = self._polygon(size)
        window, distance, angle = polar_window(self.shape, row, col, 1.4 * size)
        inward = outline[angle] - distance + 1.5 * texture(self.rng, self._medium, distance.shape)
        edge = 1.6 if abnormal else rng.uniform(1.5, 4.0)
        body = 1 / (1 + np.exp(-np.clip(inward / edge, -30, 30)))
        grain = (
            1.0
            + 0.13 * texture(self.rng, self._medium, distance.shape)
            + 0.16 * texture(self.rng, self._coarse, distance.shape)
            + 0.11 * texture(self.rng, self._fine, distance.shape)
        )
        # Thin towards the rim, which itself catches a line of stain.
        thickness = 0.72 + 0.4 * np.clip(inward / size, 0, 1)
        rim = 0.16 * np.exp(-(((inward - 2.5) / 1.8) ** 2))
        amount = depth * (body * thickness * grain + rim)
        if not abnormal:
            amount = amount + depth * body * self._folds(distance, angle, size)
            granules = np.maximum(texture(self.rng, self._fine, distance.shape) - 2.0, 0)
            amount = amount + 0.6 * body * granules
        self._add(window, amount.astype(np.float32), colour)

    def _polygon(self, size: float) -> FloatArray:
        """Radius at 720 angles of a rounded polygon of five to eight corners."""
        rng = self.rng
        corners = int(rng.integers(5, 9))
        turns = (np.arange(corners) + rng.uniform(-0.32, 0.32, corners)) * (2 * np.pi / corners)
        reach = size * rng.uniform(0.72, 1.18, corners)
        x, y = reach * np.cos(turns), reach * np.sin(turns)
        # Walk the straight sides and read the radius back at even angles.
        along = np.linspace(0, 1, 60, endpoint=False)[None, :]
        xs = (x[:, None] + (np.roll(x, -1) - x)[:, None] * along).ravel()
        ys = (y[:, None] + (np.roll(y, -1) - y)[:, None] * along).ravel()
        angles = np.mod(np.arctan2(ys, xs), 2 * np.pi)
        even = np.arange(720) * (2 * np.pi / 720)
        radius = np.interp(even, angles, np.hypot(xs, ys), period=2 * np.pi)
        return ndimage.gaussian_filter1d(radius, 9.0, mode="wrap").astype(np.float32)

    def _folds(self, distance: FloatArray, angle: NDArray[np.int32], size: float) -> FloatArray:
        """A few darker creases that run across the sheet."""
        rng = self.rng
        creases = np.zeros(distance.shape, np.float32)
        radians = angle * (np.pi / 360)
        x, y = distance * np.cos(radians), distance * np.sin(radians)
        for _ in range(int(rng.integers(0, 4))):
            turn, shift = rng.uniform(0, np.pi), rng.uniform(-0.6, 0.6) * size
            bend, width = rng.uniform(-0.004, 0.004), rng.uniform(1.5, 4.0)
            along = x * np.cos(turn) + y * np.sin(turn)
            across = y * np.cos(turn) - x * np.sin(turn) - shift - bend * along**2
            start = rng.uniform(-0.8, 0.2) * size
            length = rng.uniform(0.4, 1.0) * size
            part = np.exp(-(((along - start - length / 2) / (length / 2)) ** 4))
            creases += rng.uniform(0.2, 0.5) * np.exp(-((across / width) ** 2)) * part
        return creases

    def add_nucleus(
        self,
        row: float,
        col: float,
        radius: float,
        abnormal: bool,
        labels: NDArray[np.int32],
        number: int,
    ) -> None:
        """A textured disc: round, small and pale, or large, irregular, clumped and dark."""
        rng = self.rng
        stretch = rng.uniform(1.12, 1.5) if abnormal else rng.uniform(1.02, 1.18)
        outline = nucleus_outline(rng, radius, stretch, wobble=0.035 if abnormal else 0.008)
        window, distance, angle = polar_window(self.shape, row, col, 1.4 * radius + 4)
        inward = outline[angle] - distance
        body = 1 / (1 + np.exp(-np.clip(inward / 0.9, -30, 30)))
        membrane = np.exp(-(((inward - 1.6) / 1.5) ** 2))
        clumps = texture(self.rng, self._medium, distance.shape)
        grains = texture(self.rng, self._fine, distance.shape)
        if abnormal:
            depth, colour = rng.uniform(0.55, 0.92), _ABNORMAL_NUCLEUS
            chromatin = 1 + 0.16 * clumps + 0.12 * grains + 0.22 * membrane
            chromatin = chromatin + 0.12 * np.maximum(clumps - 0.9, 0)
        else:
            depth, colour = rng.uniform(0.6, 0.85), _NORMAL_NUCLEUS
            chromatin = 1 + 0.05 * clumps + 0.05 * grains + 0.10 * membrane
        tint = colour + rng.normal(0, 7, 3).astype(np.float32)
        self._add(window, (depth * body * chromatin).astype(np.float32), tint)
        labels[window][inward > 0] = number

    def develop(self) -> NDArray[np.uint8]:
        """Light through the density, out of focus by a little, with the camera's noise."""
        height, width = self.shape
        rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
        cols = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
        lamp = 1.02 - 0.05 * ((rows - 0.15) ** 2 + (cols + 0.1) ** 2)
        lamp = lamp * (1 + 0.012 * texture(self.rng, self._coarse, self.shape))
        image = np.power(np.float32(10), -self.density)
        image *= (_BRIGHT_FIELD * lamp[..., None]).astype(np.float32)
        image = ndimage.gaussian_filter(image, (0.8, 0.8, 0), truncate=2.5)
        image += self.rng.standard_normal(image.shape, dtype=np.float32) * 1.8
        return np.clip(np.rint(image), 0, 255).astype(np.uint8)
