"""Layer of objects and project: every gesture into the journal, what it says onto the layer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from napari_cellpath.bridge.boxed import BoxedLayer
from napari_cellpath.bridge.conventions import readings_of, readings_text
from napari_cellpath.bridge.followed import Gesture
from napari_cellpath.bridge.kept import Kept
from napari_cellpath.bridge.objects import ObjectLayer
from napari_cellpath.bridge.scheme import Call
from napari_cellpath.core.annotations import CLASSES, Annotation, Prediction, Shape, joined, parted
from napari_cellpath.core.results import NucleusCall, PatternCall, RegionCall
from napari_cellpath.core.vocabulary import ABNORMAL, NORMAL, System
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


Snapshot = dict[str, tuple[tuple[float, ...], str]]
"""Place and correction of each object, by uid, when its layer was last recorded."""


class ObjectRecorder:
    """Keeps one layer of objects and a project the same.

    Parameters
    ----------
    objects
        The layer's controller.
    project
        Where its gestures go.
    image
        Key of its image, which the project knows.
    since
        How this layer was when it was last recorded; what was done to it since goes to the
        project.

    On being made it brings both together: what the project holds of the image is put on the
    layer, what only the layer has is added to the project.
    """

    def __init__(
        self, objects: ObjectLayer, project: Project, image: str, since: Snapshot | None = None
    ) -> None:
        self.objects, self.project, self.image = objects, project, image
        self.kind = objects.kind
        self._bring_together(since or {})
        objects.happened.connect(self._on_gesture)

    def close(self) -> None:
        """Record no more."""
        self.objects.happened.disconnect(self._on_gesture, missing_ok=True)

    def replay(self, events: Iterable[Event]) -> int:
        """Put on the layer what undone, redone or foreign events changed; returns how many."""
        # In the journal's order: rows must not depend on how a set is hashed.
        touched = dict.fromkeys(c.uid for e in events for c in e.changes if c.table == "objects")
        known = self.project.state.objects
        gone = [uid for uid in touched if uid not in known and uid in self.objects.table]
        mine = [uid for uid in touched if self._is_mine(uid)]
        self.objects.take_away(gone)
        self.objects.take_in([kept_of(u, known[u]) for u in mine])
        return len(gone) + len(mine)

    def _is_mine(self, uid: str) -> bool:
        facts = self.project.state.objects.get(uid)
        return (
            facts is not None
            and facts["image"] == self.image
            and facts.get("system", System.DEEPPAP) == self.kind.system
            and facts.get("shape", Shape.POINT) == self.kind.shape
            and not facts.get("complete")
        )

    def snapshot(self) -> Snapshot:
        """Place and correction of every object, as they are on the layer now."""
        table = self.objects.table
        places = self._geometries(range(len(table)))
        said = table.features["correction"]
        return {str(uid): (at, str(c)) for uid, at, c in zip(table.uids, places, said, strict=True)}

    def _bring_together(self, since: Snapshot) -> None:
        known = [u for u in self.project.state.objects if self._is_mine(u)]
        objects = self.project.state.objects
        now = self.snapshot() if since else {}
        gone = [u for u in known if u in since and u not in now]
        moved = [u for u in known if u in since and u in now and now[u][0] != since[u][0]]
        said = [u for u in known if u in since and u in now and now[u][1] != since[u][1]]
        here_first = {*gone, *moved, *said}
        self.objects.take_in([kept_of(u, objects[u]) for u in known if u not in here_first])
        have = set(known)
        new = [str(u) for u in self.objects.table.uids if u not in have]
        if new:
            self.project.add(self._annotations(new))
        done = ((Gesture.DELETED, gone), (Gesture.MOVED, moved), (Gesture.CORRECTED, said))
        for gesture, uids in done:
            if uids:
                self._on_gesture(gesture, uids)

    def _on_gesture(self, gesture: Gesture, uids: list[str]) -> None:
        if gesture is Gesture.DELETED:
            self.project.record(Kind.DELETE, {"objects": dict.fromkeys(uids)})
        elif gesture is Gesture.ADDED:
            self.project.add(self._annotations(uids))
        elif gesture is Gesture.CORRECTED:
            self.project.label({u: self._labels(r) for u, r in self._rows(uids)})
        else:
            self.project.record(_KINDS[gesture], {"objects": self._facts(gesture, uids)})

    def _facts(self, gesture: Gesture, uids: Sequence[str]) -> dict[str, dict[str, Any]]:
        """What a gesture changes of each object."""
        rows = self._rows(uids)
        if gesture is Gesture.SEEN:
            return {uid: {"seen": True} for uid, _ in rows}
        if gesture is Gesture.READ:
            return {uid: {"readings": self._readings(row) or None} for uid, row in rows}
        places = self._geometries([row for _, row in rows])
        if gesture is Gesture.MOVED:
            return {uid: {"geometry": at} for (uid, _), at in zip(rows, places, strict=True)}
        facts: dict[str, dict[str, Any]] = {}
        for (uid, row), at in zip(rows, places, strict=True):
            prediction = self._prediction(uid, row, at)
            facts[uid] = {"prediction": prediction.to_facts() if prediction else None}
        return facts

    def _rows(self, uids: Sequence[str]) -> list[tuple[str, int]]:
        rows = self.objects.table.rows(uids)
        return [(u, int(r)) for u, r in zip(uids, rows, strict=True)]

    def _annotations(self, uids: Sequence[str]) -> list[Annotation]:
        features, rows = self.objects.table.features, self._rows(uids)
        places = self._geometries([row for _, row in rows])
        return [
            Annotation(
                uid, self.image, self.kind.system, self.kind.shape, at, self._labels(row),
                id=str(features["id"][row]), seen=bool(features["seen"][row]),
                readings=tuple(self._readings(row).items()),
                prediction=self._prediction(uid, row, at),
            )
            for (uid, row), at in zip(rows, places, strict=True)
        ]  # fmt: skip

    def _geometries(self, rows: Sequence[int]) -> list[tuple[float, ...]]:
        at = np.array(rows, dtype=np.intp)
        if isinstance(self.objects, BoxedLayer):
            places = self.objects.table.clipped(at).astype(float)
        else:
            places = self.objects.table.positions[at]
        return [tuple(place) for place in places.tolist()]

    def _readings(self, row: int) -> dict[str, str]:
        return readings_of(str(self.objects.table.features["readings"][row]))

    def _labels(self, row: int) -> tuple[str, ...]:
        said = str(self.objects.table.features["correction"][row])
        if self.kind.several:
            return parted(said)
        return (said,) if said else ()

    def _prediction(self, uid: str, row: int, at: tuple[float, ...]) -> Prediction | None:
        """The last finished call, with the place it was made for."""
        table = self.objects.table
        call = table.calls.get(uid)
        if call is None or not call.final:
            return None
        names = table.scheme.classes
        fits = len(names) == len(call.probabilities)
        score = call.score
        finite = math.isfinite(score)
        facts: dict[str, Any] = {
            "label": call.label, "score": score if finite else None,
            "n_views": call.n_views, "model": call.model, "precision": call.precision,
            "probabilities": tuple(zip(names, call.probabilities, strict=True))
            if fits and finite else (),
            "flags": call.flags,
        }  # fmt: skip
        if isinstance(call, NucleusCall):
            facts |= {
                "std": call.std if math.isfinite(call.std) else None, "threshold": call.threshold,
                "at": (call.row, call.col), "calibrated": call.calibrated,
            }  # fmt: skip
        else:
            # The box as it stood when it was asked for; what was moved since has none.
            facts["at"] = () if table.moved[row] else at
        if isinstance(call, RegionCall):
            # What it holds is the class; whether that is abnormal, score and threshold tell.
            facts |= {"label": CLASSES.join(call.labels), "threshold": call.abnormal_threshold}
        elif isinstance(call, PatternCall) and call.calibrated and finite:
            facts["calibrated"] = call.calibrated[int(np.argmax(call.probabilities))]
        return Prediction(**facts)


def kept_of(uid: str, facts: Mapping[str, Any]) -> Kept:
    """What a layer takes of an object's facts (`Annotation.to_facts`).

    Straight from the facts: by way of `Annotation` 100,000 nuclei took three times as long.
    """
    box: tuple[int, int, int, int] | None = None
    geometry = facts["geometry"]
    if facts.get("shape") == Shape.BOX:
        row0, col0, row1, col1 = box = tuple(round(x) for x in geometry)  # type: ignore[assignment]
        row, col = (row0 + row1 - 1) / 2, (col0 + col1 - 1) / 2
    else:
        row, col = geometry
    said = facts.get("prediction")
    call: Call | None = None
    moved = False
    if said is not None:
        at = said.get("at") or ([] if box is not None else geometry)
        moved = list(at) != list(geometry)
        if facts.get("system") == System.RBC:
            call = _region(uid, row, col, said)
        else:
            call = _pattern(uid, row, col, said) if box is not None else _score(uid, at, said)
    labels = facts.get("labels") or ("",)
    several = facts.get("system") == System.RBC
    return Kept(
        uid, (float(row), float(col)), str(facts.get("id", "")),
        joined(labels) if several else labels[0],
        bool(facts.get("seen", False)), call, readings_text(facts.get("readings", {})), moved, box,
    )  # fmt: skip


def _score(uid: str, at: Sequence[float], said: Mapping[str, Any]) -> NucleusCall:
    score, std, threshold = said.get("score"), said.get("std"), said.get("threshold")
    return NucleusCall(
        uid=uid, row=float(at[0]), col=float(at[1]),
        score=math.nan if score is None else float(score),
        std=math.nan if std is None else float(std),
        n_views=int(said.get("n_views", 0)), label=str(said.get("label", "")),
        probabilities=tuple(said.get("probabilities", {}).values()),
        threshold=0.5 if threshold is None else float(threshold),
        model=str(said.get("model", "")), precision=str(said.get("precision", "fp32")),
        flags=tuple(said.get("flags", ())), calibrated=said.get("calibrated"),
    )  # fmt: skip


def _pattern(uid: str, row: float, col: float, said: Mapping[str, Any]) -> PatternCall:
    return PatternCall(
        uid=uid, row=row, col=col, label=str(said.get("label", "")),
        probabilities=tuple(said.get("probabilities", {}).values()),
        n_views=int(said.get("n_views", 0)), model=str(said.get("model", "")),
        precision=str(said.get("precision", "fp32")), flags=tuple(said.get("flags", ())),
    )  # fmt: skip


def _region(uid: str, row: float, col: float, said: Mapping[str, Any]) -> RegionCall:
    score, threshold = said.get("score"), said.get("threshold")
    chance = math.nan if score is None else float(score)
    limit = 0.5 if threshold is None else float(threshold)
    label = str(said.get("label", ""))
    return RegionCall(
        uid=uid, row=row, col=col, labels=tuple(label.split(CLASSES)) if label else (),
        probabilities=tuple(said.get("probabilities", {}).values()), thresholds=(),
        abnormal=chance, abnormal_threshold=limit,
        label="" if math.isnan(chance) else ABNORMAL if chance > limit else NORMAL,
        model=str(said.get("model", "")), n_views=int(said.get("n_views", 0)),
        precision=str(said.get("precision", "fp32")), flags=tuple(said.get("flags", ())),
    )  # fmt: skip
