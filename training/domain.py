"""What the training cells look like, so that a model can tell a cell unlike them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from napari_cellpath.core.geometry import edge_of_point
from napari_cellpath.core.requests import FileImage
from napari_cellpath.core.vocabulary import Border
from napari_cellpath.slides.windows import image_shape
from napari_cellpath.systems.deeppap.predict import patch_on_image, window_tensor
from napari_cellpath.systems.deeppap.presets import USUAL_MPP, WINDOW
from napari_cellpath.systems.deeppap.quality import domain_of, measure
from training.datasets import CellRecord


def domain_of_cells(records: Sequence[CellRecord], mpp: float | None) -> dict[str, Any]:
    """Measure each cell's patch as the worker will; see `quality.domain_of`.

    Parameters
    ----------
    records
        The cells a model was trained on.
    mpp
        Micrometres per pixel of the data.
    """
    half = WINDOW // 2
    measures = []
    for record in records:
        source = FileImage(str(record.image))
        row, col = edge_of_point(record.row, record.col)
        window = window_tensor(source, row, col, half, Border.ZERO)
        patch, centre = patch_on_image(window, row, col, half, image_shape(source))
        if patch.size:
            measures.append(measure(patch, centre, mpp or USUAL_MPP))
    return domain_of(measures)
