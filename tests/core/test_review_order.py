"""What a review shows first, and which objects it shows at all."""

import numpy as np
import pytest

from napari_cellpath.core.doubt import (
    ItemFacts,
    Order,
    Show,
    arranged,
    disagreement,
    listed,
    margins,
)


def facts(score, label=None, **changes) -> ItemFacts:
    score = np.asarray(score, dtype=float)
    n = len(score)
    call = np.array(["" if np.isnan(s) else "b" if s > 0.5 else "a" for s in score], dtype=object)
    values = {
        "uid": np.array([f"u{i}" for i in range(n)], dtype=object),
        "call": call,
        "label": np.array(label or [""] * n, dtype=object),
        "score": score,
        "std": np.zeros(n),
        "margin": margins(score, 0.5),
        "doubtful": np.abs(score - 0.5) < 0.1,
        "stale": np.zeros(n, dtype=bool),
        "seen": np.zeros(n, dtype=bool),
        "flagged": np.zeros(n, dtype=bool),
    }
    return ItemFacts(**(values | changes))


def order(items: ItemFacts, by: Order, **more) -> list[int]:
    return arranged(items, np.arange(len(items)), by, **more).tolist()


def test_each_order_puts_first_what_it_is_named_after():
    """Doubt, spread, score and unseen; what is not known comes last in each."""
    items = facts(
        [0.9, 0.45, np.nan, 0.1],
        std=np.array([0.1, 0.3, np.nan, 0.2]),
        seen=np.array([False, True, True, True]),
    )
    assert order(items, Order.DOUBT) == [1, 0, 3, 2]
    assert order(items, Order.SPREAD) == [1, 3, 0, 2]
    assert order(items, Order.HIGH) == [0, 1, 3, 2]
    assert order(items, Order.LOW) == [3, 1, 0, 2]
    assert order(items, Order.UNSEEN) == [0, 1, 3, 2]


def test_ties_go_to_the_more_doubtful_then_to_the_first():
    """Equal keys are told apart by margin and then by row, so an order is always the same."""
    items = facts([0.9, 0.6, 0.6, 0.52], std=np.full(4, 0.2))
    assert order(items, Order.SPREAD) == [3, 1, 2, 0]


def test_margin_of_many_classes_is_between_the_two_largest():
    """With more than two classes the threshold decides nothing and the margin knows that."""
    probabilities = np.array([[0.5, 0.45, 0.05], [0.9, 0.05, 0.05]])
    got = margins(np.array([0.5, 0.1]), 0.5, probabilities)
    np.testing.assert_allclose(got, [0.05, 0.85])
    np.testing.assert_allclose(margins(np.array([0.2, 0.7]), 0.5), [0.3, 0.2])


def test_neighbours_of_another_class_make_disagreement():
    """An object among others of another class disagrees wholly, one among its own not at all."""
    rng = np.random.default_rng(0)
    features = np.concatenate([rng.normal(0, 0.1, (12, 3)), rng.normal(9, 0.1, (12, 3))])
    classes = np.array(["a"] * 12 + ["b"] * 12, dtype=object)
    classes[0] = "b"
    share = disagreement(features, classes, k=5)
    assert share[0] == 1.0
    assert share[12:].max() == 0.0
    assert 0 < share[1:12].max() < 1


def test_disagreement_leaves_out_what_has_no_class_or_features():
    """No class, no features, no others: not a number, and last in the order."""
    features = np.array([[0.0], [0.1], [np.nan], [0.2]])
    classes = np.array(["a", "b", "a", ""], dtype=object)
    share = disagreement(features, classes)
    assert np.isnan(share).tolist() == [False, False, True, True]
    items = facts([0.9, 0.8, 0.7, 0.6])
    assert order(items, Order.DISAGREEMENT, disagreements=share)[:2] == [1, 0]
    with pytest.raises(ValueError, match="disagreements"):
        order(items, Order.DISAGREEMENT)


def test_equal_features_are_not_their_own_neighbours():
    """Of objects at one place each has the others as neighbours, never itself."""
    share = disagreement(np.zeros((3, 2)), np.array(["a", "b", "b"], dtype=object), k=2)
    np.testing.assert_allclose(share, [1.0, 0.5, 0.5])


def test_filters():
    """All, unlabelled, doubtful, flagged, and one class by a person's word before the model's."""
    items = facts(
        [0.9, 0.45, np.nan, 0.1],
        label=["a", "", "", ""],
        flagged=np.array([False, False, True, False]),
    )
    assert listed(items, Show.ALL).tolist() == [0, 1, 2, 3]
    assert listed(items, Show.UNLABELLED).tolist() == [1, 2, 3]
    assert listed(items, Show.DOUBTFUL).tolist() == [1]
    assert listed(items, Show.FLAGGED).tolist() == [2]
    assert listed(items, Show.CLASS, "a").tolist() == [0, 1, 3]
    assert listed(items, Show.CLASS, "b").tolist() == []


def test_only_valid_undecided_calls_can_be_agreed_with():
    """A stale call, none, or one that was decided on is nothing to agree with."""
    items = facts(
        [0.9, 0.8, np.nan, 0.1],
        label=["a", "", "", ""],
        stale=np.array([False, True, False, False]),
    )
    assert items.agreeable.tolist() == [False, False, False, True]
