"""``cellpath reproduce``: train and measure as a paper did."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from napari_cellpath.cli import options as o
from napari_cellpath.cli.train import stopping_on_ctrl_c


class Split(StrEnum):
    """Which cells must not be on both sides."""

    cell = "cell"
    group = "group"
    both = "both"


class Looking(StrEnum):
    """Which views and crops are averaged."""

    fast = "fast"
    rotations = "rotations"
    balanced = "balanced"
    paper = "paper"


def reproduce(
    protocol: Annotated[
        str, typer.Argument(help="herlev, herlev-jitter, herlev-7, or hemlbc for your own folder.")
    ],
    data: Annotated[Path, typer.Option("--data", help="Folder of labelled cells.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the report and the figures.")],
    recipe: Annotated[
        Path | None,
        typer.Option("--recipe", help="Network and settings; default is the starter model's."),
    ] = None,
    split: Annotated[
        Split, typer.Option(help="cell: as published; group: slides apart; both.")
    ] = Split.both,
    views: Annotated[
        Looking | None, typer.Option(help="Views of a cell to score; default is the recipe's.")
    ] = None,
    folds: Annotated[int, typer.Option(min=2, max=20, help="Parts the cells are cut into.")] = 5,
    run_folds: Annotated[
        int | None, typer.Option(min=1, help="Train and score only so many of them.")
    ] = None,
    budget: Annotated[
        float | None, typer.Option(min=1.0, help="Seconds for all; views and epochs shrink.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on in a folder begun before.")] = False,
    device: o.DeviceOption = o.Device.auto,
    seed: Annotated[int | None, typer.Option(min=0, help="Default is the recipe's.")] = None,
    as_json: o.JsonOption = False,
) -> None:
    """Train and measure as a paper did, by cell and by slide; Ctrl-C keeps finished folds."""
    import training

    with stopping_on_ctrl_c() as should_stop:
        report = training.reproduce(
            protocol, data, out, recipe_path=recipe, split=split.value,
            views=None if views is None else views.value, folds=folds, run_folds=run_folds,
            budget=budget, device=device, seed=seed, resume=resume, should_stop=should_stop,
            on_progress=lambda line: typer.echo(line, err=as_json),
        )  # fmt: skip
    typer.echo(json.dumps(report) if as_json else f"{_words(report)}\nWritten to {out}.")


def _words(report: dict[str, Any]) -> str:
    lines = [
        f"{report['protocol']}: {report['network']}, {report['folds_run']} of {report['folds']} "
        f"folds, {report['epochs']} epochs, views: {report['views']}"
    ]
    for split, measured in report["splits"].items():
        for look, values in measured.items():
            if not isinstance(values, dict):
                continue
            lines.append(
                f"{split}-wise, {look}: accuracy {values['accuracy']} "
                f"{values['accuracy_interval']} at 0.5, "
                f"{values['at_threshold_of_other_folds']['accuracy']} at the threshold best on the "
                f"other folds, AUC {values['auc']} {values['auc_interval']}"
                + (f", overall error {values['overall_error']}" if "confusion" in values else "")
            )
    return "\n".join(lines)
