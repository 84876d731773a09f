"""The Herlev set as it is downloaded (``smear2005.zip``), made into the layout ``herlev``.

::

    python -m training.smear2005 "smear2005/New database pictures"

The download holds a folder a class, with ``NAME.BMP`` and the drawn parts of the cell in colours,
``NAME-d.bmp``. Beside the folders this writes ``labels.csv`` (centre of the nucleus from the drawn
parts, slide from the first number of the name, Jantzen et al. 2005) and ``masks/``. Images stay as
they are. The published features are not read: they are help for training, not needed for it.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from napari_cellpath.core.errors import (
    CellpathError,
    MissingFileError,
    OutputError,
    UnreadableImageError,
)
from training.checkpoint import write_whole

CLASS_FOLDERS = (
    "normal_superficiel", "normal_intermediate", "normal_columnar", "light_dysplastic",
    "moderate_dysplastic", "severe_dysplastic", "carcinoma_in_situ",
)  # fmt: skip
"""Folders of the download, in the order of the classes 1 to 7; 4 to 7 are abnormal."""
NUCLEUS, CYTOPLASM = (0, 0, 255), (0, 0, 128)
"""Colours (red, green, blue) of the drawn parts; all others are background."""
DRAWN = "-d"
COLUMNS = (
    "file", "mask_file", "class_name", "class_id", "abnormal", "slide_group", "nucleus_x",
    "nucleus_y",
)  # fmt: skip


def prepare(folder: Path | str) -> int:
    """Write ``labels.csv`` and ``masks/`` into the download's folder; return how many cells.

    Raises
    ------
    MissingFileError
        It holds none of the classes' folders, or an image without its drawn parts.
    UnreadableImageError
        Drawn parts cannot be read, are not of the image's size, or show no nucleus.
    OutputError
        There is a ``labels.csv`` already.
    """
    folder = Path(folder)
    table = folder / "labels.csv"
    if table.exists():
        raise OutputError(f"{table} is there already; remove it to have it made anew.")
    found = [
        (number, image, _parts(image))  # all of them before anything is written
        for number, name in enumerate(CLASS_FOLDERS, start=1)
        for image in _images(folder / name)
    ]
    if not found:
        raise MissingFileError(
            f"{folder} holds no images in folders named {', '.join(CLASS_FOLDERS)}; give the "
            "folder of the unpacked smear2005.zip that does ('New database pictures')."
        )
    rows = []
    for number, image, mask in found:
        name = CLASS_FOLDERS[number - 1]
        target = folder / "masks" / name / f"{image.stem}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(target)
        row, col = np.argwhere(mask == 2).mean(axis=0) + 0.5  # pixel edges, as the layout's
        files = (path.relative_to(folder).as_posix() for path in (image, target))
        slide = image.stem.partition("-")[0]
        rows.append((*files, name, number, int(number > 3), slide, f"{col:.2f}", f"{row:.2f}"))
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([COLUMNS, *rows])
    write_whole(table, text.getvalue().encode())
    return len(rows)


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(
        p for p in folder.iterdir() if p.suffix.lower() == ".bmp" and not p.stem.endswith(DRAWN)
    )


def _parts(image: Path) -> NDArray[np.uint8]:
    """Mask (H, W) of an image's drawn parts: 0 background, 1 cytoplasm, 2 nucleus."""
    wanted = f"{image.stem}{DRAWN}.bmp"
    drawn = next((p for p in image.parent.iterdir() if p.name.lower() == wanted.lower()), None)
    if drawn is None:
        raise MissingFileError(
            f"{image.parent / wanted} is missing; it shows where the nucleus is."
        )
    try:
        with Image.open(drawn) as file:
            colours = np.asarray(file.convert("RGB"))
        with Image.open(image) as file:
            size = file.height, file.width
    except (OSError, UnidentifiedImageError) as error:
        raise UnreadableImageError(f"{drawn} or its image cannot be read ({error}).") from None
    if colours.shape[:2] != size:
        raise UnreadableImageError(
            f"{drawn} has {colours.shape[0]} x {colours.shape[1]} pixels, its image {size[0]} x "
            f"{size[1]}."
        )
    mask = np.zeros(size, np.uint8)
    mask[(colours == CYTOPLASM).all(axis=2)] = 1
    mask[(colours == NUCLEUS).all(axis=2)] = 2
    if not (mask == 2).any():
        raise UnreadableImageError(f"{drawn} shows no nucleus (red, green, blue {NUCLEUS}).")
    return mask


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m training.smear2005", description=str(__doc__).splitlines()[0]
    )
    parser.add_argument("folder", type=Path, help="the folder with the seven classes' folders")
    try:
        folder = parser.parse_args(arguments).folder
        count = prepare(folder)
    except CellpathError as error:
        print(f"cellpath: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{count} cells listed in {folder / 'labels.csv'}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
