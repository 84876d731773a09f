"""Layers as piles of items to review: what there is, what it is called, what a person says.

A system takes part in the review by one class that fits `ReviewItems`, named in `PILES`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import numpy as np
from napari.layers import Image, Layer
from numpy.typing import NDArray
from psygnal import Signal, SignalInstance

from napari_cellpath.bridge import conventions, held
from napari_cellpath.bridge.boxed import BoxedLayer
from napari_cellpath.bridge.kinds import kind_of
from napari_cellpath.bridge.objects import ObjectLayer
from napari_cellpath.bridge.red_cells import RedCellsLayer, RegionScheme, tint_of
from napari_cellpath.bridge.review_tissue import TissueReview
from napari_cellpath.bridge.scheme import Scheme
from napari_cellpath.core import requests
from napari_cellpath.core.annotations import parted
from napari_cellpath.core.doubt import ItemFacts, Rows
from napari_cellpath.core.errors import CellpathError
from napari_cellpath.core.vocabulary import CLASS_COLOURS, FLAG_WORDS
from napari_cellpath.models import ModelEntry, list_models
from napari_cellpath.systems.rbc.verdict import Verdict, read_verdict

FIELD_UM = 26.0  # shown round a cell, micrometres: nucleus and cytoplasm
FIELD_PIXELS = 128  # where the size of a pixel is not known
ROUND_BOX = 1.5  # shown round a cell with a box, in lengths of the box


class ReviewItems(Protocol):
    """Items of one layer, known by uid; rows are 0-based and may change with every reset."""

    kind: str
    """What several of them are called, e.g. ``nuclei``."""
    layer: Layer
    image: Image
    group: str
    """Slide, patient or specimen that the image is of."""
    changed: SignalInstance
    """Facts of some rows changed."""
    reset: SignalInstance
    """Rows were added, removed or moved."""
    selected: SignalInstance
    """Another selection on the layer."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of their keys."""

    @property
    def colours(self) -> tuple[str, ...]:
        """Colour of each class."""

    @property
    def threshold(self) -> float:
        """Score above which an object is called abnormal."""

    @property
    def several(self) -> bool:
        """Whether an item may be of several classes: a class given to it is flipped."""

    def __len__(self) -> int: ...

    def facts(self) -> ItemFacts:
        """All items as they are now."""

    def counts(self) -> list[tuple[int, int]]:
        """(called, labelled) of each class: how many the model calls so, and a person."""

    def features(self) -> NDArray[np.floating[Any]] | None:
        """(n, d) features of the items for comparing neighbours, None if there are none."""

    def features_request(self, image: requests.Image) -> Any:
        """What the backend is asked for features, None where nobody can give any."""

    def set_features(self, uids: Sequence[str], vectors: NDArray[np.floating[Any]]) -> None:
        """Give features (len(uids), d) of the trunk of one network, to compare neighbours by."""

    def rows(self, uids: Iterable[str]) -> Rows:
        """Row of each uid, -1 where it is not here."""

    def window(self, row: int, mpp: float | None) -> tuple[float, float, float]:
        """Centre (row, col) and side of the square to show, level-0 pixels."""

    def world(self, row: int) -> NDArray[np.float64]:
        """Where the item lies in the viewer's world."""

    def note(self, row: int) -> str:
        """What speaks for care, in words; empty if nothing does."""

    def tint(self, row: int) -> str:
        """Colour of what the model calls the item; empty where that is the class's."""

    def label(self, uids: Sequence[str], label: str) -> None:
        """Write a person's word on these, as one correction; empty takes it back.

        Where an item may be of several classes, this one is flipped.
        """

    def agree(self, uids: Sequence[str]) -> None:
        """Take the calls of these as a person's word."""

    def see(self, uids: Sequence[str]) -> None:
        """Note that a person has looked at these."""

    def select(self, uids: Sequence[str]) -> None:
        """Select these on the layer."""

    def selection(self) -> list[str]:
        """Uids selected on the layer."""

    def readings(self) -> dict[str, dict[str, str]]:
        """Blind readings: reader to uid to class."""

    def record_reading(self, uids: Sequence[str], reader: str, label: str) -> None:
        """Note a blind reading beside the label; empty takes it back."""

    def close(self) -> bool:
        """Let go of the layer; whether nobody else is at work on it."""


class ObjectReview:
    """The objects of one layer, through the controller that all docks share."""

    reset = Signal()
    """Objects were added, removed or reordered."""

    def __init__(self, hold: held.Hold) -> None:
        self._hold = hold
        self.objects: ObjectLayer = hold.objects
        self.kind = self.objects.kind.many
        self.layer, self.image = self.objects.layer, self.objects.image
        self.group = self.image.name
        self.changed = self.objects.rows_changed
        self.selected = self.objects.selection_changed
        self._vectors: dict[str, NDArray[np.floating[Any]]] = {}
        hold.listen(self.objects.rows_added, self.reset.emit)
        hold.listen(self.objects.rows_reset, self.reset.emit)

    @classmethod
    def of(cls, layer: Layer, layers: Iterable[Layer]) -> ObjectReview | None:
        """The objects of a layer; None if it is none of ours or its image is not open."""
        if kind_of(layer) is None:
            return None
        image = conventions.image_of(layer, layers) or conventions.reunite(layer, layers)
        if image is None:
            return None
        hold = held.join(layer) or held.take(layer, image, scheme_of(layer))
        return RegionReview(hold) if isinstance(hold.objects, RedCellsLayer) else cls(hold)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the model's classes."""
        return self.objects.table.scheme.classes

    @property
    def colours(self) -> tuple[str, ...]:
        """Colours of the model's classes."""
        return self.objects.table.scheme.colours

    @property
    def threshold(self) -> float:
        """Score above which an object is called abnormal."""
        return self.objects.table.scheme.threshold

    @property
    def several(self) -> bool:
        """Whether an object may be of several classes."""
        return self.objects.kind.several

    def set_group(self, name: str) -> None:
        """Say which slide, patient or specimen the image is of."""
        if name != self.group:
            self.group = name
            self.reset.emit()

    def __len__(self) -> int:
        return len(self.objects)

    def facts(self) -> ItemFacts:
        """All objects as they are now; columns are the controller's own, not to be written."""
        table = self.objects.table
        columns = table.features
        return ItemFacts(
            uid=table.uids, call=columns["call"], label=columns["correction"],
            score=columns["score"], std=columns.get("std", np.full(len(table), np.nan)),
            margin=table.clearness(),
            doubtful=table.doubtful & ~columns["stale"], stale=columns["stale"] | table.outside,
            seen=columns["seen"], flagged=table.unlike | table.unassessable,
            group=np.full(len(table), self.group, dtype=object),
        )  # fmt: skip

    def counts(self) -> list[tuple[int, int]]:
        """(called, labelled) of each class: how many the model calls so, and a person."""
        table, size = self.objects.table, len(self.classes)
        called = np.bincount(table.call_code[table.call_code >= 0], minlength=size)
        labelled = np.bincount(table.correction_code[table.correction_code >= 0], minlength=size)
        return list(zip(called.tolist(), labelled.tolist(), strict=True))

    def features(self) -> NDArray[np.floating[Any]] | None:
        """(n, d) features; NaN for objects that have none."""
        if not self._vectors:
            return None
        size = len(next(iter(self._vectors.values())))
        blank = np.full(size, np.nan)
        return np.array([self._vectors.get(str(uid), blank) for uid in self.objects.table.uids])

    def features_request(self, image: requests.Image) -> requests.FeaturesRequest | None:
        """The trunk features of all called objects by the model that called them."""
        table, entry = self.objects.table, _model_on(self.layer)[1]
        uids = table.uids[(table.call_code >= 0) & ~table.outside]
        if entry is None or not len(uids):
            return None
        return requests.FeaturesRequest(
            image, self.objects.wanted([str(uid) for uid in uids]), str(entry.folder),
            entry.info.system,
        )  # fmt: skip

    def set_features(self, uids: Sequence[str], vectors: NDArray[np.floating[Any]]) -> None:
        """Give features (len(uids), d) of the trunk of one network, to compare neighbours by."""
        self._vectors = {str(u): v for u, v in zip(uids, np.asarray(vectors), strict=True)}

    def rows(self, uids: Iterable[str]) -> Rows:
        """Row of each uid, -1 where it is not here."""
        return self.objects.table.places(uids)

    def window(self, row: int, mpp: float | None) -> tuple[float, float, float]:
        """Centre and side of the square to show, level-0 pixels."""
        at = self.objects.table.positions[row]
        if isinstance(self.objects, BoxedLayer):
            row0, col0, row1, col1 = self.objects.table.boxes[row]
            return float(at[0]), float(at[1]), ROUND_BOX * max(row1 - row0, col1 - col0)
        side = FIELD_PIXELS if mpp is None else FIELD_UM / mpp
        return float(at[0]), float(at[1]), side

    def world(self, row: int) -> NDArray[np.float64]:
        """Where the object lies in the viewer's world."""
        return np.asarray(self.layer.data_to_world(tuple(self.objects.table.positions[row])))

    def note(self, row: int) -> str:
        """The flags of the call, in words."""
        flags = str(self.objects.table.features["flags"][row]).split()
        return ", ".join(FLAG_WORDS.get(flag, flag) for flag in flags)

    def tint(self, row: int) -> str:
        """Nothing: what a model calls the object is a class, which has a colour."""
        return ""

    def label(self, uids: Sequence[str], label: str) -> None:
        """Write a person's word on these objects; empty takes it back."""
        self.objects.correct(uids, label)

    def agree(self, uids: Sequence[str]) -> None:
        """Take the calls of these as a person's word: one correction a class."""
        self.objects.accept(uids)

    def see(self, uids: Sequence[str]) -> None:
        """Note that a person has looked at these objects."""
        self.objects.see(uids)

    def select(self, uids: Sequence[str]) -> None:
        """Select these objects on the layer."""
        self.objects.select(uids)

    def selection(self) -> list[str]:
        """Uids selected on the layer."""
        return self.objects.selected()

    def readings(self) -> dict[str, dict[str, str]]:
        """Blind readings: reader to uid to class."""
        found: dict[str, dict[str, str]] = {}
        column = self.objects.table.features["readings"]
        for row in np.flatnonzero(column != ""):
            uid = str(self.objects.table.uids[row])
            for reader, label in conventions.readings_of(column[row]).items():
                found.setdefault(reader, {})[uid] = label
        return found

    def record_reading(self, uids: Sequence[str], reader: str, label: str) -> None:
        """Note a blind reading beside the label; empty takes it back."""
        table = self.objects.table
        texts: dict[str, str] = {}
        for row in table.rows(uids):
            read = conventions.readings_of(table.features["readings"][row])
            read.pop(reader, None)
            if label:
                read[reader] = label
            texts[str(table.uids[row])] = conventions.readings_text(read)
        self.objects.keep_readings(texts)

    def close(self) -> bool:
        """Let go of the controller; whether nobody else holds it."""
        return self._hold.release()


class RegionReview(ObjectReview):
    """The regions of one layer: each may hold several types, and a label flips one."""

    objects: RedCellsLayer

    def counts(self) -> list[tuple[int, int]]:
        """(called, labelled) of each type: in how many regions the model sees it, and a person."""
        table = self.objects.table
        rows = np.arange(len(table))
        called, labelled = (table.sets(c, rows).sum(axis=0) for c in ("call", "correction"))
        return list(zip(called.tolist(), labelled.tolist(), strict=True))

    def tint(self, row: int) -> str:
        """The colour of the verdict."""
        return tint_of(self.objects.table, row)

    def label(self, uids: Sequence[str], label: str) -> None:
        """Flip a type of these regions; empty takes back what a person said of them."""
        if label:
            self.objects.toggle(uids, label)
        else:
            self.objects.correct_each(dict.fromkeys(uids, ""))


PILES: tuple[Callable[[Layer, Iterable[Layer]], ReviewItems | None], ...] = (
    ObjectReview.of,
    TissueReview.of,
)
"""What makes the items of a layer, or None: one for each kind of layer there is."""


def items_of(layer: Layer, layers: Iterable[Layer]) -> ReviewItems | None:
    """The items of a layer, None if there is nothing on it to review."""
    layers = list(layers)
    return next((items for make in PILES if (items := make(layer, layers)) is not None), None)


def scheme_of(layer: Layer) -> Scheme:
    """How the scores of a layer are read where no dock says so: as its model's folder says.

    Without that model on this machine the classes are those that occur on the layer.
    """
    frame, kind = layer.features, kind_of(layer)
    several = kind is not None and kind.several
    name, entry = _model_on(layer)
    if entry is not None:
        info = entry.info
        facts: dict[str, Any] = {
            "model": name, "classes": info.class_names,
            "colours": tuple(c.colour for c in info.classes),
            "abnormal": tuple(c.abnormal for c in info.classes), "threshold": info.threshold,
            "band": info.review_band,
        }  # fmt: skip
        verdict = _verdict(entry) if several else None
        if verdict is None:
            return RegionScheme(**facts) if several else Scheme(**facts)
        return RegionScheme(
            **facts, thresholds=tuple(verdict.thresholds.tolist()),
            judge=verdict.probability_of_abnormal,
        )  # fmt: skip
    words = {*_words(frame.get("call", ())), *_words(frame.get("correction", ()))}
    classes = tuple(sorted({t for w in words for t in parted(w)} if several else words))
    colours = tuple(CLASS_COLOURS[i % len(CLASS_COLOURS)] for i in range(len(classes)))
    made = RegionScheme if several else Scheme
    return made(model=name, classes=classes, colours=colours, abnormal=(False,) * len(classes))


def _verdict(entry: ModelEntry) -> Verdict | None:
    """How the model's answers on regions are read; None where its folder is damaged."""
    try:
        return read_verdict(entry.folder)
    except CellpathError:
        return None


def _model_on(layer: Layer) -> tuple[str, ModelEntry | None]:
    """The model that made most of a layer's calls: its name, and the model where it is here."""
    models, kind = _words(layer.features.get("model", ())), kind_of(layer)
    name = max(set(models), key=models.count).partition("@")[0] if models else ""
    there = list_models(kind.system) if kind is not None and name else []
    return name, next((e for e in there if e.name == name), None)


def _words(values: Iterable[Any]) -> list[str]:
    return [v for v in values if isinstance(v, str) and v]
