"""From the cells of a specimen to its reading: votes, mean probability, mixtures, abstention.

NumPy only. The rule by which a reading is given or withheld is part of the result.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_cellpath.core.results import PatternCall
from napari_cellpath.core.vocabulary import Intensity

DRAWS = 2000
LEVEL = 0.95
_SEED = 0


@dataclass(frozen=True)
class SpecimenRule:
    """When a specimen gets a reading, and when it is called mixed.

    Attributes
    ----------
    confidence
        Least share of the judged cells that the winning pattern must have; below it the program
        abstains.
    least_cells
        Least number of judged cells; with fewer the program abstains.
    mixed_share, mixed_cells
        Mixed if the second pattern has at least this share, and at least so many cells.
    """

    confidence: float = 0.5
    least_cells: int = 3
    mixed_share: float = 0.2
    mixed_cells: int = 3

    def __str__(self) -> str:
        return (
            "The reading is the pattern most cells were called; it is withheld below "
            f"{self.least_cells} judged cells, below a share of {self.confidence:.0%}, and where "
            "the mean probability names another pattern. Mixed: the second pattern has at least "
            f"{self.mixed_share:.0%} of the cells and at least {self.mixed_cells} of them."
        )


DEFAULT_RULE = SpecimenRule()


def judged_of(
    calls: Iterable[PatternCall], n_classes: int
) -> tuple[list[str], NDArray[np.float64], bool]:
    """Labels and probabilities of calls, as `read_specimen` takes them.

    Returns
    -------
    tuple
        Label of each call, empty where there is no answer; (n, n_classes) probabilities,
        calibrated ones where every answer has them, NaN without an answer; whether they are.
    """
    calls = list(calls)
    calibrated = any(c.label for c in calls) and all(c.calibrated for c in calls if c.label)
    probabilities = np.full((len(calls), n_classes), np.nan)
    for row, call in zip(probabilities, calls, strict=True):
        if call.label:
            row[:] = call.calibrated if calibrated else call.probabilities
    return [call.label for call in calls], probabilities, calibrated


def read_specimen(
    labels: Sequence[str],
    probabilities: ArrayLike,
    classes: Sequence[str],
    *,
    rule: SpecimenRule = DEFAULT_RULE,
    intensity: Intensity | str | None = None,
    calibrated: bool = False,
) -> dict[str, Any]:
    """Sum up the cells of a specimen.

    Parameters
    ----------
    labels
        Pattern of each cell, a person's correction where there is one; empty where the cell
        could not be judged.
    probabilities
        (n, classes) of each cell in the order of ``classes``; rows of NaN count for nothing.
    classes
        The patterns. A label that is none of them is counted, too.
    rule
        See `SpecimenRule`.
    intensity
        What the user says of the specimen: ``positive``, ``intermediate`` or None.
    calibrated
        Whether the probabilities are calibrated; only written into the result.

    Returns
    -------
    dict
        Ready for JSON, the same for the same cells in the same or another order: ``cells``,
        ``judged``, ``votes`` and ``shares`` by pattern, ``majority`` and ``mean`` readings,
        ``interval`` of the winning share, ``mixed`` and ``mixed_with``, ``reading`` (None where
        the program abstains), ``why`` and the rule in words and numbers.
    """
    given = np.asarray(probabilities, dtype=np.float64).reshape(len(labels), len(classes))
    counted = [label for label in labels if label]
    names = [*classes, *sorted(set(counted) - set(classes))]
    votes = {name: counted.count(name) for name in names}
    finite = given[np.isfinite(given).all(axis=1)]
    # Sorted first: a sum of floats depends on its order in the last digit.
    means = np.sort(finite, axis=0).mean(axis=0) if len(finite) else None
    mean_of = {} if means is None else dict(zip(classes, means.tolist(), strict=True))
    ranked = sorted(names, key=lambda n: (-votes[n], -mean_of.get(n, 0.0), names.index(n)))
    n = len(counted)
    winner, second = (ranked[0], ranked[1] if len(ranked) > 1 else None) if n else (None, None)
    mean_winner = max(mean_of, key=lambda name: mean_of[name]) if mean_of else None
    mixed_with = [
        name for name in ranked[1:]
        if n and votes[name] / n >= rule.mixed_share and votes[name] >= rule.mixed_cells
    ]  # fmt: skip
    share = votes[winner] / n if winner else None
    why = _why_withheld(n, winner, share, mean_winner, rule)
    return {
        "reading": None if why else winner,
        "abstained": bool(why),
        "why": why or _why_given(n, winner, share, second, votes),
        "cells": len(labels),
        "judged": n,
        "votes": votes,
        "shares": {name: votes[name] / n if n else None for name in names},
        "majority": {
            "pattern": winner, "share": share, "interval": _interval(share, n), "level": LEVEL,
        },
        "mean": {
            "pattern": mean_winner,
            "probability": mean_of.get(mean_winner) if mean_winner else None,
            "probabilities": mean_of,
            "calibrated": calibrated,
        },
        "mixed": bool(mixed_with),
        "mixed_with": mixed_with,
        "intensity": None if intensity is None else str(Intensity(intensity)),
        "rule": {"words": str(rule), **asdict(rule)},
    }  # fmt: skip


def _why_withheld(
    n: int, winner: str | None, share: float | None, by_mean: str | None, rule: SpecimenRule
) -> str:
    """The sentence that says why there is no reading; empty where there is one."""
    if winner is None or share is None:
        return "No cell could be judged."
    if n < rule.least_cells:
        return f"Only {n} of at least {rule.least_cells} cells could be judged."
    if share < rule.confidence:
        return (
            f"{winner} leads with {share:.0%} of {n} cells, less than the {rule.confidence:.0%} "
            "that a reading needs."
        )
    if by_mean is not None and by_mean != winner:
        return f"Most cells were called {winner}, but the mean probability names {by_mean}."
    return ""


def _why_given(
    n: int, winner: str | None, share: float | None, second: str | None, votes: Mapping[str, int]
) -> str:
    next_best = f"; next is {second} with {votes[second] / n:.0%}" if second else ""
    return f"{winner}: {share:.0%} of {n} judged cells{next_best}."


def _interval(share: float | None, n: int) -> list[float] | None:
    """Percentile interval of the winning share, cells drawn again with replacement.

    Drawing n votes anew is drawing from a binomial. The cells of one specimen share their slide
    and their serum: the interval says how sure the count is, not the diagnosis.
    """
    if share is None:
        return None
    draws = np.random.default_rng(_SEED).binomial(n, share, DRAWS) / n
    tail = 100 * (1 - LEVEL) / 2
    return [float(v) for v in np.percentile(draws, (tail, 100 - tail))]


def specimen_path(out: Path) -> Path:
    """Where the roll-up beside a table goes: ``O.specimen.json`` for ``O.csv``."""
    return out.with_name(f"{out.stem}.specimen.json")
