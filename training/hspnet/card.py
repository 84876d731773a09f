"""The card of a trained HSP-Net: what a person must know before using it."""

from __future__ import annotations

from typing import Any

from napari_cellpath.core.vocabulary import RESEARCH_ONLY
from napari_cellpath.models import ModelInfo
from training.card import sentence, span
from training.hspnet.data import MTCHI_CLASSES

_PAPERS = ("hspnet-resnet101", "hspnet-resnet34")
_COLON_LIMITS = (
    "- **Colon, not cervix.** It stands in for a model of cervical tissue, of which no masks were "
    "to be had. It knows nothing of CIN, its classes are no grades of dysplasia, and its numbers "
    "must not be compared with those of the HSP-Net paper.",
    "- Every image it learnt from is of one grade as a whole: whether a gland is benign it has "
    "never seen beside one that is malignant, and it may tell the two apart by their surroundings.",
)


def write_card(info: ModelInfo) -> str:
    """Markdown card from what ``model.json`` will say."""
    facts, wants = info.data, info.input
    width = info.arguments.get("width", 1)
    network = info.architecture
    if network not in _PAPERS or width != 1:
        network += f" at width {width:g}, which is not the paper's"
    loss = info.training["recipe"]["loss"]["name"]
    lines = [
        f"# {info.name}",
        "",
        f"**{RESEARCH_ONLY}**",
        "",
        f"Tells the class of each pixel of a stained section: {', '.join(info.class_names)}. The "
        "method is HSP-Net's (hierarchical spatial pyramid network for cervical histology); the "
        f"network is {network}, its encoder started from {info.training['initial_weights']}. "
        f"Input: tiles of {wants['tile']} x {wants['tile']} pixels"
        + (f" at {info.mpp:g} um per pixel" if info.mpp else "")
        + f", every {wants['stride']} pixels, blended ({wants['blend']}).",
        "",
        "## Trained on",
        "",
        f"{facts['trained_on_cells']} of the {facts['cells']} regions of '{facts['name']}' "
        f"({facts['groups']} groups by {facts['grouped_by']}, split by {facts['split_by']}); "
        + (
            f"the {len(info.reserve)} listed as `reserve` in model.json were set apart."
            if info.reserve
            else "nothing was set apart."
        )
        + f" Loss: {loss}.",
        "",
    ]
    if loss == "ordinal_elastic":
        lines += [
            "The loss is ours, inspired by the paper's AE-Loss, whose formula was not available to "
            "us; this is no reproduction of the paper's results.",
            "",
        ]
    lines += [facts["note"] or "Licence and source of the data: not stated in the recipe.", ""]
    lines += ["## Measured", ""]
    for name, title in (("out_of_fold", "Out of fold"), ("reserve", "Reserve")):
        if name in info.metrics:
            lines += _section(title, info.metrics[name])
    notes = str(info.training["recipe"].get("notes", "")).strip()
    if notes:
        lines += [" ".join(notes.split()), ""]
    lines += ["## Limits", ""]
    if facts["name"] == "glas":
        lines += _COLON_LIMITS
    if info.class_names == tuple(c.name for c in MTCHI_CLASSES):
        lines.append("- Neighbouring grades are confused most; read areas, not single pixels.")
    lines += [
        "- Other scanners, stains, organs and magnifications were not measured. Give the pixel "
        "size. Folds, pen, blood and out-of-focus tissue get a class like all else.",
        f"- {RESEARCH_ONLY}",
        "",
    ]
    return "\n".join(lines)


def _section(title: str, measured: dict[str, Any]) -> list[str]:
    report = measured["regions"]
    first = report["classes"][0]
    return [
        f"### {title}",
        "",
        sentence(measured["protocol"]),
        "",
        f"| regions | mean Dice of all classes (95 %) | all but {first} against it (95 %) | pixel "
        "accuracy (95 %) |",
        "|---|---|---|---|",
        f"| {report['n']} of {report['n_groups']} {report['grouped_by']}s | {report['dice']} "
        f"{span(report, 'dice')} | {report['foreground_dice']} {span(report, 'foreground_dice')} | "
        f"{report['accuracy']} {span(report, 'accuracy')} |",
        "",
        f"Intervals resample whole {report['grouped_by']}s. Dice by class:",
        "",
        *(
            f"- {name}: {row['dice']} {span(row, 'dice')}"
            for name, row in report["by_class"].items()
        ),
        "",
    ]
