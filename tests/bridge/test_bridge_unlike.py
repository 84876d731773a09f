"""Cells unlike the training data, and cells somebody looked at: on the layer and in words."""

import numpy as np
import pytest
from napari.layers import Image

from napari_cellpath.bridge.appearance import DIAMOND, DISC, symbols
from napari_cellpath.bridge.conventions import create_nuclei_layer
from napari_cellpath.bridge.nuclei import NucleiLayer
from napari_cellpath.widgets import wording
from tests.bridge.test_bridge_nuclei import SCHEME, SETTINGS, call


@pytest.fixture
def nuclei():
    image = Image(np.zeros((200, 300, 3), dtype=np.uint8), name="field")
    controller = NucleiLayer(create_nuclei_layer(image), image, SCHEME)
    uids = controller.add(np.array([[10.0, 20.0], [30.0, 20.0], [50.0, 20.0]]))
    flags = (("unusual-stain", "border"), ("crowded",), ())
    controller.write([call(u, 0.9, flags=f) for u, f in zip(uids, flags, strict=True)], SETTINGS)
    yield controller
    controller.close()


def test_unlike_cells_are_diamonds_and_counted(nuclei):
    """Stain, focus, noise and size make a diamond; a neighbour or the border does not."""
    shown = list(nuclei.layer.symbol)
    assert shown[0] == symbols()[DIAMOND]
    assert shown[1] == shown[2] == symbols()[DISC]
    assert "1 unlike the training cells" in wording.summary(nuclei, 0, 0)


def test_the_warning_stands_before_the_score(nuclei):
    """First the care, then the number; other flags follow in words."""
    first, second = (wording.detail(nuclei, [str(u)], None) for u in nuclei.table.uids[:2])
    assert first.index("Take with care") < first.index("0.900")
    assert "stained unlike the training cells" in first
    assert "its patch leaves the image" in first
    assert "Take with care" not in second
    assert "another nucleus is near" in second


def test_a_better_answer_takes_the_mark_back(nuclei):
    """Scored again with another model, the cell may be like its data."""
    uid = str(nuclei.table.uids[0])
    nuclei.write([call(uid, 0.9)], SETTINGS)
    assert not nuclei.table.unlike.any()
    assert nuclei.layer.symbol[0] == symbols()[DISC]


def test_marks_survive_deleting_and_reopening(nuclei):
    """Rows move up, and a layer taken over from elsewhere keeps its marks and what was seen."""
    nuclei.layer.selected_data = {1}
    nuclei.layer.remove_selected()
    assert nuclei.table.unlike.tolist() == [True, False]
    nuclei.select([str(nuclei.table.uids[1])])
    assert nuclei.table.features["seen"].tolist() == [False, True]
    nuclei.close()
    again = NucleiLayer(nuclei.layer, nuclei.image, SCHEME)
    assert again.table.unlike.tolist() == [True, False]
    assert again.table.features["seen"].tolist() == [False, True]
    assert again.unseen().tolist() == [0]
    again.close()
