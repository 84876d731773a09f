"""What fine-tuning does differently from system to system; `training.finetune` does the rest."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import nn

from napari_cellpath.core.vocabulary import System
from napari_cellpath.models import Calibration, ModelInfo, read_tensors
from training.datasets import CellData, CellRecord, targets_of
from training.fit import StopCheck
from training.objective import Objective, OneClass
from training.progress import ProgressLog
from training.recipe import CommonRecipe
from training.report import Frozen
from training.systems import entry, load
from training.trainer import Rows, Trainer
from training.trunk_features import shipped_features

Progress = Callable[[int, int], None]
SETTLING = "booster"
"""Stage of the progress file in which a kit settles what is left; see `FineTuneKit.settle`."""
Probabilities = NDArray[np.float64]


class FeatureSource(Protocol):
    """Gives what a network's head sees of cells."""

    trunk: str
    """Hash of the trunk: features of equal trunks are equal."""
    on_progress: Progress | None

    def of(self, records: Sequence[CellRecord], looked_at: Any) -> NDArray[np.float32]:
        """Features (n, views, d)."""


@dataclass(frozen=True, eq=False)
class Taught:
    """What a child has learnt from and was chosen on, as its head sees it.

    ``rows`` and ``held`` are those of the training and of the validation part, ``features``
    (n, views, d) of the former and ``validated`` the child's probabilities of the latter.
    ``shipped`` are the parent's own features, which are the child's too where ``trunk_stays``.
    ``on_part`` is to be told parts done and to be done.
    """

    data: CellData
    targets: NDArray[Any]
    rows: Rows
    held: Rows
    features: NDArray[np.float32]
    validated: Probabilities
    shipped: dict[str, NDArray[Any]] | None
    trunk_stays: bool
    on_part: Progress


@dataclass
class FineTuneKit(ABC):
    """One system's part of a fine-tuning run.

    Parameters
    ----------
    recipe
        Of the run; with the section ``finetune``.
    info
        The parent's.
    """

    recipe: Any
    info: ModelInfo

    unit: ClassVar[str] = "slides"
    """What groups are called."""
    things: ClassVar[str] = "cells"
    """What is learnt from, in the plural."""
    learning_views: ClassVar[str]
    """How cells are looked at for the head to learn from."""
    objective: ClassVar[Objective] = OneClass()
    """What the head is fitted by."""
    settles: ClassVar[bool] = False
    """Whether there is something left to choose once the network is there; see `settle`."""

    @property
    def settling_fits(self) -> int:
        """How often a head is fitted anew in order to settle the rest."""
        return 0

    @property
    def choosing_views(self) -> str:
        """How validation cells are looked at."""
        return self.learning_views

    @property
    @abstractmethod
    def input_shape(self) -> tuple[int, int, int]:
        """Of one network input: channels, height, width."""

    @abstractmethod
    def inputs(self, looked_at: str) -> int:
        """Network inputs of one cell."""

    def examples(self) -> int:
        """Of one cell, that a head learns from in an epoch."""
        return self.inputs(self.learning_views)

    @abstractmethod
    def read(self) -> CellData:
        """The recipe's data, a project or a folder, with the parent's classes."""

    def targets(self, data: CellData) -> NDArray[Any]:
        """What each cell is, in the parent's classes: (n,) numbers, or (n, n_classes) labels."""
        return targets_of(data, self.info)

    def no_targets(self, n: int) -> NDArray[Any]:
        """Targets of ``n`` blank cells, to measure speed with."""
        return np.arange(n) % len(self.info.classes)

    def only_class(self, _data: CellData, targets: NDArray[Any], train: Rows) -> str:
        """The one class that all cells to learn from are of, or nothing."""
        found = set(targets[train].tolist())
        return self.info.classes[found.pop()].name if len(found) == 1 else ""

    def run_type(self) -> Any:
        """A `training.finetune.FineTuning` of the system's own, or None for the common one."""
        return None

    def plan(self, recipe: CommonRecipe, network: Any, sides: Any) -> dict[str, float]:
        """Seconds of each stage where a system reckons otherwise than cells do, else nothing.

        ``sides`` are `training.finetune_data.Sides`.
        """
        del recipe, network, sides
        return {}

    def one_class_will_do(self) -> bool:
        """Whether new cells of one class can be learnt from."""
        return False

    @abstractmethod
    def kinds(
        self, data: CellData, targets: NDArray[Any], rows: Rows, train: Rows
    ) -> dict[str, int]:
        """Cells of each kind among ``rows`` without enough of which nothing is chosen on them."""

    @abstractmethod
    def load(self, folder: Path) -> nn.Module:
        """The network of a model folder, in evaluation mode; it has a ``trunk`` and a ``head``."""

    def tensors(self, folder: Path) -> dict[str, NDArray[Any]]:
        """What a model folder stores of what `load` gives, by its names there."""
        return read_tensors(folder)

    def whole(self, arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """What the child's folder will store, from what it stores of `load`'s network."""
        return arrays

    @abstractmethod
    def features(
        self, network: Any, folder: Path | None, should_stop: StopCheck | None
    ) -> FeatureSource:
        """Where features of cells come from; ``folder`` may keep them."""

    @abstractmethod
    def scores(
        self,
        network: Any,
        source: FeatureSource,
        records: Sequence[CellRecord],
        looked_at: str,
        should_stop: StopCheck | None,
        on_progress: Progress,
    ) -> Probabilities:
        """Mean class probabilities of cells, (n, n_classes)."""

    @abstractmethod
    def judged_again(self, network: nn.Module) -> bool:
        """Whether the frozen cells pass the trunk a second time for the child's report."""

    @abstractmethod
    def views(self, data: CellData, rows: Rows) -> int:
        """Views of these cells in one epoch of the thorough way."""

    @abstractmethod
    def tuner(
        self,
        network: Any,
        shipped: dict[str, NDArray[Any]] | None,
        data: CellData | None,
        targets: NDArray[Any],
        *,
        device: str,
        say: Callable[[str], None],
        should_stop: StopCheck | None,
        log: ProgressLog,
    ) -> Trainer[Any]:
        """A trainer of all layers, from the parent; ``data`` None: on blanks, to measure speed."""

    def settle(self, child: Any, taught: Taught) -> dict[str, Any]:
        """Choose what is chosen once the network is there; told in the model's folder."""
        del child, taught
        return {}

    def facts(self) -> dict[str, Any]:
        """Fields of the child's ``model.json`` that `settle` decided."""
        return {}

    def judge(self, child: bool) -> Any:
        """How the parent's or the child's probabilities are read, where its kind needs to know."""
        del child

    def carried(self, shipped: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """What the parent carries, as the child will carry it on."""
        return shipped

    def shipped(
        self, features: NDArray[np.float32], data: CellData, targets: NDArray[Any], rows: Rows
    ) -> dict[str, NDArray[Any]]:
        """Features of the new cells, as a model folder carries them."""
        wanted = targets[rows].tolist()
        return shipped_features(features, wanted, wanted, [data.groups[int(i)] for i in rows])

    def threshold(self, _truth: CellData, _rows: Rows, _given: Probabilities) -> tuple[float, str]:
        """The child's threshold, and where it comes from."""
        return self.info.threshold, "the parent's"

    @abstractmethod
    def calibrate(
        self, data: CellData, targets: NDArray[Any], rows: Rows, given: Probabilities
    ) -> tuple[Calibration | None, str]:
        """The child's calibration on validation cells, and a sentence on it."""

    @abstractmethod
    def frozen(self, records: Sequence[CellRecord], targets: NDArray[Any]) -> Frozen:
        """The frozen cells, as the report wants them."""


def kit_of(recipe: CommonRecipe, info: ModelInfo) -> FineTuneKit:
    """The kit of a recipe's system."""
    kit: FineTuneKit = load(entry(System(recipe.system)).kit)(recipe, info)
    return kit
