"""Find a model by name or folder; never put another in its place.

Searched in order: folders in ``CELLPATH_MODELS``, the user's own models, the checkout's
``weights/``, the starters that travel with the wheel, the download cache.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

import platformdirs

from napari_cellpath.core.errors import CellpathError, UnknownNameError
from napari_cellpath.core.vocabulary import System
from napari_cellpath.models.download import download_starter, known_starters
from napari_cellpath.models.format import INFO, ModelInfo, read_card, read_info

DEFAULT_MODELS: dict[System, str] = {
    System.DEEPPAP: "deeppap-herlev",
    System.RBC: "rbc-chula",
    System.HEP2: "hep2-i3a",
    System.HSPNET: "hspnet-glas-colon",
}
"""What a widget offers first; the starter of each system."""


@dataclass(frozen=True)
class ModelEntry:
    """A model that was found: its folder and what its ``model.json`` says."""

    name: str
    folder: Path
    info: ModelInfo

    @property
    def label(self) -> str:
        """Name and short hash, as written beside results."""
        return f"{self.name}@{self.info.sha256[:8]}"

    @cached_property
    def card(self) -> str:
        """The card's Markdown."""
        return read_card(self.folder)


def user_models_folder() -> Path:
    """Where the models lie that this user trained or imported."""
    return Path(platformdirs.user_data_path("napari-cellpath", appauthor=False)) / "models"


def search_folders() -> list[Path]:
    """Every folder that is searched, in order; those that do not exist included."""
    folders = [Path(p) for p in os.environ.get("CELLPATH_MODELS", "").split(os.pathsep) if p]
    folders.append(user_models_folder())
    checkout = Path(__file__).resolve().parents[2]
    if (checkout / "pyproject.toml").is_file():
        folders.append(checkout / "weights")
    spec = find_spec("napari_cellpath_weights")
    if spec is not None and spec.submodule_search_locations:
        folders.extend(Path(p) for p in spec.submodule_search_locations)
    folders.append(
        Path(platformdirs.user_cache_path("napari-cellpath", appauthor=False)) / "models"
    )
    return folders


def _model_folders(root: Path) -> Iterator[Path]:
    """Folders with a model.json: ``root/NAME`` or ``root/NAME/VERSION``, newest version first."""
    try:
        known = [p for p in root.iterdir() if p.is_dir() and not p.name.startswith(".")]
    except OSError:  # not there, or not ours to read
        return
    for folder in sorted(known):
        try:
            if (folder / INFO).is_file():
                yield folder
                continue
            versions = [p for p in folder.iterdir() if (p / INFO).is_file()]
        except OSError:
            continue
        yield from sorted(versions, key=_version_key, reverse=True)


def _version_key(folder: Path) -> tuple[tuple[int, str], ...]:
    parts = folder.name.replace("-", ".").split(".")
    return tuple((int(p), "") if p.isdigit() else (-1, p) for p in parts)


def list_models(system: System | str | None = None, first: Sequence[Path] = ()) -> list[ModelEntry]:
    """Every usable model, the first of each name; damaged folders are left out.

    Folders of ``first``, those of an open project, are searched before the others.

    ``cellpath models verify`` names the damaged ones.
    """
    found: dict[str, ModelEntry] = {}
    for root in (*first, *search_folders()):
        for folder in _model_folders(root):
            try:
                info = read_info(folder)
            except CellpathError:
                continue
            if info.name not in found and (system is None or info.system == system):
                found[info.name] = ModelEntry(info.name, folder, info)
    return sorted(found.values(), key=lambda e: (e.name not in DEFAULT_MODELS.values(), e.name))


def find_model(name: str | Path, system: System | str | None = None) -> ModelEntry:
    """The model of a folder, a name, or ``name@`` and the first digits of its hash.

    Parameters
    ----------
    name
        A path is taken as a folder; anything else is looked up by name.
    system
        If given, a model of another system is refused.

    Raises
    ------
    UnknownNameError
        No model of that name; the sentence lists those there are.
    ModelError
        Found, but damaged or of another system.
    """
    text = str(name)
    entry = _entry_of_folder(Path(text)) if _looks_like_path(text) else _entry_by_name(text)
    if system is not None and entry.info.system != system:
        raise UnknownNameError(
            f"The model '{entry.name}' ({entry.folder}) is a {entry.info.system} model, "
            f"not a {System(system)} one; those are "
            f"{', '.join(e.name for e in list_models(system)) or 'not on this machine'}."
        )
    return entry


def _looks_like_path(text: str) -> bool:
    return os.sep in text or "/" in text or text in {".", ".."} or Path(text).exists()


def _entry_of_folder(folder: Path) -> ModelEntry:
    info = read_info(folder)
    return ModelEntry(info.name, folder.resolve(), info)


def _entry_by_name(text: str) -> ModelEntry:
    name, _, digits = text.partition("@")
    for root in search_folders():
        for folder in _model_folders(root):
            if name not in (folder.name, folder.parent.name):
                continue
            entry = _entry_of_folder(folder)  # damaged: say so, do not look for another
            if entry.name == name and entry.info.sha256.startswith(digits):
                return entry
    if name in known_starters() and not digits:
        return _entry_of_folder(download_starter(name, search_folders()[-1]))
    available = ", ".join(e.name for e in list_models()) or "none"
    raise UnknownNameError(
        f"There is no model '{text}'. Available: {available}. A folder is given with its path."
    )
