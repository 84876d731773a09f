"""A booster and thresholds for heads that learnt something new.

A booster may only learn from what heads say of boxes that they did not see, and it must learn from
as fair a sample as the parent's did:

* of the new boxes, heads that learnt from the other folds of them say what is in each, the same
  way as the child's learnt from all;
* the parent carries what its folds' heads said of its own boxes. The child's heads say something
  else of those by now; by as much is moved what is carried (on the scale of logits);
* each carried box counts as much as the training boxes it stands for: rare types are carried whole
  and common ones are not, and a booster that took them for a fair sample would call too much
  abnormal. The new boxes together count at least a quarter as much (docs/decisions.md).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from napari_cellpath.models.format import OUT_OF_FOLD, STANDS_FOR
from training.finetune_head import Examples, HeadTrainer
from training.finetune_kit import Taught
from training.fit import StopCheck
from training.objective import Objective
from training.rbc import label_metrics as lm
from training.rbc.boosting import fit_booster
from training.rbc.measured import Judge
from training.rbc.recipe import RbcRecipe
from training.rbc.regions import UNKNOWN

LEAST = 20
"""Validation boxes of either verdict below which nothing is chosen on them."""
SAY = 0.25
"""Of the new boxes together against all that the parent's stand for, at least."""
FLOOR, CEILING = 1e-4, 1 - 5e-4
"""Of probabilities that were stored in half precision."""
Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Heads:
    """The parent's and the child's heads, and how such heads learn."""

    parent: nn.Module
    child: nn.Module
    objective: Objective
    should_stop: StopCheck | None = None
    on_fold: Callable[[int, int], None] = lambda _done, _of: None


@dataclass(frozen=True, eq=False)
class Settled:
    """What `reboost` found.

    Attributes
    ----------
    judge
        The child's.
    chosen
        What was chosen, ready for JSON.
    of_new
        (n new boxes, n_types) probabilities by heads that did not see them.
    of_carried
        The same of the boxes that the parent carries, or None.
    """

    judge: Judge
    chosen: dict[str, Any]
    of_new: Values
    of_carried: Values | None


def reboost(
    heads: Heads, taught: Taught, parent: Judge, recipe: RbcRecipe, verdicts: NDArray[np.int8]
) -> Settled:
    """The child's judge.

    ``verdicts`` (n,) are of all boxes of the data. With enough validation boxes the parent's
    booster, a new one and the max rule are compared on them by log loss, the parent's first.
    A parent that does not carry what was said of its boxes keeps its booster.
    """
    folds = recipe.booster.folds
    groups = [taught.data.groups[int(i)] for i in taught.rows]
    if len(set(groups)) < folds:  # a fold without them would not know what they teach
        groups = [f"{group}, box {i}" for group, i in zip(groups, taught.rows, strict=True)]
    of_new = _of_new(heads, taught, groups, recipe)
    of_carried = _of_carried(heads, taught.shipped)
    given, judged = of_new, verdicts[taught.rows]
    count = np.ones(len(judged))
    if taught.shipped is not None and of_carried is not None:
        stands_for = taught.shipped[STANDS_FOR].astype(np.float64)
        count *= max(1.0, SAY * stands_for.sum() / max(len(judged), 1))
        given = np.concatenate([given, of_carried])
        judged = np.concatenate([judged, taught.shipped["verdicts"]])
        count = np.concatenate([count, stands_for])
        groups = groups + [f"of the parent: {g}" for g in taught.shipped["groups"]]
    choices = {"the parent's": parent.booster}
    if of_carried is not None or parent.booster is None:
        new = fit_booster(given, judged, groups, recipe.booster, recipe.seed, count)
        if new.booster is not None:
            choices["fitted again"] = new.booster
    chosen, losses = _choose(choices, parent, taught, verdicts)
    thresholds, why = _thresholds(parent, taught)
    told = {
        "booster": chosen,
        "booster_validation_loss": losses,
        "booster_fitted_on": len(judged),
        "thresholds": why,
    }
    judge = Judge(parent.classes, thresholds, choices[chosen], parent.verdict)
    return Settled(judge, told, of_new, of_carried)


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


def _of_new(heads: Heads, taught: Taught, groups: list[str], recipe: RbcRecipe) -> Values:
    """Probabilities of the new boxes by heads taught as the child's were, without their fold."""
    features, targets = taught.features, taught.targets[taught.rows]
    fold_of = _deal(groups, recipe.booster.folds, recipe.seed)
    given = np.full(targets.shape, np.nan)
    folds = np.unique(fold_of)
    for number, fold in enumerate(folds):
        heads.on_fold(number, len(folds))
        held = fold_of == fold
        if held.all():
            break
        with tempfile.TemporaryDirectory() as folder:
            trainer = HeadTrainer(
                recipe, heads.parent, targets.shape[1], Examples(features[~held], targets[~held]),
                None, taught.shipped, Path(folder), say=_in_silence, should_stop=heads.should_stop,
                objective=heads.objective,
            )  # fmt: skip
            fitted, _ = trainer.run()
        given[held] = _probabilities(fitted, features[held, 0])
    heads.on_fold(len(folds), len(folds))
    return given


def _of_carried(heads: Heads, shipped: dict[str, NDArray[Any]] | None) -> Values | None:
    """What heads that had not seen the parent's boxes would say of them, had they learnt on."""
    if shipped is None or OUT_OF_FOLD not in shipped or STANDS_FOR not in shipped:
        return None
    features = shipped["features"]
    moved = _logits(heads.child, features) - _logits(heads.parent, features)
    told = shipped[OUT_OF_FOLD].astype(np.float64).clip(FLOOR, CEILING)
    return np.asarray(1 / (1 + np.exp(-(np.log(told / (1 - told)) + moved))))


def _logits(head: nn.Module, features: NDArray[Any]) -> Values:
    device = next(head.parameters()).device
    seen = torch.from_numpy(features.astype(np.float32)).to(device)
    with torch.inference_mode():
        return np.asarray(head.eval()(seen).double().cpu().numpy())


def _probabilities(head: nn.Module, features: NDArray[Any]) -> Values:
    return np.asarray(1 / (1 + np.exp(-_logits(head, features))))


def _in_silence(_words: str) -> None:
    """Folds of a booster are nobody's news."""


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
