"""Teaching a measurer, weighing it, and a whole run with one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import training
from napari_cellpath.core.errors import RecipeError
from napari_cellpath.models import read_features, verify
from napari_cellpath.systems.deeppap.predict import load_network
from tests.training.conftest import write_herlev
from training.cells import Cells
from training.datasets import read_cells
from training.deeppap import DeepPapTrainer
from training.deeppap_measuring import LOOK, Fusion, mask_areas, outline_loss
from training.recipe import check_recipe, write_recipe
from training.scoring import score_cells


def test_what_areas_say_is_fitted_to_masks():
    """Large nuclei are abnormal here, and the second measure says nothing."""
    rng = np.random.default_rng(0)
    abnormal = rng.random(200) < 0.5
    areas = rng.normal(size=(200, 2))
    areas[:, 0] += np.where(abnormal, 2.0, -2.0)
    fusion = Fusion.fit(areas, abnormal)
    assert fusion.scale == LOOK
    assert fusion.weights[0] > 5 * abs(fusion.weights[1])
    said = areas @ np.array(fusion.weights) + fusion.bias > 0
    assert (said == abnormal).mean() > 0.95


def test_areas_of_masks_are_those_that_were_drawn(cells_folder: Path):
    """Abnormal cells were drawn with nuclei of two to three times the radius."""
    recipe = check_recipe(recipe_for(cells_folder), "the test")
    data = read_cells(recipe.data)
    trainer = DeepPapTrainer(recipe, data, Cells.load(data, 2), device="cpu")
    found = mask_areas(trainer, np.arange(len(data.records)))
    assert found[data.abnormal, 0].min() > found[~data.abnormal, 0].max()
    larger = np.exp(found[data.abnormal, 0].mean() - found[~data.abnormal, 0].mean())
    assert 3.5 < larger < 9.0


def test_a_right_outline_costs_next_to_nothing():
    wanted = torch.zeros(1, 2, 54, 54)
    wanted[0, 0, 20:30, 20:30] = 1.0
    wanted[0, 1, 10:40, 10:40] = 1.0
    right, wrong = 20.0 * (wanted - 0.5), -20.0 * (wanted - 0.5)
    assert outline_loss(right, wanted) < 0.01 < 10 < outline_loss(wrong, wanted)


def recipe_for(folder: Path, **network: object) -> dict[str, object]:
    return {
        "name": "tiny",
        "data": {"folder": str(folder)},
        "network": {"backbone": "squeezenet1_0", "weights": "none", "measures": True, **network},
        "split": {"reserve": 0.2, "folds": 2, "run_folds": 1, "seed": 1},
        "epochs": 1, "measuring_epochs": 1, "batch": 8,
        "fold_evaluation": "fast", "evaluation": "fast",
    }  # fmt: skip


def test_a_run_ends_with_a_network_that_measures(tmp_path: Path):
    """The model is the measured network, its weights are fitted, and it scores as its run did."""
    folder = write_herlev(tmp_path / "herlev", n=24)
    write_recipe(check_recipe(recipe_for(folder), "the test"), tmp_path / "recipe.yaml")
    with pytest.warns(UserWarning, match="random weights"):
        model = training.run("deeppap", tmp_path / "recipe.yaml", tmp_path / "out", device="cpu")
    info = verify(model)
    assert info.architecture == "squeezenet1_0-measured"
    network, _ = load_network(model)
    weights = next(m for m in network.head if isinstance(m, torch.nn.Conv2d)).weight
    assert (weights[1, -2:] != 0).any()
    shipped = read_features(model)
    assert shipped is not None
    assert shipped["features"].shape[1] == 514
    data = read_cells(check_recipe(recipe_for(folder), "the test").data)
    reserve = [r for r in data.records if r.group in info.reserve]
    scores = score_cells(network, reserve, looked_at="fast")[:, 1]
    assert np.isfinite(scores).all()
    right = ((scores > info.threshold) == [r.abnormal for r in reserve]).mean()
    assert right == pytest.approx(info.metrics["reserve"]["as_marked"]["accuracy"], abs=1e-4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"network": {"backbone": "convnet-t", "measures": True}}, "squeezenet1_0"),
        ({"data": {"classes": 7}}, "two classes"),
    ],
)
def test_a_recipe_that_cannot_measure_is_refused(tmp_path: Path, change: dict, words: str):
    recipe = recipe_for(tmp_path)
    for key, value in change.items():
        recipe[key] = {**recipe[key], **value}  # type: ignore[dict-item]
    with pytest.raises(RecipeError, match=words):
        check_recipe(recipe, "the test")
