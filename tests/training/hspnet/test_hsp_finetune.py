"""Painted corrections teach a parent that is blind to one class, fast and thoroughly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import training
from napari_cellpath.core.annotations import Part
from napari_cellpath.core.errors import RecipeError
from napari_cellpath.models import read_card, read_features, read_info, read_tensors, verify
from napari_cellpath.project import Project
from tests.support.blinding import write_blinded_to_tissue
from tests.training.hspnet.projects import PaintedProject, make_painted
from training.finetune_data import read_sides
from training.hspnet.features import coarse_classes, pixel_features
from training.hspnet.losses import IGNORE
from training.recipe import CommonRecipe, check_recipe


def recipe_for(parent: Path, project: PaintedProject, preset: str, **changes: Any) -> CommonRecipe:
    made = training.finetune_recipe(parent, project.folder, preset, "child")
    content = made.model_dump(mode="json") | {"threads": 1}
    for key, value in changes.items():
        old = content.get(key)
        content[key] = {**old, **value} if isinstance(old, dict) else value
    return check_recipe(content, "the test")


@pytest.fixture(scope="module")
def blinded(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A parent whose last convolution has never heard of malignant glands."""
    folder = tmp_path_factory.mktemp("models") / "blinded"
    return write_blinded_to_tissue(finished / "model" / "tiny", "malignant gland", folder)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> PaintedProject:
    """Three regions corrected, of which two are malignant; ten slides frozen."""
    folder = tmp_path_factory.mktemp("projects") / "painted.cellpath"
    return make_painted(folder, {Part.TRAIN: 3, Part.FROZEN: 10}, kinds=(2, 1), seed=5)


@pytest.fixture(scope="module")
def tuned(blinded: Path, project: PaintedProject, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one finished fast run."""
    out = tmp_path_factory.mktemp("runs") / "fast"
    training.run("hspnet", recipe_for(blinded, project, "fast"), out, device="cpu")
    return out


def test_three_painted_regions_teach_the_missing_class(tuned: Path) -> None:
    """The paired interval of the gain on slides never seen excludes 0; the gate lets it pass."""
    report = json.loads((tuned / "report.json").read_text())
    parent, child = report["models"]["parent"], report["models"]["child"]
    assert parent["by_class"]["malignant gland"]["dice"] < 0.2
    assert child["by_class"]["malignant gland"]["dice"] > 0.6
    low, high = report["paired"]["dice"]["interval"]
    assert 0 < low < high
    assert report["paired"]["resampled"] == "groups"
    assert report["gate"]["passed"], report["gate"]["why"]
    assert report["n"] == 10
    assert report["changed"]
    assert set(report["pictures"]) == {"roc.png", "reliability.png", "confusion.png"}
    assert all((tuned / name).is_file() for name in report["pictures"])
    total = np.array(child["confusion"]).sum()
    assert total == child["pixels"] == parent["pixels"]


def test_only_the_last_convolution_has_changed(tuned: Path, blinded: Path) -> None:
    """The child is its parent but for the end; it says what taught it and carries both's places."""
    model = tuned / "model" / "child"
    info = verify(model)
    old, new = read_tensors(blinded), read_tensors(model)
    differing = {k for k in old if not np.array_equal(old[k], new[k])}
    assert differing
    assert all(k.startswith("head.4.") for k in differing)
    assert info.parent is not None
    assert info.parent.startswith("blinded@")
    assert info.input == read_info(blinded).input
    features = read_features(model)
    assert features is not None
    assert set(np.unique(features["targets"])) == {0, 1, 2}
    card = read_card(model)
    assert "3 regions of 'painted" in card
    assert "mean Dice" in card


def test_the_project_knows_its_new_model(tuned: Path, project: PaintedProject) -> None:
    """It lies in the project with its run; frozen slides are taken from now on."""
    with Project.open(project.folder, read_only=True) as opened:
        runs = list(opened.state.runs.values())
        used = [g for g, f in opened.state.groups.items() if f.get("used")]
    assert runs
    assert len(used) == 13
    assert (project.folder / "models" / "child" / "1" / "model.json").is_file()


def test_the_thorough_way_learns_too(
    blinded: Path, project: PaintedProject, tmp_path: Path
) -> None:
    """Every layer moves a little; the frozen slides are not called worse."""
    recipe = recipe_for(
        blinded, project, "thorough", epochs=8, crops={"per_epoch": 16, "stride": 32},
        optimiser={"lr_trunk": 2e-4, "lr_head": 1e-2, "ema": 0.5},
    )  # fmt: skip
    model = training.run("hspnet", recipe, tmp_path / "out", device="cpu")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    parent, child = report["models"]["parent"], report["models"]["child"]
    assert child["dice"] > parent["dice"]
    old, new = read_tensors(blinded), read_tensors(model)
    assert not np.allclose(old["encoder.features.0.weight"], new["encoder.features.0.weight"], 0)
    kept = [k for k in old if k.endswith("running_mean")]
    assert all(np.allclose(old[k], new[k], atol=1e-3) for k in kept)


def test_validation_regions_choose_and_calibrate(blinded: Path, tmp_path: Path) -> None:
    """With five validation slides the replay is chosen on them and a temperature is fitted."""
    made = make_painted(
        tmp_path / "v.cellpath",
        {Part.TRAIN: 2, Part.VALIDATION: 5, Part.FROZEN: 2}, kinds=(2, 1), seed=6,
    )  # fmt: skip
    recipe = recipe_for(blinded, made, "fast", epochs=10)
    model = training.run("hspnet", recipe, tmp_path / "out", device="cpu")
    info = read_info(model)
    assert len(info.training["learnt"]["trials"]) == 3
    assert info.calibration is not None
    assert info.calibration.groups == 5
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["paired"]["resampled"] == "regions"
    assert report["models"]["child"]["calibrated"]["brier"] is not None


def test_a_slide_that_taught_is_not_measured_on(
    tuned: Path, project: PaintedProject, blinded: Path
) -> None:
    """Evaluation on a project takes its frozen part; a frozen slide the parent saw is refused."""
    child = tuned / "model" / "child"
    report = training.evaluate("hspnet", child, project.folder, device="cpu")
    assert report["part"] == "frozen"
    assert report["n"] == 10
    assert (
        report["dice"] == json.loads((tuned / "report.json").read_text())["models"]["child"]["dice"]
    )
    with pytest.raises(RecipeError, match="were in the training"):
        training.evaluate("hspnet", child, project.folder, part=None, groups=["slide-5-00"])
    sides = read_sides(recipe_for(blinded, project, "fast"), read_info(blinded))
    assert (len(sides.train), len(sides.frozen)) == (3, 10)


def test_the_time_it_takes_is_told(blinded: Path, project: PaintedProject) -> None:
    """Both presets; more epochs take longer."""
    for preset in ("fast", "thorough"):
        once, often = (
            training.estimate_seconds(recipe_for(blinded, project, preset, epochs=n))
            for n in (1, 1000)
        )
        assert 0 < once < often


def test_a_place_is_learnt_from_where_its_pixels_agree() -> None:
    """Sixteen pixels of one class; what is ignored or mixed is left out."""
    classes = np.zeros((8, 10), np.uint8)
    classes[:4, 4:8] = 1
    classes[4, 0] = 1
    classes[7, 7] = IGNORE
    assert coarse_classes(classes).tolist() == [[0, 1], [IGNORE, IGNORE]]


def test_features_are_those_the_network_sees(finished: Path, glas_folder: Path) -> None:
    """The last convolution of a place's features gives the network's own logits there."""
    import torch

    from napari_cellpath.systems.loading import load_network
    from tests.training.hspnet.tissue import TILE
    from training.hspnet.crops import load_regions
    from training.hspnet.data import read_regions
    from training.hspnet.recipe import HspData
    from training.hspnet.scoring import Tiling
    from training.trunk_features import through_head

    network, info = load_network(finished / "model" / "tiny")
    data = read_regions(HspData(layout="glas", folder=str(glas_folder)))
    (region,) = load_regions(data, [0], TILE, info.mpp)
    region = type(region)(region.pixels[:TILE, :TILE].copy(), region.classes[:TILE, :TILE].copy())
    drawn = pixel_features(network, [region], Tiling(TILE, TILE), per_class=10**6)
    pixels = torch.from_numpy(region.pixels).movedim(2, 0)[None]
    with torch.inference_mode():
        maps = network.head[-1](network.features(network.normalise(pixels)))[0]
        logits = through_head(network.head[-1], torch.from_numpy(drawn.features))
    coarse = coarse_classes(region.classes)
    wanted = maps[:, torch.from_numpy(coarse != IGNORE)].T
    assert torch.allclose(logits, wanted, atol=1e-4)
    assert drawn.targets.tolist() == coarse[coarse != IGNORE].tolist()
