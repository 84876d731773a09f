"""kill -9 at random moments: nothing unreadable, nothing that was acknowledged is lost."""

from __future__ import annotations

import csv
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from napari_cellpath.project import Project
from napari_cellpath.project.replay import replay

KILLS = int(os.environ.get("CELLPATH_KILLS", "4"))
"""Of each task; ``make stress`` takes 125."""
pytestmark = pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX")
ROOT = Path(__file__).parents[2]


def run_and_kill(task: str, folder: Path, seconds: float) -> list[str]:
    """Lines the child had acknowledged when it was killed ``seconds`` after it was ready."""
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.project.killed_child", task, str(folder)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n", child.stderr.read() if child.stderr else ""
    time.sleep(seconds)
    child.send_signal(signal.SIGKILL)
    out, _ = child.communicate(timeout=30)
    whole = out[: out.rfind("\n") + 1]
    return whole.splitlines()


def delays() -> list[float]:
    rng = random.Random(time.time_ns())  # noqa: S311
    return [rng.uniform(0.0, 0.8) for _ in range(KILLS)]


@pytest.mark.timeout(3600)
def test_killed_while_annotating(tmp_path: Path) -> None:
    folder = Project.create(tmp_path / "p").folder
    added: set[str] = set()
    labelled: set[str] = set()
    for delay in delays():
        for line in run_and_kill("annotate", folder, delay):
            what, uid = line.split()
            (added if what == "added" else labelled).add(uid)
        with Project.open(folder) as project:
            lost = added - project.state.objects.keys()
            assert not lost
            project.add([])  # and it can be written again
    assert added
    # Of the labels only one that its own undo took back may be missing.
    with Project.open(folder, read_only=True) as project:
        count, state, damage = replay(folder, tmp_path / "q")
        assert (count, damage) == (project.events, "")
        assert state == project.state
        bare = [u for u in labelled if "labels" not in project.state.objects[u]]
        assert not bare


@pytest.mark.timeout(3600)
def test_killed_while_saving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELLPATH_STATE", str(tmp_path / "state"))
    saved = 0
    for delay in delays():
        lines = run_and_kill("save", tmp_path, delay)
        for line in lines:
            with Project.open(tmp_path / line.split()[1], read_only=True) as project:
                assert len(project.state.objects) == 500
                saved += 1
        for path in tmp_path.glob("n*.cellpath"):  # whatever has a name is whole
            with Project.open(path, read_only=True) as project:
                assert len(project.state.objects) == 500
    assert saved or KILLS < 20


@pytest.mark.timeout(3600)
def test_killed_while_exporting(tmp_path: Path) -> None:
    wrote = 0
    for delay in delays():
        wrote += len(run_and_kill("export", tmp_path, delay))
        path = tmp_path / "out.csv"
        if path.exists():
            with path.open(newline="") as stream:
                rows = list(csv.DictReader(stream))
            assert rows[-1]["image"] == "end"
            assert int(rows[-1]["id"]) == len(rows) - 1
    assert wrote or KILLS < 20
