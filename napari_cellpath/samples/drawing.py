"""What the generated fields are drawn with: places, outlines, textures."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

FloatArray = NDArray[np.float32]

TEXTURE = 512
"""Side of the seamless squares of noise."""
TURNS = 720
"""Angles at which an outline is given."""
_SEPARATION = 6.0


def scattered(
    rng: np.random.Generator, shape: tuple[int, int], radii: NDArray[np.float64]
) -> list[tuple[float, float]]:
    """Centres at which nuclei of these radii neither touch each other nor the border.

    Raises
    ------
    ValueError
        They do not fit.
    """
    # Outlines wander beyond the mean radius by up to about a third.
    reach = 1.35 * radii + _SEPARATION
    places: list[tuple[float, float]] = [(0.0, 0.0)] * len(radii)
    done: list[int] = []
    for index in np.argsort(-radii):  # large ones first: they are the hard ones to place
        margin = reach[index]
        if 2 * margin >= min(shape):
            raise ValueError(f"nuclei do not fit into a field of {shape}")
        for _ in range(400):
            row = rng.uniform(margin, shape[0] - margin)
            col = rng.uniform(margin, shape[1] - margin)
            if all(
                np.hypot(row - places[other][0], col - places[other][1])
                > reach[index] + reach[other]
                for other in done
            ):
                break
        else:
            raise ValueError(f"{len(radii)} nuclei do not fit into a field of {shape}")
        places[index] = (row, col)
        done.append(int(index))
    return places


def nucleus_outline(
    rng: np.random.Generator, radius: float, stretch: float, wobble: float
) -> FloatArray:
    """Radius of a nucleus at `TURNS` even angles: a turned ellipse whose edge wanders.

    ``stretch`` is its length by its width, ``wobble`` how far the edge wanders, in radii.
    """
    even = np.arange(TURNS) * (2 * np.pi / TURNS)
    turn = rng.uniform(0, np.pi)
    wide, high = radius * np.sqrt(stretch), radius / np.sqrt(stretch)
    outline = wide * high / np.hypot(high * np.cos(even - turn), wide * np.sin(even - turn))
    for order in range(2, 7):
        outline += (
            radius
            * rng.normal(0, wobble / order * 2)
            * np.cos(order * even + rng.uniform(0, 2 * np.pi))
        )
    return np.clip(outline, 0.6 * radius, 1.33 * radius).astype(np.float32)


def grains(rng: np.random.Generator, sigma: float) -> FloatArray:
    """A seamless square of Gaussian noise of unit variance, its grains about ``sigma`` pixels."""
    white = rng.standard_normal((TEXTURE, TEXTURE), dtype=np.float32)
    smooth = ndimage.gaussian_filter(white, sigma, mode="wrap", truncate=3.0)
    return (smooth / smooth.std()).astype(np.float32)


def texture(rng: np.random.Generator, noise: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    """A window of seamless noise from a random place."""
    top, left = rng.integers(0, TEXTURE, 2)
    rows = (top + np.arange(shape[0])) % TEXTURE
    cols = (left + np.arange(shape[1])) % TEXTURE
    return noise[np.ix_(rows, cols)]


def polar_window(
    shape: tuple[int, int], row: float, col: float, reach: float
) -> tuple[tuple[slice, slice], FloatArray, NDArray[np.int32]]:
    """Window of an image round a point, each pixel's distance to it and angle index."""
    top, bottom = max(int(row - reach), 0), min(int(row + reach) + 2, shape[0])
    left, right = max(int(col - reach), 0), min(int(col + reach) + 2, shape[1])
    rows = np.arange(top, bottom, dtype=np.float32)[:, None] - np.float32(row)
    cols = np.arange(left, right, dtype=np.float32)[None, :] - np.float32(col)
    angle = np.arctan2(rows, cols)
    return (
        (slice(top, bottom), slice(left, right)),
        np.hypot(rows, cols),
        np.mod(np.rint(angle * (TURNS / 2 / np.pi)), TURNS).astype(np.int32),
    )
