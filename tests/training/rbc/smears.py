"""Synthetic smears on disk (papers.md 5): cells whose type is a colour or a size, some touching."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image
from skimage.draw import ellipse

HEIGHT, WIDTH = 96, 160
BACKGROUND = (205, 215, 235)
KINDS = {0: (14, 14, (150, 90, 120)), 2: (8, 8, (150, 90, 120)), 4: (14, 14, (90, 60, 60)),
         6: (15, 9, (150, 90, 120))}  # fmt: skip
"""Type of the data set: half height, half width, colour. Normal, microcyte, target, ovalocyte."""
PLACES = ((22, 22), (22, 48), (22, 98), (72, 22), (72, 72), (72, 98), (60, 140))
"""Middles of cells; the first two touch, and so do the fifth and the sixth."""


def draw_smear(
    rng: np.random.Generator, types: list[int]
) -> tuple[np.ndarray, list[tuple[int, ...]]]:
    """A field of cells of these types at `PLACES`, and the box of each (x1, y1, x2, y2)."""
    image = np.full((HEIGHT, WIDTH, 3), BACKGROUND, dtype=float)
    boxes = []
    for (row, col), kind in zip(PLACES, types, strict=True):
        high, wide, colour = KINDS[kind]
        rows, cols = ellipse(row, col, high + 0.5, wide + 0.5, shape=image.shape[:2])
        image[rows, cols] = colour
        boxes.append((cols.min(), rows.min(), cols.max() + 1, rows.max() + 1))
    image += rng.normal(0, 4, image.shape)
    return image.clip(0, 255).astype(np.uint8), [tuple(int(v) for v in b) for b in boxes]


def write_smears(
    folder: Path, blocks: int = 8, per_block: int = 2, untyped: float = 0.15, seed: int = 0
) -> Path:
    """Fields in the layout ``chula``; a share of the cells carries no type."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    rows, images = [], []
    for block in range(blocks):
        for number in range(per_block):
            types = rng.choice(list(KINDS), len(PLACES), p=[0.4, 0.2, 0.2, 0.2]).tolist()
            name = f"images/{100 * seed + 10 * block + number:03d}.png"
            image, boxes = draw_smear(rng, types)
            Image.fromarray(image).save(folder / name)
            images.append({"image": name, "number_block": block})
            for box, kind in zip(boxes, types, strict=True):
                known = kind if rng.random() >= untyped else -1
                edges = dict(zip(("x1", "y1", "x2", "y2"), box, strict=True))
                rows.append({"image": name, **edges, "type_id": known})
    write_table(folder / "boxes_derived.csv", rows)
    write_table(folder / "images.csv", images)
    return folder


def write_table(path: Path, rows: list[dict[str, object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def recipe_content(folder: Path, **sections: object) -> dict[str, object]:
    """A recipe that trains in seconds; keywords replace."""
    content: dict[str, object] = {
        "system": "rbc",
        "name": "tiny",
        "data": {"layout": "chula", "folder": str(folder)},
        "split": {"reserve": 0.2, "folds": 2, "run_folds": 2, "seed": 1},
        "network": {"weights": "none", "size": 32, "least": 32, "hidden": 16, "dropout": 0.0},
        "learning": "heads",
        "augmentation": {"rotation": "none"},
        "optimiser": {"lr_head": 0.01, "ema": 0.0},
        "detector": {
            "arguments": {"channels": 8, "representation": 16, "proposals": 50}, "iterations": 2,
            "proposals": 50, "samples": 16,
        },
        "booster": {"trees": 10},
        "epochs": 30,
        "batch": 16,
        "threads": 1,
    }  # fmt: skip
    for key, value in sections.items():
        old = content.get(key)
        content[key] = {**old, **value} if isinstance(old, dict) else value  # type: ignore[dict-item]
    return content
