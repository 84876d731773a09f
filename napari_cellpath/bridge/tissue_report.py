"""One page on a region: what it looks like, its classes in numbers, and where they come from."""

from __future__ import annotations

import base64
import io
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.bridge.appearance import rgba
from napari_cellpath.bridge.corrected import CorrectedStore
from napari_cellpath.bridge.tissue import BACKGROUND
from napari_cellpath.bridge.tissue_reading import Reading
from napari_cellpath.core.errors import OutputError
from napari_cellpath.core.files import write_atomically
from napari_cellpath.core.requests import FileImage, Image
from napari_cellpath.core.vocabulary import RESEARCH_ONLY
from napari_cellpath.slides.region_store import FIRST_NO_CLASS
from napari_cellpath.slides.scaled import read_grid, source_for, thumbnail_grid
from napari_cellpath.slides.windows import image_shape
from napari_cellpath.systems.hspnet.summary import without_lesion

PICTURE = 900
"""Longer side of the pictures, pixels."""
_TINT = 0.45

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font: 15px/1.45 system-ui, sans-serif; color: #1d1d1f; max-width: 60em; margin: 2em auto; }}
h1 {{ font-size: 1.35em; margin-bottom: 0; }} .quiet {{ color: #666; }}
.pictures {{ display: flex; gap: 1em; }} .pictures figure {{ margin: 0; flex: 1; }}
.pictures img {{ width: 100%; }} figcaption {{ color: #666; font-size: .9em; }}
table {{ border-collapse: collapse; margin: 1em 0; }} td, th {{ padding: .25em .9em; }}
th {{ text-align: left; border-bottom: 1px solid #bbb; }} td.n, th.n {{ text-align: right; }}
.dot {{ display: inline-block; width: .8em; height: .8em; border: 1px solid #888;
border-radius: 50%; margin-right: .5em; }}
</style></head><body>
<h1>{title}</h1><p class="quiet">{when}</p><p>{lead}</p>
{pictures}
<table><tr><th>Class</th><th class="n">Area</th><th class="n">Share</th></tr>{rows}</table>
<table>{facts}</table>
<p class="quiet">{note}</p></body></html>
"""


def write_report(path: Path, store: CorrectedStore, summary: Reading, image: Image | None) -> None:
    """Write the page as HTML or PDF, as the ending says; whole or not at all.

    Parameters
    ----------
    path
        ``.html`` or ``.pdf``.
    store
        The region as it stands.
    summary
        Of `read_region`.
    image
        What is shown; None where it is not to be had.

    Raises
    ------
    CellpathError
        It cannot be written, or the image cannot be read.
    """
    shown = None if image is None else pictures(store, image)
    if path.suffix.lower() == ".pdf":
        write_atomically(path, _pdf(store, summary, shown, image))
        return
    both = ""
    if shown is not None:
        captions = ("The region", "Its classes" + (", as corrected" if store.changed else ""))
        both = '<div class="pictures">' + "".join(
            f'<figure><img alt="{caption}" src="data:image/png;base64,{_png(picture)}">'
            f"<figcaption>{caption}</figcaption></figure>"
            for picture, caption in zip(shown, captions, strict=True)
        ) + "</div>"  # fmt: skip
    rows = "".join(
        f'<tr><td><span class="dot" style="background:{colour}"></span>{escape(name)}</td>'
        f'<td class="n">{area}</td><td class="n">{share}</td></tr>'
        for name, colour, area, share in _rows(store, summary)
    )
    facts = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>"
        for name, value in _facts(store, summary, image)
    )
    page = _PAGE.format(
        title=escape(f"Tissue of {summary['image']}"), when=_now(), lead=escape(_lead(summary)),
        pictures=both, rows=rows, facts=facts, note=escape(RESEARCH_ONLY),
    )  # fmt: skip
    write_atomically(path, page)


def pictures(store: CorrectedStore, image: Image) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The region, and the region with its classes' colours, (H, W, 3) each."""
    facts = store.facts
    size = [n * s for n, s in zip(facts.shape, facts.step, strict=True)]
    side = max(1, round(PICTURE * max(image_shape(image)) / max(size)))
    grid = thumbnail_grid(image, side)
    top, left = facts.corner
    window = grid.covering((round(top), round(left), round(top + size[0]), round(left + size[1])))
    plain = read_grid(source_for(image, grid, window), grid, window)
    level = min(max(0, int(np.log2(max(1.0, grid.step[0] / facts.step[0])))), len(store.levels) - 1)
    at = []
    for start, stop, corner, pitch, step, length in zip(
        window[:2], window[2:], facts.corner, grid.step, facts.step, facts.shape, strict=True
    ):
        index = np.floor(((np.arange(start, stop) + 0.5) * pitch - corner) / step).astype(np.intp)
        at.append(np.clip(index, 0, length - 1) >> level)
    labels = np.asarray(store.levels[level][:, :])[np.ix_(*at)]
    tints = np.zeros((256, 4), np.float32)
    for number, (name, colour) in enumerate(zip(facts.class_names, facts.colours, strict=True)):
        tints[number] = rgba(colour, 0.0 if name == BACKGROUND else _TINT)
    tints[FIRST_NO_CLASS : FIRST_NO_CLASS + 2] = (0.5, 0.5, 0.5, _TINT)  # unreadable, skipped
    over = tints[labels]
    mixed = plain * (1 - over[..., 3:]) + 255 * over[..., :3] * over[..., 3:]
    return plain, np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


def _png(picture: NDArray[np.uint8]) -> str:
    from PIL import Image as Pillow

    stream = io.BytesIO()
    Pillow.fromarray(picture).save(stream, "PNG", optimize=True)
    return base64.b64encode(stream.getvalue()).decode("ascii")


def _pdf(store: CorrectedStore, summary: Reading, shown: Any, image: Image | None) -> bytes:
    """One A4 page; drawn without pyplot, so that a thread may do it."""
    from matplotlib.backends.backend_pdf import FigureCanvasPdf
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.27, 11.69))
    FigureCanvasPdf(figure)
    figure.text(0.08, 0.955, f"Tissue of {summary['image']}", fontsize=14, weight="bold")
    figure.text(0.08, 0.935, _now(), fontsize=8, color="0.4")
    figure.text(0.08, 0.905, _lead(summary), fontsize=10, wrap=True)
    for number, picture in enumerate(shown or ()):
        axes = figure.add_axes((0.08 + 0.43 * number, 0.55, 0.41, 0.33))
        axes.imshow(picture)
        axes.set_axis_off()
    for line, (name, colour, area, share) in enumerate(_rows(store, summary)):
        y = 0.50 - 0.022 * line
        figure.text(0.08, y, "■", color=colour, fontsize=10)
        figure.text(0.105, y, name, fontsize=10)
        figure.text(0.50, y, area, fontsize=10, ha="right")
        figure.text(0.62, y, share, fontsize=10, ha="right")
    below = 0.50 - 0.022 * len(store.facts.class_names) - 0.03
    for line, (name, value) in enumerate(_facts(store, summary, image)):
        figure.text(0.08, below - 0.018 * line, name, fontsize=8, weight="bold")
        figure.text(0.30, below - 0.018 * line, value, fontsize=8)
    figure.text(0.08, 0.04, RESEARCH_ONLY, fontsize=8, color="0.4")
    stream = io.BytesIO()
    try:
        figure.savefig(stream, format="pdf")
    except OSError as error:
        raise OutputError(f"The page cannot be drawn ({error}).") from error
    return stream.getvalue()


def _now() -> str:
    return datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC")


def area_words(pixels: int, area_mm2: float | None) -> str:
    """An area in mm², or pixels where the scale is not known."""
    return f"{pixels:,} px" if area_mm2 is None else f"{area_mm2:.4g} mm²"


def _rows(store: CorrectedStore, summary: Reading) -> list[tuple[str, str, str, str]]:
    """(name, colour, area, share) of each class."""
    return [
        (name, colour, area_words(part["pixels"], part["area_mm2"]), f"{100 * part['share']:.2f} %")
        for (name, part), colour in zip(
            summary["classes"].items(), store.facts.colours, strict=True
        )
    ]


def _lead(summary: Reading) -> str:
    classified, worst = summary["classified"], summary["worst_grade"]
    text = f"{area_words(classified['pixels'], classified['area_mm2'])} were assessed. "
    if worst is None:
        said = without_lesion(summary)
        text += f"{said[0].upper()}{said[1:]}."
    else:
        largest = area_words(worst["largest_pixels"], worst["largest_mm2"])
        count = "1 lesion" if worst["lesions"] == 1 else f"{worst['lesions']:,} lesions"
        text += f"Worst class: {worst['class']} ({count}, largest {largest})."
    return text


def _scale(mpp: float | None) -> str:
    return "of unknown scale" if mpp is None else f"{mpp:.4g} µm per pixel"


def _said_by(image: Image | None) -> str:
    """Who says how large a pixel of the image is, where it is said."""
    if image is None or image.mpp is None or not isinstance(image, FileImage):
        return ""
    return ", as given by the user"  # a file's own is read from the file, not carried along


def _facts(store: CorrectedStore, summary: Reading, image: Image | None) -> list[tuple[str, str]]:
    row, col, height, width = (f"{n:.0f}" for n in summary["region"])
    corrected = summary["corrected"]
    facts = [
        ("Model", summary["model"]),
        ("Region", f"row {row}, column {col}, {height} × {width} level-0 pixels"),
        ("Image", f"{_scale(summary['image_mpp'])}{_said_by(image)}"),
        ("Classified at", _scale(summary["mpp"])),
        ("Mode", f"{summary['mode']}, blend {summary['blend']}, tile {summary['tile']}, "
                 f"stride {summary['stride']}"),
        ("Computed in", f"{summary['precision']} on {summary['device']}"),
        ("Least lesion", f"{summary['least_lesion_mm2']:g} mm²"),
        ("Painted by a person", area_words(corrected["pixels"], corrected["area_mm2"])),
    ]  # fmt: skip
    for name, what in (("skipped", "Skipped as empty"), ("unreadable", "Unreadable")):
        part = summary[name]
        if part["pixels"]:
            facts.append((what, area_words(part["pixels"], part["area_mm2"])))
    for name, part in summary.get("merged", {}).items():
        facts.append((name, area_words(part["pixels"], part["area_mm2"])))
    if not summary["complete"]:
        facts.append(("Not finished", f"{summary['rows_done']} of {summary['rows']} rows"))
    return facts
