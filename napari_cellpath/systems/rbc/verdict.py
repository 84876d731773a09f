"""From the probabilities of types to labels and to "abnormal": NumPy alone, no network.

The booster was fitted with scikit-learn and lies in the model folder as plain arrays; here it is
evaluated again, to the same digits. A person who flips a label has the new verdict at once, in the
viewer's own process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from napari_cellpath.core.errors import ModelError
from napari_cellpath.models import ModelInfo, read_info, read_tensors

PREFIX = "booster."
"""Of the booster's arrays among a model folder's tensors."""
USUAL_THRESHOLD = 0.5

Floats = NDArray[np.float64]
Indices = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Booster:
    """Boosted regression trees; all nodes of all trees in one row of arrays.

    Attributes
    ----------
    roots
        (trees,): node at which each tree begins.
    left, right
        (nodes,): where a node leads whose value is at most, or above, its threshold. A leaf leads
        to itself.
    feature
        (nodes,): column looked at; 0 at leaves.
    threshold
        (nodes,).
    value
        (nodes,): what a leaf adds.
    start
        (2,): log odds before the first tree, and the learning rate.
    """

    roots: Indices
    left: Indices
    right: Indices
    feature: Indices
    threshold: Floats
    value: Floats
    start: Floats

    @classmethod
    def of(cls, classifier: Any) -> Booster:
        """Take the trees of a fitted scikit-learn ``GradientBoostingClassifier`` of two classes.

        Raises
        ------
        ModelError
            It tells apart another number of classes, or starts from a model of its own.
        """
        if len(classifier.classes_) != 2 or not hasattr(classifier.init_, "class_prior_"):
            raise ModelError("The booster must tell two classes apart, starting from their share.")
        parts: dict[str, list[NDArray[Any]]] = {
            name: [] for name in ("left", "right", "feature", "threshold", "value")
        }
        roots, count = [], 0
        for regressor in classifier.estimators_[:, 0]:
            tree = regressor.tree_
            own = np.arange(tree.node_count)
            leaf = tree.children_left < 0
            parts["left"].append(count + np.where(leaf, own, tree.children_left))
            parts["right"].append(count + np.where(leaf, own, tree.children_right))
            parts["feature"].append(np.where(leaf, 0, tree.feature))
            parts["threshold"].append(np.where(leaf, 0.0, tree.threshold))
            parts["value"].append(np.where(leaf, tree.value[:, 0, 0], 0.0))
            roots.append(count)
            count += tree.node_count
        joined = {name: np.concatenate(some) for name, some in parts.items()}
        tiny = float(np.finfo(np.float32).eps)  # as scikit-learn keeps the share from 0 and 1
        share = float(np.clip(classifier.init_.class_prior_[1], tiny, 1 - tiny))
        start = np.array([np.log(share / (1 - share)), classifier.learning_rate])
        return cls(
            roots=np.array(roots, np.int32),
            left=joined["left"].astype(np.int32),
            right=joined["right"].astype(np.int32),
            feature=joined["feature"].astype(np.int32),
            threshold=joined["threshold"].astype(np.float64),
            value=joined["value"].astype(np.float64),
            start=start,
        )

    @classmethod
    def of_tensors(
        cls, tensors: Mapping[str, NDArray[Any]], n_types: int, where: str
    ) -> Booster | None:
        """Read it from a model folder's tensors; None where the folder holds none.

        Raises
        ------
        ModelError
            An array is missing, of another shape or type, or leads outside.
        """
        names = [field.name for field in fields(cls)]
        found = {name: tensors[PREFIX + name] for name in names if PREFIX + name in tensors}
        if not found:
            return None
        missing = [PREFIX + name for name in names if name not in found]
        if missing:
            raise ModelError(f"{where}: the booster lacks {', '.join(missing)}.")
        _check(found, n_types, where)
        return cls(**found)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """What `of_tensors` reads, for a model folder."""
        return {PREFIX + field.name: getattr(self, field.name) for field in fields(self)}

    @property
    def n_trees(self) -> int:
        """How many trees there are."""
        return len(self.roots)

    def probability(self, probabilities: ArrayLike) -> Floats:
        """Probability of the second class, (n,), of rows (n, types).

        As scikit-learn does, rows are rounded to float32 before they are compared.
        """
        rows = np.asarray(probabilities, np.float64).astype(np.float32)
        node = np.broadcast_to(self.roots, (len(rows), self.n_trees))
        at = np.arange(len(rows))[:, None]
        while True:
            low = rows[at, self.feature[node]] <= self.threshold[node]
            following = np.where(low, self.left[node], self.right[node])
            if np.array_equal(following, node):
                break
            node = following
        raw = self.start[0] + self.start[1] * self.value[node].sum(axis=1)
        with np.errstate(over="ignore"):
            certain: Floats = 1 / (1 + np.exp(-raw))
        return certain


def _check(arrays: Mapping[str, NDArray[Any]], n_types: int, where: str) -> None:
    n_nodes = len(arrays["left"])
    for name, array in arrays.items():
        floats = name in ("threshold", "value", "start")
        if array.ndim != 1 or array.dtype != (np.float64 if floats else np.int32):
            kind = "float64" if floats else "int32"
            raise ModelError(f"{where}: {PREFIX}{name} must be one row of {kind}.")
        if name not in ("roots", "start") and len(array) != n_nodes:
            raise ModelError(f"{where}: {PREFIX}{name} must be as long as {PREFIX}left.")
    if len(arrays["start"]) != 2:
        raise ModelError(f"{where}: {PREFIX}start must be the log odds and the learning rate.")
    for name, limit in (("roots", n_nodes), ("left", n_nodes), ("right", n_nodes)):
        if arrays[name].size and not 0 <= arrays[name].min() <= arrays[name].max() < limit:
            raise ModelError(f"{where}: {PREFIX}{name} leads outside the trees.")
    if arrays["feature"].size and not 0 <= arrays["feature"].min() <= arrays["feature"].max() < (
        n_types
    ):
        raise ModelError(f"{where}: {PREFIX}feature names a type that the model does not have.")
    own = np.arange(n_nodes)
    for name in ("left", "right"):  # forwards only, so that no walk goes round for ever
        if (arrays[name] < own).any():
            raise ModelError(f"{where}: {PREFIX}{name} leads back.")


@dataclass(frozen=True, eq=False)
class Verdict:
    """How a model's probabilities are read.

    Attributes
    ----------
    names
        Of the types.
    abnormal
        (types,) whether each counts as abnormal.
    thresholds
        (types,): a type is said to be there strictly above its own.
    threshold
        A box is called abnormal strictly above it.
    booster
        None: the largest probability of an abnormal type stands in (the rule of papers.md 2.4).
    """

    names: tuple[str, ...]
    abnormal: NDArray[np.bool_]
    thresholds: Floats
    threshold: float = USUAL_THRESHOLD
    booster: Booster | None = None

    @classmethod
    def of(cls, info: ModelInfo, booster: Booster | None = None) -> Verdict:
        """Read it from a model's facts.

        Raises
        ------
        ModelError
            The thresholds are not one number between 0 and 1 a type.
        """
        n = len(info.classes)
        given = info.input.get("thresholds", [USUAL_THRESHOLD] * n)
        if (
            not isinstance(given, list)
            or len(given) != n
            or not all(isinstance(t, int | float) and 0 <= t < 1 for t in given)
        ):
            raise ModelError(
                f"{info.name}: input.thresholds must be a number from 0 to 1 for each of {n} types."
            )
        return cls(
            info.class_names,
            np.array([c.abnormal for c in info.classes]),
            np.array(given, np.float64),
            info.threshold,
            booster,
        )

    def labels(self, probabilities: Sequence[float]) -> tuple[str, ...]:
        """Types strictly above their thresholds, in the model's order."""
        return tuple(
            name
            for name, p, threshold in zip(self.names, probabilities, self.thresholds, strict=True)
            if p > threshold
        )

    def probability_of_abnormal(self, probabilities: ArrayLike) -> Floats:
        """Probability of abnormal, (n,), of rows (n, types); NaN where a row is not finite."""
        rows = np.asarray(probabilities, np.float64).reshape(-1, len(self.names))
        finite = np.isfinite(rows).all(axis=1)
        found = np.full(len(rows), np.nan)
        if not finite.any():
            return found
        found[finite] = (
            self.largest_abnormal(rows[finite])
            if self.booster is None
            else self.booster.probability(rows[finite])
        )
        return found

    def largest_abnormal(self, probabilities: ArrayLike) -> Floats:
        """The rule beside the booster: the largest probability of an abnormal type, (n,)."""
        rows = np.asarray(probabilities, np.float64).reshape(-1, len(self.names))
        return np.where(self.abnormal, rows, 0.0).max(axis=1, initial=0.0)

    def word(self, probability: float) -> str:
        """``abnormal`` or ``normal``; empty where there is no number."""
        if not np.isfinite(probability):
            return ""
        return "abnormal" if probability > self.threshold else "normal"

    def revised(
        self, probabilities: Sequence[float], said: Mapping[str, bool]
    ) -> tuple[tuple[float, ...], float]:
        """What stands once a person has said which types are there and which are not.

        Parameters
        ----------
        probabilities
            Of the model.
        said
            Type to whether it is there, of those a person spoke of; others stay as they are.

        Returns
        -------
        tuple
            The probabilities, 1 and 0 where a person spoke, and the probability of abnormal.
        """
        revised = tuple(
            float(said[name]) if name in said else p
            for name, p in zip(self.names, probabilities, strict=True)
        )
        return revised, float(self.probability_of_abnormal([revised])[0])


def is_abnormal(targets: ArrayLike, abnormal: Sequence[bool] | NDArray[np.bool_]) -> NDArray[Any]:
    """Whether any abnormal type is there, (n,) bool, of labels (n, types) (papers.md 2.9, 9)."""
    there = np.asarray(targets, bool)
    found: NDArray[Any] = (there & np.asarray(abnormal, bool)).any(axis=1)
    return found


def read_verdict(folder: Path | str) -> Verdict:
    """How a model folder's probabilities are read; kept, a second call is instant.

    Raises
    ------
    ModelError
        The folder, its thresholds or its booster are damaged.
    """
    return _read_verdict(str(folder), read_info(folder).sha256)


@lru_cache(maxsize=16)
def _read_verdict(folder: str, sha256: str) -> Verdict:
    del sha256  # a folder that changed is read again
    info = read_info(folder)
    return Verdict.of(info, Booster.of_tensors(read_tensors(folder), len(info.classes), folder))
