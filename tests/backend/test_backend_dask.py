"""DaskBackend with a live worker process: order, cancel, superseding, errors, upkeep."""

from __future__ import annotations

import logging
import threading
import time

import fake_system
import numpy as np
import pytest
from conftest import wait_for
from fake_system import Step, bulk, request

from napari_cellpath.backend import JobEvent, JobState
from napari_cellpath.backend.dask_backend import DaskBackend
from napari_cellpath.backend.inline import InlineBackend
from napari_cellpath.core import errors
from napari_cellpath.core.errors import BackendError, CellpathError, JobCancelledError


def test_round_trip(backend: DaskBackend) -> None:
    """Results come in the request's order, computed in another process."""
    events: list[JobEvent] = []
    steps = [Step("square", n) for n in range(5)]
    job = backend.submit(request(*steps), listener=events.append)
    assert job.result(10) == [0, 1, 4, 9, 16]
    assert (events[0].state, events[-1].state) == (JobState.RUNNING, JobState.DONE)
    assert sorted(r for e in events for r in e.results) == [0, 1, 4, 9, 16]
    assert backend.submit(request()).result(10) == []


def test_inline_and_dask_agree(backend: DaskBackend) -> None:
    """The same request gives the same numbers through both backends."""
    values = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    there = backend.submit(request(Step("network", values))).result(10)
    here = InlineBackend(device="cpu", precision="fp32").submit(request(Step("network", values)))
    np.testing.assert_allclose(there[0], here.result(0)[0], atol=1e-6)


def test_submit_does_not_keep_the_caller_waiting(backend: DaskBackend) -> None:
    """Submitting takes less than 2 ms, also while a plan takes 0.3 s to make."""
    backend.submit(request(Step("slow plan")))
    times = []
    jobs = []
    for _ in range(50):
        start = time.perf_counter()
        jobs.append(backend.submit(request(Step("square", 2))))
        times.append(time.perf_counter() - start)
    assert np.median(times) < 0.002
    assert [j.result(10) for j in jobs] == [[4]] * 50


def test_urgent_overtakes_bulk(backend: DaskBackend) -> None:
    """A click submitted after forty bulk tasks is answered before they are done."""
    work = backend.submit(bulk(0.1, 40))
    wait_for(lambda: work.progress > 0)
    start = time.monotonic()
    backend.submit(request(Step("now", urgent=True, priority=100))).result(5)
    took = time.monotonic() - start
    assert took < 0.5
    assert work.progress < 0.5
    work.cancel()


def test_higher_priority_job_goes_first(backend: DaskBackend) -> None:
    """Without urgency too, a job with a higher priority is served before one that came first."""
    low = backend.submit(bulk(0.05, 30))
    wait_for(lambda: low.progress > 0)
    high = backend.submit(request(*[Step("now", priority=70)] * 5))
    high.result(5)
    assert low.progress < 0.5
    low.cancel()


def test_one_thread_is_kept_free(backend: DaskBackend) -> None:
    """Two bulk tasks never run at once; at most two are out, over all jobs."""
    most = 0
    jobs = [backend.submit(request(*[Step("running")] * 10)) for _ in range(3)]
    while not all(j.state.final for j in jobs):
        most = max(most, len(backend._dispatcher.schedule.outstanding))
        time.sleep(0.001)
    assert most == 2
    assert [j.result(5) for j in jobs] == [[0] * 10] * 3


def test_cancel_stops_the_running_task(backend: DaskBackend) -> None:
    """A job is cancelled at once, its task ends within a second, and the thread is free."""
    job = backend.submit(bulk(30, 5))
    wait_for(lambda: job.state is JobState.RUNNING)
    time.sleep(0.3)
    start = time.monotonic()
    job.cancel()
    with pytest.raises(JobCancelledError):
        job.result(1)
    ended = time.monotonic() - start
    backend.submit(request(Step("now"))).result(1)  # bulk: needs the very thread that slept
    assert time.monotonic() - start < 1.0
    assert ended < 0.1


def test_cancel_keeps_what_came(backend: DaskBackend) -> None:
    """Partial results stay, and nothing is delivered after the cancel."""
    events: list[JobEvent] = []
    job = backend.submit(bulk(0.05, 50), listener=events.append)
    wait_for(lambda: len(job.partial_results) >= 2)
    job.cancel()
    wait_for(lambda: job.state is JobState.CANCELLED)
    count = len(events)
    assert len(job.partial_results) >= 2
    time.sleep(0.3)
    assert len(events) == count
    assert events[-1].state is JobState.CANCELLED


def test_cancel_from_a_listener_and_before_the_start(backend: DaskBackend) -> None:
    """Cancel works from the dispatcher's own thread, and for a job that is still planned."""

    def enough(event: JobEvent) -> None:
        if len(event.results):
            event.job.cancel()

    listening = backend.submit(bulk(0.01, 100), listener=enough)
    with pytest.raises(JobCancelledError):
        listening.result(5)
    assert len(listening.partial_results) < 10
    planned = backend.submit(request(Step("slow plan")))
    planned.cancel()
    with pytest.raises(JobCancelledError):
        planned.result(0.2)


def test_a_newer_request_supersedes(backend: DaskBackend) -> None:
    """For one target only the newest request is answered; other targets are untouched."""
    old = backend.submit(bulk(0.1, 50, target="cell 1"))
    other = backend.submit(request(Step("square", 3), target="cell 2"))
    wait_for(lambda: old.state is JobState.RUNNING)
    new = backend.submit(request(Step("square", 5), target="cell 1"))
    assert new.result(5) == [25]
    assert old.state is JobState.CANCELLED
    assert new.target == "cell 1"
    assert other.result(5) == [9]


ERRORS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, CellpathError) and kind is not JobCancelledError
]


@pytest.mark.parametrize("kind", ERRORS)
def test_our_errors_survive_the_trip(backend: DaskBackend, kind: type[CellpathError]) -> None:
    """An error raised in the worker arrives with its class and its sentence."""
    job = backend.submit(request(Step("fail", (kind, "Mend a.png, then try again."))))
    with pytest.raises(kind) as caught:
        job.result(10)
    assert type(caught.value) is kind
    assert str(caught.value) == "Mend a.png, then try again."


def test_other_errors_are_ours_and_logged(
    backend: DaskBackend, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug in a system fails the job with a BackendError; the traceback is in the log."""
    with caplog.at_level(logging.ERROR, "napari_cellpath"):
        job = backend.submit(request(Step("fail", (ZeroDivisionError, "oh"))))
        with pytest.raises(BackendError, match=r"ZeroDivisionError: oh; see the log .*inference"):
            job.result(10)
    assert "do_fail" in caplog.text


def test_a_bad_request_gives_a_failed_job(backend: DaskBackend) -> None:
    """What planning refuses fails that job with the planner's error; nothing was computed."""
    events: list[JobEvent] = []
    job = backend.submit(request(Step("bad plan")), listener=events.append)
    with pytest.raises(errors.OutsideImageError):
        job.result(5)
    assert [e.state for e in events] == [JobState.FAILED]
    nonsense = backend.submit("not a request")
    with pytest.raises(BackendError):
        nonsense.result(5)


def test_a_plans_bug_ends_its_own_job(
    backend: DaskBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan that raises or runs dry fails its job; the dispatcher and other jobs go on."""
    for method in ("give", "take", "results"):
        with monkeypatch.context() as patch:
            patch.setattr(fake_system.FakePlan, method, lambda *_: 1 / 0)
            with pytest.raises(BackendError, match="ZeroDivisionError"):
                backend.submit(request(Step("square", 1))).result(5)
    with monkeypatch.context() as patch:
        patch.setattr(fake_system.FakePlan, "take", lambda *_: None)
        with pytest.raises(BackendError, match="no task left"):
            backend.submit(request(Step("square", 1))).result(5)
    assert backend.submit(request(Step("square", 2))).result(5) == [4]


def test_free_memory_is_seen_by_status(backend: DaskBackend) -> None:
    """Freed models are gone from the status asked next; the next request loads again."""
    backend.submit(request(Step("square", 2))).result(5)
    status = backend.status()
    assert status.alive
    assert (status.device, status.precision) == ("cpu", "fp32")
    assert status.models == (fake_system.MODEL.label,)
    assert status.memory_bytes > 10 * 2**20
    backend.free_memory()
    assert backend.status().models == ()
    assert backend.submit(request(Step("square", 3))).result(5) == [9]


def test_torch_uses_every_core(backend: DaskBackend) -> None:
    """Dask sets one thread a worker; ours computes with all cores, on both its threads."""
    from napari_cellpath.backend.device import cpu_threads

    jobs = [backend.submit(request(Step("sleep", 0.1), Step("threads")))]
    jobs += [backend.submit(request(Step("threads", urgent=True))) for _ in range(4)]
    assert {j.result(10)[-1] for j in jobs} == {cpu_threads()}


def test_status_does_not_start_anything() -> None:
    """A backend nobody has used says that it is not alive, at once, and starts no process."""
    idle = DaskBackend(device="cpu")
    start = time.perf_counter()
    assert not idle.status().alive
    idle.free_memory()
    assert not idle.status().alive
    assert time.perf_counter() - start < 0.5
    assert idle._dispatcher.link is None
    idle.close()


def test_close_while_starting_and_twice() -> None:
    """Closing within the start ends waiting jobs, takes 2 s at most, and can be repeated."""
    backend = DaskBackend(device="cpu")
    job = backend.submit(bulk(10, 3))
    time.sleep(0.1)
    start = time.monotonic()
    backend.close()
    backend.close()
    assert time.monotonic() - start < 2.0
    with pytest.raises(JobCancelledError):
        job.result(0.1)
    after = backend.submit(bulk(0, 1))
    with pytest.raises(BackendError, match="closed"):
        after.result(0.1)
    wait_for(lambda: not [t for t in threading.enumerate() if t.name == "cellpath-start"])


def test_a_process_that_cannot_start_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    """When the launcher ends before it serves, the job fails with the log's place, promptly."""
    monkeypatch.setattr("sys.executable", "/bin/false")
    backend = DaskBackend(device="cpu")
    with pytest.raises(BackendError, match=r"could not be started.*inference.*\.log"):
        backend.submit(bulk(0, 1)).result(10)
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    with pytest.raises(BackendError, match="could not be started"):
        backend.submit(bulk(0, 1)).result(10)
    backend.close()
