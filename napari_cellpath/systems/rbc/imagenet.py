"""ImageNet weights to start training from: torchvision's, or a state dict at hand.

Nothing is downloaded unless a caller asks for ``"torchvision"``; a model folder never does, its
weights lie in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor, nn
from torchvision import models as tv

from napari_cellpath.core.errors import ModelError

Weights = Literal["torchvision"] | None
"""Where a backbone's first weights come from: ImageNet's by torchvision's door, or nowhere."""

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

_HEADS = ("fc.", "classifier.", "conv_last.")  # of the classifiers, which no backbone has


def backbone_of(name: str, weights: Weights, body: nn.Module) -> None:
    """Load torchvision's ImageNet weights into a backbone, if they are asked for.

    Raises
    ------
    ModelError
        ``weights`` is something else, or the weights do not fit.
    """
    if weights is None:
        return
    if weights != "torchvision":
        raise ModelError(f"weights of {name}: '{weights}' is neither None nor 'torchvision'.")
    found = tv.get_model_weights(name)
    state = found["IMAGENET1K_V1"].get_state_dict(progress=False, check_hash=True)
    load_body(body, state, f"torchvision's {name}")


def load_body(body: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Load a classifier's state dict into its backbone; what only the classifier has is left out.

    Parameters
    ----------
    body
        A backbone whose names are the classifier's, with or without ``features.`` before them. A
        pyramid or a detector need not be looked into: its ``body`` is found.
    state
        Of torchvision's classifier of that name.
    where
        Names it in errors.

    Raises
    ------
    ModelError
        A weight of the backbone is not in it, or has another shape.
    """
    inner = {name: module for name, module in body.named_modules() if name.endswith("body")}
    if inner:
        body = next(iter(inner.values()))
    theirs = {
        name.removeprefix("features."): value
        for name, value in state.items()
        if not name.startswith(_HEADS)
    }
    own = body.state_dict()
    for name, value in own.items():
        if name not in theirs:
            if name.startswith(_HEADS) or name.endswith("num_batches_tracked"):
                continue
            raise ModelError(f"{where} has no '{name}'; it is of another network.")
        if theirs[name].shape != value.shape:
            raise ModelError(
                f"{where}: '{name}' is {tuple(theirs[name].shape)} instead of {tuple(value.shape)}."
            )
    body.load_state_dict({k: v for k, v in theirs.items() if k in own}, strict=False)
