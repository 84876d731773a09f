"""Full searches for garbage at chosen moments, not in the midst of a person's work.

Once in a while Python goes through everything the process holds: 0.2 s with napari open, 0.4 s with
ten thousand cells, on the main thread, whatever a person is doing. So what is there when the first
dock begins its work is set aside from these searches until the last one ends (`gc.freeze`); going
through the rest takes some 20 ms. An image that is removed is searched for once, a moment later:
its pixels must not stay in memory.
"""

from __future__ import annotations

import gc

from qtpy.QtCore import QTimer

LATER = 1000  # ms: the canvas is drawn without the image by then

_docks = 0


def set_aside() -> None:
    """A dock begins: what is there by now is searched no more."""
    global _docks
    _docks += 1
    if _docks == 1:
        gc.freeze()


def take_back() -> None:
    """A dock ends; after the last one Python searches as it always does."""
    global _docks
    _docks -= 1
    if _docks == 0:
        gc.unfreeze()


def search_soon() -> None:
    """Something large is gone: search everything once, a moment later."""
    QTimer.singleShot(LATER, _search)


def _search() -> None:
    if not _docks:
        return
    gc.unfreeze()
    gc.collect()
    gc.freeze()
