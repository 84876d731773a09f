"""The card of a trained HEp-2 model: what a person must know before using it."""

from __future__ import annotations

from typing import Any

from napari_cellpath.core.vocabulary import RESEARCH_ONLY
from napari_cellpath.models import ModelInfo
from training.card import sentence, span
from training.hep2.data import SPECIMEN

_PAPERS = ("nin10", "nin-matconvnet")


def write_card(info: ModelInfo) -> str:
    """Markdown card from what ``model.json`` will say."""
    facts = info.data
    reserve = f"the {len(info.reserve)} groups listed as `reserve` in model.json were set apart."
    if info.architecture in _PAPERS:
        network = "a labelled reconstruction: the paper's figure was never found"
    else:
        network = "which is not the paper's"
    lines = [
        f"# {info.name}",
        "",
        f"**{RESEARCH_ONLY}**",
        "",
        "Tells the staining pattern of one HEp-2 cell of an indirect immunofluorescence image: "
        f"{', '.join(info.class_names)}. The task and the protocols are those of Li, Zhang and "
        f"Zheng (arXiv 1604.05816); the network is {info.architecture}, {network}. "
        f"Input: {info.input['size']} x {info.input['size']} pixels, contrast "
        f"{info.input['contrast']}, the square {info.input['framing']:g} times as wide as the "
        "nucleus' box.",
        "",
        "## Trained on",
        "",
        f"{facts['trained_on_cells']} of the {facts['cells']} cells of '{facts['name']}' "
        f"({facts['groups']} groups by {facts['grouped_by']}, split by {facts['split_by']}); "
        + (reserve if info.reserve else "nothing was set apart."),
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
    lines += ["## Limits", ""]
    if facts["grouped_by"] != SPECIMEN:
        lines.append(
            "- The data do not say which specimen a cell is of. A specimen may stand on both "
            f"sides of a split by {facts['grouped_by']}, and these numbers flatter: in the paper, "
            "91.16 % of a split by cell became 70.52 % with whole specimens left out."
        )
    lines += [
        "- Other microscopes, stains, exposures and patterns were not measured. Mitotic cells, "
        "mixed and cytoplasmic patterns are not known to it: each is called one of its own.",
        "- One cell is weak evidence. Read the specimen: how its cells vote, and how surely.",
        f"- {RESEARCH_ONLY}",
        "",
    ]
    return "\n".join(lines)


def _section(title: str, measured: dict[str, Any]) -> list[str]:
    report = measured["cells"]
    return [
        f"### {title}",
        "",
        sentence(measured["protocol"]),
        "",
        "| cells | mean class accuracy (95 %) | accuracy (95 %) | macro F1 | AUC, one vs rest |",
        "|---|---|---|---|---|",
        f"| {report['n']} | {report['mca']} {span(report, 'mca')} | {report['accuracy']} "
        f"{span(report, 'accuracy')} | {report['macro_f1']} | {report['auc']} |",
        "",
        "Intervals resample whole groups. Recall by pattern:",
        "",
        *(
            f"- {name}: {row['recall']} {span(row, 'recall')}, {row['right']} of {row['n']} cells "
            f"in {row['n_groups']} groups"
            for name, row in report["by_class"].items()
        ),
        "",
    ]
