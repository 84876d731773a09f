"""Weights that a trunk and a detector's backbone start from."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torchvision import models as tv

from napari_cellpath.core.errors import MissingFileError, RecipeError
from napari_cellpath.models.format import tensors_from_file
from napari_cellpath.systems.rbc.imagenet import load_body
from training.datasets import find_folder

_TORCHVISION = {
    "squeezenet": "squeezenet1_0", "mobilenetv3": "mobilenet_v3_large", "resnet18": "resnet18",
    "resnet50": "resnet50", "resnet101": "resnet101",
}  # fmt: skip
"""Of what an architecture's name begins with."""


def load_imagenet(body: nn.Module, architecture: str, weights: str) -> str:
    """Load what a recipe asks for; returns what it was, for the card.

    Raises
    ------
    MissingFileError
        The folder has no such file.
    RecipeError, ModelError
        The weights are another network's.
    """
    if weights == "none":
        warnings.warn(
            f"{architecture} starts from random weights; with few images it will learn little.",
            stacklevel=3,
        )
        return "random weights"
    name = _TORCHVISION[architecture.partition("-")[0]]
    if weights == "torchvision":
        state = tv.get_model_weights(name)["IMAGENET1K_V1"].get_state_dict(
            progress=False, check_hash=True
        )
        load_body(body, state, f"torchvision's {name}")
        return f"torchvision's {name}, ImageNet"
    file = find_folder(weights) / f"{name}.safetensors"
    if not file.is_file():
        held = ", ".join(sorted(p.name for p in Path(file.parent).glob("*.safetensors"))) or "none"
        if held != "none":
            raise RecipeError(f"{file.parent} holds {held}, and {architecture} needs {file.name}.")
        raise MissingFileError(f"There is no {file}; give network.weights, or 'torchvision'.")
    state = {k: torch.from_numpy(np.array(v)) for k, v in tensors_from_file(file).items()}
    load_body(body, state, str(file))
    return f"{file.parent.name}/{file.name}"
