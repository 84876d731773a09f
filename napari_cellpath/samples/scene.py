"""The picture a demonstration runs on: real cells a model never saw, else a generated field."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from napari_cellpath.core.errors import RecipeError
from napari_cellpath.samples.data import HerlevCell, data_folder, herlev
from napari_cellpath.samples.fields import cytology_field
from napari_cellpath.samples.ome import write_ome

HERLEV_MPP = 0.201
GUTTER = 106
"""Pixels of black round each cell's image: no view of a cell reaches its neighbour, and black is
what the paper pads with, so a cell scores here exactly as it does in its own file."""


@dataclass(frozen=True)
class Scene:
    """An image with known nuclei.

    Attributes
    ----------
    title
        What it is, for a person.
    image
        uint8 (H, W, 3).
    centres
        (n, 2) nucleus centres, (row, col) points.
    abnormal
        (n,) the label each cell came with.
    names
        What each cell is called in its source.
    mpp
        Micrometres per pixel.
    real
        Whether the cells are real ones.
    """

    title: str
    image: NDArray[np.uint8]
    centres: NDArray[np.float64]
    abnormal: NDArray[np.bool_]
    names: tuple[str, ...]
    mpp: float
    real: bool

    def save(self, path: Path) -> Path:
        """Write the image as an OME-TIFF with its pixel size."""
        return write_ome(path, self.image, self.mpp)


def demo_scene(reserve: Sequence[str], n_cells: int = 12, seed: int = 0) -> Scene:
    """Cells of the reserve on one sheet if real data is here, else a generated field.

    Parameters
    ----------
    reserve
        Slide groups the model never saw (``reserve`` in its ``model.json``).
    n_cells
        How many cells; half of them abnormal as far as the reserve allows.
    seed
        Which ones.
    """
    real = reserve_sheet(reserve, n_cells, seed)
    if real is not None:
        return real
    return generated_field(seed)


def generated_field(seed: int = 0) -> Scene:
    """A generated field of cells, with every nucleus known."""
    field = cytology_field(seed=seed)
    return Scene(
        "a generated field (no real images found; set CELLPATH_DATA to use them)",
        field.image,
        field.centres,
        field.abnormal,
        tuple(f"cell {i}" for i in range(len(field.centres))),
        field.mpp,
        real=False,
    )


def reserve_sheet(reserve: Sequence[str], n_cells: int = 12, seed: int = 0) -> Scene | None:
    """Local Herlev cells of the reserve on one sheet; None where there are none."""
    folder = data_folder()
    if folder is None or not reserve or not (folder / "herlev" / "labels.csv").is_file():
        return None
    cells = [c for c in herlev(folder) if c.slide_group in set(reserve)]
    return contact_sheet(_choose(cells, n_cells, seed)) if cells else None


def _choose(cells: Sequence[HerlevCell], n: int, seed: int) -> list[HerlevCell]:
    """Draw about half normal, half abnormal, mixed."""
    rng = np.random.default_rng(seed)
    order = [cells[i] for i in rng.permutation(len(cells))]
    abnormal = [c for c in order if c.abnormal]
    normal = [c for c in order if not c.abnormal]
    half = min(len(normal), n // 2)
    chosen = normal[:half] + abnormal[: n - half]
    return [chosen[i] for i in rng.permutation(len(chosen))]


def contact_sheet(cells: Sequence[HerlevCell], columns: int = 4) -> Scene:
    """Lay single-cell images out on one black sheet, far enough apart not to see each other."""
    if not cells:
        raise RecipeError("There is no cell to lay out.")
    images = [np.asarray(Image.open(c.image).convert("RGB")) for c in cells]
    rows = [images[i : i + columns] for i in range(0, len(images), columns)]
    width = max(sum(im.shape[1] for im in row) + GUTTER * (len(row) + 1) for row in rows)
    height = sum(max(im.shape[0] for im in row) for row in rows) + GUTTER * (len(rows) + 1)
    sheet = np.zeros((height, width, 3), np.uint8)
    centres = []
    top = GUTTER
    remaining = iter(cells)
    for row in rows:
        tallest = max(im.shape[0] for im in row)
        left = GUTTER
        for im in row:
            cell = next(remaining)
            start = top + (tallest - im.shape[0]) // 2
            sheet[start : start + im.shape[0], left : left + im.shape[1]] = im
            centres.append((start + cell.row, left + cell.col))
            left += im.shape[1] + GUTTER
        top += tallest + GUTTER
    return Scene(
        f"{len(cells)} real cells of slides the model never saw (Herlev, reserve)",
        sheet,
        np.array(centres),
        np.array([c.abnormal for c in cells]),
        tuple(f"{c.image.stem} ({c.class_name})" for c in cells),
        HERLEV_MPP,
        real=True,
    )
