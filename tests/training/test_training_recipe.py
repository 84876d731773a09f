"""Recipes mean what they say, and nothing in them is overlooked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

import training
from napari_cellpath.core.errors import CellpathError, MissingFileError, RecipeError
from training.budget import Speed, fit_to_budget, planned_seconds
from training.deeppap_recipe import Recipe
from training.recipe import read_recipe, write_recipe
from training.systems import SYSTEMS, load

RECIPES = sorted((Path(training.__file__).parent / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_our_recipes_are_valid_and_complete(path: Path) -> None:
    """Every committed recipe is read without complaint and spells out every key."""
    recipe = read_recipe(path)
    written = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert written.keys() == type(recipe).model_fields.keys()
    for section, content in recipe.model_dump(mode="json").items():
        if isinstance(content, dict):
            assert written[section].keys() == content.keys()


def test_there_are_recipes() -> None:
    """The starter's and the paper's recipe travel with the package."""
    assert {"deeppap-herlev", "deeppap-paper"} <= {p.stem for p in RECIPES}


def test_every_key_is_documented() -> None:
    """A key without a word of explanation is either of a section or of a plain name."""
    plain = {"name", "system", "backbone", "seed", "epochs", "batch", "weight_decay",
             "label_smoothing", "zero", "reflect", "background", "kind"}  # fmt: skip

    def walk(model: type) -> None:
        for key, field in model.model_fields.items():  # type: ignore[attr-defined]
            section = getattr(field.annotation, "model_fields", None)
            if section is not None:
                walk(field.annotation)  # type: ignore[arg-type]
            else:
                assert field.description or key in plain, key

    for row in SYSTEMS.values():
        walk(load(row.recipe))


def test_round_trip(tmp_path: Path) -> None:
    """A recipe written with every key reads back as itself."""
    recipe = Recipe(name="x", epochs=3, budget_seconds=9.5)
    write_recipe(recipe, tmp_path / "r.yaml")
    assert read_recipe(tmp_path / "r.yaml") == recipe


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name: x\nepoch: 3\n", "no key 'epoch'"),
        ("name: x\noptimiser: {learning_rate: 1}\n", "no key 'optimiser.learning_rate'"),
        ("name: x\ndata: {classes: 3}\n", "data.classes"),
        ("name: ../x\n", "name"),
        ("name: x\nsplit: {folds: 2, run_folds: 3}\n", "run_folds"),
        ("name: x\naugmentation: {borders: {zero: 0, reflect: 0, background: 0}}\n", "zero"),
        ("name: x\nfinal_start: folds\nkeep: best\n", "exclude each other"),
        ("name: x\nfinal_start: folds\nsplit: {run_folds: 0}\n", "run_folds is 0"),
        ("- a\n- b\n", "holds no recipe"),
        ("a: [\n", "not readable YAML"),
        ("!!python/object/apply:os.system ['true']\n", "not readable YAML"),
    ],
)
def test_bad_recipes_are_refused_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    """An unknown key or an impossible value is named; nothing in YAML can run code."""
    path = tmp_path / "r.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=says) as refusal:
        read_recipe(path)
    assert "\n" not in str(refusal.value)


def test_missing_recipe(tmp_path: Path) -> None:
    """A recipe that is not there is a missing file."""
    with pytest.raises(MissingFileError, match="no recipe"):
        read_recipe(tmp_path / "none.yaml")


def test_unknown_system_is_refused(tmp_path: Path) -> None:
    """A system that there is not is named, beside those that there are."""
    with pytest.raises(CellpathError, match=r"no training for 'pap'.*deeppap"):
        training.run("pap", tmp_path / "r.yaml", tmp_path / "out")


ABNORMAL = np.repeat([True, False], [75, 25])


def views_of(recipe: Recipe) -> np.ndarray:
    normal, abnormal = recipe.views_per_epoch
    return np.where(ABNORMAL, abnormal, normal)


def test_enough_time_changes_nothing() -> None:
    """A budget that suffices leaves the recipe as it is."""
    recipe = Recipe(name="x")
    assert fit_to_budget(recipe, 1e9, Speed(0.01, 0.001), views_of, 10) == recipe


@pytest.mark.parametrize("seconds", [60.0, 600.0, 6000.0])
def test_views_shrink_before_epochs(seconds: float) -> None:
    """The plan fits the budget (or is the least there is), and epochs fall only at one view."""
    recipe = Recipe(name="x", views_per_epoch=(280, 100), epochs=30)
    speed = Speed(0.02, 0.0001)
    used = fit_to_budget(recipe, seconds, speed, views_of, 10)
    if used.epochs < recipe.epochs and used.epochs > 1:
        assert min(used.views_per_epoch) == 1
    assert max(used.views_per_epoch) < 280
    if used.epochs > 1:
        assert sum(planned_seconds(used, speed, views_of(used), 10)) <= seconds * 1.3
