"""Calibration finds what was done to the scores, and says so where it cannot."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_calibration_error

from napari_cellpath.models import Calibration
from training import metrics as m
from training.calibration import calibrated, fit_calibration


def _sample(n: int, temperature: float, bias: float, seed: int = 0) -> tuple:
    """Honest probabilities, cells drawn by them, and scores that exaggerate."""
    rng = np.random.default_rng(seed)
    odds = rng.normal(0.3, 2.0, n)
    truth = rng.random(n) < 1 / (1 + np.exp(-odds))
    scores = 1 / (1 + np.exp(-(odds - bias) * temperature))
    return truth, scores, [f"s{i // 10}" for i in range(n)]


def test_known_temperature_and_bias_are_found() -> None:
    """Log odds were tripled and moved; the fit undoes it, and the error falls."""
    truth, scores, groups = _sample(6000, 3.0, 0.8)
    found, why = fit_calibration(truth, scores, groups, "a test")
    assert found is not None
    assert found.method == "temperature+bias"
    assert found.temperature == pytest.approx(3.0, rel=0.1)
    assert found.bias == pytest.approx(0.8, abs=0.15)
    assert found.ece_after < 0.03 < found.ece_before
    assert found.brier_after < found.brier_before
    assert "6000 cells of a test" in why
    assert m.calibration_error(truth, calibrated(found, scores)) < 0.03


def test_few_cells_get_a_temperature_alone_and_fewer_get_none() -> None:
    """A bias needs fifty cells of either class, anything ten; the sentence says what lacks."""
    truth, scores, groups = _sample(60, 2.0, 0.0)
    found, _ = fit_calibration(truth, scores, groups, "a test")
    assert found is not None
    assert (found.method, found.bias) == ("temperature", 0.0)
    nothing, why = fit_calibration(truth[:12], scores[:12], groups[:12], "a test")
    assert nothing is None
    assert why.startswith("Not calibrated: a test holds")
    turned, why = fit_calibration(truth, 1 - scores, groups, "a test")
    assert turned is None
    assert "higher scores do not mean more abnormal" in why


def test_calibration_keeps_order_and_ends() -> None:
    """It never exchanges two scores, and 0, 1 and NaN are taken."""
    one = Calibration(temperature=2.5, bias=-0.4)
    values = [one.apply(s) for s in np.linspace(0, 1, 50)]
    assert values == sorted(values)
    assert 0 < values[0] < values[-1] < 1
    assert np.isnan(one.apply(float("nan")))


def test_error_is_that_of_torchmetrics() -> None:
    """Fifteen equally wide bins, weighted by their cells."""
    truth, scores, _ = _sample(500, 3.0, 0.8)
    theirs = binary_calibration_error(
        torch.from_numpy(scores), torch.from_numpy(truth.astype(int)), n_bins=15, norm="l1"
    )
    assert m.calibration_error(truth, scores) == pytest.approx(float(theirs), abs=1e-6)


def test_paired_interval_by_hand() -> None:
    """The second model is right on half the cells of each slide more: gain and interval are it."""
    groups = [f"g{i // 4}" for i in range(40)]
    right = np.array([np.tile([0, 0, 1, 1], 10), np.tile([1, 1, 1, 1], 10)], dtype=float)

    def accuracy(rows: np.ndarray, which: int) -> float:
        return float(right[which][rows].mean())

    interval, resampled = m.paired_interval(accuracy, groups)
    assert resampled == "groups"
    assert interval == pytest.approx((0.5, 0.5))  # every slide gains the same
    few, resampled = m.paired_interval(accuracy, [f"g{i // 10}" for i in range(40)])
    assert resampled == "cells"
    # A cell gains 1 or 0 with even odds: the binomial's 2.5 and 97.5 % of 40 are 14 and 26.
    assert few[0] == pytest.approx(14 / 40, abs=0.03)
    assert few[1] == pytest.approx(26 / 40, abs=0.03)
