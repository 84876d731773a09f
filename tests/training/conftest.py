"""Synthetic cells on disk in Herlev's layout: small nuclei are normal, large ones abnormal."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

SIDE = 64


def draw_cell(rng: np.random.Generator, abnormal: bool) -> tuple[np.ndarray, np.ndarray]:
    """A pale cell with a dark nucleus in the middle, and its mask."""
    rows, cols = np.mgrid[:SIDE, :SIDE] - (SIDE - 1) / 2
    distance = np.hypot(rows, cols * rng.uniform(0.9, 1.1))
    radius = rng.uniform(16, 20) if abnormal else rng.uniform(6, 9)
    mask = np.where(distance < radius, 2, np.where(distance < 28, 1, 0)).astype(np.uint8)
    colours = np.array([[225, 220, 230], [190, 180, 215], [80, 60, 130]], dtype=float)
    image = colours[mask] + rng.normal(0, 6, (SIDE, SIDE, 3))
    return image.clip(0, 255).astype(np.uint8), mask


def write_herlev(folder: Path, n: int = 40, per_group: int = 2, seed: int = 0) -> Path:
    """Write ``n`` cells; neighbours in the table share a slide, classes alternate by slide."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    table = []
    for i in range(n):
        group = i // per_group
        class_id = (1, 6, 3, 7)[group % 4]
        image, mask = draw_cell(rng, class_id > 3)
        Image.fromarray(image).save(folder / "images" / f"{i:03d}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{i:03d}.png")
        table.append(
            {
                "file": f"images/{i:03d}.png",
                "mask_file": f"masks/{i:03d}.png",
                "class_name": f"class-{class_id}",
                "class_id": class_id,
                "abnormal": int(class_id > 3),
                "slide_group": f"slide-{group:03d}",
                "nucleus_x": SIDE / 2,
                "nucleus_y": SIDE / 2,
            }
        )
    write_table(folder / "labels.csv", table)
    return folder


def write_table(path: Path, rows: list[dict[str, object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def read_table(path: Path) -> list[dict[str, object]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="session")
def cells_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty synthetic cells of twenty slides."""
    return write_herlev(tmp_path_factory.mktemp("data") / "herlev")


@pytest.fixture
def small_recipe(tmp_path: Path, cells_folder: Path) -> Callable[..., Path]:
    """A recipe for a shrunken ConvNet-T that trains in seconds; keywords replace sections."""

    def make(**sections: object) -> Path:
        content: dict[str, object] = {
            "name": "tiny",
            "data": {"folder": str(cells_folder)},
            "network": {
                "backbone": "convnet-t", "arguments": {"width": 0.05}, "weights": "none",
            },
            "split": {"reserve": 0.2, "folds": 2, "run_folds": 1, "seed": 1},
            "epochs": 1,
            "batch": 8,
            "fold_evaluation": "fast",
            "evaluation": "fast",
        }  # fmt: skip
        for key, value in sections.items():
            old = content.get(key)
            content[key] = {**old, **value} if isinstance(old, dict) else value  # type: ignore[dict-item]
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        return path

    return make
