"""Labelled regions of slides: which image, which part of it, of which class each pixel.

``glas``: ``labels.csv`` (file, patient_id), ``images/``, ``masks3/`` of the same names.
``mtchi``: ``images/``, ``masks/`` of the same names, and a table that says whose each image is:
``slides.csv`` with file, slide (or patient, or group) and, if known, fold (a number, or ``test``).
Masks hold class numbers or the paper's colours. A project gives what is painted in it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.core.errors import (
    CellpathError,
    MissingFileError,
    RecipeError,
    TableError,
)
from napari_cellpath.core.requests import FileImage
from napari_cellpath.core.vocabulary import CIN_CLASSES, CIN_COLOURS, CLASS_COLOURS, System
from napari_cellpath.models import ClassInfo
from napari_cellpath.project.painted import UNSAID, PaintedData, PaintedImage, painted
from napari_cellpath.slides.windows import image_shape, read
from training.datasets import (
    IMAGE_SUFFIXES,
    CellData,
    CellRecord,
    find_folder,
    finish,
    image_inside,
    table_rows,
)
from training.hspnet.losses import IGNORE
from training.hspnet.recipe import HspData
from training.provenance import image_hash

Box = tuple[int, int, int, int]
PixelArray = NDArray[np.uint8]

GLAS_TABLE, MTCHI_TABLE = "labels.csv", "slides.csv"
GLAS_MPP = 0.62
GLAS_CLASSES = (
    ClassInfo(name="background", colour="#000000"),
    ClassInfo(name="benign gland", colour=CLASS_COLOURS[0]),
    ClassInfo(name="malignant gland", colour=CLASS_COLOURS[1], abnormal=True),
)
GLAS_NOTE = (
    "Glands of the colon, H&E, 20x: GlaS (Warwick-QU), the challenge at MICCAI 2015; K. "
    "Sirinukunwattana et al., Gland segmentation in colon histology images: the GlaS challenge "
    "contest, Medical Image Analysis 35 (2017) 489-502. For research use; cite it. The class of a "
    "gland is the grade of its whole image."
)
MTCHI_COLOURS = tuple(
    tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5)) for colour in CIN_COLOURS
)
"""The paper's display of its five classes, in their order (papers.md 3.1)."""
MTCHI_CLASSES = tuple(
    ClassInfo(name=name, colour=colour, abnormal=name.startswith("CIN"))
    for name, colour in zip(CIN_CLASSES, CIN_COLOURS, strict=True)
)
MTCHI_MPP = 1.0
"""10x, about 1 micrometre a pixel (papers.md 3.8)."""
TEST = "test"


@dataclass(frozen=True)
class RegionRecord(CellRecord):
    """One labelled region: a whole image, a *Complete here* rectangle, a painted block.

    ``row``, ``col`` are its middle; ``fine_class`` is the tissue class that most of its pixels
    are of (0 where there is none); ``mask``, or ``painted``, says the class of each pixel.

    Attributes
    ----------
    window
        Top, left, bottom, right in level-0 pixels, half-open.
    painted
        What a project says of the image; None: ``mask`` is a file.
    to
        Class of the data's list to that of the model's, for painted regions.
    mpp
        Of the image, None if not known.
    fold
        The data's own: a number, ``test``, or nothing.
    """

    window: Box = (0, 0, 0, 0)
    painted: PaintedImage | None = None
    to: tuple[int, ...] = ()
    mpp: float | None = None
    fold: str = ""


def read_regions(data: HspData) -> CellData:
    """Read the labelled regions a recipe names.

    Raises
    ------
    MissingFileError
        The folder, its table, an image or its mask is not there.
    TableError
        The table lacks a column or a value; a mask does not fit its image or holds no class.
    RecipeError
        No images, or a project (whose classes are a parent model's).
    """
    if data.layout == "project":
        raise RecipeError("data.layout is 'project'; give the parent model in 'finetune' too.")
    folder = find_folder(data.folder)
    return _read_glas(folder) if data.layout == "glas" else _read_mtchi(folder)


def layout_of(folder: Path | str) -> str:
    """``glas`` where the folder has its table and masks, else ``mtchi``."""
    found = find_folder(str(folder))
    return "glas" if (found / GLAS_TABLE).is_file() and (found / "masks3").is_dir() else "mtchi"


def _read_glas(folder: Path) -> CellData:
    table = folder / GLAS_TABLE
    records: list[CellRecord] = []
    for line, row in enumerate(table_rows(table, ("file", "patient_id")), start=2):
        image = image_inside(folder, row["file"], table, line)
        if not row["patient_id"].strip():
            raise TableError(f"{table} line {line}: patient_id is empty.")
        mask = folder / "masks3" / f"{image.stem}.png"
        records.append(_region(image, mask, row["patient_id"].strip(), len(GLAS_CLASSES), GLAS_MPP))
    found = finish(
        "glas", folder, records, GLAS_CLASSES, GLAS_MPP, GLAS_NOTE, table, grouped_by="patient"
    )
    return _with_masks(found)


def _read_mtchi(folder: Path) -> CellData:
    images = sorted(p for p in (folder / "images").glob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not images:
        raise MissingFileError(
            f"{folder} holds no images/; the layout is images/, masks/ of the same names and "
            f"{MTCHI_TABLE} with the columns file and slide."
        )
    table = folder / MTCHI_TABLE
    rows = table_rows(table, ("file",))
    column = next((c for c in ("slide", "patient", "group") if rows and c in rows[0]), None)
    if column is None:
        raise TableError(
            f"{table} needs a column slide (or patient): a slide must not be on two sides of a "
            "split."
        )
    told = {Path(row["file"]).name: row for row in rows}
    records: list[CellRecord] = []
    for image in images:
        row = told.get(image.name, {})
        if not (row.get(column) or "").strip():
            raise TableError(f"{table} does not say which {column} {image.name} is of.")
        mask = next(
            (p for p in sorted((folder / "masks").glob(f"{image.stem}.*")) if p.stem == image.stem),
            folder / "masks" / f"{image.stem}.png",
        )
        record = _region(image.resolve(), mask, row[column].strip(), len(MTCHI_CLASSES), MTCHI_MPP)
        records.append(replace(record, fold=(row.get("fold") or "").strip().lower()))
    found = finish(
        folder.name, folder, records, MTCHI_CLASSES, MTCHI_MPP, "", table,
        grouped_by="patient" if column == "patient" else "slide",
    )  # fmt: skip
    return _with_masks(found)


def _with_masks(data: CellData) -> CellData:
    """The data, its hash also over the masks."""
    digest = hashlib.sha256(data.sha256.encode())
    for record in data.records:
        assert record.mask is not None  # the readers above gave one  # noqa: S101
        digest.update(image_hash(record.mask).encode())
    return replace(data, sha256=digest.hexdigest())


def _region(image: Path, mask: Path, group: str, n_classes: int, mpp: float) -> RegionRecord:
    """A whole image as one region."""
    if not mask.is_file():
        raise MissingFileError(f"{image.name} has no mask: {mask} is not there.")
    classes = read_mask(mask, n_classes)
    height, width = image_shape(FileImage(str(image)))
    if classes.shape != (height, width):
        raise TableError(
            f"{mask} is {classes.shape[0]} x {classes.shape[1]} pixels, its image {height} x "
            f"{width}."
        )
    return RegionRecord(
        image=image, row=(height - 1) / 2, col=(width - 1) / 2, fine_class=_main_class(classes),
        abnormal=False, group=group, mask=mask, window=(0, 0, height, width), mpp=mpp,
    )  # fmt: skip


def _main_class(classes: NDArray[np.integer]) -> int:
    """The tissue class most pixels are of; 0 where there is none."""
    tissue = classes[(classes > 0) & (classes != IGNORE)]
    return int(np.bincount(tissue).argmax()) if tissue.size else 0


def read_mask(path: Path, n_classes: int) -> PixelArray:
    """Class of each pixel of a mask of class numbers or of the paper's five colours.

    Raises
    ------
    TableError
        A value or a colour that is no class; it is named.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as opened:
            grey = opened.mode in ("L", "P", "1", "I", "I;16", "I;16B")
            pixels = np.asarray(opened if grey else opened.convert("RGB"))
    except (OSError, UnidentifiedImageError) as error:
        raise TableError(f"{path} cannot be read as a mask ({error}).") from None
    if pixels.ndim == 2:
        highest = int(pixels.max(initial=0))
        if highest >= n_classes:
            raise TableError(
                f"{path} holds the value {highest}; classes are numbered 0 to {n_classes - 1}."
            )
        return pixels.astype(np.uint8)
    return _from_colours(pixels, path, n_classes)


def _from_colours(pixels: PixelArray, path: Path, n_classes: int) -> PixelArray:
    keys = (pixels.astype(np.int64) * (65536, 256, 1)).sum(axis=2)
    classes = np.full(keys.shape, IGNORE, dtype=np.uint8)
    for number, (r, g, b) in enumerate(MTCHI_COLOURS[:n_classes]):
        classes[keys == r * 65536 + g * 256 + b] = number
    if (classes == IGNORE).any():
        row, col = np.argwhere(classes == IGNORE)[0].tolist()
        raise TableError(
            f"{path}: the colour {tuple(pixels[row, col].tolist())} at row {row}, column {col} is "
            "none of black, white, green, blue and red."
        )
    return classes


def read_project(folder: Path | str, classes: Sequence[ClassInfo]) -> CellData:
    """What is painted in a project, as regions.

    Parameters
    ----------
    folder
        ``NAME.cellpath``.
    classes
        Of the model that is to learn or to be measured; painted classes are taken by name.

    Raises
    ------
    MissingFileError
        The project or one of its images is not there.
    RecipeError
        Nothing is painted, a painted class is none of the model's, or an image is only in memory.
    """
    if not Path(folder).is_dir():
        raise MissingFileError(f"There is no project {folder}.")
    return regions_of(painted(folder, System.HSPNET), Path(folder), classes)


def regions_of(said: PaintedData, folder: Path, classes: Sequence[ClassInfo]) -> CellData:
    """Regions of what a project offers; see `read_project`."""
    names = [c.name for c in classes]
    own = said.classes or tuple(names)
    to = tuple(names.index(n) if n in names else IGNORE for n in own)
    records = []
    digest = hashlib.sha256()
    for image in said.images:
        facts = image.facts
        where = f"{folder}: {facts.name}"
        if not facts.path:
            raise RecipeError(
                f"{where} is only in memory; save it as a file and open that, then it can be "
                "trained on."
            )
        if not Path(facts.path).is_file():
            raise MissingFileError(f"{folder}: the image {facts.path} is not there.")
        for number, box in enumerate(image.boxes()):
            painted_here = image.classes_in(box)
            _check_painted(painted_here, to, own, names, where)
            mapped = to_model(painted_here, to)
            if not (mapped != IGNORE).any():
                continue
            digest.update(json.dumps([image_hash(Path(facts.path)), box, facts.group]).encode())
            digest.update(mapped.tobytes())
            records.append(
                RegionRecord(
                    image=Path(facts.path), row=(box[0] + box[2] - 1) / 2,
                    col=(box[1] + box[3] - 1) / 2, fine_class=_main_class(mapped), abnormal=False,
                    group=facts.group or facts.name, uid=f"{facts.key}/{number}", window=box,
                    painted=image, to=to, mpp=facts.mpp,
                )
            )  # fmt: skip
    if not records:
        raise RecipeError(
            f"{folder} holds no painted regions and no 'Complete here' rectangles of tissue; there "
            "is nothing to learn from."
        )
    return CellData(
        name=said.name, folder=folder, records=tuple(records), fine_classes=tuple(classes),
        mpp=None, note="", sha256=digest.hexdigest(), parts=dict(said.parts), grouped_by="slide",
    )  # fmt: skip


def _check_painted(
    here: NDArray[np.int64],
    to: Sequence[int],
    own: Sequence[str],
    names: Sequence[str],
    where: str,
) -> None:
    for value in np.unique(here).tolist():
        if value >= len(to):
            raise RecipeError(
                f"{where}: a painted value stands for class {value}, but there are only {len(to)} "
                f"classes ({', '.join(own)})."
            )
        if value != UNSAID and to[value] == IGNORE:
            raise RecipeError(
                f"{where}: '{own[value]}' is painted, which is no class of the model; it knows "
                f"{', '.join(names)}."
            )


def to_model(classes: NDArray[np.int64], to: Sequence[int]) -> PixelArray:
    """Classes of a project's list as those of the model's; `UNSAID` becomes `IGNORE`."""
    table = np.array([*to, IGNORE], dtype=np.uint8)  # UNSAID, -1, is the last
    return table[classes]


def load_region(record: RegionRecord, margin: int, n_classes: int) -> tuple[PixelArray, PixelArray]:
    """Pixels (H, W, 3) of a region and of what lies round it, and the class of each (H, W).

    Parameters
    ----------
    record
        The region.
    margin
        Pixels of the image round the region that are read too, for context; their class is
        `IGNORE`. Clipped at the image's border.
    n_classes
        Of the data.

    Raises
    ------
    CellpathError
        The image cannot be read; it is named.
    """
    source = FileImage(str(record.image))
    try:
        height, width = image_shape(source)
        r0, c0, r1, c1 = record.window
        top, left = max(r0 - margin, 0), max(c0 - margin, 0)
        bottom, right = min(r1 + margin, height), min(c1 + margin, width)
        pixels = read(source, top, left, bottom - top, right - left)
    except OSError as error:
        raise MissingFileError(f"{record.image} cannot be read ({error}).") from None
    except CellpathError as error:
        if record.image.name in str(error):
            raise
        raise type(error)(f"{record.image}: {error}") from None
    classes = np.full(pixels.shape[:2], IGNORE, dtype=np.uint8)
    inside = np.s_[r0 - top : r1 - top, c0 - left : c1 - left]
    if record.painted is not None:
        classes[inside] = to_model(record.painted.classes_in(record.window), record.to)
    elif record.mask is not None:
        classes[inside] = read_mask(record.mask, n_classes)[r0:r1, c0:c1]
    return np.ascontiguousarray(pixels), classes
