"""Read annotations from a file; its content says of which format it is, not its name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from napari_cellpath.core.annotations import ImageFacts
from napari_cellpath.core.errors import CellpathError, TableError
from napari_cellpath.core.vocabulary import System
from napari_cellpath.project.interchange.coco import read_coco
from napari_cellpath.project.interchange.frame import UNITS, Offset
from napari_cellpath.project.interchange.geojson import read_geojson
from napari_cellpath.project.interchange.intake import Imported, Intake, check_file, load_json
from napari_cellpath.project.interchange.labels import read_labels
from napari_cellpath.project.interchange.table import read_csv
from napari_cellpath.slides.slide import sniff


def read_file(
    path: str | os.PathLike[str],
    images: Sequence[ImageFacts],
    *,
    image: ImageFacts | None = None,
    classes: Sequence[str] = (),
    unit: str = "px",
    offset: Offset | None = None,
    skip_bad: bool = False,
    system: System = System.DEEPPAP,
) -> Imported:
    """Read GeoJSON, COCO, CSV or a label TIFF.

    Parameters
    ----------
    path
        The file.
    images
        Images of the project.
    image
        The one everything belongs to. Files that name several images then give the objects of
        this one only. By default the file says it, or there is only one.
    classes
        Known classes; a person's label that is none of them is refused. Empty: any is welcome.
    unit
        ``px`` (level 0) or ``um``: of coordinates in GeoJSON, COCO and CSV.
    offset
        (row, col) on level 0, pixels, of the file's origin, for a file made of a region. By
        default as one of our own files says it when read for the image it was written for,
        else (0, 0).
    skip_bad
        Leave out objects that are refused, instead of importing nothing.
    system
        Whose objects these are where the file does not say.

    Raises
    ------
    MissingFileError
        There is no such file.
    TableError, UnreadableImageError, ImageTooLargeError, ScaleError
        What is wrong, with the file and the feature, line or value. Nothing was imported.
    """
    file = Path(path)
    check_file(file)
    if unit not in UNITS:
        raise TableError(f"There is no unit '{unit}'; coordinates are in px or um.")
    intake = Intake(file.name, tuple(images), image, tuple(classes), unit, offset, skip_bad, system)
    try:
        form = _read(file, intake)
    except CellpathError:  # some are an OSError too
        raise
    except OSError as error:
        raise TableError(f"{file.name} cannot be read ({error.strerror or error}).") from error
    return intake.result(form)


def _read(file: Path, intake: Intake) -> str:
    magic = sniff(file)
    if magic == "tiff":
        read_labels(file, intake)
        return "labels"
    if magic is not None:
        raise TableError(f"{file.name} is an image ({magic}); labels are read from TIFF only.")
    with file.open("rb") as stream:
        start = stream.read(4096)
    # UTF-16 and -32 put zero bytes between the characters.
    first = start.lstrip(b"\xef\xbb\xbf\xff\xfe\x00 \t\r\n")[:1]
    if first not in (b"{", b"["):
        read_csv(file, intake)
        return "csv"
    data = load_json(file)
    if isinstance(data, dict) and "annotations" in data and "images" in data:
        read_coco(data, intake)
        return "coco"
    if isinstance(data, dict) and data.get("type") not in ("FeatureCollection", "Feature"):
        hint = "give the TIFF beside it" if "objects" in data else "it is neither GeoJSON nor COCO"
        raise TableError(f"{file.name} holds no annotations; {hint}.")
    if isinstance(data, list) and data and isinstance(data[0], dict) and "bbox" in data[0]:
        raise TableError(
            f"{file.name} is a list of COCO results without its images and categories; "
            "give the whole COCO document."
        )
    read_geojson(data, intake)
    return "geojson"
