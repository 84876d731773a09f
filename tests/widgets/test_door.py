"""The door from backend threads to the main thread."""

import threading
import time
from itertools import pairwise
from types import SimpleNamespace

import pytest
from qtpy.QtCore import QThread
from qtpy.QtTest import QTest

from napari_cellpath.widgets.door import Door


@pytest.fixture
def delivered():
    return []


@pytest.fixture
def door(qapp, delivered):
    door = Door(lambda events: delivered.append((QThread.currentThread(), list(events))))
    yield door
    door.close()


def in_thread(function) -> None:
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


def test_events_arrive_on_the_main_thread_in_order(qtbot, door, delivered):
    """Whatever thread posts, delivery is on the door's thread and in order."""
    in_thread(lambda: [door.post(n) for n in range(50)])
    qtbot.waitUntil(lambda: sum(len(e) for _, e in delivered) == 50)
    assert {thread for thread, _ in delivered} == {QThread.currentThread()}
    assert [e for _, events in delivered for e in events] == list(range(50))


def test_first_event_does_not_wait_and_bursts_are_coalesced(qtbot, door, delivered):
    """A first answer passes at once; a storm of them is delivered at most thirty times a second."""
    start = time.monotonic()
    in_thread(lambda: door.post(0))
    qtbot.waitUntil(lambda: bool(delivered), timeout=1000)
    assert time.monotonic() - start < 0.03 + 0.05

    def storm() -> None:
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            door.post(1)
            time.sleep(0.001)

    delivered.clear()
    thread = threading.Thread(target=storm)
    thread.start()
    QTest.qWait(700)
    thread.join()
    assert 5 <= len(delivered) <= 18


def test_slow_delivery_leaves_the_main_thread_most_of_its_time(qtbot, qapp):
    """Where delivering takes 50 ms it is done at most every 250 ms."""
    times = []

    def slow(events) -> None:
        times.append(time.monotonic())
        time.sleep(0.05)

    door = Door(slow)
    for _ in range(40):
        door.post(SimpleNamespace())
        QTest.qWait(15)
    door.close()
    gaps = [b - a for a, b in pairwise(times)]
    assert gaps
    assert min(gaps) >= 0.24


def test_calls_pass_and_a_closed_door_lets_nothing_through(qtbot, door, delivered):
    """Calls reach the main thread; after closing neither calls nor events do, nor do they fail."""
    heard = []
    in_thread(lambda: door.call(heard.append, QThread.currentThread()))
    qtbot.waitUntil(lambda: bool(heard))
    in_thread(lambda: (door.call(heard.append, "late"), door.post("late")))
    door.close()
    in_thread(lambda: (door.call(heard.append, "later"), door.post("later")))
    QTest.qWait(100)
    assert len(heard) == 1
    assert delivered == []
