"""Do the short ways agree with the long one? ``adaptive`` and bf16 against fp32 ``paper``.

::

    python -m benchmarks.verify --run runs/deeppap-herlev [--cells 150] [--device cuda]

Cells are taken evenly from the validation folds of a finished ``cellpath train`` run; each is
scored by its fold's model, which never saw its slide. What is done is kept in ``--out`` cell by
cell, so a stopped verification goes on. The exit code is 1 if a promise does not hold.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load as load_safetensors

from benchmarks.measuring import machine
from napari_cellpath.backend.inline import InlineBackend
from napari_cellpath.core.requests import FileImage, Nucleus, NucleusRequest
from napari_cellpath.core.vocabulary import Preset, System
from napari_cellpath.models import ModelInfo, find_model, save_model
from napari_cellpath.models.registry import DEFAULT_MODELS
from training.allocator import keep_freed_memory
from training.checkpoint import write_whole
from training.datasets import TWO_CLASSES, CellRecord, read_cells
from training.deeppap_recipe import Recipe
from training.recipe import read_recipe

AGREEMENT, FEWER, CLOSE = 0.995, 10.0, 0.01


@dataclass(frozen=True)
class Case:
    """A cell and the fold whose model scores it."""

    fold: int
    row: int
    record: CellRecord


def fold_model(run: Path, fold: int, recipe: Recipe, mpp: float | None, folder: Path) -> Path:
    """A model folder of a validation fold's network."""
    tensors = load_safetensors((run / f"fold-{fold}.safetensors").read_bytes())
    own = {k.removeprefix("network."): v for k, v in tensors.items() if k.startswith("network.")}
    arguments = dict(recipe.network.arguments)
    if recipe.network.mean_image:
        arguments["mean"] = "image"
    info = ModelInfo(
        name=f"fold-{fold}", system=System.DEEPPAP, architecture=recipe.network.backbone,
        arguments=arguments, classes=TWO_CLASSES, mpp=mpp,
    )  # fmt: skip
    target = folder / info.name
    save_model(target, info, own, f"# {info.name}\n")
    return target


def choose(run: Path, records: tuple[CellRecord, ...], count: int) -> list[Case]:
    """``count`` cells spread evenly over the folds' validation parts."""
    cases = []
    for path in sorted(run.glob("fold-*.json")):
        fold = int(path.stem.removeprefix("fold-"))
        rows = json.loads(path.read_text())["rows"]
        cases += [Case(fold, row, records[row]) for row in rows]
    if not cases:
        raise SystemExit(
            f"{run} holds no validation folds. 'make train' makes such a run "
            "(runs/deeppap-herlev); name it with --run."
        )
    places = np.linspace(0, len(cases) - 1, min(count, len(cases))).round().astype(int)
    # Shuffled, so that what a short budget reaches is of all folds and classes.
    return [cases[i] for i in np.random.default_rng(0).permutation(places)]


def main() -> None:
    """Score every case in every way, then compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, default=Path("runs/deeppap-herlev"))
    parser.add_argument("--cells", type=int, default=150)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--bf16-preset", default="balanced", choices=("fast", "balanced", "paper"))
    parser.add_argument("--out", type=Path, default=Path("runs/verify.json"))
    parser.add_argument("--budget", type=float, help="seconds; what was reached is reported")
    options = parser.parse_args()
    started = time.monotonic()
    keep_freed_memory()
    recipe = read_recipe(options.run / "recipe.yaml")
    data = read_cells(recipe.data)
    starter = find_model(DEFAULT_MODELS[System.DEEPPAP], System.DEEPPAP).info
    short = Preset(options.bf16_preset)
    ways = {
        "paper": (Preset.PAPER, "fp32"),
        "adaptive": (Preset.ADAPTIVE, "fp32"),
        "short_fp32": (short, "fp32"),
        "short_bf16": (short, "bf16"),
    }
    known = json.loads(options.out.read_text()) if options.out.is_file() else {}
    backends = {p: InlineBackend(options.device, p) for p in ("fp32", "bf16")}
    cases = choose(options.run, data.records, options.cells)
    with tempfile.TemporaryDirectory() as folder:
        models = {
            fold: fold_model(options.run, fold, recipe, data.mpp, Path(folder))
            for fold in sorted({case.fold for case in cases})
        }
        for number, case in enumerate(cases):
            if options.budget and number and time.monotonic() - started > options.budget:
                cases = cases[:number]
                break
            done = known.setdefault(f"{case.fold}:{case.row}:{short}", {})
            for name, (preset, precision) in ways.items():
                if name in done:
                    continue
                request = NucleusRequest(
                    FileImage(str(case.record.image)),
                    (Nucleus(case.record.row, case.record.col, "cell"),),
                    str(models[case.fold]), preset=preset, threshold=starter.threshold,
                )  # fmt: skip
                call = backends[precision].submit(request).result()[0]
                done[name] = {"score": call.score, "n_views": call.n_views}
            options.out.parent.mkdir(parents=True, exist_ok=True)
            write_whole(options.out, json.dumps(known).encode())
            print(f"\r{number + 1} of {len(cases)} cells", end="", flush=True)
    print()
    rows = [known[f"{c.fold}:{c.row}:{short}"] for c in cases]
    report = compare(rows, starter.threshold, starter.review_band)
    report |= {
        "cells": len(rows),
        "cells_asked": options.cells,
        "bf16_preset": str(short),
        "device": options.device,
    }
    report["machine"] = machine()
    print(json.dumps(report, indent=1))
    raise SystemExit(0 if report["holds"] else 1)


def compare(rows: list[dict[str, Any]], threshold: float, band: float) -> dict[str, Any]:
    """Agreement of ``adaptive`` with ``paper``, and of bf16 with fp32.

    Parameters
    ----------
    rows
        Per cell ``{way: {score, n_views}}`` for paper, adaptive, short_fp32 and short_bf16.
    threshold, band
        The decision, and how near to it a score is doubtful anyhow.
    """

    def scores(way: str) -> Any:
        return np.array([row[way]["score"] for row in rows])

    paper, adaptive = scores("paper"), scores("adaptive")
    fp32, bf16 = scores("short_fp32"), scores("short_bf16")
    agree = (paper > threshold) == (adaptive > threshold)
    fewer = np.array([r["paper"]["n_views"] / r["adaptive"]["n_views"] for r in rows])
    moved = np.abs(fp32 - bf16)
    flipped = ((fp32 > threshold) != (bf16 > threshold)) & (np.abs(fp32 - threshold) > band)
    report = {
        "adaptive_agrees": round(float(agree.mean()), 4),
        "adaptive_disagrees_on": int((~agree).sum()),
        "adaptive_fewer_views_median": round(float(np.median(fewer)), 1),
        "adaptive_largest_difference": round(float(np.abs(paper - adaptive).max()), 4),
        "bf16_largest_difference": round(float(moved.max()), 5),
        "bf16_decisions_changed_outside_band": int(flipped.sum()),
    }
    report["holds"] = bool(
        agree.mean() >= AGREEMENT
        and np.median(fewer) >= FEWER
        and moved.max() <= CLOSE
        and not flipped.any()
    )
    return report


if __name__ == "__main__":
    main()
