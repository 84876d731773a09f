"""A click does not wait for a field."""

import threading
import time

from napari_cellpath.backend.engine import RightOfWay


def test_bulk_gives_way_to_an_urgent_task():
    """While an urgent task runs, a bulk task's stop check waits; a cancel still gets through."""
    way = RightOfWay()
    cancelled = threading.Event()
    check = way.courteous(cancelled.is_set)
    assert check() is False
    passed = threading.Event()
    with way.urgent():
        waiting = threading.Thread(target=lambda: (check(), passed.set()))
        waiting.start()
        assert not passed.wait(0.2)
    assert passed.wait(1.0)
    with way.urgent():
        threading.Timer(0.1, cancelled.set).start()
        start = time.monotonic()
        assert check() is True
        assert time.monotonic() - start < 1.0
