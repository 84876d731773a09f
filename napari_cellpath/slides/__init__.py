"""Open an image of any size as levels; read one region. No torch, no napari.

`open_slide` gives a `Slide`; `convert` maps pixels of any type to 8-bit RGB; `windows` reads the
same way from files and from arrays in memory; `reader` is what napari calls.
"""

from napari_cellpath.slides.slide import DEFAULT_MEMORY_BUDGET, Level, Slide, open_slide

__all__ = ["DEFAULT_MEMORY_BUDGET", "Level", "Slide", "open_slide"]
