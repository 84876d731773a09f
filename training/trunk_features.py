"""What a network's head sees of a cell, computed once: training a head alone takes seconds.

A SqueezeNet head is a 1 x 1 convolution followed by the mean over places. Both are linear and
change places, so the mean over places of the trunk's maps, 512 numbers, is all its head needs.
Heads of fully connected layers see the flattened maps.

A model folder can carry such features of its training cells (`shipped_features`), so that
fine-tuning elsewhere does not forget what it was trained on.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from napari_cellpath.core.errors import JobCancelledError, OutputError
from napari_cellpath.models.format import MAX_FEATURES_BYTES, STANDS_FOR
from napari_cellpath.systems.deeppap.network import DeepPapNetwork
from training.checkpoint import write_whole
from training.datasets import CellRecord
from training.fit import StopCheck
from training.provenance import image_hash
from training.scoring import ScoredViews, crops_of_cell

Features = NDArray[np.float32]
_SHARE = 0.98
"""Of the bytes a folder may carry; the rest is the file's header."""


def pools(head: nn.Module) -> bool:
    """Whether a head ends with the mean over places, so that it can be taken first."""
    return any(isinstance(layer, nn.AdaptiveAvgPool2d) for layer in head.modules())


def head_input(network: nn.Module, inputs: Tensor) -> Tensor:
    """What the head needs of network inputs (n, channels, height, width), as (n, d)."""
    maps: Tensor = network.get_submodule("trunk")(inputs)
    return maps.mean(dim=(2, 3)) if pools(network.get_submodule("head")) else maps.flatten(1)


def through_head(head: nn.Module, features: Tensor) -> Tensor:
    """Logits (n, n_classes) of features (n, d) as `head_input` gives them.

    A head of 1x1 convolutions is one of single places.
    """
    of_places = any(isinstance(layer, nn.Conv2d) for layer in head.modules())  # bare or wrapped
    logits: Tensor = head(features[:, :, None, None] if of_places or pools(head) else features)
    return logits.flatten(1)


def probabilities(head: nn.Module, features: Features) -> NDArray[np.float64]:
    """Mean class probabilities of cells, (n, n_classes), from features (n, views, d).

    Those of `training.scoring.score_cells` with the same views, but for rounding.
    """
    n, views = features.shape[:2]
    device = next(head.parameters()).device
    with torch.inference_mode():
        flat = torch.from_numpy(features.reshape(n * views, -1)).to(device)
        out = through_head(head.eval(), flat).double().softmax(dim=1)
    return np.asarray(out.reshape(n, views, -1).mean(dim=1).cpu().numpy())


def trunk_hash(network: nn.Module) -> str:
    """SHA-256 over the trunk's weights and the normalisation: what features depend on."""
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        if not name.startswith("head."):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@dataclass
class FeatureFiles:
    """Features by name, as one ``.npy`` file each; without a folder they are kept in memory alone.

    A name is of everything features depend on, so that a folder is never wrong.
    """

    folder: Path | None = None
    _here: dict[str, Features] = field(default_factory=dict, init=False)

    def name(self, what: str, image: Path) -> str:
        """Name of the features of an image, told by content, that ``what`` describes."""
        return hashlib.sha256(f"{image_hash(image)} {what}".encode()).hexdigest()[:32]

    def get(self, name: str) -> Features | None:
        """The features, or None."""
        if self.folder is None:
            return self._here.get(name)
        path = self.folder / f"{name}.npy"
        return np.asarray(np.load(path, allow_pickle=False)) if path.is_file() else None

    def put(self, name: str, features: Features) -> None:
        """Keep features."""
        if self.folder is None:
            self._here[name] = features
        else:
            _write_array(self.folder / f"{name}.npy", features)


@dataclass
class FeatureCache:
    """Features of cells, kept as one ``.npy`` file a cell.

    Parameters
    ----------
    network
        In evaluation mode, on its device.
    folder
        Of the files; None keeps none.
    should_stop
        Asked before every batch of a cell.
    on_progress
        Called after every cell with the number done and the number of all.
    """

    network: DeepPapNetwork
    folder: Path | None = None
    should_stop: StopCheck | None = None
    on_progress: Callable[[int, int], None] | None = None

    def __post_init__(self) -> None:
        self.trunk = trunk_hash(self.network)
        self.files = FeatureFiles(self.folder)

    def of(self, records: Sequence[CellRecord], looked_at: ScoredViews = "rotations") -> Features:
        """Features (n, views, d) of cells; those in the folder are not computed again.

        Raises
        ------
        JobCancelledError
            ``should_stop`` said so; what was computed is kept.
        """
        found = []
        for record in records:
            found.append(self._of_one(record, looked_at))
            if self.on_progress is not None:
                self.on_progress(len(found), len(records))
        return np.stack(found)

    def _of_one(self, record: CellRecord, looked_at: ScoredViews) -> Features:
        name = self.files.name(
            f"{self.trunk} {record.row} {record.col} {record.half} {looked_at}", record.image
        )
        if (kept := self.files.get(name)) is not None:
            return kept
        pieces = []
        with torch.inference_mode():
            for crops in crops_of_cell(self.network, record, looked_at):
                if self.should_stop is not None and self.should_stop():
                    raise JobCancelledError("The run was cancelled; finished features were kept.")
                pieces.append(head_input(self.network, crops).float().cpu().numpy())
        features = np.concatenate(pieces)
        self.files.put(name, features)
        return features


def _write_array(path: Path, values: Features) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path.parent} cannot be made ({error.strerror}).") from None
    content = io.BytesIO()
    np.save(content, values)
    write_whole(path, content.getvalue())


def choose_views(
    fine: Sequence[int], groups: Sequence[str], views: int, room: int
) -> list[tuple[int, int]]:
    """Which views of which cells fit into a room, even over classes, then over groups.

    Every class has its turn; within it every group; within that every cell, each time with its
    next view. So the first rows already stand for all, wherever the room ends.

    Parameters
    ----------
    fine, groups
        Class and group of each cell.
    views
        Views there are of each cell.
    room
        How many are chosen at most.

    Returns
    -------
    list
        (cell, view), in the order in which they were chosen.
    """
    queues: dict[int, list[tuple[int, int]]] = {}
    for name in sorted(set(fine)):
        members = [i for i, f in enumerate(fine) if f == name]
        turn_in_group: dict[str, int] = {}
        order = []
        for i in members:
            turn = turn_in_group.get(groups[i], 0)
            turn_in_group[groups[i]] = turn + 1
            order += [((turn + view * len(members), groups[i]), (i, view)) for view in range(views)]
        queues[name] = [place for _, place in sorted(order)]
    chosen: list[tuple[int, int]] = []
    longest = max(len(queue) for queue in queues.values())
    for turn in range(longest):
        chosen += [queue[turn] for queue in queues.values() if turn < len(queue)]
    return chosen[:room]


def shipped_features(
    features: Features, targets: Sequence[int], fine: Sequence[int], groups: Sequence[str]
) -> dict[str, NDArray[Any]]:
    """Arrays of ``features.safetensors`` from features (n, views, d) of the training cells.

    Groups become numbers: the file says which rows belong together, not of whom they are.
    """
    chosen = choose_views(fine, groups, features.shape[1], room_for(features.shape[2]))
    cells = np.array([cell for cell, _ in chosen])
    group_of = np.unique(np.asarray(groups, dtype=str), return_inverse=True)[1]
    return {
        "features": np.stack([features[cell, view] for cell, view in chosen]).astype(np.float16),
        "targets": np.asarray(targets)[cells].astype(np.int16),
        "fine": np.asarray(fine)[cells].astype(np.int16),
        "groups": group_of[cells].astype(np.int32),
    }


def merged_features(
    parent: dict[str, NDArray[Any]], own: dict[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """Features of a parent's cells and of a child's new ones, as many of either as fit.

    The child's classes and groups are counted on after the parent's, so that its cells keep a
    turn of their own when features are drawn evenly.
    """
    moved = dict(own)
    for key in ("fine", "groups"):
        moved[key] = own[key] + int(parent[key].max()) + 1
    # An older parent knows less of its cells than its child does.
    both = {key: np.concatenate([parent[key], moved[key]]) for key in parent if key in moved}
    a_row = sum(values[0].nbytes for values in both.values())
    rows = np.array(
        [
            cell for cell, _ in choose_views(
                both["fine"].tolist(), [f"{g:06d}" for g in both["groups"]], 1,
                int(_SHARE * MAX_FEATURES_BYTES) // a_row,
            )
        ]
    )  # fmt: skip
    left = {key: values[rows] for key, values in both.items()}
    if STANDS_FOR in both:  # those that stay stand for those that do not
        before = np.bincount(both["fine"], both[STANDS_FOR])
        after = np.bincount(left["fine"], left[STANDS_FOR])
        grown = before[left["fine"]] / after[left["fine"]]
        left[STANDS_FOR] = (left[STANDS_FOR] * grown).astype(np.float32)
    return left


def room_for(d: int, further: int = 2) -> int:
    """Rows of ``d`` numbers that a model folder may carry.

    Each has ``further`` bytes beside its features, its fine class and its group.
    """
    return int(_SHARE * MAX_FEATURES_BYTES) // (2 * d + further + 2 + 4)
