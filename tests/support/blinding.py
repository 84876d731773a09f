"""Parents that are blind to some classes: what a person's corrections have to mend."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from napari_cellpath.models import read_features, read_info, save_model
from napari_cellpath.systems.loading import load_network
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
    shipped = _features_of(model)
    blind = np.isin(shipped["fine"], classes)
    targets = np.where(blind, 0, shipped["targets"]).astype(np.int64)
    return _refit(model, folder, shipped["features"], targets, blind)


def write_blinded_to_pattern(model: Path, pattern: str, folder: Path) -> Path:
    """Refit a HEp-2 model's head to its own features without one pattern; it is never called.

    Parameters
    ----------
    model
        A model folder that carries features.
    pattern
        Name of the class to be blind to.
    folder
        To write; its name becomes the model's.
    """
    shipped = _features_of(model)
    blind = shipped["targets"] == read_info(model).class_names.index(pattern)
    targets = shipped["targets"][~blind].astype(np.int64)
    return _refit(model, folder, shipped["features"][~blind], targets, blind)


def write_blinded_to_type(model: Path, kind: str, folder: Path) -> Path:
    """Refit an RBC model's heads and booster to its own features without the boxes of one type.

    Trunk and detector stay. What is left never holds the type, so it is never told, and boxes of
    it alone are not known to be abnormal.

    Parameters
    ----------
    model
        A model folder that carries features.
    kind
        Name of the type to be blind to.
    folder
        To write; its name becomes the model's.
    """
    from napari_cellpath.systems.rbc.verdict import PREFIX
    from training.rbc.boosting import fit_booster
    from training.rbc.recipe import RbcBooster

    network, info = load_network(model)
    shipped = _features_of(model)
    column = info.class_names.index(kind)
    left = shipped["targets"][:, column] == 0
    kept = {key: values[left] for key, values in shipped.items()}
    groups = [str(g) for g in kept["groups"]]
    settings = RbcBooster()
    given = np.zeros(kept["targets"].shape)
    fold_of = kept["groups"] % settings.folds
    for fold in range(settings.folds):
        held = fold_of == fold
        given[held] = _told_by(_new_heads(network.heads, kept, ~held), kept, held)
    booster = fit_booster(
        given, kept["verdicts"], groups, settings, 0, kept["stands_for"].astype(float)
    ).booster
    assert booster is not None, f"{model} carries too few boxes"
    kept["out_of_fold"] = given.astype(np.float16)
    network.heads = _new_heads(network.heads, kept, np.ones(len(given), dtype=bool))
    tensors = network_arrays(network.eval(), half=True) | booster.tensors()
    assert all(name.startswith(PREFIX) for name in booster.tensors())
    thresholds = [0.5] * len(info.classes)
    info = info.model_copy(
        update={
            "name": folder.name, "calibration": None, "metrics": {},
            "input": dict(info.input) | {"thresholds": thresholds},
        }
    )  # fmt: skip
    card = f"# {folder.name}\n\n{model.name} that was never shown {kind}, for tests.\n"
    save_model(folder, info, tensors, card, kept)
    return folder


def _new_heads(like: Any, kept: dict[str, np.ndarray], rows: np.ndarray) -> Any:
    """Heads fitted from nothing to some rows, drawn as often as what they stand for."""
    from napari_cellpath.systems.rbc.network import LabelHeads
    from training.rbc.objective import masked_loss

    torch.manual_seed(0)
    heads = LabelHeads(like.n_features, like.n_types, like.weight1.shape[1], like.dropout.p)
    seen = torch.from_numpy(kept["features"][rows].astype(np.float32))
    targets = torch.from_numpy(kept["targets"][rows])
    often = torch.from_numpy(kept["stands_for"][rows])
    optimiser = torch.optim.AdamW(heads.parameters(), lr=2e-3, weight_decay=0.02)
    for step in range(STEPS):
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * (1 - step / STEPS)
        some = torch.multinomial(often, 128, replacement=True)
        loss = masked_loss(heads(seen[some]), targets[some], None, 0.02)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return heads.eval()


def _told_by(heads: Any, kept: dict[str, np.ndarray], rows: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        seen = torch.from_numpy(kept["features"][rows].astype(np.float32))
        return heads(seen).double().sigmoid().numpy()


def _features_of(model: Path) -> dict[str, np.ndarray]:
    shipped = read_features(model)
    assert shipped is not None, f"{model} carries no features"
    return shipped


def _refit(
    model: Path, folder: Path, features: np.ndarray, targets: np.ndarray, blind: np.ndarray
) -> Path:
    """A new head for these features; the model carries on only what it is not blind to."""
    network, info = load_network(model)
    shipped = _features_of(model)
    known, wanted = torch.from_numpy(features.astype(np.float32)), torch.from_numpy(targets)
    counts = torch.bincount(wanted, minlength=len(info.classes)).float()
    present = counts > 0
    weights = torch.where(present, (counts.sum() / (present.sum() * counts)).sqrt(), 0.0)
    torch.manual_seed(0)
    head = copy.deepcopy(network.head).train()
    optimiser = torch.optim.AdamW(head.parameters(), lr=2e-3, weight_decay=0.02)
    for _ in range(STEPS):
        rows = torch.randint(len(known), (128,))
        loss = F.cross_entropy(
            through_head(head, known[rows]), wanted[rows], weight=weights, label_smoothing=0.05
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


def write_blinded_to_tissue(model: Path, name: str, folder: Path) -> Path:
    """Refit the last convolution of an HSP-Net model to its own features without one class.

    Parameters
    ----------
    model
        A model folder that carries features of pixels.
    name
        Of the class to be blind to; it is hardly ever called.
    folder
        To write; its name becomes the model's.
    """
    network, info = load_network(model)
    shipped = _features_of(model)
    blind = shipped["targets"] == info.class_names.index(name)
    known = torch.from_numpy(shipped["features"][~blind].astype(np.float32))
    wanted = torch.from_numpy(shipped["targets"][~blind].astype(np.int64))
    torch.manual_seed(0)
    last = network.head[-1].train()
    optimiser = torch.optim.AdamW(last.parameters(), lr=5e-3, weight_decay=0.01)
    for _ in range(STEPS):
        rows = torch.randint(len(known), (512,))
        logits = F.linear(known[rows], last.weight[:, :, 0, 0], last.bias)
        loss = F.cross_entropy(logits, wanted[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    info = info.model_copy(update={"name": folder.name, "calibration": None, "metrics": {}})
    kept = {key: values[~blind] for key, values in shipped.items()}
    card = f"# {folder.name}\n\n{info.name} with an end blind to {name}, for tests.\n"
    save_model(folder, info, network_arrays(network.eval(), half=True), card, kept)
    return folder
