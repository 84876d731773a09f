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
        str,
        typer.Argument(
            help="herlev, herlev-jitter, herlev-7, hemlbc for your own folder; hep2-loso, "
            "hep2-kfold; rbc; mtchi, glas."
        ),
    ],
    data: Annotated[Path, typer.Option("--data", help="Folder of labelled cells.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the report and the figures.")],
    recipe: Annotated[
        Path | None,
        typer.Option(
            "--recipe",
            help="Network and settings; default is the starter model's for herlev and glas, the "
            "paper's for hep2, rbc and mtchi.",
        ),
    ] = None,
    split: Annotated[
        Split | None,
        typer.Option(
            help="cell: as published; group: slides apart; both, the default of the herlev "
            "protocols. hep2-kfold takes cell (its default) or group."
        ),
    ] = None,
    views: Annotated[
        Looking | None, typer.Option(help="Views of a cell to score; default is the recipe's.")
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            min=2, max=20, help="Parts the cells are cut into: 5; mtchi 4; glas the recipe's."
        ),
    ] = None,
    run_folds: Annotated[
        int | None, typer.Option(min=1, help="Train and score only so many of them.")
    ] = None,
    sampling: Annotated[
        int | None,
        typer.Option(
            "--set",
            min=1,
            max=3,
            help="hep2: the paper's training set: 1 all cells; 2 each in its eight turns and "
            "mirrors; 3 at most 41 of each specimen.",
        ),
    ] = None,
    extra: Annotated[
        list[Path] | None,
        typer.Option("--extra", help="hep2: a folder of specimens to learn from, never tested."),
    ] = None,
    curve: Annotated[
        bool, typer.Option("--curve", help="hep2: also learn from shares of the specimens.")
    ] = False,
    ablation: Annotated[
        bool,
        typer.Option("--ablation", help="mtchi, glas: the four networks of the paper's Table 3."),
    ] = False,
    iou: Annotated[
        float | None,
        typer.Option(min=0.05, max=0.95, help="rbc: overlap that makes a detection true; 0.5."),
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

    options: dict[str, Any] = {
        "split": None if split is None else split.value,
        "views": None if views is None else views.value,
        "sampling": sampling,
        "extra": extra or None,
        "curve": curve or None,
        "ablation": ablation or None,
        "folds": folds,
        "iou": iou,
    }  # what is not asked for is the protocol's to choose, or is not its own at all
    with stopping_on_ctrl_c() as should_stop:
        report = training.reproduce(
            protocol, data, out, recipe_path=recipe, run_folds=run_folds,
            budget=budget, device=device, seed=seed, resume=resume, should_stop=should_stop,
            on_progress=lambda line: typer.echo(line, err=as_json),
            **{k: v for k, v in options.items() if v is not None},
        )  # fmt: skip
    words = _words
    if "mca" in report:
        words = _words_of_patterns
    elif "models" in report:
        words = _words_of_regions
    elif "table" in report:
        words = _words_of_tissue
    typer.echo(json.dumps(report) if as_json else f"{words(report)}\nWritten to {out}.")


def _words_of_patterns(report: dict[str, Any]) -> str:
    low, high = report["mca_interval"]
    paper = ", ".join(f"{v:.2f} ({k})" for k, v in report["paper_mca_percent"].items())
    return (
        f"{report['protocol']}: {report['network']}, {report['folds_run']} of {report['folds']} "
        f"folds by {report['mode']}, {report['epochs']} epochs, set-{report['set']}\n"
        f"mean class accuracy {100 * report['mca']:.2f} % ({100 * low:.2f} to {100 * high:.2f}) on "
        f"{report['n']} cells, accuracy {100 * report['accuracy']:.2f} %\nthe paper: {paper}"
        + (f"\n{report['warning']}" if report["warning"] else "")
    )


def _words_of_regions(report: dict[str, Any]) -> str:
    lines = [
        f"{report['protocol']}: {report['trunk']}, {report['folds_run']} of {report['folds']} "
        f"folds, {report['epochs']} of {report['asked_epochs']} epochs, {report['regions']} "
        f"regions, {report['multi']} of several cells"
    ]
    for name, measured in report["models"].items():
        paper = report["paper"].get(name)
        lines.append(
            f"model {name}: exact match {measured['exact_match']} "
            f"{measured['exact_match_interval']}, Hamming loss {measured['hamming']}, macro AUC "
            f"{measured['macro_auc']} on {measured['n']} regions"
            + (f"; the paper's exact match {paper['exact_match']}" if paper else "")
        )
    lines.append(
        f"abnormal: booster {report['booster']['accuracy']} "
        f"{report['booster']['accuracy_interval']}, largest probability "
        f"{report['max_rule']['accuracy']}, always abnormal {report['always_abnormal']}; the "
        f"paper's booster {report['paper']['booster_accuracy']}"
    )
    if report["detector"]:
        for truth in ("cells", "regions"):
            found = report["detector"][truth]
            lines.append(
                f"detector, {truth}: AP {found['ap']} {found['ap_interval']} at {found['iou']}, a "
                f"watershed alone {found['watershed']['ap']}; the paper "
                f"{report['paper']['detector_ap']} at an overlap it does not state"
            )
    return "\n".join(lines)


def _words_of_tissue(report: dict[str, Any]) -> str:
    lines = [
        f"{report['protocol']}: {report['network']}, {report['folds_run']} of {report['folds']} "
        f"folds by {report['grouped_by']}, {report['epochs']} epochs, {report['loss']}"
    ]
    lines += [
        f"{row['network']} ({row['parameters']:,} parameters), {row['tiles']}, "
        f"{row['background']}: Dice {row['dice']:.4f}, mIoU {row['miou']:.4f}, pixel accuracy "
        f"(AP in the paper) {row['pixel_accuracy']:.4f}"
        for row in report["table"]
    ]
    if report["paper"]:
        lines.append(f"the paper: {json.dumps(report['paper'])}")
    return "\n".join([*lines, *filter(None, [report["note"]])])


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
