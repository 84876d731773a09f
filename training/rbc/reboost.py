"""A booster and thresholds for heads that learnt something new.

The new heads were fitted to the very boxes the booster should learn from; so for it the boxes are
cut into folds by group, and other heads, fitted to the other folds from nothing, say what is in
each. The parent's own boxes take part through the features it carries.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from napari_cellpath.systems.rbc.network import LabelHeads
from training.finetune_kit import Taught
from training.rbc import label_metrics as lm
from training.rbc.boosting import fit_booster
from training.rbc.measured import Judge
from training.rbc.objective import masked_loss
from training.rbc.recipe import RbcRecipe
from training.rbc.regions import UNKNOWN

STEPS, BATCH, RATE, DECAY = 400, 128, 2e-3, 0.02
"""Of the heads of a fold; some seconds each on one core."""
LEAST = 20
"""Validation boxes of either verdict below which nothing is chosen on them."""


def reboost(
    child: Any, taught: Taught, parent: Judge, recipe: RbcRecipe, verdicts: NDArray[np.int8]
) -> tuple[Judge, dict[str, Any]]:
    """The child's judge, and what was chosen, ready for JSON.

    ``verdicts`` (n,) are of all boxes of the data. With enough validation boxes the parent's
    booster, a new one and the max rule are compared on them by log loss, the parent's first.
    """
    found = _out_of_fold(child.head, taught, recipe, verdicts)
    settings = recipe.booster
    new = fit_booster(*found, settings, recipe.seed)
    choices = {"the parent's": parent.booster}
    if new.booster is not None:
        choices["fitted again"] = new.booster
    chosen, losses = _choose(choices, parent, taught, verdicts)
    thresholds, why = _thresholds(parent, taught)
    judge = Judge(parent.classes, thresholds, choices[chosen], parent.verdict)
    told = {
        "booster": chosen,
        "booster_validation_loss": losses,
        "booster_fitted_on": len(found[1]),
        "thresholds": why,
    }
    return judge, told


def _choose(
    choices: dict[str, Any], parent: Judge, taught: Taught, verdicts: NDArray[np.int8]
) -> tuple[str, dict[str, float]]:
    held = taught.held
    known = verdicts[held] != UNKNOWN
    wanted = verdicts[held][known] == 1
    if min(int(wanted.sum()), int((~wanted).sum())) < LEAST:
        return list(choices)[-1], {}
    losses = {}
    for name, booster in choices.items():
        judge = Judge(parent.classes, parent.thresholds, booster, parent.verdict)
        p = np.clip(judge.abnormal(taught.validated[known]), 1e-6, 1 - 1e-6)
        losses[name] = round(float(-np.mean(np.where(wanted, np.log(p), np.log(1 - p)))), 5)
    return min(losses, key=lambda name: losses[name]), losses


def _thresholds(parent: Judge, taught: Taught) -> tuple[tuple[float, ...], str]:
    """Thresholds of types with enough validation boxes; the parent's of the others."""
    targets = taught.targets[taught.held]
    enough = (targets == 1).sum(axis=0) >= lm.LEAST
    if not enough.any():
        return tuple(parent.thresholds), "the parent's"
    found = lm.best_thresholds(targets, taught.validated)
    chosen = tuple(
        new if ok else old for new, old, ok in zip(found, parent.thresholds, enough, strict=True)
    )
    return chosen, f"of {int(enough.sum())} types chosen on the validation part"


def _out_of_fold(
    head: LabelHeads, taught: Taught, recipe: RbcRecipe, verdicts: NDArray[np.int8]
) -> tuple[NDArray[np.float64], NDArray[np.int8], list[str]]:
    """Probabilities of every box by heads not fitted to its group; verdicts; groups."""
    features = [taught.features[:, 0].astype(np.float32)]
    targets = [taught.targets[taught.rows]]
    judged = [verdicts[taught.rows]]
    groups = [taught.data.groups[int(i)] for i in taught.rows]
    if taught.shipped is not None and recipe.finetune is not None and recipe.finetune.replay > 0:
        features.append(taught.shipped["features"].astype(np.float32))
        targets.append(taught.shipped["targets"])
        judged.append(taught.shipped["verdicts"])
        groups += [f"of the parent: {g}" for g in taught.shipped["groups"]]
    y = np.concatenate(targets).astype(np.int8)
    given = out_of_fold(
        head, np.concatenate(features), y, groups, recipe.booster.folds, recipe.seed
    )
    return given, np.concatenate(judged).astype(np.int8), groups


def out_of_fold(
    like: LabelHeads,
    features: NDArray[np.float32],
    targets: NDArray[np.int8],
    groups: list[str],
    folds: int,
    seed: int,
) -> NDArray[np.float64]:
    """Probabilities (n, n_types) of each row by heads that were not fitted to its group."""
    x, y = torch.from_numpy(features), torch.from_numpy(targets)
    fold_of = _deal(groups, folds, seed)
    given = np.full(targets.shape, np.nan)
    for fold in np.unique(fold_of):
        held = fold_of == fold
        fitted = fit_heads(like, x[~held], y[~held], seed)
        with torch.inference_mode():
            given[held] = fitted(x[held]).double().sigmoid().numpy()
    return given


def _deal(groups: list[str], folds: int, seed: int) -> NDArray[np.intp]:
    """Fold of each row: whole groups, at random, about as many rows in each."""
    names, group_of, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-sizes[order], kind="stable")]
    filled = np.zeros(min(folds, len(names)))
    fold = np.zeros(len(names), dtype=np.intp)
    for group in order:
        fold[group] = int(filled.argmin())
        filled[fold[group]] += sizes[group]
    return fold[group_of]


def fit_heads(like: LabelHeads, x: torch.Tensor, y: torch.Tensor, seed: int) -> nn.Module:
    """New heads of the same make, fitted from nothing to features (n, d)."""
    torch.manual_seed(seed)
    heads = LabelHeads(like.n_features, like.n_types, like.weight1.shape[1], like.dropout.p)
    if not len(x):
        return heads.eval()
    optimiser = torch.optim.AdamW(heads.parameters(), lr=RATE, weight_decay=DECAY)
    rows = torch.Generator().manual_seed(seed)
    for step in range(STEPS):
        for group in optimiser.param_groups:
            group["lr"] = RATE * (1 - step / STEPS)
        some = torch.randint(len(x), (BATCH,), generator=rows)
        loss = masked_loss(heads(x[some]), y[some], None, 0.02)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return heads.eval()
