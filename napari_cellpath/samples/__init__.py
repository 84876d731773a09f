"""Sample images: a generated field, real data found on this machine, public files by hash."""

from napari_cellpath.samples.data import HerlevCell, data_folder, herlev
from napari_cellpath.samples.fields import CytologyField, cytology_field

__all__ = ["CytologyField", "HerlevCell", "cytology_field", "data_folder", "herlev"]
