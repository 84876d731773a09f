"""Sample images: a generated field, real data found on this machine, public files by hash."""

from napari_cellpath.samples.data import HerlevCell, data_folder, herlev
from napari_cellpath.samples.fields import CytologyField, cytology_field
from napari_cellpath.samples.fluorescence import Hep2Field, hep2_field
from napari_cellpath.samples.smear import SmearField, smear_field
from napari_cellpath.samples.tissue import TissueField, tissue_field

__all__ = [
    "CytologyField", "Hep2Field", "HerlevCell", "SmearField", "TissueField", "cytology_field",
    "data_folder", "hep2_field", "herlev", "smear_field", "tissue_field",
]  # fmt: skip
