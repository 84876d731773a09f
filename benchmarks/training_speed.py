"""P9: images a second of our training loop against a torchvision-shaped one, same network.

Both train the starter recipe's network with the same layers frozen, the same batch and a plain
cross-entropy. The reference is what torchvision's own classification script does: PIL images,
transforms in DataLoader workers, float32, contiguous NCHW.
"""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.measuring import interleave
from napari_cellpath.backend.device import choose_device
from napari_cellpath.samples.fields import cytology_field
from training.augment import WINDOW, cut_window, random_crops, random_views
from training.recipe import read_recipe

BATCH, BATCHES = 32, 4
RECIPE = Path(__file__).parents[1] / "training" / "recipes" / "deeppap-herlev.yaml"


class Pictures(Dataset[tuple[torch.Tensor, int]]):
    """Square pictures round nuclei, transformed one by one."""

    def __init__(self, pictures: list[Image.Image], labels: list[int]) -> None:
        self.pictures, self.labels = pictures, labels
        self.transform = transforms.Compose(
            [
                transforms.RandomAffine(
                    180, translate=(10 / WINDOW, 10 / WINDOW),
                    interpolation=transforms.InterpolationMode.BILINEAR,
                ),
                transforms.CenterCrop(128),
                transforms.Resize(256),
                transforms.ColorJitter(0.25, 0.25, 0.25, 0.05),
                transforms.GaussianBlur(5, (0.1, 0.6)),
                transforms.RandomCrop(227),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
            ]
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return self.transform(self.pictures[i]), self.labels[i]


def _network() -> nn.Module:
    from napari_cellpath.systems.catalogue import build

    recipe = read_recipe(RECIPE)
    network: nn.Module = build(recipe.network.backbone, n_classes=2)
    for layer in list(network.trunk.children())[: recipe.network.frozen_layers]:
        layer.requires_grad_(False)
    return network.train()


def _optimiser(network: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-5)


def measure(device: str, rounds: int) -> dict[str, Any]:
    """Images a second of both loops and of the pure step; and their ratios."""
    torch.manual_seed(0)
    settings = read_recipe(RECIPE).augmentation
    field = cytology_field()
    n = BATCH * BATCHES
    centres = field.centres[np.arange(n) % len(field.centres)]
    cut = [cut_window(field.image, (float(r), float(c)), mask=None) for r, c in centres]
    windows = torch.from_numpy(np.stack([w.pixels for w in cut])).to(device)
    grounds = torch.from_numpy(np.stack([w.background for w in cut])).to(device)
    labels = torch.from_numpy(field.abnormal[np.arange(n) % len(field.centres)].astype(np.int64))
    on_device = labels.to(device)
    pictures = [Image.fromarray(w.pixels[:3].transpose(1, 2, 0)) for w in cut]
    workers = min(os.cpu_count() or 1, 8)
    loader = DataLoader(
        Pictures(pictures, labels.tolist()), BATCH, shuffle=True, num_workers=workers,
        persistent_workers=True, drop_last=True,
    )  # fmt: skip
    plain = _network().to(device)
    ours = copy.deepcopy(plain).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    plain_optimiser, our_optimiser = _optimiser(plain), _optimiser(ours)
    generator = torch.Generator().manual_seed(0)
    bf16 = choose_device(device).precision == "bf16"  # as a recipe's precision 'auto'

    def step(network: nn.Module, optimiser: Any, crops: torch.Tensor, wanted: torch.Tensor) -> None:
        optimiser.zero_grad()
        with torch.autocast(device, dtype=torch.bfloat16, enabled=bf16 and network is ours):
            loss = F.cross_entropy(network(crops), wanted)
        loss.backward()
        optimiser.step()

    def reference() -> None:
        for crops, wanted in loader:
            step(plain, plain_optimiser, crops.to(device), wanted.to(device))
        _wait(device)

    def whole() -> None:
        for some in torch.randperm(n, generator=generator).split(BATCH):
            views = random_views(windows[some], grounds[some], settings, generator)
            crops = random_crops(ours.normalise(views[:, :3]), generator)  # type: ignore[operator]
            step(ours, our_optimiser, crops, on_device[some])
        _wait(device)

    fixed = torch.randn(BATCH, 3, 227, 227, device=device)
    fixed = fixed.contiguous(memory_format=torch.channels_last)

    def pure() -> None:
        for k in range(BATCHES):
            step(ours, our_optimiser, fixed, on_device[k * BATCH : (k + 1) * BATCH])
        _wait(device)

    found = interleave(
        {"pure": pure, "whole": whole, "reference": reference}, "pure", rounds,
        torch.get_num_threads() if device == "cpu" else 1,
    )  # fmt: skip
    rate = {name: n / seconds for name, seconds in found.best.items()}
    return {
        "batch": BATCH,
        "precision": "bf16" if bf16 else "fp32",
        "images_per_s": round(rate["whole"], 1),
        "pure_step_images_per_s": round(rate["pure"], 1),
        "reference_images_per_s": round(rate["reference"], 1),
        "whole_over_pure": round(rate["pure"] / rate["whole"], 3),
        "over_reference": round(rate["whole"] / rate["reference"], 2),
        "steady": found.steady,
        "busy_cores": round(found.busy, 2),
    }


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
