"""Synthetic sections: pale ground, blue glands of one class, red ones of another."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIDE = 72
TILE = 64
COLOURS = np.array([[228, 215, 226], [120, 100, 190], [190, 70, 90]], dtype=float)
MTCHI = ((0, 0, 0), (255, 255, 255), (0, 255, 0), (0, 0, 255), (255, 0, 0))


def draw_section(
    rng: np.random.Generator, kind: int, shape: tuple[int, int] = (SIDE, SIDE)
) -> tuple[np.ndarray, np.ndarray]:
    """An image with two glands of one class, and its mask; the class is also in the stain."""
    rows, cols = np.mgrid[: shape[0], : shape[1]]
    mask = np.zeros(shape, dtype=np.uint8)
    for part in (0.28, 0.72):
        row, col = shape[0] * part + rng.uniform(-4, 4), shape[1] * part + rng.uniform(-4, 4)
        mask[np.hypot(rows - row, cols - col) < rng.uniform(12, 16)] = kind
    image = COLOURS[mask] + rng.normal(0, 8, (*shape, 3))
    return image.clip(0, 255).astype(np.uint8), mask


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_glas(folder: Path, n: int = 12, seed: int = 0, first: int = 0) -> Path:
    """``n`` images in the layout of GlaS; two neighbours are of one patient, one of each class."""
    rng = np.random.default_rng(seed)
    for name in ("images", "masks3"):
        (folder / name).mkdir(parents=True)
    rows = []
    for i in range(n):
        image, mask = draw_section(rng, 1 + i % 2)
        Image.fromarray(image).save(folder / "images" / f"s{i:02d}.png")
        Image.fromarray(mask).save(folder / "masks3" / f"s{i:02d}.png")
        rows.append({"file": f"images/s{i:02d}.png", "patient_id": first + i // 2})
    write_rows(folder / "labels.csv", rows)
    return folder


def write_mtchi(
    folder: Path, n: int = 8, seed: int = 0, colours: bool = True, folds: bool = True
) -> Path:
    """``n`` regions in the layout of MTCHI, of four slides; those of the last are the test set."""
    rng = np.random.default_rng(seed)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    rows = []
    for i in range(n):
        image, mask = draw_section(rng, 1 + i % 2)
        mask = np.where(mask == 2, 4, mask).astype(np.uint8)
        shown = np.array(MTCHI, np.uint8)[mask] if colours else mask
        Image.fromarray(image).save(folder / "images" / f"r{i}.png")
        Image.fromarray(shown).save(folder / "masks" / f"r{i}.png")
        row = {"file": f"r{i}.png", "slide": f"slide-{i * 4 // n}"}
        if folds:
            row["fold"] = "test" if i * 4 // n == 3 else ""
        rows.append(row)
    write_rows(folder / "slides.csv", rows)
    return folder


def recipe_content(folder: Path, **changes: Any) -> dict[str, Any]:
    """A recipe for a shrunken network that trains in seconds; keywords replace parts of it."""
    content: dict[str, Any] = {
        "system": "hspnet",
        "name": "tiny",
        "data": {"layout": "glas", "folder": str(folder)},
        "network": {
            "architecture": "hspnet-squeezenet", "arguments": {"width": 0.0625}, "weights": "none",
        },
        "split": {"reserve": 0.2, "folds": 2, "run_folds": 1, "seed": 1},
        "crops": {"side": TILE, "stride": 32, "foreground": 0.1, "per_epoch": 8},
        "tiles": {"stride": 32},
        "optimiser": {
            "name": "adamw", "lr_trunk": 0.001, "lr_head": 0.01, "clip_norm": 2.0, "ema": 0.0,
        },
        "schedule": {"each": "step"},
        "balance": 0.7,
        "epochs": 1,
        "batch": 4,
        "threads": 1,
    }  # fmt: skip
    for key, value in changes.items():
        old = content.get(key)
        content[key] = {**old, **value} if isinstance(old, dict) else value
    return content
