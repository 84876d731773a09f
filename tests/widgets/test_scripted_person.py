"""A person at the real docks: click, correct, retrain, read the report, use the new model.

The parent is the starter with its head taught that moderate and severe dysplasia and carcinoma in
situ are normal (`tests.support.blinding`). The cells are the starter's reserve: no model was ever
trained on them. Slow; ``make test-all`` runs it.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from napari_cellpath.backend.inline import InlineBackend
from napari_cellpath.cli import main
from napari_cellpath.core.vocabulary import Preset, System
from napari_cellpath.models import find_model, read_info
from napari_cellpath.project import ledger
from napari_cellpath.samples.data import data_folder
from napari_cellpath.widgets.nuclei import NucleiDock
from napari_cellpath.widgets.train import TrainDock
from tests.support.blinding import write_blinded
from tests.support.teaching import put_on_sides, train, turn_to
from training.datasets import CellRecord, read_cells
from training.deeppap_recipe import Data
from training.splits import assign_parts

BLIND_TO = [4, 5, 6]
CORRECTIONS = 30
OTHER = {"normal": "abnormal", "abnormal": "normal"}
pytestmark = [
    pytest.mark.gui,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        data_folder() is None or not (data_folder() / "herlev" / "labels.csv").is_file(),
        reason="needs the Herlev cells: set CELLPATH_DATA to the folder that holds herlev/",
    ),
]


@pytest.fixture(scope="module")
def parent(tmp_path_factory) -> Path:
    models = tmp_path_factory.mktemp("models")
    return write_blinded(find_model("deeppap-herlev").folder, BLIND_TO, models / "blinded")


def reserve_cells(parent: Path) -> tuple[list[CellRecord], list[CellRecord]]:
    """Cells to correct and cells to be measured on, of different slides."""
    data = read_cells(Data(folder="herlev"))
    reserve = set(read_info(parent).reserve)
    rows = [i for i, r in enumerate(data.records) if r.group in reserve]
    groups = [data.records[i].group for i in rows]
    kinds = [data.records[i].fine_class for i in rows]
    parts = assign_parts(groups, kinds, [0.42, 0.58], 0)
    learn = [data.records[i] for i, p in zip(rows, parts, strict=True) if p == 0]
    order = np.random.default_rng(0).permutation(len(learn))[:CORRECTIONS]
    frozen = [data.records[i] for i, p in zip(rows, parts, strict=True) if p == 1]
    return [learn[i] for i in order], frozen


class Person:
    """Sits at a nuclei dock and a train dock of one viewer."""

    def __init__(self, viewer, qtbot, parent: Path) -> None:
        self.viewer, self.qtbot = viewer, qtbot
        entry = find_model(parent, System.DEEPPAP)
        self.dock = NucleiDock(viewer, backend=InlineBackend("cpu"), models=lambda: [entry])
        viewer.window.add_dock_widget(self.dock, name="Nuclei")
        self.session = self.dock.session
        self.session.use(entry=entry, preset=Preset.FAST)
        self.train = TrainDock(viewer)
        viewer.window.add_dock_widget(self.train, name="Train")

    def label(self, cell: CellRecord, said: str) -> None:
        """Open a cell's image, click its nucleus, look at the score, press a class button."""
        viewer, session = self.viewer, self.session
        viewer.layers.clear()
        viewer.open(str(cell.image))
        self.qtbot.waitUntil(lambda: session.source is not None, timeout=20_000)
        session.set_clicking(True)
        (uid,) = session.nuclei.add(np.array([[cell.row, cell.col]]))
        self.qtbot.waitUntil(lambda: bool(session.nuclei.table.final.all()), timeout=20_000)
        session.set_clicking(False)
        session.select([uid])
        button = self.dock.frame.correct.buttons[session.method.classes.index(said)]
        button.click()
        row = session.nuclei.table.rows([uid])[0]
        assert session.nuclei.table.features["correction"][row] == said

    def close(self) -> None:
        self.train.close_run()
        self.session.close()


def work(person: Person, tmp_path: Path, learn, frozen, wrong: bool) -> dict:
    """Label everything, put slides on sides, train, and read the report."""
    keeper, qtbot = person.session.keeper, person.qtbot
    for cell in (*learn, *frozen):
        truth = "abnormal" if cell.abnormal else "normal"
        person.label(cell, OTHER[truth] if wrong and cell in learn else truth)
    groups = {c.image.stem: c.group for c in (*learn, *frozen)}
    put_on_sides(keeper, tmp_path / "loop", groups, {c.group for c in frozen})
    dock = person.train
    report = train(dock, qtbot, System.DEEPPAP, f"Learns from {len(learn)} cells", within=300)
    assert dock.curves.points(), "no curve was drawn"
    return report


def without_names(report: dict) -> dict:
    return {k: v for k, v in report.items() if k != "model"} | {
        m: {k: v for k, v in report[m].items() if k != "model"}
        for m in ("parent", "child")
        if m in report
    }


@pytest.fixture
def person(make_napari_viewer, qtbot, parent, monkeypatch):
    monkeypatch.setenv("CELLPATH_MODELS", str(parent.parent))
    person = Person(make_napari_viewer(), qtbot, parent)
    yield person
    person.close()


def test_thirty_corrections_make_a_better_model(person, qtbot, tmp_path, parent):
    """The paired interval of the gain on cells never seen excludes 0, and the dock turns to it."""
    learn, frozen = reserve_cells(parent)
    report = work(person, tmp_path, learn, frozen, wrong=False)
    low, high = report["paired"]["accuracy"]["interval"]
    assert 0 < low < high
    assert report["gate"]["passed"]
    dock, project = person.train, person.session.keeper.project
    assert dock.report.verdict.text().startswith("<b>The new model may be used.")
    assert dock.report.changed.rowCount() == len(report["changed"]) > 0
    dock.report.changed.cellDoubleClicked.emit(0, 0)
    names = [Path(str(x.source.path or "")).name for x in person.viewer.layers]
    assert Path(report["changed"][0]["image"]).name in names
    turn_to(dock, qtbot, project, System.DEEPPAP)
    assert person.session.method.entry.label == report["child"]
    assert ledger.used_by(project, learn[0].group)

    # The command line gives the same model and the same report from the run's own recipe.
    again = tmp_path / "again"
    assert main(["train", "deeppap", str(dock.run.out / "recipe.yaml"), "--out", str(again)]) == 0
    by_command = json.loads((again / "report.json").read_text())
    for key in ("models", "paired", "gate"):
        assert without_names(by_command[key]) == without_names(report[key])


def test_wrong_corrections_are_held_at_the_gate(person, qtbot, tmp_path, parent):
    """Thirty wrong labels: the model is kept, and is not made the default."""
    learn, frozen = reserve_cells(parent)
    report = work(person, tmp_path, learn, frozen, wrong=True)
    assert not report["gate"]["passed"]
    project = person.session.keeper.project
    run = person.train.run.out.name
    qtbot.waitUntil(lambda: "passed" in project.state.runs.get(run, {}), timeout=10_000)
    assert project.state.runs[run]["passed"] is False
    assert "model/deeppap" not in project.state.settings
    assert (project.folder / "models").is_dir()
    assert "was not taken" in person.train.report.verdict.text()
