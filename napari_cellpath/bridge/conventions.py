"""What our layers carry, how they are made and how they are found again.

Facts about a layer live in ``layer.metadata[METADATA_KEY]``, plain values that survive saving
and duplicating; facts about its objects live in ``layer.features``. A layer's name is the
user's: it is shown in sentences and never used to find anything.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from napari.layers import Image, Layer, Points, Shapes
from numpy.typing import NDArray

from napari_cellpath.core.errors import CellpathError
from napari_cellpath.core.vocabulary import METADATA_KEY, Role, System

PENDING_COLOUR = "#8c8c8c"
"""Gray: asked for or not yet asked for, no answer."""

COMPLETE_COLOUR = "#009e73"
"""Of the rectangles in which everything is marked."""

TRANSFORM = ("scale", "translate", "rotate", "shear", "affine", "units")
"""What places a layer in the world; each is an attribute and an event."""

FEATURE_COLUMNS: dict[str, Any] = {
    "uid": "",
    "id": "",
    "call": "",
    "score": np.nan,
    "std": np.nan,
    "n_views": 0,
    "correction": "",
    "model": "",
    "precision": "",
    "flags": "",
    "stale": False,
    "seen": False,
    "readings": "",  # see `readings_text`
}
"""Our columns of a nuclei layer's feature table, in order, each with its blank value.

Strings are kept as NumPy objects: pandas' own string columns copy themselves at every single
write (1.3 ms a column at 100,000 nuclei, measured).
"""


def readings_text(readings: Mapping[str, str]) -> str:
    """Blind readings of one object, reader to class, as a cell of the feature table holds them."""
    return json.dumps(dict(readings), ensure_ascii=False, sort_keys=True) if readings else ""


def readings_of(text: str) -> dict[str, str]:
    """Inverse of `readings_text`; what is no such thing counts as nothing."""
    try:
        read = json.loads(text) if text else {}
    except ValueError:
        return {}
    return {str(k): str(v) for k, v in read.items()} if isinstance(read, dict) else {}


def facts_of(layer: Layer) -> dict[str, Any]:
    """Our facts about a layer; empty if it carries none. The dictionary is a copy."""
    facts = layer.metadata.get(METADATA_KEY)
    return dict(facts) if isinstance(facts, dict) else {}


def set_facts(layer: Layer, **facts: Any) -> None:
    """Add or change facts about a layer; its other metadata stays untouched."""
    layer.metadata[METADATA_KEY] = {**facts_of(layer), **facts}


def is_analysable(layer: Layer) -> bool:
    """Whether a layer is an image of the user's, not a map of ours."""
    return type(layer) is Image and facts_of(layer).get("role") is None


def image_layers(layers: Iterable[Layer]) -> list[Image]:
    """The layers that can be analysed, in the viewer's order."""
    return [layer for layer in layers if is_analysable(layer)]


def link_of(image: Image) -> str:
    """Identity of an image layer, made when first asked for; survives renaming and moving."""
    link = facts_of(image).get("link")
    if not link:
        link = uuid.uuid4().hex[:16]
        set_facts(image, link=link)
    return str(link)


def image_of(points: Layer, layers: Iterable[Layer]) -> Image | None:
    """The image layer that one of our layers belongs to, or None if it is no longer there."""
    link = facts_of(points).get("image_link")
    if not link:
        return None
    return next((x for x in image_layers(layers) if facts_of(x).get("link") == link), None)


def reunite(points: Layer, layers: Iterable[Layer]) -> Image | None:
    """Link a layer of ours whose image was closed to the same file opened again, else None.

    Only a file can be known again: another image in memory may have other pixels.
    """
    path = facts_of(points).get("path")
    if not path:
        return None
    for image in image_layers(layers):
        if str(image.source.path or "") == path:
            set_facts(points, image_link=link_of(image), image=image.name)
            return image
    return None


def layers_of(image: Image, role: Role, layers: Iterable[Layer]) -> list[Any]:
    """All our layers of an image that have a role, in the viewer's order."""
    link = facts_of(image).get("link")
    if not link:
        return []
    return [
        x for x in layers
        if facts_of(x).get("role") == role and facts_of(x).get("image_link") == link
    ]  # fmt: skip


def image_shape(image: Image) -> tuple[int, int]:
    """Height and width of an image layer's level 0.

    Raises
    ------
    CellpathError
        The layer is not one 2-D plane.
    """
    if image.ndim != 2:
        raise CellpathError(
            f"'{image.name}' is a stack of {image.ndim} axes; select a 2-D plane first "
            "(right-click the layer, Split Stack, and pick the plane)."
        )
    data = image.data[0] if image.multiscale else image.data
    return int(data.shape[0]), int(data.shape[1])


def blank_features(count: int, like: Mapping[str, Any] = FEATURE_COLUMNS) -> pd.DataFrame:
    """Our feature table for ``count`` objects nothing is known of, uids included."""
    columns: dict[str, NDArray[Any]] = {}
    for name, blank in like.items():
        dtype: Any = object if isinstance(blank, str) else type(blank)
        columns[name] = np.full(count, blank, dtype=dtype)
    return pd.DataFrame({k: pd.Series(v, dtype=v.dtype) for k, v in columns.items()})


def point_size(image: Image, mpp: float | None, um: float = 4.0) -> float:
    """Diameter of an object's point in image pixels: it marks the object, it must not hide it.

    ``um`` where the scale is known (a squamous nucleus measures 6 to 15), else a fortieth of
    the image's shorter side within 6 to 40 pixels, less where ``um`` is less.
    """
    if mpp is not None:
        return float(np.clip(um / mpp, 3.0, 80.0))
    return float(np.clip(min(image_shape(image)) / 40.0 * min(1.0, um / 4.0), 6.0, 40.0))


def image_facts(image: Image, role: Role, **more: Any) -> dict[str, Any]:
    """Metadata of a layer of ours over an image."""
    facts = {
        "role": str(role),
        "image_link": link_of(image),
        "image": image.name,
        "path": str(image.source.path or ""),
    }
    return {METADATA_KEY: {**facts, **more}}


def placing(image: Image) -> dict[str, Any]:
    """What lays a layer over an image."""
    return {name: getattr(image, name) for name in (*TRANSFORM, "axis_labels")}


def placing_at(
    image: Image, row: float, col: float, step: tuple[float, float] = (1.0, 1.0)
) -> dict[str, Any]:
    """What lays an array over a part of an image.

    Parameters
    ----------
    image
        The image's layer.
    row, col
        Level-0 coordinates (integers are pixel centres) of the middle of the array's first pixel.
    step
        Level-0 rows and columns that a pixel of the array spans.
    """
    placed = placing(image)
    away = np.subtract(image.data_to_world((row, col)), image.data_to_world((0.0, 0.0)))
    # Our translation acts before the layer's affine map, which moves the world.
    linear = np.asarray(image.affine.linear_matrix)[-2:, -2:]
    moved = np.linalg.solve(linear, np.asarray(away)[-2:])
    placed["translate"] = np.asarray(image.translate) + moved
    placed["scale"] = np.asarray(image.scale) * np.asarray(step)
    return placed


def create_points_layer(
    image: Image,
    role: Role,
    system: System,
    many: str,
    columns: Mapping[str, Any] = FEATURE_COLUMNS,
    *,
    mpp: float | None = None,
    um: float = 4.0,
) -> Points:
    """Empty layer of objects of an image, not yet in a viewer; its data are the image's pixels.

    Raises
    ------
    CellpathError
        The image is not one 2-D plane.
    """
    image_shape(image)
    return Points(
        np.zeros((0, 2)),
        ndim=2,
        name=f"{many} · {image.name}",
        features=blank_features(0, columns),
        metadata=image_facts(image, role, system=str(system), mpp=mpp),
        size=point_size(image, mpp, um),
        face_color=PENDING_COLOUR,
        border_color="#1a1a1a",
        border_width=0.08,
        symbol="disc",
        **placing(image),
    )


def create_nuclei_layer(image: Image, *, mpp: float | None = None) -> Points:
    """Empty nuclei layer for an image; see `create_points_layer`."""
    return create_points_layer(image, Role.NUCLEI, System.DEEPPAP, "nuclei", mpp=mpp)


def create_complete_layer(image: Image, system: System = System.DEEPPAP) -> Shapes:
    """Empty layer of a system's *Complete here* rectangles on an image, not yet in a viewer."""
    image_shape(image)
    return Shapes(
        ndim=2,
        name=f"complete here · {image.name}",
        metadata=image_facts(image, Role.COMPLETE, system=str(system)),
        face_color="transparent",
        edge_color=COMPLETE_COLOUR,
        edge_width=max(1.0, min(image_shape(image)) / 400),
        **placing(image),
    )


def complete_layer_of(
    image: Image, layers: Iterable[Layer], system: System = System.DEEPPAP
) -> Shapes | None:
    """A system's *Complete here* layer of an image, or None."""
    for layer in layers_of(image, Role.COMPLETE, layers):
        if isinstance(layer, Shapes) and facts_of(layer).get("system", System.DEEPPAP) == system:
            return layer
    return None


def follow_transform(points: Layer, image: Image) -> None:
    """Lay a layer of ours over its image again after the image was moved or scaled."""
    for name in TRANSFORM:
        theirs = getattr(image, name)
        if not np.array_equal(np.asarray(getattr(points, name)), np.asarray(theirs)):
            setattr(points, name, theirs)  # each one redraws every point


def to_image_pixels(
    positions: NDArray[np.float64], layer: Layer, image: Image
) -> NDArray[np.float64]:
    """Data coordinates (n, 2) of one layer as level-0 pixels of an image, by way of the world.

    Both maps are affine, so three points decide them and no layer is asked n times.
    """
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    mapped = np.array([image.world_to_data(layer.data_to_world(tuple(c))) for c in corners])
    matrix = (mapped[1:] - mapped[0]).T
    return np.asarray(positions, dtype=float) @ matrix.T + mapped[0]
