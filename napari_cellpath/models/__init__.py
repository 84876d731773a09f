"""Model folders: format, cards, verification, registry. No torch; weights come as NumPy arrays."""

from napari_cellpath.models.calibration import Calibration
from napari_cellpath.models.format import (
    ClassInfo,
    ModelInfo,
    read_card,
    read_features,
    read_info,
    read_tensors,
    save_model,
    verify,
)
from napari_cellpath.models.registry import ModelEntry, find_model, list_models

__all__ = [
    "Calibration", "ClassInfo", "ModelEntry", "ModelInfo", "find_model", "list_models",
    "read_card", "read_features", "read_info", "read_tensors", "save_model", "verify",
]  # fmt: skip
