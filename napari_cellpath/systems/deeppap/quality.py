"""Is this patch something the model can judge? Blank, out of focus, crowded, or unlike its data.

NumPy and SciPy only. Measures are taken on the patch at the model's scale, on that part of it
that lies on the image. A model carries the range of each measure over its training cells
(``input.domain`` of model.json); what lies outside is flagged, never silently scored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_cellpath.systems.deeppap.find import (
    FindSettings,
    average_blocks,
    find_blobs,
    nuclear_density,
)

BLANK_CONTRAST = 12.0
"""Grey levels between the 2nd and 98th percentile of a patch below which it shows no cell.

Empty glass and its noise had up to 11 on the slides and fields measured; of the cells of the
Herlev set, 33 was the least and 92 the median.
"""
BLACK = 16  # grey levels; the darkest hundredth of any Herlev image has 43 in some channel
CROWDED_UM = 12.0  # a neighbour nearer than this reaches into the patch's middle
NEIGHBOUR_SHARE = 0.5  # of the nucleus' own strength that makes a neighbour count
OWN_UM = 4.0  # a click is at most about this far from the middle of its nucleus
WIDENED = 0.1  # of the training range, on both sides
_QUANTILES = (0.005, 0.995)
_LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)
_DENSITY_OF = -np.log((np.arange(256, dtype=np.float32) + 1.0) / 256.0)
_SMOOTH_UM, _CORE_UM, _LEVELS = 0.4, 1.6, 14
_BLOCK = 4  # of the search for neighbours, as `find.block_size` at a model's 0.2 um

COLOURS = (
    "nucleus_red", "nucleus_blue", "nucleus_chroma", "cell_red", "cell_blue", "cell_chroma",
    "density", "light",
)  # fmt: skip
"""Measures that are judged together: no one of them tells haematoxylin from another blue."""
FLAG_OF_MEASURE = {
    "detail": "out-of-focus", "grain": "noisy", "nucleus_um": "unusual-nucleus-size",
}  # fmt: skip
"""The flag each other measure raises; `detail` only where too low, `grain` where too high."""
_ONE_SIDED = {"detail": "low", "grain": "high"}


def is_blank(patch: NDArray[np.uint8]) -> bool:
    """Whether a patch, (h, w, 3), shows nothing that could be a nucleus (reliability R12)."""
    if patch.size == 0:
        return True
    darkest, brightest = np.percentile(patch.mean(axis=2), [2, 98])
    return bool(brightest - darkest < BLANK_CONTRAST)


def without_frame(
    patch: NDArray[np.uint8], centre: tuple[float, float]
) -> tuple[NDArray[np.uint8], tuple[float, float]]:
    """Cut away a black frame, and move the centre along; nothing stained is that dark.

    Cells cut out by others come with black round them, inside the image's own edges.
    """
    lit = patch.max(axis=2) > BLACK if patch.size else np.zeros((0, 0), dtype=bool)
    rows, cols = np.flatnonzero(lit.any(axis=1)), np.flatnonzero(lit.any(axis=0))
    if not rows.size:
        return patch, centre
    part = patch[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
    return part, (centre[0] - float(rows[0]), centre[1] - float(cols[0]))


def measure(patch: NDArray[np.uint8], centre: tuple[float, float], mpp: float) -> dict[str, float]:
    """What a model's training data and a new cell are compared by.

    Parameters
    ----------
    patch
        (h, w, 3) at the model's scale, image only.
    centre
        Row and column of the nucleus in it.
    mpp
        Micrometres a pixel.

    Returns
    -------
    dict
        `COLOURS`: shares of red and blue in the optical density of the densest tenth and of the
        denser half, their chroma, the density of the densest tenth, and the brightness of the
        lightest twentieth. ``detail``: contrast of fine against coarse structure, low where it is
        out of focus. ``grain``: contrast of neighbouring pixels against coarse structure, high
        where there is noise. ``nucleus_um``: see `nucleus_diameter`.
    """
    patch, centre = without_frame(patch, centre)
    od = _DENSITY_OF[patch]
    total = od.sum(axis=2)
    values: dict[str, float] = {}
    for part, quantile in (("nucleus", 0.9), ("cell", 0.5)):
        here = od[total >= np.quantile(total, quantile)] + 1e-4
        sums, mean = here.sum(axis=1), here.mean(axis=0)
        values[f"{part}_red"] = float(mean[0] / mean.sum())
        values[f"{part}_blue"] = float(mean[2] / mean.sum())
        values[f"{part}_chroma"] = float(np.log((np.ptp(here, axis=1) / sums).mean() + 0.003))
        if part == "nucleus":
            values["density"] = float(np.log(mean.mean()))
    grey = patch.astype(np.float32) @ _LUMA
    values["light"] = float(np.quantile(grey, 0.95) / 255)
    fine, mid, coarse = (ndimage.gaussian_filter(grey, s, mode="nearest") for s in (0.7, 1.4, 4.0))
    spread = float((mid - coarse).std()) + 1e-3
    values["detail"] = float((fine - mid).std()) / spread
    values["grain"] = float((grey - fine).std()) / spread
    values["nucleus_um"] = nucleus_diameter(nuclear_density(patch), centre, mpp)
    return values


def nucleus_diameter(
    density: NDArray[np.float32], centre: tuple[float, float], mpp: float
) -> float:
    """Diameter in micrometres of a disc as large as the dense object at a place; NaN if unclear.

    The object is what exceeds the mean of the density at the place and that of the patch
    (median); where that runs into the patch's edge, the level with the steepest outline. On 725
    Herlev nuclei, clicks off by up to 5 px, 96 % were measured, r = 0.9 with the published size.
    """
    smooth = ndimage.gaussian_filter(density, _SMOOTH_UM / mpp, mode="nearest")
    row, col = (min(max(round(c), 0), n - 1) for c, n in zip(centre, smooth.shape, strict=True))
    rows, cols = np.ogrid[: smooth.shape[0], : smooth.shape[1]]
    at_place = smooth[(rows - row) ** 2 + (cols - col) ** 2 < (_CORE_UM / mpp) ** 2]
    core, ground = float(np.quantile(at_place, 0.6)), float(np.median(smooth))
    if core - ground < 1e-3:
        return float("nan")
    own = _object_at(smooth, (core + ground) / 2, (row, col), OWN_UM / mpp)
    if own is None:
        own = _steepest(smooth, np.linspace(ground, 0.97 * core, _LEVELS), (row, col))
    if own is None:
        return float("nan")
    return float(2 * np.sqrt(ndimage.binary_fill_holes(own).sum() / np.pi) * mpp)


def _object_at(
    density: NDArray[np.float32], level: float, place: tuple[int, int], reach: float
) -> NDArray[np.bool_] | None:
    """The object above a level at, or nearest to, a place; None if far or cut by the edge."""
    objects, count = ndimage.label(density > level)
    if not count:
        return None
    label = int(objects[place])
    if not label:
        away, nearest = ndimage.distance_transform_edt(objects == 0, return_indices=True)
        if away[place] > reach:
            return None
        label = int(objects[tuple(nearest[:, place[0], place[1]])])
    own: NDArray[np.bool_] = objects == label
    cut = own[0].any() or own[-1].any() or own[:, 0].any() or own[:, -1].any()
    return None if cut else own


def _steepest(
    density: NDArray[np.float32], levels: NDArray[np.float64], place: tuple[int, int]
) -> NDArray[np.bool_] | None:
    steepness = np.hypot(*np.gradient(density))
    best, chosen = 0.0, None
    for level in levels:
        own = _object_at(density, float(level), place, 0.0)
        if own is None:
            continue
        outline = own & ~ndimage.binary_erosion(own)
        if float(steepness[outline].mean()) > best:
            best, chosen = float(steepness[outline].mean()), own
    return chosen


def is_crowded(patch: NDArray[np.uint8], centre: tuple[float, float], mpp: float) -> bool:
    """Whether another nucleus lies so near that the network sees two at once."""
    patch, centre = without_frame(patch, centre)
    if min(patch.shape[:2]) < 4 * _BLOCK:
        return False
    blobs = find_blobs(average_blocks(nuclear_density(patch), _BLOCK), _BLOCK * mpp, FindSettings())
    if len(blobs) < 2:
        return False
    places = (blobs[:, :2] + 0.5) * _BLOCK - 0.5
    away = np.hypot(*(places - np.asarray(centre)).T) * mpp
    own = int(away.argmin())
    if away[own] > OWN_UM:
        return False
    others = np.delete(np.arange(len(blobs)), own)
    near = away[others] < CROWDED_UM
    strong = blobs[others, 3] > NEIGHBOUR_SHARE * blobs[own, 3]
    return bool((near & strong).any())


def domain_of(measures: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """What training cells look like: ``ranges`` of single measures, and ``colours`` together.

    Ranges hold 99 % of the cells and are a little widened. Colours are a mean, an inverse
    covariance, and the Mahalanobis distance within which 99 % of the cells lie, widened likewise.
    """
    ranges = {}
    for name in FLAG_OF_MEASURE:
        values = np.array([m[name] for m in measures], dtype=float)
        values = values[np.isfinite(values)]
        if values.size:
            low, high = np.quantile(values, _QUANTILES)
            room = WIDENED * (high - low)
            ranges[name] = [round(float(low - room), 5), round(float(high + room), 5)]
    domain: dict[str, Any] = {"ranges": ranges}
    colours = np.array([[m[name] for name in COLOURS] for m in measures], dtype=float)
    if len(colours) > 2 * len(COLOURS):  # else the covariance says nothing
        mean = colours.mean(axis=0)
        spread = np.cov(colours, rowvar=False) + np.eye(len(COLOURS)) * 1e-6
        inverse = np.linalg.inv(spread)
        distance = np.sqrt(np.einsum("ni,ij,nj->n", colours - mean, inverse, colours - mean))
        domain["colours"] = {
            "mean": [round(float(v), 6) for v in mean],
            "inverse": [[round(float(v), 4) for v in row] for row in inverse],
            "limit": round(float(np.quantile(distance, 0.99)) * (1 + WIDENED), 4),
        }
    return domain


def out_of_domain(measures: Mapping[str, float], domain: Mapping[str, Any]) -> tuple[str, ...]:
    """Flags of what lies outside a model's training data; an empty domain flags nothing."""
    flags = []
    colours = domain.get("colours")
    if colours:
        away = np.array([measures[n] for n in COLOURS]) - np.asarray(colours["mean"])
        if float(away @ np.asarray(colours["inverse"]) @ away) > colours["limit"] ** 2:
            flags.append("unusual-stain")
    for name, flag in FLAG_OF_MEASURE.items():
        limits, value = domain.get("ranges", {}).get(name), measures[name]
        if limits is None or not np.isfinite(value):
            continue
        side = _ONE_SIDED.get(name, "both")
        if (value < limits[0] and side != "high") or (value > limits[1] and side != "low"):
            flags.append(flag)
    return tuple(flags)
