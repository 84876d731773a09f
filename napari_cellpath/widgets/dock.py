"""What the docks of all systems share: one frame, one session, and the wires between them.

The frame's wishes go to the session, the session's news to the frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from napari.utils.notifications import show_error, show_info, show_warning
from qtpy.QtCore import QEvent, Qt, QTimer
from qtpy.QtGui import QGuiApplication, QKeySequence
from qtpy.QtWidgets import QFileDialog, QMenu, QPushButton, QShortcut, QVBoxLayout, QWidget

from napari_cellpath.bridge.objects import ObjectLayer
from napari_cellpath.bridge.timing import timed
from napari_cellpath.core.errors import CellpathError
from napari_cellpath.models import ModelEntry, find_model
from napari_cellpath.models.registry import DEFAULT_MODELS
from napari_cellpath.project import trained
from napari_cellpath.widgets import model_card
from napari_cellpath.widgets.frame import DockFrame
from napari_cellpath.widgets.keys import SHEET_KEY, KeySheet, shortcut_of
from napari_cellpath.widgets.project_bar import ProjectBar
from napari_cellpath.widgets.sections import Choice
from napari_cellpath.widgets.session import ObjectSession
from napari_cellpath.widgets.table import Column

STATUS_EVERY = 3000  # ms between asking the worker how it is, while the dock can be seen
ModelLister = Callable[[Sequence[Path]], list[ModelEntry]]


class ObjectDock(QWidget):
    """A dock about the objects of one image.

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

    answers = "scores"
    """What is added to the name of a file that holds answers."""

    def __init__(
        self,
        session: ObjectSession,
        models: ModelLister,
        title: str,
        primary: str,
        columns: Sequence[Column],
    ) -> None:
        super().__init__()
        self.setWindowTitle(title)
        self.session = session
        self._list_models = models
        self._models = {e.name: e for e in models([])}
        self._docked = False
        self._running = False
        self._exported_to = ""
        self.frame = DockFrame(primary, columns)
        keeper = session.keeper
        self.project = ProjectBar(session.viewer, keeper, marks=True)
        keeper.switched.connect(self._use_projects_model)
        keeper.model_wanted.connect(self._use_model)
        self.project.import_wanted.connect(self._import)
        self.project.export_wanted.connect(
            lambda path: keeper.export_file(path, session.source, session.kind.system)
        )
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
        self._connect()
        self.destroyed.connect(session.close)

    @staticmethod
    def first_model(models: ModelLister, system: Any, wanted: str = "") -> ModelEntry | None:
        """The model a dock begins with: the one wanted, else the starter, else any there is."""
        there = {e.name: e for e in models([])}
        chosen = wanted or DEFAULT_MODELS.get(system, "")
        if not wanted and chosen not in there and there:
            chosen = next(iter(there))
        return there.get(chosen)

    # The frame's wishes.

    def _connect(self) -> None:
        frame, session = self.frame, self.session
        frame.subject.image_chosen.connect(session.choose_image)
        frame.subject.model_chosen.connect(lambda name: session.use(entry=self._models.get(name)))
        frame.subject.mpp_edited.connect(session.choose_mpp)
        frame.method.band_moved.connect(lambda v: session.use(band=round(v, 4)))
        frame.job.cancel_requested.connect(session.inquiry.cancel)
        frame.job.free_memory_requested.connect(session.inquiry.free_memory)
        frame.result.table.selection_made.connect(self._select_rows)
        frame.result.table.row_entered.connect(session.show)
        frame.correct.class_chosen.connect(session.correct)
        frame.correct.accept_requested.connect(session.accept)
        frame.out.export_requested.connect(self._ask_where_to_export)
        frame.out.copy_requested.connect(self.copy_command)
        frame.out.keys_requested.connect(self.show_keys)
        session.images_changed.connect(self._show_images)
        session.subject_changed.connect(self.show_subject)
        session.objects_changed.connect(self._show_objects)
        session.rows_added.connect(self._show_added)
        session.rows_changed.connect(self._show_rows)
        session.reading_changed.connect(self.show_reading)
        session.selection_changed.connect(self._show_selection)
        session.clicking_changed.connect(self.show_clicking)
        session.told.connect(self._tell)
        session.inquiry.changed.connect(self._show_jobs)
        session.inquiry.status_changed.connect(frame.job.set_status)

    def _select_rows(self, rows: list[int]) -> None:
        objects = self.session.objects
        if objects is not None:
            self.session.select([str(objects.table.uids[r]) for r in rows if r < len(objects)])

    def _import(self, path: Path) -> None:
        session = self.session
        if session.image is not None and session.ready() is not None:
            system = session.kind.system
            session.keeper.import_file(path, session.image, session.source, system)

    def _offer(self, layers: Sequence[Any], take: Callable[[Any], None], button: Any) -> None:
        """Let the user choose one of several layers, below a button."""
        self._menu.clear()
        for layer in layers:
            self._menu.addAction(layer.name, lambda layer=layer: take(layer))
        self._menu.popup(button.mapToGlobal(button.rect().bottomLeft()))

    def _ask_where_to_export(self) -> None:
        path, _ = QFileDialog.getSaveFileName(
            self, f"Export {self.session.kind.many}", self._suggested_csv(), "CSV (*.csv)"
        )
        if path:
            self.export_to(path)

    def export_to(self, path: str) -> None:
        """Write the objects as CSV; what goes wrong is told, not raised."""
        if not Path(path).suffix:
            path += ".csv"
        try:
            count = self.session.export_csv(path)
        except CellpathError as error:
            self._tell("error", str(error))
            return
        self._exported_to = path
        self._tell("info", f"{self.session.kind.count(count)} written to {path}.")

    def command(self, exported: str) -> str:
        """The equivalent command line, with what was exported, or would be, to this file.

        Raises
        ------
        CellpathError
            There is none.
        """
        file = Path(exported)
        out = file.with_name(f"{file.stem}-{self.answers}.csv")
        return self.session.command(exported, str(out))

    def copy_command(self) -> None:
        """Put the equivalent command line on the clipboard."""
        exported = self._exported_to or self._suggested_csv()
        try:
            command = self.command(exported)
        except CellpathError as error:
            self._tell("error", str(error))
            return
        clipboard = QGuiApplication.clipboard()
        if clipboard is not None:
            clipboard.setText(command)
        if self._exported_to:
            self._tell("info", "Command copied.")
        else:
            self._tell("info", f"Command copied; export the CSV to {exported} before running it.")

    def _suggested_csv(self) -> str:
        image, many = self.session.image, self.session.kind.many
        if image is None:
            return f"{many}.csv"
        path = Path(str(image.source.path or image.name))
        return str(path.with_name(f"{path.stem}-{many}.csv"))

    def show_keys(self) -> None:
        """Show the key sheet."""
        KeySheet(self.session.method.classes, self.session.kind, self).show()

    # Models.

    def _use_projects_model(self) -> None:
        """Offer the models of the project that was opened, and use its default."""
        project = self.session.keeper.project
        system = self.session.kind.system
        self._take_model(None if project is None else trained.default_model(project, system))

    def _use_model(self, folder: Path) -> None:
        """Use a model that was just made, if it is one of this system."""
        if find_model(folder).info.system == self.session.kind.system:
            self._take_model(folder)

    def _take_model(self, folder: Path | None) -> None:
        """Look for models again and, where one is given, use that."""
        project = self.session.keeper.project
        first = [] if project is None else [project.folder / trained.MODELS]
        self._models = {e.name: e for e in self._list_models(first)}
        entry = next((e for e in self._models.values() if e.folder == folder), None)
        if folder is not None and entry is None:  # an older version of one that is listed
            entry = find_model(folder, self.session.kind.system)
            self._models[entry.name] = entry
        self._model_choices = _choices(self._models)
        if entry is not None:
            self.session.use(entry=entry)
        self.show_subject()

    # The session's news.

    def show_everything(self) -> None:
        """Show what there is, once the dock is built."""
        self._model_choices = _choices(self._models)
        self._show_images()
        self.show_subject()
        self.show_reading()
        self._show_objects()
        self.show_clicking(self.session.clicking)
        self._show_jobs()

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
        self.show_clicking(session.clicking)

    @property
    def without_model(self) -> str:
        """What to say where no model is chosen."""
        return "Choose a model."

    def show_reading(self) -> None:
        """Show how calls are read."""
        method = self.session.method
        self.frame.correct.set_classes(method.classes, method.colours)
        self.show_facts()

    @timed
    def _show_objects(self) -> None:
        objects = self.session.objects
        if objects is None:
            self.frame.result.table.reset_rows(0, ())
        else:
            self.frame.result.table.reset_rows(len(objects), objects.layer.selected_data)
        self.show_facts()

    @timed
    def _show_added(self) -> None:
        objects = self.session.objects
        if objects is not None:
            self.frame.result.table.append_rows(len(objects))
            self.show_facts()

    @timed
    def _show_rows(self, rows: Any) -> None:
        self.frame.result.table.columns.refresh(rows)
        self.show_facts()

    @timed
    def _show_selection(self) -> None:
        objects = self.session.objects
        if objects is not None:
            rows: Iterable[int] = [r for r in objects.layer.selected_data if r < len(objects)]
            self.frame.result.table.follow(rows)
        self.show_detail()

    def summary(self, objects: ObjectLayer, waiting: int, stale: int) -> str:
        """All objects in one line."""
        raise NotImplementedError

    def detail(self, objects: ObjectLayer, selected: Sequence[str]) -> str:
        """The selected ones in words."""
        raise NotImplementedError

    def show_facts(self) -> None:
        """Show what is known of all objects."""
        objects, frame = self.session.objects, self.frame
        if objects is None:
            frame.result.set_summary(f"No {self.session.kind.many} yet.")
            frame.correct.set_counts([0] * len(self.session.method.classes))
            self.show_left(0, 0)
        else:
            unscored, stale = len(objects.unscored()), len(objects.stale())
            frame.result.set_summary(self.summary(objects, unscored, stale))
            frame.correct.set_counts(objects.counts())
            self.show_left(unscored, stale)
        self.show_detail()

    def show_left(self, unscored: int, stale: int) -> None:
        """Show how many objects have no valid answer."""
        raise NotImplementedError

    def label_run(
        self, button: QPushButton, verb: str, again: str, unscored: int, stale: int
    ) -> None:
        """Have a button say how many objects it would have answered, and why."""
        kind, key = self.session.kind, shortcut_of("run")
        text = f"{verb} all"
        tip = f"{verb} every {kind.one} that has no valid answer. ({key})"
        if stale:
            text = f"{again} ({unscored + stale})"
            tip = (
                f"{kind.count(stale)} moved or were {kind.done} with other settings; their calls "
                f"are shown grayish until {kind.done} again. ({key})"
            )
        elif unscored:
            text = f"{verb} all ({unscored})"
        if text != button.text():  # a button lays itself out again even for the same text
            button.setText(text)
        button.setToolTip(tip)
        button.setEnabled(unscored + stale > 0)

    def show_detail(self) -> None:
        """Show the selected objects in words."""
        objects = self.session.objects
        selected = objects.selected() if objects is not None else []
        self.frame.correct.set_active(bool(selected))
        text = self.detail(objects, selected) if objects is not None else ""
        self.frame.result.set_detail(text)

    def running(self, count: int) -> tuple[str, float, float | None]:
        """What runs, how far it is (0 to 1), and the seconds left."""
        inquiry = self.session.inquiry
        errand = inquiry.errands.latest
        if errand is not None:
            return errand.title, errand.progress, errand.seconds_left
        return self.working_on(count), inquiry.jobs.progress, inquiry.jobs.seconds_left

    def working_on(self, count: int) -> str:
        """What is said while so many objects are under way."""
        raise NotImplementedError

    @timed
    def _show_jobs(self) -> None:
        inquiry = self.session.inquiry
        count = inquiry.jobs.under_way + inquiry.waiting
        busy = self.session.busy or inquiry.errands.latest is not None
        if not count and not len(inquiry.jobs) and not busy:
            self.frame.job.set_idle()
            if self._running:
                self._running = False
                self.frame.result.table.sort_again()
                self.on_idle()
            return
        if not self._running:  # what went wrong before is no news any more
            self._running = True
            self.frame.job.set_message("")
        self.frame.job.set_running(*self.running(count))

    def on_idle(self) -> None:
        """Everything that ran has ended."""

    def show_clicking(self, on: bool) -> None:
        """Show whether a click on the canvas adds an object."""
        raise NotImplementedError

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
                self._status_timer.stop()
                self.project.let_go()
                keeper = self.session.keeper
                keeper.switched.disconnect(self._use_projects_model, missing_ok=True)
                keeper.model_wanted.disconnect(self._use_model, missing_ok=True)
                self.session.close()
        return super().event(event)


def _choices(models: dict[str, ModelEntry]) -> list[Choice]:
    return [Choice(name, name, model_card.tip(entry)) for name, entry in models.items()]


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
