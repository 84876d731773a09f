"""``cellpath train`` and ``cellpath evaluate``."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

from napari_cellpath.cli import options as o
from napari_cellpath.core.errors import RecipeError
from napari_cellpath.core.vocabulary import Average, Blend, Border, Channel, Preset, System


class Part(StrEnum):
    """Which cells of a data folder to measure on."""

    held_out = "held-out"
    reserve = "reserve"
    validation = "validation"
    frozen = "frozen"
    all = "all"


SystemArgument = Annotated[System, typer.Argument(help="Which system.")]


@contextmanager
def stopping_on_ctrl_c() -> Iterator[Callable[[], bool]]:
    """Inside the block Ctrl-C is a wish: what is given says whether it was made."""
    stop = threading.Event()

    def ask_to_stop(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    previous = signal.signal(signal.SIGINT, ask_to_stop)
    try:
        yield stop.is_set
    finally:
        signal.signal(signal.SIGINT, previous)


class Method(StrEnum):
    """How a model is fine-tuned."""

    fast = "fast"
    thorough = "thorough"
    detector = "detector"  # of red cells: heads, booster and detector


def train(
    system: SystemArgument,
    out: Annotated[Path, typer.Option("--out", help="Folder of this run; resumed if it exists.")],
    recipe: Annotated[
        Path | None, typer.Argument(help="The recipe, YAML; see training/recipes.")
    ] = None,
    parent: Annotated[
        str | None,
        typer.Option("--parent", help="Without a recipe: fine-tune this model, a name or folder."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="With --parent: the project to learn from.")
    ] = None,
    preset: Annotated[
        Method,
        typer.Option(
            help="With --parent: fast trains the head alone, thorough every layer; of red cells "
            "detector also the detector."
        ),
    ] = Method.fast,
    name: Annotated[
        str | None, typer.Option("--name", help="With --parent: of the model that comes out.")
    ] = None,
    budget: Annotated[
        float | None, typer.Option(min=1.0, help="Seconds to spend; epochs are scaled to it.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on from the last checkpoint in --out.")] = False,
    device: o.DeviceOption = o.Device.auto,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Only tell how long it will take on the CPU.")
    ] = False,
) -> None:
    """Train a model from a recipe, or fine-tune one; Ctrl-C keeps the last checkpoint."""
    import training

    if (recipe is None) == (parent is None) or (parent is None) != (data is None):
        raise RecipeError("Give a recipe, or --parent with --data; not both.")
    what = recipe or training.finetune_recipe(str(parent), str(data), str(preset), name)
    if estimate:
        seconds = training.estimate_seconds(what)
        typer.echo(f"About {seconds:.0f} s" if seconds < 120 else f"About {seconds / 60:.0f} min")
        return
    with stopping_on_ctrl_c() as should_stop:
        folder = training.run(
            system, what, out, budget=budget, resume=resume, device=device,
            on_progress=typer.echo, should_stop=should_stop,
        )  # fmt: skip
    typer.echo(f"Model written to {folder}.")


def evaluate(
    system: SystemArgument,
    model: o.ModelOption,
    data: Annotated[Path, typer.Option("--data", help="Folder of labelled images, or a project.")],
    out: Annotated[Path, typer.Option("--out", help="Report to write, JSON.")],
    views: o.ViewsOption = Preset.BALANCED,
    jitter: Annotated[
        int, typer.Option(min=0, max=20, help="Shift centres at random by up to this many pixels.")
    ] = 0,
    border: o.BorderOption = Border.ZERO,
    part: Annotated[
        Part | None,
        typer.Option(
            help="held-out: every cell it was neither trained nor chosen on; reserve, validation, "
            "frozen (of a project, whose default it is): that part; all: also what it was trained "
            "on, and the report says so. Without it, data that holds cells of its training is "
            "refused."
        ),
    ] = None,
    threshold: o.ThresholdOption = None,
    average: Annotated[
        Average, typer.Option(help="hep2: d4 takes the mean over a cell's eight turns and mirrors.")
    ] = Average.MODEL,
    channel: Annotated[
        Channel, typer.Option(help="hep2: which plane of a colour image is looked at.")
    ] = Channel.GREEN,
    stride: Annotated[
        int | None,
        typer.Option(min=8, help="hspnet: pixels between tiles; default is the model's own."),
    ] = None,
    blend: Annotated[
        Blend | None, typer.Option(help="hspnet: weight of overlapping tiles; default the model's.")
    ] = None,
    min_lesion: Annotated[
        float,
        typer.Option(
            min=0.0, help="hspnet: pieces of called tissue below this area count as none, mm2."
        ),
    ] = 0.0,
    iou: Annotated[
        float, typer.Option(min=0.05, max=0.95, help="rbc: overlap that makes a detection true.")
    ] = 0.5,
    device: o.DeviceOption = o.Device.auto,
    seed: o.SeedOption = 0,
    as_json: o.JsonOption = False,
) -> None:
    """Measure a model on labelled data it was not trained on."""
    import training

    o.check_output(out, [])
    looks: dict[str, Any]
    if system is System.HEP2:
        looks = {"average": average, "channel": channel}
    elif system is System.HSPNET:
        looks = {"stride": stride, "blend": blend, "least_lesion_mm2": min_lesion}
    elif system is System.RBC:
        looks = {"iou": iou}
    else:
        looks = {
            "preset": views, "jitter": jitter, "border": border, "threshold": threshold,
            "seed": seed,
        }  # fmt: skip
    shown = sys.stderr.isatty()
    what = "regions" if system is System.HSPNET else "cells"

    def tell(done: int, total: int) -> None:
        if done == 1 and not shown:
            typer.echo(f"Scoring {total} {what}.", err=True)
        elif shown:
            typer.echo(f"\r{done} of {total} {what}", nl=done == total, err=True)

    report = training.evaluate(
        system, model, data, out, part=None if part is None else part.value, device=device,
        on_progress=tell, **looks,
    )  # fmt: skip
    typer.echo(
        json.dumps(report) if as_json else f"{json.dumps(report, indent=1)}\nWritten to {out}."
    )
