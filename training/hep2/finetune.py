"""HEp-2's part of a fine-tuning run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from napari_cellpath.core.vocabulary import Average, Channel
from napari_cellpath.models import Calibration
from napari_cellpath.models.format import FEATURES
from napari_cellpath.systems.hep2.cells import CellInput
from napari_cellpath.systems.hep2.network import Hep2Network
from napari_cellpath.systems.loading import load_network
from training.calibration import fit_class_calibration
from training.datasets import CellData, CellRecord
from training.finetune_full import NearParent
from training.finetune_kit import FeatureSource, FineTuneKit, Probabilities, Progress
from training.fit import StopCheck
from training.hep2.data import Hep2Cells, crop_cells, read_cells, read_project
from training.hep2.recipe import Hep2Recipe
from training.hep2.report import FrozenPatterns
from training.hep2.sampling import copies_of_cells, thin_out
from training.hep2.scoring import score_cells, trunk_features
from training.hep2.trainer import Hep2Trainer, Learning, blank_cells
from training.progress import ProgressLog
from training.trainer import Learner, Rows
from training.trunk_features import trunk_hash


@dataclass
class Hep2FineTuner(NearParent[Hep2Recipe], Hep2Trainer):
    """A HEp-2 trainer that starts from a parent and stays near it."""

    def start(self, _rows: Rows, seed: int) -> Learner:
        """Copy the parent, seeded; its batch normalisation keeps its statistics."""
        whole = Learning(self.copied(seed), still=True)
        return whole.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


@dataclass
class PatternFeatures:
    """What a HEp-2 network's head sees of cells; quick enough to be computed when asked for."""

    network: Hep2Network
    channel: Channel
    wanted: CellInput
    should_stop: StopCheck | None = None
    on_progress: Progress | None = None
    trunk: str = field(default="", init=False)

    def __post_init__(self) -> None:
        self.trunk = trunk_hash(self.network)

    def of(self, records: Sequence[CellRecord], looked_at: Any) -> NDArray[np.float32]:
        """Features (n, views, d)."""
        return trunk_features(
            self.network, crop_cells(records, self.channel, self.wanted), Average(looked_at),
            should_stop=self.should_stop, on_progress=self.on_progress,
        )  # fmt: skip


@dataclass
class Hep2Kit(FineTuneKit):
    """See `FineTuneKit`."""

    unit: ClassVar[str] = "specimens"
    learning_views: ClassVar[str] = str(Average.D4)

    def __post_init__(self) -> None:
        self.wanted = CellInput.of(self.info.input, self.info.name)
        self.channel: Channel = self.recipe.data.channel

    @property
    def choosing_views(self) -> str:
        """As the report looks at the frozen cells."""
        return str(self.recipe.evaluation)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Of one cell."""
        return 1, self.wanted.size, self.wanted.size

    def inputs(self, looked_at: str) -> int:
        """Network inputs of one cell."""
        return Average(looked_at).ways

    def read(self) -> CellData:
        """A project, or a folder in one of HEp-2's layouts."""
        if self.recipe.data.layout == "project":
            return read_project(self.recipe.data.folder, self.info.classes)
        return read_cells(self.recipe.data)

    def one_class_will_do(self) -> bool:
        """Where the parent carries cells of the other patterns to be learnt beside them."""
        return bool(self.recipe.finetune.replay > 0 and FEATURES in self.info.files)

    def kinds(self, _data: CellData, targets: Rows, rows: Rows, train: Rows) -> dict[str, int]:
        """Cells of each pattern that is to be learnt."""
        return {
            self.info.classes[k].name: int((targets[rows] == k).sum())
            for k in np.unique(targets[train]).tolist()
        }

    def load(self, folder: Path) -> Hep2Network:
        """The parent's network."""
        return load_network(folder)[0]

    def features(
        self, network: Hep2Network, _folder: Path | None, should_stop: StopCheck | None
    ) -> PatternFeatures:
        """Features; nothing is kept."""
        return PatternFeatures(network, self.channel, self.wanted, should_stop)

    def scores(
        self,
        network: Hep2Network,
        _source: FeatureSource,
        records: Sequence[CellRecord],
        looked_at: str,
        should_stop: StopCheck | None,
        on_progress: Progress,
    ) -> Probabilities:
        """Mean probabilities of the patterns."""
        pictures = crop_cells(records, self.channel, self.wanted)
        return score_cells(
            network, pictures, Average(looked_at), should_stop=should_stop,
            on_progress=on_progress,
        )  # fmt: skip

    def judged_again(self, _network: nn.Module) -> bool:
        """Always: features are not kept."""
        return True

    def views(self, data: CellData, rows: Rows) -> int:
        """Views of these cells in one epoch."""
        kept, _ = thin_out(self.recipe, data, rows)
        return int(copies_of_cells(self.recipe, data)[kept].sum())

    def tuner(
        self,
        network: Hep2Network,
        shipped: dict[str, NDArray[Any]] | None,
        data: CellData | None,
        targets: Rows,
        *,
        device: str,
        say: Callable[[str], None],
        should_stop: StopCheck | None,
        log: ProgressLog,
    ) -> Hep2FineTuner:
        """A `Hep2FineTuner`; on blanks it is only good for measuring speed."""
        if data is None:
            records = tuple(CellRecord(Path(), 0.0, 0.0, int(k), False, str(k)) for k in targets)
            data = CellData("", Path(), records, self.info.classes, None, "", "")
            cells = blank_cells(len(targets), len(self.info.classes), self.wanted.size)
        else:
            cells = Hep2Cells.load(data, self.channel, self.wanted)
            cells.targets = torch.from_numpy(targets.astype(np.int64))
        return Hep2FineTuner(
            self.recipe, data, cells, device=device, say=say, should_stop=should_stop, log=log,
            parent=network, parent_classes=len(self.info.classes), shipped=shipped,
        )  # fmt: skip

    def calibrate(
        self, data: CellData, targets: Rows, rows: Rows, given: Probabilities
    ) -> tuple[Calibration | None, str]:
        """One temperature for all patterns."""
        return fit_class_calibration(
            targets[rows], given, [data.records[int(i)].group for i in rows],
            f"the validation part of {data.name}",
        )  # fmt: skip

    def frozen(self, records: Sequence[CellRecord], targets: Rows) -> FrozenPatterns:
        """Cells and their patterns."""
        return FrozenPatterns(records, targets, self.info.classes)
