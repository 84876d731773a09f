"""What counts as ours and what does not."""

import gc
import time

import pytest

from napari_cellpath.bridge import timing


def spend(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


@timing.timed
def ours() -> None:
    spend(0.01)
    with timing.napari_call():
        spend(0.04)
        gc.collect()
    gc.collect()


def test_napari_and_the_search_for_garbage_are_not_ours() -> None:
    """Each is counted once, and apart."""
    ballast = [[number] for number in range(100_000)]  # so that a search takes a while
    timing.reset()
    ours()
    report = timing.report()
    assert len(ballast) == 100_000
    assert report["ours"]["max"] == pytest.approx(10, abs=6)
    assert report["napari"]["max"] == pytest.approx(40, abs=10)
    assert report["garbage"]["calls"] == 2
    assert report["garbage"]["max"] > 1
    assert set(timing.NOT_OURS) < set(report)
