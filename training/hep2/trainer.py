"""Fitting one HEp-2 network, or several that vote, to rows of labelled cells."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn
from torch.nn import functional as F

from napari_cellpath.core.errors import RecipeError
from napari_cellpath.systems import catalogue
from napari_cellpath.systems.hep2.cells import CellInput
from napari_cellpath.systems.hep2.network import Hep2Network
from training.checkpoint import write_whole
from training.datasets import CellData
from training.fit import Fit, Metrics
from training.hep2.augment import random_views, turn_each
from training.hep2.data import Hep2Cells
from training.hep2.recipe import Hep2Network as NetworkSettings
from training.hep2.recipe import Hep2Recipe
from training.hep2.sampling import copies_of_cells, thin_out
from training.trainer import HUGE_LOSS, Learner, Rows, Trainer, class_weights, epoch_batches, packed

_TURNS = 8


def input_of(recipe: Hep2Recipe) -> CellInput:
    """How the network of a recipe wants its cells, and how it will be measured."""
    wants = recipe.network
    return CellInput(wants.size, wants.contrast, wants.framing, recipe.evaluation)


def build(settings: NetworkSettings, n_classes: int, members: int = 1) -> Hep2Network:
    """The network of a recipe with its initial weights, in float32.

    Raises
    ------
    RecipeError
        An argument that the architecture does not know.
    """
    arguments: dict[str, Any] = dict(settings.arguments)
    if settings.init == "paper":
        warnings.warn(
            "init 'paper' (a deviation of 0.001) cannot train a network this deep: its loss stays "
            "at that of guessing. Use 'he'.",
            stacklevel=3,
        )
        arguments["init"] = "paper"
    try:
        network: Hep2Network = catalogue.build(
            settings.architecture, n_classes=n_classes, members=members, **arguments
        )
    except TypeError as error:
        raise RecipeError(f"network.arguments of {settings.architecture}: {error}.") from None
    return network


def blank_cells(n: int, n_classes: int, size: int) -> Hep2Cells:
    """Cells of nothing, for measuring speed without reading images."""
    return Hep2Cells(torch.zeros(n, 1, size, size), torch.arange(n) % n_classes)


class Learning(Learner):
    """A network while it learns.

    With ``still`` its batch normalisation keeps the statistics it has: those of a few corrected
    cells would be worse.
    """

    def __init__(self, network: Hep2Network, still: bool = False) -> None:
        super().__init__()
        self.network = network
        self.still = still

    def train(self, mode: bool = True) -> Learning:
        """Switch to training, or back."""
        super().train(mode)
        for layer in self.modules() if self.still else ():
            if isinstance(layer, nn.BatchNorm2d):
                layer.eval()
        return self

    def forward(self, cells: Tensor) -> Tensor:
        """Logits (n, n_classes) of cells (n, 1, S, S)."""
        logits: Tensor = self.network(cells)
        return logits


@dataclass
class Hep2Trainer(Trainer[Hep2Recipe]):
    """A `Trainer` of HEp-2; ``data`` and ``cells`` are the records and their pictures."""

    data: CellData
    cells: Hep2Cells
    fewer: dict[str, int] = field(default_factory=dict, init=False)
    """Specimens that had fewer cells than ``sampling.per_specimen``, and how many."""

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Of one cell: channels, height, width."""
        return 1, *self.cells.pictures.shape[2:]

    @property
    def n_classes(self) -> int:
        """Outputs of the network."""
        return len(self.data.fine_classes)

    def start(self, _rows: Rows, seed: int) -> Learner:
        """Build the network with its initial weights, seeded."""
        torch.manual_seed(seed)
        self.origin = f"random weights ({self.recipe.network.init})"
        network = build(self.recipe.network, self.n_classes)
        return Learning(network).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def batches(self, rows: Rows, epoch: int, seed: int) -> Sequence[Tensor]:
        """One epoch's rows, each with its turn: row * 8 + turn."""
        copies = copies_of_cells(self.recipe, self.data)
        kept, self.fewer = thin_out(self.recipe, self.data, rows)
        entries = np.concatenate([kept[copies[kept] > i] * _TURNS + i for i in range(_TURNS)])
        once = np.ones(int(entries.max()) + 1, dtype=np.int64)
        return epoch_batches(np.sort(entries), once, self.recipe.batch, epoch, seed)

    def make_loss(
        self, rows: Rows, generator: torch.Generator, device: torch.device
    ) -> Callable[[nn.Module, Tensor], Tensor]:
        """Cross-entropy of the patterns on random views."""
        r, cells = self.recipe, self.cells
        kept, _ = thin_out(r, self.data, rows)
        copies = torch.from_numpy(copies_of_cells(r, self.data)[kept])
        seen = cells.targets[kept].repeat_interleave(copies)
        weights = class_weights(seen, self.n_classes, r.balance).to(device)

        def loss(module: nn.Module, batch: Tensor) -> Tensor:
            here, turns = batch // _TURNS, batch % _TURNS
            pictures = turn_each(cells.pictures[here], turns).to(device)
            views = random_views(pictures, r.augmentation, generator)
            views = views.contiguous(memory_format=torch.channels_last)
            logits: Tensor = module(views)
            total = F.cross_entropy(
                logits, cells.targets[here].to(device), weight=weights,
                label_smoothing=r.label_smoothing,
            )  # fmt: skip
            return total + self.further_loss(module, views, logits, generator)

        return loss

    def validation_loss(self, rows: Rows) -> Callable[[nn.Module], Metrics]:
        """Cross-entropy of ``rows`` as they are, for keeping the best epoch."""

        def validate(module: nn.Module) -> Metrics:
            device = next(module.parameters()).device
            total = 0.0
            with torch.inference_mode():
                for some in torch.from_numpy(rows).split(256):
                    wanted = self.cells.targets[some].to(device)
                    given = module(self.cells.pictures[some].to(device))
                    total += float(F.cross_entropy(given, wanted, reduction="sum"))
            return {"validation_loss": min(total / len(rows), HUGE_LOSS)}

        return validate

    def fit_members(
        self,
        rows: Rows,
        seed: int,
        name: str,
        checkpoints: Path,
        *,
        resume: bool = False,
        epochs: int = 0,
    ) -> tuple[Hep2Network, Fit]:
        """Train, and join the networks of the last epochs into one that votes (papers.md 4.5).

        Where there are fewer epochs than members, those there are vote, with a warning.
        """
        asked, last = self.recipe.network.members, epochs or self.recipe.epochs
        members = min(asked, last)
        if members < asked:
            warnings.warn(
                f"{asked} epochs were to vote, but there are only {members}; these vote.",
                stacklevel=2,
            )
        if members == 1:
            return self.fit(rows, seed, name, checkpoints, resume=resume, epochs=epochs)

        def keep(module: Learner, epoch: int) -> None:
            if epoch > last - members:
                checkpoints.mkdir(parents=True, exist_ok=True)
                write_whole(checkpoints / f"epoch-{epoch}.safetensors", packed(module.network))

        _, fit = self.fit(
            rows, seed, name, checkpoints, resume=resume, epochs=epochs, each_epoch=keep
        )
        files = [
            checkpoints / f"epoch-{n}.safetensors" for n in range(last - members + 1, last + 1)
        ]
        return self._joined([load_safetensors(f.read_bytes()) for f in files]), fit

    def _joined(self, states: list[dict[str, Tensor]]) -> Hep2Network:
        """Several networks as the members of one."""
        settings = self.recipe.network.model_copy(update={"init": "he"})
        network = build(settings, self.n_classes, len(states))
        whole: dict[str, Tensor] = {}
        for number, state in enumerate(states):
            for key, value in state.items():
                moved = key.replace("trunk.members.0.", f"trunk.members.{number}.")
                moved = moved.replace("head.classifiers.0.", f"head.classifiers.{number}.")
                whole[moved] = value
        network.load_state_dict(whole)
        return network.eval()
