"""Runs and models of a project: what was trained on it, and which model is its default."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from napari_cellpath.core.errors import OutputError
from napari_cellpath.core.vocabulary import System
from napari_cellpath.models import read_info
from napari_cellpath.project import ledger
from napari_cellpath.project.events import Kind
from napari_cellpath.project.project import Project

MODELS, RUNS = "models", "runs"


def new_run_folder(project: Path, preset: str) -> Path:
    """A folder for a run to be made in: ``runs/STAMP-PRESET``; it does not exist yet."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return project / RUNS / f"{stamp}-{preset}-{secrets.token_hex(2)}"


def begin_run(project: Path, run: Path, groups: Iterable[str], **facts: Any) -> None:
    """Note that a run learns from, or is measured on, groups: their sides are fixed from now on.

    Raises
    ------
    CellpathError
        The project cannot be written, or a group is not known.
    """
    with Project.open(project) as of:
        ledger.mark_used(of, groups, f"run {run.name}")
        at = datetime.now(UTC).isoformat(timespec="seconds")
        of.record(Kind.RUN, {"runs": {run.name: {"started": at, **facts}}})
        of.flush()


def end_run(project: Path, run: Path, model: Path, gate: Mapping[str, Any]) -> Path:
    """Take a finished model into the project; it becomes the default if it passed the gate.

    Returns
    -------
    Path
        ``models/NAME/VERSION`` of the project.

    Raises
    ------
    CellpathError
        The model is damaged, or the project cannot be written.
    """
    info = read_info(model)
    with Project.open(project, read_only=True) as of:
        known = of.state.runs.get(run.name, {}).get("model", {})
    there = project / MODELS / str(known.get("name")) / str(known.get("version"))
    if known.get("sha256") == info.sha256 and there.is_dir():
        return there  # a run that was started again after its end
    home = project / MODELS / info.name
    try:
        home.mkdir(parents=True, exist_ok=True)
        numbers = [int(p.name) for p in home.iterdir() if p.name.isdecimal()]
        target = home / str(max(numbers, default=0) + 1)
        draft = home / f".{secrets.token_hex(4)}"
        shutil.copytree(model, draft)
        draft.rename(target)
    except OSError as error:
        raise OutputError(f"{home} cannot be written ({error.strerror}).") from None
    passed = bool(gate.get("passed"))
    where = {"name": info.name, "version": target.name, "sha256": info.sha256}
    with Project.open(project) as of:
        at = datetime.now(UTC).isoformat(timespec="seconds")
        facts = {"ended": at, "model": where, "passed": passed, "why": str(gate.get("why", ""))}
        of.record(Kind.RUN, {"runs": {run.name: facts}})
        if passed:
            of.record(Kind.SETTING, {"settings": {f"model/{info.system}": where}})
        of.flush()
    return target


def default_model(project: Project, system: System) -> Path | None:
    """Folder of the model that passed the gate last; None where none has, or it is gone."""
    chosen = project.state.settings.get(f"model/{system}")
    if chosen is None:
        return None
    folder = project.folder / MODELS / str(chosen["name"]) / str(chosen["version"])
    return folder if folder.is_dir() else None
