"""The demonstration of RBC: regions of a generated smear detected, told, one flipped and undone."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import napari
import numpy as np

from napari_cellpath.bridge.detections import best_overlaps
from napari_cellpath.core.summary import summary_path
from napari_cellpath.core.vocabulary import System
from napari_cellpath.models import list_models
from napari_cellpath.samples.smear import smear_field
from napari_cellpath.widgets.demonstrating import rows_by_command, settle, until
from napari_cellpath.widgets.red_cells import RedCellDock

ALIKE = 0.5  # intersection over union from which a found box marks a drawn region


def detect_and_flip(out: Path) -> dict[str, Any]:
    """Open a smear in a window of its own, detect, flip a label, export; compare with the command.

    The smear is drawn, no photograph: its figures show that the parts work together, not how
    good the model is.

    Returns
    -------
    dict
        What happened, with ``lines`` for the terminal.
    """
    if not list_models(System.RBC):
        return {"lines": ["Red cells: no model of them is on this machine; left out."]}
    field = smear_field()
    path = field.save(out / "smear.ome.tif")
    viewer = napari.Viewer(title="napari-cellpath demonstration: red cells")
    viewer.window.resize(1560, 940)
    viewer.open(str(path), plugin="napari-cellpath")
    dock: RedCellDock
    _, dock = viewer.window.add_plugin_dock_widget("napari-cellpath", "Red cells")
    session = dock.session
    until(lambda: session.source is not None, "the smear was looked into")
    started = time.perf_counter()
    dock.detect()
    until(lambda: session.inquiry.errands.latest is None, "the detection")
    until(lambda: not session.inquiry.waiting and not len(session.inquiry.jobs), "the answers")
    seconds = time.perf_counter() - started
    regions = session.ready()
    settle(1.0)
    exported = out / "red-cells.csv"
    dock.export_to(str(exported))
    table = out / "red-cells-command-line.csv"
    rows = rows_by_command(session.command(str(exported), str(table)), table)
    names = session.method.classes
    shown = regions.table.probabilities(np.arange(len(regions)))
    by_command = np.array([[float(row[f"p_{n}"] or "nan") for n in names] for row in rows])
    flip = _flip_and_undo(dock)
    viewer.reset_view()
    settle(1.0)
    viewer.screenshot(str(out / "red-cells.png"), canvas_only=False, flash=False)
    found = best_overlaps(field.boxes, regions.table.boxes)[0] >= ALIKE
    viewer.close()
    report: dict[str, Any] = {
        "regions_in_field": len(field.boxes),
        "found": int(found.sum()),
        "boxes": len(rows),
        "seconds": round(seconds, 2),
        "flip_ms": flip,
        "largest_difference_to_command_line": float(np.nanmax(np.abs(by_command - shown))),
    }
    report["lines"] = [
        f"Red cells: {report['found']} of {len(field.boxes)} regions of a generated smear found "
        f"and told in {report['seconds']} s; a flipped label judged in {flip:.0f} ms; largest "
        f"difference to the command line {report['largest_difference_to_command_line']:.1e}; "
        f"slide: {summary_path(exported).name}."
    ]
    return report


def _flip_and_undo(dock: RedCellDock) -> float:
    """Flip a type of the largest region, take it back, flip it again; the time of a flip, ms."""
    session = dock.session
    regions = session.ready()
    boxes = regions.table.boxes
    largest = int(np.argmax((boxes[:, 2:] - boxes[:, :2]).prod(axis=1)))
    session.select([str(regions.table.uids[largest])])
    settle(0.5)
    name = session.method.classes[-1]
    started = time.perf_counter()
    dock.bars.flipped.emit(name)
    took = (time.perf_counter() - started) * 1000
    session.keeper.undo()
    settle(0.2)
    dock.bars.flipped.emit(name)
    settle(0.5)
    return took
