"""Weights a network starts from."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from napari_cellpath.core.errors import MissingFileError, ModelError, RecipeError
from napari_cellpath.models.format import tensors_from_file
from napari_cellpath.systems import catalogue
from napari_cellpath.systems.deeppap.caffenet import (
    CAFFE_MEAN_RGB,
    read_state_dict,
    trunk_from_caffenet,
)
from napari_cellpath.systems.deeppap.network import DeepPapNetwork
from training.datasets import find_folder
from training.deeppap_recipe import Network


def build_network(settings: Network, n_classes: int) -> tuple[DeepPapNetwork, str]:
    """Build the network of a recipe with its initial weights.

    Returns
    -------
    network
        In float32; the head is always new.
    origin
        What the trunk started from, for the model's card.

    Raises
    ------
    MissingFileError, ModelError, RecipeError
        The weights are not there, do not fit, or are not known.
    """
    arguments = dict(settings.arguments)
    if settings.mean_image:
        if settings.backbone != "convnet-t":
            raise RecipeError(f"network.mean_image: {settings.backbone} has no mean image.")
        arguments["mean"] = "image"
    try:
        network: DeepPapNetwork = catalogue.build(
            settings.backbone, n_classes=n_classes, **arguments
        )
    except TypeError as error:
        raise RecipeError(f"network.arguments of {settings.backbone}: {error}.") from None
    return network, _load_trunk(network, settings)


def imagenet_squeezenet(settings: Network) -> dict[str, Tensor]:
    """ImageNet weights of SqueezeNet's layers, from where the recipe takes its trunk's.

    Raises
    ------
    MissingFileError, ModelError, RecipeError
        See `build_network`.
    """
    network, _ = build_network(settings.model_copy(update={"arguments": {}}), 2)
    state: dict[str, Tensor] = network.trunk.state_dict()
    return state


def _load_trunk(network: DeepPapNetwork, settings: Network) -> str:
    if settings.weights == "none":
        warnings.warn(
            "The network starts from random weights; with few cells it will learn little.",
            stacklevel=3,
        )
        return "random weights"
    if settings.weights == "torchvision":
        return _from_torchvision(network, settings.backbone)
    if settings.weights == "squeezenet_imagenet":
        path = find_folder("squeezenet_imagenet") / "squeezenet1_0.safetensors"
    else:
        path = Path(settings.weights).expanduser()
    if not path.is_file():
        raise MissingFileError(f"network.weights: there is no file {path}.")
    if settings.backbone == "convnet-t":
        trunk = trunk_from_caffenet(read_state_dict(path), str(path))
        state = {k.removeprefix("trunk."): torch.from_numpy(v) for k, v in trunk.items()}
        if network.mean.shape[-1] == 1:
            network.mean.copy_(torch.tensor(CAFFE_MEAN_RGB).view(3, 1, 1))
    else:
        arrays = tensors_from_file(path)
        state = {
            k.removeprefix("features."): torch.from_numpy(np.array(v)).float()
            for k, v in arrays.items()
            if k.startswith("features.")
        }
    _load(network, state, str(path))
    return f"{path.name} (ImageNet)"


def _from_torchvision(network: DeepPapNetwork, backbone: str) -> str:
    from torchvision import models as tv

    names = {"squeezenet1_0": "SqueezeNet1_0_Weights", "alexnet-tv": "AlexNet_Weights"}
    if backbone not in names:
        raise RecipeError(
            f"network.weights: torchvision has none for {backbone}. Give the path of a "
            "CaffeNet-shaped state dict."
        )
    weights = getattr(tv, names[backbone]).IMAGENET1K_V1
    state = weights.get_state_dict(progress=False, check_hash=True)
    trunk = {k.removeprefix("features."): v for k, v in state.items() if k.startswith("features.")}
    _load(network, trunk, str(weights))
    return f"torchvision {weights}"


def _load(network: DeepPapNetwork, state: dict[str, Tensor], where: str) -> None:
    try:
        network.trunk.load_state_dict(state)
    except RuntimeError as error:
        detail = str(error).splitlines()[-1].strip()
        raise ModelError(f"{where} does not fit the trunk: {detail}") from None
