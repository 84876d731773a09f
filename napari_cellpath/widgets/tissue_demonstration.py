"""The demonstration of HSP-Net: a generated slide segmented as it is looked at, and painted on."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import napari
import numpy as np

from napari_cellpath.bridge.tissue import TissueRegion
from napari_cellpath.core.errors import BackendError
from napari_cellpath.samples.tissue import TissueField, tissue_field
from napari_cellpath.slides.region_store import FIRST_NO_CLASS, RegionStore
from napari_cellpath.widgets.demonstrating import settle, until
from napari_cellpath.widgets.search import Where
from napari_cellpath.widgets.tissue import TissueDock

LARGEST = 400_000
"""Bytes of the picture, which is committed."""


def segment_tissue(out: Path) -> dict[str, Any]:
    """Open a slide in a window of its own, segment, paint, export; compare with the command.

    The tissue is drawn, no photograph: its figures show that the parts work together, not how
    good the model is.

    Returns
    -------
    dict
        What happened, with ``lines`` for the terminal.
    """
    field = tissue_field()
    path = field.save(out / "tissue-field.ome.tif", levels=3)
    viewer = napari.Viewer(title="napari-cellpath demonstration: tissue")
    viewer.window.resize(1560, 940)
    viewer.open(str(path), plugin="napari-cellpath")
    dock: TissueDock
    _, dock = viewer.window.add_plugin_dock_widget("napari-cellpath", "Tissue")
    session = dock.session
    until(lambda: session.source is not None, "the slide was looked into")
    if session.method.entry is None:
        viewer.close()
        return {"lines": ["HSP-Net: no model is on this machine; tissue was not segmented."]}
    settle(1.0)
    viewer.reset_view()
    dock.choose_region(Where.IMAGE)
    started = time.perf_counter()
    dock.segment()
    until(lambda: session.region is not None, "a first look")
    first = time.perf_counter() - started
    until(lambda: not session.running and dock.summary.reading is not None, "the region")
    seconds = time.perf_counter() - started
    region = session.region
    assert region is not None  # just waited for  # noqa: S101
    _paint_a_mistake(dock, region, field)
    until(lambda: bool(dock.summary.reading and dock.summary.reading["corrected"]["pixels"])
          or session.painted is None, "the areas as corrected")  # fmt: skip
    settle(1.5)
    viewer.reset_view()
    settle(0.5)
    _save_small(viewer.screenshot(canvas_only=False, flash=False), out / "tissue.png")
    dock.export_to(str(out / "tissue-report.html"))
    until((out / "tissue-report.html").is_file, "the report")
    # Of an earlier demonstration: its slide, drawn alike, was another file to the store.
    shutil.rmtree(out / "tissue-command.ome.zarr", ignore_errors=True)
    command = session.command(str(out / "tissue-command.ome.zarr"))
    differing = _differing_from_command(command, out / "tissue-command.ome.zarr", region)
    agreeing = _agreement(region, field)
    label = region.facts.model
    viewer.close()
    report: dict[str, Any] = {
        "model": label,
        "first_look_s": round(first, 2),
        "seconds": round(seconds, 2),
        "glands_agree_with_the_drawing": round(agreeing, 3),
        "pixels_differing_from_command_line": differing,
    }
    report["lines"] = [
        f"HSP-Net: a generated slide of {field.image.shape[0]} x {field.image.shape[1]} pixels "
        f"segmented in {report['seconds']} s (first look after {report['first_look_s']} s, model "
        f"{label}); gland or none agrees with the drawing on {100 * agreeing:.1f} % of the pixels; "
        f"{differing} pixels differ from the command line; report: tissue-report.html."
    ]
    return report


def _save_small(picture: np.ndarray, path: Path) -> None:
    """A screenshot of tissue is all texture: fewer colours, and pixels, keep it small enough."""
    from PIL import Image

    image = Image.fromarray(picture[..., :3])
    for width, colours in ((1560, 256), (1300, 128), (1100, 64), (900, 48)):
        smaller = image.resize(
            (width, round(image.height * width / image.width)), Image.Resampling.LANCZOS
        )
        smaller.quantize(colours).save(path, optimize=True)
        if path.stat().st_size < LARGEST:
            return


def _paint_a_mistake(dock: TissueDock, region: TissueRegion, field: TissueField) -> None:
    """Paint over the middle of the first gland that the model has as something else."""
    names = list(region.facts.class_names)
    rows = np.floor((np.arange(region.facts.shape[0]) + 0.5) * region.facts.step[0]).astype(int)
    cols = np.floor((np.arange(region.facts.shape[1]) + 0.5) * region.facts.step[1]).astype(int)
    truth = field.labels[np.ix_(rows, cols)]
    called = region.store.rows(0, region.facts.shape[0])
    name = "malignant gland" if "malignant gland" in names else names[-1]
    wrong = (truth == field.classes.index("malignant gland")) & (called != names.index(name))
    if not wrong.any():
        return
    row, col = (int(n[len(n) // 2]) for n in np.nonzero(wrong))
    dock.session.choose_class(name)
    painted = dock.session.painted
    if painted is not None:
        painted.brush_size = 40
        painted.paint((int(rows[row]), int(cols[col])), painted.selected_label)


def _agreement(region: TissueRegion, field: TissueField) -> float:
    """Share of pixels that both have as gland, or both as none."""
    facts = region.facts
    rows, cols = (
        np.floor((np.arange(n) + 0.5) * step).astype(int)
        for n, step in zip(facts.shape, facts.step, strict=True)
    )
    called = region.store.rows(0, facts.shape[0])
    known = called < FIRST_NO_CLASS
    gland = np.array(["gland" in name for name in facts.class_names] + [False])
    said = gland[np.minimum(called, len(gland) - 1)]
    return float((said == (field.labels[np.ix_(rows, cols)] > 0))[known].mean())


def _differing_from_command(command: str, store: Path, region: TissueRegion) -> int:
    """Run the copied command in a process of its own; pixels that it has otherwise.

    Raises
    ------
    BackendError
        The command failed.
    """
    words = shlex.split(command)
    done = subprocess.run(
        [sys.executable, "-m", "napari_cellpath.cli", *words[1:]],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BackendError(f"'{command}' failed: {done.stderr.strip()}")
    rows = region.facts.shape[0]
    return int((RegionStore.open(store).rows(0, rows) != region.store.rows(0, rows)).sum())
