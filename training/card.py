"""The card of a trained model: what a person must know before using it."""

from __future__ import annotations

from typing import Any

from napari_cellpath.core.vocabulary import RESEARCH_ONLY, System
from napari_cellpath.models import ModelInfo
from training.datasets import CellData

_ROW_NAMES = {
    "as_marked": "centres as marked",
    "border_reflect": "outside the image: mirrored",
    "border_background": "outside the image: background colour",
}
_TASKS = {
    System.DEEPPAP: "Scores one cervical cell from a coarse nucleus centre",
    System.HEP2: "Tells the staining pattern of one HEp-2 cell",
    System.HSPNET: "Tells the class of each pixel of a stained section",
    System.RBC: "Tells which types of red cells a region of a blood smear holds",
}
_MEASURES = {
    "dice": "mean Dice (95 %)",
    "foreground_dice": "Dice of tissue against the rest (95 %)",
    "mca": "mean class accuracy (95 %)",
    "accuracy": "accuracy (95 %)",
    "exact_match": "exact match (95 %)",
    "macro_auc": "macro AUC (95 %)",
    "auc": "AUC (95 %)",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "brier": "Brier",
    "calibration_error": "ECE",
}
_HERLEV_LIMITS = (
    "- Normal columnar cells are the ones most often called abnormal, above all those of a slide "
    "unlike the others: measures differ more between slides than between models.",
    "- Every cell fills its own small image: how much black border a view shows goes with the "
    "class. The model was trained with three kinds of border to unlearn that; see the borders' "
    "numbers.",
)


def sentence(text: str) -> str:
    """A text with a capital letter and a full stop."""
    return f"{text[:1].upper()}{text[1:]}."


def write_card(info: ModelInfo, data: CellData) -> str:
    """Markdown card from what ``model.json`` will say."""
    facts = info.data
    lines = [
        f"# {info.name}",
        "",
        f"**{RESEARCH_ONLY}**",
        "",
        f"Scores one cervical cell from a coarse nucleus centre: {', '.join(info.class_names)}. "
        f"The method is DeepPap's (Zhang et al., IEEE JBHI 2017); the network is "
        f"{info.architecture}, started from {info.training['initial_weights']}"
        + (
            ", which is not a backbone of that paper."
            if info.architecture != "convnet-t"
            else ", the paper's own."
        ),
        "",
        "## Trained on",
        "",
        f"{facts['trained_on_cells']} of the {facts['cells']} cells of '{facts['name']}' "
        f"({facts['groups']} slide groups, split by {facts['split_by']}); the "
        f"{len(info.reserve)} groups listed as `reserve` in model.json were set apart. "
        + (f"Pixel size {info.mpp} um." if info.mpp else "Pixel size unknown."),
        "",
        facts["note"] or "Licence and source of the data: not stated in the recipe.",
        "",
        "## Measured",
        "",
    ]
    for name, title in (("out_of_fold", "Out of fold"), ("reserve", "Reserve")):
        if name in info.metrics:
            lines += _section(title, info.metrics[name])
    notes = str(info.training["recipe"].get("notes", "")).strip()
    if notes:
        lines += [" ".join(notes.split()), ""]
    lines += [
        "## Limits",
        "",
        "- It was trained on single cells picked by experts. Overlaps, clumps, inflammation, "
        "artefacts and out-of-focus cells were not in the data. What can be told is flagged "
        "(crowded, out-of-focus, noisy, unusual-stain, unusual-nucleus-size), and it is scored "
        "all the same.",
        *_HERLEV_LIMITS[: 2 * (data.name == "herlev")],
        "- Other scanners, stains and preparations were not measured. Give the pixel size.",
        f"- Calls are made at a threshold of {info.threshold:g}, chosen on out-of-fold scores, "
        "for a share of normal cells as in these data; move it for yours.",
        f"- {RESEARCH_ONLY}",
        "",
    ]
    return "\n".join(lines)


def _section(title: str, measured: dict[str, Any]) -> list[str]:
    lines = [f"### {title}", "", f"{sentence(measured['protocol'])}", ""]
    lines += [
        "| | cells | accuracy (95 %) | AUC (95 %) | sensitivity | specificity |",
        "|---|---|---|---|---|---|",
    ]
    for key, report in measured.items():
        if not isinstance(report, dict):
            continue
        jitter = key.removeprefix("jittered_").removesuffix("_px")
        name = _ROW_NAMES.get(key, f"centres off by up to {jitter} px")
        lines.append(
            f"| {name} | {report['n']} | {report['accuracy']} {span(report, 'accuracy')} | "
            f"{report['auc']} {span(report, 'auc')} | {report['sensitivity']} | "
            f"{report['specificity']} |"
        )
    lines += ["", "Intervals resample whole slide groups. Right by class (centres as marked):", ""]
    for name, row in measured["as_marked"].get("by_class", {}).items():
        lines.append(f"- {name}: {row['right']} of {row['n']}")
    return [*lines, ""]


def span(report: dict[str, Any], key: str) -> str:
    """The 95 % interval of a measure, in brackets."""
    low, high = report[f"{key}_interval"]
    return f"({low} to {high})"


def write_child_card(
    info: ModelInfo, report: dict[str, Any], unit: str, things: str = "cells"
) -> str:
    """Markdown card of a fine-tuned model, from ``model.json`` and the report beside its parent.

    ``unit`` is what groups are called, ``things`` what was learnt from.
    """
    facts, gate = info.data, report["gate"]
    settings = info.training["recipe"]["finetune"]
    how = "its head alone" if settings["method"] == "head" else "every layer"
    lines = [
        f"# {info.name}",
        "",
        f"**{RESEARCH_ONLY}**",
        "",
        f"{_TASKS[info.system]}: {', '.join(info.class_names)}. "
        f"Fine-tuned ({how}) from {info.parent} on {facts['trained_on_cells']} {things} "
        f"of '{facts['name']}'. What holds for the parent holds for it too: see the parent's card.",
        "",
        "## Beside the parent",
        "",
        gate["why"],
        "" if gate["passed"] else "**It is not to be made a default.**",
        "",
    ]
    if "models" in report:
        shown = [k for k in _MEASURES if f"{k}_interval" in report["models"]["parent"]]
        lines += [
            f"On {report['n']} {things} of {report['groups']} {unit} that neither was trained on; "
            f"views: {report['views']}.",
            "",
            f"| | {' | '.join(_MEASURES[k] for k in shown)} |",
            f"|---{'|---' * len(shown)}|",
        ]
        for name, measured in report["models"].items():
            cells = (f"{measured[k]} {span(measured, k)}" for k in shown)
            lines.append(f"| {name} | {' | '.join(cells)} |")
        what = "dice" if "dice" in report["paired"] else "accuracy"
        gain = report["paired"][what]
        lines += [
            "",
            f"Gain in {what.replace('dice', 'mean Dice')} {gain['gain']} "
            f"({gain['interval'][0]} to {gain['interval'][1]}), "
            f"both models on the same draws of {report['paired']['resampled']}.",
            "",
        ]
    lines += [
        "## Threshold and calibration",
        "",
        (
            f"Calls are made at a threshold of {info.threshold:g} ({report['threshold']}). "
            if info.system is System.DEEPPAP
            else ""
        )
        + report["calibration"],
        "",
    ]
    return "\n".join(lines)
