"""Labelled regions of red cells that a recipe names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.core.errors import RecipeError
from training.datasets import find_folder
from training.rbc.chula import is_chula, read_chula
from training.rbc.folders import read_regions
from training.rbc.recipe import RbcData, RbcRegions
from training.rbc.table import RedCells


def read_cells(data: RbcData) -> RedCells:
    """Read every labelled region a recipe names.

    Raises
    ------
    MissingFileError
        The folder, its table or an image is not there.
    TableError
        A table lacks a column or a value.
    RecipeError
        No images, or a project (whose types are a parent model's).
    """
    if data.layout == "project":
        raise RecipeError("data.layout is 'project'; give the parent model in 'finetune' too.")
    folder = find_folder(data.folder)
    if data.layout == "chula":
        return read_chula(folder)
    return read_regions(folder, data.connectivity, data.min_area)


def layout_of(folder: Path | str) -> str:
    """``chula`` where the folder has derived boxes, else ``regions``."""
    return "chula" if is_chula(find_folder(str(folder))) else "regions"


def wanted_rows(data: RedCells, regions: RbcRegions) -> NDArray[np.bool_]:
    """(n,) whether each record is one of those a recipe learns from."""
    of_group = data.kinds == "cell"
    several = data.cells > 1
    rows = of_group & regions.cells
    rows |= ~of_group & ~several & regions.single
    rows |= several & regions.multi & (data.known | regions.partial)
    return np.asarray(rows)


def chosen(data: RedCells, regions: RbcRegions) -> RedCells:
    """The records that a recipe learns from; the fields stay.

    Raises
    ------
    RecipeError
        There are none.
    """
    rows = np.flatnonzero(wanted_rows(data, regions))
    if not len(rows):
        raise RecipeError(f"{data.folder} holds no labelled regions of the kinds asked for.")
    return replace(data, records=tuple(data.records[int(i)] for i in rows))


def kinds_of(data: RedCells) -> dict[str, NDArray[np.bool_]]:
    """Kinds of boxes that are measured apart, with the rows of each; only fully labelled ones.

    ``cells`` are the boxes of one cell, alone or in a group; ``regions`` connected groups of one
    cell or more, as the paper has them; ``multi`` those of several.
    """
    known, of_group, several = data.known, data.kinds == "cell", data.cells > 1
    return {
        "cells": known & ~several,
        "regions": known & ~of_group,
        "single": known & ~of_group & ~several,
        "multi": known & several,
    }
