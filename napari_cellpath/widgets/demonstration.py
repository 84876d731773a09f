"""The demonstration: nuclei clicked in a real napari window, answered, exported, compared.

It drives the dock as a person does: the canvas is clicked with the mouse, the answer is waited
for, the table is exported. What it reports was measured in this very run.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import napari
import numpy as np
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest

from napari_cellpath.core.errors import BackendError
from napari_cellpath.core.vocabulary import RESEARCH_ONLY, System
from napari_cellpath.models import find_model
from napari_cellpath.models.registry import DEFAULT_MODELS
from napari_cellpath.samples.scene import Scene, demo_scene, generated_field
from napari_cellpath.widgets.demonstrating import rows_by_command, settle, until
from napari_cellpath.widgets.hep2_demonstration import find_and_classify
from napari_cellpath.widgets.nuclei import NucleiDock
from napari_cellpath.widgets.red_cell_demonstration import detect_and_flip
from napari_cellpath.widgets.search import Where
from napari_cellpath.widgets.tissue_demonstration import segment_tissue

CANVAS = 800.0  # pixels, about, of the window's shorter side


def run_demonstration(
    out: Path, n_cells: int = 12, keep_open: bool = False, generated: bool = False
) -> dict[str, Any]:
    """Click, wait, export; screenshots and ``nuclei.csv`` into ``out``.

    Parameters
    ----------
    out
        An existing folder.
    n_cells
        How many cells to click.
    keep_open
        Leave the window open until the user closes it.
    generated
        Take the generated field even where real cells are at hand.

    Returns
    -------
    dict
        What happened, with ``lines`` for the terminal.
    """
    entry = find_model(DEFAULT_MODELS[System.DEEPPAP])
    scene = demo_scene(() if generated else entry.info.reserve, n_cells)
    path = scene.save(out / ("reserve-cells.ome.tif" if scene.real else "generated-field.ome.tif"))
    viewer = napari.Viewer(title="napari-cellpath demonstration")
    viewer.window.resize(1560, 940)
    viewer.open(str(path), plugin="napari-cellpath")
    _, dock = viewer.window.add_plugin_dock_widget("napari-cellpath", "Nuclei")
    viewer.reset_view()
    dock.session.set_clicking(True)
    until(lambda: dock.session.source is not None, "the image was looked into")
    settle(1.5)

    nuclei = dock.session.nuclei
    started = time.perf_counter()
    first_seen = 0.0
    for centre in scene.centres[:n_cells]:
        _click(viewer, nuclei.layer.data_to_world(centre))
        settle(0.05)
    if len(nuclei) != min(n_cells, len(scene.centres)):
        raise BackendError(f"{len(nuclei)} of {n_cells} clicks arrived on the canvas.")
    until(lambda: bool(np.isfinite(scores_of(dock)).any()), "a first estimate")
    first_seen = time.perf_counter() - started
    viewer.screenshot(str(out / "first-estimates.png"), canvas_only=False, flash=False)
    until(lambda: not dock.session.inquiry.waiting and not len(dock.session.inquiry.jobs)
           and bool(np.isfinite(scores_of(dock)).all()), "all answers")  # fmt: skip
    all_seen = time.perf_counter() - started
    dock.session.set_clicking(False)
    most_abnormal = int(np.argmax(scores_of(dock)))
    dock.session.select([str(nuclei.table.uids[most_abnormal])])
    viewer.reset_view()  # the docks have narrowed the canvas since
    settle(0.5)
    viewer.screenshot(str(out / "scored-nuclei.png"), canvas_only=False, flash=False)
    dock.export_to(str(out / "nuclei.csv"))

    report = _report(scene, dock, out, entry.label)
    report |= {
        "first_estimate_s": round(first_seen, 2),
        "all_answers_s": round(all_seen, 2),
    }
    report |= _find_and_explain(viewer, dock, out)
    report["hep2"] = find_and_classify(out)
    report["rbc"] = detect_and_flip(out)
    report["tissue"] = segment_tissue(out)
    report["lines"] = _lines(report, scene, out)
    if keep_open:
        napari.run()
    viewer.close()
    return report


def _find_and_explain(viewer: napari.Viewer, dock: NucleiDock, out: Path) -> dict[str, Any]:
    """Find the nuclei of a generated field, score them, and ask why the worst is so."""
    field = generated_field()
    path = field.save(out / "field-to-search.ome.tif")
    for layer in list(viewer.layers):
        layer.visible = False
    image = viewer.open(str(path), plugin="napari-cellpath")[0]
    dock.session.choose_image(image)
    viewer.scene.camera.center = (0.0, *(float(x) for x in np.mean(image.extent.world, axis=0)))
    viewer.scene.camera.zoom = 0.9 * CANVAS / float(np.ptp(image.extent.world, axis=0).max())
    until(lambda: dock.session.source is not None, "the field was looked into")
    inquiry = dock.session.inquiry
    started = time.perf_counter()
    dock.find_nuclei(Where.IMAGE)
    until(lambda: inquiry.errands.latest is None, "the search")
    searched = time.perf_counter() - started
    until(lambda: not inquiry.waiting and not len(inquiry.jobs)
           and bool(np.isfinite(scores_of(dock)).all()), "their scores")  # fmt: skip
    found = dock.session.nuclei.table.positions
    away = np.linalg.norm(field.centres[:, None] - found[None], axis=2).min(axis=1) * field.mpp
    viewer.screenshot(str(out / "found-nuclei.png"), canvas_only=False, flash=False)
    dock.session.go_to_unseen()
    viewer.scene.camera.zoom *= 4
    dock.search.explain()
    until(lambda: inquiry.errands.latest is None, "the occlusion map")
    settle(0.5)
    viewer.screenshot(str(out / "show-why.png"), canvas_only=False, flash=False)
    dock.export_to(str(out / "found-nuclei.csv"))
    return {
        "searched_s": round(searched, 2),
        "found": len(found),
        "nuclei_in_field": len(field.centres),
        "with_a_proposal_within_4_um": int((away < 4.0).sum()),
    }


def scores_of(dock: NucleiDock) -> np.ndarray:
    """Scores on the dock's layer, NaN where none has come yet."""
    return np.asarray(dock.session.nuclei.table.features["score"], dtype=float)


def _click(viewer: napari.Viewer, world: Any) -> None:
    """Press and release the left button on the canvas at a world position."""
    canvas = viewer.window._qt_viewer.canvas  # napari has no public handle on the canvas
    x, y = canvas.view.scene.transform.map([world[-1], world[-2], 0, 1])[:2]
    QTest.mouseClick(
        canvas.native, Qt.MouseButton.LeftButton, pos=QPoint(round(float(x)), round(float(y)))
    )


def _report(scene: Scene, dock: NucleiDock, out: Path, model: str) -> dict[str, Any]:
    """Compare what the window shows with the labels, and with the command line."""
    method = dock.session.method
    shown = scores_of(dock)
    called = shown > method.threshold
    truth = scene.abnormal[: len(shown)]
    cells = [
        {"cell": name, "truth": "abnormal" if is_abnormal else "normal", "score": float(score)}
        for name, is_abnormal, score in zip(scene.names, truth, shown, strict=False)
    ]
    by_command = _scores_by_command(dock, out)
    return {
        "scene": scene.title,
        "model": model,
        "preset": str(method.preset),
        "cells": cells,
        "agree_with_label": int((called == truth).sum()),
        "n": len(shown),
        "largest_difference_to_command_line": float(np.abs(by_command - shown).max()),
    }


def _scores_by_command(dock: NucleiDock, out: Path) -> np.ndarray:
    """Run the command that *Copy command* gives."""
    table = out / "command-line.csv"
    command = dock.session.command(str(out / "nuclei.csv"), str(table))
    return np.array([float(row["score"]) for row in rows_by_command(command, table)])


def _lines(report: dict[str, Any], scene: Scene, out: Path) -> list[str]:
    kind = "label" if scene.real else "generated label"
    return [
        f"Scene: {scene.title}.",
        f"{report['n']} nuclei clicked; first estimate after {report['first_estimate_s']} s, "
        f"all answers after {report['all_answers_s']} s (start of the process included).",
        f"{report['agree_with_label']} of {report['n']} calls agree with the {kind} "
        f"(model {report['model']}).",
        "Largest difference between the window's scores and the command line's: "
        f"{report['largest_difference_to_command_line']:.1e}.",
        f"{report['found']} nuclei found in a generated field of {report['nuclei_in_field']} in "
        f"{report['searched_s']} s; {report['with_a_proposal_within_4_um']} have one within 4 um.",
        *report["hep2"]["lines"],
        *report["rbc"]["lines"],
        *report["tissue"]["lines"],
        f"Screenshots, tables and report: {out}/scored-nuclei.png, found-nuclei.png, "
        "show-why.png, hep2-patterns.png, red-cells.png, tissue.png, nuclei.csv, "
        "found-nuclei.csv, hep2-cells.csv, red-cells.csv, report.json.",
        RESEARCH_ONLY,
    ]
