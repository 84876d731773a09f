"""The protocols mtchi and glas on synthetic sections."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import yaml

import training
from napari_cellpath.cli import main
from napari_cellpath.core.errors import OutputError, RecipeError
from napari_cellpath.models import read_info
from tests.training.hspnet.tissue import recipe_content, write_mtchi
from training.hspnet.folds import BLENDED, PLAIN


@pytest.fixture(scope="module")
def mtchi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_mtchi(tmp_path_factory.mktemp("mtchi") / "mtchi")


def write_recipe(folder: Path, data: Path, **changes: object) -> Path:
    content = recipe_content(data, data={"layout": "mtchi"}, crops={"per_epoch": 4}, **changes)
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_mtchi_reports_as_the_paper_does(mtchi: Path, tmp_path: Path) -> None:
    """The test set first; both readings of the background, with and without blending, by fold."""
    recipe = write_recipe(tmp_path, mtchi)
    out = tmp_path / "out"
    options = {"recipe_path": recipe, "run_folds": 2, "device": "cpu"}
    report = training.reproduce("mtchi", mtchi, out, **options)
    assert report["folds"] == 4
    assert report["regions_by_fold"] == [2, 2]
    assert report["paper"]["tables 4 and 5"]
    assert {(r["tiles"], r["background"]) for r in report["table"]} == {
        (way, background)
        for way in (PLAIN, BLENDED)
        for background in ("ignore background", "with background")
    }
    with (out / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    dice, deviation = report[BLENDED]["over_folds"]["ignore_background"]["dice"]
    assert (float(rows[2]["dice"]), float(rows[2]["dice_deviation"])) == (dice, deviation)
    assert (out / "confusion.png").is_file()
    assert report[PLAIN]["merged"]["classes"] == ["background", "normal", "LSIL", "HSIL"]
    model = read_info(out / "group" / "fold-1-model")
    assert "slide-3" not in model.data["trained_on"]
    again = training.reproduce("mtchi", mtchi, out, resume=True, **options)
    assert again["table"] == report["table"]
    with pytest.raises(OutputError, match="holds a run already"):
        training.reproduce("mtchi", mtchi, out, **options)


def test_the_ablation_has_the_papers_four_rows(
    mtchi: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each network has fewer parameters than the whole one; the paper's table stands beside."""
    recipe = write_recipe(tmp_path, mtchi, tiles={"blend": "none"})
    code = main(
        [
            "reproduce", "mtchi", "--data", str(mtchi), "--out", str(tmp_path / "out"),
            "--recipe", str(recipe), "--ablation", "--device", "cpu",
        ],
    )  # fmt: skip
    assert code == 0
    report = json.loads((tmp_path / "out" / "results.json").read_text())
    rows = [r for r in report["table"] if r["background"] == "ignore background"]
    names = [r["network"] for r in rows]
    assert names == ["no DS-Blocks", "DS-Blocks 1-4", "DS-Block 5", "all DS-Blocks"]
    sizes = [r["parameters"] for r in rows]
    assert sizes[0] == min(sizes)
    assert sizes[3] == max(sizes)
    assert report["paper"]["table 3"]["all DS-Blocks"] == [0.739, 0.5998, 0.7533]
    assert "all DS-Blocks" in capsys.readouterr().out


def test_other_data_have_no_papers_numbers_beside_them(glas_folder: Path, tmp_path: Path) -> None:
    """Glands of the colon are never compared with the paper; a U-Net can be measured."""
    content = recipe_content(
        glas_folder, crops={"per_epoch": 4}, tiles={"blend": "none"},
        network={"architecture": "unet", "arguments": {"width": 0.0625}, "weights": "none"},
        loss={"name": "ordinal_elastic"},
    )  # fmt: skip
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    said: list[str] = []
    report = training.reproduce(
        "glas", glas_folder, tmp_path / "out", recipe_path=path, run_folds=1, device="cpu",
        on_progress=said.append, budget=1.0,
    )  # fmt: skip
    assert report["paper"] == {}
    assert "no reproduction" in report["note"]
    assert not list((tmp_path / "out").rglob("*-model"))
    assert any("budget" in line for line in said)
    with pytest.raises(RecipeError, match="no DS-Blocks"):
        training.reproduce(
            "glas", glas_folder, tmp_path / "o2", recipe_path=path, ablation=True, device="cpu"
        )
