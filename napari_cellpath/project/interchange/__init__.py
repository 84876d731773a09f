"""Annotations in and out: QuPath GeoJSON, COCO, CSV, label TIFFs; folders of class-named images in.

Coordinates inside are those of `core.annotations`: level-0 (row, col), points by pixel centres,
boxes and outlines by pixel edges. What a person said and what a model said stay apart in every
format. A bad object is refused by file and feature, and then nothing is imported, unless
``skip_bad`` asks for the rest.
"""

from napari_cellpath.project.interchange.coco import write_coco
from napari_cellpath.project.interchange.folders import ImportedFolder, read_folder
from napari_cellpath.project.interchange.geojson import write_geojson
from napari_cellpath.project.interchange.intake import Imported
from napari_cellpath.project.interchange.labels import sidecar_path, write_labels
from napari_cellpath.project.interchange.read import read_file
from napari_cellpath.project.interchange.table import write_csv

__all__ = [
    "Imported", "ImportedFolder", "read_file", "read_folder", "sidecar_path", "write_coco",
    "write_csv", "write_geojson", "write_labels",
]  # fmt: skip
