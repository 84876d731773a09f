"""A training recipe of HEp-2. What it shares with the others is in `training.recipe`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from napari_cellpath.core.vocabulary import Average, Channel, Contrast
from napari_cellpath.systems.hep2.cells import SIZE
from training.recipe import CommonRecipe, Looks, Optimiser, Section, Source


class Hep2Data(Source):
    """What is learnt from."""

    layout: Literal["hep2", "folders", "project"] = Field(
        "hep2",
        description="hep2: labels.csv with file, class_name and specimen (or pseudo_group), one "
        "cell an image. folders: one folder of single-cell images a pattern. project: "
        "NAME.cellpath, its labelled boxes and its own split; for fine-tuning.",
    )
    folder: str = Field(
        "hep2_i3a", description="A path, or the name of a folder inside CELLPATH_DATA."
    )
    channel: Channel = Field(
        Channel.GREEN, description="Which plane of a colour image is looked at."
    )


class Hep2Network(Section):
    """What learns, and what it is shown."""

    architecture: Literal["resnet8", "nin10", "nin-matconvnet"] = Field(
        "resnet8", description="The last two are the paper's, as reconstructed (papers.md 4.3)."
    )
    arguments: dict[str, float | int | str | bool] = Field(
        {}, description="Passed to the architecture, e.g. width."
    )
    init: Literal["he", "paper"] = Field(
        "he",
        description="paper: a deviation of 0.001, which cannot train this depth; for "
        "demonstration, with a warning.",
    )
    members: int = Field(
        1,
        ge=1,
        le=10,
        description="The networks of so many last epochs vote by their mean probability; the "
        "paper's are 3.",
    )
    size: int = Field(
        SIZE,
        ge=7,
        le=512,
        description="Side of the square the cell is resized to, pixels; 60 is the paper's.",
    )
    contrast: Contrast = Field(
        Contrast.MINMAX,
        description="none: intensities / 255 (the paper). minmax: each crop's own darkest to "
        "brightest pixel becomes 0..1.",
    )
    framing: float = Field(
        1.3,
        ge=1.0,
        le=3.0,
        description="Side of the square looked at, in lengths of the longer side of a nucleus' "
        "box; images of single cells are taken whole.",
    )

    @model_validator(mode="after")
    def _init_of_the_papers_networks(self) -> Hep2Network:
        if self.init == "paper" and self.architecture == "resnet8":
            raise ValueError("init 'paper' is of nin10 and nin-matconvnet only")
        return self


class Sampling(Section):
    """Which cells are learnt from, and how often each; none of it touches who is tested."""

    per_specimen: int = Field(
        0,
        ge=0,
        description="At most so many cells of each specimen, at random; 0: all. The paper's set-3 "
        "takes 41.",
    )
    copies: Literal[1, 2, 4, 8] = Field(
        1,
        description="Views of each cell in an epoch: 2, as it is and turned by 90 degrees; 4, the "
        "four turns; 8, their mirrors too, the paper's set-2.",
    )
    copies_of: dict[str, Literal[1, 2, 4, 8]] = Field(
        {}, description="The same for single patterns, e.g. {NuMem: 4, Golgi: 8}, instead."
    )


class Hep2Augmentation(Section):
    """How views vary in training."""

    rotation: Literal["none", "right", "any"] = Field(
        "any", description="right: by right angles, which changes no pixel. any: by any angle."
    )
    mirror: bool = Field(True, description="Half of the views are mirrored.")
    scale: float = Field(
        0.15, ge=0, le=0.5, description="Zoom by up to this much, natural logarithm."
    )
    aspect: float = Field(
        0.08, ge=0, le=0.3, description="Stretch one way, shrink the other; natural logarithm."
    )
    shift: float = Field(0.06, ge=0, le=0.3, description="By up to this share of the side.")
    gamma: float = Field(
        0.5, ge=0, le=1.5, description="Intensities to the power exp(-gamma .. gamma)."
    )
    gain: tuple[float, float] = Field((0.7, 1.15), description="Intensities are multiplied by.")
    offset: tuple[float, float] = Field((-0.05, 0.1), description="Then this is added.")
    blur: float = Field(
        1.0,
        ge=0,
        le=1,
        description="Half of the views are mixed with their blurred selves, up to this share.",
    )
    noise: float = Field(
        0.06, ge=0, le=0.5, description="Half of the views get noise of up to this deviation."
    )

    @model_validator(mode="after")
    def _ranges(self) -> Hep2Augmentation:
        for key in ("gain", "offset"):
            low, high = getattr(self, key)
            if low > high:
                raise ValueError(f"{key} is from {low} to {high}, which is no range")
        return self


class Hep2Recipe(CommonRecipe):
    """One training run of HEp-2; ``training/recipes/hep2-*.yaml`` spell out every key."""

    system: Literal["hep2"] = "hep2"
    data: Hep2Data = Hep2Data()  # type: ignore[call-arg]
    network: Hep2Network = Hep2Network()  # type: ignore[call-arg]
    optimiser: Optimiser = Optimiser(lr_trunk=3e-3, lr_head=3e-3, ema=0.995)  # type: ignore[call-arg]
    sampling: Sampling = Sampling()  # type: ignore[call-arg]
    augmentation: Hep2Augmentation = Hep2Augmentation()  # type: ignore[call-arg]
    batch: int = Field(64, ge=1, le=4096)
    evaluation: Looks = Field(
        Average.NONE,
        description="How the reserve, or the frozen part, is looked at, and by default whatever "
        "the model is used on: none, as it is; d4: mean over the eight turns and mirrors.",
    )
    fold_evaluation: Looks = Field(Average.NONE, description="How the folds are looked at.")

    @property
    def inputs(self) -> tuple[int, int]:
        """Network inputs of a cell when a fold is scored, and when the reserve is."""
        return self.fold_evaluation.ways, self.evaluation.ways
