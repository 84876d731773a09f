"""The card of a trained RBC model: what a person must know before using it."""

from __future__ import annotations

from typing import Any

from napari_cellpath.core.vocabulary import RESEARCH_ONLY
from napari_cellpath.models import ModelInfo
from training.card import sentence, span

_KINDS = {
    "cells": "boxes of one cell, alone or in a group",
    "regions": "connected regions, of one cell or several",
    "single": "regions of one cell",
    "multi": "regions of several cells",
}


def write_card(info: ModelInfo) -> str:
    """Markdown card from what ``model.json`` will say."""
    facts, arguments = info.data, info.arguments
    detector = arguments.get("detector")
    abnormal = [c.name for c in info.classes if c.abnormal]
    normal = [c.name for c in info.classes if not c.abnormal]
    paper = "the paper's" if arguments["trunk"] == "resnet50-features" else "not the paper's"
    lines = [
        f"# {info.name}",
        "",
        f"**{RESEARCH_ONLY}**",
        "",
        "Tells which types of red cells a region of a blood smear holds, several at once, and "
        "whether any of them is abnormal"
        + ("; finds the regions too" if detector else "; it finds no regions, give boxes")
        + ". The method is that of Qiu, Guo, Li and others; trunk "
        f"{arguments['trunk']} ({paper}), started from {info.training['initial_weights']}"
        + (f"; detector {detector}" if detector else "")
        + f". Input: a box as {info.input['patch']} x {info.input['patch']} pixels, "
        f"{info.input['fit']}.",
        "",
        f"Types: {', '.join(info.class_names)}. Counted as abnormal: {', '.join(abnormal)}; not: "
        f"{', '.join(normal)}. These are the data set's own types, not the paper's six.",
        "",
        "## Trained on",
        "",
        f"{facts['trained_on_cells']} labelled boxes on {facts['fields']} images of "
        f"'{facts['name']}' ({int(facts['groups']) - len(info.reserve)} of {facts['groups']} "
        f"groups by {facts['grouped_by']}, split by {facts['split_by']}); "
        + (
            f"the {len(info.reserve)} groups listed as `reserve` in model.json were set apart."
            if info.reserve
            else "nothing was set apart."
        ),
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
        "- It labels regions, not cells: a region holds a type or not, how many of it is not said.",
        "- Labels were known of some cells only. A box of which a cell carries no label taught "
        "what is there, never what is not.",
        "- The boxes it learnt to find came from a threshold and a watershed, not from people: "
        "touching cells are now and then merged or cut, platelets now and then boxed.",
        "- Rare types were learnt from few smears. Other microscopes, stains and magnifications "
        "were not measured; the pixel size of these data is not known."
        if info.mpp is None
        else "- Other microscopes, stains and magnifications were not measured.",
        "- There is no sickle type: the data hold none.",
        f"- {RESEARCH_ONLY}",
        "",
    ]
    return "\n".join(lines)


def _auc(value: float | None) -> str:
    return "AUC not measured" if value is None else f"AUC {value}"


def _section(title: str, measured: dict[str, Any]) -> list[str]:
    lines = [f"### {title}", "", sentence(measured["protocol"]), ""]
    lines += [
        "| boxes | n | macro AUC (95 %) | exact match (95 %) | Hamming loss | abnormal, booster "
        "(95 %) | max rule |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind, words in _KINDS.items():
        if kind in measured:
            row = measured[kind]
            lines.append(
                f"| {words} | {row['n']} | {row['macro_auc']} {span(row, 'macro_auc')} | "
                f"{row['exact_match']} {span(row, 'exact_match')} | {row['hamming']} | "
                f"{row['abnormal']['accuracy']} {span(row['abnormal'], 'accuracy')} | "
                f"{row['max_rule']['accuracy']} |"
            )
    lines += ["", "Intervals resample whole groups of images.", ""]
    if "detector" in measured:
        found, beside = measured["detector"], measured["detector"].get("watershed")
        lines += [
            f"Detector, IoU {found['iou']:g}, on {found['boxes']} boxes of {found['images']} "
            f"images: AP {found['ap']} {span(found, 'ap')}; at a score of {found['score']:g} "
            f"precision {found['precision']}, recall {found['recall']}."
            + (f" A watershed alone: AP {beside['ap']}." if beside else ""),
            "",
        ]
    first = next((measured[k] for k in _KINDS if k in measured), None)
    if first is not None:
        lines += ["By type (of the first row of the table):", ""]
        lines += [
            f"- {name}: {_auc(row['auc'])}, {row['n']} boxes; threshold {row['threshold']:g}"
            for name, row in first["by_type"].items()
        ]
    return [*lines, ""]
