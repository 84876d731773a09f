"""Fine-tuning presets: the recipes of the Train dock and of ``cellpath train --parent``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from napari_cellpath.core.errors import UnknownNameError
from napari_cellpath.models import find_model
from training.project_data import is_project
from training.recipe import CommonRecipe, check_recipe
from training.systems import entry, load

DEEPPAP: dict[str, dict[str, Any]] = {
    "fast": {
        "evaluation": "rotations",
        "finetune": {"method": "head"},
        "optimiser": {"lr_head": 0.001, "weight_decay": 0.02},
        "epochs": 40,
        "batch": 32,
    },
    "thorough": {
        "evaluation": "rotations",
        "finetune": {"method": "full"},
        "network": {"frozen_layers": 1},
        "optimiser": {"lr_trunk": 5e-5, "lr_head": 5e-4, "ema": 0.9},
        "augmentation": {"scale": 0.0, "mix_style": 0.0, "grey": 0.05, "blur": 0.6},
        "epochs": 10,
        "views_per_epoch": [4, 4],
        "batch": 8,
        "precision": "auto",  # SqueezeNet's steps take half the time in bfloat16
    },
}
"""What each preset sets beside parent and data; docs/decisions.md says how it was found."""
HEP2: dict[str, dict[str, Any]] = {
    "fast": {
        "finetune": {"method": "head"},
        "optimiser": {"lr_head": 0.003, "weight_decay": 0.02},
        "epochs": 30,
        "batch": 32,
        "evaluation": "none",
    },
    "thorough": {
        "finetune": {"method": "full"},
        "optimiser": {"lr_trunk": 1e-4, "lr_head": 1e-3, "ema": 0.9},
        "sampling": {"copies": 4},
        "epochs": 15,
        "batch": 16,
        "evaluation": "none",
    },
}
"""The same for HEp-2."""
RBC: dict[str, dict[str, Any]] = {
    "fast": {
        "finetune": {"method": "head"},
        "optimiser": {"lr_head": 0.003, "weight_decay": 0.02},
        "epochs": 80,
        "batch": 16,
    },
    "detector": {
        "finetune": {"method": "head", "detector": True},
        "optimiser": {"lr_head": 0.001, "weight_decay": 0.02},
        "epochs": 30,
        "batch": 32,
    },
    "thorough": {
        "finetune": {"method": "full"},
        "optimiser": {"lr_trunk": 5e-5, "lr_head": 5e-4, "ema": 0.9},
        "epochs": 10,
        "batch": 16,
    },
}
"""The same for RBC; the booster is fitted again in all. ``detector``: heads and detector."""


HSPNET: dict[str, dict[str, Any]] = {
    "fast": {
        "finetune": {"method": "head"},
        "optimiser": {"name": "adamw", "lr_head": 0.01, "weight_decay": 0.01, "clip_norm": 2.0},
        "balance": 0.5,
        "epochs": 40,
        "batch": 128,
    },
    "thorough": {
        "finetune": {"method": "full"},
        "optimiser": {
            "name": "adamw", "lr_trunk": 5e-5, "lr_head": 2e-3, "weight_decay": 0.01,
            "clip_norm": 2.0, "ema": 0.9,
        },
        "schedule": {"each": "step"},
        "crops": {"stride": 64, "per_epoch": 64},
        "augmentation": {"turns": "d4", "shift": 32, "scale": 0.1, "stain": 0.15},
        "balance": 0.5,
        "epochs": 6,
        "batch": 4,
    },
}  # fmt: skip
"""The same for HSP-Net; crops are as large as the parent's tiles."""


def finetune_recipe(
    parent: str | Path, data: str | Path, preset: str = "fast", name: str | None = None
) -> CommonRecipe:
    """A recipe that fine-tunes a model.

    Parameters
    ----------
    parent
        Name or folder of the model to go on from.
    data
        A project, or a data folder in the system's own layout.
    preset
        ``fast`` or ``thorough``.
    name
        Of the model that comes out; by default made of the parent's and the data's.

    Raises
    ------
    UnknownNameError
        No such preset, or no such model.
    ModelError
        The parent is damaged, or its system cannot be trained.
    RecipeError
        The name is no name.
    """
    row = entry(system := find_model(parent).info.system)
    presets: dict[str, dict[str, Any]] = load(row.presets)
    if preset not in presets:
        raise UnknownNameError(f"There is no preset '{preset}'. Known: {', '.join(presets)}.")
    own = Path(str(parent).partition("@")[0]).name
    if own.isdecimal():  # models/NAME/VERSION of a project
        own = Path(str(parent)).parent.name
    stem = Path(data).stem
    made = own if own.endswith(f"-{stem}") else f"{own}-{stem}"  # a second round is a new version
    made = re.sub(r"[^A-Za-z0-9._-]+", "-", made).strip("-._")[:80]
    settings = presets[preset]
    content = {
        "system": str(system),
        "name": name or made,
        "data": {"layout": "project" if is_project(data) else row.layout, "folder": str(data)},
        **settings,
        "finetune": {"parent": str(parent), **settings["finetune"]},
    }
    return check_recipe(content, f"the preset '{preset}'")
