"""Public data sets as they are downloaded, made into the layouts that recipes and protocols read.

::

    python -m training.downloads herlev "smear2005/New database pictures"
    python -m training.downloads glas "Warwick QU Dataset (Released 2016_07_08)"

``herlev`` (``smear2005.zip``, Jantzen et al. 2005) holds a folder a class with ``NAME.BMP`` and the
drawn parts of the cell in colours, ``NAME-d.bmp``: the centre of the nucleus and the masks are
taken from these, the slide is the first number of the name. The published features are not read;
they are help for training, not needed for it. ``glas`` (Sirinukunwattana et al. 2017) holds
``NAME.bmp``, ``NAME_anno.bmp`` (0 background, 1..n glands) and ``Grade.csv``: the class of a gland
is the grade of its image.

Tables and masks are written beside what was downloaded, after all of it was looked at; images stay
as they are.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from napari_cellpath.core.errors import (
    CellpathError,
    MissingFileError,
    OutputError,
    TableError,
    UnreadableImageError,
)
from training.checkpoint import write_whole
from training.datasets import table_rows

TABLE = "labels.csv"
CLASS_FOLDERS = (
    "normal_superficiel", "normal_intermediate", "normal_columnar", "light_dysplastic",
    "moderate_dysplastic", "severe_dysplastic", "carcinoma_in_situ",
)  # fmt: skip
"""Folders of the Herlev download, in the order of the classes 1 to 7; 4 to 7 are abnormal."""
NUCLEUS, CYTOPLASM = (0, 0, 255), (0, 0, 128)
"""Colours (red, green, blue) of the drawn parts; all others are background."""
GRADES = ("benign", "malignant")
"""Grades of GlaS images; their glands are the classes 1 and 2."""


def prepare_herlev(folder: Path | str) -> int:
    """Write ``labels.csv`` and ``masks/`` of the layout ``herlev``; return how many cells.

    Raises
    ------
    MissingFileError
        There are none of the classes' folders, or an image without its drawn parts.
    UnreadableImageError
        Drawn parts cannot be read, are not of the image's size, or show no nucleus.
    OutputError
        There is a ``labels.csv`` already.
    """
    folder = _unprepared(folder)
    found = [
        (number, image, _cell_parts(image))
        for number, name in enumerate(CLASS_FOLDERS, start=1)
        for image in sorted((folder / name).glob("*.[bB][mM][pP]"))
        if not image.stem.endswith("-d")
    ]
    if not found:
        raise MissingFileError(
            f"{folder} holds no images in folders named {', '.join(CLASS_FOLDERS)}; give the "
            "folder of the unpacked smear2005.zip that does ('New database pictures')."
        )
    rows = []
    for number, image, mask in found:
        name = CLASS_FOLDERS[number - 1]
        target = _save(mask, folder / "masks" / name / f"{image.stem}.png")
        row, col = np.argwhere(mask == 2).mean(axis=0) + 0.5  # pixel edges, as the layout's
        files = (path.relative_to(folder).as_posix() for path in (image, target))
        slide = image.stem.partition("-")[0]
        rows.append((*files, name, number, int(number > 3), slide, f"{col:.2f}", f"{row:.2f}"))
    columns = "file mask_file class_name class_id abnormal slide_group nucleus_x nucleus_y"
    return _write_table(folder, columns.split(), rows)


def prepare_glas(folder: Path | str) -> int:
    """Write ``labels.csv`` and ``masks3/`` of the layout ``glas``; return how many images.

    Raises
    ------
    MissingFileError
        There is no ``Grade.csv``, or an image or its glands are not there.
    TableError
        ``Grade.csv`` has no such columns, or a grade is neither benign nor malignant.
    UnreadableImageError
        Glands cannot be read or are not of the image's size.
    OutputError
        There is a ``labels.csv`` already.
    """
    folder = _unprepared(folder)
    grades = folder / "Grade.csv"
    found = []
    for line, told in enumerate(table_rows(grades, ()), start=2):
        row = {(key or "").strip(): (value or "").strip() for key, value in told.items()}
        try:
            name, patient, grade = row["name"], row["patient ID"], row["grade (GlaS)"].lower()
        except KeyError as error:
            raise TableError(f"{grades} has no column {error}.") from None
        if grade not in GRADES:
            raise TableError(f"{grades} line {line}: the grade '{grade}' is none of {GRADES}.")
        image = folder / f"{name}.bmp"
        glands = _read(folder / f"{name}_anno.bmp", image)
        glands = glands if glands.ndim == 2 else glands.max(axis=2)
        mask = np.where(glands > 0, GRADES.index(grade) + 1, 0).astype(np.uint8)
        found.append((image, patient, mask))
    if not found:
        raise TableError(f"{grades} lists no images.")
    rows = []
    for image, patient, mask in found:
        _save(mask, folder / "masks3" / f"{image.stem}.png")
        rows.append((image.name, patient))
    return _write_table(folder, ("file", "patient_id"), rows)


def _unprepared(folder: Path | str) -> Path:
    table = Path(folder) / TABLE
    if table.exists():
        raise OutputError(f"{table} is there already; remove it to have it made anew.")
    return Path(folder)


def _cell_parts(image: Path) -> NDArray[np.uint8]:
    """Mask (H, W) of a Herlev image's drawn parts: 0 background, 1 cytoplasm, 2 nucleus."""
    wanted = f"{image.stem}-d.bmp"
    drawn = image.parent / wanted
    drawn = next((p for p in image.parent.iterdir() if p.name.lower() == wanted.lower()), drawn)
    colours = _read(drawn, image, "RGB")
    mask = np.zeros(colours.shape[:2], np.uint8)
    mask[(colours == CYTOPLASM).all(axis=2)] = 1
    mask[(colours == NUCLEUS).all(axis=2)] = 2
    if not (mask == 2).any():
        raise UnreadableImageError(f"{drawn} shows no nucleus (red, green, blue {NUCLEUS}).")
    return mask


def _read(drawn: Path, image: Path, mode: str | None = None) -> NDArray[np.uint8]:
    """What was drawn over an image, which must be of its size."""
    for path in (drawn, image):
        if not path.is_file():
            raise MissingFileError(f"{path} is missing.")
    try:
        with Image.open(drawn) as file:
            pixels = np.asarray(file.convert(mode) if mode else file)
        with Image.open(image) as file:
            size = file.height, file.width
    except (OSError, UnidentifiedImageError) as error:
        raise UnreadableImageError(f"{drawn} or its image cannot be read ({error}).") from None
    if pixels.shape[:2] != size:
        raise UnreadableImageError(
            f"{drawn} has {pixels.shape[0]} x {pixels.shape[1]} pixels, its image {size[0]} x "
            f"{size[1]}."
        )
    return pixels


def _save(mask: NDArray[np.uint8], path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)
    return path


def _write_table(folder: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> int:
    text = io.StringIO(newline="")
    listed = list(rows)
    csv.writer(text, lineterminator="\n").writerows([columns, *listed])
    write_whole(folder / TABLE, text.getvalue().encode())
    return len(listed)


PREPARE: dict[str, Callable[[Path], int]] = {"herlev": prepare_herlev, "glas": prepare_glas}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m training.downloads", description=str(__doc__).splitlines()[0]
    )
    parser.add_argument("layout", choices=PREPARE)
    parser.add_argument("folder", type=Path, help="the unpacked download")
    options = parser.parse_args(arguments)
    try:
        count = PREPARE[options.layout](options.folder)
    except CellpathError as error:
        print(f"cellpath: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{count} images listed in {options.folder / TABLE}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
