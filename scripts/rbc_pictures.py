"""Make the pictures of docs/rbc.md: boxes drawn, the truth, the review, on generated smears.

::

    xvfb-run -a python scripts/rbc_pictures.py docs/images [demo-output/pictures/red-cells.png]

The second is the demonstration's screenshot, which is made small enough to be kept.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import napari
import numpy as np
from PIL import Image

from napari_cellpath.bridge.box_recording import corners_of
from napari_cellpath.core.vocabulary import RBC_TYPES
from napari_cellpath.samples.smear import smear_field
from napari_cellpath.widgets.demonstrating import settle, until


def main(out: Path) -> None:
    """Draw, compare with what was drawn into the smear, review."""
    work = Path(tempfile.mkdtemp())
    os.environ["CELLPATH_STATE"] = str(work / "state")
    field = smear_field(seed=1)
    viewer = napari.Viewer(title="napari-cellpath")
    viewer.window.resize(1560, 940)
    image = viewer.open(str(field.save(work / "smear.ome.tif")), plugin="napari-cellpath")[0]
    widget, dock = viewer.window.add_plugin_dock_widget("napari-cellpath", "Red cells")
    session = dock.session
    until(lambda: session.source is not None, "the smear")
    session.set_clicking(True)
    regions = session.cells
    edited = session.shown.edited(regions)
    clumps = np.argsort(-field.n_cells)[:4]
    for number in clumps:
        edited.layer.add_rectangles(corners_of(field.boxes[number]))
        settle(0.2)
    until(lambda: not regions.unscored() and not len(session.inquiry.jobs), "their answers")
    viewer.reset_view()
    settle(1.0)
    picture(viewer, out / "rbc-draw.jpg")

    session.set_clicking(False)
    dock.detect()
    until(lambda: session.inquiry.errands.latest is None, "the detection")
    until(lambda: not regions.unscored() and not len(session.inquiry.jobs), "the answers")
    names = np.array(RBC_TYPES)
    truth = viewer.add_shapes(
        [corners_of(b) for b in field.boxes], shape_type="rectangle", name="drawn into it",
        scale=image.scale, units=image.units, visible=False,
    )  # fmt: skip
    print(f"{len(field.boxes)} regions hold {', '.join(names[field.types.any(axis=0)])}")
    session.choose_truth(truth)
    dock.truth.setCurrentIndex(dock.truth.findData(truth))
    dock.frame.method.more.expand(animate=False)
    session.select([])
    viewer.layers.selection.active = regions.layer
    settle(1.5)
    print(dock.beside.text())
    picture(viewer, out / "rbc-truth.jpg")

    session.choose_truth(None)
    widget.hide()
    viewer.window.add_plugin_dock_widget("napari-cellpath", "Review")
    settle(3.0)
    picture(viewer, out / "rbc-review.jpg")
    viewer.close()


def kept_small(shot: Path, path: Path) -> None:
    """A screenshot in few colours: 1 MB becomes a third."""
    few = (
        Image.open(shot)
        .convert("RGB")
        .quantize(96, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    )
    few.save(path, optimize=True)


def picture(viewer: napari.Viewer, path: Path) -> None:
    """A screenshot of the window, as a JPEG that keeps the colours of the verdicts."""
    shot = Image.fromarray(viewer.screenshot(canvas_only=False, flash=False)).convert("RGB")
    shot.save(path, quality=90, subsampling=0, optimize=True)


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images")
    if len(sys.argv) > 2:
        kept_small(Path(sys.argv[2]), folder / "red-cells-dock.png")
    main(folder)
