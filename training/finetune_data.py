"""Who teaches, who chooses, who judges when a model is fine-tuned; and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.core.annotations import Part
from napari_cellpath.core.errors import RecipeError
from napari_cellpath.models import ModelInfo
from training.datasets import CellData, CellRecord
from training.finetune_kit import kit_of
from training.provenance import image_hash, named, refuse_seen, seen_by_content, seen_by_name
from training.recipe import CommonRecipe
from training.splits import check_no_leak, make_split

Rows = NDArray[np.intp]
LEAST_TO_CHOOSE = 5
"""Cells of either kind a validation part must hold for anything to be chosen on it."""


@dataclass(frozen=True, eq=False)
class Sides:
    """Cells of a fine-tuning run and their sides.

    Attributes
    ----------
    data
        All cells.
    targets
        (n,) class of each in the parent's list; of several labels (n, n_classes).
    train, validation, frozen
        Row numbers. ``validation`` is empty where it would not suffice to choose on.
    notes
        Sentences on what was left out, for the report.
    """

    data: CellData
    targets: NDArray[Any]
    train: Rows
    validation: Rows
    frozen: Rows
    notes: tuple[str, ...] = ()

    def records(self, rows: Rows) -> list[CellRecord]:
        """The cells of some rows."""
        return [self.data.records[int(i)] for i in rows]

    def groups(self, rows: Rows) -> list[str]:
        """Their slides, patients or specimens."""
        return [r.group for r in self.records(rows)]


def read_sides(recipe: CommonRecipe, parent: ModelInfo) -> Sides:
    """Read the data of a fine-tuning recipe and check them against the parent.

    A project's split is its ledger's. Other data are split as for any training: the reserve is
    the frozen part, the first fold validates (none does where ``split.run_folds`` is 0).

    Raises
    ------
    RecipeError
        A class the parent does not know, one class only, no cells to learn from, the same image
        on both sides, or frozen cells that the parent was trained on.
    """
    kit = kit_of(recipe, parent)
    data = kit.read()
    targets = kit.targets(data)
    if recipe.data.layout == "project":
        train, validation, frozen = (
            np.array([i for i, r in enumerate(data.records) if _part(data, r) is part], np.intp)
            for part in (Part.TRAIN, Part.VALIDATION, Part.FROZEN)
        )
    else:
        s = recipe.split
        classes = targets if targets.ndim == 1 else data.labels
        plan = make_split(
            data.groups, classes.tolist(), mode=s.mode, reserve=s.reserve, folds=s.folds,
            seed=s.seed,
        )  # fmt: skip
        frozen = plan.reserve
        validation = plan.folds[0] if s.run_folds else np.array([], np.intp)
        train = plan.training(0) if s.run_folds else plan.development
    where = str(data.folder)
    if len(train) == 0:
        raise RecipeError(f"{where}: no labelled cell is in the training part of the split.")
    if (only := kit.only_class(data, targets, train)) and not kit.one_class_will_do():
        raise RecipeError(
            f"{where}: the training part holds one class only ({only}); a classifier needs at "
            "least two. Label some cells of another class."
        )
    sides = {"training": train, "validation": validation, "the frozen part": frozen}
    if recipe.data.layout == "project" or recipe.split.mode == "group":
        check_no_leak(data.groups, sides)
    _check_images(data, sides)
    refuse_seen(parent, data, frozen.tolist(), "the frozen part")
    seen = set(seen_by_content(parent, data.records)) | set(seen_by_name(parent, data))
    unseen = np.array([i for i in validation if int(i) not in seen], np.intp)
    notes = []
    if len(unseen) < len(validation):
        notes.append(
            f"{len(validation) - len(unseen)} validation {kit.things} were in the parent's "
            "training and were not used to choose."
        )
    kinds = kit.kinds(data, targets, unseen, train)
    if len(validation) and min(kinds.values()) < LEAST_TO_CHOOSE:
        held = " and ".join(f"{n} {name}" for name, n in kinds.items())
        notes.append(
            f"The validation part holds {held} {kit.things}; at least {LEAST_TO_CHOOSE} of each "
            "are needed to choose on, so fixed settings were used."
        )
        unseen = unseen[:0]
    return Sides(data, targets, train, unseen, frozen, tuple(notes))


def _part(data: CellData, record: CellRecord) -> Part:
    part = data.parts.get(record.group)
    if part is None:
        raise RecipeError(
            f"{data.folder}: '{record.group}' is in no part of the split. Assign it to one."
        )
    return part


def _check_images(data: CellData, sides: dict[str, Rows]) -> None:
    """Refuse one image, told by content, on two sides of the split under whatever names."""
    owner: dict[str, tuple[str, str]] = {}
    for side, rows in sides.items():
        for row in rows:
            image = data.records[int(row)].image
            before = owner.setdefault(image_hash(image), (side, image.name))
            if before[0] != side:
                names: Sequence[str] = (before[1], image.name)
                raise RecipeError(
                    f"The same image ({named(names)}) is on two sides of the split "
                    f"({before[0]} and {side}); put both into one group."
                )
