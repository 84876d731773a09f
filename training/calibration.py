"""Calibration: fitted on validation cells, stored in the model, applied beside the raw score.

The calibrated probability is ``sigmoid(logit(mean score) / temperature + bias)``. One fit is of
one measured number, the mean over the views, because that is what a person is shown.

A bias is part of it wherever both classes have `LEAST_FOR_BIAS` cells: training weights the
classes against their frequency, which moves every logit by a constant, and no temperature undoes
that (out of fold on Herlev: see docs/decisions.md). With fewer cells the temperature alone is
fitted; with fewer than `LEAST` of a class, nothing is.

The fit is scikit-learn's logistic regression on the logit, without a penalty.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from napari_cellpath.models import Calibration
from napari_cellpath.models.calibration import logit
from training import metrics as m

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
    n_groups = len(set(groups))
    if fewest < LEAST or n_groups < LEAST_GROUPS:
        return None, (
            f"Not calibrated: {fitted_on} holds {fewest} cells of the rarer class on {n_groups} "
            f"slides; {LEAST} on {LEAST_GROUPS} are the least."
        )
    bias = fewest >= LEAST_FOR_BIAS
    parameters = _fit(wanted, given, bias)
    if parameters is None:
        return None, f"Not calibrated: on {fitted_on} higher scores do not mean more abnormal."
    after = _out_of_group(wanted, given, groups, bias)
    calibration = Calibration(
        method="temperature+bias" if bias else "temperature",
        temperature=round(parameters[0], 4), bias=round(parameters[1], 4),
        n=len(given), groups=n_groups, fitted_on=fitted_on, bins=m.BINS,
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
