"""Sessions without a project: journals of their own, found again after a crash.

Whoever clicks nuclei without having made a project loses nothing: the gestures go to a session
in the account's state folder. One that was not saved as a project is offered at the next start.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import platformdirs
import psutil

from napari_cellpath.core.errors import CellpathError, OutputError
from napari_cellpath.core.files import write_atomically
from napari_cellpath.project.images import all_images, relocate
from napari_cellpath.project.journal import DATABASE
from napari_cellpath.project.painted import image_of_raster
from napari_cellpath.project.project import SUFFIX, Project, project_folder

KEPT = 10
"""Sessions kept; older ones go."""
_LOCK = "session.json"


@dataclass(frozen=True)
class Abandoned:
    """A session that no running program has open.

    ``objects`` is how many nuclei, boxes and areas it holds, ``painted`` how many images have
    painted pixels, ``images`` of which images both are, and ``at`` when it was last changed
    (ISO 8601, UTC).
    """

    folder: Path
    objects: int
    painted: int
    images: tuple[str, ...]
    at: str


def sessions_folder() -> Path:
    """Where sessions lie; ``CELLPATH_STATE`` puts them elsewhere."""
    root = os.environ.get("CELLPATH_STATE")
    base = Path(root) if root else platformdirs.user_state_path("napari-cellpath")
    return base / "sessions"


def is_session(folder: Path) -> bool:
    """Whether a project is a session that was not saved under a name of the user's."""
    return (folder / _LOCK).is_file()


def begin() -> Project:
    """Make a new, empty session.

    Raises
    ------
    OutputError
        The state folder cannot be written.
    """
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    folder = sessions_folder() / f"{stamp}-{secrets.token_hex(3)}{SUFFIX}"
    project = Project.create(folder, "unsaved session")
    _lock(folder)
    return project


def recover(folder: Path) -> Project:
    """Open a session again, as this program's own."""
    project = Project.open(folder)
    _lock(folder)
    return project


def _lock(folder: Path) -> None:
    me = psutil.Process()
    write_atomically(folder / _LOCK, json.dumps({"pid": me.pid, "started": me.create_time()}))


def _is_open(folder: Path) -> bool:
    try:
        lock = json.loads((folder / _LOCK).read_text())
        return bool(psutil.Process(int(lock["pid"])).create_time() == float(lock["started"]))
    except (OSError, ValueError, KeyError, TypeError, psutil.Error):
        return False


def abandoned() -> list[Abandoned]:
    """Sessions with something in them that no program has open, newest first.

    Empty ones, and those beyond `KEPT`, are removed.
    """
    folder = sessions_folder()
    if not folder.is_dir():
        return []
    found: list[Abandoned] = []
    for path in sorted(folder.glob(f"*{SUFFIX}"), reverse=True):
        if _is_open(path) or not (path / DATABASE).is_file():
            continue
        try:
            with Project.open(path, read_only=True) as project:
                session = _contents(path, project)
        except CellpathError:
            continue  # damaged: left where it is, 'cellpath project replay' may save some of it
        if (session.objects or session.painted) and len(found) < KEPT:
            found.append(session)
        else:
            discard(path)
    return found


def _contents(path: Path, project: Project) -> Abandoned:
    state = project.state
    painted = {image_of_raster(name) for name in state.rasters}
    keys = painted | {str(facts["image"]) for facts in state.objects.values()}
    names = tuple(str(facts["name"]) for key, facts in state.images.items() if key in keys)
    at = datetime.fromtimestamp((path / DATABASE).stat().st_mtime, UTC)
    return Abandoned(
        path, len(state.objects), len(painted), names, at.isoformat(timespec="seconds")
    )


def discard(folder: Path) -> None:
    """Remove a session for good; nothing else is ever removed by it."""
    if folder.parent == sessions_folder() and is_session(folder):
        shutil.rmtree(folder, ignore_errors=True)


def save_as(project: Project, name: Path | str) -> Project:
    """Copy an open project under another name and go on there.

    A session is removed once its copy is whole. The project given is closed.

    Raises
    ------
    OutputError
        There is something of that name, or it cannot be written; then the project given stays
        open and as it was.
    """
    target = project_folder(name)
    if target.exists():
        raise OutputError(f"{target} exists already; choose another name.")
    project.flush()
    draft = target.with_name(f".{secrets.token_hex(6)}{SUFFIX}")
    try:
        draft.mkdir(parents=True)
        project.copy_to(draft, target.stem)
        if (project.folder / "models").is_dir():
            shutil.copytree(project.folder / "models", draft / "models")
        draft.rename(target)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise OutputError(f"{target} could not be written ({error.strerror}).") from None
    except CellpathError:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    copy = Project.open(target, project.author)
    paths = {i.key: i.path for i in all_images(project) if i.path}
    relocate(copy, paths)
    project.close()
    discard(project.folder)
    return copy
