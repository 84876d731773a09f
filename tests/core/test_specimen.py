"""The specimen's reading: votes, means, mixtures, abstention, and specimens without cells."""

import json

import numpy as np
import pytest

from napari_cellpath.core.results import PatternCall
from napari_cellpath.core.specimen import SpecimenRule, judged_of, read_specimen

CLASSES = ("A", "B", "C")


def cells(*counts, sure=0.8):
    """Labels and probabilities of so many cells of each class."""
    labels = [name for name, count in zip(CLASSES, counts, strict=True) for _ in range(count)]
    rows = np.full((len(labels), 3), (1 - sure) / 2)
    rows[np.arange(len(labels)), [CLASSES.index(name) for name in labels]] = sure
    return labels, rows


def test_counts_shares_and_both_readings():
    """8 of 10 cells A: reading A by votes and by mean, with an interval round 0.8."""
    found = read_specimen(*cells(8, 1, 1), CLASSES, intensity="positive")
    assert (found["reading"], found["abstained"]) == ("A", False)
    assert (found["cells"], found["judged"]) == (10, 10)
    assert found["votes"] == {"A": 8, "B": 1, "C": 1}
    assert found["shares"]["A"] == 0.8
    assert found["majority"]["pattern"] == found["mean"]["pattern"] == "A"
    assert found["mean"]["probability"] == pytest.approx(0.8 * 0.8 + 0.2 * 0.1)
    low, high = found["majority"]["interval"]
    assert low == pytest.approx(0.5, abs=0.11)
    assert high == pytest.approx(1.0, abs=0.01)
    assert found["intensity"] == "positive"
    assert not found["mixed"]
    json.dumps(found, allow_nan=False)


def test_the_interval_narrows_with_cells():
    """Four hundred cells say more than ten; the same each time."""
    few, many = (
        read_specimen(*cells(8 * n, n, n), CLASSES)["majority"]["interval"] for n in (1, 40)
    )
    assert many[1] - many[0] < 0.3 * (few[1] - few[0])
    assert read_specimen(*cells(320, 40, 40), CLASSES)["majority"]["interval"] == many
    sd = (0.8 * 0.2 / 400) ** 0.5
    assert many == pytest.approx([0.8 - 1.96 * sd, 0.8 + 1.96 * sd], abs=0.005)


def test_a_second_pattern_makes_it_mixed():
    """Above the level and with enough cells; the reading stays the first."""
    found = read_specimen(*cells(14, 6, 0), CLASSES)
    assert (found["mixed"], found["mixed_with"], found["reading"]) == (True, ["B"], "A")
    assert not read_specimen(*cells(17, 3, 0), CLASSES)["mixed"]
    assert not read_specimen(*cells(6, 2, 0), CLASSES)["mixed"]
    strict = SpecimenRule(mixed_share=0.1)
    assert read_specimen(*cells(17, 3, 0), CLASSES, rule=strict)["mixed"]


def test_below_the_stated_confidence_it_abstains_and_says_why():
    """No reading, the rule and the numbers in words; what led is still told."""
    found = read_specimen(*cells(4, 3, 3), CLASSES)
    assert found["reading"] is None
    assert found["majority"]["pattern"] == "A"
    assert "40% of 10 cells" in found["why"]
    assert "50%" in found["rule"]["words"]
    assert read_specimen(*cells(4, 3, 3), CLASSES, rule=SpecimenRule(0.3))["reading"] == "A"


def test_votes_and_mean_that_differ_are_no_reading():
    """Three hesitant votes for A, two certain ones for B."""
    labels = ["A", "A", "A", "B", "B"]
    rows = [[0.51, 0.49, 0], [0.51, 0.49, 0], [0.51, 0.49, 0], [0, 1, 0], [0, 1, 0]]
    found = read_specimen(labels, rows, CLASSES)
    assert found["majority"]["pattern"] == "A"
    assert found["mean"]["pattern"] == "B"
    assert found["reading"] is None
    assert "mean probability names B" in found["why"]


@pytest.mark.parametrize("n", [0, 4])
def test_no_cells_and_only_blank_ones(n):
    """Nothing to count is no error and no reading."""
    found = read_specimen([""] * n, np.full((n, 3), np.nan), CLASSES)
    assert (found["cells"], found["judged"], found["reading"]) == (n, 0, None)
    assert found["why"] == "No cell could be judged."
    assert found["majority"]["interval"] is None
    assert found["mean"]["probabilities"] == {}
    json.dumps(found, allow_nan=False)


def test_one_cell_is_too_few():
    """It is counted, its interval is itself, and the program abstains."""
    found = read_specimen(*cells(1, 0, 0), CLASSES)
    assert (found["judged"], found["abstained"]) == (1, True)
    assert found["majority"]["interval"] == [1.0, 1.0]
    assert found["why"].startswith("Only 1 of at least 3")
    assert read_specimen(*cells(1, 0, 0), CLASSES, rule=SpecimenRule(least_cells=1))["reading"]


def test_the_order_of_cells_does_not_matter():
    """The same cells shuffled give the same dictionary; ties go by mean, then by class order."""
    labels, rows = cells(5, 4, 3)
    rows = np.random.default_rng(0).dirichlet((1, 1, 1), len(labels))
    order = np.random.default_rng(1).permutation(len(labels))
    assert read_specimen(labels, rows, CLASSES) == read_specimen(
        [labels[i] for i in order], rows[order], CLASSES
    )
    tied = read_specimen(["A", "B"], [[0.6, 0.4, 0], [0, 1, 0]], CLASSES)
    assert tied["majority"]["pattern"] == "B"


def test_corrections_count_as_votes_even_of_unknown_classes():
    """A person may name what the model does not know, and label what it could not judge."""
    labels, rows = cells(2, 0, 0)
    rows = np.vstack([rows, np.full((3, 3), np.nan)])
    found = read_specimen([*labels, "Mitotic", "Mitotic", "Mitotic"], rows, CLASSES)
    assert found["votes"] == {"A": 2, "B": 0, "C": 0, "Mitotic": 3}
    assert found["majority"]["pattern"] == "Mitotic"
    with pytest.raises(ValueError, match="strong"):
        read_specimen(labels, rows[:2], CLASSES, intensity="strong")


def call(label, probabilities, calibrated=()):
    return PatternCall("u", 0.0, 0.0, label, probabilities, 1, "m@1", calibrated=calibrated)


def test_calibrated_probabilities_are_used_where_all_have_them():
    """Of calls: labels, probabilities, and whether they are calibrated."""
    both = call("A", (0.9, 0.1), (0.7, 0.3))
    labels, rows, calibrated = judged_of([both, call("", ())], 2)
    assert (labels, calibrated) == (["A", ""], True)
    np.testing.assert_array_equal(rows, [[0.7, 0.3], [np.nan, np.nan]])
    _, rows, calibrated = judged_of([both, call("B", (0.2, 0.8))], 2)
    assert not calibrated
    np.testing.assert_array_equal(rows, [[0.9, 0.1], [0.2, 0.8]])
    assert judged_of([], 2)[1].shape == (0, 2)
