"""An occlusion map as an image layer over the cell it explains."""

from __future__ import annotations

import numpy as np
from napari.layers import Image
from napari.utils import Colormap

from napari_cellpath.bridge.conventions import link_of
from napari_cellpath.core.results import OcclusionMap
from napari_cellpath.core.vocabulary import METADATA_KEY, Role

LEAST_RANGE = 0.05
"""Smaller changes of the score are not blown up to full colour."""
LOW, HIGH = "#3f8cff", "#ff4a32"  # lighter than the scores' ends: they lie on dark nuclei
STRONGEST = 0.85  # opacity where the map is strongest; where nothing changes one sees the cell


def colours() -> Colormap:
    """Blue over transparent to red: speaks for normal, nothing, speaks for abnormal."""
    low, high = LOW, HIGH
    steps = np.linspace(-1.0, 1.0, 65)
    rgba = np.zeros((len(steps), 4))
    for i, step in enumerate(steps):
        colour = high if step > 0 else low
        rgba[i, :3] = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        rgba[i, 3] = STRONGEST * abs(step)
    return Colormap(rgba, name="cellpath-occlusion", display_name="occlusion")


def map_layer(found: OcclusionMap, image: Image, uid: str) -> Image:
    """The layer, placed on the image, not yet in a viewer."""
    corner = np.asarray(image.data_to_world((found.row, found.col)))[-2:]
    down = np.asarray(image.data_to_world((found.row + found.pixel, found.col)))[-2:] - corner
    right = np.asarray(image.data_to_world((found.row, found.col + found.pixel)))[-2:] - corner
    affine = np.eye(3)
    affine[:2, 0], affine[:2, 1], affine[:2, 2] = down, right, corner
    reach = max(LEAST_RANGE, float(np.nanmax(np.abs(found.drop))))
    facts = {
        "role": str(Role.OCCLUSION), "uid": uid, "model": found.model, "image_link": link_of(image)
    }  # fmt: skip
    layer = Image(
        np.nan_to_num(found.drop),
        name=f"occlusion · {image.name}",
        colormap=colours(),
        contrast_limits=(-reach, reach),
        blending="translucent",
        affine=affine,
        units=image.units,
        metadata={METADATA_KEY: facts},
    )
    layer.interpolation2d = "linear"
    return layer


def sentence(found: OcclusionMap) -> str:
    """What the map says, for the user."""
    low, high = float(np.nanmin(found.drop)), float(np.nanmax(found.drop))
    return (
        f"The upright view scores {found.score:.3f}. Covering a place moves it by {-high:+.3f} "
        f"(red: speaks for abnormal) to {-low:+.3f} (blue: speaks for normal)."
    )
