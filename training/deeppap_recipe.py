"""A training recipe of DeepPap. What it shares with the others is in `training.recipe`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from training.recipe import CommonRecipe, Section, Source

INPUTS = {"fast": 10, "rotations": 10, "balanced": 100, "paper": 1000}
"""Network inputs of a DeepPap cell, by how it is looked at."""


class Data(Source):
    """What is learnt from."""

    layout: Literal["herlev", "folders", "project"] = Field(
        "herlev",
        description="herlev: labels.csv with file, class_id, slide_group and nucleus centre. "
        "folders: one folder of images a class, with points.csv (file,row,col[,group]). project: "
        "NAME.cellpath, its labelled nuclei and its own split; for fine-tuning.",
    )
    folder: str = Field(
        "herlev",
        description="A path, or the name of a folder inside CELLPATH_DATA.",
    )
    classes: Literal[2, 7] = Field(
        2, description="Normal and abnormal, or Herlev's seven; fine-tuning takes the parent's."
    )


class Network(Section):
    """What learns."""

    backbone: Literal["squeezenet1_0", "convnet-t", "alexnet-tv"] = "squeezenet1_0"
    arguments: dict[str, float | int | str] = Field(
        {}, description="Passed to the backbone, e.g. width or groups of convnet-t."
    )
    weights: str = Field(
        "squeezenet_imagenet",
        description="squeezenet_imagenet: the safetensors file of that folder inside "
        "CELLPATH_DATA. torchvision: downloaded through torchvision's weights API. none: from "
        "scratch. Otherwise the path of a safetensors file or of a CaffeNet-shaped state dict.",
    )
    frozen_layers: int = Field(
        0, ge=0, description="The first layers of the trunk that keep their initial weights."
    )
    measures: bool = Field(
        False,
        description="squeezenet1_0 with two classes and masks: a second network is taught outlines "
        "and measures nucleus and cytoplasm; what areas say is fitted to the masks.",
    )
    mean_image: bool = Field(
        False, description="Subtract the mean image of the training views (papers.md 1.2)."
    )


class Borders(Section):
    """Shares of training views whose outside is black, mirrored, or background."""

    zero: float = Field(0.6, ge=0)
    reflect: float = Field(0.2, ge=0)
    background: float = Field(0.2, ge=0)

    def shares(self) -> tuple[float, float, float]:
        """(zero, reflect, background), not normalised."""
        return self.zero, self.reflect, self.background

    @model_validator(mode="after")
    def _something(self) -> Borders:
        if sum(self.shares()) <= 0:
            raise ValueError("all shares are zero")
        return self


class Augmentation(Section):
    """How views vary in training."""

    angles: int = Field(0, ge=0, description="0: any angle; n: multiples of 360/n degrees.")
    max_shift: float = Field(
        10.0, ge=0, le=10, description="Pixels; also stands for clicks beside the centre."
    )
    scale: float = Field(0.1, ge=0, le=0.2, description="Zoom in or out by up to this share.")
    stain: float = Field(
        0.15, ge=0, le=1, description="Amounts of haematoxylin, eosin and rest vary by this share."
    )
    parts: float = Field(
        0.0,
        ge=0,
        le=2,
        description="How far the densities of nucleus, cytoplasm and surroundings vary apart from "
        "each other (natural logarithm), where the data have masks: shapes hold from slide to "
        "slide, shades do not.",
    )
    colour: float = Field(
        0.2, ge=0, le=1, description="Brightness, contrast and saturation vary by this share."
    )
    hue: float = Field(0.03, ge=0, le=0.5, description="Hue turns by up to this share of a circle.")
    grey: float = Field(
        0.2, ge=0, le=1, description="Share of views that lose their colour altogether."
    )
    blur: float = Field(
        1.0, ge=0, le=3, description="Half of the views are blurred, by up to this sigma in pixels."
    )
    mix_style: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Share of batches in which views swap part of their early feature statistics "
        "(MixStyle, Zhou et al. 2021): another slide's look on the same cell.",
    )
    borders: Borders = Borders()  # type: ignore[call-arg]
    random_crop: bool = Field(True, description="227 of 256 px at random, or the middle.")


class Auxiliary(Section):
    """Further targets of the same trunk in training; their heads are not kept."""

    classes: float = Field(0.5, ge=0, description="Weight of the seven classes' cross-entropy.")
    features: float = Field(
        0.3, ge=0, description="Weight of the published sizes and brightnesses of the cell."
    )
    masks: float = Field(
        1.0,
        ge=0,
        description="Weight of telling nucleus and cell from background at each place of the "
        "last feature map: teaches the size of the nucleus, which holds from slide to slide.",
    )


class Recipe(CommonRecipe):
    """One training run of DeepPap.

    Read with `read_recipe`; ``training/recipes/`` holds those of the project.
    """

    system: Literal["deeppap"] = "deeppap"
    data: Data = Data()  # type: ignore[call-arg]
    network: Network = Network()  # type: ignore[call-arg]
    augmentation: Augmentation = Augmentation()  # type: ignore[call-arg]
    auxiliary: Auxiliary = Auxiliary()  # type: ignore[call-arg]
    final_start: Literal["initial", "folds"] = Field(
        "initial",
        description="What the final model starts from. folds: the mean of the folds' weights "
        "(a model soup, Wortsman et al. 2022); none of them saw the reserve.",
    )
    measuring_epochs: int = Field(
        12, ge=1, le=1000, description="With network.measures: of each measurer."
    )
    views_per_epoch: tuple[int, int] = Field(
        (1, 1), description="Views of a normal and of an abnormal cell in one epoch."
    )
    more_views: dict[str, int] = Field(
        {},
        description="Fine classes that are seen so many times as often, e.g. one that looks like "
        "another and that few slides hold.",
    )
    keep: Literal["last", "best"] = Field(
        "last", description="best: the epoch of lowest validation loss (the paper's)."
    )
    threshold: Literal["balanced", "accuracy", "half"] = Field(
        "accuracy",
        description="balanced: best mean of sensitivity and specificity out of fold. accuracy: "
        "most right out of fold. half: 0.5.",
    )
    evaluation: Literal["fast", "rotations", "balanced", "paper"] = Field(
        "balanced", description="Views with which the reserve, or the frozen part, is scored."
    )
    fold_evaluation: Literal["fast", "rotations", "balanced", "paper"] = Field(
        "rotations",
        description="Views with which the folds are scored. rotations: the centre crop of each "
        "of the ten rotations, every second one mirrored; 10 inputs.",
    )
    evaluation_jitter: int = Field(
        5, ge=0, le=20, description="Pixels by which centres are moved in the robustness numbers."
    )

    @model_validator(mode="after")
    def _parts_fit(self) -> Recipe:
        if self.final_start == "folds" and self.split.run_folds == 0:
            raise ValueError("final_start is 'folds', but split.run_folds is 0")
        if self.final_start == "folds" and self.keep == "best":
            raise ValueError(
                "final_start 'folds' and keep 'best' exclude each other: the folds' models saw "
                "the cells that would choose the epoch"
            )
        fits = self.network.backbone == "squeezenet1_0" and self.data.classes == 2
        if self.network.measures and not fits:
            raise ValueError("network.measures needs squeezenet1_0 and two classes")
        if min(self.views_per_epoch) < 1:
            raise ValueError("views_per_epoch must be at least 1 for either class")
        if any(times < 1 for times in self.more_views.values()):
            raise ValueError("more_views must be at least 1 for each class named")
        return self

    @property
    def inputs(self) -> tuple[int, int]:
        """Network inputs of a cell when a fold is scored, and when the reserve is."""
        return INPUTS[self.fold_evaluation], INPUTS[self.evaluation]

    def thinned(self, share: float) -> Recipe:
        """The recipe with about this share of the views of a cell, one at least."""
        fewer = tuple(max(1, int(v * share)) for v in self.views_per_epoch)
        return self.model_copy(update={"views_per_epoch": fewer})
