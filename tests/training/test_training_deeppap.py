"""A whole training run of a shrunken network, and the scores of what comes out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import training
from napari_cellpath.core.errors import CellpathError, JobCancelledError
from napari_cellpath.core.requests import FileImage, Nucleus, NucleusRequest
from napari_cellpath.core.vocabulary import Preset
from napari_cellpath.models import read_card, verify
from napari_cellpath.systems.deeppap.network import convnet_t
from napari_cellpath.systems.deeppap.plan import NucleusPlan
from napari_cellpath.systems.deeppap.predict import NucleusPredictor, load_network
from tests.training.conftest import write_herlev
from training.datasets import read_cells
from training.deeppap import views_of_cells
from training.deeppap_recipe import Data, Network, Recipe
from training.initial import build_network
from training.recipe import read_recipe
from training.scoring import jittered_centre, score_cells
from training.trainer import class_weights, epoch_batches, mean_state


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, cells_folder: Path) -> tuple[Path, Path]:
    """One finished run: its folder and the model's."""
    from training.recipe import check_recipe, write_recipe

    top = tmp_path_factory.mktemp("run")
    recipe = check_recipe(
        {
            "name": "tiny",
            "data": {"folder": str(cells_folder)},
            "network": {
                "backbone": "convnet-t", "arguments": {"width": 0.05}, "weights": "none",
            },
            "split": {"reserve": 0.2, "folds": 2, "run_folds": 1, "seed": 1},
            "epochs": 1, "batch": 8, "fold_evaluation": "fast", "evaluation": "fast",
        },
        "the test",
    )  # fmt: skip
    write_recipe(recipe, top / "recipe.yaml")
    with pytest.warns(UserWarning, match="random weights"):
        model = training.run("deeppap", top / "recipe.yaml", top / "out", device="cpu")
    return top / "out", model


def test_run_leaves_a_verified_model_and_its_record(finished: tuple[Path, Path]) -> None:
    """A run ends with a model folder that verifies, a card, and what happened as JSON."""
    out, model = finished
    info = verify(model)
    assert info.system == "deeppap"
    assert info.class_names == ("normal", "abnormal")
    assert info.seed == 0
    assert info.data["cells"] == 40
    assert len(info.data["sha256"]) == 64
    assert info.training["recipe"]["epochs"] == 1
    assert info.metrics["reserve"]["as_marked"]["n"] > 0
    assert len(info.metrics["out_of_fold"]["as_marked"]["auc_interval"]) == 2
    assert info.versions["torch"]
    card = read_card(model)
    assert "Research use only; not for diagnosis" in card
    assert "Jantzen" in card
    record = json.loads((out / "run.json").read_text())
    assert record["sha256"] == info.sha256
    assert read_recipe(out / "recipe.yaml").name == "tiny"


def test_reserve_and_training_share_no_slide(finished: tuple[Path, Path]) -> None:
    """model.json's reserve and training slides are disjoint and together are all slides."""
    info = verify(finished[1])
    reserve, trained = set(info.reserve), set(info.data["trained_on"])
    assert reserve
    assert not reserve & trained
    assert len(reserve | trained) == info.data["groups"]


def test_a_finished_run_is_not_overwritten(
    finished: tuple[Path, Path], small_recipe: Callable[..., Path]
) -> None:
    """Run again, the folder is refused; resumed, it is found done; another recipe is refused."""
    out, model = finished
    with pytest.raises(CellpathError, match="holds a run already"):
        training.run("deeppap", small_recipe(), out)
    assert training.run("deeppap", small_recipe(), out, resume=True, device="cpu") == model
    with pytest.raises(CellpathError, match="another recipe"):
        training.run("deeppap", small_recipe(epochs=2), out, resume=True)


def test_scores_are_those_of_prediction(finished: tuple[Path, Path], cells_folder: Path) -> None:
    """Training's scores of a cell equal the plan's and predictor's, to the last digits."""
    network, info = load_network(finished[1])
    record = read_cells(Data(folder=str(cells_folder))).records[0]
    mine = score_cells(network, [record], looked_at="balanced")[0]
    plan = NucleusPlan(
        NucleusRequest(
            image=FileImage(str(record.image)), nuclei=(Nucleus(record.row, record.col),),
            model=str(finished[1]), preset=Preset.BALANCED,
        )
    )  # fmt: skip
    predictor = NucleusPredictor(network, torch.device("cpu"), "fp32")

    def forward(module: torch.nn.Module, batch: torch.Tensor, stop: object) -> torch.Tensor:
        with torch.inference_mode():
            return module(batch)

    while (task := plan.take()) is not None:
        plan.give(task, predictor.run(task.payload, forward, lambda: False))
    call = plan.results()[0]
    assert call.n_views == 100
    assert call.score == pytest.approx(mine[1], abs=1e-6)
    assert call.threshold == info.threshold


def test_evaluation_refuses_what_was_trained_on(
    finished: tuple[Path, Path], cells_folder: Path, tmp_path: Path
) -> None:
    """Slides of the training are refused by name; asked to, what is left is measured."""
    _, model = finished
    info = verify(model)
    with pytest.raises(CellpathError, match=r"of 40 cells .* were in the training .*and \d+ more"):
        training.evaluate("deeppap", model, cells_folder, tmp_path / "r.json")
    assert not (tmp_path / "r.json").exists()
    done: list[tuple[int, int]] = []
    report = training.evaluate(
        "deeppap", model, cells_folder, tmp_path / "r.json", part="held-out", preset="fast",
        jitter=5, on_progress=lambda n, of: done.append((n, of)),
    )  # fmt: skip
    assert done[-1] == (report["n"], report["n"])
    assert report["left_out"]["cells"] == 40 - report["n"]
    assert set(info.data["trained_on"]) <= set(report["left_out"]["groups"])
    assert report["n"] == info.metrics["reserve"]["as_marked"]["n"]
    assert report["trained_on_these"] is False
    assert json.loads((tmp_path / "r.json").read_text()) == report
    seen = info.data["trained_on"][0]
    with pytest.raises(CellpathError, match=rf"were in the training of .*\({seen}\)"):
        training.evaluate("deeppap", model, cells_folder, None, groups=[seen])
    with pytest.raises(CellpathError, match="holds no cells"):
        training.evaluate("deeppap", model, cells_folder, None, part="validation")
    whole = training.evaluate("deeppap", model, cells_folder, None, part="all", preset="fast")
    assert whole["n"] == 40
    assert whole["trained_on_these"] is True


def test_evaluation_repeats_the_runs_numbers(
    finished: tuple[Path, Path], cells_folder: Path
) -> None:
    """The reserve measured again from the model folder gives what its card says."""
    written = verify(finished[1]).metrics["reserve"]["jittered_5_px"]
    again = training.evaluate(
        "deeppap", finished[1], cells_folder, None, part="reserve", preset="fast", jitter=5
    )
    for key in ("n", "accuracy", "auc", "sensitivity", "specificity"):
        assert again[key] == pytest.approx(written[key], abs=2e-3), key


def test_cancelled_run_goes_on_where_it_stopped(
    small_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    """Cancelled in mid-epoch, a run leaves a checkpoint; resumed, the model appears."""
    recipe = small_recipe(split={"run_folds": 0}, threshold="half")
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 2

    with pytest.warns(UserWarning, match="random weights"), pytest.raises(JobCancelledError):
        training.run("deeppap", recipe, tmp_path / "out", should_stop=stop, device="cpu")
    assert (tmp_path / "out" / "checkpoints" / "final" / "checkpoint.json").is_file()
    assert not (tmp_path / "out" / "model").exists()
    with pytest.warns(UserWarning, match="random weights"):
        model = training.run("deeppap", recipe, tmp_path / "out", resume=True, device="cpu")
    assert verify(model).threshold == 0.5


def test_paper_protocol_runs_at_any_size(small_recipe: Callable[..., Path], tmp_path: Path) -> None:
    """Seven classes, mean image, SGD, steps, best epoch, split by cell: one run, one budget."""
    recipe = small_recipe(
        data={"classes": 7},
        network={"mean_image": True},
        split={"mode": "cell", "reserve": 0.0, "run_folds": 0},
        optimiser={"name": "sgd", "ema": 0.0},
        schedule={"kind": "step"},
        epochs=2, views_per_epoch=[3, 1], keep="best", threshold="half",
    )  # fmt: skip
    lines: list[str] = []
    with pytest.warns(UserWarning, match="random weights"):
        model = training.run(
            "deeppap", recipe, tmp_path / "out", device="cpu", budget=0.01, on_progress=lines.append
        )
    info = verify(model)
    assert len(info.classes) == 7
    assert info.reserve == ()
    assert info.data["validation"]
    assert not set(info.data["validation"]) & set(info.data["trained_on"])
    assert info.training["recipe"]["views_per_epoch"] == [1, 1]
    assert any("to stay within" in line for line in lines)
    assert load_network(model)[0].mean.shape == (3, 256, 256)


def test_final_model_can_start_from_the_folds(
    small_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    """The final model starts from the mean of the folds' weights, and is trained on."""
    recipe = small_recipe(
        split={"run_folds": 2}, final_start="folds", fold_epochs=1, threshold="half",
        optimiser={"lr_trunk": 1e-12, "lr_head": 1e-12, "weight_decay": 0.0, "ema": 0.0},
    )  # fmt: skip
    with pytest.warns(UserWarning, match="random weights"):
        model = training.run("deeppap", recipe, tmp_path / "out", device="cpu")
    folds = [load_file(tmp_path / "out" / f"fold-{i}.safetensors") for i in range(2)]
    wanted = mean_state(folds)
    final = load_network(model)[0].state_dict()
    for key, value in final.items():
        torch.testing.assert_close(value, wanted[f"network.{key}"], atol=1e-3, rtol=1e-3)


def test_one_class_is_refused(small_recipe: Callable[..., Path], tmp_path: Path) -> None:
    """Cells of one class only: one sentence, and no run is begun in vain."""
    folder = write_herlev(tmp_path / "d", n=8, per_group=1)
    table = (folder / "labels.csv").read_text().replace(",6,1,", ",1,0,")
    table = table.replace(",7,1,", ",1,0,").replace(",3,0,", ",1,0,")
    (folder / "labels.csv").write_text(table)
    with pytest.raises(CellpathError, match="one class only"):
        training.run("deeppap", small_recipe(data={"folder": str(folder)}), tmp_path / "out")


def test_only_normal_classes_are_refused(small_recipe: Callable[..., Path], tmp_path: Path) -> None:
    """Two kinds of normal cells teach nothing about abnormal ones."""
    folder = write_herlev(tmp_path / "d", n=16, per_group=1)
    table = (folder / "labels.csv").read_text().replace(",6,1,", ",1,0,").replace(",7,1,", ",1,0,")
    (folder / "labels.csv").write_text(table)
    with pytest.raises(CellpathError, match="only normal or only abnormal"):
        training.run("deeppap", small_recipe(data={"folder": str(folder)}), tmp_path / "out")


def test_missing_weights_are_named(small_recipe: Callable[..., Path], tmp_path: Path) -> None:
    """Initial weights that are not there are an error, never a silent start from nothing."""
    recipe = small_recipe(network={"weights": str(tmp_path / "none.safetensors")})
    with pytest.raises(CellpathError, match=r"no file .*none\.safetensors"):
        training.run("deeppap", recipe, tmp_path / "out", device="cpu")


def test_unknown_arguments_of_a_backbone_are_named() -> None:
    """A misspelt argument of the backbone is a recipe error."""
    with pytest.raises(CellpathError, match="widht"):
        build_network(Network(backbone="convnet-t", arguments={"widht": 1}, weights="none"), 2)


def test_caffenet_weights_are_taken_in(tmp_path: Path) -> None:
    """A CaffeNet-shaped file gives the trunk its weights, RGB for BGR, and its mean pixel."""
    from safetensors.numpy import save_file

    from napari_cellpath.systems.deeppap.caffenet import CONVOLUTIONS

    rng = np.random.default_rng(0)
    state = {}
    for layer, shape in CONVOLUTIONS.items():
        state[f"features.{layer}.weight"] = rng.normal(size=shape).astype(np.float32)
        state[f"features.{layer}.bias"] = np.zeros(shape[0], np.float32)
    save_file(state, tmp_path / "caffe.safetensors")
    network, origin = build_network(
        Network(backbone="convnet-t", weights=str(tmp_path / "caffe.safetensors")), 2
    )
    wanted = state["features.conv1.weight"][:, 2]
    np.testing.assert_array_equal(network.trunk.conv1.weight[:, 0].detach(), wanted)
    assert network.mean.flatten().tolist() == pytest.approx([122.68, 116.67, 104.01], abs=0.01)
    assert "caffe.safetensors" in origin


def test_epochs_are_shuffled_by_seed_and_epoch_alone() -> None:
    """Views a class, the same order again for the same seed and epoch, another for others."""
    rows, views = np.arange(20), np.where(np.arange(20) % 2 == 1, 1, 3)
    first = epoch_batches(rows, views, 16, 0, 5)
    seen = torch.cat(first)
    assert len(seen) == 40  # 40 of 40: the last batch of 8 is half full
    assert int((seen == 0).sum()) == 3
    assert int((seen == 1).sum()) == 1
    assert torch.equal(seen, torch.cat(epoch_batches(rows, views, 16, 0, 5)))
    assert not torch.equal(seen, torch.cat(epoch_batches(rows, views, 16, 1, 5)))


def test_some_classes_are_seen_more_often(cells_folder: Path) -> None:
    """Views by class and by fine class multiply; a class that is not there is refused."""
    data = read_cells(Data(folder=str(cells_folder)))
    names = [c.name for c in data.fine_classes]
    recipe = Recipe(name="x", views_per_epoch=(2, 1), more_views={names[0]: 3})
    views = views_of_cells(recipe, data)
    assert set(views[data.labels == 0]) == {3 if data.abnormal[data.labels == 0][0] else 6}
    assert set(views[data.abnormal & (data.labels != 0)]) == {1}
    with pytest.raises(CellpathError, match="there is no class 'pink'; known: "):
        views_of_cells(Recipe(name="x", more_views={"pink": 2}), data)


def test_class_weights_balance() -> None:
    """At power 1 the classes have equal say, at 0 the cells have; the mean weight is 1."""
    targets = torch.tensor([0] * 10 + [1] * 30)
    even = class_weights(targets, 2, 1.0)
    assert float(even[0] * 10) == pytest.approx(float(even[1] * 30))
    assert class_weights(targets, 2, 0.0).tolist() == [1.0, 1.0]
    assert float((even * torch.tensor([10.0, 30.0])).sum() / 40) == pytest.approx(1.0)


def test_jitter_stays_near_and_inside(cells_folder: Path) -> None:
    """A jittered centre is off by at most so many pixels and depends on the cell alone."""
    records = read_cells(Data(folder=str(cells_folder))).records
    for record in records[:6]:
        row, col = jittered_centre(record, 5, 0)
        assert max(abs(row - record.row), abs(col - record.col)) <= 5
        assert (row, col) == jittered_centre(record, 5, 0)
    assert jittered_centre(records[0], 0, 0) == (records[0].row, records[0].col)


def test_score_does_not_depend_on_the_batch(cells_folder: Path) -> None:
    """papers.md 1.12 fact 11: scores are in [0, 1], whatever the order of the cells."""
    torch.manual_seed(0)
    network = convnet_t(width=0.05).eval()
    records = list(read_cells(Data(folder=str(cells_folder))).records[:3])
    scores = score_cells(network, records, looked_at="rotations", jitter=3)
    turned = score_cells(network, records[::-1], looked_at="rotations", jitter=3)
    np.testing.assert_allclose(scores, turned[::-1], atol=1e-6)
    assert scores.min() >= 0
    assert scores.max() <= 1
    np.testing.assert_allclose(scores.sum(axis=1), 1.0, atol=1e-6)
