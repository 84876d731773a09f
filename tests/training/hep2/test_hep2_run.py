"""A run of HEp-2 from recipe to model folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import training
from napari_cellpath.core.errors import CellpathError, JobCancelledError, RecipeError
from napari_cellpath.core.requests import CellBox, FileImage, PatternRequest
from napari_cellpath.core.vocabulary import Average, Channel
from napari_cellpath.models import read_card, read_features, read_tensors, verify
from napari_cellpath.models.format import FEATURES
from napari_cellpath.systems.hep2.cells import CellInput
from napari_cellpath.systems.hep2.predict import PatternPredictor
from napari_cellpath.systems.loading import load_network
from napari_cellpath.systems.protocol import make_plan
from tests.training.hep2.cells import SIDE, recipe_content, write_cells
from training.hep2.augment import random_views, turned
from training.hep2.data import crop_cells, read_cells
from training.hep2.recipe import Hep2Augmentation, Hep2Data, Hep2Recipe
from training.hep2.scoring import score_cells
from training.hep2.trainer import Hep2Cells, Hep2Trainer
from training.progress import read_progress
from training.recipe import check_recipe, read_recipe


def recipe_of(folder: Path, **sections: object) -> Hep2Recipe:
    recipe = check_recipe(recipe_content(folder, **sections), "the test")
    assert isinstance(recipe, Hep2Recipe)
    return recipe


def test_a_run_leaves_a_verified_model_and_its_record(finished: tuple[Path, Path]) -> None:
    """It learns the textures; the model says how it wants its cells and what it was trained on."""
    out, model = finished
    info = verify(model)
    assert info.system == "hep2"
    assert info.class_names == ("Homogeneous", "Speckled", "NuMem")
    assert info.input == {
        "size": 60, "channels": 1, "contrast": "minmax", "framing": 1.3, "average": "none",
    }  # fmt: skip
    assert info.data["grouped_by"] == "specimen"
    assert len(info.data["images"]) == info.data["trained_on_cells"] == 90
    assert info.metrics["out_of_fold"]["cells"]["n"] == 90
    assert info.metrics["out_of_fold"]["cells"]["mca"] > 0.8
    reserve = info.metrics["reserve"]["cells"]
    assert reserve["n"] == 18
    assert {s["specimen"] for s in reserve["specimens"]} == set(info.reserve)
    assert not set(info.reserve) & set(info.data["trained_on"])
    card = read_card(model)
    assert "Research use only; not for diagnosis" in card
    assert "mean class accuracy" in card
    assert json.loads((out / "run.json").read_text())["sha256"] == info.sha256
    assert read_recipe(out / "recipe.yaml").name == "tiny"
    kinds = {str(t.dtype) for t in read_tensors(model).values()}
    assert kinds <= {"float16", "int64"} or kinds <= {"float32", "int64"}


def test_the_model_carries_features_of_every_pattern(finished: tuple[Path, Path]) -> None:
    """Eight looks at a cell, balanced, at most 3 MB; through the head they give its answers."""
    shipped = read_features(finished[1])
    assert shipped is not None
    assert (finished[1] / FEATURES).stat().st_size <= 3 * 2**20
    assert len(set(np.bincount(shipped["targets"]).tolist())) == 1
    network, _ = load_network(finished[1])
    with torch.no_grad():
        logits = network.head(torch.from_numpy(shipped["features"].astype(np.float32)))
    right = (logits.argmax(dim=1).numpy() == shipped["targets"]).mean()
    assert right > 0.9


def test_progress_can_be_followed(finished: tuple[Path, Path]) -> None:
    """Every epoch writes a line; the last says done."""
    lines = read_progress(finished[0])
    assert [x["epoch"] for x in lines if x["stage"] == "final"] == [1, 2, 3, 4, 5, 6]
    assert lines[-1]["stage"] == "done"
    assert {"fold 1", "fold 2"} <= {x["stage"] for x in lines}


def test_a_stopped_run_ends_as_one_that_was_not(patterns_folder: Path, tmp_path: Path) -> None:
    """Cancelled three times in mid-epoch, with voting epochs: losses and weights to 1e-6."""
    recipe = recipe_of(
        patterns_folder, epochs=4, split={"run_folds": 0}, network={"members": 2},
        sampling={"copies": 2}, augmentation={"noise": 0.05},
    )  # fmt: skip
    whole = training.run("hep2", recipe, tmp_path / "whole", device="cpu")
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 5

    for again in (False, True, True):
        asked = 0
        with pytest.raises(JobCancelledError):
            training.run(
                "hep2", recipe, tmp_path / "parts", device="cpu", resume=again, should_stop=stop
            )
    parts = training.run("hep2", recipe, tmp_path / "parts", device="cpu", resume=True)
    one, other = (json.loads((tmp_path / n / "run.json").read_text()) for n in ("whole", "parts"))
    losses = [[h["loss"] for h in run["history"]] for run in (one, other)]
    np.testing.assert_allclose(losses[0], losses[1], atol=1e-6)
    a, b = read_tensors(whole), read_tensors(parts)
    for key in a:
        np.testing.assert_allclose(a[key], b[key], atol=1e-6)
    assert verify(whole).arguments == {"width": 8, "members": 2}


def test_last_epochs_vote_by_their_mean(patterns_folder: Path, tmp_path: Path) -> None:
    """The joined network gives the mean of the epochs; too few of them vote, with a warning."""
    recipe = recipe_of(patterns_folder, epochs=3, network={"members": 2})
    data = read_cells(recipe.data)
    cells = Hep2Cells.load(data, Channel.GREEN, CellInput(60, recipe.network.contrast, 1.3))
    trainer = Hep2Trainer(recipe, data, cells, device="cpu", say=lambda _line: None)
    rows = np.arange(len(data.records))
    joined, _ = trainer.fit_members(rows, 0, "x", tmp_path / "c")
    assert joined.n_members == 2
    alone = recipe.model_copy(update={"network": recipe.network.model_copy(update={"members": 1})})
    by_epoch = []
    trainer.recipe = alone
    trainer.fit(
        rows, 0, "y", None,
        each_epoch=lambda m, _n: by_epoch.append(score_cells(m.network, cells.pictures[:7])),
    )  # fmt: skip
    mean = np.mean(by_epoch[-2:], axis=0)
    np.testing.assert_allclose(score_cells(joined, cells.pictures[:7]), mean, atol=1e-5)
    trainer.recipe = recipe
    with pytest.warns(UserWarning, match="there are only 1"):
        few, _ = trainer.fit_members(rows, 0, "z", tmp_path / "d", epochs=1)
    assert few.n_members == 1


def test_a_budget_shrinks_epochs_and_is_recorded(patterns_folder: Path, tmp_path: Path) -> None:
    """A hundredth of a second: one epoch, said and written down; resumed it is the same."""
    said: list[str] = []
    recipe = recipe_of(patterns_folder, epochs=40, split={"run_folds": 0})
    model = training.run(
        "hep2", recipe, tmp_path / "out", device="cpu", budget=0.01, on_progress=said.append
    )
    assert verify(model).training["recipe"]["epochs"] == 1
    assert any("to stay within" in line for line in said)
    assert any("Not calibrated" in line for line in said)
    assert training.estimate_seconds(recipe) > 0


def test_wrong_recipes_leave_no_folder(patterns_folder: Path, tmp_path: Path) -> None:
    """A pattern nobody has, arguments nobody knows, another system's recipe, a lone project."""
    cases = {
        "no pattern 'Golgi'": {"sampling": {"copies_of": {"Golgi": 8}}},
        "needs the section finetune": {"data": {"layout": "project"}},
        "no key 'network.width'": {"network": {"width": 3}},
        "init 'paper' is of nin10": {"network": {"init": "paper"}},
        "no range": {"augmentation": {"gain": [2.0, 1.0]}},
        "copies": {"sampling": {"copies": 3}},
    }
    for says, sections in cases.items():
        with pytest.raises(CellpathError, match=says):
            training.run("hep2", recipe_of(patterns_folder, **sections), tmp_path / "out")
    with pytest.raises(RecipeError, match="is for hep2, not for deeppap"):
        training.run("deeppap", recipe_of(patterns_folder), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(RecipeError, match="arguments of resnet8"):
        training.run(
            "hep2", recipe_of(patterns_folder, network={"arguments": {"widht": 8}}),
            tmp_path / "late",
        )  # fmt: skip


def test_evaluation_refuses_what_was_trained_on_and_repeats_the_reserve(
    finished: tuple[Path, Path], patterns_folder: Path, tmp_path: Path
) -> None:
    """By name and by content; the reserve measured from the folder is the card's."""
    info = verify(finished[1])
    with pytest.raises(RecipeError, match="were in the training of tiny"):
        training.evaluate("hep2", finished[1], patterns_folder, tmp_path / "r.json")
    report = training.evaluate(
        "hep2", finished[1], patterns_folder, tmp_path / "r.json", part="reserve"
    )
    written = info.metrics["reserve"]["cells"]
    for key in ("n", "mca", "accuracy", "macro_f1"):
        assert report[key] == pytest.approx(written[key], abs=2e-3)
    assert json.loads((tmp_path / "r.json").read_text()) == report
    other = write_cells(tmp_path / "other", per_specimen=2, specimens=3, seed=8)
    fresh = training.evaluate("hep2", finished[1], other, average="d4")
    assert fresh["n"] == 18
    assert fresh["mca"] > 0.8
    seen = read_cells(Hep2Data(folder=str(patterns_folder))).records
    learnt = next(r for r in seen if r.group in info.data["trained_on"])
    table = (other / "labels.csv").read_text().splitlines()
    (other / table[1].split(",")[0]).write_bytes(learnt.image.read_bytes())
    with pytest.raises(RecipeError, match="1 of 18 cells"):
        training.evaluate("hep2", finished[1], other)


def test_the_command_line_gives_pythons_numbers(
    finished: tuple[Path, Path], patterns_folder: Path, tmp_path: Path
) -> None:
    """`cellpath evaluate hep2` and `training.evaluate`: one report."""
    from napari_cellpath.cli import main

    words = ["evaluate", "hep2", "--model", str(finished[1]), "--data", str(patterns_folder)]
    assert main([*words, "--part", "reserve", "--out", str(tmp_path / "r.json")]) == 0
    mine = training.evaluate("hep2", finished[1], patterns_folder, part="reserve")
    theirs = json.loads((tmp_path / "r.json").read_text())
    assert theirs == json.loads(json.dumps(mine))


def test_a_score_depends_on_its_cell_alone(
    finished: tuple[Path, Path], patterns_folder: Path
) -> None:
    """papers.md 4.9 fact 12: alone or in a batch, and the same again."""
    network, info = load_network(finished[1])
    data = read_cells(Hep2Data(folder=str(patterns_folder)))
    pictures = crop_cells(data.records[:9], Channel.GREEN, CellInput.of(info.input, "m"))
    together = score_cells(network, pictures)
    assert np.array_equal(together, score_cells(network, pictures))
    alone = np.concatenate([score_cells(network, pictures[k : k + 1]) for k in range(9)])
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_augmentation_does_what_it_says() -> None:
    """Nothing asked, nothing changed; right angles are exact; the same seed, the same views."""
    none = {
        "rotation": "none", "mirror": False, "scale": 0, "aspect": 0, "shift": 0, "gamma": 0,
        "gain": (1, 1), "offset": (0, 0), "blur": 0, "noise": 0,
    }  # fmt: skip
    torch.manual_seed(0)
    cells = torch.rand(20, 1, 12, 12)

    def views(seed: int = 0, **changes: object) -> torch.Tensor:
        settings = Hep2Augmentation(**none | changes)
        return random_views(cells, settings, torch.Generator().manual_seed(seed))

    assert torch.equal(views(), cells)
    exact = views(rotation="right", mirror=True)
    which = [
        [k for k in range(8) if torch.equal(exact[n], turned(cells[n : n + 1], k)[0])]
        for n in range(len(cells))
    ]
    assert all(len(w) == 1 for w in which)
    assert len({w[0] for w in which}) > 4
    assert torch.equal(views(3, rotation="any", noise=0.1), views(3, rotation="any", noise=0.1))
    assert not torch.equal(views(3, rotation="any"), views(4, rotation="any"))
    bright = views(gain=(0.5, 0.5), offset=(0.1, 0.1))
    torch.testing.assert_close(bright, cells * 0.5 + 0.1)
    noisy = (views(noise=0.2) - cells).flatten(1).std(dim=1)
    assert 4 <= int((noisy == 0).sum()) <= 16
    assert float(noisy.max()) < 0.25
    soft = views(blur=1.0).flatten(1).std(dim=1)
    assert bool((soft <= cells.flatten(1).std(dim=1) + 1e-6).all())
    centre = torch.zeros(20, 1, 21, 21)
    centre[:, :, 10, 10] = 1.0
    cells = centre
    moved = views(shift=0.1)
    rows = (moved[:, 0].sum(dim=2) * torch.arange(21)).sum(dim=1) / moved.sum(dim=(1, 2, 3))
    assert 1.0 < float((rows - 10).abs().max()) <= 2.1 + 1e-4


def test_right_angles_through_the_sampler_are_right_angles() -> None:
    """Turning about the middle by 90 degrees gives one of the four turns, to rounding."""
    settings = Hep2Augmentation(
        rotation="right", mirror=False, scale=0, aspect=0, shift=1e-9, gamma=0, gain=(1, 1),
        offset=(0, 0), blur=0, noise=0,
    )  # fmt: skip
    cells = torch.rand(6, 1, 10, 10)
    views = random_views(cells, settings, torch.Generator().manual_seed(1))
    for n in range(6):
        near = [float((views[n] - turned(cells[n : n + 1], k)[0]).abs().max()) for k in range(4)]
        assert min(near) < 1e-4


def test_scores_are_those_of_prediction(finished: tuple[Path, Path], patterns_folder: Path) -> None:
    """Training's probabilities of a cell are the plan's and predictor's, to 1e-6."""
    network, info = load_network(finished[1])
    record = read_cells(Hep2Data(folder=str(patterns_folder))).records[4]
    wanted = CellInput.of(info.input, "m")
    mine = score_cells(network, crop_cells([record], Channel.GREEN, wanted), Average.D4)[0]
    plan = make_plan(
        PatternRequest(
            image=FileImage(str(record.image)), cells=(CellBox(0, 0, SIDE, SIDE),),
            model=str(finished[1]), whole=True, average=Average.D4,
        )
    )  # fmt: skip
    predictor = PatternPredictor(network, torch.device("cpu"), "fp32", wanted, len(info.classes))

    def forward(module: torch.nn.Module, batch: torch.Tensor, _stop: object) -> torch.Tensor:
        with torch.inference_mode():
            return module(batch)

    while (task := plan.take()) is not None:
        plan.give(task, predictor.run(task.payload, forward, lambda: False))
    call = plan.results()[0]
    np.testing.assert_allclose(call.probabilities, mine, atol=1e-6)
    assert call.label == info.class_names[int(mine.argmax())]
