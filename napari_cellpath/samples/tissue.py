"""A generated field of stained tissue with glands and its true classes, for tests and tutorials.

Two dyes are laid down, haematoxylin on nuclei and eosin on everything else, and light goes
through them by Beer and Lambert's law. Regular glands stand for benign, crowded and ragged ones
for malignant. It is a drawing: no model is trained or measured on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

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

TISSUE_MPP = 0.62
"""Micrometres per pixel, that of the gland images the colon starter was trained on."""
TISSUE_CLASSES = ("background", "benign gland", "malignant gland")
"""Classes of `TissueField.labels`, in order."""
_HAEMATOXYLIN = np.array([0.65, 0.70, 0.29], np.float32)
_EOSIN = np.array([0.16, 0.90, 0.40], np.float32)
_BENIGN, _MALIGNANT = 1, 2


@dataclass(frozen=True, eq=False)
class TissueField:
    """A generated field and the truth about it.

    Attributes
    ----------
    image
        uint8 (H, W, 3).
    labels
        uint8 (H, W): index into ``classes`` of each pixel.
    classes
        Names of the classes.
    mpp
        Micrometres per pixel.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    classes: tuple[str, ...] = TISSUE_CLASSES
    mpp: float = TISSUE_MPP

    def repeated(self, times: int) -> TissueField:
        """A field ``times`` as high and wide, of this one and its mirror images."""
        image, labels = self.image, self.labels
        for axis in (0, 1):
            for name in ("image", "labels"):
                part = image if name == "image" else labels
                strips = [np.flip(part, axis) if n % 2 else part for n in range(times)]
                whole = np.concatenate(strips, axis)
                image, labels = (whole, labels) if name == "image" else (image, whole)
        return TissueField(image, labels, self.classes, self.mpp)

    def save(self, path: Path, levels: int = 1) -> Path:
        """Write the image as an OME-TIFF with its pixel size; several levels make a pyramid."""
        return write_ome(path, self.image, self.mpp, levels)


def tissue_field(
    seed: int = 0,
    shape: tuple[int, int] = (1400, 1800),
    n_benign: int = 30,
    n_malignant: int = 12,
    glass: int = 0,
) -> TissueField:
    """Draw a field; equal arguments give equal pixels.

    No gland overlaps another.

    Parameters
    ----------
    seed
        Of everything random in it.
    shape
        Height and width, at least 256 each.
    n_benign, n_malignant
        Glands of each kind.
    glass
        Width of the empty glass round the tissue, pixels.

    Raises
    ------
    ValueError
        They do not fit.
    """
    inner = shape[0] - 2 * glass, shape[1] - 2 * glass
    if min(inner) < 256:
        raise ValueError(f"a field needs at least 256 x 256 pixels of tissue, not {inner}")
    rng = np.random.default_rng(seed)
    kinds = np.array([_BENIGN] * n_benign + [_MALIGNANT] * n_malignant)
    radii = np.where(
        kinds == _BENIGN, rng.uniform(42, 66, len(kinds)), rng.uniform(56, 92, len(kinds))
    )
    places = scattered(rng, inner, radii)
    sheet = _Sheet(rng, shape)
    for kind, radius, (row, col) in zip(kinds.tolist(), radii, places, strict=True):
        sheet.gland(kind, float(radius), row + glass, col + glass)
    sheet.loose_nuclei()
    if glass:
        sheet.cut(glass)
    return TissueField(sheet.photographed(), sheet.labels)


class _Sheet:
    """Concentrations of the two dyes over the field, and what lies where."""

    def __init__(self, rng: np.random.Generator, shape: tuple[int, int]) -> None:
        self.rng = rng
        self.shape = shape
        self.labels = np.zeros(shape, np.uint8)
        self.noise = tuple(grains(rng, sigma) for sigma in (1.0, 3.0, 12.0))
        # Fibres: where two coarse waves are equally high run ridges as collagen does.
        waves = [texture(rng, self.noise[k], shape) for k in (2, 2, 1)]
        ridges = np.exp(-((4.0 * (waves[0] - 0.6 * waves[1])) ** 2))
        self.eosin = 0.36 + 0.16 * ridges + 0.05 * waves[1] + 0.04 * waves[2]
        self.haem = 0.10 + 0.015 * texture(rng, self.noise[1], shape)

    def gland(self, kind: int, radius: float, row: float, col: float) -> None:
        """Lay down one gland: its rim of nuclei, cytoplasm with or without mucin, lumen."""
        rng, benign = self.rng, kind == _BENIGN
        stretch = rng.uniform(1.05, 1.5) if benign else rng.uniform(1.1, 1.5)
        outline = nucleus_outline(rng, radius, stretch, wobble=0.03 if benign else 0.10)
        window, distance, angle = polar_window(self.shape, row, col, 1.45 * radius)
        inward = outline[angle] - distance
        inside = inward > 0
        depth = inward / radius
        soft = 1 / (1 + np.exp(-np.clip(inward / 1.5, -30, 30)))
        rough = texture(rng, self.noise[1], inside.shape)
        wavy = texture(rng, self.noise[2], inside.shape)
        if benign:
            eosin = 0.44 + 0.05 * rough
            haem = 0.20 + 0.03 * rough
            lumen = _soft((depth - 0.72 + 0.03 * wavy) * radius)
            lumen = np.maximum(lumen, self._goblets(distance, angle, outline, radius))
        else:
            eosin = 0.60 + 0.08 * rough
            haem = 0.30 + 0.05 * rough
            holes = texture(rng, self._bubbles(), inside.shape)
            lumen = _soft((depth - 0.62 + 0.10 * wavy) * radius)
            lumen = np.maximum(lumen, _soft((holes - 1.5) * 6) * (depth > 0.3))
        eosin = eosin * (1 - lumen) + 0.04 * lumen
        haem = haem * (1 - lumen) + (0.02 if benign else 0.03 + 0.05 * (wavy > 1)) * lumen
        # A cleft of pale stroma along the outside of the gland.
        cleft = np.exp(-(((inward + 4) / 3.0) ** 2)) * 0.35
        self.eosin[window] = (self.eosin[window] * (1 - cleft)) * (1 - soft) + eosin * soft
        self.haem[window] = self.haem[window] * (1 - soft) + haem * soft
        self.labels[window][inside] = kind
        self._rim(outline, row, col, radius, benign)

    def _goblets(
        self, distance: FloatArray, angle: NDArray[np.int32], outline: FloatArray, radius: float
    ) -> FloatArray:
        """Drops of mucin in the cytoplasm, in a ring."""
        rng = self.rng
        turns = angle * (2 * np.pi / TURNS)
        y, x = distance * np.sin(turns), distance * np.cos(turns)
        drops = np.zeros_like(distance)
        count = int(rng.integers(5, 10))
        for turn in (np.arange(count) + rng.uniform(-0.3, 0.3, count)) * (2 * np.pi / count):
            reach = float(outline[round(turn * TURNS / 2 / np.pi) % TURNS])
            away, side = reach * rng.uniform(0.44, 0.56), radius * rng.uniform(0.10, 0.17)
            drop = _soft(side - np.hypot(y - away * np.sin(turn), x - away * np.cos(turn)))
            np.maximum(drops, drop, out=drops)
        return drops

    def _bubbles(self) -> FloatArray:
        if not hasattr(self, "_bubble_noise"):
            self._bubble_noise = grains(self.rng, 5.0)
        return self._bubble_noise

    def _rim(
        self, outline: FloatArray, row: float, col: float, radius: float, benign: bool
    ) -> None:
        """Nuclei along the basement membrane: one neat row, or several in disorder."""
        rng = self.rng
        spacing = 8.0 if benign else 7.0
        count = int(2 * np.pi * radius / spacing)
        for layer in range(1 if benign else 3):
            turns = (np.arange(count) + rng.uniform(-0.25, 0.25, count)) * (2 * np.pi / count)
            for turn in turns:
                if not benign and rng.uniform() < 0.12 + 0.18 * layer:
                    continue
                deep = 7 + rng.normal(0, 1.0) if benign else 8 + 12 * layer + rng.normal(0, 3.5)
                away = float(outline[round(turn * TURNS / 2 / np.pi) % TURNS]) - deep
                if away < 0.3 * radius:
                    continue
                at = row + away * np.sin(turn), col + away * np.cos(turn)
                long = rng.uniform(4.6, 6.0) if benign else rng.uniform(5.4, 8.0)
                wide = rng.uniform(2.6, 3.4) if benign else rng.uniform(3.4, 5.0)
                tilt = turn + (0.0 if benign else rng.normal(0, 0.5))
                self._nucleus(*at, long, wide, tilt, rng.uniform(0.75, 1.05))

    def loose_nuclei(self) -> None:
        """Spindle cells and lymphocytes in the stroma."""
        rng = self.rng
        count = int(self.shape[0] * self.shape[1] * 2.2e-3)
        rows, cols = rng.uniform(0, self.shape[0], count), rng.uniform(0, self.shape[1], count)
        for row, col in zip(rows, cols, strict=True):
            if self.labels[int(row), int(col)]:
                continue
            if rng.uniform() < 0.45:
                self._nucleus(row, col, rng.uniform(5, 8), rng.uniform(1.5, 2.3),
                              rng.normal(0, 0.5), rng.uniform(0.5, 0.8))  # fmt: skip
            else:
                side = rng.uniform(2.8, 3.6)
                self._nucleus(row, col, side, side, 0.0, rng.uniform(0.8, 1.1))

    def cut(self, glass: int) -> None:
        """Leave nothing but glass within a margin, whose edge wanders."""
        height, width = self.shape
        rows = np.arange(height, dtype=np.float32)[:, None]
        cols = np.arange(width, dtype=np.float32)[None, :]
        inward = np.minimum(np.minimum(rows, height - 1 - rows), np.minimum(cols, width - 1 - cols))
        inward = inward - glass + 0.1 * glass * texture(self.rng, self.noise[2], self.shape)
        tissue = _soft(inward / 1.5)
        self.haem *= tissue
        self.eosin *= tissue
        self.labels[inward <= 0] = 0

    def _nucleus(
        self, row: float, col: float, long: float, wide: float, turn: float, dye: float
    ) -> None:
        """An ellipse of haematoxylin; ``turn`` is that of its long axis."""
        reach = int(long) + 4
        top, left = max(int(row) - reach, 0), max(int(col) - reach, 0)
        bottom = min(int(row) + reach + 1, self.shape[0])
        right = min(int(col) + reach + 1, self.shape[1])
        if top >= bottom or left >= right:
            return
        y = np.arange(top, bottom, dtype=np.float32)[:, None] - np.float32(row)
        x = np.arange(left, right, dtype=np.float32)[None, :] - np.float32(col)
        along, across = y * np.sin(turn) + x * np.cos(turn), x * np.sin(turn) - y * np.cos(turn)
        body = _soft((1 - np.hypot(along / long, across / wide)) * min(wide, 3.0) * 1.2)
        grain = texture(self.rng, self.noise[0], body.shape)
        part = self.haem[top:bottom, left:right]
        np.maximum(part, body * dye * (0.9 + 0.12 * grain), out=part)
        self.eosin[top:bottom, left:right] *= 1 - 0.45 * body

    def photographed(self) -> NDArray[np.uint8]:
        """White light through both dyes, the lens, and the camera."""
        dyes = [ndimage.gaussian_filter(np.maximum(d, 0), 0.7) for d in (self.haem, self.eosin)]
        image = np.empty((*self.shape, 3), np.float32)
        noise = self.rng.normal(0, 2.0, self.shape).astype(np.float32)
        for band in range(3):
            density = 1.25 * dyes[0] * _HAEMATOXYLIN[band] + 0.85 * dyes[1] * _EOSIN[band]
            image[..., band] = 246 * np.exp(-density * np.float32(1.45)) + noise
        return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def _soft(inward: NDArray[np.floating]) -> FloatArray:
    """0 outside, 1 inside, softly between, of distances in pixels."""
    return np.asarray(1 / (1 + np.exp(-np.clip(inward, -30, 30))), dtype=np.float32)
