"""Small models on disk with known behaviour."""

from pathlib import Path

import numpy as np
import torch

from napari_cellpath.core.vocabulary import (
    CIN_CLASSES,
    CIN_COLOURS,
    CLASS_COLOURS,
    PATTERNS,
    RBC_TYPES,
    System,
)
from napari_cellpath.models import ClassInfo, ModelInfo, save_model
from napari_cellpath.systems.catalogue import build
from napari_cellpath.systems.rbc.verdict import Booster


def write_pattern_model(folder: Path, seed: int = 0, **overrides) -> Path:
    """Write a small HEp-2 model with random weights and the paper's six patterns."""
    return write_random_model(
        folder,
        overrides.pop("architecture", "resnet8"),
        len(PATTERNS),
        seed,
        **{
            "system": System.HEP2,
            "arguments": {"width": 8},
            "classes": tuple(
                ClassInfo(name=name, colour=CLASS_COLOURS[i]) for i, name in enumerate(PATTERNS)
            ),
            "input": {"size": 60, "channels": 1, "contrast": "minmax", "framing": 1.3},
            "mpp": 0.3225,
        }
        | overrides,
    )


def small_booster(columns=(1, 2, 3, 4, 5)) -> Booster:
    """One stump a column: a type that is there (above 0.5) speaks for abnormal."""
    n = len(columns)
    first = 3 * np.arange(n, dtype=np.int32)
    nodes = np.arange(3 * n, dtype=np.int32)
    left, right = nodes.copy(), nodes.copy()
    left[first], right[first] = first + 1, first + 2
    feature = np.zeros(3 * n, np.int32)
    feature[first] = columns
    threshold, value = np.zeros(3 * n), np.zeros(3 * n)
    threshold[first], value[first + 1], value[first + 2] = 0.5, -2.0, 12.0
    return Booster(first, left, right, feature, threshold, value, np.array([0.0, 0.5]))


def write_region_model(folder: Path, seed: int = 0, **overrides) -> Path:
    """Write a small RBC model: random detector, trunk and heads, and a booster of five stumps.

    Its detector finds things everywhere, its heads give each box probabilities of its own.
    """
    return write_random_model(
        folder,
        "rbc-cascade",
        len(RBC_TYPES),
        seed,
        **{
            "system": System.RBC,
            "arguments": {
                "detector": "squeezenet-fpn",
                "detector_arguments": {"channels": 8, "representation": 16, "proposals": 24},
                "trunk": "squeezenet-features",
                "hidden": 8,
            },
            "classes": tuple(
                ClassInfo(name=name, colour=CLASS_COLOURS[i], abnormal=i > 0)
                for i, name in enumerate(RBC_TYPES)
            ),
            "input": {"patch": 40, "fit": "stretch", "score": 0.5, "scale": 1.0},
            "mpp": None,
            "beside": small_booster().tensors(),
        }
        | overrides,
    )


def write_random_model(
    folder: Path,
    architecture: str = "squeezenet1_0",
    n_classes: int = 2,
    seed: int = 0,
    **overrides,
) -> Path:
    """Write a model folder with random weights whose scores differ clearly between cells.

    ``beside`` are arrays that fill no network, such as a booster's.
    """
    beside = overrides.pop("beside", {})
    generator = torch.Generator().manual_seed(seed)
    network = build(architecture, n_classes=n_classes, **overrides.get("arguments", {}))
    tensors = {}
    for name, tensor in network.state_dict().items():
        if tensor.dim() > 1 and name.rpartition(".")[2] not in ("mean", "std"):
            fan_in = tensor.shape[-1] if name.startswith("heads.") else tensor[0].numel()
            tensor = torch.randn(tensor.shape, generator=generator) * (2.0 / fan_in) ** 0.5
            if ".rpn." in name or "bbox_pred" in name:
                tensor *= 0.02  # else boxes are flung off the image
        tensors[name] = tensor.numpy()
    info = ModelInfo(
        **{
            "name": folder.name,
            "system": System.DEEPPAP,
            "architecture": architecture,
            "classes": tuple(
                ClassInfo(
                    name=name, colour=CLASS_COLOURS[i], abnormal=(i > 0 and n_classes == 2) or i > 2
                )
                for i, name in enumerate(
                    ("normal", "abnormal")
                    if n_classes == 2
                    else [f"class{k}" for k in range(n_classes)]
                )
            ),
            "mpp": 0.201,
            "metrics": {"note": "random weights, for tests"},
        }
        | overrides
    )
    save_model(folder, info, tensors | beside, f"# {folder.name}\n\nRandom weights, for tests.\n")
    return folder


def write_tissue_model(folder: Path, seed: int = 0, **overrides) -> Path:
    """Write a small HSP-Net model with random weights: five classes, tiles of 64 at stride 16.

    Its last layer is set so that every class is called somewhere on a varied image.
    """
    arguments = overrides.pop("arguments", {"width": 0.0625})
    architecture = overrides.pop("architecture", "hspnet-squeezenet")
    names = overrides.pop("names", CIN_CLASSES)
    network = build(architecture, n_classes=len(names), **arguments).eval()
    generator = torch.Generator().manual_seed(seed)
    rows = torch.arange(128.0)
    waves = [torch.sin(rows / n)[:, None] * torch.cos(rows / (n + 2)) for n in (5, 7, 9)]
    with torch.no_grad():
        for weights in network.parameters():
            if weights.dim() > 1:
                deviation = (2.0 / weights[0].numel()) ** 0.5
                weights.copy_(torch.randn(weights.shape, generator=generator) * deviation)
        seen = network.features(torch.stack(waves)[None] * 2).flatten(2)[0]
        spread = torch.randn(len(names), len(seen), generator=generator)
        spread = spread / seen.std(dim=1).clamp_min(1e-3)
        network.head[-1].weight.copy_(spread[..., None, None])
        network.head[-1].bias.copy_(-spread @ seen.mean(dim=1))
    info = ModelInfo(
        **{
            "name": folder.name,
            "system": System.HSPNET,
            "architecture": architecture,
            "arguments": arguments,
            "classes": tuple(
                ClassInfo(name=name, colour=colour, abnormal=i > 1)
                for i, (name, colour) in enumerate(zip(names, CIN_COLOURS, strict=False))
            ),
            "input": {"tile": 64, "stride": 16},
            "mpp": 1.0,
            "metrics": {"note": "random weights, for tests"},
        }
        | overrides
    )
    tensors = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    save_model(folder, info, tensors, f"# {folder.name}\n\nRandom weights, for tests.\n")
    return folder
