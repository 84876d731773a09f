"""A model in one line and in one tooltip: what it was trained on and how well it was measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from napari_cellpath.models import ModelEntry, ModelInfo

_FIRST = ("frozen", "reserve", "out_of_fold")  # set apart for good is the more honest measure
_ALSO = {"auc": "AUC", "sensitivity": "sensitivity", "specificity": "specificity"}
_NAMES = {
    "frozen": "of slides kept apart",
    "reserve": "set apart before training",
    "out_of_fold": "of groups that the scoring model did not see",
}


def measures(info: ModelInfo) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Every reported measure with an accuracy: where it was taken, how, and the report."""
    keys = sorted(info.metrics, key=lambda k: _FIRST.index(k) if k in _FIRST else len(_FIRST))
    for place in keys:
        report = info.metrics[place]
        if not isinstance(report, Mapping):
            continue
        if "accuracy" in report:
            yield place, "", report
        for how, inner in report.items():
            if isinstance(inner, Mapping) and "accuracy" in inner:
                yield place, how, inner


def measured(info: ModelInfo) -> str:
    """That measure with what accuracy alone hides: AUC, sensitivity, specificity."""
    of_regions = _of_pixels(info) or _of_types(info)
    if of_regions:
        return of_regions
    for place, _, report in measures(info):
        more = [
            f"{name} {report[key]:.2f}"
            for key, name in _ALSO.items()
            if isinstance(report.get(key), int | float)
        ]
        cells = f" on {report['n']} cells" if report.get("n") else ""
        numbers = ", ".join([_measure(report).removesuffix(cells), *more])
        return f"measured accuracy {numbers},{cells} {_NAMES.get(place, f'({place})')}"
    return "accuracy not measured"


def _of_regions(info: ModelInfo, key: str) -> tuple[str, Mapping[str, Any], Mapping[str, Any]]:
    """Where regions were measured by this key, the report of that place, its part on regions."""
    for place in _FIRST:
        report = info.metrics.get(place, {})
        regions = report.get("regions", {}) if isinstance(report, Mapping) else {}
        if isinstance(regions, Mapping) and isinstance(regions.get(key), float):
            return place, report, regions
    return "", {}, {}


def _of_pixels(info: ModelInfo) -> str:
    """How well a model tells the class of pixels; empty where it was not measured."""
    place, _, regions = _of_regions(info, "dice")
    if not place:
        return ""
    return (
        f"measured mean Dice of all classes {regions['dice']:.2f}"
        f"{_between(regions.get('dice_interval'))}, "
        f"all but {info.class_names[0]} against it {regions['foreground_dice']:.2f}, on "
        f"{regions['n']} regions of {regions['n_groups']} {regions['grouped_by']}s {_NAMES[place]}"
    )


def _of_types(info: ModelInfo) -> str:
    """How well a model tells several types of one region; empty where it was not measured."""
    place, report, regions = _of_regions(info, "macro_auc")
    if not place:
        return ""
    exact = regions.get("exact_match")
    more = f", all types right {exact:.2f}" if isinstance(exact, float) else ""
    detector = report.get("detector", {})
    found = detector.get("ap") if isinstance(detector, Mapping) else None
    where = f"on {regions.get('n', 0):,} regions {_NAMES[place]}"
    if isinstance(found, float):
        where += f"; detector AP {found:.2f} on {detector.get('boxes', 0):,} boxes"
    return f"measured macro AUC of the types {regions['macro_auc']:.2f}{more}, {where}"


def tip(entry: ModelEntry) -> str:
    """The card as a rich-text tooltip."""
    info = entry.info
    lines = [
        f"<p><b>{escape(entry.label)}</b><br>{escape(info.architecture)}, {escape(info.system)}</p>"
    ]
    classes = ", ".join(escape(name) for name in info.class_names)
    scale = f"{info.mpp:g} µm per pixel" if info.mpp else "pixel size not stated"
    lines.append(f"<p>Classes: {classes}<br>{scale}; threshold {info.threshold:g}</p>")
    rows = [
        f"<tr><td>{escape(_NAMES.get(place, place))}"
        f"{', ' + escape(how.replace('_', ' ')) if how else ''}&nbsp;&nbsp;</td>"
        f"<td><b>{_measure(report)}</b></td></tr>"
        for place, how, report in measures(info)
    ]
    of_regions = _of_pixels(info) or _of_types(info)
    if rows and not of_regions:
        lines.append(f"<p>Measured accuracy</p><table>{''.join(rows)}</table>")
    else:
        words = of_regions or "its accuracy has not been measured"
        lines.append(f"<p>{escape(words[0].upper() + words[1:])}.</p>")
    opening = _opening(entry.card)
    if opening:
        lines.append(f"<p>{escape(opening)}</p>")
    if info.licence:
        lines.append(f"<p>Licence: {escape(info.licence)}</p>")
    return "".join(lines)


def _between(interval: Any) -> str:
    if isinstance(interval, list | tuple) and len(interval) == 2 and None not in interval:
        return f" ({interval[0]:.2f} to {interval[1]:.2f})"
    return ""


def _measure(report: Mapping[str, Any]) -> str:
    value = report.get("accuracy")
    if not isinstance(value, int | float):
        return "unknown"
    text = f"{value:.2f}"
    text += _between(report.get("accuracy_interval"))
    if report.get("n"):
        text += f" on {report['n']} cells"
    return text


def _opening(card: str) -> str:
    """First paragraph of prose of a Markdown card, shortened."""
    for paragraph in card.replace("\r", "").split("\n\n"):
        text = " ".join(paragraph.split())
        if text and text[0] not in "#|-*<!>":
            return text if len(text) <= 400 else text[:397] + "…"
    return ""
