"""Synthetic HEp-2 cells on disk (papers.md 5): each pattern a texture that survives turning."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 40
PATTERNS = ("Homogeneous", "Speckled", "NuMem")


def draw_cell(rng: np.random.Generator, pattern: str, side: int = SIDE) -> np.ndarray:
    """A bright nucleus on black, (side, side) uint8: even, with bright dots, or with a rim."""
    rows, cols = np.mgrid[:side, :side] - (side - 1) / 2
    distance = np.hypot(rows, cols * rng.uniform(0.9, 1.1)) / (side * rng.uniform(0.36, 0.42))
    inside = distance < 1
    image = inside * rng.uniform(90, 130)
    if pattern == "Speckled":
        dots = rng.random((side, side)) < 0.12
        image = np.where(inside & dots, 230, image * 0.6)
    elif pattern == "NuMem":
        image = np.where(inside & (distance > 0.75), 230, image * 0.4)
    image = image + rng.normal(0, 4, image.shape)
    return image.clip(0, 255).astype(np.uint8)


def write_cells(
    folder: Path,
    per_specimen: int = 6,
    specimens: int = 6,
    seed: int = 0,
    column: str = "specimen",
    patterns: tuple[str, ...] = PATTERNS,
) -> Path:
    """``specimens`` of each pattern, one pattern each, in the layout ``hep2``."""
    rng = np.random.default_rng(seed)
    rows = []
    for pattern in patterns:
        (folder / "images" / pattern).mkdir(parents=True)
        for specimen in range(specimens):
            for _ in range(per_specimen):
                name = f"images/{pattern}/{seed}-{len(rows):04d}.png"
                Image.fromarray(draw_cell(rng, pattern)).save(folder / name)
                row = {"file": name, "class_name": pattern}
                rows.append(row | ({column: f"{pattern}-{seed}-{specimen}"} if column else {}))
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def recipe_content(folder: Path, **sections: object) -> dict[str, object]:
    """A recipe for a network of eight channels that trains in seconds; keywords replace."""
    content: dict[str, object] = {
        "system": "hep2",
        "name": "tiny",
        "data": {"folder": str(folder)},
        "network": {"architecture": "resnet8", "arguments": {"width": 8}},
        "split": {"reserve": 0.2, "folds": 2, "run_folds": 1, "seed": 1},
        "optimiser": {"lr_trunk": 0.01, "lr_head": 0.01, "ema": 0.8},
        "schedule": {"warmup_epochs": 0.5},
        "augmentation": {"noise": 0.0},
        "epochs": 6,
        "batch": 16,
        "threads": 1,
    }
    for key, value in sections.items():
        old = content.get(key)
        content[key] = {**old, **value} if isinstance(old, dict) else value  # type: ignore[dict-item]
    return content
