"""The demonstration of HEp-2: the cells of a generated field found, told and read as a specimen."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import napari
import numpy as np

from napari_cellpath.core.specimen import specimen_path
from napari_cellpath.samples.fluorescence import hep2_field
from napari_cellpath.widgets.demonstrating import rows_by_command, settle, until
from napari_cellpath.widgets.hep2 import Hep2Dock

NEAR_UM = 4.0


def find_and_classify(out: Path) -> dict[str, Any]:
    """Open a field in a window of its own, press the button, export; compare with the command.

    The field is drawn, no photograph: its figures show that the parts work together, not how
    good the model is.

    Returns
    -------
    dict
        What happened, with ``lines`` for the terminal.
    """
    field = hep2_field()
    path = field.save(out / "hep2-field.ome.tif")
    viewer = napari.Viewer(title="napari-cellpath demonstration: HEp-2")
    viewer.window.resize(1560, 940)
    viewer.open(str(path), plugin="napari-cellpath")
    dock: Hep2Dock
    _, dock = viewer.window.add_plugin_dock_widget("napari-cellpath", "HEp-2")
    session = dock.session
    until(lambda: session.source is not None, "the field was looked into")
    started = time.perf_counter()
    dock.find_and_classify()
    until(lambda: session.cells is not None and len(session.cells) > 0, "the cells")
    until(lambda: not session.busy and not len(session.inquiry.jobs), "their patterns")
    seconds = time.perf_counter() - started
    settle(2.0)  # masks and specimen follow a moment later
    viewer.reset_view()
    settle(0.5)
    viewer.screenshot(str(out / "hep2-patterns.png"), canvas_only=False, flash=False)
    cells = session.cells
    assert cells is not None  # just waited for  # noqa: S101
    away = np.linalg.norm(field.centres[:, None] - cells.table.positions[None], axis=2) * field.mpp
    nearest = away.argmin(axis=1)
    found = away.min(axis=1) < NEAR_UM
    called = cells.table.features["call"][nearest]
    right = int((found & (called == np.array(field.patterns, dtype=object))).sum())
    exported = out / "hep2-cells.csv"
    dock.export_to(str(exported))
    table = out / "hep2-command-line.csv"
    rows = rows_by_command(session.command(str(exported), str(table)), table)
    shown = np.array([c.probabilities for c in map(cells.table.calls.get, cells.table.uids) if c])
    classes = session.method.classes
    by_command = np.array([[float(row[f"p_{name}"]) for name in classes] for row in rows])
    viewer.close()
    report = {
        "cells_in_field": len(field.centres),
        "found": int(found.sum()),
        "right_pattern": right,
        "seconds": round(seconds, 2),
        "largest_difference_to_command_line": float(np.abs(by_command - shown).max()),
    }
    report["lines"] = [
        f"HEp-2: {report['found']} of {len(field.centres)} cells of a generated field found and "
        f"classified in {report['seconds']} s, {right} with the pattern drawn; largest difference "
        f"to the command line {report['largest_difference_to_command_line']:.1e}; specimen: "
        f"{specimen_path(exported).name}."
    ]
    return report
