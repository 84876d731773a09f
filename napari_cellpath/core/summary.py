"""A slide in one page: cells by band, the most abnormal first, what was seen. NumPy only."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_cellpath.core.files import write_atomically

MOST = 20
"""How many of the most abnormal cells are listed."""
BANDS = ("abnormal", "doubtful", "normal")


def band_of(score: float, threshold: float, band: float) -> str:
    """``abnormal``, ``doubtful`` (within the review band) or ``normal``; empty without a score."""
    if not np.isfinite(score):
        return ""
    if abs(score - threshold) <= band + 1e-12:
        return "doubtful"
    return "abnormal" if score > threshold else "normal"


def summarise(
    rows: Sequence[Mapping[str, Any]], *, threshold: float, band: float, model: str,
    abnormal: Collection[str] = (),
) -> dict[str, Any]:  # fmt: skip
    """Sum up the rows of a nucleus table.

    Parameters
    ----------
    rows
        As written to the CSV: ``image``, ``id``, ``row``, ``col``, ``flags`` and, where there is
        one, ``score`` and ``label``; ``seen`` and ``correction`` where a person worked on them.
    threshold, band
        Scores within ``band`` of the threshold are doubtful.
    model
        Name and short hash of the weights.
    abnormal
        Names of the abnormal classes: a person's word counts instead of the score, in bands, in
        labels and in what is listed.

    Returns
    -------
    dict
        Ready for JSON, the same for the same rows.
    """
    scored = [row for row in rows if row.get("score") is not None]
    bands = dict.fromkeys(BANDS, 0)
    flags: dict[str, int] = {}
    labels: dict[str, int] = {}
    for row in rows:
        for flag in row.get("flags") or ():
            flags[flag] = flags.get(flag, 0) + 1
    for row in scored:
        said = row.get("correction")
        if said:
            bands["abnormal" if said in abnormal else "normal"] += 1
        else:
            bands[band_of(float(row["score"]), threshold, band)] += 1
        label = said or row["label"]
        labels[label] = labels.get(label, 0) + 1
    listed = [r for r in scored if not r.get("correction") or r["correction"] in abnormal]
    first = sorted(listed, key=lambda r: (-float(r["score"]), str(r["image"]), str(r["id"])))
    told = ["image", "id", "row", "col", "score", "label", "flags"]
    if any("correction" in row for row in rows):
        told.append("correction")
    summary: dict[str, Any] = {
        "model": model,
        "threshold": threshold,
        "review_band": band,
        "cells": len(rows),
        "not_scored": len(rows) - len(scored),
        "bands": bands,
        "labels": dict(sorted(labels.items())),
        "flags": dict(sorted(flags.items())),
        "most_abnormal": [{k: _plain(r.get(k, "")) for k in told} for r in first[:MOST]],
    }
    if any("seen" in row for row in rows):
        seen = sum(bool(row.get("seen")) for row in rows)
        summary["seen"] = {"seen": seen, "unseen": len(rows) - seen}
        summary["corrected"] = sum(bool(row.get("correction")) for row in rows)
    return summary


def summary_path(out: Path) -> Path:
    """Where the summary beside a table goes: ``O.summary.json`` for ``O.csv``."""
    return out.with_name(f"{out.stem}.summary.json")


def write_summary(out: Path, summary: Mapping[str, Any]) -> None:
    """Write the summary beside the table ``out``, whole or not at all.

    Raises
    ------
    OutputError
        It could not be written.
    """
    text = json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(summary_path(out), text + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return value.item() if isinstance(value, np.generic) else value
