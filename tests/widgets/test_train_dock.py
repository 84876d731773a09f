"""The train dock without training: what it says, starts, follows and shows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from napari_cellpath.core.annotations import Annotation
from napari_cellpath.core.vocabulary import System
from napari_cellpath.project import Project
from napari_cellpath.project.images import add_image
from napari_cellpath.widgets import train_run
from napari_cellpath.widgets.train import TrainDock
from napari_cellpath.widgets.train_report import verdict
from napari_cellpath.widgets.train_run import CANCELLED, TrainRun, Wanted, resuming, shown

CHILD = """
import json, pathlib, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # as the command does: what a shell
# starts in the background inherits that interrupts are ignored
if sys.argv[3] == "deaf":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print("importing", file=sys.stderr, flush=True)
    time.sleep(60)
out = pathlib.Path(sys.argv[1]); out.mkdir(parents=True, exist_ok=True)
with (out / "progress.jsonl").open("a") as file:
    for epoch in range(1, 4):
        line = {"stage": "head", "epoch": epoch, "epochs": 3, "loss": 1 / epoch,
                "validation": {}, "seconds": epoch, "seconds_left": 3 - epoch}
        file.write(json.dumps(line) + "\\n"); file.flush()
    file.write('{"stage": "cu')
    file.flush()
time.sleep(float(sys.argv[2]))
if sys.argv[3] == "fail":
    print("cellpath: the data hold one class only.", file=sys.stderr); sys.exit(2)
"""


@pytest.fixture
def project(tmp_path):
    project = Project.create(tmp_path / "p")
    for n in range(2):
        add_image(project, f"k{n}", f"slide{n}.tif", (30, 40), path=tmp_path / f"slide{n}.tif")
        project.add([
            Annotation(f"{n}" * 16, f"k{n}", geometry=(1.0, 2.0), labels=("normal",)),
            Annotation(f"{n}" * 15 + "x", f"k{n}", geometry=(9.0, 2.0), labels=("abnormal",)),
        ])  # fmt: skip
    project.close()
    return project.folder


@pytest.fixture
def dock(make_napari_viewer, project):
    viewer = make_napari_viewer()
    dock = TrainDock(viewer)
    viewer.window.add_dock_widget(dock, name="Train")
    yield dock
    dock.close_run()


@pytest.fixture
def child(tmp_path, monkeypatch):
    """Makes the dock start a child that stands in for the command line."""
    script = tmp_path / "child.py"
    script.write_text(CHILD)

    def arrange(seconds: float = 0.0, how: str = "end") -> None:
        start = TrainRun.start

        def start_child(self, _words, out):
            start(self, ["x", str(out), str(seconds), how], out)

        monkeypatch.setattr(TrainRun, "start", start_child)
        monkeypatch.setattr(train_run, "MODULE", [str(script)])

    return arrange


def test_without_a_project_it_says_what_to_do(dock):
    assert "Correct some calls first" in dock.data.text()
    assert not dock.start.isEnabled()
    assert not dock.copy.isEnabled()


def test_it_says_what_there_is_to_learn_from(dock, project):
    assert dock.keeper.open(project)
    assert dock.data.text() == (
        "Learns from 2 cells of 1 slide (1 abnormal, 1 normal), is measured on 2 cells of 1 slide "
        "kept apart."
    )
    assert dock.parent_model.currentText() == "deeppap-herlev"
    wanted = dock.wanted()
    assert wanted.project == project
    assert dock.start.isEnabled()


def test_the_command_is_the_one_a_user_would_type(project):
    wanted = Wanted("deeppap", project, "models/a b", "fast", "mine")
    assert shown(wanted.command(Path("out"))) == (
        f"cellpath train deeppap --parent 'models/a b' --data {project} --preset fast "
        "--name mine --out out"
    )
    recipe = Wanted("deeppap", project, recipe=Path("r.yaml"))
    assert shown(recipe.command(Path("out"))) == "cellpath train deeppap r.yaml --out out"
    assert resuming("deeppap", Path("out"))[-1] == "--resume"


def test_a_run_is_followed_and_its_end_told(dock, project, child, qtbot):
    dock.keeper.open(project)
    child()
    dock.start.click()
    assert dock.run.running
    assert not dock.start.isEnabled()
    qtbot.waitUntil(lambda: not dock.run.running, timeout=20_000)
    assert dock.curves.points() == {"head": [(1, 1.0), (2, 0.5), (3, 1 / 3)]}
    assert dock.state.text().startswith("Done: run ")
    assert dock.start.isEnabled()


def test_what_went_wrong_is_said_in_the_runs_own_words(dock, project, child, qtbot):
    dock.keeper.open(project)
    child(how="fail")
    dock.start.click()
    qtbot.waitUntil(lambda: not dock.run.running, timeout=20_000)
    assert dock.state.text() == "the data hold one class only."


def test_cancel_stops_within_a_second_and_offers_to_go_on(dock, project, child, qtbot):
    dock.keeper.open(project)
    child(seconds=60)
    codes = []
    dock.run.ended.connect(lambda code, _said: codes.append(code))
    dock.start.click()
    qtbot.waitUntil(lambda: bool(dock.curves.points()), timeout=20_000)
    (dock.run.out / "recipe.yaml").write_text("name: x\n")
    dock.cancel.click()
    # Three times the second that is promised: other work may share the machine.
    qtbot.waitUntil(lambda: not dock.run.running, timeout=3000)
    assert codes == [CANCELLED]
    assert dock.resume.isEnabled()
    assert dock.unfinished() == dock.run.out


def test_cancel_while_the_run_still_imports_and_is_deaf(dock, project, child, qtbot):
    """A shell's background child inherits that interrupts are ignored until the command hears."""
    dock.keeper.open(project)
    child(how="deaf")
    dock.start.click()
    qtbot.waitUntil(lambda: "importing" in dock.run._errors, timeout=20_000)
    dock.cancel.click()
    qtbot.waitUntil(lambda: not dock.run.running, timeout=3000)
    assert dock.state.text() == "Stopped."
    assert not dock.resume.isEnabled()
    assert dock.start.isEnabled()


def test_a_report_is_shown_with_its_verdict(dock, project, tmp_path):
    dock.keeper.open(project)
    model = {"accuracy": 0.8, "accuracy_interval": [0.7, 0.9], "auc": 0.9, "calibrated": None}
    cell = {
        "uid": "u", "image": str(tmp_path / "gone.tif"), "row": 1, "col": 2, "truth": "normal",
        "parent_call": "abnormal", "child_call": "normal", "parent_score": 0.6,
        "child_score": 0.1, "right": "child",
    }  # fmt: skip
    report = {
        "n": 40, "groups": 9, "models": {"parent": model, "child": {**model, "accuracy": 0.9}},
        "paired": {"accuracy": {"gain": 0.1, "interval": [0.02, 0.2]}}, "changed": [cell],
        "gate": {"passed": False, "why": "Below the parent <b>."},
    }  # fmt: skip
    (tmp_path / "report.json").write_text(json.dumps(report))
    dock.show_run(tmp_path)
    assert "was not taken" in dock.report.verdict.text()
    assert "&lt;b&gt;" in dock.report.verdict.text()
    assert dock.report.measures.item(0, 1).text() == "0.800 (.70–.90)"
    assert dock.report.changed.item(0, 2).text() == "normal 0.100"
    assert dock.use.text() == "Try the new model all the same"
    dock.report.changed.cellDoubleClicked.emit(0, 0)  # its image is gone: told, not raised
    assert "no frozen" in verdict({"gate": {"passed": False, "why": "no frozen part"}})


def test_presets_are_those_of_the_system(dock):
    """Red cells have one that trains the detector too; another system's does not stay chosen."""
    dock._show_presets("fast")
    assert "detector" not in [dock.preset.itemData(i) for i in range(dock.preset.count())]
    dock.system.addItem("RBC (red cells)", System.RBC)
    dock.system.setCurrentIndex(dock.system.findData(System.RBC))
    dock._show_presets("detector")
    assert dock.preset.currentData() == "detector"
    assert "booster" in dock.preset.currentText()
    dock.system.setCurrentIndex(0)
    dock._show_presets("detector")
    assert dock.preset.currentData() == "fast"
