"""Which cells of a training side are learnt from, and how often (papers.md 4.4, 4.7, 4.8).

Everything here happens after the split, to the training side alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.core.errors import RecipeError
from training.datasets import CellData
from training.hep2.recipe import Hep2Recipe
from training.trainer import Rows


def specimen_balanced(
    groups: Sequence[str], n: int, seed: int = 0
) -> tuple[NDArray[np.intp], dict[str, int]]:
    """At random ``n`` cells of each specimen, all where it has fewer.

    Each specimen's choice depends on the seed and its own name and cells, not on who else is
    there.

    Parameters
    ----------
    groups
        Specimen of each cell.
    n
        Cells wanted of each.
    seed
        Of the choice.

    Returns
    -------
    rows
        Places in ``groups``, sorted.
    fewer
        Specimens that have fewer than ``n``, and how many they have.
    """
    names = np.asarray(groups, dtype=str)
    chosen, fewer = [], {}
    for name in np.unique(names):
        here = np.flatnonzero(names == name)
        if len(here) < n:
            fewer[str(name)] = len(here)
        rng = np.random.default_rng([seed, *str(name).encode()])
        chosen.append(rng.permutation(here)[:n])
    rows = np.concatenate(chosen) if chosen else np.array([], dtype=np.intp)
    return np.sort(rows).astype(np.intp), fewer


def thin_out(recipe: Hep2Recipe, data: CellData, rows: Rows) -> tuple[Rows, dict[str, int]]:
    """The rows of a training side that a recipe learns from; see `specimen_balanced`."""
    n = recipe.sampling.per_specimen
    if n == 0 or len(rows) == 0:
        return rows, {}
    kept, fewer = specimen_balanced([data.records[int(i)].group for i in rows], n, recipe.seed)
    return rows[kept], fewer


def copies_of_cells(recipe: Hep2Recipe, data: CellData) -> NDArray[np.int64]:
    """How many turns and mirrors of each cell, (n,), are in an epoch.

    Raises
    ------
    RecipeError
        ``sampling.copies_of`` names a pattern that the data do not have.
    """
    names = [c.name for c in data.fine_classes]
    copies = np.full(len(data.records), recipe.sampling.copies, dtype=np.int64)
    for name, times in recipe.sampling.copies_of.items():
        if name not in names:
            raise RecipeError(
                f"sampling.copies_of: there is no pattern '{name}'; known: {', '.join(names)}."
            )
        copies[data.labels == names.index(name)] = times
    return copies


def cells_of_patterns(data: CellData, rows: Rows) -> dict[str, int]:
    """Cells of each pattern among some rows."""
    found = Counter(data.fine_classes[int(k)].name for k in data.labels[rows])
    return {c.name: found[c.name] for c in data.fine_classes}


def grow_by_specimen(data: CellData, rows: Rows, share: float, seed: int) -> Rows:
    """The cells of a share of the specimens, at random, about the same share of every pattern.

    At least one specimen of each pattern stays; a larger share holds every smaller one.
    """
    names = np.array([data.records[int(i)].group for i in rows])
    labels = data.labels[rows]
    kept: set[str] = set()
    for label in np.unique(labels):
        of_pattern = np.unique(names[labels == label])
        order = np.random.default_rng([seed, int(label)]).permutation(of_pattern)
        kept |= set(order[: max(1, round(share * len(order)))].tolist())
    return rows[np.isin(names, sorted(kept))]
