"""``cellpath train`` and ``cellpath evaluate``."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from napari_cellpath.cli import options as o
from napari_cellpath.core.vocabulary import Preset, System

SystemArgument = Annotated[System, typer.Argument(help="Which system.")]


def train(
    system: SystemArgument,
    recipe: Annotated[Path, typer.Argument(help="The recipe, YAML; see training/recipes.")],
    out: Annotated[Path, typer.Option("--out", help="Folder of this run; resumed if it exists.")],
    budget: Annotated[
        float | None, typer.Option(min=1.0, help="Seconds to spend; epochs are scaled to it.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on from the last checkpoint in --out.")] = False,
) -> None:
    """Train a model from a recipe; Ctrl-C keeps the last checkpoint."""
    import training

    stop = threading.Event()

    def ask_to_stop(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    previous = signal.signal(signal.SIGINT, ask_to_stop)
    try:
        folder = training.run(
            system, recipe, out, budget=budget, resume=resume,
            on_progress=typer.echo, should_stop=stop.is_set,
        )  # fmt: skip
    finally:
        signal.signal(signal.SIGINT, previous)
    typer.echo(f"Model written to {folder}.")


def evaluate(
    system: SystemArgument,
    model: o.ModelOption,
    data: Annotated[Path, typer.Option("--data", help="Folder of labelled images.")],
    out: Annotated[Path, typer.Option("--out", help="Report to write, JSON.")],
    views: o.ViewsOption = Preset.BALANCED,
    jitter: Annotated[
        int, typer.Option(min=0, max=20, help="Shift centres at random by up to this many pixels.")
    ] = 0,
    seed: o.SeedOption = 0,
    as_json: o.JsonOption = False,
) -> None:
    """Measure a model on labelled data it was not trained on."""
    import training

    report = training.evaluate(system, model, data, out, preset=views, jitter=jitter, seed=seed)
    typer.echo(
        json.dumps(report) if as_json else f"{json.dumps(report, indent=1)}\nWritten to {out}."
    )
