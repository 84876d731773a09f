"""Which objects a person should look at first, and which of them at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.core.annotations import parted

Rows = NDArray[np.intp]
NEIGHBOURS = 10  # nearest others whose classes are compared


class Order(StrEnum):
    """What comes first in a review."""

    DOUBT = "doubt"  # smallest margin
    SPREAD = "spread"  # largest standard deviation over views
    DISAGREEMENT = "disagreement"  # most neighbours in feature space of another class
    HIGH = "high"
    LOW = "low"
    UNSEEN = "unseen"
    SPECIMEN = "specimen"  # one specimen after the other, the most doubtful first within each


class Show(StrEnum):
    """Which objects a review lists."""

    ALL = "all"
    UNLABELLED = "unlabelled"
    DOUBTFUL = "doubtful"
    FLAGGED = "flagged"
    CLASS = "class"


@dataclass(frozen=True, eq=False)
class ItemFacts:
    """What is known of n objects, one column each; text is empty and numbers NaN if not known.

    Attributes
    ----------
    uid, call, label
        Identity; the class a model calls; the class a person gave. Object arrays of str; several
        classes of one object stand in one text (`core.annotations.joined`).
    score, std
        The score, 0..1, and its standard deviation over views.
    margin
        Distance of the score to the threshold, or, of more than two classes, of the largest
        mean probability to the second largest.
    doubtful
        In the review band and not labelled.
    stale
        The call was made elsewhere or under other settings.
    seen
        A person has looked at it.
    flagged
        Unlike what the model was trained on, or no answer was possible.
    group
        Slide, patient or specimen; empty text where nobody says.
    """

    uid: NDArray[Any]
    call: NDArray[Any]
    label: NDArray[Any]
    score: NDArray[np.float64]
    std: NDArray[np.float64]
    margin: NDArray[np.float64]
    doubtful: NDArray[np.bool_]
    stale: NDArray[np.bool_]
    seen: NDArray[np.bool_]
    flagged: NDArray[np.bool_]
    group: NDArray[Any] | None = None

    def __post_init__(self) -> None:
        if self.group is None:
            object.__setattr__(self, "group", np.full(len(self.uid), "", dtype=object))

    def __len__(self) -> int:
        return len(self.uid)

    @cached_property
    def labelled(self) -> NDArray[np.bool_]:
        """(n,) whether a person gave a class."""
        labelled: NDArray[np.bool_] = self.label != ""
        return labelled

    @cached_property
    def standing(self) -> NDArray[Any]:
        """(n,) the class an object stands in: a person's word before the model's."""
        return np.where(self.labelled, self.label, self.call)

    def stands_in(self, name: str) -> NDArray[np.bool_]:
        """(n,) whether an object stands in a class, alone or among others."""
        there = {text: text == name or name in parted(text) for text in set(self.standing)}
        return np.array([there[text] for text in self.standing], dtype=bool)

    @cached_property
    def agreeable(self) -> NDArray[np.bool_]:
        """(n,) whether there is a call to agree with that nobody has decided on."""
        agreeable: NDArray[np.bool_] = (self.call != "") & ~self.stale & ~self.labelled
        return agreeable

    @classmethod
    def join(cls, parts: Sequence[ItemFacts]) -> ItemFacts:
        """Objects of several layers as one list."""
        if len(parts) == 1:
            return parts[0]
        if not parts:
            text, number, flag = np.zeros(0, object), np.zeros(0), np.zeros(0, bool)
            return cls(text, text, text, number, number, number, flag, flag, flag, flag, text)
        return cls(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)))


def margins(
    scores: NDArray[np.float64], threshold: float, probabilities: NDArray[np.float64] | None = None
) -> NDArray[np.float64]:
    """How clear each call is, (n,); 0 is a toss-up.

    Parameters
    ----------
    scores
        (n,), NaN where there is none.
    threshold
        Decides between two classes.
    probabilities
        (n, classes) mean probabilities, where the largest of more than two decides.
    """
    if probabilities is None or probabilities.shape[1] < 3:
        return np.abs(scores - threshold)
    two = np.partition(probabilities, -2, axis=1)[:, -2:]
    return np.asarray(np.where(np.isnan(scores), np.nan, two[:, 1] - two[:, 0]))


def disagreement(
    features: NDArray[np.floating[Any]], classes: NDArray[Any], k: int = NEIGHBOURS
) -> NDArray[np.float64]:
    """Share of the k nearest others that stand in another class, (n,).

    Parameters
    ----------
    features
        (n, d); a row with a value that is not finite has no place among the others.
    classes
        (n,) class names, empty where there is none.

    Returns
    -------
    ndarray
        NaN for objects without features or class, and where there are no others.
    """
    from sklearn.neighbors import NearestNeighbors

    share = np.full(len(classes), np.nan)
    known = np.flatnonzero((classes != "") & np.isfinite(features).all(axis=1))
    if len(known) < 2:
        return share
    k = min(k, len(known) - 1)
    # Without an argument no object is its own neighbour, not even among equal ones.
    nearest = NearestNeighbors(n_neighbors=k).fit(features[known]).kneighbors()[1]
    _, codes = np.unique(classes[known].astype(str), return_inverse=True)
    share[known] = (codes[nearest] != codes[:, None]).mean(axis=1)
    return share


def listed(facts: ItemFacts, show: Show, class_name: str = "") -> Rows:
    """Rows that a review of this kind lists; ``class_name`` is meant by `Show.CLASS` only."""
    everything = np.ones(len(facts), dtype=bool)
    mask = {
        Show.ALL: lambda: everything,
        Show.UNLABELLED: lambda: ~facts.labelled,
        Show.DOUBTFUL: lambda: facts.doubtful,
        Show.FLAGGED: lambda: facts.flagged,
        Show.CLASS: lambda: facts.stands_in(class_name),
    }[show]()
    return np.flatnonzero(mask)


def arranged(
    facts: ItemFacts, rows: Rows, order: Order, disagreements: NDArray[np.float64] | None = None
) -> Rows:
    """Rows in the order they are to be looked at; what is not known comes last.

    Ties go to the more doubtful one, then to the one that stands first.

    Parameters
    ----------
    facts, rows
        The objects, and those of them to arrange.
    order
        What comes first.
    disagreements
        (n,) of all objects, see `disagreement`; needed for that order.

    Raises
    ------
    ValueError
        The order is `Order.DISAGREEMENT` and there are none.
    """
    if order is Order.DISAGREEMENT and disagreements is None:
        raise ValueError("an order by disagreement needs disagreements")
    key = {
        Order.DOUBT: lambda: facts.margin,
        Order.SPREAD: lambda: -facts.std,
        Order.DISAGREEMENT: lambda: -np.asarray(disagreements),
        Order.HIGH: lambda: -facts.score,
        Order.LOW: lambda: facts.score,
        Order.UNSEEN: lambda: facts.seen.astype(float),
        Order.SPECIMEN: lambda: np.unique(np.asarray(facts.group, dtype=str), return_inverse=True)[
            1
        ],
    }[order]()
    return rows[np.lexsort((facts.margin[rows], key[rows]))]  # NaN sorts last


def _codes(names: NDArray[Any] | None) -> NDArray[np.intp]:
    """Place of each name among all of them, sorted."""
    return np.unique(np.asarray(names, dtype=str), return_inverse=True)[1]
