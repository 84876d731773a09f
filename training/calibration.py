"""Calibration: fitted on validation cells, stored in the model, applied beside the raw score.

The calibrated probability is ``sigmoid(logit(mean score) / temperature + bias)``. One fit is of
one measured number, the mean over the views, because that is what a person is shown.

A bias is part of it wherever both classes have `LEAST_FOR_BIAS` cells: training weights the
classes against their frequency, which moves every logit by a constant, and no temperature undoes
that (out of fold on Herlev: see docs/decisions.md). With fewer cells the temperature alone is
fitted; with fewer than `LEAST` of a class, nothing is.

The fit is scikit-learn's logistic regression on the logit, without a penalty. Models of several
patterns have one temperature for all (Guo et al. 2017), found by SciPy's bounded minimiser.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from napari_cellpath.models import Calibration
from napari_cellpath.models.calibration import logit
from training import class_metrics as cm
from training import metrics as m

Values = NDArray[np.float64]
LEAST, LEAST_FOR_BIAS = 10, 50
"""Cells of either class, on at least `LEAST_GROUPS` groups, below which nothing is fitted."""
LEAST_GROUPS = 4
FOLDS = 5
_TEMPERATURES = (0.05, 100.0)


def fit_calibration(
    truth: ArrayLike, scores: ArrayLike, groups: list[str], fitted_on: str
) -> tuple[Calibration | None, str]:
    """Fit a calibration to scores of cells that the model was not trained on.

    Parameters
    ----------
    truth
        (n,) whether each cell is abnormal.
    scores
        (n,) mean scores, 0..1.
    groups
        Slide, patient or specimen of each cell.
    fitted_on
        Which cells these are, in words; stands in the model.

    Returns
    -------
    calibration
        None where the cells do not suffice.
    why
        A sentence: what was fitted, or why nothing was.
    """
    wanted, given = np.asarray(truth, dtype=bool), np.asarray(scores, dtype=float)
    fewest = int(min(wanted.sum(), (~wanted).sum()))
    if too_few := _too_few(fewest, groups, fitted_on):
        return None, too_few
    bias = fewest >= LEAST_FOR_BIAS
    parameters = _fit(wanted, given, bias)
    if parameters is None:
        return None, f"Not calibrated: on {fitted_on} higher scores do not mean more abnormal."
    after = _out_of_group(wanted, given, groups, bias)
    calibration = Calibration(
        method="temperature+bias" if bias else "temperature",
        temperature=round(parameters[0], 4), bias=round(parameters[1], 4),
        n=len(given), groups=len(set(groups)), fitted_on=fitted_on, bins=m.BINS,
        ece_before=round(m.calibration_error(wanted, given), 4),
        ece_after=round(m.calibration_error(wanted, after), 4),
        brier_before=round(m.brier(wanted, given), 4),
        brier_after=round(m.brier(wanted, after), 4),
    )  # fmt: skip
    return calibration, (
        f"Calibrated on {len(given)} cells of {fitted_on}: temperature "
        f"{calibration.temperature:g}, bias {calibration.bias:g}; calibration error "
        f"{calibration.ece_before} before, {calibration.ece_after} after."
    )


def fit_class_calibration(
    truth: NDArray[np.intp],
    probabilities: Values,
    groups: list[str],
    fitted_on: str,
    unit: str = "cells",
) -> tuple[Calibration | None, str]:
    """Fit one temperature to the probabilities of several classes.

    Parameters
    ----------
    truth
        (n,) pattern of each cell.
    probabilities
        (n, n_classes) mean probabilities.
    groups, fitted_on
        As of `fit_calibration`, whose return value this has too. No pattern that occurs may be
        rarer than `LEAST`.
    unit
        What one of the n is called, in the plural.
    """
    fewest = int(np.unique(truth, return_counts=True)[1].min()) if len(truth) else 0
    if too_few := _too_few(fewest, groups, fitted_on, unit):
        return None, too_few
    found = _fit_temperature(truth, probabilities)
    if found is None:
        return None, f"Not calibrated: on {fitted_on} every class is told, however sure of it."
    after = probabilities.copy()
    for fitted, held in GroupKFold(min(FOLDS, len(set(groups)))).split(after, truth, groups):
        one = _fit_temperature(truth[fitted], probabilities[fitted])
        if one is not None:
            after[held] = Calibration(temperature=one).apply_many(probabilities[held])
    calibration = Calibration(
        method="temperature", temperature=round(found, 4), n=len(truth), groups=len(set(groups)),
        fitted_on=fitted_on, bins=m.BINS,
        ece_before=round(cm.top_calibration_error(truth, probabilities), 4),
        ece_after=round(cm.top_calibration_error(truth, after), 4),
        brier_before=round(cm.class_brier(truth, probabilities), 4),
        brier_after=round(cm.class_brier(truth, after), 4),
    )  # fmt: skip
    return calibration, (
        f"Calibrated on {len(truth)} {unit} of {fitted_on}: temperature "
        f"{calibration.temperature:g}; calibration error {calibration.ece_before} before, "
        f"{calibration.ece_after} after."
    )


def _too_few(fewest: int, groups: list[str], fitted_on: str, unit: str = "cells") -> str:
    """Why nothing is fitted, or nothing."""
    n_groups = len(set(groups))
    if fewest >= LEAST and n_groups >= LEAST_GROUPS:
        return ""
    return (
        f"Not calibrated: {fitted_on} holds {fewest} {unit} of the rarer class on {n_groups} "
        f"slides; {LEAST} on {LEAST_GROUPS} are the least."
    )


def _fit_temperature(truth: NDArray[np.intp], probabilities: Values) -> float | None:
    """Temperature of lowest log loss; None where the loss falls without end."""
    logs = np.log(np.maximum(probabilities, 1e-6))
    own = np.arange(len(truth)), truth

    def loss(log_temperature: float) -> float:
        odds = logs / np.exp(log_temperature)
        return float(np.mean(logsumexp(odds, axis=1) - odds[own]))

    bounds = tuple(np.log(_TEMPERATURES))
    found = float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))
    return found if 1.02 * _TEMPERATURES[0] < found < 0.98 * _TEMPERATURES[1] else None


def calibrated(calibration: Calibration, scores: ArrayLike) -> NDArray[np.float64]:
    """Calibrated probabilities of many scores."""
    return np.array([calibration.apply(float(s)) for s in np.asarray(scores)])


def _fit(
    truth: NDArray[np.bool_], scores: NDArray[np.float64], bias: bool
) -> tuple[float, float] | None:
    """Temperature and bias of lowest log loss; None where the temperature is absurd."""
    odds = np.array([[logit(float(s))] for s in scores])
    found = LogisticRegression(C=np.inf, fit_intercept=bias, tol=1e-8, max_iter=1000).fit(
        odds, truth
    )
    slope = float(found.coef_[0, 0])
    if not 1 / _TEMPERATURES[1] <= slope <= 1 / _TEMPERATURES[0]:
        return None
    return 1 / slope, float(found.intercept_[0]) if bias else 0.0


def _out_of_group(
    truth: NDArray[np.bool_], scores: NDArray[np.float64], groups: list[str], bias: bool
) -> NDArray[np.float64]:
    """Each group's scores calibrated by a fit to the other groups; raw where that has no fit."""
    after = scores.copy()
    folds = GroupKFold(min(FOLDS, len(set(groups)))).split(scores, truth, groups)
    for fitted, held in folds:
        if len(set(truth[fitted].tolist())) < 2:
            continue
        parameters = _fit(truth[fitted], scores[fitted], bias)
        if parameters is not None:
            one = Calibration(temperature=parameters[0], bias=parameters[1])
            after[held] = calibrated(one, scores[held])
    return after
