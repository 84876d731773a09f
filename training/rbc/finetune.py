"""RBC's part of a fine-tuning run: heads, or trunk and heads; booster; perhaps detector."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from napari_cellpath.models import Calibration, read_tensors
from napari_cellpath.models.format import FEATURES, OUT_OF_FOLD
from napari_cellpath.systems.loading import load_network
from napari_cellpath.systems.rbc.boxes import RegionInput
from napari_cellpath.systems.rbc.verdict import PREFIX, Booster
from training.calibration import fit_calibration
from training.datasets import CellData, CellRecord
from training.finetune_full import NearParent
from training.finetune_kit import FineTuneKit, Probabilities, Progress, Taught
from training.fit import StopCheck
from training.objective import Objective
from training.progress import ProgressLog
from training.rbc.data import read_cells
from training.rbc.features import shipped_regions
from training.rbc.measured import Judge
from training.rbc.objective import SeveralLabels
from training.rbc.patches import RbcPatches, cut_patches
from training.rbc.project import read_project
from training.rbc.reboost import Heads, Settled, reboost
from training.rbc.recipe import RbcRecipe
from training.rbc.redetect import retrained_detector
from training.rbc.regions import UNKNOWN
from training.rbc.report import FrozenRegions
from training.rbc.scoring import mean_features, score_patches
from training.rbc.table import RedCells, RegionRecord, targets_for
from training.rbc.trainer import Learning, PatchNetwork, RbcTrainer
from training.trainer import Learner, Rows
from training.trunk_features import FeatureFiles, trunk_hash

HEADS, HEAD = "heads.", "head."
"""What a folder calls the heads' weights, and what fine-tuning does."""


@dataclass
class RbcFineTuner(NearParent[RbcRecipe], RbcTrainer):
    """An RBC trainer that starts from a parent and stays near it."""

    def start(self, _rows: Rows, seed: int) -> Learner:
        """Copy the parent, seeded."""
        whole = Learning(self.copied(seed))
        return whole.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


@dataclass
class RegionFeatures:
    """What the heads see of boxes, kept by image, box and trunk where there is a folder."""

    network: PatchNetwork
    wanted: RegionInput
    files: FeatureFiles
    should_stop: StopCheck | None = None
    on_progress: Progress | None = None
    trunk: str = field(default="", init=False)

    def __post_init__(self) -> None:
        self.trunk = trunk_hash(self.network)

    def of(self, records: Sequence[CellRecord], looked_at: Any) -> NDArray[np.float32]:
        """Features (n, 1, d); only boxes not yet in the folder are cut and computed."""
        look = f"{self.trunk} {sorted(self.wanted.facts().items())} {looked_at}"
        names = [self.files.name(f"{look} {r.box}", r.image) for r in records]
        missing = [i for i, name in enumerate(names) if self.files.get(name) is None]
        if missing:
            found = mean_features(
                self.network, cut_patches([records[i] for i in missing], self.wanted),
                self.wanted.average,
                should_stop=self.should_stop, on_progress=self.on_progress,
            )  # fmt: skip
            for place, features in zip(missing, found, strict=True):
                self.files.put(names[place], features)
        kept = [self.files.get(name) for name in names]
        return np.stack([k for k in kept if k is not None])


@dataclass
class RbcKit(FineTuneKit):
    """See `FineTuneKit`."""

    unit: ClassVar[str] = "slides"
    learning_views: ClassVar[str] = "as the model looks"
    objective: ClassVar[Objective] = SeveralLabels()
    settles: ClassVar[bool] = True
    _folder: Path = field(default=Path(), init=False)
    _out: Path = field(default=Path(), init=False)
    _booster: Booster | None = field(default=None, init=False)
    _judges: dict[bool, Judge] = field(default_factory=dict, init=False)
    _detector: nn.Module | None = field(default=None, init=False)
    _heads: nn.Module | None = field(default=None, init=False)
    _settled: Settled | None = field(default=None, init=False)
    _should_stop: StopCheck | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.wanted = RegionInput.of(self.info.input, self.info.name)
        self.recipe = self.recipe.model_copy(update={"evaluation": self.wanted.average})

    @property
    def settling_fits(self) -> int:
        """One a fold of the booster."""
        return int(self.recipe.booster.folds)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Of one patch."""
        return 3, self.wanted.patch, self.wanted.patch

    def inputs(self, looked_at: str) -> int:
        """Network inputs of one box: the model looks as it always does."""
        del looked_at
        return self.wanted.average.ways

    def examples(self) -> int:
        """The heads learn from the mean over the ways round."""
        return 1

    def read(self) -> CellData:
        """A project, or the fully labelled boxes of a folder."""
        if self.recipe.data.layout == "project":
            return read_project(self.recipe.data.folder, self.info.classes)
        data = read_cells(self.recipe.data)
        known = np.flatnonzero(data.known & (data.verdicts != UNKNOWN))
        return replace(data, records=tuple(data.records[int(i)] for i in known))

    def targets(self, data: CellData) -> NDArray[np.int8]:
        """(n, n_types) of 1, 0 and -1 in the parent's types."""
        assert isinstance(data, RedCells)  # read() gives it  # noqa: S101
        return targets_for(data, self.info.classes)

    def no_targets(self, n: int) -> NDArray[np.int8]:
        """Of blank boxes: nothing is there."""
        return np.zeros((n, len(self.info.classes)), dtype=np.int8)

    def only_class(self, _data: CellData, targets: NDArray[Any], train: Rows) -> str:
        """The one set of types all boxes hold, or nothing."""
        found = np.unique(targets[train], axis=0)
        if len(found) > 1:
            return ""
        held = [c.name for c, t in zip(self.info.classes, found[0], strict=True) if t == 1]
        return " and ".join(held) or "none of the types"

    def one_class_will_do(self) -> bool:
        """Where the parent carries boxes to be learnt beside them."""
        return bool(self.recipe.finetune.replay > 0 and FEATURES in self.info.files)

    def kinds(
        self, _data: CellData, targets: NDArray[Any], rows: Rows, train: Rows
    ) -> dict[str, int]:
        """Boxes that hold each type that is to be learnt."""
        return {
            c.name: int((targets[rows, k] == 1).sum())
            for k, c in enumerate(self.info.classes)
            if (targets[train, k] == 1).any()
        } or {"none of the types": len(rows)}

    def load(self, folder: Path) -> PatchNetwork:
        """Trunk and heads of the parent; its detector and its booster are kept aside."""
        self._folder = Path(folder)
        cascade, info = load_network(folder)
        self._booster = Booster.of_tensors(read_tensors(folder), len(info.classes), str(folder))
        thresholds = info.input.get("thresholds", [0.5] * len(info.classes))
        judge = Judge(info.classes, thresholds, self._booster, info.threshold)
        self._judges = {False: judge, True: judge}
        self._detector = cascade.detector
        self._heads = copy.deepcopy(cascade.heads)
        return PatchNetwork(cascade.trunk, cascade.heads).eval()

    def tensors(self, folder: Path) -> dict[str, NDArray[Any]]:
        """Trunk and heads."""
        return {
            name.replace(HEADS, HEAD, 1) if name.startswith(HEADS) else name: values
            for name, values in read_tensors(folder).items()
            if name.startswith((HEADS, "trunk."))
        }

    def whole(self, arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Trunk and heads with the detector and the booster beside them."""
        found = {
            name.replace(HEAD, HEADS, 1) if name.startswith(HEAD) else name: values
            for name, values in arrays.items()
        }
        stored = read_tensors(self._folder)
        weights = {} if self._detector is None else self._detector.state_dict()
        for key, values in weights.items():
            name = f"detector.{key}"
            found[name] = values.detach().cpu().numpy().astype(stored[name].dtype)
        booster = self._judges[True].booster
        trees = {} if booster is None else booster.tensors()
        assert all(name.startswith(PREFIX) for name in trees)  # noqa: S101
        return found | trees

    def features(
        self, network: PatchNetwork, folder: Path | None, should_stop: StopCheck | None
    ) -> RegionFeatures:
        """Features; kept in memory or, where there is a folder, on disk."""
        self._should_stop = should_stop
        if folder is not None:
            self._out = folder.parent
        return RegionFeatures(network, self.wanted, FeatureFiles(folder), should_stop)

    def scores(
        self,
        network: PatchNetwork,
        source: Any,
        records: Sequence[CellRecord],
        looked_at: str,
        should_stop: StopCheck | None,
        on_progress: Progress,
    ) -> Probabilities:
        """Probabilities of the types; from features where the trunk is theirs."""
        if source.trunk == trunk_hash(network):
            source.on_progress = on_progress
            seen = torch.from_numpy(source.of(records, looked_at)[:, 0])
            with torch.inference_mode():
                device = next(network.parameters()).device
                logits = network.head(seen.to(device)).double().sigmoid().cpu()
            return np.asarray(logits.numpy())
        return score_patches(
            network, cut_patches(records, self.wanted), self.wanted.average,
            should_stop=should_stop, on_progress=on_progress,
        )  # fmt: skip

    def judged_again(self, network: nn.Module) -> bool:
        """Features are kept: only a trunk that learnt looks again."""
        del network
        return bool(self.recipe.finetune.method == "full")

    def views(self, data: CellData, rows: Rows) -> int:
        """Views of these boxes in one epoch."""
        del data
        return len(rows)

    def tuner(
        self,
        network: PatchNetwork,
        shipped: dict[str, NDArray[Any]] | None,
        data: CellData | None,
        targets: NDArray[Any],
        *,
        device: str,
        say: Callable[[str], None],
        should_stop: StopCheck | None,
        log: ProgressLog,
    ) -> RbcFineTuner:
        """An `RbcFineTuner`; on blanks it is only good for measuring speed."""
        if data is None:
            blank = torch.zeros(len(targets), *self.input_shape, dtype=torch.uint8)
            patches = RbcPatches(blank, torch.from_numpy(targets))
            data = RedCells("", Path(), (), self.info.classes, None, "", "")
        else:
            patches = RbcPatches(cut_patches(data.records, self.wanted), torch.from_numpy(targets))
        assert isinstance(data, RedCells)  # read() gives it  # noqa: S101
        return RbcFineTuner(
            self.recipe, data, patches, device=device, say=say, should_stop=should_stop, log=log,
            parent=network, parent_classes=len(self.info.classes), shipped=shipped,
            objective=self.objective,
        )  # fmt: skip

    def settle(self, child: PatchNetwork, taught: Taught) -> dict[str, Any]:
        """The booster, the thresholds, and, where it was asked for, the detector."""
        assert self._heads is not None  # load() set them  # noqa: S101
        heads = Heads(self._heads, child.head, self.objective, self._should_stop, taught.on_part)
        self._settled = reboost(
            heads, taught, self._judges[False], self.recipe, _verdicts(taught.data)
        )
        self._judges[True] = self._settled.judge
        told = dict(self._settled.chosen)
        if self.recipe.finetune.detector:
            self._detector, more = retrained_detector(
                self._detector, taught, self.recipe, self.info, self._out
            )
            told |= more
        return told

    def facts(self) -> dict[str, Any]:
        """The thresholds of the types."""
        thresholds = [float(t) for t in self._judges[True].thresholds]
        return {"input": dict(self.info.input) | {"thresholds": thresholds}}

    def judge(self, child: bool) -> Judge:
        """How the parent's or the child's probabilities are read."""
        return self._judges[child]

    def shipped(
        self, features: NDArray[np.float32], data: CellData, targets: NDArray[Any], rows: Rows
    ) -> dict[str, NDArray[Any]]:
        """Features of the new boxes and all their labels."""
        assert self._settled is not None  # settle() comes first  # noqa: S101
        where = [data.groups[int(i)] for i in rows]
        return shipped_regions(
            features, targets[rows], _verdicts(data)[rows], where, self._settled.of_new
        )

    def carried(self, shipped: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The parent's boxes, with what is said of them by now."""
        told = None if self._settled is None else self._settled.of_carried
        return shipped if told is None else shipped | {OUT_OF_FOLD: told.astype(np.float16)}

    def calibrate(
        self, data: CellData, targets: NDArray[Any], rows: Rows, given: Probabilities
    ) -> tuple[Calibration | None, str]:
        """Of *abnormal*, on the validation part."""
        del targets
        return fit_calibration(
            _verdicts(data)[rows] == 1, self._judges[True].abnormal(given),
            [data.groups[int(i)] for i in rows], f"the validation part of {data.name}",
        )  # fmt: skip

    def frozen(self, records: Sequence[CellRecord], targets: NDArray[Any]) -> FrozenRegions:
        """Boxes, their labels and their verdicts."""
        verdicts = [r.verdict for r in records if isinstance(r, RegionRecord)]
        return FrozenRegions(records, targets, self.info.classes, np.array(verdicts, np.int8))


def _verdicts(data: CellData) -> NDArray[np.int8]:
    assert isinstance(data, RedCells)  # read() gives it  # noqa: S101
    return data.verdicts
