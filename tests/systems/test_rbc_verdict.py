"""From probabilities to labels and "abnormal": the booster is scikit-learn's, to the digit."""

import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingClassifier

from napari_cellpath.core.errors import ModelError
from napari_cellpath.core.vocabulary import RBC_TYPES
from napari_cellpath.systems.rbc.verdict import Booster, Verdict, is_abnormal, read_verdict
from tests.support.models import small_booster, write_region_model


@pytest.fixture(scope="module")
def paper():
    """The paper's six types and thresholds, without a booster."""
    return Verdict(RBC_TYPES, np.arange(6) > 0, np.full(6, 0.5))


@pytest.fixture(scope="module")
def fitted():
    """A booster of scikit-learn's defaults on probabilities like a head's: many near 0 and 1."""
    rng = np.random.default_rng(0)
    rows = 1 / (1 + np.exp(-rng.normal(0, 5, (400, 6))))
    target = (rows[:, 1:].max(axis=1) + rng.normal(0, 0.2, 400) > 0.9).astype(int)
    return GradientBoostingClassifier(n_estimators=100, random_state=0).fit(rows, target), rows


@pytest.mark.parametrize(
    ("vector", "labels"),
    [
        ((0.999, 0.133, 2.80e-11, 3.35e-11, 4.22e-8, 0.615), (1, 0, 0, 0, 0, 1)),
        ((0.157, 1.72e-9, 0.00170, 5.76e-9, 2.50e-9, 0.998), (0, 0, 0, 0, 0, 1)),
        ((0.703, 9.07e-11, 0.0386, 0.000362, 0.999, 6.04e-19), (1, 0, 0, 0, 1, 0)),
        ((0.4, 0.3, 0.2, 0.1, 0.49, 0.0), (0, 0, 0, 0, 0, 0)),
        ((1, 5.19e-10, 3.06e-10, 0.543, 5.08e-7, 1.90e-7), (1, 0, 0, 1, 0, 0)),
        ((0.5, 0.5, 0.5, 0.5, 0.5, 0.5), (0, 0, 0, 0, 0, 0)),
    ],
)
def test_the_papers_sample_vectors(paper, vector, labels):
    """papers.md 2.9, fact 8: strictly above 0.5; exactly 0.5 is not."""
    assert paper.labels(vector) == tuple(
        name for name, there in zip(RBC_TYPES, labels, strict=True) if there
    )


def test_what_is_abnormal():
    """Fact 9: the first type alone is not, any other is, none at all is not."""
    targets = [[1, 0, 0, 0, 0, 0], *np.eye(6, dtype=int)[1:], [1, 0, 0, 1, 0, 0], [0] * 6]
    assert is_abnormal(targets, np.arange(6) > 0).tolist() == [
        False, True, True, True, True, True, True, False,
    ]  # fmt: skip


def test_the_booster_is_scikit_learns(fitted):
    """The stored arrays give its predict_proba to 1e-12, at the thresholds themselves too."""
    classifier, rows = fitted
    booster = Booster.of(classifier)
    cuts = np.concatenate([e.tree_.threshold for e in classifier.estimators_[:, 0]])
    at_cuts = np.repeat(cuts[cuts > 0][:200, None], 6, axis=1)
    for some in (rows, at_cuts, np.zeros((1, 6)), np.ones((1, 6))):
        np.testing.assert_allclose(
            booster.probability(some), classifier.predict_proba(some)[:, 1], rtol=0, atol=1e-12
        )
    assert booster.probability(np.zeros((0, 6))).shape == (0,)
    assert booster.n_trees == 100


def test_the_booster_travels_as_arrays(fitted, tmp_path):
    """From a model folder it gives the same numbers, one row or many."""
    classifier, rows = fitted
    booster = Booster.of(classifier)
    folder = write_region_model(tmp_path / "m", beside=booster.tensors())
    verdict = read_verdict(folder)
    many = verdict.probability_of_abnormal(rows)
    np.testing.assert_array_equal(many, booster.probability(rows))
    alone = [verdict.probability_of_abnormal([row])[0] for row in rows[:50]]
    np.testing.assert_array_equal(alone, many[:50])
    assert read_verdict(folder) is verdict, "kept, so that a flip costs nothing"


def test_a_flip_gives_a_new_verdict_at_once(fitted, paper):
    """A label a person flips counts as certain; the others stay; it takes no time."""
    classifier, rows = fitted
    verdict = replace(paper, booster=Booster.of(classifier))
    start = time.process_time()
    revised, abnormal = verdict.revised(rows[0], {"Stom": True, "Oval": False})
    assert time.process_time() - start < 0.05
    assert revised == (0.0, *rows[0][1:5], 1.0)
    assert abnormal == pytest.approx(classifier.predict_proba([revised])[0, 1], abs=1e-12)
    assert verdict.revised(rows[0], {})[1] == verdict.probability_of_abnormal(rows[:1])[0]


def test_without_a_booster_the_largest_abnormal_probability_decides(paper):
    """The rule of papers.md 2.4, which is reported beside the booster too."""
    rows = [[0.9, 0.1, 0.2, 0.3, 0.4, 0.45], [0.1, 0.8, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0]]
    np.testing.assert_allclose(paper.probability_of_abnormal(rows), [0.45, 0.8, 0.0])
    assert [paper.word(p) for p in (0.45, 0.8, 0.5, float("nan"))] == [
        "normal", "abnormal", "normal", "",
    ]  # fmt: skip


def test_a_number_that_is_none_gives_none(paper):
    """A row that is not finite has no verdict; its neighbours have theirs."""
    rows = np.array([[0.9, 0.1, 0.2, 0.3, 0.4, 0.45], [np.nan] * 6])
    for verdict in (paper, replace(paper, booster=small_booster())):
        found = verdict.probability_of_abnormal(rows)
        assert np.isfinite(found[0])
        assert np.isnan(found[1])
    assert paper.probability_of_abnormal(np.zeros((0, 6))).shape == (0,)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"booster.left": None}, "lacks booster.left"),
        ({"booster.value": np.zeros(3, np.float32)}, "one row of float64"),
        ({"booster.value": np.zeros(3)}, "as long as"),
        ({"booster.feature": np.full(15, 6, np.int32)}, "a type that the model does not have"),
        ({"booster.right": np.full(15, 99, np.int32)}, "leads outside"),
        ({"booster.left": np.zeros(15, np.int32)}, "leads back"),
        ({"booster.start": np.zeros(1)}, "log odds and the learning rate"),
    ],
)
def test_a_damaged_booster_is_refused(tmp_path, change, said):
    """Arrays that make no trees are an error that names them, never a walk without end."""
    beside = {k: v for k, v in (small_booster().tensors() | change).items() if v is not None}
    folder = write_region_model(tmp_path / "m", beside=beside)
    with pytest.raises(ModelError, match=said):
        read_verdict(folder)


@pytest.mark.parametrize("thresholds", [[0.5] * 5, [0.5] * 5 + [1.5], "0.5", [None] * 6])
def test_thresholds_must_fit(tmp_path, thresholds):
    """One a type, between 0 and 1."""
    folder = write_region_model(tmp_path / "m", input={"thresholds": thresholds})
    with pytest.raises(ModelError, match="for each of 6 types"):
        read_verdict(folder)


def test_a_models_own_thresholds_decide(tmp_path):
    """A type is there above its own threshold, not above 0.5."""
    folder = write_region_model(
        tmp_path / "m", input={"thresholds": [0.9, 0.1, 0.5, 0.5, 0.5, 0.5]}, threshold=0.7
    )
    verdict = read_verdict(folder)
    assert verdict.labels([0.8, 0.2, 0.4, 0.6, 0.1, 0.1]) == ("Elon", "Gran")
    assert (verdict.word(0.6), verdict.word(0.8)) == ("normal", "abnormal")


def test_the_viewer_needs_no_torch_for_it(tmp_path):
    """Reading a verdict and flipping a label import neither torch nor scikit-learn."""
    folder = write_region_model(tmp_path / "m")
    code = (
        "import sys\n"
        "from napari_cellpath.systems.rbc.verdict import read_verdict\n"
        "from napari_cellpath.systems.rbc import plans\n"
        f"read_verdict({str(folder)!r}).revised([0.1] * 6, {{'Echi': True}})\n"
        "print(sorted({'torch', 'sklearn', 'torchvision'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "[]"
