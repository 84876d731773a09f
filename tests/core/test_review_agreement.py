"""Cohen's kappa against scikit-learn, and its interval against resampling one by one."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from napari_cellpath.core.agreement import agreement


def raters(n=60, classes=("a", "b", "c"), seed=0):
    rng = np.random.default_rng(seed)
    first = rng.choice(classes, n)
    second = np.where(rng.random(n) < 0.7, first, rng.choice(classes, n))
    uids = [f"u{i}" for i in range(n)]
    return dict(zip(uids, first.tolist(), strict=True)), dict(
        zip(uids, second.tolist(), strict=True)
    )


def test_kappa_is_that_of_scikit_learn_on_the_common_objects():
    """Only what both have read counts."""
    first, second = raters()
    del first["u0"], second["u1"]
    both = sorted(first.keys() & second.keys())
    got = agreement("x", "y", first, second)
    expected = cohen_kappa_score([first[u] for u in both], [second[u] for u in both])
    assert got.n == 58
    assert got.kappa == pytest.approx(expected)
    assert got.table.sum() == 58
    assert got.agreed == pytest.approx(np.mean([first[u] == second[u] for u in both]))


def test_interval_is_that_of_resampled_objects():
    """Drawing cells of the table is drawing objects: both give the same interval."""
    first, second = raters(200)
    got = agreement("x", "y", first, second)
    a, b = np.array(list(first.values())), np.array(list(second.values()))
    rng = np.random.default_rng(1)
    drawn = [rng.integers(0, 200, 200) for _ in range(400)]
    kappas = [cohen_kappa_score(a[d], b[d]) for d in drawn]
    low, high = np.percentile(kappas, (2.5, 97.5))
    assert got.low == pytest.approx(low, abs=0.03)
    assert got.high == pytest.approx(high, abs=0.03)
    assert got.low < got.kappa < got.high


def test_one_class_only_has_no_kappa():
    """Where both give everything one class, chance agrees too: kappa is not a number."""
    same = {"u1": "a", "u2": "a"}
    got = agreement("x", "y", same, same)
    assert np.isnan([got.kappa, got.low, got.high]).all()
    assert got.table.tolist() == [[2]]


def test_nothing_in_common_is_none():
    """Two readers of different objects cannot be compared."""
    assert agreement("x", "y", {"u1": "a"}, {"u2": "a"}) is None


def test_classes_stand_in_the_models_order():
    """The table's rows and columns are the classes in order; unknown ones follow."""
    got = agreement("x", "y", {"1": "b", "2": "z"}, {"1": "a", "2": "z"}, ("b", "a"))
    assert got.classes == ("b", "a", "z")
    assert got.table.tolist() == [[0, 1, 0], [0, 0, 0], [0, 0, 1]]
