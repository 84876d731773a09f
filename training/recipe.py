"""A training recipe: everything that decides what comes out, in one YAML file.

Unknown keys are refused: a misspelt ``epoch:`` must not train for the default number of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from napari_cellpath.core.errors import MissingFileError, RecipeError, UnknownNameError
from napari_cellpath.core.vocabulary import Average, System
from training.systems import entry, load

Looks = Literal[Average.NONE, Average.D4]
"""Ways round a cell: as it lies, or the mean over its eight turns and mirrors."""


class Section(BaseModel):
    """Part of a recipe; its keys are all there are."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(Section):
    """What is learnt from: what the data of all systems have."""

    layout: str = Field("", description="How the folder is laid out.")
    folder: str = Field("", description="A path, or the name of a folder inside CELLPATH_DATA.")


class Split(Section):
    """Who is on which side."""

    mode: Literal["group", "cell"] = Field(
        "group", description="group: a slide is never on two sides. cell: the paper's way."
    )
    reserve: float = Field(0.1, ge=0.0, lt=0.5, description="Share set apart before anything else.")
    folds: int = Field(4, ge=2, le=20, description="Parts for out-of-fold validation.")
    run_folds: int = Field(
        4, ge=0, le=20, description="How many of the folds are trained for validation; 0: none."
    )
    seed: int = Field(7, description="Of the split alone, so that seeds of training can vary.")

    @model_validator(mode="after")
    def _not_more_than_there_are(self) -> Split:
        if self.run_folds > self.folds:
            raise ValueError(f"run_folds is {self.run_folds}, but there are {self.folds} folds")
        return self


class Optimiser(Section):
    """How weights move."""

    name: Literal["sgd", "adamw"] = "adamw"
    lr_trunk: float = Field(
        3e-4, gt=0, description="For the trunk, whose weights may have been transferred."
    )
    lr_head: float = Field(2e-3, gt=0, description="For the head, which starts from nothing.")
    momentum: float = Field(0.9, ge=0, lt=1, description="SGD only.")
    weight_decay: float = Field(0.02, ge=0)
    clip_norm: float = Field(2.0, ge=0, description="Largest gradient norm; 0: not clipped.")
    ema: float = Field(
        0.98, ge=0, lt=1, description="Decay of the moving average of weights; 0: none."
    )


class Schedule(Section):
    """How learning rates change."""

    kind: Literal["cosine", "step", "constant"] = "cosine"
    step_epochs: int = Field(10, ge=1, description="step: rates fall after this many epochs.")
    step_factor: float = Field(0.1, gt=0, le=1, description="step: by this factor.")
    warmup_epochs: float = Field(1.0, ge=0, description="cosine: rates rise from nought.")
    floor: float = Field(0.02, ge=0, le=1, description="cosine: share of the rate at the end.")


class FineTune(Section):
    """Going on from a finished model instead of from initial weights.

    Network, classes, pixel size and threshold are the parent's; the section ``network`` is not
    used, and of ``split`` nothing where the data are a project.
    """

    parent: str = Field(description="Name or folder of the model to go on from.")
    method: Literal["head", "full"] = Field(
        "head",
        description="head: the trunk stays as it is, the head learns from cached features; "
        "seconds to a minute. full: every layer learns.",
    )
    replay: float = Field(
        1.0,
        ge=0,
        description="Weight of the features the parent carries of its own training cells, beside "
        "the new cells' 1; they keep it from forgetting. 0: none.",
    )
    distil: float = Field(
        1.0,
        ge=0,
        description="Where the parent carries no features: weight of staying near the parent's own "
        "answers on the new cells.",
    )
    distil_temperature: float = Field(
        2.0, gt=0, le=20, description="Softens both answers before they are compared."
    )
    keep_threshold: bool = Field(
        False,
        description="Keep the parent's threshold even where the validation part is large enough "
        "to choose one.",
    )


class CommonRecipe(Section):
    """What the recipes of all systems have."""

    system: str
    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$", description="Of the model that comes out."
    )
    finetune: FineTune | None = Field(
        None, description="Go on from a finished model; left out: start from initial weights."
    )
    data: Source = Source()  # type: ignore[call-arg]
    split: Split = Split()  # type: ignore[call-arg]
    optimiser: Optimiser = Optimiser()  # type: ignore[call-arg]
    schedule: Schedule = Schedule()  # type: ignore[call-arg]
    epochs: int = Field(24, ge=1, le=1000, description="Of the final model.")
    fold_epochs: int = Field(
        0, ge=0, le=1000, description="Of each validation fold; 0: as many as the final model's."
    )
    batch: int = Field(32, ge=1, le=4096)
    balance: float = Field(
        0.5, ge=0, le=1, description="Loss weights are (1/frequency) to this power; 1: equal say."
    )
    label_smoothing: float = Field(0.05, ge=0, lt=0.5)
    evaluation: str = Field(
        "", description="Views with which the reserve, or the frozen part, is scored."
    )
    fold_evaluation: str = Field("", description="Views with which the folds are scored.")
    notes: str = Field(
        "", max_length=2000, description="How the settings were found; stands in the model's card."
    )
    threads: int = Field(0, ge=0, description="CPU threads; 0: PyTorch's choice.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "fp32",
        description="Of a training step; auto: bfloat16 beside float32 weights where the device "
        "computes it. Scores and measures are in float32 all the same.",
    )
    seed: int = 0
    budget_seconds: float | None = Field(
        None, gt=0, description="Epochs shrink to fit; what was used is recorded."
    )

    @model_validator(mode="after")
    def _a_project_has_a_parent(self) -> CommonRecipe:
        if self.data.layout == "project" and self.finetune is None:
            raise ValueError("data.layout 'project' needs the section finetune with a parent")
        return self

    @property
    def inputs(self) -> tuple[int, int]:
        """Network inputs of a cell when a fold is scored, and when the reserve is."""
        return 1, 1

    def thinned(self, _share: float) -> CommonRecipe:
        """The recipe with about this share of the views of a cell, where it has several."""
        return self


def read_recipe(path: Path | str) -> CommonRecipe:
    """Read and check a recipe; its key ``system`` says whose it is (left out: deeppap).

    Raises
    ------
    MissingFileError
        No such file.
    RecipeError
        Not YAML, an unknown key, a value out of range; the sentence names the key.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"There is no recipe {path}.")
    if path.stat().st_size > 2**20:
        raise RecipeError(f"{path} is larger than 1 MB and is not a recipe.")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        line = str(error).splitlines()[0]
        raise RecipeError(f"{path} is not readable YAML ({line}).") from None
    if not isinstance(content, dict):
        raise RecipeError(f"{path} holds no recipe: its top level must be 'key: value' lines.")
    return check_recipe(content, str(path))


def check_recipe(content: dict[str, Any], where: str) -> CommonRecipe:
    """Validate a recipe's content; `RecipeError` names the first key that is wrong."""
    try:
        kind: type[CommonRecipe] = load(entry(content.get("system", System.DEEPPAP)).recipe)
    except UnknownNameError as error:
        raise RecipeError(f"{where}: {error}") from None
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the recipe"
        if first["type"] == "extra_forbidden":
            raise RecipeError(f"{where}: there is no key '{key}' in a recipe.") from None
        raise RecipeError(f"{where}: {key}: {first['msg']}.") from None


def recipe_of(recipe: Path | str | CommonRecipe, system: System | str) -> CommonRecipe:
    """A recipe as given or read from a file, of this system.

    Raises
    ------
    RecipeError
        It is another system's.
    """
    made = recipe if isinstance(recipe, CommonRecipe) else read_recipe(recipe)
    if made.system != str(System(system)):
        raise RecipeError(f"The recipe '{made.name}' is for {made.system}, not for {system}.")
    return made


def write_recipe(recipe: CommonRecipe, path: Path) -> None:
    """Write a recipe with every key, as it was used."""
    path.write_text(
        yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True),
        encoding="utf-8",
    )
