"""Fitting a detector of red-cell regions to fields of which every box is known (papers.md 2.2)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_cellpath.core.errors import RecipeError
from napari_cellpath.core.requests import FileImage
from napari_cellpath.slides.windows import image_shape, read
from napari_cellpath.systems import catalogue
from training.fit import Fit, Metrics, StopCheck, cosine_factor, make_fabric
from training.progress import ProgressLog
from training.rbc.initial import load_imagenet
from training.rbc.recipe import RbcDetector, RbcRecipe
from training.rbc.regions import merged_groups
from training.rbc.table import Field

STAGE = "detector"


def build_detector(settings: RbcDetector) -> Any:
    """The detector of a recipe with random weights, or None where it has none.

    Raises
    ------
    RecipeError
        An argument that the architecture does not know.
    """
    if settings.architecture == "none":
        return None
    try:
        return catalogue.build(settings.architecture, **settings.arguments)
    except TypeError as error:
        raise RecipeError(f"detector.arguments of {settings.architecture}: {error}.") from None


def truth_of(field: Field, truth: str) -> np.ndarray:
    """Boxes (n, 4) row0, col0, row1, col1 of a field, of its pixels: as given, or merged."""
    boxes = np.array(field.boxes, dtype=np.int64).reshape(-1, 4)
    if truth == "regions":
        boxes = np.array(
            [
                [*boxes[g][:, :2].min(axis=0), *boxes[g][:, 2:].max(axis=0)]
                for g in merged_groups(boxes)
            ],
            dtype=np.int64,
        ).reshape(-1, 4)
    if field.window is not None:
        boxes = boxes - np.array([*field.window[:2], *field.window[:2]])
    return boxes


def pixels_of(field: Field) -> np.ndarray:
    """The pixels of a field, uint8 (H, W, 3)."""
    source = FileImage(str(field.image))
    row0, col0, row1, col1 = field.window or (0, 0, *image_shape(source))
    return read(source, row0, col0, row1 - row0, col1 - col0)


def scaled(pixels: np.ndarray, scale: float) -> Tensor:
    """Pixels of an image as the detector takes them: (3, H, W) float32 in 0..1."""
    image = torch.from_numpy(np.ascontiguousarray(pixels)).permute(2, 0, 1).float() / 255
    if scale == 1.0:
        return image
    size = [max(1, round(side * scale)) for side in image.shape[1:]]
    return F.interpolate(
        image[None], size=size, mode="bilinear", align_corners=False, antialias=True
    )[0].clamp(0, 1)


@dataclass
class DetectorTrainer:
    """Fits one detector to fields.

    Parameters
    ----------
    recipe
        Its sections ``detector`` and ``network.weights``, and ``seed``, count.
    fields
        To learn from.
    device, say, should_stop, log
        As of `training.trainer.Trainer`.
    parent
        A detector to go on from; None starts from the recipe's initial weights.
    """

    recipe: RbcRecipe
    fields: Sequence[Field]
    device: str = "cpu"
    say: Callable[[str], None] = print
    should_stop: StopCheck | None = None
    log: ProgressLog = field(default_factory=ProgressLog)
    parent: nn.Module | None = None
    origin: str = field(default="", init=False)

    def start(self) -> Any:
        """The network that will learn, with its initial weights, seeded."""
        torch.manual_seed(self.recipe.seed)
        settings = self.recipe.detector
        network = build_detector(settings)
        if self.parent is not None:
            network.load_state_dict(self.parent.state_dict())
            self.origin = "the parent's"
        else:
            self.origin = load_imagenet(
                network.backbone, settings.architecture, self.recipe.network.weights
            )
        network.transform._skip_resize = True  # `scaled` has done it
        network.rpn._pre_nms_top_n["training"] = 2 * settings.proposals
        network.rpn._post_nms_top_n["training"] = settings.proposals
        for sampler in (network.rpn.fg_bg_sampler, network.roi_heads.fg_bg_sampler):
            sampler.batch_size_per_image = settings.samples
        network.roi_heads.fg_bg_sampler.positive_fraction = settings.positives
        return network.to(memory_format=torch.channels_last)

    def seconds(self) -> float:
        """Seconds the training will take here, from the second of two real steps of one field."""
        if self.recipe.detector.architecture == "none" or not self.fields:
            return 0.0
        network = self.start().train()
        loss = self._loss(torch.Generator().manual_seed(0), torch.device("cpu"))
        for _ in range(2):
            started = time.perf_counter()
            loss(network, torch.zeros(1, dtype=torch.int64)).backward()
            taken = time.perf_counter() - started
        s = self.recipe.detector
        return taken * s.iterations * min(s.batch, len(self.fields))

    def run(self, checkpoints: Path, *, resume: bool = False) -> tuple[Any, list[Metrics]]:
        """Train; the detector in evaluation mode, and its history.

        Raises
        ------
        JobCancelledError
            Stopped; ``checkpoints`` holds where to go on.
        """
        settings = self.recipe.detector
        network = self.start()
        fabric = make_fabric(self.device)
        generator = torch.Generator().manual_seed(self.recipe.seed)
        epochs = -(-settings.iterations // len(self._epoch(0)))
        started_at = len(self._epoch(0))

        def on_epoch(metrics: Metrics) -> None:
            done = min((metrics["epoch"] + 1) * started_at, settings.iterations)
            self.say(
                f"{STAGE}: iteration {done} of {settings.iterations}, loss {metrics['loss']:.4f}, "
                f"{metrics['seconds']:.0f} s"
            )
            self.log.write(STAGE, done, settings.iterations, metrics["loss"])

        fit = Fit(
            fabric=fabric,
            module=network,
            optimizer=self._optimiser(network),
            factor=self._factor(),
            batches=self._batches,
            loss=self._loss(generator, fabric.device),
            epochs=epochs,
            checkpoints=checkpoints,
            generators={"views": generator},
            ema=settings.ema,
            clip_norm=settings.clip_norm,
            save_every=50,
            on_epoch=on_epoch,
            should_stop=self.should_stop,
            at_once=settings.at_once,
        )
        return fit.run(resume).eval(), fit.history

    def _epoch(self, epoch: int) -> list[Tensor]:
        order = np.random.default_rng([self.recipe.seed, epoch]).permutation(len(self.fields))
        return list(torch.from_numpy(order).split(min(self.recipe.detector.batch, len(order))))

    def _batches(self, epoch: int) -> Sequence[Tensor]:
        """One epoch's fields; the last epoch ends with the last iteration."""
        batches = self._epoch(epoch)
        return batches[: self.recipe.detector.iterations - epoch * len(batches)]

    def _optimiser(self, network: Any) -> torch.optim.Optimizer:
        s = self.recipe.detector
        body = [p for p in network.backbone.parameters() if p.requires_grad]
        if hasattr(network.backbone, "body"):
            body = [p for p in network.backbone.body.parameters() if p.requires_grad]
        of_body = {id(p) for p in body}
        rest = [p for p in network.parameters() if p.requires_grad and id(p) not in of_body]
        groups = [{"params": body, "lr": s.lr * s.backbone_share}, {"params": rest, "lr": s.lr}]
        decay = s.decay if s.decay_mode == "weight" else 0.0
        if s.optimiser == "sgd":
            return torch.optim.SGD(groups, momentum=s.momentum, weight_decay=decay)
        return torch.optim.AdamW(groups, weight_decay=decay)

    def _factor(self) -> Callable[[int], float]:
        s = self.recipe.detector
        shape: Callable[[int], float] = (
            cosine_factor(s.iterations, s.warmup, s.floor)
            if s.schedule == "cosine"
            else lambda step: min((step + 1) / s.warmup, 1.0) if s.warmup else 1.0
        )
        if s.decay_mode == "rate":
            return lambda step: shape(step) / (1 + s.decay * step)
        return shape

    def _loss(
        self, generator: torch.Generator, device: torch.device
    ) -> Callable[[nn.Module, Tensor], Tensor]:
        """Mean over fields of the four losses of Faster R-CNN (Ren et al. 2015)."""
        settings = self.recipe.detector

        def loss(module: nn.Module, batch: Tensor) -> Tensor:
            images, targets = [], []
            for number in batch.tolist():
                here = self.fields[number]
                boxes = torch.from_numpy(truth_of(here, settings.truth)).float()
                image, boxes = varied(
                    scaled(pixels_of(here), settings.scale), boxes * settings.scale, settings,
                    generator,
                )  # fmt: skip
                boxes = boxes[:, [1, 0, 3, 2]].to(device)
                labels = torch.ones(len(boxes), dtype=torch.int64, device=device)
                images.append(image.to(device))
                targets.append({"boxes": boxes, "labels": labels})
            parts = module(images, targets)
            return torch.stack([parts[k] for k in sorted(parts)]).sum()

        return loss


def varied(
    image: Tensor, boxes: Tensor, settings: RbcDetector, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A field mirrored, turned and coloured at random; boxes are row0, col0, row1, col1."""

    def chance() -> float:
        return float(torch.rand((), generator=generator))

    if settings.flips:
        for axis in (0, 1):
            if chance() < 0.5:
                length = image.shape[1 + axis]
                image = image.flip(1 + axis)
                low, high = boxes[:, axis].clone(), boxes[:, axis + 2].clone()
                boxes = boxes.clone()
                boxes[:, axis], boxes[:, axis + 2] = length - high, length - low
        if chance() < 0.5:
            image, boxes = image.transpose(1, 2).contiguous(), boxes[:, [1, 0, 3, 2]]
    if settings.gain > 0:
        channels = torch.rand(3, 1, 1, generator=generator) * 2 - 1
        gain = (1 + settings.gain * (2 * chance() - 1)) * (1 + settings.gain * 2 / 3 * channels)
        image = (image * gain + settings.gain / 3 * (2 * chance() - 1)).clamp(0, 1)
    return image, boxes
