"""What every test may rely on: a display for `gui` tests, settings that are not the user's."""

from __future__ import annotations

import os
import sys

import pytest


def has_display() -> bool:
    """Whether a real window can be opened here."""
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


if not has_display():
    # Widgets and layers work without a display; only drawing the canvas does not.
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test of the real window must not pass by not running."""
    if item.get_closest_marker("gui") and not has_display():
        pytest.fail(
            "This test opens a real window and needs a display. Run it with "
            "'xvfb-run -a python -m pytest', as 'make test' does.",
            pytrace=False,
        )


@pytest.fixture(autouse=True)
def own_state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sessions of tests lie apart from the user's, and from each other's."""
    monkeypatch.setenv("CELLPATH_STATE", str(tmp_path_factory.mktemp("state")))
