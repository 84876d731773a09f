"""kill -9 while training: the run goes on, and its loss curve is that of one left alone."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.training.killed_fit import EPOCHS, STEPS, fit

KILLS = int(os.environ.get("CELLPATH_KILLS", "2"))
ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX")
@pytest.mark.timeout(3600)
def test_killed_training_gives_the_same_curve(tmp_path: Path) -> None:
    alone = fit(None)
    alone.run()
    rng = random.Random(time.time_ns())  # noqa: S311
    killed = finished = 0
    folder = tmp_path / "run-0"
    while killed < KILLS or not finished:
        child = subprocess.Popen(
            [sys.executable, "-m", "tests.training.killed_fit", str(folder)],
            cwd=ROOT, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert child.stdout is not None
        if killed < KILLS:
            for _ in range(rng.randrange(1, EPOCHS * STEPS // 2)):
                child.stdout.readline()
            time.sleep(rng.uniform(0.0, 0.02))
            child.send_signal(signal.SIGKILL)
            child.communicate(timeout=30)
            killed += 1
        else:
            child.communicate(timeout=120)
            assert child.returncode == 0
        if (folder / "curve.json").is_file():
            curve = json.loads((folder / "curve.json").read_text())
            assert curve == pytest.approx(alone.losses, abs=1e-6)
            finished += 1
            folder = tmp_path / f"run-{finished}"
