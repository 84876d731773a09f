"""What the scripted persons share: sides for what they labelled, and a training by the dock."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from napari_cellpath.core.vocabulary import System
from napari_cellpath.project import ledger
from napari_cellpath.project.images import set_group
from napari_cellpath.project.ledger import Part


def put_on_sides(keeper: Any, folder: Path, group_of: Mapping[str, str], frozen: set[str]) -> Any:
    """Save the project; each image (by stem) is of its group, each group on one side."""
    assert keeper.save_as(folder)
    project = keeper.project
    for key, facts in list(project.state.images.items()):
        set_group(project, key, group_of[Path(facts["path"]).stem])
    for group in sorted(set(group_of.values())):
        ledger.move(project, group, Part.FROZEN if group in frozen else Part.TRAIN)
    keeper.changed.emit()
    return project


def train(dock: Any, qtbot: Any, system: System, learns_from: str, within: float) -> dict[str, Any]:
    """Train from the model ``blinded`` and return the report; ``within`` is in seconds."""
    if dock.system.currentData() != system:
        dock.system.setCurrentIndex(dock.system.findData(system))
        dock.system.activated.emit(dock.system.currentIndex())
    dock.parent_model.setCurrentIndex(dock.parent_model.findText("blinded"))
    assert dock.parent_model.currentText() == "blinded"
    assert learns_from in dock.data.text()
    started = time.monotonic()
    dock.start.click()
    assert dock.run.running
    qtbot.waitUntil(lambda: not dock.run.running, timeout=4000 * round(within))
    seconds = time.monotonic() - started
    assert dock.run.out is not None, dock.state.text()
    assert (dock.run.out / "report.json").is_file(), dock.state.text()
    report: dict[str, Any] = json.loads((dock.run.out / "report.json").read_text())
    print(f"\ntraining took {seconds:.0f} s; {dock.report.verdict.text()}")
    print(json.dumps(report["paired"]))
    assert seconds < within
    return report


def turn_to(dock: Any, qtbot: Any, project: Any, system: System) -> None:
    """The project's default becomes the new model; use it in the other dock."""
    qtbot.waitUntil(lambda: f"model/{system}" in project.state.settings, timeout=30_000)
    dock.use.click()
