"""One running Dask backend for the whole room, and the fake system on both sides."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import fake_system
import pytest

from napari_cellpath.backend.dask_backend import DaskBackend
from napari_cellpath.systems.catalogue import SYSTEMS

HERE = str(Path(__file__).parent)


def wait_for(condition: Callable[[], bool], timeout: float = 10.0) -> None:
    """Poll until true; fail after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register the fake system here; child processes find its module through PYTHONPATH."""
    monkeypatch.setitem(SYSTEMS, fake_system.SYSTEM, fake_system.ENTRY)
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([HERE, *filter(None, [os.environ.get("PYTHONPATH")])])
    )


@pytest.fixture(scope="session")
def running() -> Iterator[DaskBackend]:
    """A started backend on the CPU, shared by all tests of the room."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SYSTEMS, fake_system.SYSTEM, fake_system.ENTRY)
        patch.setenv(
            "PYTHONPATH", os.pathsep.join([HERE, *filter(None, [os.environ.get("PYTHONPATH")])])
        )
        backend = DaskBackend(device="cpu", precision="fp32")
        job = backend.submit(fake_system.request(fake_system.Step("square", 2)))
        assert job.result(60) == [4]
    # The patch ends here: a fixture of the session would leave the fake in the system's place for
    # every test that follows in other rooms.
    yield backend
    backend.close()


@pytest.fixture
def backend(running: DaskBackend) -> DaskBackend:
    """The shared backend, with nothing left over from the test before."""
    wait_for(lambda: not running._dispatcher.live and not running._dispatcher.schedule.outstanding)
    return running
