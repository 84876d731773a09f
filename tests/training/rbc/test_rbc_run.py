"""A run of RBC from recipe to model folder, and what the model says of itself."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import training
from napari_cellpath.core.errors import JobCancelledError, RecipeError
from napari_cellpath.core.requests import (
    CellBox,
    DetectRegionsRequest,
    FileImage,
    LabelRegionsRequest,
)
from napari_cellpath.core.vocabulary import Average
from napari_cellpath.models import read_features, read_info, read_tensors, verify
from napari_cellpath.systems.loading import load_network
from napari_cellpath.systems.rbc.boxes import RegionInput
from napari_cellpath.systems.rbc.network import LabelHeads
from napari_cellpath.systems.rbc.verdict import read_verdict
from tests.training.rbc.smears import recipe_content, write_smears
from training.rbc.chula import read_chula
from training.rbc.detector import DetectorTrainer, scaled, truth_of, varied
from training.rbc.evaluation import probabilities_of
from training.rbc.heads import HeadsOnFeatures
from training.rbc.patches import RbcPatches, cut_patches, random_views
from training.rbc.recipe import RbcAugmentation, RbcDetector, RbcRecipe
from training.rbc.table import Field
from training.rbc.trainer import PatchNetwork, input_of
from training.recipe import check_recipe, read_recipe
from training.splits import make_split

pytestmark = pytest.mark.filterwarnings("ignore:.*random weights.*")


def recipe_of(folder: Path, **sections: object) -> RbcRecipe:
    made = check_recipe(recipe_content(folder, **sections), "the test")
    assert isinstance(made, RbcRecipe)
    return made


def test_the_folder_holds_all_three_stages(finished: tuple[Path, Path], smears: Path) -> None:
    out, folder = finished
    info = verify(folder)
    assert info.architecture == "rbc-cascade"
    assert len(info.classes) == 12
    assert [c.name for c in info.classes if not c.abnormal] == ["normal"]
    assert len(info.input["thresholds"]) == 12
    names = read_tensors(folder)
    for part in ("detector.", "trunk.", "heads.", "booster."):
        assert any(n.startswith(part) for n in names)
    assert read_verdict(folder).booster is not None
    for name in ("out_of_fold", "reserve"):
        assert {"cells", "regions", "multi"} <= set(info.metrics[name])
    assert set(info.metrics["reserve"]["detector"]) >= {"ap", "ap_step", "watershed"}
    data = read_chula(smears)
    assert set(info.reserve).isdisjoint(info.data["trained_on"])
    assert set(info.reserve) | set(info.data["trained_on"]) == set(data.groups)
    card = (folder / "card.md").read_text()
    assert "normal" in card
    assert "Naruenatthanaset" in card
    assert "no sickle type" in card
    assert json.loads((out / "run.json").read_text())["sha256"] == info.sha256


def test_it_tells_colours_apart(finished: tuple[Path, Path]) -> None:
    """Cells of another colour are told from the rest, by heads that never saw their fields."""
    found = read_info(finished[1]).metrics["out_of_fold"]["cells"]["by_type"]
    assert found["target"]["n"] > 5
    assert found["target"]["auc"] > 0.9


def test_features_carry_every_label(finished: tuple[Path, Path]) -> None:
    shipped = read_features(finished[1])
    assert shipped is not None
    n = len(shipped["features"])
    assert shipped["features"].shape == (n, 512)
    assert shipped["targets"].shape == (n, 12)
    assert set(np.unique(shipped["targets"])) == {-1, 0, 1}
    assert shipped["targets"].dtype == shipped["verdicts"].dtype == np.int8
    partial = (shipped["targets"] < 0).any(axis=1)
    assert not partial[: n - partial.sum()].any()  # the fully labelled come first


@pytest.mark.parametrize("average", [Average.NONE, Average.D4])
def test_training_scores_as_the_viewer_does(
    finished: tuple[Path, Path], smears: Path, average: Average
) -> None:
    """Boxes scored for a report and boxes predicted get the same probabilities."""
    from napari_cellpath.backend.inline import InlineBackend

    folder = finished[1]
    data = read_chula(smears)
    image = data.records[0].image
    records = [r for r in data.records if r.image == image]
    network, info = load_network(folder)
    wanted = replace(RegionInput.of(info.input, "x"), average=average)
    given = probabilities_of(network, records, wanted)
    boxes = tuple(CellBox(*r.box) for r in records)
    backend = InlineBackend("cpu", "fp32")  # as measures are taken
    request = LabelRegionsRequest(FileImage(str(image)), boxes, str(folder), average=average)
    calls = backend.submit(request).result()
    np.testing.assert_allclose([c.probabilities for c in calls], given, atol=1e-5)
    found = backend.submit(DetectRegionsRequest(FileImage(str(image)), str(folder))).result()
    assert all(f.detection >= 0.05 for f in found)


def test_evaluation_on_the_reserve_and_on_other_fields(
    finished: tuple[Path, Path], smears: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match="were in the training"):
        training.evaluate("rbc", finished[1], smears)
    report = training.evaluate("rbc", finished[1], smears, tmp_path / "r.json", part="reserve")
    reserve = read_info(finished[1]).metrics["reserve"]
    assert report["cells"]["n"] == reserve["cells"]["n"]
    # Patches are kept in whole grey levels while a model is trained.
    assert report["cells"]["macro_auc"] == pytest.approx(reserve["cells"]["macro_auc"], abs=0.02)
    assert report["detector"]["ap"] == pytest.approx(reserve["detector"]["ap"], abs=0.01)
    assert json.loads((tmp_path / "r.json").read_text()) == report
    others = write_smears(tmp_path / "others", blocks=2, seed=5)
    whole = training.evaluate("rbc", finished[1], others)
    assert whole["part"] == "whole folder"
    assert not whole["trained_on_these"]
    assert set(whole["summary"]) == {"detector_ap", "watershed_ap", "cells", "multi"}
    assert whole["detector_regions"]["boxes"] < whole["detector"]["boxes"]
    assert whole["detector"]["watershed"]["ap"] > 0.5
    shutil.copytree(smears, tmp_path / "renamed")  # known by content under another name
    with pytest.raises(RecipeError, match="were in the training"):
        training.evaluate("rbc", finished[1], tmp_path / "renamed")


def test_trunk_and_heads_learn_together_and_go_on(smears: Path, tmp_path: Path) -> None:
    """Stopped and resumed, a run ends with the weights of one that was not."""
    changes = {
        "learning": "trunk", "epochs": 2, "split": {"run_folds": 0}, "batch": 32,
        "detector": {"architecture": "none"}, "augmentation": {"rotation": "any"},
    }  # fmt: skip
    recipe = recipe_of(smears, **changes)
    whole = training.run("rbc", recipe, tmp_path / "whole", device="cpu")
    asked = 0

    def after_a_few() -> bool:
        nonlocal asked
        asked += 1
        return asked > 5

    with pytest.raises(JobCancelledError):
        training.run("rbc", recipe, tmp_path / "cut", device="cpu", should_stop=after_a_few)
    again = training.run("rbc", recipe, tmp_path / "cut", device="cpu", resume=True)
    one, two = read_tensors(whole), read_tensors(again)
    assert not any(n.startswith(("detector.", "booster.")) for n in one)
    for name, values in one.items():
        np.testing.assert_array_equal(values, two[name])
    info = read_info(whole)
    assert info.arguments["detector"] is None
    assert info.calibration is None
    assert info.input["thresholds"] == [0.5] * 12


def test_frozen_features_are_computed_once(smears: Path) -> None:
    """Facts 10 and 12: the trunk never changes; a row is judged by heads not fitted to it."""
    recipe = recipe_of(smears, epochs=40)
    data = read_chula(smears)
    patches = RbcPatches.load(data, input_of(recipe))
    trainer = HeadsOnFeatures(recipe, data, patches, device="cpu", say=lambda _: None)
    plan = make_split(data.groups, data.labels.tolist(), reserve=0.0, folds=2, seed=0)
    held, poison = plan.folds[0], int(plan.folds[0][0])
    with torch.no_grad():
        before = trainer.features(trainer.start(held, 0).network)
    assert before is trainer.features(None)
    # A feature that only one row has, with a label that nothing else explains.
    before[poison] = 0
    before[poison, 0, 7] = 50.0
    patches.targets[poison] = torch.tensor([0] * 7 + [1] + [0] * 4, dtype=torch.int8)
    clean, _ = trainer.fit(plan.training(0), 0, "without it", None)
    spoilt, _ = trainer.fit(plan.development, 0, "with it", None)
    with torch.inference_mode():
        seen = before[poison]
        assert clean.head(seen).sigmoid()[0, 7] < 0.3 < 0.7 < spoilt.head(seen).sigmoid()[0, 7]
        assert all(
            torch.equal(a, b)
            for a, b in zip(clean.trunk.parameters(), spoilt.trunk.parameters(), strict=True)
        )
    assert not any(p.requires_grad for p in clean.trunk.parameters())


def test_patience_ends_a_fit(smears: Path, tmp_path: Path) -> None:
    recipe = recipe_of(smears, epochs=300, patience=2, optimiser={"lr_head": 0.5})
    data = read_chula(write_smears(tmp_path / "many", blocks=12, per_block=1, seed=3))
    patches = RbcPatches.load(data, input_of(recipe))
    trainer = HeadsOnFeatures(recipe, data, patches, device="cpu", say=lambda _: None)
    _, fit = trainer.fit(np.arange(len(data.records)), 0, "final", tmp_path / "c")
    assert fit.epoch < 300
    assert len(fit.history) == fit.epoch


def test_a_budget_shrinks_the_run(smears: Path, tmp_path: Path) -> None:
    recipe = recipe_of(smears, epochs=900, detector={"iterations": 5000}, split={"run_folds": 0})
    lines: list[str] = []
    training.run("rbc", recipe, tmp_path / "out", device="cpu", budget=2, on_progress=lines.append)
    assert json.loads((tmp_path / "out" / "used.json").read_text())["epochs"] < 900
    assert json.loads((tmp_path / "out" / "detector.json").read_text())["iterations"] < 5000


def test_views_keep_what_is_there() -> None:
    pictures = torch.randint(0, 255, (5, 3, 32, 32), dtype=torch.uint8)
    still = RbcAugmentation(
        rotation="none", mirror=False, scale=0, shift=0, gain=0, colour=0, contrast=0, offset=0
    )
    seen = random_views(pictures, still, torch.Generator().manual_seed(0))
    np.testing.assert_allclose(seen, pictures / 255, atol=1e-5)
    turned = random_views(pictures, RbcAugmentation(), torch.Generator().manual_seed(0))
    assert turned.shape == pictures.shape
    assert turned.min() >= 0
    assert turned.max() <= 1


def test_boxes_move_with_the_image() -> None:
    """Whatever the mirror or the turn, the bright square stays in its box."""
    settings = RbcDetector(gain=0.0)
    for seed in range(8):
        image = torch.zeros(3, 20, 30)
        image[:, 4:9, 21:28] = 1
        rng = torch.Generator().manual_seed(seed)
        seen, boxes = varied(image, torch.tensor([[4.0, 21.0, 9.0, 28.0]]), settings, rng)
        r0, c0, r1, c1 = (int(v) for v in boxes[0])
        assert seen[:, r0:r1, c0:c1].min() == 1
        assert seen.sum() == 3 * 35


def test_detector_truth_and_scale() -> None:
    field = Field(Path("x"), "g", ((10, 10, 20, 20), (18, 18, 30, 30), (50, 50, 60, 60)))
    assert truth_of(field, "regions").tolist() == [[10, 10, 30, 30], [50, 50, 60, 60]]
    inside = Field(Path("x"), "g", ((10, 12, 20, 22),), (5, 10, 40, 40))
    assert truth_of(inside, "cells").tolist() == [[5, 2, 15, 12]]
    assert scaled(np.zeros((40, 60, 3), np.uint8), 0.5).shape == (3, 20, 30)


def test_detector_learns_a_little(smears: Path, tmp_path: Path) -> None:
    """Gradients of single images add up to a batch; the loss falls; Keras' decay is a rate."""
    data = read_chula(smears)
    recipe = recipe_of(smears, detector={
        "iterations": 12, "batch": 4, "optimiser": "sgd", "lr": 0.01, "backbone_share": 1.0,
        "schedule": "constant", "warmup": 0, "decay": 1e-6, "decay_mode": "rate", "ema": 0.0,
    })  # fmt: skip
    trainer = DetectorTrainer(recipe, data.fields[:8], "cpu", lambda _: None)
    assert trainer._factor()(1_000_000) == pytest.approx(0.5)
    _, history = trainer.run(tmp_path / "c")
    assert len(history) == 6
    assert history[-1]["loss"] < history[0]["loss"]


def test_wrong_recipes_are_refused(smears: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="arguments of squeezenet-fpn"):
        training.run(
            "rbc", recipe_of(smears, detector={"arguments": {"colour": 1}}), tmp_path / "o"
        )
    assert not (tmp_path / "o").exists()
    with pytest.raises(RecipeError, match="all off"):
        recipe_of(smears, regions={"single": False, "multi": False, "cells": False})
    with pytest.raises(RecipeError, match="needs the section finetune"):
        recipe_of(smears, data={"layout": "project"})


def test_committed_recipes_are_whole() -> None:
    for name in ("rbc-chula", "rbc-paper"):
        path = Path(training.__file__).parent / "recipes" / f"{name}.yaml"
        made = read_recipe(path)
        assert isinstance(made, RbcRecipe)
        assert made.name == name
        assert "lr_head" in path.read_text()
        assert made.split.mode == "group"


def test_heads_of_no_box() -> None:
    network = PatchNetwork(torch.nn.Flatten(), LabelHeads(12, 6, 4))
    assert network(torch.zeros(0, 3, 2, 2)).shape == (0, 6)
    assert cut_patches([], RegionInput()).shape == (0, 3, 224, 224)
