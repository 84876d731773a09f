"""Who trains, who validates, who is set apart; a slide is never on two sides.

Deterministic by seed and independent of the order of the rows. NumPy only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.core.errors import RecipeError

Indices = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class SplitPlan:
    """Row numbers of the reserve and of each fold's validation part.

    ``folds`` are disjoint and together are everything but the reserve; fold i trains on all
    the others.
    """

    reserve: Indices
    folds: tuple[Indices, ...]

    @property
    def development(self) -> Indices:
        """Everything but the reserve, sorted."""
        return np.sort(np.concatenate(self.folds))

    def training(self, fold: int) -> Indices:
        """What a fold's model trains on, sorted."""
        return np.sort(np.concatenate([f for i, f in enumerate(self.folds) if i != fold]))


def assign_parts(
    groups: Sequence[str], classes: Sequence[int], shares: Sequence[float], seed: int
) -> NDArray[np.intp]:
    """Deal groups out to parts so that each part has about its share of every class.

    Large groups are dealt first, each to the part that then lies nearest to its shares
    (the greedy rule of scikit-learn's StratifiedGroupKFold, for unequal parts).

    Parameters
    ----------
    groups
        Group of each row; give unique names to split by cell.
    classes
        Class of each row.
    shares
        Wanted share of each part; they need not sum to 1.
    seed
        Order among groups of equal spread.

    Returns
    -------
    ndarray
        Part of each row.
    """
    names, group_of = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    labels, class_of = np.unique(np.asarray(classes), return_inverse=True)
    table = np.zeros((names.size, labels.size))
    np.add.at(table, (group_of, class_of), 1.0)
    wanted = np.asarray(shares, dtype=float)
    wanted = wanted / wanted.sum()
    table /= table.sum(axis=0)  # in shares of a class, so that rare classes count as much
    shuffled = np.random.default_rng(seed).permutation(names.size)
    order = shuffled[np.argsort(-table[shuffled].max(axis=1), kind="stable")]
    held = np.zeros((wanted.size, labels.size))
    part_of_group = np.zeros(names.size, dtype=np.intp)
    for group in order:
        # Squared distance from the wanted shares, were the group given to each part.
        lack = wanted[:, None] - held
        cost = ((lack - table[group]) ** 2 - lack**2).sum(axis=1) / np.maximum(wanted, 1e-9)
        part = int(np.argmin(cost))
        held[part] += table[group]
        part_of_group[group] = part
    return part_of_group[group_of]


def make_split(
    groups: Sequence[str],
    classes: Sequence[int],
    *,
    mode: str = "group",
    reserve: float = 0.1,
    folds: int = 4,
    seed: int = 0,
) -> SplitPlan:
    """Set the reserve apart, then cut the rest into folds.

    Raises
    ------
    RecipeError
        One class only, nothing to split, or fewer groups than parts.
    """
    if len(groups) == 0:
        raise RecipeError("The data hold no labelled cells.")
    if len(set(classes)) < 2:
        raise RecipeError(
            "The data hold one class only; a classifier needs at least two. Label some cells "
            "of another class."
        )
    units = list(groups) if mode == "group" else [f"{i:08d}" for i in range(len(groups))]
    parts = folds + (reserve > 0)
    if len(set(units)) < parts:
        raise RecipeError(
            f"The data hold {len(set(units))} slide groups, too few for {parts} parts. Use fewer "
            "folds, or split by cell."
        )
    shares = [(1.0 - reserve) / folds] * folds + ([reserve] if reserve > 0 else [])
    part = assign_parts(units, classes, shares, seed)
    plan = SplitPlan(
        reserve=np.flatnonzero(part == folds),
        folds=tuple(np.flatnonzero(part == i) for i in range(folds)),
    )
    if mode == "group":
        sides = {f"fold {i}": f for i, f in enumerate(plan.folds)}
        check_no_leak(groups, {**sides, "the reserve": plan.reserve})
    return plan


def leave_one_out(groups: Sequence[str]) -> SplitPlan:
    """One fold a group, in the order of their names (papers.md 4.6); nothing is set apart.

    Raises
    ------
    RecipeError
        There are fewer than two groups.
    """
    names = np.asarray(groups, dtype=str)
    units = np.unique(names)
    if len(units) < 2:
        raise RecipeError("The data hold one group only; leaving it out leaves nothing to learn.")
    return SplitPlan(
        reserve=np.array([], dtype=np.intp),
        folds=tuple(np.flatnonzero(names == unit) for unit in units),
    )


def check_no_leak(groups: Sequence[str], sides: dict[str, Indices]) -> None:
    """Refuse a split that has one group on two sides.

    Raises
    ------
    RecipeError
        Naming the group and both sides.
    """
    owner: dict[str, str] = {}
    for side, rows in sides.items():
        for row in rows:
            group = str(groups[int(row)])
            if owner.setdefault(group, side) != side:
                raise RecipeError(
                    f"Slide group '{group}' is on two sides of the split ({owner[group]} and "
                    f"{side}); cells of one slide must stay together."
                )
