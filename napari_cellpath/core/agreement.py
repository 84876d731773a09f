"""How far two raters agree beyond chance: Cohen's kappa, its interval, and the table behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000


@dataclass(frozen=True, eq=False)
class Agreement:
    """Two raters on the objects that both have read.

    Attributes
    ----------
    first, second
        Names of the raters.
    n
        Objects that both have read.
    kappa
        Cohen's kappa, unweighted; NaN where both gave every object one and the same class.
    low, high
        Bootstrap interval, 95 %, objects resampled; NaN where kappa is.
    classes
        Classes that occur, in order.
    table
        (classes, classes) counts: rows the first rater's, columns the second's.
    """

    first: str
    second: str
    n: int
    kappa: float
    low: float
    high: float
    classes: tuple[str, ...]
    table: NDArray[np.intp]

    @property
    def agreed(self) -> float:
        """Share of objects given the same class, 0..1."""
        return float(np.trace(self.table) / self.n)


def agreement(
    first: str,
    second: str,
    labels: Mapping[str, str],
    others: Mapping[str, str],
    class_order: Sequence[str] = (),
    seed: int = 0,
) -> Agreement | None:
    """Compare two raters; None if they have no object in common.

    Parameters
    ----------
    first, second
        Names of the raters.
    labels, others
        Class by uid, as each gave it.
    class_order
        Order of the classes in the table; others follow by name.
    seed
        Of the bootstrap.
    """
    uids = sorted(labels.keys() & others.keys())
    if not uids:
        return None
    a, b = [labels[uid] for uid in uids], [others[uid] for uid in uids]
    there = set(a) | set(b)
    classes = [c for c in class_order if c in there]
    classes += sorted(there.difference(classes))
    n = len(uids)
    if len(classes) < 2:  # chance agrees always: nothing is left to agree on beyond it
        alone = np.array([[n]], dtype=np.intp)
        return Agreement(first, second, n, np.nan, np.nan, np.nan, tuple(classes), alone)
    from sklearn.metrics import cohen_kappa_score, confusion_matrix

    table = np.asarray(confusion_matrix(a, b, labels=classes), dtype=np.intp)
    kappa = float(cohen_kappa_score(a, b, labels=classes))
    low, high = _interval(table, seed)
    return Agreement(first, second, n, kappa, low, high, tuple(classes), table)


def _interval(table: NDArray[np.intp], seed: int) -> tuple[float, float]:
    """Percentile bootstrap: objects drawn with replacement are a multinomial draw of cells."""
    n = int(table.sum())
    drawn = np.random.default_rng(seed).multinomial(n, table.ravel() / n, size=RESAMPLES)
    tables = drawn.reshape(RESAMPLES, *table.shape) / n
    observed = np.trace(tables, axis1=1, axis2=2)
    expected = (tables.sum(axis=1) * tables.sum(axis=2)).sum(axis=1)
    defined = expected < 1.0 - 1e-12
    kappas = (observed[defined] - expected[defined]) / (1.0 - expected[defined])
    low, high = np.percentile(kappas, (2.5, 97.5)) if len(kappas) else (np.nan, np.nan)
    return float(low), float(high)
