"""The starter hspnet-glas-colon is whole, small, carded as colon, and as good as it says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import napari_cellpath.models
import training
from napari_cellpath.models import read_card, read_features, read_tensors, verify
from napari_cellpath.samples.data import data_folder
from napari_cellpath.systems.loading import load_network
from training import region_metrics as rm
from training.hspnet.crops import load_regions
from training.hspnet.data import read_regions
from training.hspnet.evaluation import tiling_of_model
from training.hspnet.recipe import HspData
from training.hspnet.scoring import Tiling, score_regions
from training.recipe import check_recipe, read_recipe

TOP = Path(training.__file__).resolve().parents[1]
STARTER = TOP / "weights" / "hspnet-glas-colon"
pytestmark = pytest.mark.skipif(
    not STARTER.is_dir(), reason=f"not a checkout: weights/{STARTER.name} is not beside the package"
)


def test_it_is_whole_and_small() -> None:
    """Every file has the hash its model.json and the list of starters give; 10 MB at most."""
    info = verify(STARTER)
    assert info.name == "hspnet-glas-colon"
    tensors = read_tensors(STARTER)
    whole = [k for k, t in tensors.items() if t.dtype == np.float32]
    assert all(k.endswith("running_var") for k in whole), "variances alone may be too large"
    assert sum(f.stat().st_size for f in STARTER.iterdir()) < 10 * 2**20
    listed = json.loads(
        (Path(napari_cellpath.models.__file__).parent / "starters.json").read_text()
    )["hspnet-glas-colon"]
    assert set(listed) == {*info.files, "model.json"}
    assert all(listed[name] == digest for name, digest in info.files.items())
    features = read_features(STARTER)
    assert features is not None
    counts = np.bincount(features["targets"])
    assert counts.min() > 0.9 * counts.max()


def test_it_says_what_it_is() -> None:
    """Colon, never CIN; its recipe is the committed one; the card has the measured numbers."""
    info = verify(STARTER)
    committed = read_recipe(TOP / "training" / "recipes" / "hspnet-glas-colon.yaml")
    assert check_recipe(info.training["recipe"], "model.json") == committed
    assert info.class_names == ("background", "benign gland", "malignant gland")
    assert info.mpp == 0.62
    assert set(info.reserve) == set(committed.split.reserve_groups)  # type: ignore[attr-defined]
    assert not set(info.reserve) & set(info.data["trained_on"])
    card = read_card(STARTER)
    for words in ("Research use only; not for diagnosis", "Colon, not cervix", "Sirinukunwattana"):
        assert words in card
    report = info.metrics["reserve"]["regions"]
    assert str(report["dice"]) in card
    assert report["dice"] >= 0.60
    assert report["foreground_dice"] >= 0.80


@pytest.mark.skipif(
    data_folder() is None or not (data_folder() / "glas" / "labels.csv").is_file(),  # type: ignore[operator]
    reason="needs the gland images: set CELLPATH_DATA to the folder that holds glas/",
)
def test_it_finds_glands_of_its_reserve() -> None:
    """On three images of patients it has never seen, in tiles side by side."""
    network, info = load_network(STARTER)
    data = read_regions(HspData(layout="glas", folder="glas"))
    rows = [i for i, r in enumerate(data.records) if r.group in info.reserve][::5]
    tiling = tiling_of_model(info)
    regions = load_regions(data, rows, tiling.side, info.mpp)
    scores = score_regions(network, regions, 3, Tiling(tiling.side, tiling.side))
    assert len(rows) == 3
    assert rm.foreground_dice(scores.tables.sum(axis=0)) > 0.7
