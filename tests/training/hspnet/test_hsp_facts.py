"""Training facts of papers.md 3.4 and 3.10, fact 11; the forms a network takes while it learns."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from napari_cellpath.systems.hspnet.network import WideConv
from tests.training.hspnet.tissue import recipe_content
from training.hspnet.baseline import UNet
from training.hspnet.crops import CropList, Region
from training.hspnet.data import read_regions
from training.hspnet.recipe import HspRecipe
from training.hspnet.trainer import (
    HspTrainer,
    Learning,
    TapConv,
    epoch_cosine,
    learning_form,
    plain_form,
)
from training.recipe import check_recipe, read_recipe

RECIPES = Path(__file__).parents[3] / "training" / "recipes"


def blank_trainer(recipe: HspRecipe, folder: Path, crops: int = 40) -> HspTrainer:
    """A trainer that has nothing to look at."""
    side = recipe.crops.side
    region = Region(np.zeros((side, side, 3), np.uint8), np.ones((side, side), np.uint8))
    places = CropList(np.zeros((crops, 3), np.int64), np.ones(crops, np.int64))
    return HspTrainer(recipe, read_regions(recipe.data), [region], places)


def test_fact_11_two_rates_and_the_cosine(glas_folder: Path) -> None:
    """1e-3 for the encoder, ten times that for the rest at every epoch; epoch 15 halves both."""
    paper = read_recipe(RECIPES / "hspnet-paper.yaml").model_dump(mode="json")
    paper["data"] = {"layout": "glas", "folder": str(glas_folder)}
    paper["network"] = recipe_content(glas_folder)["network"]
    recipe = check_recipe(paper, "x")
    assert isinstance(recipe, HspRecipe)
    trainer = blank_trainer(recipe, glas_folder)
    module = Learning(trainer.start(np.arange(1), 0).network)
    optimiser = trainer.optimiser(module)
    slow, fast = optimiser.param_groups
    assert isinstance(optimiser, torch.optim.SGD)
    assert (slow["lr"], fast["lr"]) == (1e-3, 1e-2)
    assert (slow["momentum"], slow["weight_decay"]) == (0.9, 5e-4)
    encoder = {id(p) for p in module.network.encoder.parameters()}
    assert {id(p) for p in slow["params"]} == encoder
    assert len(slow["params"]) + len(fast["params"]) == len(list(module.parameters()))
    factor = trainer.factor(100, 30)
    assert factor(0) == 1.0
    assert factor(15 * 100) == pytest.approx(0.5)
    assert factor(15 * 100 + 99) == pytest.approx(0.5)
    assert 1e-3 * factor(29 * 100) == pytest.approx(2.739e-6, rel=1e-3)


def test_the_papers_recipe_is_the_papers() -> None:
    """Batch, epochs, crops, no augmentation, tiles every 100 pixels blended by rbf."""
    r = read_recipe(RECIPES / "hspnet-paper.yaml")
    assert isinstance(r, HspRecipe)
    assert (r.batch, r.epochs, r.crops.side, r.crops.stride, r.crops.foreground) == (
        16, 30, 400, 100, 0.2
    )  # fmt: skip
    assert (r.augmentation.turns, r.loss.name, str(r.tiles.blend)) == (
        "none", "cross_entropy", "rbf"
    )  # fmt: skip
    assert r.network.architecture == "hspnet-resnet101"


def test_batches_are_whole(glas_folder: Path) -> None:
    """A last batch that is not full is left out; too few crops are repeated, never one alone."""
    recipe = check_recipe(recipe_content(glas_folder, crops={"per_epoch": 0}, batch=16), "x")
    trainer = blank_trainer(recipe, glas_folder, crops=40)  # type: ignore[arg-type]
    assert [len(b) for b in trainer.batches(np.arange(1), 0, 0)] == [16, 16]
    few = blank_trainer(recipe, glas_folder, crops=5)  # type: ignore[arg-type]
    (batch,) = few.batches(np.arange(1), 0, 0)
    assert len(batch) == 16
    assert set(batch.tolist()) == set(range(5))


def test_a_cosine_by_epochs_is_flat_within_one() -> None:
    """And ends at nought."""
    factor = epoch_cosine(7, 4)
    assert len({factor(step) for step in range(7)}) == 1
    assert factor(28) == pytest.approx(0.0)


@pytest.mark.parametrize(("height", "width", "rate"), [(20, 30, 6), (13, 13, 18), (5, 40, 12)])
def test_the_form_that_learns_is_the_same_convolution(height: int, width: int, rate: int) -> None:
    """Values and gradients, also where a dilation reaches beyond the map."""
    torch.manual_seed(0)
    plain = WideConv(6, 4, rate, clip=False)
    other = copy.deepcopy(plain)
    learning_form(nn.Sequential(other))
    assert type(other) is TapConv
    x = torch.randn(2, 6, height, width)
    weight = torch.randn(2, 4, height, width)
    for conv in (plain, other):
        (conv(x) * weight).sum().backward()
    assert torch.allclose(plain(x), other(x), atol=1e-5)
    assert torch.allclose(plain.weight.grad, other.weight.grad, atol=1e-3)  # type: ignore[arg-type]
    plain_form(nn.Sequential(other))
    assert type(other) is WideConv


def test_what_is_kept_has_its_plain_form(finished: Path, glas_folder: Path) -> None:
    """A trained network computes what its model folder computes."""
    recipe = check_recipe(recipe_content(glas_folder), "x")
    trainer = blank_trainer(recipe, glas_folder)  # type: ignore[arg-type]
    network, _ = trainer.fit(np.arange(1), 0, "x", None)
    assert not any(isinstance(layer, TapConv) for layer in network.modules())


def test_a_batch_norm_that_is_still_keeps_its_statistics() -> None:
    """Fine-tuning does not renormalise by a few corrected regions."""
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    module = Learning(network, still=True)
    module.train()
    before = network[1].running_mean.clone()  # type: ignore[union-attr, operator]
    module(torch.randn(4, 3, 8, 8) + 5)
    assert (network[1].running_mean == before).all()


def test_the_baseline_takes_any_size() -> None:
    """As large as the published U-Net at width 1; odd sizes come back as they were."""
    network = UNet(3, width=0.0625).eval()
    with torch.inference_mode():
        assert network(torch.zeros(1, 3, 45, 70)).shape == (1, 3, 45, 70)
    whole = sum(p.numel() for p in UNet(5).parameters())
    assert whole == pytest.approx(31_030_000, rel=0.12)


def test_starter_and_baseline_are_trained_the_same_way() -> None:
    """Nothing but the network differs between their recipes."""
    starter, baseline = (
        read_recipe(RECIPES / f"{name}-glas-colon.yaml").model_dump(mode="json")
        for name in ("hspnet", "unet")
    )
    for recipe in (starter, baseline):
        for key in ("name", "notes", "network"):
            del recipe[key]
        del recipe["split"]["run_folds"]  # how often it is measured, not how it is trained
    assert json.dumps(starter) == json.dumps(baseline)
