"""Boxes that are given to a command, as a table or as labelled pixels, by image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.cli.running import rows_of_images
from napari_cellpath.core.box_table import BoxRow, read_boxes
from napari_cellpath.core.errors import TableError
from napari_cellpath.core.requests import CellBox, FileImage
from napari_cellpath.slides.windows import image_shape


def boxes_of_table(
    table: Path,
    files: Sequence[Path],
    check: Callable[[CellBox, tuple[int, int], str], Any],
    why_once: str,
    *,
    may_be_empty: bool = False,
) -> Iterator[tuple[Path, CellBox, BoxRow]]:
    """Every box of a table with its image and its row.

    ``check`` refuses a box (box, shape of the image, where it stands); ``why_once`` says why no
    box may stand there twice.

    Raises
    ------
    TableError
        The table is none, a box stands there twice, or its image was not given.
    """
    rows = read_boxes(table, may_be_empty=may_be_empty)
    for file, of_file in rows_of_images(rows, list(files), table).items():
        shape = image_shape(FileImage(str(file))) if of_file else (0, 0)
        lines: dict[tuple[int, int, int, int], int] = {}
        for row in of_file:
            box = CellBox(*row.box, uid=row.id)
            check(box, shape, f"{table.name} line {row.line}")
            before = lines.setdefault(row.box, row.line)
            if before != row.line:
                raise TableError(
                    f"{table.name} line {row.line}: the same box stands in line {before}; "
                    f"{why_once}. Leave one out."
                )
            yield file, box, row


def pixels_of_labels(
    paths: Sequence[Path], files: Sequence[Path], option: str, what: str
) -> Iterator[tuple[Path, Path, NDArray[np.generic]]]:
    """Every label image with its image and its pixels, (H, W) as the image.

    ``option`` is the command's, ``what`` how its images are called, in the plural.

    Raises
    ------
    CellpathError
        They are not as many as the images, cannot be read, or are of another size.
    """
    from napari_cellpath.project.interchange.labels import label_pixels

    if len(paths) != len(files):
        raise TableError(
            f"{len(paths)} {what} were given for {len(files)} images; give one {option} for each "
            "image, in the same order."
        )
    for path, file in zip(paths, files, strict=True):
        pixels, _, _ = label_pixels(path)
        shape = image_shape(FileImage(str(file)))
        if pixels.shape != shape:
            raise TableError(
                f"{path.name} has {pixels.shape[0]} x {pixels.shape[1]} pixels, {file.name} "
                f"{shape[0]} x {shape[1]}; give the {what} of this image."
            )
        yield path, file, pixels
