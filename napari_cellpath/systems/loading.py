"""A model folder to a network ready to compute, whatever its system."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from napari_cellpath.core.errors import ModelError, UnknownNameError
from napari_cellpath.models import ModelInfo, read_info, read_tensors
from napari_cellpath.systems import catalogue
from napari_cellpath.systems.protocol import ModelRef


def load_network(folder: Path | str) -> tuple[Any, ModelInfo]:
    """Build the network of a model folder, in float32 and evaluation mode, and load its weights.

    Raises
    ------
    ModelError
        The weights do not fit the architecture (the first five differing names are listed),
        the class count differs, a hash differs, or a weight is not finite.
    """
    info = read_info(folder)
    try:
        network = catalogue.build(info.architecture, n_classes=len(info.classes), **info.arguments)
    except UnknownNameError as error:
        raise ModelError(f"{folder}: {error}") from None
    except TypeError as error:
        raise ModelError(f"{folder}: arguments of {info.architecture}: {error}.") from None
    beside: tuple[str, ...] = getattr(network, "beside", ())  # arrays that fill no network
    tensors = {k: v for k, v in read_tensors(folder).items() if not k.startswith(beside)}
    load_weights(network, tensors, str(folder))
    return network.eval(), info


def load_weights(network: nn.Module, tensors: dict[str, NDArray[Any]], where: str) -> None:
    """Load arrays into a network, strictly.

    Raises
    ------
    ModelError
        Naming up to five tensors that are missing, unexpected or of another shape.
    """
    expected = network.state_dict()
    differing = [f"{k} is missing" for k in expected if k not in tensors]
    differing += [f"{k} is not part of it" for k in tensors if k not in expected]
    differing += [
        f"{k} is {tuple(tensors[k].shape)} instead of {tuple(expected[k].shape)}"
        for k in expected
        if k in tensors and tuple(tensors[k].shape) != tuple(expected[k].shape)
    ]
    if differing:
        more = f" and {len(differing) - 5} more" if len(differing) > 5 else ""
        raise ModelError(
            f"{where}: the weights do not fit the architecture: {'; '.join(differing[:5])}{more}."
        )
    network.load_state_dict(
        {k: torch.from_numpy(np.array(v)).to(expected[k].dtype) for k, v in tensors.items()}
    )


def load_referred(ref: ModelRef) -> tuple[Any, ModelInfo]:
    """`load_network` of the model a task names.

    Raises
    ------
    ModelError
        It is not the one the client saw (another hash), or cannot be loaded.
    """
    network, info = load_network(ref.folder)
    if info.sha256 != ref.sha256:
        raise ModelError(
            f"{ref.folder} has changed since it was chosen (another SHA-256). Choose it again."
        )
    return network, info


def memory_of(network: nn.Module) -> int:
    """Bytes of a network's weights and buffers."""
    return sum(t.numel() * t.element_size() for t in network.state_dict().values())
