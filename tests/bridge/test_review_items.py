"""One controller a layer for all docks, nuclei as items to review, and several layers as one."""

import gc
import weakref

import numpy as np
import pytest
from napari.components import LayerList
from napari.layers import Image

from napari_cellpath.bridge import held
from napari_cellpath.bridge.conventions import create_nuclei_layer
from napari_cellpath.bridge.deck import Deck
from napari_cellpath.bridge.review import ObjectReview, items_of, scheme_of
from napari_cellpath.bridge.scheme import Scheme
from napari_cellpath.core.results import NucleusCall

SETTINGS = ("deeppap-test",)
SCHEME = Scheme(
    model="deeppap-test", classes=("normal", "abnormal"), colours=("#0072b2", "#d55e00"),
    abnormal=(False, True), threshold=0.5, band=0.1, settings=SETTINGS,
)  # fmt: skip


def call(uid: str, score: float, **changes) -> NucleusCall:
    values = {
        "uid": uid, "row": 0.0, "col": 0.0, "score": score, "std": 0.05, "n_views": 100,
        "label": "abnormal" if score > 0.5 else "normal", "probabilities": (1 - score, score),
        "threshold": 0.5, "model": "deeppap-test@00000000",
    }  # fmt: skip
    return NucleusCall(**(values | changes))


@pytest.fixture
def layers():
    image = Image(np.zeros((200, 300, 3), dtype=np.uint8), name="field")
    return LayerList([image, create_nuclei_layer(image), create_nuclei_layer(image)])


@pytest.fixture
def piles(layers):
    made = []
    for layer in layers[1:]:
        hold = held.take(layer, layers[0], SCHEME)
        made.append(ObjectReview(hold))
        uids = hold.objects.add(np.array([[20.0, 30.0], [50.0, 60.0], [80.0, 90.0]]), score=False)
        hold.objects.write(
            [call(u, s) for u, s in zip(uids, (0.2, 0.55, 0.9), strict=True)], SETTINGS
        )
    yield made
    for pile in made:
        pile.close()


def test_two_docks_share_one_controller_and_the_last_closes_it(layers):
    """What one writes the other hears; closing one leaves the other at work."""
    layer, image = layers[1], layers[0]
    first = held.take(layer, image, SCHEME)
    second = held.join(layer)
    assert second.objects is first.objects
    heard, kept = [], []
    first.listen(first.objects.rows_changed, heard.append)
    second.listen(second.objects.rows_changed, kept.append)
    uids = first.objects.add(np.array([[20.0, 30.0]]), score=False)
    first.release()
    first.release()
    heard.clear()
    kept.clear()
    second.objects.correct(uids, "normal")
    assert kept
    assert not heard
    second.release()
    assert held.join(layer) is None
    layer.add([1.0, 1.0])
    assert len(second.objects) == 1


def test_who_asked_for_scores_and_goes_leaves_nothing_waiting(layers):
    """A dock that closes cancels its jobs: the other must not show them as under way for ever."""
    first = held.take(layers[1], layers[0], SCHEME)
    second = held.join(layers[1])
    uids = first.objects.add(np.array([[20.0, 30.0]]), score=False)
    first.objects.mark_pending(uids)
    first.release(asked=True)
    assert not second.objects.table.pending.any()
    second.release()


def test_a_controller_nobody_holds_is_let_go(layers):
    """The registry keeps neither controller nor layer alive."""
    hold = held.take(layers[1], layers[0], SCHEME)
    there = weakref.ref(hold.objects)
    hold.release()
    del hold
    gc.collect()
    assert there() is None


def test_layers_of_others_are_no_items(layers):
    """An image is nothing to review, and nuclei without their image neither."""
    assert items_of(layers[0], layers) is None
    assert items_of(layers[1], [layers[1]]) is None


def test_without_a_dock_scores_are_read_as_the_model_says(layers):
    """Opened alone, the review takes threshold, band and classes from the model's folder."""
    layer = layers[1]
    layer.add([5.0, 5.0])
    layer.features["model"] = "deeppap-herlev@12345678"
    scheme = scheme_of(layer)
    assert scheme.model == "deeppap-herlev"
    assert scheme.classes == ("normal", "abnormal")
    layer.features["model"] = "nobodys-model@12345678"
    layer.features["call"] = "odd"
    assert scheme_of(layer).classes == ("odd",)


def test_several_layers_are_one_deck(piles):
    """Rows count through the layers; labels, seen marks and selections reach the right one."""
    deck = Deck(piles)
    first, second = (list(pile.objects.table.uids) for pile in piles)
    assert len(deck) == 6
    assert deck.rows([second[1], "gone", first[2]]).tolist() == [4, -1, 2]
    deck.label([first[0], second[2]], "abnormal")
    assert deck.facts.label.tolist() == ["abnormal", "", "", "", "", "abnormal"]
    assert deck.counts() == [(2, 0), (4, 2)]
    deck.see([second[1]])
    assert deck.facts.seen.tolist() == [True, False, False, False, True, True]
    deck.select([second[0]])
    assert piles[0].selection() == []
    assert piles[1].selection() == [second[0]]
    assert deck.pile_of(4) == (piles[1], 1)
    with pytest.raises(IndexError):
        deck.pile_of(6)


def test_agreeing_is_one_correction_a_class_and_skips_what_was_decided(piles, monkeypatch):
    """Three calls of two classes are two corrections, whatever their number."""
    pile = piles[0]
    deck = Deck([pile])
    uids = list(pile.objects.table.uids)
    pile.label([uids[2]], "normal")
    made = []
    correct = pile.objects.correct
    monkeypatch.setattr(
        pile.objects, "correct", lambda u, label: (made.append((list(u), label)), correct(u, label))
    )
    assert deck.agree(uids) == 2
    assert made == [([uids[1]], "abnormal"), ([uids[0]], "normal")]
    assert deck.facts.label.tolist() == ["normal", "abnormal", "normal"]


def test_stale_calls_are_not_agreed_with(piles):
    """A call of another place is no call of this cell."""
    pile = piles[0]
    deck = Deck([pile])
    pile.layer.data = np.array([[20.0, 30.0], [50.0, 60.0], [10.0, 12.0]])
    assert deck.agree(list(pile.objects.table.uids)) == 2
    assert deck.facts.label[2] == ""


def test_readings_stand_beside_the_label_and_survive_with_the_layer(piles, layers):
    """A reading changes no label, is kept in the feature table, and can be taken back."""
    pile = piles[0]
    uids = list(pile.objects.table.uids)
    pile.label([uids[0]], "normal")
    pile.record_reading(uids[:2], "Zoë", "abnormal")
    pile.record_reading(uids[:1], "second", "normal")
    pile.record_reading(uids[1:2], "Zoë", "")
    assert pile.readings() == {"Zoë": {uids[0]: "abnormal"}, "second": {uids[0]: "normal"}}
    assert pile.facts().label.tolist() == ["normal", "", ""]
    pile.close()
    layers.remove(pile.layer)
    layers.append(pile.layer)
    again = items_of(pile.layer, layers)
    assert again.readings() == {"Zoë": {uids[0]: "abnormal"}, "second": {uids[0]: "normal"}}
    again.close()


def test_features_may_be_given_by_uid(piles):
    """Nuclei without features are not a number; layers without any make the deck say none."""
    pile = piles[0]
    assert Deck(piles).features() is None
    uids = list(pile.objects.table.uids)
    pile.set_features(uids[1:], np.ones((2, 4)))
    got = Deck([pile]).features()
    assert got.shape == (3, 4)
    assert np.isnan(got[0]).all()
    assert Deck(piles).features() is None


def test_window_is_in_micrometres_where_the_scale_is_known(piles):
    """26 um round the nucleus, or 128 pixels."""
    assert piles[0].window(1, 0.2) == (50.0, 60.0, pytest.approx(130.0))
    assert piles[0].window(1, None) == (50.0, 60.0, 128)
