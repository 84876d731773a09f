"""Fitting one DeepPap network to rows of labelled cells; the run round it is `deeppap_run`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn
from torch.nn import functional as F

from napari_cellpath.core.errors import RecipeError
from napari_cellpath.systems.deeppap.network import DeepPapNetwork
from napari_cellpath.systems.deeppap.views import VIEW
from training.augment import random_crops, random_views
from training.cells import Cells
from training.checkpoint import write_whole
from training.datasets import CellData
from training.deeppap_network import TrainingNetwork, class_weights
from training.fit import Fit, Metrics, StopCheck, cosine_factor, make_fabric, step_factor
from training.initial import build_network
from training.progress import ProgressLog
from training.recipe import Recipe

Rows = NDArray[np.intp]
HUGE_LOSS = 1e4


def views_of_cells(recipe: Recipe, data: CellData) -> NDArray[np.int64]:
    """How often each cell, (n,), is seen in an epoch.

    Raises
    ------
    RecipeError
        ``more_views`` names a class that the data do not have.
    """
    views = np.where(data.abnormal, recipe.views_per_epoch[1], recipe.views_per_epoch[0])
    names = [c.name for c in data.fine_classes]
    for name, times in recipe.more_views.items():
        if name not in names:
            raise RecipeError(f"more_views: there is no class '{name}'; known: {', '.join(names)}.")
        views = np.where(data.labels == names.index(name), views * times, views)
    return views.astype(np.int64)


def epoch_batches(
    rows: Rows, views: NDArray[np.int64], batch: int, epoch: int, seed: int
) -> list[Tensor]:
    """Shuffle one epoch's rows into batches; depends on the seed and the epoch alone.

    ``views`` says of every cell how often it is seen (see `views_of_cells`).

    A last batch less than half full is left out (unless it is the only one): its gradient is
    mostly noise.
    """
    repeated = np.repeat(rows, views[rows])
    np.random.default_rng([seed, epoch]).shuffle(repeated)
    batches = list(torch.from_numpy(repeated.astype(np.int64)).split(batch))
    if len(batches) > 1 and len(batches[-1]) * 2 < batch:
        batches.pop()
    return batches


@dataclass
class Trainer:
    """Fits one network after the other on rows of the same cells.

    Parameters
    ----------
    recipe, data, cells
        What was asked, the records, and their pixels.
    device, precision
        For Lightning Fabric.
    say
        Takes one line of text an epoch.
    should_stop
        Asked before every step.
    log
        Takes a line an epoch too, for whoever watches the run.
    """

    recipe: Recipe
    data: CellData
    cells: Cells
    device: str = "auto"
    precision: str = "32-true"
    say: Callable[[str], None] = print
    should_stop: StopCheck | None = None
    log: ProgressLog = field(default_factory=ProgressLog)
    origin: str = field(default="", init=False)
    seconds_per_epoch: list[float] = field(default_factory=list, init=False)

    @property
    def n_classes(self) -> int:
        """Outputs of the network."""
        return self.recipe.data.classes

    def further_loss(
        self, _module: TrainingNetwork, _crops: Tensor, _logits: Tensor, _rng: torch.Generator
    ) -> Tensor | float:
        """What else counts beside the labels; fine-tuning adds staying near the parent."""
        return 0.0

    def start(self, rows: Rows, seed: int) -> TrainingNetwork:
        """Build the network with its initial weights, seeded."""
        torch.manual_seed(seed)
        network, self.origin = build_network(self.recipe.network, self.n_classes)
        for layer in list(network.trunk.children())[: self.recipe.network.frozen_layers]:
            layer.requires_grad_(False)
        if self.recipe.network.mean_image:
            network.mean.copy_(self._mean_image(rows, seed))
        fine = self.cells.n_fine if self._weight_of_classes() > 0 else 0
        features = self.cells.features.shape[1] if self.recipe.auxiliary.features > 0 else 0
        maps = 2 if self.cells.has_masks and self.recipe.auxiliary.masks > 0 else 0
        whole = TrainingNetwork(network, fine, features, maps, self.recipe.augmentation.mix_style)
        return whole.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]

    def _weight_of_classes(self) -> float:
        same = self.recipe.data.classes != 2 or self.cells.n_fine <= 2
        return 0.0 if same else self.recipe.auxiliary.classes

    def _mean_image(self, rows: Rows, seed: int) -> Tensor:
        """Mean of one augmented view of every training cell (papers.md 1.2)."""
        generator = torch.Generator().manual_seed(seed)
        total = torch.zeros(3, VIEW, VIEW)
        for some in torch.from_numpy(rows).split(64):
            total += self._views(some, generator, torch.device("cpu"))[:, :3].sum(dim=0)
        return total / len(rows)

    def _views(self, batch: Tensor, generator: torch.Generator, device: torch.device) -> Tensor:
        return random_views(
            self.cells.windows[batch].to(device),
            self.cells.backgrounds[batch].to(device),
            self.recipe.augmentation,
            generator,
        )

    def optimiser(self, module: TrainingNetwork) -> torch.optim.Optimizer:
        """Two learning rates: what was transferred, and what starts from nothing."""
        trunk = [p for p in module.network.trunk.parameters() if p.requires_grad]
        of_trunk = {id(p) for p in module.network.trunk.parameters()}
        head = [p for p in module.parameters() if id(p) not in of_trunk]
        o = self.recipe.optimiser
        groups = [{"params": trunk, "lr": o.lr_trunk}, {"params": head, "lr": o.lr_head}]
        if o.name == "sgd":
            return torch.optim.SGD(groups, momentum=o.momentum, weight_decay=o.weight_decay)
        return torch.optim.AdamW(groups, weight_decay=o.weight_decay)

    def factor(self, steps_per_epoch: int, epochs: int) -> Callable[[int], float]:
        """How the learning rates change over the steps."""
        s = self.recipe.schedule
        if s.kind == "step":
            return step_factor(steps_per_epoch, s.step_epochs, s.step_factor)
        return cosine_factor(
            epochs * steps_per_epoch, round(s.warmup_epochs * steps_per_epoch), s.floor
        )

    def fit(
        self,
        rows: Rows,
        seed: int,
        name: str,
        checkpoints: Path | None,
        *,
        resume: bool = False,
        validate: Callable[[nn.Module], Metrics] | None = None,
        epochs: int = 0,
        start_from: dict[str, Tensor] | None = None,
    ) -> tuple[DeepPapNetwork, Fit]:
        """Train one network on ``rows``; return it in evaluation mode, and the finished fit.

        ``epochs`` 0 takes the recipe's; ``start_from`` is a state of the whole training
        network, instead of the recipe's initial weights.

        Raises
        ------
        JobCancelledError
            Stopped; ``checkpoints`` holds where to go on.
        """
        module = self.start(rows, seed)
        if start_from is not None:
            module.load_state_dict(start_from)
        epochs = epochs or self.recipe.epochs
        fabric = make_fabric(self.device, self.precision)
        generator = torch.Generator().manual_seed(seed)
        views = views_of_cells(self.recipe, self.data)

        def batches(epoch: int) -> Sequence[Tensor]:
            return epoch_batches(rows, views, self.recipe.batch, epoch, seed)

        def on_epoch(metrics: Metrics) -> None:
            self.seconds_per_epoch.append(metrics["seconds"])
            extra = "".join(
                f", {k} {v:.4f}" for k, v in metrics.items() if k.startswith("validation")
            )
            self.say(
                f"{name}: epoch {metrics['epoch'] + 1} of {epochs}, "
                f"loss {metrics['loss']:.4f}{extra}, {metrics['seconds']:.0f} s"
            )
            validation = {k: v for k, v in metrics.items() if k.startswith("validation")}
            self.log.write(name, metrics["epoch"] + 1, epochs, metrics["loss"], validation)

        run = Fit(
            fabric=fabric,
            module=module,
            optimizer=self.optimiser(module),
            factor=self.factor(len(batches(0)), epochs),
            batches=batches,
            loss=self.make_loss(rows, generator, fabric.device),
            epochs=epochs,
            validate=validate,
            checkpoints=checkpoints,
            generators={"views": generator},
            ema=self.recipe.optimiser.ema,
            clip_norm=self.recipe.optimiser.clip_norm,
            on_epoch=on_epoch,
            should_stop=self.should_stop,
        )
        result = run.run(resume)
        assert isinstance(result, TrainingNetwork)  # what went in  # noqa: S101
        return result.network.eval(), run

    def fit_keeping_best(
        self,
        rows: Rows,
        held_back: Rows,
        seed: int,
        checkpoints: Path,
        *,
        resume: bool = False,
        start_from: dict[str, Tensor] | None = None,
    ) -> tuple[DeepPapNetwork, list[Metrics]]:
        """Train on ``rows``; return the weights of the epoch with the lowest validation loss.

        The paper's rule (papers.md 1.8), on cells held back for it, not on those reported.
        """
        best_file = checkpoints / "best.safetensors"
        measure = self.validation_loss(held_back)
        lowest = HUGE_LOSS
        if resume and (checkpoints / "best.json").is_file() and best_file.is_file():
            lowest = float(json.loads((checkpoints / "best.json").read_text())["loss"])

        def validate(module: nn.Module) -> Metrics:
            nonlocal lowest
            metrics = measure(module)
            if metrics["validation_loss"] <= lowest:
                lowest = metrics["validation_loss"]
                checkpoints.mkdir(parents=True, exist_ok=True)
                assert isinstance(module, TrainingNetwork)  # what went in  # noqa: S101
                state = {k: v.detach().cpu().contiguous()
                         for k, v in module.network.state_dict().items()}  # fmt: skip
                write_whole(best_file, save_safetensors(state))
                write_whole(checkpoints / "best.json", json.dumps({"loss": lowest}).encode())
            return metrics

        network, run = self.fit(
            rows,
            seed,
            "final",
            checkpoints,
            resume=resume,
            validate=validate,
            start_from=start_from,
        )
        network.load_state_dict(load_safetensors(best_file.read_bytes()))
        return network, run.history

    def make_loss(
        self, rows: Rows, generator: torch.Generator, device: torch.device
    ) -> Callable[[nn.Module, Tensor], Tensor]:
        """Cross-entropy of the classes, and the auxiliary losses; draws its own views."""
        r, cells = self.recipe, self.cells
        weights = class_weights(cells.targets[rows], self.n_classes, r.balance).to(device)
        weight_of_classes = self._weight_of_classes()

        def loss(module: nn.Module, batch: Tensor) -> Tensor:
            normalise: Any = module.get_submodule("network").normalise
            views = self._views(batch, generator, device)
            views = torch.cat([normalise(views[:, :3]), views[:, 3:]], dim=1)
            cut = random_crops(views, generator, at_random=r.augmentation.random_crop)
            crops = cut[:, :3].contiguous(memory_format=torch.channels_last)
            logits, fine, features, parts = module(crops)
            total = F.cross_entropy(
                logits, cells.targets[batch].to(device),
                weight=weights, label_smoothing=r.label_smoothing,
            )  # fmt: skip
            total = total + self.further_loss(module, crops, logits, generator)  # type: ignore[arg-type]
            if fine.shape[1]:
                total = total + weight_of_classes * F.cross_entropy(
                    fine, cells.fine[batch].to(device), label_smoothing=r.label_smoothing
                )
            if features.shape[1]:
                total = total + r.auxiliary.features * F.smooth_l1_loss(
                    features, cells.features[batch].to(device)
                )
            if parts is not None:
                wanted = F.adaptive_avg_pool2d(cut[:, 3:], (parts.shape[-2], parts.shape[-1]))
                total = total + r.auxiliary.masks * F.binary_cross_entropy_with_logits(
                    parts, wanted
                )
            return total

        return loss

    def validation_loss(self, rows: Rows) -> Callable[[nn.Module], Metrics]:
        """Cross-entropy of the upright centre crop of ``rows``, for keeping the best epoch."""

        def validate(module: nn.Module) -> Metrics:
            assert isinstance(module, TrainingNetwork)  # what went in  # noqa: S101
            network = module.network
            device = next(network.parameters()).device
            calm = self.recipe.augmentation.model_copy(
                update={
                    "angles": 1,
                    "max_shift": 0.0,
                    "scale": 0.0,
                    "stain": 0.0,
                    "colour": 0.0,
                    "blur": 0.0,
                }
            )
            generator = torch.Generator().manual_seed(0)
            total = 0.0
            with torch.inference_mode():
                for some in torch.from_numpy(rows).split(64):
                    views = random_views(
                        self.cells.windows[some].to(device),
                        self.cells.backgrounds[some].to(device), calm, generator,
                    )  # fmt: skip
                    crops = random_crops(
                        network.normalise(views[:, :3]), generator, at_random=False
                    )
                    wanted = self.cells.targets[some].to(device)
                    total += float(F.cross_entropy(network(crops), wanted, reduction="sum"))
            return {"validation_loss": min(total / len(rows), HUGE_LOSS)}

        return validate


def mean_state(states: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Mean of several states of one network, tensor by tensor."""
    return {k: torch.stack([s[k].float() for s in states]).mean(dim=0) for k in states[0]}


def network_arrays(network: DeepPapNetwork, half: bool) -> dict[str, NDArray[Any]]:
    """Weights as NumPy arrays, in float16 if ``half``."""
    kind = torch.float16 if half else torch.float32
    return {k: v.detach().to("cpu", kind).contiguous().numpy()
            for k, v in network.state_dict().items()}  # fmt: skip
