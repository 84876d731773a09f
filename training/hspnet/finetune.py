"""HSP-Net's part of a fine-tuning run: a person's painted corrections teach a finished model.

``fast`` trains the last 1x1 convolution on features of painted places (and as many that the parent
carries of its own training regions); ``thorough`` does the same and then trains every layer on
crops in which pixels of which nothing is said do not count.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from napari_cellpath.models import Calibration, read_tensors
from napari_cellpath.systems.hspnet.tiles import tile_starts
from napari_cellpath.systems.loading import load_network
from training.budget import measure_speed
from training.calibration import fit_class_calibration
from training.datasets import CellData, CellRecord
from training.finetune import FineTuning
from training.finetune_full import NearParent
from training.finetune_head import MIXES, Examples, HeadTrainer, Replay
from training.finetune_kit import FeatureSource, FineTuneKit, Progress
from training.fit import StopCheck
from training.hspnet.crops import CropList, Region, list_crops, load_regions
from training.hspnet.data import (
    GLAS_CLASSES,
    MTCHI_CLASSES,
    RegionRecord,
    read_project,
    read_regions,
)
from training.hspnet.evaluation import as_models, tiling_of_model
from training.hspnet.features import PER_REGION, PixelFeatures, pixel_features, shipped_pixels
from training.hspnet.recipe import HspRecipe
from training.hspnet.report import FrozenRegions
from training.hspnet.run import UNIT
from training.hspnet.scoring import RegionScores, Tiling, empty_scores, score_regions
from training.hspnet.trainer import HspTrainer, Learning
from training.progress import ProgressLog
from training.recipe import CommonRecipe
from training.report import Frozen
from training.trainer import Learner, Rows
from training.trunk_features import merged_features, trunk_hash

_HEAD_STEP = 3e-3
"""Seconds of one step of the last convolution on a CPU, new and old places together."""
REPLAYED = 4096
"""Places of the parent's that one step of the thorough way sees."""


@dataclass
class HspFineTuner(NearParent[HspRecipe], HspTrainer):
    """An HSP-Net trainer that starts from a parent and stays near it."""

    def start(self, _rows: Rows, seed: int) -> Learner:
        """Copy the parent, seeded; its batch normalisation keeps its statistics."""
        whole = Learning(self.copied(seed), still=True)
        return whole.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def further_loss(
        self, module: nn.Module, inputs: Tensor, logits: Tensor, rng: torch.Generator
    ) -> Tensor | float:
        """Replay of the parent's places through the last convolution, or distillation."""
        settings = self.recipe.finetune
        assert settings is not None  # a FineTuner has one  # noqa: S101
        if self.shipped is not None and settings.replay > 0:
            replay = self._replay(rng, logits.device)
            network: Any = module.get_submodule("network")
            seen = replay.loss(network.head[-1], REPLAYED, self.recipe.label_smoothing)
            return settings.replay * seen
        if settings.distil == 0:
            return 0.0
        if self._teacher is None:
            assert self.parent is not None  # HspKit gave it  # noqa: S101
            self._teacher = copy.deepcopy(self.parent).to(logits.device).eval()
        with torch.inference_mode():
            wanted = self._teacher(inputs)
        soft = settings.distil_temperature
        apart = F.kl_div(
            F.log_softmax(logits / soft, dim=1), F.log_softmax(wanted.clone() / soft, dim=1),
            log_target=True, reduction="none",
        )  # fmt: skip
        return settings.distil * soft**2 * apart.sum(dim=1).mean()

    def _replay(self, rng: torch.Generator, device: torch.device) -> Replay:
        assert self.shipped is not None  # the caller looked  # noqa: S101
        return Replay(self.shipped, rng, device, self.objective)


@dataclass
class RegionSource:
    """Gives features of painted places, and regions in memory."""

    network: Any
    load: Callable[[Sequence[CellRecord]], list[Region]]
    tiling: Tiling
    should_stop: StopCheck | None = None
    on_progress: Progress | None = None
    trunk: str = ""

    def __post_init__(self) -> None:
        self.trunk = trunk_hash(self.network)

    def drawn(self, records: Sequence[CellRecord]) -> PixelFeatures:
        """Features of places of every class of every region."""
        return pixel_features(
            self.network, self.load(records), self.tiling,
            should_stop=self.should_stop, on_progress=self.on_progress,
        )  # fmt: skip

    def of(self, records: Sequence[CellRecord], looked_at: Any) -> NDArray[np.float32]:
        """Features (m, 1, d) of places; how regions are looked at makes no difference."""
        del looked_at
        return self.drawn(records).features[:, None]


@dataclass
class HspKit(FineTuneKit):
    """See `FineTuneKit`; a cell is a region here, and its class the tissue it has most of."""

    unit: ClassVar[str] = "slides"
    things: ClassVar[str] = "regions"
    learning_views: ClassVar[str] = "tiles"

    def __post_init__(self) -> None:
        self.side = int(self.info.input["tile"])
        self._regions: dict[tuple[Path, tuple[int, int, int, int]], Region] = {}

    def run_type(self) -> type[FineTuning]:
        """What runs it."""
        return HspFineTuning

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Of one tile."""
        return 3, self.side, self.side

    def inputs(self, looked_at: str) -> int:
        """Tiles of a region of about twice a tile each way."""
        del looked_at
        along = 1 + -(-self.side // tiling_of_model(self.info).step)
        return along**2

    def read(self) -> CellData:
        """A project, or a folder in one of HSP-Net's layouts."""
        if self.recipe.data.layout == "project":
            return read_project(self.recipe.data.folder, self.info.classes)
        return read_regions(self.recipe.data)

    def one_class_will_do(self) -> bool:
        """A region holds pixels of several classes, or the parent carries the others."""
        return True

    def kinds(
        self, data: CellData, targets: NDArray[Any], rows: Rows, train: Rows
    ) -> dict[str, int]:
        """How many regions there are to choose on."""
        del data, targets, train
        return {"labelled": len(rows)}

    def load(self, folder: Path) -> nn.Module:
        """The parent's network."""
        network: nn.Module = load_network(folder)[0]
        return network

    def regions(self, records: Sequence[CellRecord], data: CellData | None = None) -> list[Region]:
        """Regions at the model's scale, classes as the model counts them; each is read once."""
        found = []
        for record in records:
            assert isinstance(record, RegionRecord)  # read() made it  # noqa: S101
            key = record.image, record.window
            if key not in self._regions:
                own = self.read_classes if data is None else data.fine_classes
                one = CellData("", Path(), (record,), tuple(own), None, "", "")
                self._regions[key] = as_models(
                    load_regions(one, [0], self.side, self.info.mpp), one, self.info
                )[0]
            found.append(self._regions[key])
        return found

    @property
    def read_classes(self) -> Sequence[Any]:
        """Classes of the data's own list: a project's are the model's."""
        layout = self.recipe.data.layout
        if layout == "project":
            return self.info.classes
        return GLAS_CLASSES if layout == "glas" else MTCHI_CLASSES

    def features(
        self, network: Any, _folder: Path | None, should_stop: StopCheck | None
    ) -> RegionSource:
        """Features of places; nothing is kept on disk."""
        return RegionSource(network, self.regions, tiling_of_model(self.info), should_stop)

    def scores(  # type: ignore[override]
        self,
        network: Any,
        _source: FeatureSource,
        records: Sequence[CellRecord],
        looked_at: str,
        should_stop: StopCheck | None,
        on_progress: Progress,
    ) -> RegionScores:
        """What a network makes of regions, in the tiles of the parent."""
        del looked_at
        return score_regions(
            network, self.regions(records), len(self.info.classes), tiling_of_model(self.info),
            should_stop=should_stop, on_progress=on_progress,
        )  # fmt: skip

    def judged_again(self, _network: nn.Module) -> bool:
        """Always: features are not kept."""
        return True

    def views(self, data: CellData, rows: Rows) -> int:
        """Crops in one epoch."""
        crops = self.recipe.crops
        if crops.per_epoch:
            return int(crops.per_epoch)
        return sum(_tiles(data.records[int(i)], self.side, crops.stride) for i in rows)

    def plan(self, recipe: CommonRecipe, network: Any, sides: Any) -> dict[str, float]:
        """Seconds of each stage; the tiles of every region are counted."""
        assert recipe.finetune is not None  # the caller looked  # noqa: S101
        looked = tiling_of_model(self.info)
        tile = self._seconds_of_tile(network)

        def tiles(rows: Rows, stride: int) -> int:
            return sum(_tiles(r, self.side, stride) for r in sides.records(rows))

        judged = tiles(sides.frozen, looked.step) * tile
        plan = {
            "training cells": tiles(sides.train, self.side) * tile,
            "validation cells": tiles(sides.validation, looked.step) * tile,
        }
        if recipe.finetune.method == "full":
            rows = np.arange(recipe.batch)
            quiet: dict[str, Any] = {"say": lambda _line: None, "should_stop": None}
            tuner = self.tuner(network, None, None, rows, device="cpu", log=ProgressLog(), **quiet)
            mine = self.views(sides.data, sides.train)
            again = self.views(sides.data, sides.validation) if len(sides.validation) else 0
            step = measure_speed(tuner, rows).step
            plan["final"] = recipe.epochs * (mine * step + again * tile)
        places = len(sides.train) * len(self.info.classes) * PER_REGION
        chosen = len(sides.validation) and recipe.finetune.replay > 0
        for trial in range(trials := len(MIXES) if chosen else 1):
            seconds = recipe.epochs * (places / recipe.batch * _HEAD_STEP + 0.03)
            plan[f"head {trial + 1} of {trials}"] = seconds
        return plan | {"frozen cells": judged, "frozen again cells": judged}

    def _seconds_of_tile(self, network: Any) -> float:
        device = next(network.parameters()).device
        blank = torch.zeros(2, *self.input_shape, device=device)
        with torch.inference_mode():
            for _ in range(2):  # the first one pays for memory and kernels
                started = time.perf_counter()
                network(blank.contiguous(memory_format=torch.channels_last))
                taken = time.perf_counter() - started
        return taken / len(blank)

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
    ) -> HspFineTuner:
        """A `HspFineTuner`; on blanks it is only good for measuring speed."""
        crops = self.recipe.crops.model_copy(update={"side": self.side})
        recipe = self.recipe.model_copy(update={"crops": crops})
        if data is None:
            blank = np.full((self.side, self.side, 3), 128, np.uint8)
            n = max(len(targets), recipe.batch)
            regions = [Region(blank, np.ones((self.side, self.side), np.uint8))] * n
            places = CropList(np.zeros((n, 3), np.int64), np.ones(n, np.int64))
            data = CellData("", Path(), (), self.info.classes, None, "", "")
        else:
            regions = self.regions(data.records, data)
            places = list_crops(regions, crops, recipe.data.layout == "project")
        return HspFineTuner(
            recipe, data, regions, places, device=device, say=say, should_stop=should_stop,
            log=log, parent=network, parent_classes=len(self.info.classes), shipped=shipped,
        )  # fmt: skip

    def calibrate(
        self, data: CellData, targets: NDArray[Any], rows: Rows, given: Any
    ) -> tuple[Calibration | None, str]:
        """One temperature for all classes, on pixels drawn from the validation regions."""
        del targets
        probabilities, truth, region = given.pixels
        where = [data.records[int(rows[int(i)])].group for i in region]
        return fit_class_calibration(
            truth, probabilities, where, f"the validation part of {data.name}", unit=UNIT
        )

    def frozen(self, records: Sequence[CellRecord], targets: NDArray[Any]) -> Frozen:
        """Regions, of which every labelled pixel counts."""
        return FrozenRegions(records, targets, self.info.classes)


def _tiles(record: CellRecord, side: int, stride: int) -> int:
    """Tiles of a region and its surroundings."""
    assert isinstance(record, RegionRecord)  # HSP-Net's readers make no others  # noqa: S101
    top, left, bottom, right = record.window
    return len(tile_starts(bottom - top, side, stride)) * len(
        tile_starts(right - left, side, stride)
    )


@dataclass
class HspFineTuning(FineTuning):
    """The parts of a run where a region's places, not regions, are learnt from."""

    @property
    def _source(self) -> RegionSource:
        assert isinstance(self.cache, RegionSource)  # HspKit.features made it  # noqa: S101
        return self.cache

    def _examples(self, rows: Rows, looked_at: str, what: str) -> Examples:
        del looked_at
        self._source.on_progress = lambda done, of: self.log.write(f"{what} cells", done, of)
        drawn = self._source.drawn(self.sides.records(rows))
        return Examples(drawn.features[:, None], drawn.targets)

    def _train_head(self) -> tuple[Any, dict[str, Any]]:
        kit, validation = self.kit, self.sides.validation
        trainer = HeadTrainer(
            self.recipe, self.network.head[-1], len(self.info.classes),
            self._examples(self.sides.train, kit.learning_views, "training"),
            self._examples(validation, kit.choosing_views, "validation")
            if len(validation) else None,
            self.shipped, self.out / "trials", self.device, self.say, self.should_stop, self.log,
        )  # fmt: skip
        if self.shipped is None:
            self.say("the parent carries no features of its training regions: nothing is replayed")
        last, learnt = trainer.run(self.resume)
        child = copy.deepcopy(self.network)
        child.head[-1] = last
        # As it will be stored, so that the report is of the very numbers in the file.
        stored = read_tensors(self.entry.folder)
        kinds = {k: torch.from_numpy(np.array(v)).dtype for k, v in stored.items()}
        rounded = {k: v.to(kinds[k]).to(v.dtype) for k, v in child.state_dict().items()}
        child.load_state_dict(rounded)
        return child.eval(), learnt

    def _train_all(self) -> tuple[Any, dict[str, Any]]:
        """Every layer, after the end alone: a class the parent never called needs many steps."""
        taught, learnt = self._train_head()
        parent, self.network = self.network, taught
        try:
            child, more = super()._train_all()
        finally:
            self.network = parent
        return child, {"head": learnt, **more}

    def _scores(self, network: Any, rows: Rows, looked_at: str, what: str) -> Any:
        """What a network makes of each region."""
        if len(rows) == 0:
            return empty_scores(len(self.info.classes))
        return self.kit.scores(
            network, self.cache, self.sides.records(rows), looked_at, self.should_stop,
            lambda done, of: self.log.write(f"{what} cells", done, of),
        )  # fmt: skip

    def _features(self, child: Any, head_only: bool) -> dict[str, NDArray[Any]]:
        """What the child carries: its new places and, where the trunk is the same, the parent's."""
        source = self._source if head_only else self.kit.features(child, None, self.should_stop)
        assert isinstance(source, RegionSource)  # HspKit.features made it  # noqa: S101
        rows = self.sides.train
        own = shipped_pixels(source.drawn(self.sides.records(rows)), self.sides.groups(rows))
        return own if self.shipped is None or not head_only else merged_features(self.shipped, own)
