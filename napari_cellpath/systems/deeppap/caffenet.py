"""Import CaffeNet weights into ConvNet-T (papers.md 1.7).

CaffeNet was trained on BGR images in 0..255 with the mean subtracted; ours are RGB. Reversing
conv1's input channels once, at import, makes the two equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_cellpath.core.errors import MissingFileError, ModelError, UnsafeModelError
from napari_cellpath.models.format import MAX_WEIGHTS_BYTES, tensors_from_file

CAFFE_MEAN_RGB = (122.67891434, 116.66876762, 104.00698793)
"""ILSVRC2012's mean pixel, which CaffeNet's weights expect subtracted; Caffe lists it as BGR."""

CONVOLUTIONS = {
    "conv1": (96, 3, 11, 11),
    "conv2": (256, 48, 5, 5),
    "conv3": (384, 256, 3, 3),
    "conv4": (384, 192, 3, 3),
    "conv5": (256, 192, 3, 3),
}


def read_state_dict(path: Path | str) -> dict[str, NDArray[Any]]:
    """Read a state dict from ``.safetensors`` or, with ``weights_only=True``, ``.pth``.

    Raises
    ------
    MissingFileError
        No such file.
    UnsafeModelError
        The file holds anything but tensors; it has not been run.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"{path} does not exist.")
    if path.stat().st_size > MAX_WEIGHTS_BYTES:
        raise ModelError(f"{path} is larger than {MAX_WEIGHTS_BYTES // 2**30} GB.")
    if path.suffix == ".safetensors":
        return tensors_from_file(path)
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # many classes, all meaning: not a plain file of tensors
        raise UnsafeModelError(
            f"{path} is damaged or can run code when opened, and was not opened. Save its "
            "state dict as .safetensors on a machine you trust."
        ) from None
    for key in ("state_dict", "model", "model_state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(
        isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in content.items()
    ):
        raise ModelError(f"{path} holds no state dict (names to tensors).")
    return {k: v.detach().float().numpy() for k, v in content.items()}


def trunk_from_caffenet(state: Mapping[str, NDArray[Any]], where: str) -> dict[str, NDArray[Any]]:
    """Trunk weights (``trunk.conv1.weight`` ...) for `convnet_t` from a CaffeNet state dict.

    Takes any prefix before ``conv1`` .. ``conv5`` (``features.conv1.weight``,
    ``module.features.conv1.weight``, ``conv1.weight``); fully connected layers are ignored:
    the paper trains fc6-8 from scratch.

    Raises
    ------
    ModelError
        A convolution is missing or has another shape than CaffeNet's; the sentence lists them.
    """
    found: dict[str, NDArray[Any]] = {}
    for name, tensor in state.items():
        parts = name.split(".")
        if len(parts) >= 2 and parts[-2] in CONVOLUTIONS and parts[-1] in ("weight", "bias"):
            found[f"{parts[-2]}.{parts[-1]}"] = np.asarray(tensor, dtype=np.float32)
    wrong = []
    for layer, shape in CONVOLUTIONS.items():
        for part, wanted in (("weight", shape), ("bias", shape[:1])):
            name = f"{layer}.{part}"
            if name not in found:
                wrong.append(f"{name} is missing")
            elif found[name].size != np.prod(wanted):
                wrong.append(f"{name} is {found[name].shape} instead of {wanted}")
    if wrong:
        raise ModelError(f"{where} is not a CaffeNet state dict: {'; '.join(wrong[:5])}.")
    trunk = {
        f"trunk.{layer}.{part}": found[f"{layer}.{part}"].reshape(shape if part == "weight" else -1)
        for layer, shape in CONVOLUTIONS.items()
        for part in ("weight", "bias")
    }
    # BGR to RGB, once and for all.
    trunk["trunk.conv1.weight"] = np.ascontiguousarray(trunk["trunk.conv1.weight"][:, [2, 1, 0]])
    return trunk
