"""Which project the viewer's objects belong to; records them, undoes, recovers.

One keeper a viewer, shared by its docks. Until the user names a project, gestures go to a session
of their own (`project.unsaved`), so nothing is ever lost.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from napari.layers import Image, Labels
from napari.utils.notifications import show_error, show_info, show_warning
from psygnal import Signal

from napari_cellpath.bridge import conventions, painting
from napari_cellpath.bridge.kinds import NUCLEI
from napari_cellpath.bridge.kinds import Kind as ObjectKind
from napari_cellpath.bridge.objects import ObjectLayer
from napari_cellpath.bridge.recording import ObjectRecorder, Snapshot
from napari_cellpath.bridge.sources import Source
from napari_cellpath.bridge.tissue import Piece
from napari_cellpath.core.errors import CellpathError
from napari_cellpath.core.vocabulary import System
from napari_cellpath.project import Event, Project, Undone, unsaved
from napari_cellpath.project.painted import raster_name
from napari_cellpath.project.state import Raster
from napari_cellpath.widgets.areas import Areas
from napari_cellpath.widgets.door import Door
from napari_cellpath.widgets.exchanging import image_to_open, know, take_in, write_out
from napari_cellpath.widgets.project_words import complete_words, undone, words_for

_keepers: weakref.WeakKeyDictionary[Any, Keeper] = weakref.WeakKeyDictionary()


class Keeper:
    """The project of one viewer.

    Attributes
    ----------
    project
        None until the first gesture or until one is opened.
    """

    changed = Signal()
    """Another project, something was saved, or there is something else to undo."""
    told = Signal(str, str)
    """Severity and a sentence for the user."""
    switched = Signal()
    """Another project is open."""
    model_wanted = Signal(Path)
    """Folder of a model that the docks are to use now."""
    image_found = Signal(object)
    """`ImageFacts` of an image of the project that should be opened."""

    def __init__(self) -> None:
        self.project: Project | None = None
        self._recorders: dict[ObjectLayer, ObjectRecorder] = {}
        self._known: dict[ObjectLayer, Source] = {}
        self._areas = Areas({"undo": self.undo, "redo": self.redo})
        self.held_back = ""
        """Why nothing may be undone now; empty while it may."""
        self._refused = False
        self._door = Door(lambda _events: None)
        self._docks = 0
        self._closed: Path | None = None
        self._snapshots: weakref.WeakKeyDictionary[Any, Snapshot] = weakref.WeakKeyDictionary()
        self.told.connect(_notify)

    @classmethod
    def of(cls, viewer: Any) -> Keeper:
        """The keeper of a viewer, made when first asked for."""
        if viewer not in _keepers:
            _keepers[viewer] = cls()
        return _keepers[viewer]

    def enter(self) -> None:
        """A dock begins to use it; the first goes on with the project that the last one left."""
        self._docks += 1
        folder, self._closed = self._closed, None
        if folder is None or self.project is not None:
            return
        try:
            named = not unsaved.is_session(folder)
            project = Project.open(folder) if named else unsaved.recover(folder)
            self._take(project)
            self._areas.take_up(project)
        except CellpathError as error:
            self.told.emit("warning", f"{folder.name} is not gone on with: {error}")

    def leave(self) -> None:
        """A dock is done with it; the last one closes the project. Every gesture is on disk."""
        self._docks -= 1
        if self._docks <= 0:
            for objects in list(self._recorders):
                self.forget(objects)
            if self.project is not None:
                self._areas.leave(self.project)
            self._drop_recorders()
            self._known.clear()
            if self.project is not None:
                self._closed = self.project.folder
                self.project.close()
                self.project = None

    # What is recorded.

    def watch(self, objects: ObjectLayer, source: Source | None) -> None:
        """Record a layer of objects from now on, if what its image is is known."""
        if source is None or not source.key or objects in self._known:
            return  # another dock had it watched
        self._known[objects] = source
        objects.happened.connect(self._on_first_gesture)
        if self.project is not None or len(objects):
            self._ready()

    def forget(self, objects: ObjectLayer) -> None:
        """Nothing follows a layer any more; the project keeps its objects.

        Should it be followed again, what was done to it in between goes to the project.
        """
        self._known.pop(objects, None)
        objects.happened.disconnect(self._on_first_gesture, missing_ok=True)
        recorder = self._recorders.pop(objects, None)
        if recorder is not None:
            self._snapshots[objects.layer] = recorder.snapshot()
            recorder.close()

    def holds(self, source: Source | None, system: System) -> bool:
        """Whether the project has objects of a system on an image."""
        if self.project is None or source is None:
            return False
        return any(
            o["image"] == source.key and o.get("system", System.DEEPPAP) == system
            for o in self.project.state.objects.values()
        )

    def group_of(self, source: Source | None) -> str:
        """Slide, patient or specimen of an image of the project; empty if it knows none."""
        if self.project is None or source is None:
            return ""
        return str(self.project.state.images.get(source.key, {}).get("group", ""))

    def _on_first_gesture(self, *_: Any) -> None:
        self._ready()

    def _ready(self) -> Project | None:
        """The project, begun if there is none, with every layer recorded; None where it cannot."""
        if self.project is None:
            self._begin()
        images = {} if self.project is None else self.project.state.images
        for objects, source in list(self._known.items()):
            # An image that is merely open is none of the project's business yet.
            if objects not in self._recorders and (len(objects) or source.key in images):
                self._record(objects)
        return self.project

    def _record(self, objects: ObjectLayer) -> None:
        project = self.project
        if project is None:
            return
        objects.happened.disconnect(self._on_first_gesture, missing_ok=True)
        source = self._known[objects]
        kind = objects.kind
        if any((r.image, r.kind) == (source.key, kind) for r in self._recorders.values()):
            # Two sets of objects of one image would give one cell two truths to learn from.
            self.told.emit(
                "warning",
                f"'{objects.layer.name}' is a second {kind.many} layer of its image and is not "
                "kept in the project; export it if it is to last.",
            )
            return
        try:
            know(project, source, objects.shape)
            since = self._snapshots.pop(objects.layer, None)
            self._recorders[objects] = ObjectRecorder(objects, project, source.key, since)
        except CellpathError as error:
            self.told.emit("error", str(error))
        self.changed.emit()

    def mark_complete(
        self, viewer: Any, image: Image, source: Source | None, kind: ObjectKind | None = NUCLEI
    ) -> None:
        """Let the user draw rectangles in which everything of a kind is marked; None: painted."""
        system = System.HSPNET if kind is None else kind.system

        def ready(project: Project, source: Source) -> Any:
            return self._areas.ready(viewer, image, project, source, system)

        layer = self._drawing_on(image, source, ready)
        if layer is not None:
            viewer.layers.selection.active = layer
            layer.mode = "add_rectangle"
            self.told.emit("info", complete_words(system))

    def ready_to_paint(
        self, viewer: Any, image: Image, source: Source | None, window: painting.Box,
        names: Sequence[str], colours: Sequence[str],
    ) -> Labels | None:  # fmt: skip
        """The layer to paint classes on, over a window of an image; None where it cannot be."""

        def ready(project: Project, source: Source) -> Any:
            args = viewer, image, project, source, window, names, colours
            return self._areas.ready_to_paint(*args)

        return self._drawing_on(image, source, ready)

    def _drawing_on(
        self, image: Image, source: Source | None, ready: Callable[[Project, Source], Any]
    ) -> Any:
        """What ``ready`` gives, once the project knows the image; None where it cannot be."""
        project = self._ready()
        if project is None or source is None or not source.key:
            self.told.emit("warning", f"'{image.name}' is still being read; try again.")
            return None
        try:
            know(project, source, conventions.image_shape(image))
            return ready(project, source)
        except CellpathError as error:
            self.told.emit("error", str(error))
            return None

    def paint(self, source: Source, pieces: Sequence[Piece]) -> bool:
        """Paint windows of a known image as one gesture; whether that changed anything."""
        if self.project is None:
            return False
        done = self._areas.paint(self.project, source.key, pieces)
        self.changed.emit()
        return done is not None

    def painted(self, source: Source | None) -> Raster | None:
        """What was painted over an image; None for nothing."""
        if self.project is None or source is None:
            return None
        return self.project.state.rasters.get(raster_name(source.key))

    def show_areas(self, viewer: Any, image: Image, source: Source | None, system: System) -> None:
        """Show a system's rectangles and painted classes that the project holds of an image."""
        if self.project is not None and source is not None:
            self._areas.show(viewer, image, self.project, source, system)

    def _begin(self) -> None:
        if self._refused:
            return
        try:
            self._take(unsaved.begin())
        except CellpathError as error:
            self._refused = True  # say it once
            self.told.emit("warning", f"Edits are not kept: {error}")

    # What the user does.

    def undo(self) -> None:
        """Take the last gesture back."""
        self._go("undo", "Undid")

    def redo(self) -> None:
        """Make the gesture that was undone again."""
        self._go("redo", "Redid")

    def _go(self, way: str, did: str) -> None:
        if self.held_back:
            self.told.emit("info", self.held_back)
            return
        try:
            done: Undone | None = None if self.project is None else getattr(self.project, way)()
        except CellpathError as error:
            self.told.emit("error", str(error))
            return
        if done is None:
            self.told.emit("info", f"Nothing to {way}.")
            return
        shown = self._replay([done.event] if done.event else [])
        self.told.emit("info", undone(did, done, shown, self.project))
        self.changed.emit()

    def open(self, folder: Path | str) -> bool:
        """Turn to another project; returns whether it worked.

        What is in the viewer stays in the project it is of and makes room for this one's. Only
        nuclei of no project at all join it.
        """
        try:
            if self.project is not None and Path(folder).resolve() == self.project.folder.resolve():
                self.told.emit("info", f"{self.project.name} is open already.")
                return True
            if self.project is not None:
                self.project.flush()  # else what a full disk holds up would be lost
            project = Project.open(folder)
        except CellpathError as error:
            self.told.emit("error", str(error))
            return False
        self._switch(project)
        return True

    def recover(self, session: unsaved.Abandoned) -> bool:
        """Go on with a session that was not closed; returns whether it worked."""
        try:
            if self.project is not None:
                self.project.flush()
            project = unsaved.recover(session.folder)
        except CellpathError as error:
            self.told.emit("error", str(error))
            return False
        self._switch(project)
        return True

    def save_as(self, folder: Path | str) -> bool:
        """Give the project a name of the user's, and go on there."""
        try:
            if self.project is None:
                project = Project.create(folder)
            else:
                project = unsaved.save_as(self.project, folder)
        except CellpathError as error:
            self.told.emit("error", str(error))
            return False
        self._switch(project, same=True)
        self.told.emit("info", f"Saved as {project.folder}; every edit is saved from now on.")
        return True

    def import_file(
        self,
        path: Path,
        image: Image,
        source: Source | None,
        system: System = System.DEEPPAP,
        classes: Sequence[str] = (),
    ) -> None:
        """Take annotations of an image in from a file; they can be undone like any edit."""
        project = self._ready()
        if project is None or source is None or not source.key:
            self.told.emit("warning", f"'{image.name}' is still being read; try again.")
            return
        try:
            know(project, source, conventions.image_shape(image))
            self._ready()  # its layer of objects is the project's now
            said = take_in(project, path, source, system, classes)
        except CellpathError as error:
            self.told.emit("error", str(error))
            return
        if project.last_event is not None:
            self._replay([project.last_event])
        self.told.emit("info", said)
        self.changed.emit()

    def export_file(
        self, path: Path, source: Source | None, system: System = System.DEEPPAP
    ) -> None:
        """Write annotations: those of an image where the format holds one, else all."""
        try:
            self.told.emit("info", write_out(self.project, path, source, system))
        except CellpathError as error:
            self.told.emit("error", str(error))

    def _switch(self, project: Project, *, same: bool = False) -> None:
        """Turn to another project, or (``same``) to this one under another name."""
        old, stays = self.project, 0
        recorded = set(self._recorders)
        areas = self._areas.drop()
        self._drop_recorders()
        if not same:
            self._snapshots.clear()
        self._take(project)
        if old is not None:
            old.close()  # a session stays where it is, and can be recovered
        for objects in recorded if not same else ():
            stays += len(objects)
            objects.take_away([str(uid) for uid in objects.table.uids])
        for objects in self._known:
            objects.happened.disconnect(self._on_first_gesture, missing_ok=True)
            objects.happened.connect(self._on_first_gesture)
        self._ready()
        self._areas.take_over(areas, project, same=same)
        if stays and old is not None:
            words = words_for({n.kind.system for n in recorded})[1]
            self.told.emit("info", f"{stays:,} {words} that were shown stay in {old.folder.name}.")
        self.changed.emit()
        self.switched.emit()
        wanted = image_to_open(project, {source.key for source in self._known.values()})
        if wanted is not None:
            self.image_found.emit(wanted)

    def _take(self, project: Project) -> None:
        self.project = project
        me = weakref.ref(self)

        def on_activity() -> None:
            keeper = me()
            if keeper is not None:
                keeper._door.call(keeper._settle)

        project.on_activity = on_activity

    def _drop_recorders(self) -> None:
        for recorder in self._recorders.values():
            recorder.close()
        self._recorders.clear()
        self._areas.drop()

    def _settle(self) -> None:
        if self.project is None:
            return
        foreign = self.project.settle()
        if foreign:
            shown = self._replay(foreign)
            names = ", ".join(sorted({e.author for e in foreign}))
            if shown:
                self.told.emit("info", f"{names} changed {shown:,} objects in another window.")
        self.changed.emit()

    def _replay(self, events: list[Event]) -> int:
        shown = sum(recorder.replay(events) for recorder in self._recorders.values())
        return shown + self._areas.replay(events)


def _notify(severity: str, sentence: str) -> None:
    # Here and not in the docks: several of them share one keeper.
    {"error": show_error, "warning": show_warning}.get(severity, show_info)(sentence)
