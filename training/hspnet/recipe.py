"""A training recipe of HSP-Net. What it shares with the others is in `training.recipe`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from napari_cellpath.core.vocabulary import Blend
from training.recipe import CommonRecipe, Optimiser, Schedule, Section, Source, Split


class HspData(Source):
    """What is learnt from."""

    layout: Literal["mtchi", "glas", "project"] = Field(
        "mtchi",
        description="mtchi: images/, masks/ of the same names (class numbers, or the paper's five "
        "colours) and slides.csv (file, slide or patient, and fold or test if known). glas: "
        "labels.csv with file and patient_id, images/ and masks3/. project: NAME.cellpath, what "
        "is painted and its own split; for fine-tuning.",
    )
    folder: str = Field(
        "mtchi", description="A path, or the name of a folder inside CELLPATH_DATA."
    )


class HspNetwork(Section):
    """What learns."""

    architecture: Literal[
        "hspnet-resnet101", "hspnet-resnet34", "hspnet-resnet18", "hspnet-squeezenet", "unet"
    ] = Field(
        "hspnet-resnet101",
        description="The first two are the paper's. unet: a plain U-Net, to be measured beside "
        "the others by `cellpath reproduce`; it makes no model.",
    )
    arguments: dict[str, float | int | bool] = Field(
        {},
        description="Passed to the architecture: width scales everything behind the encoder (of "
        "unet, all channels); ds14 and ds5 false are the paper's ablations; clip_dilation.",
    )
    weights: str = Field(
        "torchvision",
        description="Of the encoder. torchvision: ImageNet's, downloaded through torchvision's "
        "weights API. squeezenet_imagenet: the safetensors file of that folder inside "
        "CELLPATH_DATA. none: from scratch. Otherwise the path of a safetensors file.",
    )


class Crops(Section):
    """What is cut out of the regions to learn from."""

    side: int = Field(400, ge=32, le=1024, description="Pixels; the paper's are 400.")
    stride: int = Field(100, ge=8, le=1024, description="Between crops of one region, pixels.")
    foreground: float = Field(
        0.2, ge=0, le=1, description="Crops with a smaller share of tissue classes are left out."
    )
    per_epoch: int = Field(
        0,
        ge=0,
        description="So many crops make an epoch, drawn evenly over the tissue classes and within "
        "them over the regions; 0: every crop once, as in the paper.",
    )


class HspAugmentation(Section):
    """How crops vary in training."""

    turns: Literal["none", "d4"] = Field(
        "none", description="d4: the four turns and their mirrors. none: the paper, as far as told."
    )
    shift: int = Field(
        0, ge=0, le=512, description="Crops move by up to so many pixels within their region."
    )
    scale: float = Field(
        0.0, ge=0, le=0.5, description="Zoom by up to this much, natural logarithm."
    )
    stain: float = Field(
        0.0, ge=0, le=1, description="Amounts of haematoxylin, eosin and rest vary by this share."
    )
    colour: float = Field(
        0.0, ge=0, le=0.5, description="Brightness, contrast and saturation vary."
    )
    hue: float = Field(0.0, ge=0, le=0.5, description="Hue turns by up to this share of a circle.")
    grey: float = Field(0.0, ge=0, le=1, description="Share of crops without colour.")
    blur: float = Field(
        0.0, ge=0, le=1.3, description="Half of the crops are blurred, up to this sigma, pixels."
    )


class Loss(Section):
    """What is made small."""

    name: Literal["cross_entropy", "ordinal_elastic", "cdw_ce"] = Field(
        "cross_entropy",
        description="ordinal_elastic is ours, inspired by the paper's AE-Loss, whose formula was "
        "not available to us; results with it are no reproduction of it. cdw_ce: Polat et al., "
        "arXiv 2412.01246.",
    )
    elasticity: float = Field(
        1.0, ge=0, le=100, description="ordinal_elastic: weight of the spring; 0: cross_entropy."
    )
    distance_power: float = Field(5.0, gt=0, le=20, description="cdw_ce: exponent of the distance.")


class HspSplit(Split):
    """Who is on which side."""

    reserve_groups: tuple[str, ...] = Field(
        (), description="These groups are set apart, instead of a share that is dealt out."
    )


class HspSchedule(Schedule):
    """How learning rates change."""

    each: Literal["step", "epoch"] = Field(
        "step", description="cosine: rates change at every step, or once an epoch (the paper)."
    )


class Tiles(Section):
    """How whole regions are looked at when they are measured, and by default ever after."""

    stride: int = Field(
        100, ge=8, le=1024, description="Between tiles of the crops' side, pixels; the paper's 100."
    )
    blend: Literal[Blend.RBF, Blend.EXP, Blend.COS, Blend.NONE] = Field(
        Blend.RBF, description="Weight of a tile's pixels where tiles overlap (none: no overlap)."
    )


class HspRecipe(CommonRecipe):
    """One training run of HSP-Net; ``training/recipes/hspnet-*.yaml`` spell out every key."""

    system: Literal["hspnet"] = "hspnet"
    data: HspData = HspData()  # type: ignore[call-arg]
    split: HspSplit = HspSplit()  # type: ignore[call-arg]
    network: HspNetwork = HspNetwork()  # type: ignore[call-arg]
    crops: Crops = Crops()  # type: ignore[call-arg]
    augmentation: HspAugmentation = HspAugmentation()  # type: ignore[call-arg]
    loss: Loss = Loss()  # type: ignore[call-arg]
    optimiser: Optimiser = Optimiser(  # type: ignore[call-arg]
        name="sgd", lr_trunk=1e-3, lr_head=1e-2, weight_decay=5e-4, clip_norm=0.0, ema=0.0
    )
    schedule: HspSchedule = HspSchedule(  # type: ignore[call-arg]
        warmup_epochs=0.0, floor=0.0, each="epoch"
    )
    tiles: Tiles = Tiles()  # type: ignore[call-arg]
    epochs: int = Field(30, ge=1, le=1000, description="Of the final model.")
    batch: int = Field(
        16, ge=2, le=4096, description="Two at least: a branch normalises one number an image."
    )
    balance: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Loss weights are (1/frequency) to this power; 1: equal say.",
    )
    label_smoothing: float = Field(0.0, ge=0, lt=0.5, description="Of cross_entropy alone.")
    evaluation: Literal["tiles"] = Field(
        "tiles", description="How regions are looked at: whole, in the tiles of that section."
    )
    fold_evaluation: Literal["tiles"] = Field("tiles", description="The same, for the folds.")

    @model_validator(mode="after")
    def _tiles_overlap(self) -> HspRecipe:
        if self.tiles.blend is not Blend.NONE and self.tiles.stride > self.crops.side:
            raise ValueError(
                f"tiles.stride is {self.tiles.stride}, more than the tile's side of "
                f"{self.crops.side}: pixels between tiles would belong to none"
            )
        return self

    @property
    def inputs(self) -> tuple[int, int]:
        """Tiles of a region of about twice the side each way, as budgets reckon."""
        stride = self.crops.side if self.tiles.blend is Blend.NONE else self.tiles.stride
        along = 1 + -(-self.crops.side // stride)
        return along**2, along**2
