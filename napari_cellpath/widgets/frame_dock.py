"""What every dock shares, objects or none: frame, models, project, and the wires between them.

The frame's wishes go to the session, the session's news to the frame.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from napari.utils.notifications import show_error, show_info, show_warning
from qtpy.QtCore import QEvent, Qt, QTimer
from qtpy.QtGui import QGuiApplication, QKeySequence
from qtpy.QtWidgets import QMenu, QShortcut, QVBoxLayout, QWidget

from napari_cellpath.core.errors import CellpathError, OutputError
from napari_cellpath.models import ModelEntry, find_model
from napari_cellpath.models.registry import DEFAULT_MODELS
from napari_cellpath.project import trained
from napari_cellpath.widgets import model_card
from napari_cellpath.widgets.frame import DockFrame
from napari_cellpath.widgets.image_session import ImageSession
from napari_cellpath.widgets.keys import SHEET_KEY, KeySheet
from napari_cellpath.widgets.project_bar import ProjectBar
from napari_cellpath.widgets.sections import Choice
from napari_cellpath.widgets.table import Column

STATUS_EVERY = 3000  # ms between asking the worker how it is, while the dock can be seen
ModelLister = Callable[[Sequence[Path]], list[ModelEntry]]


class FrameDock(QWidget):
    """A dock about one image.

    Parameters
    ----------
    session
        Its state.
    models
        Lists the models to choose from, those of the given folders first.
    title, primary
        Of the dock, and of its primary button.
    columns
        Of its table.
    """

    def __init__(
        self,
        session: ImageSession,
        models: ModelLister,
        title: str,
        primary: str,
        columns: Sequence[Column],
    ) -> None:
        super().__init__()
        self.setWindowTitle(title)
        self.session: Any = session
        self._list_models = models
        self._models = {e.name: e for e in models([])}
        self._model_choices = _choices(self._models)
        self._docked = False
        self._exported_to = ""
        self.frame = DockFrame(primary, columns)
        keeper = session.keeper
        self.project = ProjectBar(session.viewer, keeper, marks=True)
        keeper.switched.connect(self._use_projects_model)
        keeper.model_wanted.connect(self._use_model)
        self.project.import_wanted.connect(self._import)
        self.project.export_wanted.connect(self._export)
        self.frame.add_foot(self.project)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.frame)
        self.setSizePolicy(self.frame.sizePolicy())
        self._menu = QMenu(self)
        self._sheet_key = QShortcut(QKeySequence(SHEET_KEY), self)
        self._sheet_key.setContext(Qt.ShortcutContext.WindowShortcut)
        self._sheet_key.activated.connect(self.show_keys)
        self._status_timer = QTimer(self)
        self._status_timer.setInterval(STATUS_EVERY)
        self._status_timer.timeout.connect(self._ask_status)
        self._status_timer.start()
        self._connect_frame()
        self.destroyed.connect(session.close)

    @staticmethod
    def first_model(models: ModelLister, system: Any, wanted: str = "") -> ModelEntry | None:
        """The model a dock begins with: the one wanted, else the starter, else any there is."""
        there = {e.name: e for e in models([])}
        chosen = wanted or DEFAULT_MODELS.get(system, "")
        if not wanted and chosen not in there and there:
            chosen = next(iter(there))
        return there.get(chosen)

    def _connect_frame(self) -> None:
        frame, session = self.frame, self.session
        # What was said of another image or pixel size is no longer so.
        frame.subject.image_chosen.connect(lambda _image: frame.job.set_message(""))
        frame.subject.mpp_edited.connect(lambda _mpp: frame.job.set_message(""))
        frame.subject.image_chosen.connect(session.choose_image)
        frame.subject.model_chosen.connect(lambda name: session.use(entry=self._models.get(name)))
        frame.subject.mpp_edited.connect(session.choose_mpp)
        frame.subject.mpp_refused.connect(lambda sentence: self._tell("error", sentence))
        frame.job.cancel_requested.connect(session.inquiry.cancel)
        frame.job.free_memory_requested.connect(session.inquiry.free_memory)
        frame.out.copy_requested.connect(self.copy_command)
        frame.out.keys_requested.connect(self.show_keys)
        session.images_changed.connect(self._show_images)
        session.subject_changed.connect(self.show_subject)
        session.reading_changed.connect(self.show_reading)
        session.told.connect(self._tell)
        session.inquiry.status_changed.connect(frame.job.set_status)

    def _import(self, path: Path) -> None:
        session = self.session
        if session.image is not None and session.ready() is not None:
            session.keeper.import_file(path, session.image, session.source, session.system)

    def _export(self, path: Path) -> None:
        self.session.keeper.export_file(path, self.session.source, self.session.system)

    def command(self, exported: str) -> str:
        """The equivalent command line, with what was exported, or would be, to this file.

        Raises
        ------
        CellpathError
            There is none.
        """
        raise NotImplementedError

    def suggested_export(self) -> str:
        """Where results would be exported to."""
        raise NotImplementedError

    def check_export(self, path: Path, endings: Sequence[str]) -> None:
        """Refuse to export to a file of another ending, or over an image that is open.

        Raises
        ------
        OutputError
            Nothing was written.
        """
        if not path.name.lower().endswith(tuple(endings)):
            raise OutputError(
                f"{path.name} would be a {' or '.join(endings)} file; give it that ending."
            )
        target = path.resolve()
        for layer in self.session.viewer.layers:
            opened = layer.source.path
            if opened and Path(str(opened)).resolve() == target:
                raise OutputError(f"{path} is open as ‘{layer.name}’; choose another file.")

    def copied(self, exported: str) -> str:
        """What is said once a command was copied; ``exported`` is where results would go."""
        raise NotImplementedError

    def copy_command(self) -> None:
        """Put the equivalent command line on the clipboard."""
        exported = self._exported_to or self.suggested_export()
        try:
            command = self.command(exported)
        except CellpathError as error:
            self._tell("error", str(error))
            return
        clipboard = QGuiApplication.clipboard()
        if clipboard is not None:
            clipboard.setText(command)
        self._tell("info", self.copied(exported))

    def show_keys(self) -> None:
        """Show the key sheet."""
        raise NotImplementedError

    def open_sheet(self, kind: Any) -> None:
        """Show the key sheet of layers of a kind."""
        KeySheet(self.session.method.classes, kind, self).show()

    # Models.

    def _use_projects_model(self) -> None:
        """Offer the models of the project that was opened, and use its default."""
        project = self.session.keeper.project
        system = self.session.system
        self._take_model(None if project is None else trained.default_model(project, system))

    def _use_model(self, folder: Path) -> None:
        """Use a model that was just made, if it is one of this system."""
        if find_model(folder).info.system == self.session.system:
            self._take_model(folder)

    def _take_model(self, folder: Path | None) -> None:
        """Look for models again and, where one is given, use that."""
        project = self.session.keeper.project
        first = [] if project is None else [project.folder / trained.MODELS]
        self._models = {e.name: e for e in self._list_models(first)}
        entry = next((e for e in self._models.values() if e.folder == folder), None)
        if folder is not None and entry is None:  # an older version of one that is listed
            entry = find_model(folder, self.session.system)
            self._models[entry.name] = entry
        self._model_choices = _choices(self._models)
        if entry is not None:
            self.session.use(entry=entry)
        self.show_subject()

    # The session's news.

    def _show_images(self) -> None:
        choices = [Choice(image, image.name, image.name) for image in self.session.images]
        self.frame.subject.set_images(choices, self.session.image)

    @property
    def can_work(self) -> bool:
        """Whether there is a model, and an image that can be read."""
        session = self.session
        refused = session.inquiry.refusal(session.image)
        return session.method.entry is not None and session.image is not None and not refused

    def show_subject(self) -> None:
        """Show image, model and pixel size."""
        self._show_images()
        session = self.session
        source, entry = session.source, session.method.entry
        refused = session.inquiry.refusal(session.image)
        if source is not None:
            self.frame.subject.set_scale(source.mpp, source.origin)
        else:
            waiting = "cannot be read" if refused else "looking…" if session.image else ""
            self.frame.subject.set_scale(None, waiting)
        self.frame.subject.set_models(self._model_choices, entry.name if entry else "")
        self.frame.subject.accuracy.setText(
            _sentence(model_card.measured(entry.info)) if entry else self.without_model
        )

    @property
    def without_model(self) -> str:
        """What to say where no model is chosen."""
        return "Choose a model."

    def show_reading(self) -> None:
        """Show how answers are read."""
        method = self.session.method
        self.frame.correct.set_classes(method.classes, method.colours)

    def _tell(self, severity: str, sentence: str) -> None:
        self.frame.job.set_message(sentence if severity != "info" else "")
        {"error": show_error, "warning": show_warning}.get(severity, show_info)(sentence)

    def _ask_status(self) -> None:
        if self.isVisible():
            self.session.inquiry.ask_status()

    # Coming and going.

    def event(self, event: QEvent) -> bool:
        """A widget that napari takes out of its dock is closed: that ends the session."""
        if event.type() == QEvent.Type.ParentChange:
            if self.parent() is not None:
                self._docked = True
            elif self._docked:
                self.let_go()
        return super().event(event)

    def let_go(self) -> None:
        """Hear no more of anybody, and end the session."""
        self._status_timer.stop()
        self.project.let_go()
        keeper = self.session.keeper
        keeper.switched.disconnect(self._use_projects_model, missing_ok=True)
        keeper.model_wanted.disconnect(self._use_model, missing_ok=True)
        self.session.close()


def _choices(models: dict[str, ModelEntry]) -> list[Choice]:
    return [Choice(name, name, model_card.tip(entry)) for name, entry in models.items()]


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
