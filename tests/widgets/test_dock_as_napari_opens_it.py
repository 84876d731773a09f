"""The dock as a user gets it: through napari's own plugin mechanism, which passes a proxy."""

import numpy as np
import pytest


@pytest.mark.gui
def test_button_and_image_follow_when_opened_from_the_menu(make_napari_viewer):
    """Press starts and stops clicking; selecting another image turns the dock to that image."""
    viewer = make_napari_viewer(show=True)
    first = viewer.add_image(np.full((64, 64, 3), 200, np.uint8), rgb=True, name="A")
    _, dock = viewer.window.add_plugin_dock_widget("napari-cellpath", "Nuclei")
    session, button = dock.session, dock.frame.action.primary
    session.set_clicking(True)
    assert session.clicking
    assert button.isChecked()
    assert "stop" in button.text()
    session.set_clicking(False)
    assert not session.clicking
    assert not button.isChecked()
    assert session.image is first
    second = viewer.add_image(np.full((64, 64, 3), 90, np.uint8), rgb=True, name="B")
    viewer.layers.selection.active = second
    assert session.image is second
    session.set_clicking(True)
    assert session.nuclei.image is second
