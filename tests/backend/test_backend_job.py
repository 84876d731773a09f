"""Job: states, progress, listeners."""

from __future__ import annotations

import time

import pytest

from napari_cellpath.backend.job import Job, JobEvent, JobState
from napari_cellpath.core.errors import BackendError, JobCancelledError


def make() -> tuple[Job, list[JobEvent]]:
    events: list[JobEvent] = []
    job = Job("request", "target", lambda job: job.ended(JobState.CANCELLED))
    job.add_listener(events.append)
    return job, events


def test_events_tell_the_story_in_order() -> None:
    """A listener hears running, each change, and done, with everything delivered."""
    job, events = make()
    job.started()
    job.advanced(["a"], ["a"], 0.5)
    job.advanced(["b"], ["a", "b"], 1.0)
    job.ended(JobState.DONE)
    assert [e.state for e in events] == ["running", "running", "running", "done"]
    assert [list(e.results) for e in events] == [[], ["a"], ["b"], []]
    assert job.result(0) == ["a", "b"]


def test_progress_is_throttled_and_never_falls() -> None:
    """Pure progress comes at most ten times a second; results always come at once."""
    job, events = make()
    job.started()
    end = time.monotonic() + 0.25
    n = 0
    while time.monotonic() < end:
        n += 1
        job.advanced((), (), 0.5 if n < 1000 else 0.1)
    assert n > 100
    assert 2 <= len(events) - 1 <= 4
    assert {e.progress for e in events[1:]} == {0.5}


def test_a_broken_listener_harms_nobody_else() -> None:
    """A listener that raises keeps neither the job from ending nor others from hearing it."""
    job, events = make()
    job._listeners.insert(0, lambda event: 1 / 0)
    job.ended(JobState.FAILED, BackendError("No."))
    assert [e.state for e in events] == [JobState.FAILED]
    with pytest.raises(BackendError, match="No"):
        job.result(0)


def test_the_first_final_state_stays() -> None:
    """What comes after the end is dropped: no result, no second ending."""
    job, events = make()
    job.cancel()
    job.advanced(["late"], ["late"], 1.0)
    job.ended(JobState.DONE)
    assert [e.state for e in events] == [JobState.CANCELLED]
    assert list(job.partial_results) == []
    with pytest.raises(JobCancelledError):
        job.result(0)


def test_a_late_listener_hears_how_it_ended() -> None:
    """A listener added to a finished job gets its results at once."""
    job, _ = make()
    job.advanced(["a"], ["a"], 1.0)
    job.ended(JobState.DONE)
    late: list[JobEvent] = []
    job.add_listener(late.append)
    assert [(e.state, list(e.results)) for e in late] == [(JobState.DONE, ["a"])]
