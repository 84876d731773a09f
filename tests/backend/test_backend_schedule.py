"""Schedule: which task goes next. No threads, no Dask."""

from __future__ import annotations

from typing import Any

from fake_system import FakePlan, Step, bulk, request

from napari_cellpath.backend.job import Job
from napari_cellpath.backend.schedule import Schedule, Ticket


def add(schedule: Schedule, wanted: Any, priority: int | None = None) -> Job:
    job = Job(wanted, "", lambda job: None)
    schedule.add(job, FakePlan(wanted), priority)
    return job


def hand_over(schedule: Schedule) -> list[Ticket]:
    out = []
    while (ticket := schedule.hand_over()) is not None:
        out.append(ticket)
    return out


def test_two_bulk_tasks_over_all_jobs() -> None:
    """However many jobs wait, two of their tasks are out; each answer lets one more go."""
    schedule = Schedule()
    first = add(schedule, bulk(0, 5))
    add(schedule, bulk(0, 5))
    out = hand_over(schedule)
    assert [t.owner.job for t in out] == [first, first]
    assert schedule.back(out[0])
    assert len(hand_over(schedule)) == 1


def test_urgent_goes_at_once_and_first() -> None:
    """An urgent task is handed over although the two bulk places are taken."""
    schedule = Schedule()
    add(schedule, bulk(0, 5))
    hand_over(schedule)
    click = add(schedule, request(Step("now", urgent=True), Step("now")))
    out = hand_over(schedule)
    assert [(t.owner.job, t.task.urgent) for t in out] == [(click, True)]


def test_higher_priority_first_then_first_come() -> None:
    """Bulk places go to the higher priority, and among equals to whoever came first."""
    schedule = Schedule()
    low = add(schedule, request(Step("now", priority=20)))
    equal = add(schedule, request(Step("now", priority=20)))
    high = add(schedule, request(Step("now", priority=70)))
    asked = add(schedule, request(Step("now", priority=20)), priority=90)
    order = []
    while out := hand_over(schedule):
        for ticket in out:
            order.append(ticket.owner.job)
            schedule.back(ticket)
    assert order == [asked, high, low, equal]


def test_removing_a_job_frees_its_places() -> None:
    """A cancelled job's tasks are named for cancelling, and late answers are not wanted."""
    schedule = Schedule()
    first = add(schedule, bulk(0, 5))
    second = add(schedule, bulk(0, 5))
    out = hand_over(schedule)
    assert schedule.remove(first) == frozenset(out)
    assert not schedule.back(out[0])
    assert [t.owner.job for t in hand_over(schedule)] == [second, second]


def test_a_suspect_runs_with_nothing_beside_it() -> None:
    """A task blamed for two deaths waits until all is quiet, and nothing joins it."""
    schedule = Schedule()
    add(schedule, bulk(0, 5))
    one, two = hand_over(schedule)
    schedule.back(one)
    schedule.suspect(one)
    assert hand_over(schedule) == []
    schedule.back(two)
    add(schedule, request(Step("now", urgent=True)))
    assert hand_over(schedule) == [one]
    assert one.alone
    schedule.back(one)
    assert len(hand_over(schedule)) == 3


def test_a_job_that_waits_for_nothing_is_found() -> None:
    """A plan without tasks left and without outstanding ones is reported, never forgotten."""
    schedule = Schedule()
    empty = add(schedule, request())
    busy = add(schedule, bulk(0, 1))
    (ticket,) = hand_over(schedule)
    assert [r.job for r in schedule.stalled_jobs()] == [empty]
    schedule.back(ticket)
    schedule.suspect(ticket)
    assert busy not in [r.job for r in schedule.stalled_jobs()]
