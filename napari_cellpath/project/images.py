"""Images of a project: known by what they hold, wherever they lie."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from napari_cellpath.core.annotations import ImageFacts, Part
from napari_cellpath.core.errors import MissingFileError, ProjectError, UnreadableImageError
from napari_cellpath.project import ledger
from napari_cellpath.project.events import Kind
from napari_cellpath.project.project import Project

_WHOLE = 64 * 2**20
_PIECE = 4 * 2**20
_SAMPLES = 2**20


def key_of_file(path: Path | str) -> str:
    """Identity of an image file from its content: 16 hex digits.

    Of files over 64 MB, whole slides, three pieces and the length are read: a slide of gigabytes
    must open at once, and no two scans agree in them.

    Raises
    ------
    MissingFileError
        No such file.
    UnreadableImageError
        It cannot be read.
    """
    path = Path(path)
    if path.is_dir():  # OME-Zarr: its own table of contents
        digest = hashlib.sha256()
        for part in sorted(path.rglob("*.json"))[:64] + sorted(path.rglob(".z*"))[:64]:
            digest.update(part.relative_to(path).as_posix().encode())
            digest.update(part.read_bytes())
        return digest.hexdigest()[:16]
    if not path.is_file():
        raise MissingFileError(f"There is no image {path}.")
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            digest = hashlib.sha256(str(size).encode())
            if size <= _WHOLE:
                while block := file.read(_PIECE):
                    digest.update(block)
            else:
                for at in (0, size // 2, size - _PIECE):
                    file.seek(at)
                    digest.update(file.read(_PIECE))
    except OSError as error:
        raise UnreadableImageError(f"{path} cannot be read ({error.strerror}).") from None
    return digest.hexdigest()[:16]


def key_of_pixels(pixels: Any) -> str:
    """Identity of an image in memory, from its shape and a million of its values."""
    shape = tuple(int(n) for n in pixels.shape)
    step = max(1, int(np.ceil(np.sqrt(np.prod(shape[:2]) / _SAMPLES))))
    sample = np.ascontiguousarray(pixels[::step, ::step])
    digest = hashlib.sha256(f"{shape} {sample.dtype}".encode())
    digest.update(sample.tobytes())
    return digest.hexdigest()[:16]


def image_facts(project: Project, key: str) -> ImageFacts:
    """What the project knows of an image.

    Raises
    ------
    ProjectError
        It knows no such image.
    """
    facts = project.state.images.get(key)
    if facts is None:
        raise ProjectError(f"{project.folder} holds no image {key}.")
    known = {f.name for f in fields(ImageFacts)} - {"key", "path"}
    path = str(facts.get("path", ""))
    if path and not Path(path).is_absolute():
        path = str((project.folder / path).resolve())
    return ImageFacts(key=key, path=path, **{k: v for k, v in facts.items() if k in known})


def all_images(project: Project) -> Iterator[ImageFacts]:
    """Every image, in the order they came."""
    for key in project.state.images:
        yield image_facts(project, key)


def find_image(project: Project, name: str) -> ImageFacts:
    """An image by path, file name or key.

    Raises
    ------
    ProjectError
        There is none of that name, or several.
    """
    images = list(all_images(project))
    path = str(Path(name).resolve())
    found = [i for i in images if path == i.path or name == i.key]
    found = found or [i for i in images if i.name == name]
    if len(found) == 1:
        return found[0]
    if found:
        keys = ", ".join(i.key for i in found)
        raise ProjectError(f"{project.folder} holds {len(found)} images '{name}': {keys}.")
    known = ", ".join(i.name for i in images[:5]) or "none yet"
    raise ProjectError(f"{project.folder} holds no image '{name}'; it has {known}.")


def add_image(
    project: Project,
    key: str,
    name: str,
    shape: tuple[int, int],
    *,
    path: Path | str = "",
    mpp: float | None = None,
    group: str = "",
) -> ImageFacts:
    """Make an image known, and put its group on a side of the split if it has none yet.

    An image that is known keeps its group; its path and pixel size are brought up to date.

    Parameters
    ----------
    key
        From `key_of_file` or `key_of_pixels`.
    shape
        Height and width of level 0.
    group
        Slide, patient or specimen; by default the image's own name without its ending.
    """
    known = project.state.images.get(key)
    name = _own_name(project, key, name, Path(path) if path else None)
    facts: dict[str, Any] = {"name": name, "height": shape[0], "width": shape[1]}
    if path:
        facts["path"] = _path_in(project.folder, Path(path))
    if mpp is not None:
        facts["mpp"] = mpp
    if known is None:
        facts["group"] = group or (str(Path(name).with_suffix("")) if path else name)
    project.record(Kind.IMAGE, {"images": {key: facts}})
    ledger.assign(project, [project.state.images[key]["group"]])
    return image_facts(project, key)


def _own_name(project: Project, key: str, name: str, path: Path | None) -> str:
    """A name no other image of the project has: patient1/001.jpg beside another 001.jpg."""
    others = {f["name"] for k, f in project.state.images.items() if k != key}
    parents = list(path.resolve().parents) if path is not None else []
    for parent in parents:
        if name not in others or not parent.name:
            break
        name = f"{parent.name}/{name}"
    number = 2
    base = name
    while name in others:
        name, number = f"{base} ({number})", number + 1
    return name


def relocate(project: Project, paths: Mapping[str, str]) -> None:
    """Say where images lie: key -> absolute path."""
    images = {key: {"path": _path_in(project.folder, Path(p))} for key, p in paths.items()}
    project.record(Kind.IMAGE, {"images": images})


def _path_in(folder: Path, path: Path) -> str:
    """Relative where the image lies in or beside the project: both may be moved together."""
    path, folder = path.resolve(), folder.resolve()
    for base, up in ((folder, ""), (folder.parent, "../")):
        if path.is_relative_to(base):
            return up + path.relative_to(base).as_posix()
    return str(path)


def set_group(project: Project, key: str, group: str) -> None:
    """Say which slide, patient or specimen an image is of.

    Raises
    ------
    ProjectError
        Something was trained or measured on it, and the other group is on another side.
    """
    before = image_facts(project, key).group
    group = group.strip()
    if not group:
        raise ProjectError("A slide, patient or specimen needs a name.")
    if group == before:
        return
    used = ledger.used_by(project, before)
    parts = ledger.parts(project)
    if used and parts.get(group, None) is not parts.get(before):
        there = parts.get(group)
        raise ProjectError(
            f"{image_facts(project, key).name} stays in '{before}': {used} has used it on the "
            f"{parts[before]} side"
            + (f", and '{group}' is on the {there} side." if there is not None else ".")
        )
    project.record(Kind.IMAGE, {"images": {key: {"group": group}}})
    ledger.assign(project, [group])


def by_part(project: Project) -> dict[Part, list[ImageFacts]]:
    """Images by their side of the split."""
    parts = ledger.parts(project)
    sides: dict[Part, list[ImageFacts]] = {part: [] for part in Part}
    for image in all_images(project):
        sides[parts[image.group]].append(image)
    return sides
