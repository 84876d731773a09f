"""The starter model that travels with the project is whole, small, and as good as it says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

import napari_cellpath.models
import training
from napari_cellpath.backend.inline import InlineBackend
from napari_cellpath.core.requests import FileImage, Nucleus, NucleusRequest
from napari_cellpath.core.vocabulary import Preset
from napari_cellpath.models import read_card, read_tensors, verify
from napari_cellpath.samples import data_folder
from napari_cellpath.samples.fields import cytology_field
from napari_cellpath.systems.deeppap.predict import load_network
from training import metrics as m
from training.datasets import read_cells
from training.deeppap_recipe import Data
from training.recipe import check_recipe, read_recipe
from training.scoring import score_cells

TOP = Path(training.__file__).resolve().parents[1]
STARTER = TOP / "weights" / "deeppap-herlev"

needs_starter = pytest.mark.skipif(
    not STARTER.is_dir(), reason="not a checkout: weights/deeppap-herlev is not beside the package"
)


@needs_starter
def test_starter_is_whole_and_small() -> None:
    """Every file has the hash its model.json and the list of starters give; 24 MB at most."""
    info = verify(STARTER)
    assert info.name == "deeppap-herlev"
    assert {t.dtype for t in read_tensors(STARTER).values()} <= {
        np.dtype(np.float16), np.dtype(np.float32)
    }  # fmt: skip
    assert sum(f.stat().st_size for f in STARTER.iterdir()) < 24 * 2**20
    listed = json.loads(
        (Path(napari_cellpath.models.__file__).parent / "starters.json").read_text()
    )["deeppap-herlev"]
    for name, digest in info.files.items():
        assert listed[name] == digest
    assert set(listed) == {*info.files, "model.json"}


@needs_starter
def test_starter_says_what_it_is() -> None:
    """Its record holds data, reserve, recipe, and measures with intervals; the card says them."""
    info = verify(STARTER)
    committed = read_recipe(TOP / "training" / "recipes" / "deeppap-herlev.yaml")
    assert check_recipe(info.training["recipe"], "model.json") == committed
    assert info.reserve
    assert not set(info.reserve) & set(info.data["trained_on"])
    card = read_card(STARTER)
    assert "Research use only; not for diagnosis" in card
    assert "SqueezeNet" in card or "squeezenet" in card
    for part in ("out_of_fold", "reserve"):
        for kind in ("as_marked", "jittered_5_px"):
            report = info.metrics[part][kind]
            low, high = report["accuracy_interval"]
            assert low <= report["accuracy"] <= high
            assert str(report["auc"]) in card
    assert info.metrics["out_of_fold"]["jittered_5_px"]["accuracy"] >= 0.92
    for part in ("out_of_fold", "reserve"):
        assert info.metrics[part]["jittered_5_px"]["auc"] >= 0.965


@needs_starter
@pytest.mark.skipif(
    data_folder() is None, reason="needs the Herlev images (CELLPATH_DATA is not set)"
)
def test_starter_scores_reserve_cells_as_it_says() -> None:
    """On cells of its reserve, a few views each, most calls are right."""
    network, info = load_network(STARTER)
    data = read_cells(Data(folder="herlev"))
    records = [r for r in data.records if r.group in info.reserve][::3]
    assert len(records) >= 20
    scores = score_cells(network, records, looked_at="fast", jitter=5)[:, 1]
    truth = [r.abnormal for r in records]
    assert m.binary_counts(truth, scores, info.threshold).accuracy >= 0.8
    assert m.auc(truth, scores) >= 0.85


@needs_starter
def test_bf16_scores_of_the_starter_are_within_a_hundredth(tmp_path: Path) -> None:
    """Twenty-four drawn nuclei, ten inputs each: no score moves by more than 0.01."""
    field = cytology_field()
    path = tmp_path / "field.tif"
    tifffile.imwrite(path, field.image, photometric="rgb")
    nuclei = tuple(Nucleus(r, c, str(i)) for i, (r, c) in enumerate(field.centres))
    request = NucleusRequest(FileImage(str(path)), nuclei, str(STARTER), preset=Preset.FAST)
    scores = {
        precision: np.array(
            [call.score for call in InlineBackend("cpu", precision).submit(request).result()]
        )
        for precision in ("fp32", "bf16")
    }
    moved = np.abs(scores["fp32"] - scores["bf16"])
    assert 0 < moved.max() <= 0.01
    assert np.ptp(scores["fp32"]) > 0.2, "scores that are all alike would prove nothing"
