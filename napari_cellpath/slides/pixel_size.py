"""Micrometres per pixel as a TIFF states it: Aperio, OME, ImageJ or plain resolution tags.

Text is searched, not parsed: the only XML of interest is one attribute, and an XML parser
would bring entities with it.
"""

from __future__ import annotations

import html
import re

from napari_cellpath.core.geometry import plausible_mpp

_UM = {
    "µm": 1.0,
    "μm": 1.0,
    "um": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "nm": 1e-3,
    "pm": 1e-6,
    "å": 1e-4,
    "mm": 1e3,
    "cm": 1e4,
    "dm": 1e5,
    "m": 1e6,
    "in": 25_400.0,
    "inch": 25_400.0,
    "\\u00b5m": 1.0,  # ImageJ escapes it
}
_NUMBER = r"([-+0-9.eE]+)"
_SEARCHED = 1 << 20

# Resolutions that programs and scanners write by default; none comes from a microscope.
_DEFAULT_DPI = frozenset({1, 72, 75, 90, 96, 100, 120, 144, 150, 180, 200, 240, 300, 360})
_DEFAULT_DPI |= {400, 600, 720, 1200, 2400}


def stated_mpp(
    description: str, resolution: tuple[float, float] | None, unit: int
) -> tuple[float | None, str | None]:
    """Pixel size of level 0, and a sentence where a statement had to be ignored.

    Parameters
    ----------
    description
        The ImageDescription tag.
    resolution
        Pixels per unit along x and y (XResolution, YResolution).
    unit
        ResolutionUnit: 1 none, 2 inch, 3 centimetre.
    """
    text = description[:_SEARCHED]
    if text.startswith("Aperio"):
        found = re.search(rf"\bMPP\s*=\s*{_NUMBER}", text)
        return _checked(_times(found.group(1), 1.0), None) if found else (None, None)
    pixels = re.search(r"<(?:\w+:)?Pixels\s[^>]*>", text)
    if pixels:
        return _checked(_ome(pixels.group(0), "X"), _ome(pixels.group(0), "Y"))
    if resolution is None:
        return None, None
    if text.startswith("ImageJ="):
        named = re.search(r"^unit=(\S+)", text, re.MULTILINE)
        scale = _UM.get(named.group(1).lower()) if named else None
        if scale is not None:
            return _checked(*(scale / pixels if pixels > 0 else None for pixels in resolution))
        return None, None
    per_unit = {2: 25_400.0, 3: 10_000.0}.get(unit)
    if per_unit is None or min(resolution) <= 0:
        return None, None
    if round(resolution[0] * 25_400.0 / per_unit) in _DEFAULT_DPI:
        return None, None  # a printing resolution; saying so for every image would be noise
    mpp, note = _checked(per_unit / resolution[0], per_unit / resolution[1])
    # Beyond 10 um a resolution tag speaks of paper, not of a specimen.
    return (mpp, note) if mpp is not None and mpp <= 10 else (None, note)


def _ome(element: str, axis: str) -> float | None:
    size = re.search(rf"\bPhysicalSize{axis}\s*=\s*[\"']{_NUMBER}[\"']", element)
    if not size:
        return None
    named = re.search(rf"\bPhysicalSize{axis}Unit\s*=\s*[\"']([^\"']*)[\"']", element)
    unit = html.unescape(named.group(1)).strip() if named else "µm"
    scale = _UM.get(unit.lower())
    return None if scale is None else _times(size.group(1), scale)


def _times(number: str, scale: float) -> float | None:
    try:
        return float(number) * scale
    except ValueError:
        return None


def _checked(x: float | None, y: float | None) -> tuple[float | None, str | None]:
    if x is None:
        return None, None
    mpp = plausible_mpp(x)
    if mpp is None:
        return None, f"The file states {x:g} um per pixel, which cannot be; it is ignored."
    if y is not None and abs(y / x - 1) > 0.01:
        return None, (
            f"The file states pixels of {x:g} x {y:g} um; only square pixels have one size, "
            "so it is ignored."
        )
    return mpp, None
