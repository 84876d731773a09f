"""Sample data as napari's File > Open Sample menu calls it: functions returning layer tuples.

No napari import: the npe2 contract is plain tuples. Heavy imports wait until a sample is opened.
"""

from __future__ import annotations

from typing import Any

from napari_cellpath.core.vocabulary import METADATA_KEY, System

LayerData = tuple[Any, dict[str, Any], str]


def cytology_field_layers() -> list[LayerData]:
    """A generated Pap field; its nuclei as a hidden labels layer, to be used as a source."""
    from napari_cellpath.samples.fields import cytology_field

    field = cytology_field()
    placed = _placed(field.mpp)
    return [
        (
            field.image,
            {"name": "cytology field", "rgb": True, **_facts("generated", field.mpp), **placed},
            "image",
        ),
        (field.labels, {"name": "nuclei masks", "visible": False, **placed}, "labels"),
    ]


def hep2_field_layers() -> list[LayerData]:
    """A generated field of HEp-2 cells; nuclei as hidden labels, true patterns as hidden points."""
    from napari_cellpath.samples.fluorescence import hep2_field

    field = hep2_field()
    placed = _placed(field.mpp)
    return [
        (
            field.image,
            {"name": "HEp-2 field", **_facts("generated", field.mpp), **placed},
            "image",
        ),
        (field.labels, {"name": "HEp-2 masks", "visible": False, **placed}, "labels"),
        (
            field.centres,
            {
                "name": "HEp-2 patterns",
                "features": {"pattern": list(field.patterns)},
                "visible": False,
                **placed,
            },
            "points",
        ),
    ]


def tissue_field_layers() -> list[LayerData]:
    """A generated field of stained tissue; its true classes as hidden labels."""
    from napari_cellpath.samples.tissue import tissue_field

    field = tissue_field()
    placed = _placed(field.mpp)
    return [
        (
            field.image,
            {"name": "tissue", "rgb": True, **_facts("generated", field.mpp), **placed},
            "image",
        ),
        (field.labels, {"name": "true classes", "visible": False, **placed}, "labels"),
    ]


def smear_field_layers() -> list[LayerData]:
    """A generated blood smear; its cells as hidden labels, its true regions as hidden boxes."""
    from napari_cellpath.core.vocabulary import RBC_TYPES
    from napari_cellpath.samples.smear import smear_field

    field = smear_field()
    placed = _placed(field.mpp)
    held = [
        "+".join(name for name, there in zip(RBC_TYPES, row, strict=True) if there)
        for row in field.types.tolist()
    ]
    corners = [
        [(r0, c0), (r0, c1), (r1, c1), (r1, c0)] for r0, c0, r1, c1 in (field.boxes - 0.5).tolist()
    ]
    return [
        (
            field.image,
            {"name": "blood smear", "rgb": True, **_facts("generated", field.mpp), **placed},
            "image",
        ),
        (field.labels, {"name": "red cell masks", "visible": False, **placed}, "labels"),
        (
            corners,
            {
                "name": "red cell types",
                "shape_type": "rectangle",
                "face_color": "transparent",
                "edge_color": "#0072b2",
                "features": {"types": held},
                "visible": False,
                **placed,
            },
            "shapes",
        ),
    ]


def herlev_cells_layers() -> list[LayerData]:
    """Real Herlev cells on one sheet, with their nuclei and labels, hidden.

    Where the collection is on this machine, cells of slides the starter model never saw; else
    one public cell a class, which it may have been trained on.

    Raises
    ------
    MissingFileError
        The cells are neither here nor to be had; the message says how to get them.
    """
    from napari_cellpath.models.registry import DEFAULT_MODELS, list_models
    from napari_cellpath.samples.public import HERLEV_CELLS, get
    from napari_cellpath.samples.scene import contact_sheet, reserve_sheet

    starter = [e for e in list_models() if e.name == DEFAULT_MODELS[System.DEEPPAP]]
    sheet = reserve_sheet(starter[0].info.reserve) if starter else None
    name = "Herlev cells, never seen in training"
    if sheet is None:
        sheet = contact_sheet([cell.at(get(cell.file)) for cell in HERLEV_CELLS])
        name = "Herlev cells"
    placed = _placed(sheet.mpp)
    return [
        (
            sheet.image,
            {"name": name, "rgb": True, **_facts("Herlev", sheet.mpp), **placed},
            "image",
        ),
        (
            sheet.centres,
            {
                "name": "Herlev labels",
                "features": {
                    "cell": list(sheet.names),
                    "abnormal": [bool(a) for a in sheet.abnormal],
                },
                "visible": False,
                **placed,
            },
            "points",
        ),
    ]


def small_slide_layers() -> list[LayerData]:
    """A small H&E slide in Aperio's format (OpenSlide's test data), read lazily.

    Raises
    ------
    MissingFileError
        It is neither here nor to be had; the message says how to get it.
    """
    from napari_cellpath.samples.public import SMALL_SLIDE, get
    from napari_cellpath.slides.reader import read_layers

    return read_layers(str(get(SMALL_SLIDE)))


def _placed(mpp: float) -> dict[str, Any]:
    return {"scale": (mpp, mpp), "units": ("um", "um")}


def _facts(source: str, mpp: float) -> dict[str, Any]:
    return {"metadata": {METADATA_KEY: {"source": source, "mpp": mpp}}}
