"""InlineBackend: the same promises without threads or processes."""

from __future__ import annotations

import subprocess
import sys

import pytest
from fake_system import Step, bulk, request

from napari_cellpath.backend import JobEvent, JobState, connect
from napari_cellpath.backend.inline import InlineBackend
from napari_cellpath.core.errors import (
    BackendAddressError,
    BackendError,
    JobCancelledError,
    OutsideImageError,
)


@pytest.fixture
def inline() -> InlineBackend:
    return InlineBackend(device="cpu", precision="fp32")


def test_round_trip(inline: InlineBackend) -> None:
    """A submitted request has ended when submit returns, results in the request's order."""
    events: list[JobEvent] = []
    job = inline.submit(request(*[Step("square", n) for n in range(4)]), listener=events.append)
    assert job.result(0) == [0, 1, 4, 9]
    assert events[0].state is JobState.RUNNING
    assert events[-1].state is JobState.DONE
    assert events[-1].progress == 1.0


def test_urgent_first(inline: InlineBackend) -> None:
    """Of the tasks a plan has ready, the urgent one is run first."""
    order: list[object] = []
    inline.submit(
        request(Step("square", 1), Step("square", 5, urgent=True), Step("square", 2)),
        listener=lambda e: order.extend(e.results),
    )
    assert order == [25, 1, 4]


def test_cancel_from_a_listener(inline: InlineBackend) -> None:
    """A listener that cancels stops the job after the task at hand; what came stays."""

    def enough(event: JobEvent) -> None:
        if len(event.results):
            event.job.cancel()

    job = inline.submit(request(*[Step("square", n) for n in range(9)]), listener=enough)
    assert job.state is JobState.CANCELLED
    assert list(job.partial_results) == [0]
    with pytest.raises(JobCancelledError):
        job.result(0)


def test_same_target_supersedes(inline: InlineBackend) -> None:
    """A request submitted from a listener for the same target ends the older one."""
    newer = []

    def again(event: JobEvent) -> None:
        if len(event.results) and not newer:
            newer.append(None)
            newer[0] = inline.submit(request(Step("square", 7), target="cell"))

    older = inline.submit(
        request(*[Step("square", n) for n in range(5)], target="cell"), listener=again
    )
    assert newer[0].result(0) == [49]
    assert older.state is JobState.CANCELLED


def test_errors_end_the_job_not_the_caller(inline: InlineBackend) -> None:
    """A request that cannot be planned, and a bug in a system, give failed jobs."""
    assert isinstance(inline.submit(request(Step("bad plan"))).error, OutsideImageError)
    bug = inline.submit(request(Step("fail", (ZeroDivisionError, "oh"))))
    assert isinstance(bug.error, BackendError)
    assert "ZeroDivisionError: oh" in str(bug.error)
    assert inline.submit(bulk(0, 1)).state is JobState.DONE


def test_free_and_close(inline: InlineBackend) -> None:
    """Models are dropped on request; after close requests fail with a sentence."""
    inline.submit(request(Step("square", 1)))
    assert inline.status().models
    inline.free_memory()
    assert inline.status().models == ()
    inline.close()
    inline.close()
    assert "closed" in str(inline.submit(request(Step("square", 1))).error)


def test_connect_refuses_contradictions() -> None:
    """Inline with an address, an address without credentials: an error, not a guess."""
    with pytest.raises(BackendError, match="no address"):
        connect("tls://host:1", inline=True)
    for address in ("tls://host:1", "tcp://host:1"):
        with pytest.raises(BackendAddressError, match="--credentials"):
            connect(address)


def test_import_is_light() -> None:
    """Importing the room, and making the shared backend, imports neither torch nor Dask."""
    code = (
        "import sys, napari_cellpath.backend as b; b.shared_backend(); "
        "assert b.shared_backend() is b.shared_backend(); "
        "print([m for m in ('torch', 'distributed', 'dask') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
