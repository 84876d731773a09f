"""The kinds of objects on our points layers: what they are called and what is kept of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from napari.layers import Image, Layer, Points

from napari_cellpath.bridge.conventions import FEATURE_COLUMNS, create_points_layer, facts_of
from napari_cellpath.core.annotations import Shape
from napari_cellpath.core.box_table import BOX_COLUMNS
from napari_cellpath.core.vocabulary import Role, System

P_COLUMN = "p_"
"""Before the name of a class: the probability of that class."""


@dataclass(frozen=True, eq=False)
class Kind:
    """One kind of objects.

    Attributes
    ----------
    role, system
        Of their layers, and of their annotations in projects.
    one, many, done
        What one is called, several, and what is done to them.
    columns
        Of the layer's feature table, each with its blank value.
    shape
        How a project keeps them.
    point_um
        Diameter of their points, micrometres.
    several
        Whether one object may be of several classes at once; a person's word on it is then
        `core.annotations.joined`.
    """

    role: Role
    system: System
    one: str
    many: str
    done: str
    columns: Mapping[str, Any]
    shape: Shape
    point_um: float
    several: bool = False

    def count(self, number: int) -> str:
        """So many of them, in words."""
        return f"1 {self.one}" if number == 1 else f"{number:,} {self.many}"


NUCLEI = Kind(
    Role.NUCLEI, System.DEEPPAP, "nucleus", "nuclei", "scored", FEATURE_COLUMNS, Shape.POINT, 4.0
)
_CELL_COLUMNS: dict[str, Any] = {
    **{name: blank for name, blank in FEATURE_COLUMNS.items() if name != "std"},
    "margin": np.nan,
    **dict.fromkeys(BOX_COLUMNS, 0),
}
CELLS = Kind(Role.CELLS, System.HEP2, "cell", "cells", "classified", _CELL_COLUMNS, Shape.BOX, 4.0)
_REGION_COLUMNS: dict[str, Any] = {
    **{name: blank for name, blank in FEATURE_COLUMNS.items() if name != "std"},
    "verdict": "",
    "abnormal": np.nan,
    "detection": np.nan,
    "margin": np.nan,
    **dict.fromkeys(BOX_COLUMNS, 0),
}
RED_CELLS = Kind(
    Role.REGIONS, System.RBC, "region", "regions", "classified", _REGION_COLUMNS, Shape.BOX, 1.5,
    several=True,
)  # fmt: skip
"""``call`` and ``correction`` are the types a region holds; ``verdict`` and ``abnormal`` what
follows from both, ``score`` the model's own."""
KINDS = (NUCLEI, CELLS, RED_CELLS)


def kind_of_system(system: System | str) -> Kind | None:
    """The kind of objects a system looks at; None if it has none of its own."""
    return next((kind for kind in KINDS if kind.system == system), None)


def kind_of(layer: Layer | None) -> Kind | None:
    """The kind of objects on a layer; None if it is none of our points layers."""
    if not isinstance(layer, Points):
        return None
    role = facts_of(layer).get("role")
    return next((kind for kind in KINDS if kind.role == role), None)


def create_layer(kind: Kind, image: Image, *, mpp: float | None = None) -> Points:
    """Empty layer of objects of a kind for an image, not yet in a viewer.

    Raises
    ------
    CellpathError
        The image is not one 2-D plane.
    """
    return create_points_layer(
        image, kind.role, kind.system, kind.many, kind.columns, mpp=mpp, um=kind.point_um
    )
