"""Real images on this machine: where they are and what is known about them.

Nothing here downloads. Public files by URL are in `samples.public`.
"""

from __future__ import annotations

import csv
import math
import os
from dataclasses import dataclass
from pathlib import Path

from napari_cellpath.core.errors import MissingFileError, TableError

DATA_VARIABLE = "CELLPATH_DATA"
"""Environment variable naming the folder that holds ``herlev/``, ``wsi_small/`` ..."""


def data_folder() -> Path | None:
    """Folder of real images: ``$CELLPATH_DATA``, else ``../shared/data`` beside a checkout.

    Raises
    ------
    MissingFileError
        The variable names a folder that does not exist.
    """
    named = os.environ.get(DATA_VARIABLE)
    if named:
        folder = Path(named).expanduser()
        if not folder.is_dir():
            raise MissingFileError(
                f"{DATA_VARIABLE} names {folder}, which is no folder; correct or unset it."
            )
        return folder
    top = Path(__file__).resolve().parents[2]
    beside = top.parent / "shared" / "data"
    # Only in a checkout: next to site-packages a folder of that name is somebody else's.
    return beside if (top / "pyproject.toml").is_file() and beside.is_dir() else None


@dataclass(frozen=True)
class HerlevCell:
    """One cell of the Herlev set (Jantzen et al. 2005), 0.201 um per pixel, one cell an image.

    Attributes
    ----------
    image, mask
        Files; mask values are 0 and 3 background, 1 cytoplasm, 2 nucleus. None: no mask.
    row, col
        Nucleus centre, napari convention.
    class_name, class_id
        The set's seven classes, 1..7 in the paper's order.
    abnormal
        Classes 4-7.
    slide_group
        First number of the file name; cells of one group never part in a split.
    """

    image: Path
    mask: Path | None
    row: float
    col: float
    class_name: str
    class_id: int
    abnormal: bool
    slide_group: str


def herlev(folder: str | os.PathLike[str]) -> list[HerlevCell]:
    """The Herlev cells of a data folder, in the order of its ``labels.csv``.

    Parameters
    ----------
    folder
        The folder with ``labels.csv``, or one that holds it as ``herlev``.

    Raises
    ------
    MissingFileError
        There is no ``labels.csv``.
    TableError
        A column is missing or a value makes no sense.
    """
    top = Path(folder)
    if not (top / "labels.csv").is_file() and (top / "herlev").is_dir():
        top = top / "herlev"
    table = top / "labels.csv"
    if not table.is_file():
        raise MissingFileError(f"{table} does not exist; it lists the Herlev cells.")
    cells = []
    with table.open(encoding="utf-8-sig", newline="") as stream:
        for number, record in enumerate(csv.DictReader(stream), start=2):
            try:
                cells.append(_cell(top, record))
            except (KeyError, TypeError) as error:
                raise TableError(f"{table.name} line {number}: no value for {error}.") from error
            except ValueError as error:
                raise TableError(f"{table.name} line {number}: {error}.") from error
    return cells


def _cell(top: Path, record: dict[str, str]) -> HerlevCell:
    # The table's centres are means of pixel *edges plus a half* (0.5 above the mean index of
    # the masks' pixels, measured on all cells); a point's pixel centres are integers.
    row, col = float(record["nucleus_y"]) - 0.5, float(record["nucleus_x"]) - 0.5
    if not (math.isfinite(row) and math.isfinite(col)):
        raise ValueError("the nucleus centre is not finite")
    class_id = int(record["class_id"])
    if not 1 <= class_id <= 7:
        raise ValueError(f"class_id is {class_id}, not 1 to 7")
    mask = record.get("mask_file") or None
    return HerlevCell(
        image=top / record["file"],
        mask=top / mask if mask else None,
        row=row,
        col=col,
        class_name=record["class_name"],
        class_id=class_id,
        abnormal=record["abnormal"] == "1",
        slide_group=record["slide_group"],
    )
