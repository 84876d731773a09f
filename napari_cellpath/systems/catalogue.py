"""The systems and the architectures each can build. A table; adding a system adds a row."""

from __future__ import annotations

from typing import Any

from napari_cellpath.core.errors import UnknownNameError
from napari_cellpath.core.vocabulary import PATTERNS, System
from napari_cellpath.systems.deeppap.presets import CROP, PATCH, VIEW
from napari_cellpath.systems.hep2.cells import FRAMING, SIZE
from napari_cellpath.systems.protocol import SystemEntry, load_object

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
