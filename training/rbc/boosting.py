"""Abnormal or not, by gradient boosting on out-of-fold probabilities (papers.md 2.4).

A booster fitted to what heads say of their own training regions learns from near-certain
numbers that it will never meet again; so it only ever sees rows whose heads did not.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from napari_cellpath.systems.rbc.verdict import Booster
from training.rbc.recipe import RbcBooster
from training.rbc.regions import UNKNOWN

Values = NDArray[np.float64]
Rows = NDArray[np.intp]
LEAST = 20
"""Regions of either verdict below which nothing is fitted."""


@dataclass(frozen=True, eq=False)
class Boosted:
    """A booster and what it says of the rows it was fitted to, by boosters that saw none of them.

    Attributes
    ----------
    booster
        Fitted to all rows; None where there were too few, and the max rule stands in.
    probabilities
        (n,) out of fold; NaN of rows that no booster could judge.
    fold_of
        (n,) the fold of each row, -1 of rows without a verdict.
    """

    booster: Booster | None
    probabilities: Values
    fold_of: Rows


def folds_of(verdicts: NDArray[np.int8], groups: list[str], folds: int, seed: int) -> Rows:
    """The fold of each row, (n,): no group on two sides, about as many abnormal in each.

    Warns where every row is a group of its own, which is to say that groups are not known.
    """
    known = len(set(groups)) < len(groups)
    if not known:
        warnings.warn(
            "Which regions are of one image is not known: regions of one image may stand on both "
            "sides of a fold, which flatters.",
            stacklevel=2,
        )
    found = np.full(len(verdicts), -1, dtype=np.intp)
    splitter: Any = StratifiedGroupKFold if known else StratifiedKFold
    split = splitter(folds, shuffle=True, random_state=seed)
    for number, (_, held) in enumerate(split.split(verdicts, verdicts, groups)):
        found[held] = number
    return found


def fit_booster(
    probabilities: Values,
    verdicts: NDArray[np.int8],
    groups: list[str],
    settings: RbcBooster,
    seed: int,
    count: Values | None = None,
) -> Boosted:
    """Fit a booster to out-of-fold probabilities of the heads.

    Parameters
    ----------
    probabilities
        (n, n_types), each row by heads that were not fitted to it.
    verdicts
        (n,) 1 abnormal, 0 normal, -1 not known; the last are left out.
    groups
        Of each row; see `folds_of`.
    count
        (n,) how many regions each row stands for; None: one.
    """
    rows = np.flatnonzero((verdicts != UNKNOWN) & np.isfinite(probabilities).all(axis=1))
    out = np.full(len(verdicts), np.nan)
    fold_of = np.full(len(verdicts), -1, dtype=np.intp)
    x, y = probabilities[rows], verdicts[rows]
    share = np.ones(len(rows)) if count is None else count[rows]
    where = [groups[i] for i in rows]
    fewest = min(int((y == 0).sum()), int((y == 1).sum()))
    if fewest < LEAST or len(set(where)) < 2:
        return Boosted(None, out, fold_of)
    folds = min(settings.folds, len(set(where)), fewest)
    fold_of[rows] = folds_of(y, where, folds, seed)
    for number in range(folds):
        learn, held = fold_of[rows] != number, fold_of[rows] == number
        if held.any() and len(set(y[learn].tolist())) == 2:
            out[rows[held]] = _fit(x[learn], y[learn], share[learn], settings, seed).probability(
                x[held]
            )
    return Boosted(_fit(x, y, share, settings, seed), out, fold_of)


def _fit(x: Values, y: NDArray[np.int8], share: Values, settings: RbcBooster, seed: int) -> Booster:
    classifier = GradientBoostingClassifier(
        n_estimators=settings.trees, learning_rate=settings.rate, max_depth=settings.depth,
        subsample=settings.subsample, random_state=seed,
    )  # fmt: skip
    return Booster.of(classifier.fit(x, y, sample_weight=share))


def largest_abnormal(probabilities: Values, abnormal: list[bool]) -> Values:
    """The rule beside the booster: the largest probability of an abnormal type, (n,)."""
    bad = probabilities[:, np.asarray(abnormal)]
    return np.asarray(bad.max(axis=1)) if bad.shape[1] else np.zeros(len(probabilities))
