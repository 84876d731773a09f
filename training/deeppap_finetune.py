"""DeepPap's part of a fine-tuning run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from napari_cellpath.models import Calibration
from napari_cellpath.systems.deeppap.network import DeepPapNetwork
from napari_cellpath.systems.deeppap.predict import load_network
from napari_cellpath.systems.deeppap.views import CROP
from training import metrics as m
from training.augment import WINDOW
from training.calibration import fit_calibration
from training.cells import Cells
from training.datasets import CellData, CellRecord, read_cells
from training.deeppap import DeepPapTrainer, views_of_cells
from training.deeppap_network import TrainingNetwork, freeze_first
from training.deeppap_recipe import INPUTS, Recipe
from training.finetune_full import NearParent
from training.finetune_kit import FeatureSource, FineTuneKit, Probabilities, Progress
from training.fit import StopCheck
from training.progress import ProgressLog
from training.project_data import read_project
from training.report import Frozen
from training.scoring import score_cells
from training.trainer import Rows
from training.trunk_features import FeatureCache, pools, probabilities

LEAST_FOR_THRESHOLD = 20
"""Validation cells of either kind from which the threshold is chosen anew."""


@dataclass
class FineTuner(NearParent[Recipe], DeepPapTrainer):
    """A DeepPap trainer that starts from a parent and stays near it."""

    def start(self, _rows: Rows, seed: int) -> TrainingNetwork:
        """Copy the parent, seeded."""
        network = self.copied(seed)
        freeze_first(network.trunk, self.recipe.network.frozen_layers)
        whole = TrainingNetwork(network, 0, 0, 0, self.recipe.augmentation.mix_style)
        return whole.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


@dataclass
class DeepPapKit(FineTuneKit):
    """See `FineTuneKit`."""

    learning_views: ClassVar[str] = "rotations"

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Of one crop."""
        return 3, CROP, CROP

    def inputs(self, looked_at: str) -> int:
        """Network inputs of one cell."""
        return INPUTS[looked_at]

    def read(self) -> CellData:
        """A project, or a folder in one of DeepPap's layouts."""
        if self.recipe.data.layout == "project":
            return read_project(self.recipe.data.folder, self.info.classes, self.info.mpp)
        return read_cells(self.recipe.data)

    def kinds(self, data: CellData, _targets: Rows, rows: Rows, _train: Rows) -> dict[str, int]:
        """Normal and abnormal cells."""
        abnormal = int(data.abnormal[rows].sum())
        return {"normal": len(rows) - abnormal, "abnormal": abnormal}

    def load(self, folder: Path) -> DeepPapNetwork:
        """The parent's network."""
        return load_network(folder)[0]

    def features(
        self, network: DeepPapNetwork, folder: Path | None, should_stop: StopCheck | None
    ) -> FeatureCache:
        """Features, kept in files."""
        return FeatureCache(network, folder, should_stop)

    def scores(
        self,
        network: DeepPapNetwork,
        source: FeatureSource,
        records: Sequence[CellRecord],
        looked_at: str,
        should_stop: StopCheck | None,
        on_progress: Progress,
    ) -> Probabilities:
        """From features where that gives the same numbers."""
        if pools(network.head) or looked_at == "rotations":
            source.on_progress = on_progress
            return probabilities(network.head, source.of(records, looked_at))
        return score_cells(
            network, records, looked_at=looked_at,  # type: ignore[arg-type]
            seed=self.recipe.seed, should_stop=should_stop, on_progress=on_progress,
        )  # fmt: skip

    def judged_again(self, network: nn.Module) -> bool:
        """Not where the features of the parent's report serve."""
        return not (pools(network.head) or self.recipe.evaluation == "rotations")  # type: ignore[arg-type]

    def views(self, data: CellData, rows: Rows) -> int:
        """Views of these cells in one epoch."""
        return int(views_of_cells(self.recipe, data)[rows].sum())

    def tuner(
        self,
        network: DeepPapNetwork,
        shipped: dict[str, NDArray[Any]] | None,
        data: CellData | None,
        targets: Rows,
        *,
        device: str,
        say: Callable[[str], None],
        should_stop: StopCheck | None,
        log: ProgressLog,
    ) -> FineTuner:
        """A `FineTuner`; on blanks it is only good for measuring speed."""
        if data is None:
            cells = blank_cells(None, len(targets))
        else:
            cells = Cells.load(data, 2)
            cells.targets = torch.from_numpy(targets.astype(np.int64))
        return FineTuner(
            self.recipe, data, cells,  # type: ignore[arg-type]
            device=device, say=say, should_stop=should_stop, log=log, parent=network,
            parent_classes=len(self.info.classes), shipped=shipped,
        )  # fmt: skip

    def _abnormal(self, given: Probabilities) -> Probabilities:
        return np.asarray(given[:, [c.abnormal for c in self.info.classes]].sum(axis=1))

    def threshold(self, data: CellData, rows: Rows, given: Probabilities) -> tuple[float, str]:
        """The parent's, unless the validation part is large enough to choose one."""
        truth = data.abnormal[rows]
        fewest = min(int(truth.sum()), int((~truth).sum()))
        if self.recipe.finetune.keep_threshold or fewest < LEAST_FOR_THRESHOLD:
            return self.info.threshold, "the parent's"
        if self.recipe.threshold == "half":
            return 0.5, "0.5, as the recipe says"
        chosen = m.best_threshold(truth, self._abnormal(given), self.recipe.threshold)
        return chosen, f"chosen on {len(truth)} validation cells ({self.recipe.threshold})"

    def calibrate(
        self, data: CellData, _targets: Rows, rows: Rows, given: Probabilities
    ) -> tuple[Calibration | None, str]:
        """Of the probability of abnormal."""
        return fit_calibration(
            data.abnormal[rows], self._abnormal(given), [data.records[int(i)].group for i in rows],
            f"the validation part of {data.name}",
        )  # fmt: skip

    def frozen(self, records: Sequence[CellRecord], targets: Rows) -> Frozen:
        """Normal and abnormal cells."""
        return Frozen(records, targets, self.info.classes)


def blank_cells(data: CellData | None, n: int) -> Cells:
    """Cells of nothing, for measuring speed without reading images."""
    n_fine = 2 if data is None else len(data.fine_classes)
    features = 0 if data is None else data.features().shape[1]
    return Cells(
        windows=torch.full((n, 6, WINDOW, WINDOW), 255, dtype=torch.uint8),
        backgrounds=torch.zeros(n, 3),
        targets=torch.arange(n) % 2,
        fine=torch.arange(n) % n_fine,
        features=torch.zeros(n, features),
        n_fine=n_fine,
        has_masks=data is not None and all(r.mask is not None for r in data.records),
    )
