"""The line at the foot of every dock: which project, whether it is saved, undo and redo."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from npe2 import PluginManager
from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QMenu,
    QSizePolicy,
    QToolButton,
    QWidget,
)

from napari_cellpath.core.annotations import ImageFacts
from napari_cellpath.project import unsaved
from napari_cellpath.project.images import all_images
from napari_cellpath.project.project import SUFFIX
from napari_cellpath.widgets.keeper import Keeper
from napari_cellpath.widgets.keys import shortcut_of
from napari_cellpath.widgets.settings import PLUGIN
from napari_cellpath.widgets.split import SplitDialog


class ProjectBar(QWidget):
    """Shows a keeper's project and offers what can be done with it.

    Parameters
    ----------
    viewer
        Images of a project are opened in it.
    keeper
        Holds the project.
    marks
        Whether the dock is about one image, in which areas can be marked complete.
    """

    complete_wanted = Signal()
    """The user wants to draw rectangles in which everything is marked."""
    import_wanted = Signal(Path)
    export_wanted = Signal(Path)
    """Annotations of the dock's image from, or to, a file."""

    def __init__(
        self, viewer: Any, keeper: Keeper, *, marks: bool = False, parent: QWidget | None = None
    ) -> None:
        super().__init__(parent)
        self._viewer, self._keeper, self._marks = viewer, keeper, marks
        self._areas = marks
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(4)
        self.menu_button = QToolButton()
        self.menu_button.setText("Project  ")  # room for the arrow
        self.menu_button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.menu = QMenu(self)
        self.menu.aboutToShow.connect(self._fill_menu)
        self.menu_button.setMenu(self.menu)
        self.state = QLabel()
        self.state.setObjectName("cellpath-quiet")
        self.state.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.undo = self._way("↶", keeper.undo)
        self.redo = self._way("↷", keeper.redo)
        row.addWidget(self.menu_button)
        row.addWidget(self.state, 1)
        row.addWidget(self.undo)
        row.addWidget(self.redo)
        keeper.changed.connect(self.show_state)
        keeper.image_found.connect(self.open_image)
        self.show_state()

    def leave_out_areas(self) -> None:
        """Offer no *Complete here*: the dock has no use for it."""
        self._areas = False

    def let_go(self) -> None:
        """Hear no more of the keeper."""
        self._keeper.changed.disconnect(self.show_state, missing_ok=True)
        self._keeper.image_found.disconnect(self.open_image, missing_ok=True)

    def _way(self, sign: str, action: Any) -> QToolButton:
        button = QToolButton()
        button.setText(sign)
        button.setAutoRaise(True)
        button.clicked.connect(lambda: action())
        return button

    def show_state(self) -> None:
        """Say which project it is, whether everything is on disk, and what can be undone."""
        project = self._keeper.project
        if project is None:
            lost = self._lost()
            text = "no edits yet"
            if lost:
                text = "an earlier session can be recovered" if len(lost) == 1 else (
                    f"{len(lost)} earlier sessions can be recovered"
                )  # fmt: skip
            self.state.setText(text)
            self.state.setToolTip("Every edit is kept from the first one on.")
        else:
            named = not unsaved.is_session(project.folder)
            name = project.folder.name if named else "session without a name"
            if project.trouble:
                saved = "NOT SAVED"
            else:
                saved = "saving…" if project.unsaved else "saved" if named else "kept"
            self.state.setText(f"{name} · {saved}")
            self.state.setToolTip(
                project.trouble
                or (
                    f"{project.folder}: every edit is saved at once."
                    if named
                    else "Every edit is kept and can be recovered; Project, Save as gives it a "
                    "place of its own."
                )
            )
        undo = None if project is None else project.undo_kind
        redo = None if project is None else project.redo_kind
        for button, way, kind in ((self.undo, "undo", undo), (self.redo, "redo", redo)):
            button.setEnabled(kind is not None)
            what = f" {kind}" if kind is not None else ""
            button.setToolTip(f"{way.capitalize()}{what} ({shortcut_of(way)})")

    def _lost(self) -> list[unsaved.Abandoned]:
        if not hasattr(self, "_abandoned"):
            self._abandoned = unsaved.abandoned()  # looked for once, when the dock opens
        return self._abandoned

    def _fill_menu(self) -> None:
        menu, project = self.menu, self._keeper.project
        menu.clear()
        menu.addAction("Open project…", self._ask_open)
        menu.addAction("Save project as…", self._ask_save)
        if project is not None and project.state.images:
            images = menu.addMenu("Open image")
            counts: dict[str, int] = {}
            for facts in project.state.objects.values():
                counts[facts["image"]] = counts.get(facts["image"], 0) + 1
            for image in all_images(project):
                text = f"{image.name} ({counts.get(image.key, 0):,})".replace("&", "&&")
                action = images.addAction(text, lambda image=image: self.open_image(image))
                action.setEnabled(bool(image.path))
        if self._marks:
            menu.addAction("Import annotations…", self._ask_import)
            menu.addAction("Export annotations…", self._ask_export).setEnabled(project is not None)
            if self._areas:
                menu.addAction("Complete here…", self.complete_wanted.emit)
        split = menu.addAction("Split…", self.show_split)
        split.setEnabled(project is not None and bool(project.state.images))
        lost = [s for s in self._lost() if project is None or s.folder != project.folder]
        if lost:
            recover = menu.addMenu("Recover")
            for session in lost:
                recover.addAction(_described(session), lambda s=session: self._recover(s))

    def show_split(self) -> None:
        """Show which image stands on which side of the split."""
        if self._keeper.project is not None:
            SplitDialog(self._keeper.project, self).show()

    def _recover(self, session: unsaved.Abandoned) -> None:
        if self._keeper.recover(session):
            self._abandoned = [s for s in self._lost() if s is not session]
            self.show_state()

    def _ask_open(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, f"Open a project (NAME{SUFFIX})")
        if folder:
            self._keeper.open(folder)

    def _ask_save(self) -> None:
        name, _ = QFileDialog.getSaveFileName(
            self, "Save project as", f"cells{SUFFIX}", f"Project (*{SUFFIX})",
            options=QFileDialog.Option.DontConfirmOverwrite,
        )  # fmt: skip
        if name:
            self._keeper.save_as(name)

    def _ask_import(self) -> None:
        name, _ = QFileDialog.getOpenFileName(
            self, "Import annotations",
            filter="QuPath GeoJSON, COCO, CSV, label TIFF (*.geojson *.json *.csv *.tif *.tiff)",
        )  # fmt: skip
        if name:
            self.import_wanted.emit(Path(name))

    def _ask_export(self) -> None:
        name, _ = QFileDialog.getSaveFileName(
            self, "Export annotations", "annotations.geojson",
            "QuPath GeoJSON (*.geojson);;COCO (*.json);;CSV (*.csv);;Label TIFF (*.tif)",
        )  # fmt: skip
        if name:
            self.export_wanted.emit(Path(name))

    def open_image(self, image: ImageFacts) -> None:
        """Open an image of the project in the viewer, unless it is open."""
        if any(str(layer.source.path or "") == image.path for layer in self._viewer.layers):
            return
        if not Path(image.path).is_file() and not Path(image.path).is_dir():
            self._keeper.told.emit(
                "warning",
                f"The image {image.path or image.name} is not there; open it from where it lies "
                "now, and its cells come back.",
            )
            return
        readers = PluginManager.instance().iter_compatible_readers([image.path])
        ours = any(reader.plugin_name == PLUGIN for reader in readers)  # PNG, JPEG: napari's own
        self._viewer.open(image.path, plugin=PLUGIN if ours else None)


def _described(session: unsaved.Abandoned) -> str:
    at = datetime.fromisoformat(session.at).astimezone().strftime("%d %b %H:%M")
    names = session.images[0] if session.images else "an image"
    more = f" and {len(session.images) - 1} more" if len(session.images) > 1 else ""
    objects = "1 object" if session.objects == 1 else f"{session.objects:,} objects"
    parts = [objects] * bool(session.objects) + ["paint"] * bool(session.painted)
    things = " and ".join(parts)
    return f"{things} of {names}{more}, {at}".replace("&", "&&")
