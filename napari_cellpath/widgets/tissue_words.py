"""What the tissue dock says: the next step, the region in a line, where its answer comes from."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from napari_cellpath.bridge.tissue import TissueRegion
from napari_cellpath.core.vocabulary import RegionMode
from napari_cellpath.systems.hspnet.summary import without_lesion
from napari_cellpath.widgets.search import Where

NO_MODEL = (
    "No HSP-Net model was found. ‘cellpath models list’ says where models are looked for; "
    "‘cellpath train hspnet’ makes one."
)
_PLACES = {
    Where.VIEW: "what is in view",
    Where.DRAWN: "the shape that is drawn",
    Where.IMAGE: "the whole image",
}


def hint(missing: str, *, painting: bool, brush: str, region: bool, where: Where) -> str:
    """What to do next."""
    if missing:
        return missing
    if painting:
        what = f"Paint what is {brush}" if brush else "Rub out what was painted"
        return f"{what}; hold Space to move. Every stroke is kept and can be undone."
    if region:
        return ""
    return f"Segment {_PLACES[where]}; the classes appear while they are computed."


def area(pixels: float, mpp: float | None) -> str:
    """An area as people say it: mm², µm² where small, pixels without a scale."""
    if mpp is None:
        return f"{pixels:,.0f} px"
    um2 = pixels * mpp * mpp
    return f"{um2:,.0f} µm²" if um2 < 1e4 else f"{um2 / 1e6:,.3g} mm²"


def painted(pixels: int, mpp: float | None) -> str:
    """How much of a class was painted; empty for none."""
    return area(pixels, mpp) if pixels else ""


def growing(region: TissueRegion | None) -> str:
    """The region while it grows."""
    if region is None:
        return ""
    height, width = region.facts.shape
    return f"Segmenting {height:,} × {width:,} pixels at {_scale(region.facts.mpp)} …"


def summary(reading: Mapping[str, Any] | None, region: TissueRegion | None) -> str:
    """The region in a line or two, rich text."""
    if region is None:
        return "No region is segmented yet."
    if reading is None:
        return growing(region)
    mpp, assessed = reading["mpp"], reading["classified"]["pixels"]
    text = f"<b>{area(assessed, mpp)}</b> assessed"
    worst = reading["worst_grade"]
    if worst is not None:
        text += f" · worst: <b>{escape(worst['class'])}</b>"
        pieces = "piece" if worst["lesions"] == 1 else "pieces"
        text += (
            f" ({worst['lesions']:,} {pieces} of {reading['least_lesion_mm2']:g} mm² or more, the "
            f"largest {area(worst['largest_pixels'], mpp)})"
        )
    elif assessed and any(region.facts.abnormal):
        text += f" · {escape(without_lesion(reading))}"
    parts = reading.get("merged", {})
    text += "".join(f" · {name} {100 * p['share']:.1f} %" for name, p in parts.items())
    notes = []
    if reading["corrected"]["pixels"]:
        notes.append(f"{area(reading['corrected']['pixels'], mpp)} as you painted it")
    if not reading["complete"]:
        share = 100 * reading["rows_done"] / reading["rows"]
        notes.append(f"stopped after {share:.0f} %, what lies under the grey veil is not done")
    if reading["skipped"]["pixels"]:
        notes.append(f"{area(reading['skipped']['pixels'], mpp)} skipped as empty glass")
    if reading["unreadable"]["pixels"]:
        notes.append(f"{area(reading['unreadable']['pixels'], mpp)} unreadable")
    return text + (f"<br>{'; '.join(notes)}." if notes else "")


def provenance(region: TissueRegion | None) -> str:
    """Where the answer comes from."""
    if region is None:
        return ""
    facts, how = region.facts, region.facts.layout
    mode = "preview" if how.get("mode") == RegionMode.PREVIEW else "exact"
    tile, stride = how.get("tile"), how.get("stride")
    tiles = f", tiles {_side(tile)} every {_side(stride)}" if tile and stride else ""
    blend = f", {how['blend']}" if mode == "exact" and "blend" in how else ""
    return f"{escape(facts.model)} · {mode}{tiles}{blend} · {_scale(facts.mpp)}"


def _side(value: Any) -> str:
    sides = sorted(set(value)) if isinstance(value, list | tuple) else [value]
    return " × ".join(str(side) for side in sides)


def _scale(mpp: float | None) -> str:
    return "unknown scale" if mpp is None else f"{mpp:.3g} µm / pixel"
