"""A parent that takes some classes for normal: what a person's corrections have to mend."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from napari_cellpath.models import read_features, save_model
from napari_cellpath.systems.deeppap.predict import load_network
from training.trainer import network_arrays
from training.trunk_features import through_head

STEPS = 600


def write_blinded(model: Path, classes: Sequence[int], folder: Path) -> Path:
    """Refit a model's head to its own features, with some fine classes taught as normal.

    The trunk stays; features of those classes are left out of what the new model carries, so
    that replay holds nothing against the corrections. Needs no images; takes seconds.

    Parameters
    ----------
    model
        A two-class model folder that carries features.
    classes
        Fine classes to be blind to, in the data's own order (Herlev: 4, 5, 6 are moderate and
        severe dysplasia and carcinoma in situ).
    folder
        To write; its name becomes the model's.
    """
    network, info = load_network(model)
    shipped = read_features(model)
    assert shipped is not None, f"{model} carries no features"
    blind = np.isin(shipped["fine"], classes)
    targets = np.where(blind, 0, shipped["targets"]).astype(np.int64)
    features = torch.from_numpy(shipped["features"].astype(np.float32))
    wanted = torch.from_numpy(targets)
    counts = torch.bincount(wanted, minlength=2).float()
    weights = (counts.sum() / (2 * counts)).sqrt()
    torch.manual_seed(0)
    head = copy.deepcopy(network.head).train()
    optimiser = torch.optim.AdamW(head.parameters(), lr=2e-3, weight_decay=0.02)
    for _ in range(STEPS):
        rows = torch.randint(len(features), (128,))
        loss = F.cross_entropy(
            through_head(head, features[rows]), wanted[rows], weight=weights, label_smoothing=0.05
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    network.head = head
    info = info.model_copy(
        update={"name": folder.name, "threshold": 0.5, "calibration": None, "metrics": {}}
    )
    kept = {key: values[~blind] for key, values in shipped.items()}
    card = f"# {folder.name}\n\n{info.name} with a head blind to some classes, for tests.\n"
    save_model(folder, info, network_arrays(network.eval(), half=True), card, kept)
    return folder
