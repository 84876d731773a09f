"""A whole run of HSP-Net on synthetic sections, and measuring what came out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import training
from napari_cellpath.backend import connect
from napari_cellpath.core.errors import JobCancelledError, RecipeError
from napari_cellpath.core.requests import FileImage, SegmentRequest
from napari_cellpath.models import read_card, read_features, read_info, verify
from napari_cellpath.slides.region_store import RegionStore
from napari_cellpath.systems.loading import load_network
from tests.training.hspnet.tissue import TILE, recipe_content, write_glas
from training.hspnet.crops import load_regions
from training.hspnet.data import read_regions
from training.hspnet.evaluation import tiling_of_model
from training.hspnet.recipe import HspData
from training.hspnet.scoring import Tiling, score_regions
from training.recipe import check_recipe
from training.region_metrics import pixel_table


@pytest.fixture(scope="module")
def model(finished: Path) -> Path:
    return finished / "model" / "tiny"


def test_a_run_leaves_a_model_that_says_what_it_is(model: Path, finished: Path) -> None:
    """Classes, tile, scale, reserve, measures and card; features of every class."""
    info = verify(model)
    assert info.class_names == ("background", "benign gland", "malignant gland")
    assert info.input["tile"] == TILE
    assert info.input["stride"] == 32
    assert info.mpp == 0.62
    assert len(info.reserve) == 1
    assert set(info.reserve).isdisjoint(info.data["trained_on"])
    measured = info.metrics["reserve"]["regions"]
    assert measured["n"] == 2
    assert measured["foreground_dice"] > 0.7
    card = read_card(model)
    assert "Colon, not cervix" in card
    assert "Sirinukunwattana" in card
    assert "CIN" not in " ".join(info.class_names)
    features = read_features(model)
    assert features is not None
    assert set(np.unique(features["targets"])) == {0, 1, 2}
    record = json.loads((finished / "run.json").read_text())
    assert len(record["history"]) == 18


def test_evaluation_is_of_unseen_patients_alone(model: Path, tmp_path: Path) -> None:
    """New patients are measured whole; the folder it was trained on is refused, by content too."""
    new = write_glas(tmp_path / "glas", n=4, seed=9, first=50)
    report = training.evaluate("hspnet", model, new, tmp_path / "r.json", device="cpu")
    assert report["n"] == 4
    assert report["foreground_dice"] > 0.7
    assert report["paper"]["ignore_background"]["classes_averaged"] == 2
    assert json.loads((tmp_path / "r.json").read_text())["confusion"] == report["confusion"]
    info = read_info(model)
    renamed = write_glas(tmp_path / "renamed", first=70)
    with pytest.raises(RecipeError, match="were in the training"):
        training.evaluate("hspnet", model, renamed, device="cpu")
    # by content: the two images of the reserve's patient
    rest = training.evaluate("hspnet", model, renamed, part="held-out", device="cpu")
    assert rest["n"] == 2
    assert rest["dice"] == info.metrics["reserve"]["regions"]["dice"]


def test_what_is_measured_is_what_is_predicted(
    model: Path, glas_folder: Path, tmp_path: Path
) -> None:
    """Prediction of a whole image gives the classes that evaluation counts, pixel by pixel."""
    data = read_regions(HspData(layout="glas", folder=str(glas_folder)))
    network, info = load_network(model)
    regions = load_regions(data, [0], TILE, info.mpp)
    image = FileImage(str(data.records[0].image), 0.62)
    store = tmp_path / "o.ome.zarr"
    backend = connect(inline=True, device="cpu", precision="fp32")  # as measures are taken
    backend.submit(SegmentRequest(image, str(model), str(store))).result()
    backend.close()
    called = RegionStore.open(store).levels[0][:]
    scored = score_regions(network, regions, 3, tiling_of_model(info))
    assert called.shape == regions[0].classes.shape
    assert (pixel_table(regions[0].classes, called, 3) == scored.tables[0]).all()


def test_small_pieces_can_be_left_out(model: Path, tmp_path: Path) -> None:
    """A least lesion larger than every gland leaves background alone."""
    new = write_glas(tmp_path / "glas", n=2, seed=9, first=50)
    report = training.evaluate("hspnet", model, new, least_lesion_mm2=1.0, device="cpu")
    table = np.array(report["confusion"])
    assert table[:, 1:].sum() == 0
    assert report["foreground_dice"] == 0.0


def test_a_region_scores_the_same_alone_and_among_others(model: Path, glas_folder: Path) -> None:
    """Confusion matrices and drawn pixels do not depend on the company."""
    data = read_regions(HspData(layout="glas", folder=str(glas_folder)))
    network, info = load_network(model)
    regions = load_regions(data, range(3), TILE, info.mpp)
    together = score_regions(network, regions, 3, Tiling(TILE, 32))
    alone = score_regions(network, regions[1:2], 3, Tiling(TILE, 32))
    assert (together.tables[1] == alone.tables[0]).all()
    assert np.abs(together.probabilities[1] - alone.probabilities[0]).max() < 1e-6


def test_a_stopped_run_goes_on_to_the_same_weights(glas_folder: Path, tmp_path: Path) -> None:
    """Stopped in the final training and resumed: the same model, bit for bit."""
    recipe = check_recipe(
        recipe_content(glas_folder, epochs=2, split={"run_folds": 0, "reserve": 0.0}), "x"
    )
    whole = training.run("hspnet", recipe, tmp_path / "whole", device="cpu")
    asked = iter(range(100))
    with pytest.raises(JobCancelledError):
        training.run(
            "hspnet", recipe, tmp_path / "cut", device="cpu", should_stop=lambda: next(asked) == 3
        )
    again = training.run("hspnet", recipe, tmp_path / "cut", resume=True, device="cpu")
    one, two = verify(whole).files, verify(again).files
    assert one["model.safetensors"] == two["model.safetensors"]


def test_a_baseline_makes_no_model(glas_folder: Path, tmp_path: Path) -> None:
    """A U-Net is refused where a model would come out, before a folder is made."""
    content = recipe_content(
        glas_folder, network={"architecture": "unet", "arguments": {"width": 0.0625}}
    )
    with pytest.raises(RecipeError, match="makes no model"):
        training.run("hspnet", check_recipe(content, "x"), tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()


def test_the_time_of_a_run_is_told(glas_folder: Path) -> None:
    """An estimate is a positive number of seconds and grows with the epochs."""
    few = check_recipe(recipe_content(glas_folder, epochs=1), "x")
    many = check_recipe(recipe_content(glas_folder, epochs=200), "x")
    assert 0 < training.estimate_seconds(few) < training.estimate_seconds(many)
