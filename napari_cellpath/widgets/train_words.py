"""What the Train dock says: what there is to learn from, and how long it takes."""

from __future__ import annotations

from napari_cellpath.bridge.kinds import kind_of_system
from napari_cellpath.core.annotations import Part
from napari_cellpath.core.vocabulary import System
from napari_cellpath.project import Project, ledger
from napari_cellpath.project.images import all_images
from napari_cellpath.widgets.sections import Choice

SYSTEMS = {
    System.DEEPPAP: "DeepPap (nuclei)",
    System.RBC: "RBC (red cells)",
    System.HSPNET: "HSP-Net (tissue)",
    System.HEP2: "HEp-2 (patterns)",
}
RECIPE = "recipe"
_RECIPE = Choice(RECIPE, "a recipe file…", "Every setting stands in a YAML file.")
PRESETS: tuple[Choice, ...] = (
    Choice("fast", "fast · the head alone", "Seconds to a minute: the trunk stays as it is."),
    Choice("thorough", "thorough · every layer", "Minutes on a CPU: the whole network learns."),
    _RECIPE,
)
PRESETS_OF: dict[System, tuple[Choice, ...]] = {
    System.RBC: (
        Choice(
            "fast", "fast · heads and booster",
            "A minute or two: the trunk and the detector stay as they are.",
        ),
        Choice(
            "detector", "detector too · heads, booster, detector",
            "Many minutes on a CPU. The detector learns from ‘complete here’ rectangles alone: "
            "draw them where every region has its box (Project menu of the Red cells dock).",
        ),
        Choice(
            "thorough", "thorough · trunk, heads and booster",
            "Many minutes on a CPU; the detector stays as it is.",
        ),
        _RECIPE,
    ),
}  # fmt: skip
"""Where a system's presets train something of its own."""
UNITS = {System.HEP2: "specimen"}
"""What images are grouped by, where it is no slide."""


_PAINTED = f"/{System.HSPNET}"
"""At the end of the names of rasters of painted tissue."""


def duration(seconds: float) -> str:
    """Seconds in words."""
    if seconds < 90:
        return f"{round(seconds)} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def labelled_systems(project: Project) -> list[System]:
    """The system of everything that a person labelled; of painted images once each."""
    found = [
        System(f.get("system", System.DEEPPAP))
        for f in project.state.objects.values() if f.get("labels")
    ]  # fmt: skip
    return found + [System.HSPNET for name in project.state.rasters if name.endswith(_PAINTED)]


def _painted(project: Project) -> str:
    """What was painted, on which side of the split."""
    images = {image.key: image for image in all_images(project)}
    parts = ledger.parts(project)
    pixels: dict[Part, int] = dict.fromkeys(Part, 0)
    slides: dict[Part, set[str]] = {part: set() for part in Part}
    for name, raster in project.state.rasters.items():
        image = images.get(name.removesuffix(_PAINTED)) if name.endswith(_PAINTED) else None
        if image is not None:
            part = parts[image.group]
            pixels[part] += sum(int((tile > 0).sum()) for tile in raster.tiles.values())
            slides[part].add(image.group)
    rectangles = sum(
        bool(f.get("complete")) and f.get("system") == System.HSPNET
        for f in project.state.objects.values()
    )

    def side(part: Part) -> str:
        of = len(slides[part])
        return f"{pixels[part] / 1e6:.2f} million painted pixels of {of} slide{'s'[: of != 1]}"

    text = f"Learns from {side(Part.TRAIN)}"
    if rectangles:
        text += f", and {rectangles} complete rectangle{'s'[: rectangles != 1]}"
    text += f", is measured on {side(Part.FROZEN)} kept apart."
    if not slides[Part.FROZEN]:
        text += " Paint on a frozen slide too: without it nothing can be shown."
    return text


def summary(project: Project | None, system: System = System.DEEPPAP) -> str:
    """What there is to learn from, to choose on, and to be measured on."""
    if project is None:
        return "Correct some calls first, or open a project: models learn from a person's labels."
    if system == System.HSPNET:
        return _painted(project)
    groups = {image.key: image.group for image in all_images(project)}
    parts = ledger.parts(project)
    unit = UNITS.get(system, "slide")
    cells = dict.fromkeys(Part, 0)
    slides: dict[Part, set[str]] = {part: set() for part in Part}
    classes: dict[str, int] = {}
    for facts in project.state.objects.values():
        if not facts.get("labels") or facts.get("complete") or facts["image"] not in groups:
            continue
        if facts.get("system", System.DEEPPAP) != system:
            continue
        group = groups[facts["image"]]
        cells[parts[group]] += 1
        slides[parts[group]].add(group)
        if parts[group] is Part.TRAIN:
            for label in facts["labels"]:
                classes[label] = classes.get(label, 0) + 1
    kind = kind_of_system(system)
    many = "cells" if kind is None or not kind.several else kind.many

    def side(part: Part) -> str:
        count, of = cells[part], len(slides[part])
        return f"{count:,} {many} of {of} {unit}{'' if of == 1 else 's'}"

    named = ", ".join(f"{n:,} {name}" for name, n in sorted(classes.items()))
    text = f"Learns from {side(Part.TRAIN)}{f' ({named})' if named else ''}"
    if cells[Part.VALIDATION]:
        text += f", chooses on {side(Part.VALIDATION)}"
    text += f", is measured on {side(Part.FROZEN)} kept apart."
    if not cells[Part.FROZEN]:
        text += f" Label {many} of a frozen {unit} too: without them nothing can be shown."
    return text
