"""Regions of red cells out: the rows of ``cellpath predict rbc`` and of the viewer's export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from napari_cellpath.core.box_table import BOX_COLUMNS
from napari_cellpath.core.results import RegionCall


def region_columns(types: Sequence[str]) -> tuple[str, ...]:
    """Columns of a region table: one ``p_TYPE`` a type, flags last.

    ``labels`` are the types above their thresholds, ``abnormal`` is the probability of abnormal
    and ``call`` what it amounts to; ``n_views`` is 1, or 8 where eight ways round were averaged.
    """
    return (
        "image", "id", *BOX_COLUMNS, "detection",
        *(f"p_{name}" for name in types),
        "labels", "abnormal", "call", "n_views", "model", "flags",
    )  # fmt: skip


def region_record(
    image: str,
    identity: str,
    box: Sequence[int],
    types: Sequence[str],
    call: RegionCall | None = None,
    detection: float | None = None,
) -> dict[str, Any]:
    """One row of a region table.

    Parameters
    ----------
    image, identity
        File name and id.
    box
        (row0, col0, row1, col1), half-open level-0 pixel edges.
    types
        Of the model, in its order.
    call
        The answer; None where nobody asked. Without an answer its numbers are left empty and
        its flags say why.
    detection
        Score of the detector; None of a box that was given.
    """
    record: dict[str, Any] = {"image": image, "id": identity}
    record |= dict(zip(BOX_COLUMNS, (int(edge) for edge in box), strict=True))
    if detection is not None:
        record["detection"] = float(detection)
    if call is None:
        return record
    record |= {"model": call.model, "flags": call.flags}
    if call.label:
        record |= {f"p_{name}": p for name, p in zip(types, call.probabilities, strict=True)}
        record |= {"labels": call.labels, "abnormal": call.abnormal, "call": call.label}
        record |= {"n_views": call.n_views}
    return record


def is_judged(record: Mapping[str, Any]) -> bool:
    """Whether a row holds an answer."""
    return bool(record.get("call"))
