"""What is there when a dock begins is set aside from searches for garbage, and given back."""

import gc
import weakref

import numpy as np
import pytest

from napari_cellpath.widgets import garbage
from napari_cellpath.widgets.nuclei import NucleiDock


class Cycle:
    """Something only a search can free."""

    def __init__(self) -> None:
        self.pixels = np.zeros(10)
        self.me = self


def test_first_dock_sets_aside_and_last_gives_back():
    assert gc.get_freeze_count() == 0
    garbage.set_aside()
    garbage.set_aside()
    assert gc.get_freeze_count() > 0
    garbage.take_back()
    assert gc.get_freeze_count() > 0
    garbage.take_back()
    assert gc.get_freeze_count() == 0


def test_what_is_gone_is_found_a_moment_later(qtbot, monkeypatch):
    monkeypatch.setattr(garbage, "LATER", 0)
    there = Cycle()
    garbage.set_aside()
    gone = weakref.ref(there)
    del there
    gc.collect()
    assert gone() is not None, "set aside"
    garbage.search_soon()
    qtbot.waitUntil(lambda: gone() is None, timeout=5000)
    assert gc.get_freeze_count() > 0, "the rest is set aside again"
    garbage.take_back()


@pytest.mark.parametrize("times", [1, 2])
def test_docks_set_aside_while_they_are_open(make_napari_viewer, qtbot, backend, times):
    """A removed image's pixels are let go of, though the dock came after them."""
    viewer = make_napari_viewer()
    layer = viewer.add_image(np.zeros((64, 64, 3), np.uint8))
    pixels = weakref.ref(layer)
    docks = [NucleiDock(viewer, backend=backend, models=list) for _ in range(times)]
    assert gc.get_freeze_count() > 0
    qtbot.waitUntil(lambda: all(d.session.source is not None for d in docks), timeout=20_000)
    qtbot.wait(300)
    viewer.layers.remove(layer)
    del layer
    qtbot.waitUntil(lambda: pixels() is None, timeout=10_000)
    for dock in docks:
        dock.session.close()
        dock.session.close()
    assert gc.get_freeze_count() == 0
