"""What a review dock is about: the items, the round that is being looked through, the viewer.

The one class of the dock that touches the viewer. It works on the controllers that the other
docks use too, so a label given here is at once a correction there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from napari.layers import Image, Layer
from psygnal import Signal

from napari_cellpath.backend import shared_backend
from napari_cellpath.backend.job import Backend, JobEvent
from napari_cellpath.bridge.conventions import layers_of
from napari_cellpath.bridge.deck import Deck
from napari_cellpath.bridge.review import ObjectReview, ReviewItems, items_of
from napari_cellpath.bridge.review_round import Round
from napari_cellpath.bridge.sources import Source, Sources, prepare
from napari_cellpath.bridge.timing import timed
from napari_cellpath.core.doubt import Order, Show, arranged, disagreement, listed
from napari_cellpath.core.errors import CellpathError
from napari_cellpath.core.results import CellFeatures
from napari_cellpath.core.vocabulary import Role
from napari_cellpath.widgets.door import Door
from napari_cellpath.widgets.errands import Errands
from napari_cellpath.widgets.keeper import Keeper

SMALLEST = 60.0  # the field round an item jumped to is at least so many screen pixels wide
TELLING = (Role.MASKS, Role.FIELD_REGIONS, Role.EDITED)
"""Layers beside the objects that show calls."""
MOST_MIRRORED = 200  # a larger selection takes napari longer to highlight than it helps


class ReviewSession:
    """State of one review dock.

    Parameters
    ----------
    viewer
        The napari viewer.
    backend
        Gives the backend when it is first needed: features are computed there.

    Attributes
    ----------
    piles
        The layers there are to review, topmost first.
    deck
        The items of those that are under review.
    round
        The items that are looked through now.
    """

    piles_changed = Signal()
    deck_changed = Signal()
    """Other layers are under review."""
    items_changed = Signal()
    """Facts of some items changed."""
    items_reset = Signal()
    """Items came or went."""
    round_began = Signal()
    selected = Signal(list)
    """Uids that were selected on the layers."""
    pictures_changed = Signal()
    """An image is known now, or has other pixels."""
    told = Signal(str, str)
    """Severity (``info``, ``warning``, ``error``) and a sentence for the user."""

    def __init__(self, viewer: Any, backend: Callable[[], Backend] = shared_backend) -> None:
        self.viewer = getattr(viewer, "__wrapped__", viewer)  # see NucleiSession
        self.piles: list[ReviewItems] = []
        self._alone: Layer | None = None
        self.door = Door(self._deliver)
        self._errands = Errands(lambda r: backend().submit(r, listener=self.door.post))
        self.keeper = Keeper.of(self.viewer)
        self.keeper.enter()
        self._sources = Sources()
        self._sources.doubted.connect(self._look_into)
        self._serials: dict[Image, int] = {}
        self._serial = 0
        self._looking: set[Image] = set()
        self._refused: set[Image] = set()
        self._closed = False
        self._selecting = False
        self.deck = Deck(())
        self.round = Round(self.deck, np.zeros(0, dtype=np.intp), Order.DOUBT, Show.ALL)
        layers = self.viewer.layers
        layers.events.inserted.connect(self._on_layers)
        layers.events.removed.connect(self._on_removed)
        layers.events.renamed.connect(self._on_renamed)
        self._on_layers()
        self._deal()

    def close(self, *_: Any) -> None:
        """Let go of everything; safe to call twice, at any time."""
        if self._closed:
            return
        self._closed = True
        layers = self.viewer.layers
        layers.events.inserted.disconnect(self._on_layers)
        layers.events.removed.disconnect(self._on_removed)
        layers.events.renamed.disconnect(self._on_renamed)
        self.door.close()
        self._errands.cancel_all()
        self._sources.close()
        self._let_go(self.piles)
        self.keeper.leave()

    # Which items.

    @property
    def chosen(self) -> Layer | None:
        """The one layer under review; None: all that go together."""
        return self._alone

    def choose(self, layer: Layer | None) -> None:
        """Review one layer, or with None all layers that go together with the topmost."""
        self._alone = layer
        self._deal()

    def together(self) -> list[ReviewItems]:
        """Layers of the topmost one's kind and classes."""
        if not self.piles:
            return []
        first = self.piles[0]
        return [p for p in self.piles if (p.kind, p.classes) == (first.kind, first.classes)]

    def _deal(self) -> None:
        if self._alone is not None and all(p.layer is not self._alone for p in self.piles):
            self._alone = None
        alone = [p for p in self.piles if p.layer is self._alone]
        piles = alone or self.together()
        if list(self.deck.piles) == piles:
            return
        self.deck.close()
        self.deck = Deck(piles)
        self.deck.changed.connect(self.items_changed.emit)
        self.deck.reset.connect(self._on_reset)
        for pile in piles:
            self._record(pile.image)
            self._look_into(pile.image)
        self.deck_changed.emit()

    def _on_layers(self, event: Any = None) -> None:
        known = {pile.layer: pile for pile in self.piles}
        piles = []
        for layer in reversed(list(self.viewer.layers)):
            pile = known.get(layer) or items_of(layer, self.viewer.layers)
            if pile is None:
                continue
            piles.append(pile)
            if layer not in known:
                pile.selected.connect(self._on_selected)
        if piles != self.piles:
            self.piles = piles
            self.piles_changed.emit()
            # Later: what is read of a new layer, its classes too, another dock may say first.
            self.door.call(self._deal)

    def _on_removed(self, event: Any) -> None:
        gone = [p for p in self.piles if event.value is p.layer or event.value is p.image]
        if isinstance(event.value, Image):
            self._serials.pop(event.value, None)
        if gone:
            self.piles = [p for p in self.piles if p not in gone]
            self.piles_changed.emit()
            self._deal()
            self._let_go(gone)

    def _let_go(self, piles: Sequence[ReviewItems]) -> None:
        if self._closed:
            self.deck.close()
        for pile in piles:
            pile.selected.disconnect(self._on_selected, missing_ok=True)
            if pile.close() and isinstance(pile, ObjectReview):
                self.keeper.forget(pile.objects)

    def _on_renamed(self, event: Any) -> None:
        self.piles_changed.emit()

    def _on_reset(self) -> None:
        self.round.doubt_rows()
        self.items_reset.emit()

    # The round.

    def start(self, order: Order, show: Show, class_name: str = "") -> None:
        """List the items anew in this order, from those that there are now."""
        if order is not Order.DISAGREEMENT:
            self._begin(order, show, class_name)
        elif all(map(_described, self.deck.piles)):
            self._compare(order, show, class_name)
        else:
            self._ask_features(order, show, class_name)

    def _compare(self, order: Order, show: Show, class_name: str) -> None:
        features, deck = self.deck.features(), self.deck
        if features is None:  # of models of different sizes
            self.told.emit("info", f"{without_features(deck.kind)} Sorted by doubt instead.")
            self._begin(Order.DOUBT, show, class_name)
            return
        classes, uids = deck.facts.standing.copy(), deck.uids(np.arange(len(deck)))

        def done(shares: Any) -> None:
            if self.deck is not deck:
                return
            by_row = np.full(len(deck), np.nan)
            rows = deck.rows(uids)
            by_row[rows[rows >= 0]] = shares[rows >= 0]
            self._begin(order, show, class_name, by_row)

        def failed(error: CellpathError) -> None:
            self.told.emit("error", str(error))

        self.door.fetch(lambda: disagreement(features, classes), done, failed)

    def _ask_features(self, order: Order, show: Show, class_name: str) -> None:
        """Have the features of every layer computed, then list; by doubt where there are none."""
        deck = self.deck
        wanted = []
        for pile in deck.piles:
            known = self._sources.get(pile.image)
            request = None if known is None else pile.features_request(known.image)
            if not _described(pile):
                wanted.append((pile, request))
        if any(request is None for _, request in wanted):
            self.told.emit("info", f"{without_features(deck.kind)} Sorted by doubt instead.")
            self._begin(Order.DOUBT, show, class_name)
            return
        missing = {pile.layer for pile, _ in wanted}
        self.told.emit("info", f"Comparing the {deck.kind} with each other; the list follows.")

        def take(pile: ReviewItems, found: Sequence[CellFeatures], whole: bool) -> None:
            missing.discard(pile.layer)
            if not whole or self.deck is not deck:
                return
            pile.set_features([f.uid for f in found], np.array([f.vector for f in found]))
            if not missing:
                self._compare(order, show, class_name)

        for pile, request in wanted:
            self._errands.send(f"features {id(pile)}", "Comparing", request, partial(take, pile))

    def _deliver(self, events: list[JobEvent]) -> None:
        for error in self._errands.deliver(events):
            self.told.emit("error", str(error))

    def _begin(
        self, order: Order, show: Show, class_name: str, disagreements: Any = None
    ) -> None:  # fmt: skip
        facts = self.deck.facts
        rows = arranged(facts, listed(facts, show, class_name), order, disagreements)
        self.round = Round(self.deck, rows, order, show, class_name)
        self.round_began.emit()

    def deal_out(self, uids: Sequence[str]) -> None:
        """List exactly these, in this order."""
        now, rows = self.round, self.deck.rows(uids)
        self.round = Round(self.deck, rows[rows >= 0], now.order, now.show, now.class_name)
        self.round_began.emit()

    # Pictures.

    def source(self, image: Image) -> tuple[Source, int] | None:
        """What is read for an image, and a number that changes with its pixels; None if unknown."""
        source = self._sources.latest(image)
        serial = self._serials.get(image)
        return None if source is None or serial is None else (source, serial)

    def refused(self, image: Image) -> bool:
        """Whether an image cannot be read."""
        return image in self._refused

    def _record(self, image: Image) -> None:
        """Have what is done to an image's objects kept in the project, as every dock does."""
        source = self._sources.latest(image)
        for pile in self.piles:
            if pile.image is image and isinstance(pile, ObjectReview):
                self.keeper.watch(pile.objects, source)
                pile.set_group(self.keeper.group_of(source) or image.name)

    def _look_into(self, image: Image) -> None:
        if self._sources.get(image) is not None or image in self._looking or self._closed:
            return
        self._sources.watch(image)
        self._looking.add(image)
        version = self._sources.version(image)

        def done(source: Source) -> None:
            self._looking.discard(image)
            self._refused.discard(image)
            if not self._sources.put(image, source, version):
                self._look_into(image)  # it changed meanwhile
                return
            self._serial += 1
            self._serials[image] = self._serial
            self._record(image)
            self.pictures_changed.emit()

        def failed(error: CellpathError) -> None:
            self._looking.discard(image)
            self._refused.add(image)
            self._sources.forget(image)
            self.told.emit("error", str(error))
            self.pictures_changed.emit()

        self.door.fetch(lambda: prepare(image), done, failed)

    # The viewer.

    def show(self, row: int, *, activate: bool = True) -> None:
        """Bring an item to the middle of the canvas, large enough to be seen."""
        pile, at = self.deck.pile_of(row)
        if activate:
            self.viewer.layers.selection.active = pile.layer
        camera = self.viewer.scene.camera
        camera.center = (0.0, *(float(x) for x in pile.world(at)[-2:]))
        known = self.source(pile.image)
        side = pile.window(at, known[0].mpp if known else None)[2] * abs(
            float(pile.image.scale[-1])
        )
        if side * camera.zoom < SMALLEST:
            camera.zoom = 2 * SMALLEST / side

    @timed
    def select(self, uids: Sequence[str]) -> None:
        """Select these items, and nothing else, on their layers."""
        self._selecting = True
        try:
            self.deck.select(uids)
        finally:
            self._selecting = False

    def _on_selected(self) -> None:
        if self._selecting:
            return
        chosen = [uid for pile in self.deck.piles for uid in pile.selection()]
        if len(chosen) <= MOST_MIRRORED:
            self.selected.emit(chosen)

    def hide_layers(self) -> Callable[[], None]:
        """Hide the layers under review, which show calls; returns what shows them again.

        Nor are they active: napari's layer controls show the colours of what was selected last.
        """
        layers = self.viewer.layers
        under_review = [pile.layer for pile in self.deck.piles]
        for pile in self.deck.piles:  # their colours are calls too
            for role in TELLING:
                under_review += layers_of(pile.image, role, layers)
        hidden = [layer for layer in dict.fromkeys(under_review) if layer.visible]
        for layer in hidden:
            layer.visible = False
        was_active = layers.selection.active
        if was_active in under_review:
            layers.selection.active = self.deck.piles[0].image

        def show_again() -> None:
            for layer in hidden:
                layer.visible = True
            if was_active in layers:
                layers.selection.active = was_active

        return show_again


def _described(pile: ReviewItems) -> bool:
    """Whether every called item of a layer has features."""
    features = pile.features()
    called = pile.facts().call != ""
    return features is not None and bool(np.isfinite(features[called]).all())


def without_features(kind: str) -> str:
    """Why items cannot be compared with their neighbours."""
    return f"The model that called these {kind} is not here to compare them with each other."
