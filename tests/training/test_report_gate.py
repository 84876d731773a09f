"""The gate's own arithmetic."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from training.datasets import TWO_CLASSES, CellRecord
from training.report import Frozen, gate


@pytest.mark.parametrize(
    ("auc", "brier", "passed"),
    [(1.0, 0.15, False), (1.0, 0.04, True), (1.0, 0.05, True), (0.99, 0.01, False)],
)
def test_a_tie_is_broken_by_the_brier_score(auc: float, brier: float, passed: bool) -> None:
    records = [
        CellRecord(Path(f"{n}.png"), 1.0, 1.0, n % 2, bool(n % 2), f"s{n}") for n in range(4)
    ]
    cells = Frozen(records, np.array([0, 1, 0, 1]), TWO_CLASSES)
    parent = {"auc": 1.0, "balanced_accuracy": 1.0, "brier": 0.05}
    found = gate(cells, parent, {"auc": auc, "balanced_accuracy": 1.0, "brier": brier})
    assert found["passed"] is passed
    assert ("Brier" in found["why"]) == (not passed and auc == 1.0)
