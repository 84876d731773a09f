"""The split ledger: on which side a slide, patient or specimen stands, for good.

A group gets its side when it is first seen and keeps it over every retraining. Until a model was
trained or measured on it a person may move it; afterwards nobody can, or the frozen part would
prove nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from napari_cellpath.core.annotations import Part
from napari_cellpath.core.errors import ProjectError
from napari_cellpath.project.events import Kind
from napari_cellpath.project.project import Project

SHARES = {Part.TRAIN: 0.6, Part.FROZEN: 0.25, Part.VALIDATION: 0.15}
"""Of the groups. With two groups one is trained on and one is frozen."""


def parts(project: Project) -> dict[str, Part]:
    """Side of every group."""
    return {group: Part(facts["part"]) for group, facts in project.state.groups.items()}


def used_by(project: Project, group: str) -> str:
    """What has trained or measured on a group, in words; empty while nothing has."""
    return str(project.state.groups.get(group, {}).get("used", ""))


def next_part(taken: Sequence[Part]) -> Part:
    """The side that is furthest below its share, for the next new group."""
    count = len(taken) + 1
    return max(SHARES, key=lambda part: SHARES[part] * count - list(taken).count(part))


def assign(project: Project, groups: Iterable[str]) -> None:
    """Put groups that have no side yet on one."""
    known = parts(project)
    new: dict[str, dict[str, str]] = {}
    for group in groups:
        if group not in known:
            known[group] = next_part(list(known.values()))
            new[group] = {"part": str(known[group])}
    if new:
        project.record(Kind.SPLIT, {"groups": new})


def move(project: Project, group: str, part: Part) -> None:
    """Put a group on another side, while nothing has used it.

    Raises
    ------
    ProjectError
        There is no such group, or a model was trained or measured on it.
    """
    have = parts(project).get(group)
    if have is None:
        raise ProjectError(f"{project.folder} has no slide, patient or specimen '{group}'.")
    used = used_by(project, group)
    if used and have is not part:
        raise ProjectError(
            f"'{group}' stays on the {have} side: {used} has used it. What was trained on can "
            "prove nothing, and what proved something must not be trained on."
        )
    project.record(Kind.SPLIT, {"groups": {group: {"part": str(part)}}})


def mark_used(project: Project, groups: Iterable[str], run: str) -> None:
    """Note that a run trained or measured on groups: their sides are fixed from now on.

    Raises
    ------
    ProjectError
        One of them is not known.
    """
    new = {}
    for group in groups:
        facts = project.state.groups.get(group)
        if facts is None:
            raise ProjectError(f"{project.folder} has no slide, patient or specimen '{group}'.")
        if not facts.get("used"):
            new[group] = {"used": run}
    if new:
        project.record(Kind.SPLIT, {"groups": new})
