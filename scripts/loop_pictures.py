"""Make the pictures of docs/loop.md: the loop in a real window, on generated cells.

::

    xvfb-run -a python scripts/loop_pictures.py docs/images

The fields are paler than any training slide, so that the starter errs and there is something to
correct. What the report shows was measured in this very run.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

import napari
import numpy as np
from PIL import Image

from napari_cellpath.core.annotations import Part
from napari_cellpath.core.vocabulary import Preset
from napari_cellpath.project import ledger
from napari_cellpath.samples.scene import Scene, generated_field
from napari_cellpath.widgets.demonstrating import settle, until

SIDES = (Part.TRAIN, Part.TRAIN, Part.FROZEN, Part.FROZEN)
PATIENCE = 900


def tinted(seed: int) -> Scene:
    """A generated field from a laboratory with a very pale stain."""
    scene = generated_field(seed)
    image = (255 - (255 - scene.image.astype(float)) * 0.3).round().astype(np.uint8)
    return Scene(
        scene.title, image, scene.centres, scene.abnormal, scene.names, scene.mpp, real=False
    )


def main(out: Path) -> None:
    """Correct, review, train, look."""
    work = Path(tempfile.mkdtemp())
    os.environ["CELLPATH_STATE"] = str(work / "state")
    viewer = napari.Viewer(title="napari-cellpath")
    viewer.window.resize(1560, 940)
    scenes = [tinted(seed) for seed in range(len(SIDES))]
    paths = [s.save(work / f"slide-{n + 1}.ome.tif") for n, s in enumerate(scenes)]
    nuclei_widget, dock = viewer.window.add_plugin_dock_widget("napari-cellpath", "Nuclei")
    session = dock.session
    session.use(preset=Preset.FAST)
    for number in (3, 2, 1, 0):
        viewer.layers.clear()
        scene = scenes[number]
        viewer.open(str(paths[number]), plugin="napari-cellpath")
        until(lambda: session.source is not None, "the image")
        session.set_clicking(True)
        nuclei = session.nuclei
        uids = nuclei.add(np.array(scene.centres))
        until(lambda n=nuclei: bool(n.table.final.all()), "the scores")
        session.set_clicking(False)
        for uid, abnormal in zip(uids, scene.abnormal, strict=True):
            session.select([uid])
            session.correct("abnormal" if abnormal else "normal")
        called = nuclei.table.features["call"] == "abnormal"
        print(f"slide {number + 1}: {int((called == scene.abnormal).sum())} of {len(uids)} right")
    session.keeper.save_as(work / "cells")
    project = session.keeper.project
    for key, facts in list(project.state.images.items()):
        number = int(facts["name"].split("-")[1].split(".")[0]) - 1
        ledger.move(project, project.state.images[key]["group"], SIDES[number])
    session.keeper.changed.emit()
    viewer.reset_view()
    settle(1.0)
    picture(viewer, out / "loop-corrected.jpg")

    nuclei_widget.hide()
    review_widget, _ = viewer.window.add_plugin_dock_widget("napari-cellpath", "Review")
    settle(3.0)
    picture(viewer, out / "loop-review.jpg")

    review_widget.hide()
    train_widget, train = viewer.window.add_plugin_dock_widget("napari-cellpath", "Train")
    settle(1.0)
    train.start.click()
    until_long(lambda: not train.run.running)
    settle(1.0)
    print(train.state.text(), train.report.verdict.text())
    picture(viewer, out / "loop-report.jpg")
    report = json.loads((train.run.out / "report.json").read_text())
    print(json.dumps(report["paired"]), report["gate"])

    until(lambda: train.run.out.name in project.state.runs
          and "model" in project.state.runs[train.run.out.name], "the model")  # fmt: skip
    train.use.click()
    train_widget.hide()
    nuclei_widget.show()
    viewer.layers.clear()
    viewer.open(str(paths[3]), plugin="napari-cellpath")
    until(lambda: session.source is not None and session.nuclei is not None, "the frozen field")
    session.score_all()
    until(lambda: not session.inquiry.waiting and not len(session.inquiry.jobs), "new scores")
    viewer.reset_view()
    settle(1.0)
    picture(viewer, out / "loop-rescored.jpg")
    viewer.close()


def picture(viewer: napari.Viewer, path: Path) -> None:
    """A screenshot of the window, as a JPEG that keeps the colours of the calls."""
    shot = Image.fromarray(viewer.screenshot(canvas_only=False, flash=False)).convert("RGB")
    shot.save(path, quality=92, subsampling=0, optimize=True)


def until_long(done: object) -> None:
    """Wait for training."""
    for _ in range(PATIENCE):
        if done():  # type: ignore[operator]
            return
        settle(1.0)
    raise SystemExit("training did not end")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/images"))
