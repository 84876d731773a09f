"""Labelled cells from a data folder: where the image is, where the nucleus, which class.

Two layouts of folders; those of a project are read by `training.project_data`.
``herlev``: ``labels.csv`` with the columns file, class_id, slide_group, nucleus_x and nucleus_y.
``folders``: one folder of images a class beside ``points.csv`` with the columns file, row, col
and, if known, group; a folder whose name begins with "normal" is normal.
"""

from __future__ import annotations

import csv
import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.core.annotations import Part
from napari_cellpath.core.errors import MissingFileError, RecipeError, TableError
from napari_cellpath.core.vocabulary import CLASS_COLOURS
from napari_cellpath.models import ClassInfo, ModelInfo
from napari_cellpath.samples.data import data_folder, herlev
from napari_cellpath.systems.deeppap.presets import WINDOW
from training.deeppap_recipe import Data

HERLEV_CLASSES = (
    ("normal superficial", False), ("normal intermediate", False), ("normal columnar", False),
    ("light dysplasia", True), ("moderate dysplasia", True), ("severe dysplasia", True),
    ("carcinoma in situ", True),
)  # fmt: skip
HERLEV_MPP = 0.201
HERLEV_NOTE = (
    "Herlev (smear2005) Pap-smear cells: Jantzen, Norup, Dounias, Bjerregaard 2005, "
    "mde-lab.aegean.gr/index.php/downloads. Published as an open benchmark without stated "
    "terms; cite the authors."
)
TWO_CLASSES = (
    ClassInfo(name="normal", colour=CLASS_COLOURS[0]),
    ClassInfo(name="abnormal", colour=CLASS_COLOURS[1], abnormal=True),
)
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff"}
# Sizes are compared as ratios; positions and extrema of brightness as they are.
_LOG_FEATURES = (
    "Kerne_A", "Cyto_A", "K/C", "KerneShort", "KerneLong", "CytoShort", "CytoLong", "KernePeri",
)  # fmt: skip
_LINEAR_FEATURES = ("Kerne_Ycol", "Cyto_Ycol")


@dataclass(frozen=True)
class CellRecord:
    """One labelled cell.

    ``fine_class`` counts from 0 in the data's own class list; ``row``, ``col`` are a napari
    point; ``group`` is the slide. ``features`` may be empty.
    ``mask`` is an image of the same size: 1 cytoplasm, 2 nucleus. ``half`` is half the side of
    the window a model looks at, in pixels of the image. ``uid`` is the object's in a project.
    ``box`` is (row0, col0, row1, col1) round a HEp-2 nucleus, half-open pixel edges; None: the
    image is one cell.
    """

    image: Path
    row: float
    col: float
    fine_class: int
    abnormal: bool
    group: str
    features: tuple[float, ...] = ()
    mask: Path | None = None
    half: int = WINDOW // 2
    uid: str = ""
    box: tuple[int, int, int, int] | None = None


@dataclass(frozen=True, eq=False)
class CellData:
    """Cells of one data folder or project.

    ``parts`` is a project's split, by group; ``grouped_by`` what a group is.
    """

    name: str
    folder: Path
    records: tuple[CellRecord, ...]
    fine_classes: tuple[ClassInfo, ...]
    mpp: float | None
    note: str
    sha256: str
    parts: Mapping[str, Part] = field(default_factory=dict)
    grouped_by: str = "slide group"

    @property
    def groups(self) -> list[str]:
        """Slide group of each cell."""
        return [r.group for r in self.records]

    @property
    def labels(self) -> NDArray[np.intp]:
        """Class of each cell in the data's own list."""
        return np.array([r.fine_class for r in self.records], dtype=np.intp)

    @property
    def abnormal(self) -> NDArray[np.bool_]:
        """Whether each cell is abnormal."""
        return np.array([r.abnormal for r in self.records], dtype=bool)

    def features(self) -> NDArray[np.float32]:
        """Published features, standardised, (n, m); m is 0 where the data have none."""
        raw = np.array([r.features for r in self.records], dtype=np.float32)
        if raw.size == 0:
            return np.zeros((len(self.records), 0), dtype=np.float32)
        deviation = raw.std(axis=0)
        return np.asarray((raw - raw.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0))


def find_folder(name: str) -> Path:
    """A folder by path, or by its name inside the data folder.

    Raises
    ------
    MissingFileError
        There is neither.
    """
    direct = Path(name).expanduser()
    if direct.is_dir():
        return direct.resolve()
    root = _data_root()
    if root is not None and (root / name).is_dir():
        return (root / name).resolve()
    raise MissingFileError(
        f"There is no data folder '{name}'. Give its path in the recipe, or set CELLPATH_DATA to "
        "the folder that holds it."
    )


def _data_root() -> Path | None:
    return data_folder()


def read_cells(data: Data) -> CellData:
    """Read the labelled cells a recipe names.

    Raises
    ------
    MissingFileError
        The folder or its table is not there.
    TableError
        The table lacks a column or holds a value that is no number.
    RecipeError
        No images, a class nobody knows, or a project (whose classes are a parent model's).
    """
    if data.layout == "project":
        raise RecipeError("data.layout is 'project'; give the parent model in 'finetune' too.")
    folder = find_folder(data.folder)
    return _read_herlev(folder) if data.layout == "herlev" else _read_folders(folder)


def table_rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Rows of a table that has at least these columns; `CellpathError` where it cannot be read."""
    if not path.is_file():
        raise MissingFileError(f"{path} is missing; without it the cells have no labels.")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [c for c in columns if c not in (reader.fieldnames or [])]
            if missing:
                raise TableError(f"{path} has no column '{missing[0]}'.")
            return list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise TableError(f"{path} is not a readable CSV table ({error}).") from None


def _number(row: dict[str, str], column: str, path: Path, line: int) -> float:
    try:
        value = float(row[column])
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise TableError(f"{path} line {line}: {column} is '{row[column]}', not a number.")
    return value


def image_inside(folder: Path, name: str, table: Path, line: int) -> Path:
    """An image a table names, which must be there and inside the data folder."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder):
        raise TableError(f"{table} line {line}: '{name}' lies outside the data folder.")
    if not path.is_file():
        raise MissingFileError(f"{table} line {line}: the image {path} is not there.")
    return path


def _features(row: dict[str, str]) -> tuple[float, ...]:
    try:
        logs = [math.log(max(float(row[f"feat_{k}"]), 1e-3)) for k in _LOG_FEATURES]
        return (*logs, *(float(row[f"feat_{k}"]) for k in _LINEAR_FEATURES))
    except (KeyError, TypeError, ValueError):
        return ()


def _read_herlev(folder: Path) -> CellData:
    table = folder / "labels.csv"
    if not table.is_file() and (folder / "normal_superficiel").is_dir():
        raise MissingFileError(
            f"{table} is missing; if this is the Herlev set as downloaded, make it with: "
            f'python -m training.downloads herlev "{folder}"'
        )
    rows = table_rows(table, ("file", "class_id", "slide_group", "nucleus_x", "nucleus_y"))
    for line, row in enumerate(rows, start=2):
        if row["class_id"] not in {str(i + 1) for i in range(len(HERLEV_CLASSES))}:
            raise RecipeError(
                f"{table} line {line}: unknown class '{row['class_id']}'; Herlev's are 1 to 7."
            )
        if not row["slide_group"]:
            raise TableError(f"{table} line {line}: slide_group is empty.")
        image_inside(folder, row["file"], table, line)
    records = [
        CellRecord(
            image=cell.image.resolve(),
            row=cell.row,
            col=cell.col,
            fine_class=cell.class_id - 1,
            abnormal=HERLEV_CLASSES[cell.class_id - 1][1],
            group=cell.slide_group,
            features=_features(row),
            mask=cell.mask if cell.mask is not None and cell.mask.is_file() else None,
        )
        for cell, row in zip(herlev(folder), rows, strict=True)
    ]
    if len({len(r.features) for r in records}) > 1:
        raise TableError(f"{table}: some cells lack the published features (columns feat_...).")
    classes = tuple(
        ClassInfo(name=name, colour=CLASS_COLOURS[i], abnormal=abnormal)
        for i, (name, abnormal) in enumerate(HERLEV_CLASSES)
    )
    return finish("herlev", folder, records, classes, HERLEV_MPP, HERLEV_NOTE, table)


def _read_folders(folder: Path) -> CellData:
    names = sorted(
        p.name for p in folder.iterdir()
        if p.is_dir() and any(f.suffix.lower() in IMAGE_SUFFIXES for f in p.iterdir())
    )  # fmt: skip
    if not names:
        raise RecipeError(f"{folder} holds no folders of images, one a class.")
    table = folder / "points.csv"
    records = []
    for line, row in enumerate(table_rows(table, ("file", "row", "col")), start=2):
        image = image_inside(folder, row["file"], table, line)
        kind = image.parent.name
        if kind not in names:
            raise RecipeError(
                f"{table} line {line}: unknown class '{kind}'; the folders are {', '.join(names)}."
            )
        records.append(
            CellRecord(
                image=image,
                row=_number(row, "row", table, line),
                col=_number(row, "col", table, line),
                fine_class=names.index(kind),
                abnormal=not kind.lower().startswith("normal"),
                group=row.get("group") or image.name,
            )
        )
    classes = tuple(
        ClassInfo(
            name=name,
            colour=CLASS_COLOURS[i % len(CLASS_COLOURS)],
            abnormal=not name.lower().startswith("normal"),
        )
        for i, name in enumerate(names)
    )
    return finish(folder.name, folder, records, classes, None, "", table)


def finish(
    name: str,
    folder: Path,
    records: list[CellRecord],
    classes: tuple[ClassInfo, ...],
    mpp: float | None,
    note: str,
    table: Path,
    grouped_by: str = "slide group",
) -> CellData:
    """Cells as data, with the hash of the table (where it is a file) and of every image."""
    if not records:
        raise RecipeError(f"{table} names no images; there is nothing to learn from.")
    digest = hashlib.sha256()
    files = [table] if table.is_file() else []
    for path in [*files, *sorted({r.image for r in records})]:
        digest.update(os.fsencode(path.relative_to(folder).as_posix()))
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return CellData(
        name, folder, tuple(records), classes, mpp, note, digest.hexdigest(), grouped_by=grouped_by
    )


def targets_of(data: CellData, parent: ModelInfo) -> NDArray[np.intp]:
    """Class of each cell in the parent's list: by name, or by normal and abnormal of two.

    Raises
    ------
    RecipeError
        A class the parent does not know; it is named.
    """
    names = parent.class_names
    abnormal = [c.abnormal for c in parent.classes]
    found = []
    for record in data.records:
        name = data.fine_classes[record.fine_class].name
        if name in names:
            found.append(names.index(name))
        elif sorted(abnormal) == [False, True]:
            found.append(abnormal.index(record.abnormal))
        else:
            raise RecipeError(
                f"{data.folder} has cells of the class '{name}', which {parent.name} does not "
                f"know; it knows {', '.join(names)}."
            )
    return np.array(found, dtype=np.intp)
