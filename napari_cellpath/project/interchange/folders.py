"""Folders of images named after a class: ``FOLDER/CLASS/IMAGE``.

``FOLDER/points.csv`` may say where in an image the object is (columns file, row, col, and group
for its slide, patient or specimen); where it says nothing, the object is the middle of the
image, as in collections of single cells.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from napari_cellpath.core.annotations import Annotation, ImageFacts, Shape
from napari_cellpath.core.delimited import check_columns, open_table
from napari_cellpath.core.errors import CellpathError, MissingFileError, TableError
from napari_cellpath.core.vocabulary import System
from napari_cellpath.project.interchange.intake import Intake, TooManyError, check_file

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".svs", ".tif", ".tiff"})
POINTS = "points.csv"


@dataclass(frozen=True)
class ImportedFolder:
    """Images and objects of a folder.

    Attributes
    ----------
    classes
        Names of its folders of images, in order of name.
    images
        In order of class and name.
    annotations
        One point at least for each image, labelled with its folder's name.
    refused
        One sentence for each image or line left out; empty unless ``skip_bad`` was asked for.
    """

    classes: tuple[str, ...]
    images: tuple[ImageFacts, ...]
    annotations: tuple[Annotation, ...]
    refused: tuple[str, ...]


@dataclass(frozen=True)
class _Mark:
    row: float
    col: float
    line: int


def read_folder(
    folder: str | Path,
    describe: Callable[[Path], ImageFacts],
    *,
    classes: Sequence[str] = (),
    skip_bad: bool = False,
    system: System = System.DEEPPAP,
) -> ImportedFolder:
    """Read a folder of class-named folders of images.

    Parameters
    ----------
    folder
        Holds one folder a class.
    describe
        Gives the facts of an image file; what it raises as `CellpathError` refuses that image.
    classes
        Known classes; empty where any is welcome.
    skip_bad
        Go on after an image or a line that is refused.
    system
        Whose objects these are.

    Raises
    ------
    MissingFileError
        There is no such folder.
    TableError
        No images, an unknown class, an image in two classes, or a point that cannot be.
    """
    root = Path(folder)
    if not root.is_dir():
        raise MissingFileError(f"{root} is no folder; give one with a folder of images a class.")
    of_class = {
        place.name: sorted(
            f for f in place.iterdir()
            if f.is_file() and f.suffix.lower() in IMAGE_SUFFIXES and not f.name.startswith(".")
        )
        for place in sorted(root.iterdir())
        if place.is_dir() and not place.name.startswith(".")
    }  # fmt: skip
    of_class = {name: files for name, files in of_class.items() if files}
    if not of_class:
        raise TableError(f"{root} holds no folders of images, one a class.")
    unknown = [name for name in of_class if classes and name not in classes]
    if unknown:
        raise TableError(
            f"{root}: unknown class '{unknown[0]}'; known are {', '.join(classes)}. "
            "Rename the folder."
        )
    intake = Intake(root.name, (), classes=classes, skip_bad=skip_bad, system=system)
    files = [file for found in of_class.values() for file in found]
    marks, groups = _read_points(root, files, intake)
    images: dict[str, tuple[ImageFacts, Path]] = {}
    for file in files:
        try:
            image = describe(file)
            if file in groups:
                image = replace(image, group=groups[file])
            _take(image, file, marks.get(file, ()), images, intake)
        except TooManyError:
            raise
        except CellpathError as error:
            intake.refuse(error)
    imported = intake.result("folder")
    return ImportedFolder(
        tuple(of_class), tuple(i for i, _ in images.values()), imported.annotations,
        imported.refused,
    )  # fmt: skip


def _take(
    image: ImageFacts,
    file: Path,
    marks: Sequence[_Mark],
    images: dict[str, tuple[ImageFacts, Path]],
    intake: Intake,
) -> None:
    """Take in one image with its objects."""
    label = file.parent.name
    what = f"{intake.name}/{label}/{file.name}"
    if image.key in images:
        other = images[image.key][1]
        raise TableError(f"{what} is the same image as {other.parent.name}/{other.name}.")
    places = [(m.row, m.col, f"{intake.name}/{POINTS} line {m.line}") for m in marks] or [
        ((image.height - 1) / 2, (image.width - 1) / 2, what)
    ]
    taken = 0
    for row, col, where in places:
        annotation = Annotation(
            intake.free_uid(image, f"{row!r},{col!r}"), image.key, intake.system, Shape.POINT,
            (row, col), (label,), id=file.name, seen=True,
        )  # fmt: skip
        try:
            intake.take([annotation], image, where)
            taken += 1
        except TooManyError:
            raise
        except CellpathError as error:
            intake.refuse(error)
    if taken:
        images[image.key] = (image, file)


def _read_points(
    root: Path, files: Sequence[Path], intake: Intake
) -> tuple[dict[Path, list[_Mark]], dict[Path, str]]:
    """Marks and group of each image file that ``points.csv`` names."""
    marks: dict[Path, list[_Mark]] = {}
    groups: dict[Path, str] = {}
    path = root / POINTS
    if not path.exists():
        return marks, groups
    check_file(path)
    known = {file.relative_to(root).as_posix(): file for file in files}
    with open_table(path, "file, row and col") as table:
        columns = table.columns
        check_columns(table, ("file", "row", "col"), ("file", "row", "col", "group"))
        file_at, row_at, col_at = (columns.index(c) for c in ("file", "row", "col"))
        group_at = columns.index("group") if "group" in columns else None
        for line, cells in table.rows():
            what = f"{intake.name}/{POINTS} line {line}"
            try:
                table.check_width(line, cells, max(file_at, row_at, col_at) + 1)
                name = cells[file_at].strip().replace("\\", "/").removeprefix("./")
                if name not in known:
                    raise TableError(f"{what}: there is no image '{name[:80]}' in the folder.")
                file = known[name]
                row = table.number(cells[row_at], f"{what}: row")
                col = table.number(cells[col_at], f"{what}: col")
                group = (
                    cells[group_at].strip()
                    if group_at is not None and group_at < len(cells)
                    else ""
                )
                if group and groups.setdefault(file, group) != group:
                    raise TableError(f"{what}: {name} belonged to group '{groups[file]}' before.")
                marks.setdefault(file, []).append(_Mark(row, col, line))
            except CellpathError as error:
                intake.refuse(error)
    return marks, groups
