"""A click is asked for when the button goes down, and taken up by the point that appears there."""

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_cellpath.backend.job import JobState
from napari_cellpath.widgets.ahead import Ahead
from tests.widgets.test_dock_canvas import stage  # noqa: F401

LEFT = Qt.MouseButton.LeftButton


class Submitted:
    """A job of no backend."""

    def __init__(self, request):
        self.request, self.cancelled = request, False

    def cancel(self):
        self.cancelled = True


class Event:
    """One of its events."""

    def __init__(self, job):
        self.job = job


def test_only_the_same_object_with_the_same_settings_takes_it():
    ahead = Ahead(Submitted)
    ahead.ask("a", "request", ("model", 1))
    assert ahead.take("b", ("model", 1)) is None
    assert ahead.take("a", ("model", 2)) is None
    early = ahead.take("a", ("model", 1))
    assert early.job.request == "request"
    assert ahead.take("a", ("model", 1)) is None
    ahead.drop()
    assert not early.job.cancelled, "it is its object's now"


def test_events_wait_for_the_object_and_a_second_press_ends_the_first():
    ahead, other = Ahead(Submitted), Submitted("other")
    ahead.ask("a", "one", ())
    early = ahead._early
    mine, theirs = Event(early.job), Event(other)
    assert ahead.hold([mine, theirs]) == [theirs]
    ahead.ask("b", "two", ())
    assert early.job.cancelled
    assert ahead.hold([mine]) == [mine], "nobody waits for it any more"
    early = ahead.take("b", ())
    assert early.events == []
    assert ahead.hold([theirs]) == [theirs]


def press(stage, row, col):  # noqa: F811
    QTest.mousePress(stage.native, LEFT, pos=stage.at(row, col))


def release(stage, row, col):  # noqa: F811
    QTest.mouseRelease(stage.native, LEFT, pos=stage.at(row, col))


@pytest.mark.gui
def test_answer_is_on_its_way_before_the_button_is_up(stage):  # noqa: F811
    """One request, sent at the press, answers for the point; what came early is not lost."""
    stage.dock.session.set_clicking(True)
    press(stage, 75, 225)
    assert len(stage.backend.requests) == 1
    stage.wait(lambda: stage.backend.jobs[0].state is JobState.DONE)
    QTest.qWait(100)  # its events have come through the door
    assert len(stage.nuclei) == 0
    release(stage, 75, 225)
    assert len(stage.nuclei) == 1
    stage.wait(stage.all_final)
    assert len(stage.backend.requests) == 1
    assert stage.backend.requests[0].nuclei[0].uid == str(stage.nuclei.table.uids[0])
    assert stage.features["call"][0] == "abnormal"
    assert stage.features["score"][0] == pytest.approx(0.75, abs=0.01)
    stage.click(75, 75)
    stage.wait(lambda: len(stage.nuclei) == 2 and stage.all_final())
    assert len(stage.backend.requests) == 2
    assert list(stage.features["call"]) == ["abnormal", "normal"]


@pytest.mark.gui
def test_a_press_that_adds_nothing_is_cancelled(stage):  # noqa: F811
    """A drag asks for nothing in the end; a button that comes up elsewhere asks anew."""
    stage.dock.session.set_clicking(True)
    stage.backend.hold.clear()
    stage.drag((75, 75), (120, 160))
    stage.wait(lambda: stage.backend.jobs[0].state is JobState.CANCELLED)
    assert len(stage.nuclei) == 0
    press(stage, 75, 225)
    QTest.mouseMove(stage.native, stage.at(75.6, 225.6))
    release(stage, 75.6, 225.6)
    stage.wait(lambda: len(stage.nuclei) == 1)
    stage.backend.hold.set()
    stage.wait(stage.all_final)
    place = stage.nuclei.table.positions[0]
    # An answer is shown when it comes; its job is done a moment later, on another thread.
    done = lambda: [j for j in stage.backend.jobs if j.state is JobState.DONE]  # noqa: E731
    stage.wait(lambda: bool(done()))
    answered = done()
    (nucleus,) = answered[0].request.nuclei
    assert len(answered) == 1
    np.testing.assert_array_equal((nucleus.row, nucleus.col), place)


@pytest.mark.gui
def test_nothing_is_asked_ahead_where_nothing_will_be_scored(stage):  # noqa: F811
    """Beside the image and while selecting nothing is asked for."""
    stage.dock.session.set_clicking(True)
    press(stage, -8, 100)
    release(stage, -8, 100)
    QTest.qWait(50)
    assert not stage.backend.requests
    stage.dock.session.set_clicking(False)
    press(stage, 75, 225)
    release(stage, 75, 225)
    QTest.qWait(50)
    assert not stage.backend.requests
