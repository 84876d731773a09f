"""Nuclei layer and project: every gesture into the journal, what it says onto the layer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from napari_cellpath.bridge.columns import Kept, NucleusTable
from napari_cellpath.bridge.conventions import readings_of, readings_text
from napari_cellpath.bridge.nuclei import Gesture, NucleiLayer
from napari_cellpath.core.annotations import Annotation, Prediction
from napari_cellpath.core.results import NucleusCall
from napari_cellpath.core.vocabulary import System
from napari_cellpath.project import Event, Kind, Project

_KINDS = {
    Gesture.ADDED: Kind.ADD,
    Gesture.DELETED: Kind.DELETE,
    Gesture.MOVED: Kind.MOVE,
    Gesture.CORRECTED: Kind.LABEL,
    Gesture.SCORED: Kind.PREDICT,
    Gesture.SEEN: Kind.SEE,
    Gesture.READ: Kind.READ,
}


class NucleiRecorder:
    """Keeps one nuclei layer and a project the same.

    Parameters
    ----------
    nuclei
        The layer's controller.
    project
        Where its gestures go.
    image
        Key of its image, which the project knows.

    On being made it brings both together: what the project holds of the image is put on the
    layer, what only the layer has is added to the project.
    """

    def __init__(self, nuclei: NucleiLayer, project: Project, image: str) -> None:
        self.nuclei, self.project, self.image = nuclei, project, image
        self._bring_together()
        nuclei.happened.connect(self._on_gesture)

    def close(self) -> None:
        """Record no more."""
        self.nuclei.happened.disconnect(self._on_gesture, missing_ok=True)

    def replay(self, events: Iterable[Event]) -> int:
        """Put on the layer what undone, redone or foreign events changed; returns how many."""
        # In the journal's order: rows must not depend on how a set is hashed.
        touched = dict.fromkeys(c.uid for e in events for c in e.changes if c.table == "objects")
        objects = self.project.state.objects
        gone = [uid for uid in touched if uid not in objects and uid in self.nuclei.table]
        mine = [uid for uid in touched if self._is_mine(uid)]
        self.nuclei.take_away(gone)
        self.nuclei.take_in([kept_of(u, objects[u]) for u in mine])
        return len(gone) + len(mine)

    def _is_mine(self, uid: str) -> bool:
        facts = self.project.state.objects.get(uid)
        return (
            facts is not None
            and facts["image"] == self.image
            and facts.get("system", System.DEEPPAP) == System.DEEPPAP
            and facts.get("shape", "point") == "point"
        )

    def _bring_together(self) -> None:
        known = [u for u in self.project.state.objects if self._is_mine(u)]
        objects = self.project.state.objects
        self.nuclei.take_in([kept_of(u, objects[u]) for u in known])
        have = set(known)
        new = [str(u) for u in self.nuclei.table.uids if u not in have]
        if new:
            self.project.add(self._annotations(new))

    def _on_gesture(self, gesture: Gesture, uids: list[str]) -> None:
        table = self.nuclei.table
        if gesture is Gesture.DELETED:
            self.project.record(Kind.DELETE, {"objects": dict.fromkeys(uids)})
        elif gesture is Gesture.ADDED:
            self.project.add(self._annotations(uids))
        elif gesture is Gesture.CORRECTED:
            self.project.label({u: _labels(table, r) for u, r in self._rows(uids)})
        else:
            facts: dict[str, dict[str, Any]] = {}
            for uid, row in self._rows(uids):
                if gesture is Gesture.MOVED:
                    facts[uid] = {"geometry": _place(table, row)}
                elif gesture is Gesture.SEEN:
                    facts[uid] = {"seen": True}
                elif gesture is Gesture.READ:
                    facts[uid] = {"readings": _readings(table, row) or None}
                else:
                    prediction = _prediction(table, uid)
                    facts[uid] = {"prediction": prediction.to_facts() if prediction else None}
            self.project.record(_KINDS[gesture], {"objects": facts})

    def _rows(self, uids: Sequence[str]) -> list[tuple[str, int]]:
        table = self.nuclei.table
        return [(u, int(r)) for u, r in zip(uids, table.rows(uids), strict=True)]

    def _annotations(self, uids: Sequence[str]) -> list[Annotation]:
        table = self.nuclei.table
        return [
            Annotation(
                uid, self.image, geometry=_place(table, row), labels=_labels(table, row),
                id=str(table.features["id"][row]), seen=bool(table.features["seen"][row]),
                readings=tuple(_readings(table, row).items()), prediction=_prediction(table, uid),
            )
            for uid, row in self._rows(uids)
        ]  # fmt: skip


def kept_of(uid: str, facts: Mapping[str, Any]) -> Kept:
    """What the nuclei layer takes of an object's facts (`Annotation.to_facts`).

    Straight from the facts: by way of `Annotation` 100,000 nuclei took three times as long.
    """
    row, col = facts["geometry"]
    said = facts.get("prediction")
    call = None
    if said is not None:
        at_row, at_col = said.get("at") or (row, col)
        score, std, threshold = said.get("score"), said.get("std"), said.get("threshold")
        call = NucleusCall(
            uid=uid, row=float(at_row), col=float(at_col),
            score=math.nan if score is None else float(score),
            std=math.nan if std is None else float(std),
            n_views=int(said.get("n_views", 0)), label=str(said.get("label", "")),
            probabilities=tuple(said.get("probabilities", {}).values()),
            threshold=0.5 if threshold is None else float(threshold),
            model=str(said.get("model", "")), precision=str(said.get("precision", "fp32")),
            flags=tuple(said.get("flags", ())), calibrated=said.get("calibrated"),
        )  # fmt: skip
    labels = facts.get("labels")
    return Kept(
        uid, (float(row), float(col)), str(facts.get("id", "")), labels[0] if labels else "",
        bool(facts.get("seen", False)), call, readings_text(facts.get("readings", {})),
    )  # fmt: skip


def _place(table: NucleusTable, row: int) -> tuple[float, float]:
    return float(table.positions[row, 0]), float(table.positions[row, 1])


def _readings(table: NucleusTable, row: int) -> dict[str, str]:
    return readings_of(str(table.features["readings"][row]))


def _labels(table: NucleusTable, row: int) -> tuple[str, ...]:
    said = str(table.features["correction"][row])
    return (said,) if said else ()


def _prediction(table: NucleusTable, uid: str) -> Prediction | None:
    """The last finished call, with the place it was made for."""
    call = table.calls.get(uid)
    if call is None or not call.final:
        return None
    names = table.scheme.classes
    fits = len(names) == len(call.probabilities)
    finite = np.isfinite(call.score)
    return Prediction(
        label=call.label, score=call.score if finite else None,
        std=call.std if np.isfinite(call.std) else None, n_views=call.n_views,
        probabilities=tuple(zip(names, call.probabilities, strict=True)) if fits and finite else (),
        threshold=call.threshold, model=call.model, precision=call.precision, flags=call.flags,
        at=(call.row, call.col), calibrated=call.calibrated,
    )  # fmt: skip
