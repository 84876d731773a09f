"""What happens when the worker, the launcher or the client is killed."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from conftest import wait_for
from fake_system import Step, bulk, request

from napari_cellpath.backend import JobState
from napari_cellpath.backend.dask_backend import DaskBackend
from napari_cellpath.backend.dispatcher import RESTARTED, RUN_AGAIN
from napari_cellpath.core.errors import BackendError


@pytest.fixture
def notices(backend: DaskBackend) -> Iterator[list[str]]:
    heard: list[str] = []
    backend.add_notice_listener(heard.append)
    yield heard
    backend._dispatcher.notice_listeners.remove(heard.append)


def worker_pid(backend: DaskBackend) -> int:
    (pid,) = backend.submit(request(Step("pid"))).result(20)
    return int(pid)


def family(backend: DaskBackend) -> list[psutil.Process]:
    assert backend._dispatcher.link is not None
    assert backend._dispatcher.link.server is not None
    launcher = psutil.Process(backend._dispatcher.link.server.pid)
    return [launcher, *launcher.children(recursive=True)]


def gone(processes: list[psutil.Process]) -> bool:
    return not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes)


def test_a_killed_worker_is_replaced(backend: DaskBackend, notices: list[str]) -> None:
    """After SIGKILL of the worker the waiting request is answered, and the user told once."""
    old = worker_pid(backend)
    job = backend.submit(request(Step("sleep", 0.5), Step("pid")))
    wait_for(lambda: job.state is JobState.RUNNING)
    time.sleep(0.1)
    os.kill(old, signal.SIGKILL)
    answer = job.result(30)
    assert answer[1] != old
    assert notices == [RUN_AGAIN]


def test_a_worker_that_dies_idle_is_replaced(backend: DaskBackend, notices: list[str]) -> None:
    """Nothing was running: the notice says only that, and the next request is answered."""
    os.kill(worker_pid(backend), signal.SIGKILL)
    wait_for(lambda: notices == [RESTARTED])
    assert backend.submit(request(Step("square", 4, urgent=True))).result(30) == [16]
    assert notices == [RESTARTED]


def test_a_killed_launcher_is_replaced(
    backend: DaskBackend, notices: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """After SIGKILL of the launcher its worker goes too, and requests run on a new one.

    The user reads our one sentence, and no traceback of Dask's.
    """
    before = family(backend)
    assert backend._dispatcher.link is not None
    assert backend._dispatcher.link.server is not None
    scratch = Path(backend._dispatcher.link.server._scratch)
    assert scratch.is_dir()
    job = backend.submit(bulk(0.2, 10))
    wait_for(lambda: job.progress > 0.1)
    before[0].kill()
    assert len(job.result(30)) == 10
    assert notices == [RUN_AGAIN]
    wait_for(lambda: gone(before) and not scratch.exists(), 5)
    (now,) = backend.submit(request(Step("square", 3))).result(5)
    assert now == 9
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING] == []


@pytest.mark.slow
def test_a_poisonous_task_fails_alone(backend: DaskBackend, notices: list[str]) -> None:
    """A task that kills the worker every time fails its own job; the others are all done."""
    innocent = backend.submit(bulk(0.02, 15))
    poison = backend.submit(request(Step("die", priority=90)))
    click = backend.submit(request(Step("now", urgent=True, priority=100)))
    with pytest.raises(BackendError, match=r"FakeRequest.*not tried again"):
        poison.result(60)
    assert len(innocent.result(60)) == 15
    assert len(click.result(60)) == 1
    assert 2 <= len(notices) <= 3


def test_one_death_is_forgiven(backend: DaskBackend, tmp_path: Path) -> None:
    """A task that dies once runs again without anybody asking."""
    job = backend.submit(request(Step("die once", str(tmp_path / "died"))))
    assert job.result(30) == ["survived"]


SCRIPT = """
import os, sys, time
import fake_system as f
from napari_cellpath.backend import connect
from napari_cellpath.systems.catalogue import SYSTEMS
SYSTEMS[f.SYSTEM] = f.ENTRY
backend = connect(device="cpu")
print(*backend.submit(f.request(f.Step("pid"))).result(60), flush=True)
"""
STAY = """
backend.submit(f.bulk(60, 3))
backend.submit(f.request(f.Step("hold the interpreter", urgent=True)))
time.sleep(0.5)
# fork
print(backend._dispatcher.link.server.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("fork", ["", "if os.fork() == 0: time.sleep(20); os._exit(0)"])
def test_nothing_survives_the_client(fork: str) -> None:
    """Five seconds after SIGKILL of the client no process is left, busy though they were.

    Not even when a fork of the client still holds the pipe that tells of its end.
    """
    client = subprocess.Popen(
        [sys.executable, "-c", SCRIPT + STAY.replace("# fork", fork)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert client.stdout is not None
    forks: list[psutil.Process] = []
    try:
        worker, launcher = int(client.stdout.readline()), int(client.stdout.readline())
        processes = [psutil.Process(worker), psutil.Process(launcher)]
        processes += psutil.Process(launcher).children(recursive=True)
        forks = [c for c in psutil.Process(client.pid).children() if c.pid != launcher]
        assert len(forks) == bool(fork)
        assert processes[0].cpu_percent(0.2) > 20, "the worker is not busy"
        client.kill()
        client.wait()
        wait_for(lambda: gone(processes), 5)
    finally:
        for process in [client, *forks]:
            process.kill()


@pytest.mark.parametrize("how", ["script", "-c"])
def test_starts_from_unguarded_code(how: str, tmp_path: Path) -> None:
    """Code without ``if __name__ == "__main__"`` works, is run once, and ends by itself.

    And a file named like a module, in the folder one stands in, is not imported by our
    processes (``python -c`` itself would, so there it is left out).
    """
    script = tmp_path / "scripts" / "script.py"
    script.parent.mkdir()
    script.write_text(SCRIPT)
    if how == "script":
        (tmp_path / "distributed.py").write_text("raise SystemExit('imported from here')")
    out = subprocess.run(
        [sys.executable, *([str(script)] if how == "script" else ["-c", SCRIPT])],
        capture_output=True, text=True, timeout=60, cwd=tmp_path,
    )  # fmt: skip
    assert (out.returncode, out.stderr) == (0, "")
    assert out.stdout.count("\n") == 1
    worker = int(out.stdout)
    wait_for(lambda: not psutil.pid_exists(worker), 5)
