"""Fitting one HSP-Net to crops of labelled regions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_cellpath.core.errors import MissingFileError, ModelError, RecipeError
from napari_cellpath.models.format import tensors_from_file
from napari_cellpath.systems import catalogue
from napari_cellpath.systems.hspnet.network import WideConv, imagenet_weights, load_imagenet
from training.datasets import CellData, find_folder
from training.fit import Fit, Metrics
from training.hspnet.baseline import UNet
from training.hspnet.crops import CropList, Region, cut_crops, draw_crops
from training.hspnet.losses import IGNORE, cross_entropy, make_pixel_loss
from training.hspnet.recipe import HspAugmentation, HspNetwork, HspRecipe
from training.trainer import HUGE_LOSS, Learner, Rows, Trainer

BASELINE = "unet"
_NARROW = 16
"""Output channels up to which a dilated convolution is quicker as nine 1x1 ones, in training."""


def build(settings: HspNetwork, n_classes: int) -> tuple[nn.Module, str]:
    """The network of a recipe with its initial weights, in float32, and what those were.

    Raises
    ------
    MissingFileError, ModelError, RecipeError
        The weights are not there or do not fit; an argument that the architecture does not know.
    """
    try:
        if settings.architecture == BASELINE:
            return UNet(n_classes, **settings.arguments), "random weights"
        network = catalogue.build(settings.architecture, n_classes=n_classes, **settings.arguments)
    except TypeError as error:
        raise RecipeError(f"network.arguments of {settings.architecture}: {error}.") from None
    # Kaiming's rule by outputs gives three classes logits of a deviation of 5: a short run would
    # spend its first epoch on unlearning them.
    nn.init.normal_(network.head[-1].weight, std=0.01)
    if settings.weights == "none":
        return network, "random weights"
    if settings.weights == "torchvision":
        load_imagenet(network, imagenet_weights(settings.architecture))
        return network, "torchvision's ImageNet weights"
    if settings.weights == "squeezenet_imagenet":
        path = find_folder("squeezenet_imagenet") / "squeezenet1_0.safetensors"
    else:
        path = Path(settings.weights).expanduser()
    if not path.is_file():
        raise MissingFileError(f"network.weights: there is no file {path}.")
    arrays = tensors_from_file(path)
    try:
        load_imagenet(
            network, {k: torch.from_numpy(np.array(v)).float() for k, v in arrays.items()}
        )
    except ValueError as error:
        raise ModelError(f"{path}: {error}.") from None
    return network, f"{path.name} (ImageNet)"


class TapConv(WideConv):
    """The same sums as `WideConv`, as nine 1x1 convolutions shifted and added.

    A dilated convolution to few channels spends its time on memory: for stage 1 the backward pass
    takes a third as long this way. Only while a network learns; what is kept is a `WideConv`.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H, W)."""
        height, width = x.shape[2:]
        rate = max(1, min(self.rate, height - 1, width - 1)) if self.clip else self.rate
        flat = self.weight.permute(2, 3, 0, 1).flatten(0, 2)[:, :, None, None]
        taps = F.conv2d(x, flat).unflatten(1, (9, self.out_channels))
        total = taps[:, 4].clone()
        for place in (0, 1, 2, 3, 5, 6, 7, 8):
            down, right = (place // 3 - 1) * rate, (place % 3 - 1) * rate
            if abs(down) >= height or abs(right) >= width:
                continue  # this tap sees only what lies beyond the border
            to = _overlap(height, -down), _overlap(width, -right)
            of = _overlap(height, down), _overlap(width, right)
            total[:, :, to[0], to[1]] += taps[:, place, :, of[0], of[1]]
        return total


def _overlap(length: int, shift: int) -> slice:
    """What is left of an axis when it is moved back by ``shift``."""
    return slice(max(shift, 0), length + min(shift, 0))


def learning_form(network: nn.Module) -> None:
    """Give a network's narrow dilated convolutions the form that learns faster."""
    for layer in network.modules():
        if type(layer) is WideConv and layer.out_channels <= _NARROW:
            layer.__class__ = TapConv


def plain_form(network: nn.Module) -> None:
    """Inverse of `learning_form`."""
    for layer in network.modules():
        if type(layer) is TapConv:
            layer.__class__ = WideConv  # type: ignore[assignment]


class Learning(Learner):
    """A network while it learns.

    With ``still`` its batch normalisation keeps the statistics it has: those of a few corrected
    regions would be worse.
    """

    def __init__(self, network: nn.Module, still: bool = False) -> None:
        super().__init__()
        self.network = network
        self.still = still
        learning_form(network)

    def train(self, mode: bool = True) -> Learning:
        """Switch to training, or back."""
        super().train(mode)
        for layer in self.modules() if self.still else ():
            if isinstance(layer, nn.BatchNorm2d):
                layer.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, n_classes, H, W) of images (N, 3, H, W) in 0..255."""
        logits: Tensor = self.network(images)
        return logits


def epoch_cosine(steps_per_epoch: int, epochs: int) -> Callable[[int], float]:
    """Share of the learning rates at a step: half a cosine over the epochs (papers.md 3.4)."""

    def factor(step: int) -> float:
        epoch = min(step // max(steps_per_epoch, 1), epochs)
        return 0.5 * (1 + math.cos(math.pi * epoch / epochs))

    return factor


@dataclass
class HspTrainer(Trainer[HspRecipe]):
    """A `Trainer` of HSP-Net; ``regions`` are the records' pixels, ``crops`` where to cut.

    A batch holds numbers of crops.
    """

    data: CellData
    regions: Sequence[Region]
    crops: CropList

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Of one crop: channels, height, width."""
        return 3, self.recipe.crops.side, self.recipe.crops.side

    @property
    def n_classes(self) -> int:
        """Outputs of the network."""
        return len(self.data.fine_classes)

    def start(self, _rows: Rows, seed: int) -> Learner:
        """Build the network with its initial weights, seeded."""
        torch.manual_seed(seed)
        network, self.origin = build(self.recipe.network, self.n_classes)
        return Learning(network).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def optimiser(self, module: Learner) -> torch.optim.Optimizer:
        """The paper's two rates: the encoder's, and that of everything else."""
        o = self.recipe.optimiser
        encoder = getattr(module.network, "encoder", None)
        slow = [] if encoder is None else list(encoder.parameters())
        known = {id(p) for p in slow}
        groups = [
            {"params": [p for p in slow if p.requires_grad], "lr": o.lr_trunk},
            {
                "params": [
                    p for p in module.parameters() if id(p) not in known and p.requires_grad
                ],
                "lr": o.lr_head,
            },
        ]
        groups = [g for g in groups if g["params"]]
        if o.name == "sgd":
            return torch.optim.SGD(
                groups, lr=o.lr_head, momentum=o.momentum, weight_decay=o.weight_decay
            )
        return torch.optim.AdamW(groups, lr=o.lr_head, weight_decay=o.weight_decay)

    def factor(self, steps_per_epoch: int, epochs: int) -> Callable[[int], float]:
        """How the learning rates change over the steps."""
        s = self.recipe.schedule
        if s.kind == "cosine" and s.each == "epoch":
            return epoch_cosine(steps_per_epoch, epochs)
        return super().factor(steps_per_epoch, epochs)

    def batches(self, rows: Rows, epoch: int, seed: int) -> Sequence[Tensor]:
        """One epoch's crops in whole batches: a last one that is not full is left out.

        A single batch is filled up by repeating its crops.
        """
        drawn = draw_crops(self.crops, rows, self.recipe.crops, epoch, seed)
        size = self.recipe.batch
        if len(drawn) < size:
            drawn = np.resize(drawn, size)
        whole = len(drawn) // size * size
        return torch.from_numpy(drawn[:whole]).split(size)

    def make_loss(
        self, rows: Rows, generator: torch.Generator, device: torch.device
    ) -> Callable[[nn.Module, Tensor], Tensor]:
        """The recipe's loss on varied crops."""
        r = self.recipe
        pixel_loss = make_pixel_loss(r.loss, r.label_smoothing)
        weights = None
        if r.balance > 0:
            weights = pixel_weights(self.regions, rows, self.n_classes, r.balance).to(device)

        def loss(module: nn.Module, batch: Tensor) -> Tensor:
            places = self.crops.places[batch.numpy()]
            images, classes = cut_crops(
                self.regions, places, r.crops.side, r.augmentation, generator
            )
            images = images.to(device).contiguous(memory_format=torch.channels_last)
            logits: Tensor = module(images)
            total = pixel_loss(logits, classes.to(device), weights)
            return total + self.further_loss(module, images, logits, generator)

        return loss

    def validation_loss(self, rows: Rows) -> Callable[[nn.Module], Metrics]:
        """Cross-entropy of every crop of ``rows`` as it is, for keeping the best epoch."""
        mine = torch.from_numpy(self.crops.of(rows))
        quiet = HspAugmentation()  # type: ignore[call-arg]

        def validate(module: nn.Module) -> Metrics:
            device = next(module.parameters()).device
            total, pixels = 0.0, 0
            with torch.inference_mode():
                for some in mine.split(self.recipe.batch):
                    images, classes = cut_crops(
                        self.regions, self.crops.places[some.numpy()], self.recipe.crops.side,
                        quiet, torch.Generator(),
                    )  # fmt: skip
                    n = int((classes != IGNORE).sum())
                    given = module(images.to(device))
                    total += n * float(cross_entropy(given, classes.to(device)))
                    pixels += n
            return {"validation_loss": min(total / max(pixels, 1), HUGE_LOSS)}

        return validate

    def fit(self, *args: Any, **options: Any) -> tuple[Any, Fit]:
        """See `Trainer.fit`; the network that is kept has its plain form."""
        network, run = super().fit(*args, **options)
        plain_form(network)
        return network, run


def pixel_weights(regions: Sequence[Region], rows: Rows, n_classes: int, power: float) -> Tensor:
    """(1 / frequency) ** power of the classes' pixels, their mean over the pixels 1."""
    counts = torch.zeros(n_classes)
    for row in rows.tolist():
        classes = regions[row].classes
        counts += torch.from_numpy(
            np.bincount(classes[classes != IGNORE], minlength=n_classes)
        ).float()
    weights = torch.where(counts > 0, counts.clamp(min=1.0) ** -power, torch.zeros(()))
    return weights * counts.sum() / (weights * counts).sum()
