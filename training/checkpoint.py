"""Checkpoints of a fit: safetensors and JSON, written so that there is always a whole one.

The tensors are written under a name of their own; then one rename of ``checkpoint.json``
makes them the checkpoint. Killed at any moment, the folder holds the old or the new one.
Nothing in it can run code.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from napari_cellpath.core.errors import ModelError, OutputError

POINTER = "checkpoint.json"


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is there complete or not at all.

    Raises
    ------
    OutputError
        It cannot be written; what was there before is intact.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OutputError(f"{path} cannot be written ({error.strerror}).") from None


def write_checkpoint(
    folder: Path,
    *,
    module: nn.Module,
    average: nn.Module | None,
    optimizer: torch.optim.Optimizer,
    generators: dict[str, torch.Generator],
    progress: dict[str, Any],
) -> None:
    """Write everything a run needs to go on as if it had not stopped."""
    tensors = {f"model.{k}": v for k, v in module.state_dict().items()}
    if average is not None:
        tensors |= {f"average.{k}": v for k, v in average.state_dict().items()}
    state = optimizer.state_dict()
    scalars: dict[str, dict[str, Any]] = {}
    for index, values in state["state"].items():
        for key, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{key}"] = value
            elif value is not None:
                scalars.setdefault(str(index), {})[key] = value
    tensors["rng.torch"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["rng.cuda"] = torch.cuda.get_rng_state()
    tensors |= {f"generator.{k}": g.get_state() for k, g in generators.items()}
    content = save_safetensors({k: v.detach().cpu().contiguous() for k, v in tensors.items()})
    name = f"step-{progress['step']:08d}.safetensors"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made ({error.strerror}).") from None
    write_whole(folder / name, content)
    pointer = {
        "format": 1,
        "tensors": name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "optimizer": {
            "scalars": scalars,
            "groups": [
                {k: v for k, v in group.items() if k != "params"} for group in state["param_groups"]
            ],
        },
        "progress": progress,
    }
    write_whole(folder / POINTER, json.dumps(pointer).encode())
    for old in folder.glob("step-*.safetensors"):
        if old.name != name:
            old.unlink(missing_ok=True)


def read_checkpoint(
    folder: Path,
    *,
    module: nn.Module,
    average: nn.Module | None,
    optimizer: torch.optim.Optimizer,
    generators: dict[str, torch.Generator],
) -> dict[str, Any] | None:
    """Load a checkpoint into what is given; None where the folder has none.

    Raises
    ------
    ModelError
        Damaged, or of another network.
    """
    path = folder / POINTER
    if not path.is_file():
        return None
    try:
        pointer = json.loads(path.read_text(encoding="utf-8"))
        content = (folder / Path(pointer["tensors"]).name).read_bytes()
        if hashlib.sha256(content).hexdigest() != pointer["sha256"]:
            raise ModelError(f"The checkpoint in {folder} is damaged. Start the run anew.")
        tensors = load_safetensors(content)
        module.load_state_dict(_under("model.", tensors))
        if average is not None:
            average.load_state_dict(_under("average.", tensors))
        _load_optimizer(optimizer, pointer["optimizer"], _under("optimizer.", tensors))
        torch.set_rng_state(tensors["rng.torch"])
        if torch.cuda.is_available() and "rng.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["rng.cuda"])
        for name, generator in generators.items():
            generator.set_state(tensors[f"generator.{name}"])
        progress: dict[str, Any] = pointer["progress"]
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(
            f"The checkpoint in {folder} does not fit this recipe or is damaged. "
            "Start the run anew."
        ) from error
    return progress


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}


def _load_optimizer(
    optimizer: torch.optim.Optimizer, saved: dict[str, Any], tensors: dict[str, Tensor]
) -> None:
    fresh = optimizer.state_dict()
    state: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    for index, values in saved["scalars"].items():
        state.setdefault(int(index), {}).update(values)
    groups = [
        {**_tuples(group), "params": now["params"]}
        for group, now in zip(saved["groups"], fresh["param_groups"], strict=True)
    ]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def _tuples(group: dict[str, Any]) -> dict[str, Any]:
    """JSON has no tuples; AdamW's betas are one."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in group.items()}
