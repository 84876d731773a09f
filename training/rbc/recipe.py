"""A training recipe of RBC. What it shares with the others is in `training.recipe`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from napari_cellpath.core.vocabulary import Average
from training.recipe import (
    CommonRecipe,
    FineTune,
    Looks,
    Optimiser,
    Schedule,
    Section,
    Source,
    Split,
)


class RbcData(Source):
    """What is learnt from."""

    layout: Literal["chula", "regions", "project"] = Field(
        "chula",
        description="chula: boxes_derived.csv, a box a cell, many without a type. regions: "
        "boxes.csv, or a mask of each image in masks/, and labels.csv, several labels a region. "
        "project: NAME.cellpath, its labelled boxes and its own split; for fine-tuning.",
    )
    folder: str = Field(
        "chula_rbc12", description="A path, or the name of a folder inside CELLPATH_DATA."
    )
    connectivity: Literal[4, 8] = Field(
        8, description="regions: 8, pixels of a mask that meet at a corner are one region."
    )
    min_area: int = Field(20, ge=1, description="regions: smaller components are left out, pixels.")


class RbcRegions(Section):
    """Which boxes are learnt from."""

    single: bool = Field(True, description="Regions of one cell.")
    multi: bool = Field(True, description="Regions of several cells.")
    cells: bool = Field(
        True, description="Also each typed cell of a region of several, in its own box."
    )
    partial: bool = Field(
        True,
        description="Also regions of which some cells carry no type: what is there counts, the "
        "rest is masked.",
    )

    @model_validator(mode="after")
    def _something(self) -> RbcRegions:
        if not (self.single or self.multi or self.cells):
            raise ValueError("single, multi and cells are all off; nothing is left to learn from")
        return self


Trunk = Literal["squeezenet-features", "resnet18-features", "resnet50-features"]
Detector = Literal[
    "none", "squeezenet-fpn", "mobilenetv3-fpn", "resnet18-fpn", "resnet50-fpn", "resnet101-fpn",
    "resnet101-c4",
]  # fmt: skip


class RbcNetwork(Section):
    """Trunk and heads, and what they are shown."""

    trunk: Trunk = Field("squeezenet-features", description="The paper's is resnet50-features.")
    hidden: int = Field(128, ge=1, le=4096, description="Of each head; the paper's are 512.")
    dropout: float = Field(0.2, ge=0, lt=1, description="Of the hidden units; the paper has none.")
    weights: str = Field(
        "squeezenet_imagenet",
        description="What trunk and detector start from: a folder (or its name inside "
        "CELLPATH_DATA) with squeezenet1_0.safetensors; torchvision, its ImageNet weights, "
        "downloaded; none.",
    )
    size: int = Field(80, ge=32, le=512, description="Side of a patch, pixels; 224 is the paper's.")
    fit: Literal["stretch", "letterbox"] = Field(
        "letterbox", description="stretch: sides scaled apart, the paper's. letterbox: not."
    )
    least: int = Field(
        56,
        ge=0,
        le=1000,
        description="letterbox: the patch shows at least so many pixels of the image, so that "
        "small cells look small; 0: every box fills it.",
    )


class RbcAugmentation(Section):
    """How patches vary while the trunk learns."""

    rotation: Literal["none", "right", "any"] = Field(
        "right", description="right: by right angles. any: by any angle."
    )
    mirror: bool = Field(True, description="Half of the patches are mirrored.")
    scale: float = Field(0.06, ge=0, le=0.5, description="Zoom, natural logarithm.")
    shift: float = Field(0.04, ge=0, le=0.3, description="By up to this share of the side.")
    gain: float = Field(0.15, ge=0, le=0.5, description="Brightness times 1 - gain .. 1 + gain.")
    colour: float = Field(0.07, ge=0, le=0.5, description="Each channel by up to this share.")
    contrast: float = Field(0.2, ge=0, le=0.9, description="Distance from the mean, by this share.")
    offset: float = Field(0.06, ge=0, le=0.5, description="Added to all, up to this much.")


class RbcDetector(Section):
    """The detector of regions, trained apart from the heads."""

    architecture: Detector = Field(
        "squeezenet-fpn", description="none: the model labels boxes and finds none."
    )
    arguments: dict[str, Any] = Field({}, description="Passed to the architecture.")
    scale: float = Field(
        1.0,
        ge=0.1,
        le=10.0,
        description="Images are enlarged by this before the detector sees them; below 1 they "
        "shrink, and it is quicker.",
    )
    score: float = Field(
        0.5, ge=0, lt=1, description="Detections of at least this score are worth showing."
    )
    truth: Literal["cells", "regions"] = Field(
        "cells",
        description="cells: the boxes as the data give them. regions: those that share a pixel "
        "are merged, the paper's.",
    )
    optimiser: Literal["sgd", "adamw"] = Field("adamw", description="sgd: the paper's, momentum.")
    lr: float = Field(1e-3, gt=0, description="Highest learning rate.")
    backbone_share: float = Field(
        0.25, gt=0, le=1, description="Of the rate, for the backbone; 1 for the paper's."
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="sgd only.")
    decay: float = Field(0.01, ge=0, description="Of what decay_mode says.")
    decay_mode: Literal["weight", "rate"] = Field(
        "weight",
        description="weight: of the weights. rate: lr / (1 + decay x iteration), as Keras has it "
        "(papers.md 2.8c).",
    )
    schedule: Literal["cosine", "constant"] = Field(
        "cosine", description="How the rate changes after the warm-up."
    )
    warmup: int = Field(60, ge=0, description="Iterations in which the rate rises from nought.")
    floor: float = Field(0.03, ge=0, le=1, description="cosine: share of the rate at the end.")
    iterations: int = Field(600, ge=1, description="Optimiser steps; the paper's 'epoch (1000)'.")
    batch: int = Field(2, ge=1, le=256, description="Images a step; the paper's are 10.")
    at_once: int = Field(1, ge=1, description="Images in memory at once; gradients add up.")
    ema: float = Field(
        0.98, ge=0, lt=1, description="Decay of the moving average of weights; 0: none."
    )
    clip_norm: float = Field(5.0, ge=0, description="Largest gradient norm; 0: not clipped.")
    proposals: int = Field(500, ge=1, description="Kept of the first stage in training.")
    samples: int = Field(256, ge=1, description="Proposals learnt from in each image.")
    positives: float = Field(0.4, gt=0, lt=1, description="Share of them that hold something.")
    flips: bool = Field(True, description="Images are mirrored and turned at random.")
    gain: float = Field(0.15, ge=0, le=0.5, description="Brightness and colour vary by this.")


class RbcBooster(Section):
    """Gradient boosting on out-of-fold probabilities (papers.md 2.4); scikit-learn's defaults."""

    trees: int = Field(100, ge=1, le=2000, description="Boosting stages.")
    rate: float = Field(0.1, gt=0, le=1, description="Share of each tree that is added.")
    depth: int = Field(3, ge=1, le=8, description="Of each tree.")
    subsample: float = Field(1.0, gt=0, le=1, description="Share of the boxes each tree sees.")
    folds: int = Field(5, ge=2, le=20, description="Of the heads on frozen features.")


class RbcOptimiser(Optimiser):
    """How weights move."""

    name: Literal["sgd", "adamw", "adam"] = Field(  # type: ignore[assignment]
        "adamw", description="adam: weight_decay is plain L2, as the paper's."
    )


class RbcSplit(Split):
    """Who is on which side."""

    mode: Literal["group", "cell"] = Field(
        "group", description="group: a block of images is never on two sides."
    )


class RbcFineTune(FineTune):
    """Going on from a finished model."""

    detector: bool = Field(
        False,
        description="Also train the detector, on the rectangles of the project that are marked "
        "'complete here'.",
    )


class RbcRecipe(CommonRecipe):
    """One training run of RBC; ``training/recipes/rbc-*.yaml`` spell out every key."""

    system: Literal["rbc"] = "rbc"
    finetune: RbcFineTune | None = Field(
        None, description="Go on from a finished model; left out: start from initial weights."
    )
    data: RbcData = RbcData()  # type: ignore[call-arg]
    regions: RbcRegions = RbcRegions()  # type: ignore[call-arg]
    network: RbcNetwork = RbcNetwork()  # type: ignore[call-arg]
    learning: Literal["trunk", "heads"] = Field(
        "trunk",
        description="heads: features are computed once and stay, the paper's. trunk: it learns "
        "too.",
    )
    split: RbcSplit = RbcSplit()  # type: ignore[call-arg]
    optimiser: RbcOptimiser = RbcOptimiser()  # type: ignore[call-arg]
    schedule: Schedule = Schedule()  # type: ignore[call-arg]
    augmentation: RbcAugmentation = RbcAugmentation()  # type: ignore[call-arg]
    detector: RbcDetector = RbcDetector()  # type: ignore[call-arg]
    booster: RbcBooster = RbcBooster()  # type: ignore[call-arg]
    balance: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Where a type is there its loss weighs (absent / present) to this power; 0: "
        "as much as where it is not, the paper's.",
    )
    label_smoothing: float = Field(0.02, ge=0, lt=0.5)
    patience: int = Field(
        0, ge=0, description="heads: stop after so many epochs without a better inner validation."
    )
    evaluation: Looks = Field(
        Average.NONE,
        description="Ways round a box over which the trunk's features are averaged, in the reserve "
        "and whatever the model is used on: none, as it lies, the paper's; d4: the eight turns and "
        "mirrors. A fine-tuned model looks as its parent does.",
    )
    fold_evaluation: Looks = Field(
        Average.NONE, description="The same for the folds, on which the booster is fitted."
    )

    @property
    def inputs(self) -> tuple[int, int]:
        """Network inputs of a box when a fold is scored, and when the reserve is."""
        return self.fold_evaluation.ways, self.evaluation.ways
