"""The systems and the architectures each can build. A table; adding a system adds a row."""

from __future__ import annotations

from typing import Any

from napari_cellpath.core.errors import UnknownNameError
from napari_cellpath.core.vocabulary import CIN_CLASSES, PATTERNS, RBC_TYPES, System
from napari_cellpath.systems.deeppap.presets import CROP, PATCH, VIEW
from napari_cellpath.systems.hep2.cells import FRAMING, SIZE
from napari_cellpath.systems.hspnet.tiles import STRIDE, TILE
from napari_cellpath.systems.protocol import SystemEntry, load_object

DETECTORS = (
    "resnet101-fpn", "resnet101-c4", "resnet50-fpn", "resnet18-fpn", "mobilenetv3-fpn",
    "squeezenet-fpn",
)  # fmt: skip
"""Architectures that find regions of red cells."""

SYSTEMS: dict[System, SystemEntry] = {
    System.DEEPPAP: SystemEntry(
        plan="napari_cellpath.systems.deeppap.plans:make_plan",
        predictor="napari_cellpath.systems.deeppap.predict:NucleusPredictor",
        architectures={
            "convnet-t": "napari_cellpath.systems.deeppap.network:convnet_t",
            "alexnet-tv": "napari_cellpath.systems.deeppap.network:alexnet_tv",
            "squeezenet1_0": "napari_cellpath.systems.deeppap.network:squeezenet1_0",
            "squeezenet1_0-measured": (
                "napari_cellpath.systems.deeppap.measuring:squeezenet1_0_measured"
            ),
        },
        input={"channels": "RGB", "range": [0, 255], "patch": PATCH, "view": VIEW, "crop": CROP},
    ),
    System.RBC: SystemEntry(
        plan="napari_cellpath.systems.rbc.plans:make_plan",
        predictor="napari_cellpath.systems.rbc.predict:RegionPredictor",
        architectures={
            "rbc-cascade": "napari_cellpath.systems.rbc.network:rbc_cascade",
            "rbc-heads": "napari_cellpath.systems.rbc.network:rbc_heads",
            "resnet50-features": "napari_cellpath.systems.rbc.network:resnet50_features",
            "resnet18-features": "napari_cellpath.systems.rbc.network:resnet18_features",
            "squeezenet-features": "napari_cellpath.systems.rbc.network:squeezenet_features",
            "resnet101-fpn": "napari_cellpath.systems.rbc.detector:resnet101_fpn",
            "resnet101-c4": "napari_cellpath.systems.rbc.detector:resnet101_c4",
            "resnet50-fpn": "napari_cellpath.systems.rbc.detector:resnet50_fpn",
            "resnet18-fpn": "napari_cellpath.systems.rbc.detector:resnet18_fpn",
            "mobilenetv3-fpn": "napari_cellpath.systems.rbc.detector:mobilenetv3_fpn",
            "squeezenet-fpn": "napari_cellpath.systems.rbc.detector:squeezenet_fpn",
        },
        n_classes=len(RBC_TYPES),
        classes_of=dict.fromkeys(DETECTORS, 2),  # background and region, whatever it holds
        input={"channels": "RGB", "range": [0, 1], "patch": 224},
    ),
    System.HEP2: SystemEntry(
        plan="napari_cellpath.systems.hep2.plans:make_plan",
        predictor="napari_cellpath.systems.hep2.predict:PatternPredictor",
        architectures={
            "nin10": "napari_cellpath.systems.hep2.network:nin10",
            "nin-matconvnet": "napari_cellpath.systems.hep2.network:nin_matconvnet",
            "resnet8": "napari_cellpath.systems.hep2.network:resnet8",
        },
        n_classes=len(PATTERNS),
        input={"channels": 1, "range": [0, 1], "size": SIZE, "framing": FRAMING},
    ),
    System.HSPNET: SystemEntry(
        plan="napari_cellpath.systems.hspnet.plans:make_plan",
        predictor="napari_cellpath.systems.hspnet.predict:TissuePredictor",
        architectures={
            "hspnet-resnet101": "napari_cellpath.systems.hspnet.network:hspnet_resnet101",
            "hspnet-resnet34": "napari_cellpath.systems.hspnet.network:hspnet_resnet34",
            "hspnet-resnet18": "napari_cellpath.systems.hspnet.network:hspnet_resnet18",
            "hspnet-squeezenet": "napari_cellpath.systems.hspnet.network:hspnet_squeezenet",
        },
        n_classes=len(CIN_CLASSES),
        input={"channels": "RGB", "range": [0, 255], "tile": TILE, "stride": STRIDE},
    ),
}


def architecture_names() -> list[str]:
    """Every architecture's name, sorted."""
    return sorted(name for row in SYSTEMS.values() for name in row.architectures)


def system_of(architecture: str) -> System:
    """The system an architecture belongs to."""
    for system, row in SYSTEMS.items():
        if architecture in row.architectures:
            return system
    raise UnknownNameError(
        f"There is no architecture '{architecture}'. Known: {', '.join(architecture_names())}."
    )


def build(architecture: str, **arguments: Any) -> Any:
    """Build a network (an ``nn.Module``) with fresh weights; offline, nothing is downloaded."""
    return load_object(SYSTEMS[system_of(architecture)].architectures[architecture])(**arguments)
