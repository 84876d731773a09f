"""What the protocols of all systems share: a folder of their own, and folds trained once."""

from __future__ import annotations

import csv
import io
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

import torch

from napari_cellpath.core.errors import OutputError
from napari_cellpath.models import ModelInfo, save_model
from training.allocator import keep_freed_memory
from training.checkpoint import write_whole
from training.datasets import CellData
from training.recipe import CommonRecipe
from training.splits import Indices, SplitPlan
from training.trainer import R, Trainer, network_arrays

Say = Callable[[str], None]


def open_protocol(out: Path, record: dict[str, Any], recipe: CommonRecipe, resume: bool) -> None:
    """Make a protocol's folder, or check that what lies in it is this run; ready the process.

    Raises
    ------
    OutputError
        The folder holds another run, or a run that is not to be resumed, or cannot be made.
    """
    record = record | {"recipe": recipe.model_dump(mode="json")}
    path = out / "protocol.json"
    if path.is_file():
        if not resume:
            raise OutputError(f"{out} holds a run already; --resume goes on with it.")
        if json.loads(path.read_text()) != json.loads(json.dumps(record)):
            raise OutputError(f"{out} was begun with other settings. Choose another folder.")
    else:
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{out} cannot be made ({error.strerror}).") from None
        write_whole(path, json.dumps(record, indent=1).encode())
    keep_freed_memory()
    if recipe.threads:
        torch.set_num_threads(recipe.threads)


def csv_text(rows: Sequence[dict[str, Any]]) -> str:
    """Rows as the text of a CSV table."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


@dataclass
class Folds(ABC, Generic[R]):
    """The folds of one split, each trained, scored and kept.

    Parameters
    ----------
    recipe, cells, trainer
        What is trained on what.
    protocol
        Its name.
    mode
        ``cell``, ``group`` or ``specimen``: what is never on two sides.
    out
        Folder of these folds.
    say, resume
        As for `training.run`.
    """

    recipe: R
    cells: CellData
    trainer: Trainer[R]
    protocol: str
    mode: str
    out: Path
    say: Say
    resume: bool

    def fold(self, plan: SplitPlan, number: int) -> dict[str, Any]:
        """``rows`` of a fold and their scores; trained if that is not done yet."""
        path = self.out / f"fold-{number + 1}.json"
        if path.is_file():
            done: dict[str, Any] = json.loads(path.read_text())
            return done
        name = f"{self.mode}-wise fold {number + 1} of {len(plan.folds)}"
        learnt, rows = self.learnt_from(plan, number), plan.folds[number]
        network = self.train(learnt, name, self.out / f"checkpoints-{number + 1}")
        self._keep(network, learnt, number)
        done = {"rows": rows.tolist(), **self.scores(network, rows)}
        self.out.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(done).encode())
        self.say(f"{name}: {self.words(rows, done)} on {len(rows)} cells")
        return done

    def learnt_from(self, plan: SplitPlan, number: int) -> Indices:
        """Rows that a fold's network learns from."""
        return plan.training(number)

    def train(self, rows: Indices, name: str, checkpoints: Path) -> Any:
        """The network of one fold."""
        network, _ = self.trainer.fit(
            rows, self.recipe.seed, name, checkpoints, resume=self.resume,
            epochs=self.recipe.fold_epochs,
        )  # fmt: skip
        return network

    def _keep(self, network: Any, learnt: Indices, number: int) -> None:
        """Keep a fold's network as a model folder: its fold can be scored in other ways later."""
        folder = self.out / f"fold-{number + 1}-model"
        if folder.exists():
            return
        by_cell = self.mode == "cell"
        records = [self.cells.records[int(i)] for i in learnt]
        facts = self.model_facts(network)
        info = ModelInfo(
            name=f"{self.protocol}-{self.mode}-fold-{number + 1}",
            mpp=self.cells.mpp,
            data={
                "name": self.cells.name, "sha256": self.cells.sha256,
                "split_by": "cell" if by_cell else "group",
                "trained_on": sorted({r.image.name if by_cell else r.group for r in records}),
            },
            seed=self.recipe.seed,
            training={"recipe": self.recipe.model_dump(mode="json")},
            **facts,
        )  # fmt: skip
        card = f"# {info.name}\n\nOne fold of `cellpath reproduce {self.protocol}`.\n"
        save_model(folder, info, network_arrays(network, half=False), card)

    @abstractmethod
    def model_facts(self, network: Any) -> dict[str, Any]:
        """``system``, ``architecture``, ``arguments``, ``classes`` and so on of a fold's model."""

    @abstractmethod
    def scores(self, network: Any, rows: Indices) -> dict[str, Any]:
        """Scores of a fold's cells, ready for JSON."""

    @abstractmethod
    def words(self, rows: Indices, done: dict[str, Any]) -> str:
        """What to say of a finished fold."""
