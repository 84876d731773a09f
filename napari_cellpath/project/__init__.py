"""Projects: the journal of every edit, undo, the split ledger, import and export.

A project is a folder ``NAME.cellpath``. Its ``project.db`` holds the journal: append-only events,
each with both sides of what it changed, its author and its time. What a project holds now is the
sum of its events.
"""

from napari_cellpath.project.events import Event, Kind, Stroke
from napari_cellpath.project.painted import painted
from napari_cellpath.project.project import Project, Undone, project_folder
from napari_cellpath.project.reading import labelled

__all__ = ["Event", "Kind", "Project", "Stroke", "Undone", "labelled", "painted", "project_folder"]
