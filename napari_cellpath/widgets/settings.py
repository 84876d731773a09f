"""The user's defaults, kept by napari itself (Preferences, Plugins, Cellpath)."""

from __future__ import annotations

from dataclasses import dataclass

from napari.settings import get_plugin_settings

from napari_cellpath.core.vocabulary import Preset

PLUGIN = "napari-cellpath"


@dataclass(frozen=True)
class NucleiDefaults:
    """What a nuclei dock starts with; ``model`` empty and ``review_band`` None: the model's own."""

    model: str = ""
    preset: Preset = Preset.BALANCED
    review_band: float | None = None


def nuclei_defaults() -> NucleiDefaults:
    """Read the user's defaults; those of the program where the plugin is not registered."""
    try:
        stored = get_plugin_settings(PLUGIN).nuclei
    except KeyError:  # the widget is used without the plugin being installed, e.g. in a script
        return NucleiDefaults()
    band = float(stored.review_band)
    return NucleiDefaults(
        model=str(stored.default_model).strip(),
        preset=Preset(getattr(stored.preset, "value", stored.preset)),
        review_band=band if band > 0 else None,
    )
