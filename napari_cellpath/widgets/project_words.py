"""What was done to a project, in a sentence."""

from __future__ import annotations

from collections.abc import Iterable

from napari_cellpath.bridge.kinds import NUCLEI, kind_of_system
from napari_cellpath.core.vocabulary import System
from napari_cellpath.project import Kind, Project, Undone

_WORDS = {
    Kind.ADD: "adding",
    Kind.DELETE: "deleting",
    Kind.MOVE: "moving",
    Kind.LABEL: "labelling",
    Kind.PAINT: "painting",
    Kind.IMPORT: "the import of",
}


def words_for(systems: Iterable[System | str]) -> tuple[str, str]:
    """What one object and several are called: by their own name if all are of one system."""
    kinds = {kind_of_system(system) for system in systems} or {NUCLEI}
    kind = kinds.pop() if len(kinds) == 1 else None
    return ("object", "objects") if kind is None else (kind.one, kind.many)


def complete_words(system: System) -> str:
    """What a person is told who draws *Complete here* rectangles."""
    if system == System.HSPNET:
        return (
            "Draw rectangles in which every region is painted: what is unpainted there counts as "
            "background."
        )
    one, _ = words_for([system])
    return (
        f"Draw rectangles in which every {one} is marked: what is unmarked there counts as no "
        f"{one}."
    )


def undone(did: str, done: Undone, shown: int, project: Project | None) -> str:
    """What an undo or redo did.

    Parameters
    ----------
    did
        ``Undid`` or ``Redid``.
    done
        What was done.
    shown
        How many of the objects are on layers.
    project
        Whose objects they are.
    """
    changes = () if done.event is None else done.event.changes
    there = {} if project is None else project.state.objects
    objects = [there.get(c.uid) or c.was or c.now or {} for c in changes]
    one, many = words_for({facts.get("system", System.DEEPPAP) for facts in objects})
    if any(facts.get("complete") for facts in objects):
        one, many = "rectangle", "rectangles"
    things = f" 1 {one}" if len(changes) == 1 else f" {len(changes):,} {many}"
    if done.event is not None and done.event.strokes and not changes:
        things = ""  # a stroke of the brush is no object
    what = f"{did} {_WORDS[done.kind]}{things}."
    if done.event is None:
        what = f"Nothing was undone: {_WORDS[done.kind]} was changed in another window since."
    elif done.left:
        what += f" {done.left:,} were changed in another window since and stay as they are."
    elif not shown:
        what += " It is not on the screen now."
    return what
