"""A generated fluorescence field of HEp-2 cells in six patterns, for tests, demos and tutorials.

Each cell adds light where its pattern puts the dye; the sum is blurred by the lens and counted
in photons. The six can be told apart by eye; no model is trained or measured on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_cellpath.core.geometry import centroids
from napari_cellpath.core.vocabulary import PATTERNS
from napari_cellpath.samples.drawing import (
    TURNS,
    FloatArray,
    grains,
    nucleus_outline,
    polar_window,
    scattered,
    texture,
)
from napari_cellpath.samples.ome import write_ome

HEP2_MPP = 0.3225
"""Micrometres per pixel of a 6.45 um camera behind a 20x lens, as the I3A cells were taken."""
_RADII = (24.0, 31.0)
_PHOTONS = 900.0  # of a pixel of full brightness
_DARK = 0.035


@dataclass(frozen=True, eq=False)
class Hep2Field:
    """A generated field and the truth about it.

    Attributes
    ----------
    image
        uint8 (H, W), one channel.
    labels
        int32 (H, W): the nucleus of cell i has label i + 1, background 0.
    centres
        float64 (n, 2): centroid (row, col) of each nucleus, napari convention.
    patterns
        Of each cell.
    mpp
        Micrometres per pixel.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.int32]
    centres: NDArray[np.float64]
    patterns: tuple[str, ...]
    mpp: float = HEP2_MPP

    def save(self, path: Path) -> Path:
        """Write the image as an OME-TIFF with its pixel size."""
        return write_ome(path, self.image, self.mpp)


def hep2_field(
    seed: int = 0,
    shape: tuple[int, int] = (1040, 1388),
    n_cells: int = 48,
    patterns: Sequence[str] = PATTERNS,
) -> Hep2Field:
    """Draw a field; equal arguments give equal pixels.

    Parameters
    ----------
    seed
        Of everything random in it.
    shape
        Height and width, at least 128 each.
    n_cells
        Cells; no nucleus touches another or the border.
    patterns
        Which patterns stand in it, as equally often as can be; see `PATTERNS`.

    Raises
    ------
    ValueError
        That many cells do not fit, or there is no such pattern.
    """
    if min(shape) < 128:
        raise ValueError(f"a field needs at least 128 x 128 pixels, not {shape}")
    unknown = [p for p in patterns if p not in _DYES]
    if unknown or not patterns:
        raise ValueError(f"no such pattern: {unknown}; known: {', '.join(_DYES)}")
    rng = np.random.default_rng(seed)
    drawn = [patterns[n % len(patterns)] for n in range(n_cells)]
    rng.shuffle(drawn)
    radii = rng.uniform(*_RADII, n_cells)
    places = scattered(rng, shape, radii)
    light = np.zeros(shape, np.float32)
    labels = np.zeros(shape, np.int32)
    noise = tuple(grains(rng, sigma) for sigma in (1.2, 3.0, 14.0))
    for number, ((row, col), radius) in enumerate(zip(places, radii, strict=True), start=1):
        outline = nucleus_outline(rng, radius, rng.uniform(1.02, 1.25), wobble=0.02)
        window, distance, angle = polar_window(shape, row, col, 1.6 * radius)
        cell = _Cell(rng, radius, outline[angle] - distance, distance, angle, noise)
        brightness = rng.uniform(0.65, 1.0)
        light[window] += brightness * (_DYES[drawn[number - 1]](cell) + cell.cytoplasm())
        labels[window][cell.inward > 0] = number
    return Hep2Field(_photographed(rng, light, noise[2]), labels, centroids(labels), tuple(drawn))


class _Cell:
    """One cell's window: how far each pixel lies inside its nucleus, and textures."""

    def __init__(
        self,
        rng: np.random.Generator,
        radius: float,
        inward: FloatArray,
        distance: FloatArray,
        angle: NDArray[np.int32],
        noise: tuple[FloatArray, ...],
    ) -> None:
        self.rng = rng
        self.radius = radius
        self.inward = inward
        self.rows = distance * np.sin(angle * (2 * np.pi / TURNS))
        self.cols = distance * np.cos(angle * (2 * np.pi / TURNS))
        self.fine, self.medium, self.coarse = (texture(rng, n, inward.shape) for n in noise)

    def body(self, edge: float = 1.5) -> FloatArray:
        """1 in the nucleus, 0 outside, softly between."""
        body: FloatArray = 1 / (1 + np.exp(-np.clip(self.inward / edge, -30, 30)))
        return body

    def cytoplasm(self) -> FloatArray:
        """A faint veil round the nucleus."""
        veil: FloatArray = np.exp(np.minimum(self.inward, 0) / (0.25 * self.radius))
        return 0.035 * veil

    def blob(self, row: float, col: float, size: float) -> FloatArray:
        """A round spot of brightness 1."""
        away = (self.rows - row) ** 2 + (self.cols - col) ** 2
        return np.asarray(np.exp(-away / (2 * size**2)), dtype=np.float32)

    def within(self, reach: float) -> tuple[float, float]:
        """A place in the nucleus, evenly spread over ``reach`` of its radius."""
        turn, away = self.rng.uniform(0, 2 * np.pi), np.sqrt(self.rng.uniform(0, reach**2))
        return away * self.radius * np.sin(turn), away * self.radius * np.cos(turn)

    def spots(self, count: int, sizes: tuple[float, float], reach: float) -> FloatArray:
        """Spots in the nucleus, the brightest of them at each pixel."""
        light: FloatArray = np.zeros_like(self.inward)
        for _ in range(count):
            spot = self.blob(*self.within(reach), self.rng.uniform(*sizes))
            np.maximum(light, self.rng.uniform(0.65, 1.0) * spot, out=light)
        return light


def _homogeneous(cell: _Cell) -> FloatArray:
    return cell.body() * (0.72 + 0.03 * cell.medium + 0.04 * cell.coarse)


def _speckled(cell: _Cell) -> FloatArray:
    """Coarse and fine grains all over but for two or three dark nucleoli."""
    nucleoli = cell.spots(int(cell.rng.integers(2, 4)), (3.0, 4.5), 0.6)
    granules = np.clip(0.9 * cell.fine, 0, 2.2) + 0.25 * cell.medium
    return cell.body() * np.clip(0.22 + 0.26 * granules, 0.05, 1) * (1 - 0.85 * nucleoli)


def _nucleolar(cell: _Cell) -> FloatArray:
    """Two to five bright blobs in a dim nucleus."""
    blobs = cell.spots(int(cell.rng.integers(2, 6)), (3.0, 4.8), 0.55)
    return cell.body() * (0.16 + 0.02 * cell.medium + 0.8 * np.minimum(1.2 * blobs, 1))


def _centromere(cell: _Cell) -> FloatArray:
    """Forty to sixty dots in a dim nucleus."""
    dots = cell.spots(int(cell.rng.integers(40, 61)), (0.9, 1.3), 0.88)
    return cell.body() * (0.13 + 0.02 * cell.medium + 0.8 * dots)


def _numem(cell: _Cell) -> FloatArray:
    """A bright rim, a dimmer inside."""
    rim = np.exp(-(((cell.inward - 2.5) / 2.0) ** 2)) * (1 + 0.12 * cell.medium)
    return cell.body() * (0.26 + 0.02 * cell.medium) + 0.62 * rim


def _golgi(cell: _Cell) -> FloatArray:
    """A broken ribbon beside a dim nucleus."""
    start, span = cell.rng.uniform(0, 2 * np.pi), cell.rng.uniform(1.0, 2.0)
    light = np.zeros_like(cell.inward)
    for turn in start + span * np.sort(cell.rng.uniform(0, 1, int(cell.rng.integers(9, 16)))):
        away = cell.radius * cell.rng.uniform(0.98, 1.22)
        spot = cell.blob(away * np.sin(turn), away * np.cos(turn), cell.rng.uniform(1.6, 3.2))
        light = np.maximum(light, cell.rng.uniform(0.5, 1.0) * spot)
    return 0.10 * cell.body(2.5) + 0.85 * light


_DYES = dict(
    zip(
        PATTERNS,
        (_homogeneous, _speckled, _nucleolar, _centromere, _numem, _golgi),
        strict=True,
    )
)


def _photographed(
    rng: np.random.Generator, light: FloatArray, noise: FloatArray
) -> NDArray[np.uint8]:
    """Lens blur, uneven background light, photons and the camera's own noise."""
    height, width = light.shape
    rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    cols = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    lamp = 1.0 - 0.12 * ((rows + 0.1) ** 2 + (cols - 0.15) ** 2)
    veil = _DARK * (1.3 - 0.4 * cols) * (1 + 0.08 * texture(rng, noise, light.shape))
    seen = ndimage.gaussian_filter(light, 0.9, truncate=3.0) * lamp + veil
    counts = rng.poisson(np.maximum(seen, 0) * _PHOTONS) / _PHOTONS
    counts += rng.normal(0, 0.006, light.shape)
    return np.clip(np.rint(235 * counts), 0, 255).astype(np.uint8)
