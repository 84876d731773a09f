"""The starter, blinded to malignant glands, taught by three painted regions of real sections.

Only patients of the starter's reserve: no model was ever trained on them. Slow.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import training
from napari_cellpath.core.annotations import Part
from napari_cellpath.core.vocabulary import System
from napari_cellpath.models import find_model, read_info
from napari_cellpath.project.painted import painted_value
from napari_cellpath.samples.data import data_folder
from tests.support.blinding import write_blinded_to_tissue
from tests.training.hspnet.projects import PaintedProject
from training.hspnet.data import read_regions
from training.hspnet.recipe import HspData

SIDE = 256
PARTS = {"16": Part.TRAIN, "10": Part.TRAIN, "2": Part.FROZEN, "5": Part.FROZEN}
"""Patients of the reserve; one image of 16 and two of 10 are corrected."""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        data_folder() is None or not (data_folder() / "glas" / "labels.csv").is_file(),  # type: ignore[operator]
        reason="needs the gland images: set CELLPATH_DATA to the folder that holds glas/",
    ),
]


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    starter = find_model("hspnet-glas-colon", System.HSPNET).folder
    folder = tmp_path_factory.mktemp("models") / "blinded"
    return write_blinded_to_tissue(starter, "malignant gland", folder)


def corrected(parent: Path, folder: Path) -> PaintedProject:
    """A square painted whole in three images; six images of other patients painted whole."""
    data = read_regions(HspData(layout="glas", folder="glas"))
    assert set(PARTS) <= set(read_info(parent).reserve)
    taken: set[tuple[str, int]] = set()
    sections = []
    for record in data.records:
        part = PARTS.get(record.group)
        if part is None:
            continue
        mask = np.asarray(Image.open(record.mask))  # type: ignore[arg-type]
        painting = mask.astype(np.uint32) + painted_value(0)
        if part is Part.TRAIN:
            if (record.group, record.fine_class) in taken:
                continue
            taken.add((record.group, record.fine_class))
            row, col = (int(v) for v in np.argwhere(mask > 0).mean(axis=0))
            top, left = max(row - SIDE // 2, 0), max(col - SIDE // 2, 0)
            inside = np.zeros(mask.shape, dtype=bool)
            inside[top : top + SIDE, left : left + SIDE] = True
            painting[~inside] = 0
        sections.append((record.image, record.group, part, painting, False))
    assert len(taken) == 3
    made = PaintedProject(folder)
    made.write(sections)
    return made


def test_three_regions_teach_malignant_glands(parent: Path, tmp_path: Path) -> None:
    """The paired interval of the gain on patients never seen excludes 0, within eight minutes."""
    project = corrected(parent, tmp_path / "corrected.cellpath")
    recipe = training.finetune_recipe(parent, project.folder, "fast", "child")
    started = time.monotonic()
    training.run("hspnet", recipe, tmp_path / "out", device="cpu")
    seconds = time.monotonic() - started
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    parents, child = report["models"]["parent"], report["models"]["child"]
    print(f"\n{seconds:.0f} s; {report['gate']['why']}; {json.dumps(report['paired'])}")
    print({k: [v["dice"], child["by_class"][k]["dice"]] for k, v in parents["by_class"].items()})
    assert seconds < 480
    low, high = report["paired"]["dice"]["interval"]
    assert 0 < low < high
    assert report["gate"]["passed"], report["gate"]["why"]
