"""The nuclei dock (DeepPap): click a nucleus, see a score, how sure it is, and whose it is.

It only wires: the frame's wishes go to the session, the session's news to the frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.notifications import show_error, show_info, show_warning
from qtpy.QtCore import QEvent, Qt, QTimer
from qtpy.QtGui import QGuiApplication, QKeySequence
from qtpy.QtWidgets import QFileDialog, QMenu, QShortcut, QVBoxLayout, QWidget

from napari_cellpath.backend import Backend, shared_backend
from napari_cellpath.bridge.timing import timed
from napari_cellpath.core.errors import CellpathError
from napari_cellpath.core.vocabulary import Border, Preset, System
from napari_cellpath.models import ModelEntry, find_model, list_models
from napari_cellpath.models.registry import DEFAULT_MODELS
from napari_cellpath.project import trained
from napari_cellpath.widgets import model_card, wording
from napari_cellpath.widgets.frame import DockFrame
from napari_cellpath.widgets.keys import SHEET_KEY, KeySheet, shortcut_of
from napari_cellpath.widgets.method import Method
from napari_cellpath.widgets.nuclei_table import SCORE_COLUMN, nucleus_table_columns
from napari_cellpath.widgets.project_bar import ProjectBar
from napari_cellpath.widgets.search import FindSettings, NucleusSearch, Where
from napari_cellpath.widgets.sections import Choice
from napari_cellpath.widgets.session import NucleiSession
from napari_cellpath.widgets.settings import nuclei_defaults

if TYPE_CHECKING:
    import napari

PRESETS = (
    Choice(Preset.FAST, "fast · 10 inputs", "The upright view, ten crops: a first impression."),
    Choice(Preset.BALANCED, "balanced · 100 inputs", "Ten rotations, ten crops each."),
    Choice(Preset.PAPER, "paper · 1000 inputs", "Ten rotations and ten shifts, as published."),
    Choice(
        Preset.ADAPTIVE,
        "adaptive · up to 1000",
        "The paper's views in a fixed order, until the call is certain.",
    ),
)
BORDERS = (
    Choice(Border.ZERO, "black (the paper's)", "Zeros stand where a patch leaves the image."),
    Choice(Border.REFLECT, "mirrored", "The image is mirrored at its edge."),
    Choice(Border.BACKGROUND, "background", "The colour of the brightest pixels present."),
)
STATUS_EVERY = 3000  # ms between asking the worker how it is, while the dock can be seen
CLICK, STOP = "Click nuclei", "Clicking nuclei · stop"


class NucleiDock(QWidget):
    """Click nuclei on an image and have them scored.

    Parameters
    ----------
    napari_viewer
        Given by napari.
    backend
        Where to compute; by default the one backend that all docks share.
    models
        Gives the models to choose from; by default the registry's.
    """

    def __init__(
        self,
        napari_viewer: napari.viewer.Viewer,
        *,
        backend: Backend | None = None,
        models: Callable[[], list[ModelEntry]] | None = None,
    ) -> None:
        super().__init__()
        self.setWindowTitle("Nuclei")
        self._docked = False
        self._running = False
        self._exported_to = ""
        defaults = nuclei_defaults()
        self._list_models = (
            (lambda _first: models())
            if models
            else lambda first: list_models(System.DEEPPAP, first)
        )
        self._models = {e.name: e for e in self._list_models([])}
        method = Method(preset=defaults.preset, band_of_user=defaults.review_band)
        chosen = defaults.model or DEFAULT_MODELS[System.DEEPPAP]
        if not defaults.model and chosen not in self._models and self._models:
            chosen = next(iter(self._models))
        method = method.with_changes(entry=self._models.get(chosen))

        self.session = NucleiSession(
            napari_viewer, (lambda: backend) if backend is not None else shared_backend, method
        )
        columns = nucleus_table_columns(lambda: self.session.nuclei)
        self.frame = DockFrame(CLICK, columns)
        action = self.frame.action
        action.primary.setToolTip("Every click on the image adds a nucleus and scores it.")
        self.search = NucleusSearch(self.session)
        self.find = action.add_secondary(
            "Find nuclei",
            "Find dark round nuclei and score them; sizes stand in More settings.",
            share=10,
        )
        self.find.setMenu(self._find_menu())
        self.score_all = action.add_secondary("Score all", "", share=12)
        self.from_labels = action.add_secondary(
            "From labels…", "Take the centres of a labels layer's objects as nuclei.", share=11
        )
        result = self.frame.result
        self.unseen = result.add_way(
            "Next unseen",
            "Go to the most abnormal nucleus that nobody has looked at. "
            f"({shortcut_of('next_unseen')})",
        )
        self.why = result.add_way(
            "Show why", "Cover place after place of the selected cell and map how its score moves."
        )
        self.frame.method.add_setting("Find, µm", self._find_settings())
        self.project = ProjectBar(self.session.viewer, self.session.keeper, marks=True)
        keeper = self.session.keeper
        keeper.switched.connect(self._use_projects_model)
        keeper.model_wanted.connect(self._use_model)
        self.project.complete_wanted.connect(self._mark_complete)
        self.project.import_wanted.connect(self._import)
        self.project.export_wanted.connect(lambda p: keeper.export_file(p, self.session.source))
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
        self._connect_session()
        self.destroyed.connect(self.session.close)
        if defaults.model and chosen not in self._models:
            self._tell(
                "warning",
                f"The default model '{chosen}' of Preferences is not on this machine; choose one.",
            )
        self._show_everything()
        self.session.inquiry.warm_up()

    # The frame's wishes.

    def _connect_frame(self) -> None:
        frame, session = self.frame, self.session
        frame.subject.image_chosen.connect(session.choose_image)
        frame.subject.model_chosen.connect(lambda name: session.use(entry=self._models.get(name)))
        frame.subject.mpp_edited.connect(session.choose_mpp)
        frame.action.primary_toggled.connect(session.set_clicking)
        self.score_all.clicked.connect(lambda: session.score_all())
        self.from_labels.clicked.connect(self._offer_labels)
        frame.method.preset_chosen.connect(lambda value: session.use(preset=Preset(value)))
        frame.method.border_chosen.connect(lambda value: session.use(border=Border(value)))
        frame.method.seed_chosen.connect(lambda value: session.use(seed=value))
        frame.method.threshold_moved.connect(lambda v: session.use(threshold=round(v, 4)))
        frame.method.band_moved.connect(lambda v: session.use(band=round(v, 4)))
        frame.job.cancel_requested.connect(session.inquiry.cancel)
        frame.job.free_memory_requested.connect(session.inquiry.free_memory)
        self.unseen.clicked.connect(lambda: session.go_to_unseen())
        self.why.clicked.connect(lambda: self.search.explain())
        frame.result.table.selection_made.connect(self._select_rows)
        frame.result.table.row_entered.connect(session.show)
        frame.correct.class_chosen.connect(session.correct)
        frame.correct.accept_requested.connect(session.accept)
        frame.out.export_requested.connect(self._ask_where_to_export)
        frame.out.copy_requested.connect(self.copy_command)
        frame.out.keys_requested.connect(self.show_keys)

    def _select_rows(self, rows: list[int]) -> None:
        nuclei = self.session.nuclei
        if nuclei is not None:
            self.session.select([str(nuclei.table.uids[r]) for r in rows if r < len(nuclei)])

    def _mark_complete(self) -> None:
        session = self.session
        if session.image is not None:
            session.keeper.mark_complete(session.viewer, session.image, session.source)

    def _import(self, path: Path) -> None:
        session = self.session
        if session.image is not None and session.ready_nuclei() is not None:
            session.keeper.import_file(path, session.image, session.source)

    def _find_menu(self) -> QMenu:
        menu = QMenu(self)
        for where, text in (
            (Where.VIEW, "In view"),
            (Where.DRAWN, "In the drawn shapes"),
            (Where.IMAGE, "In the whole image"),
        ):
            menu.addAction(text, lambda where=where: self.find_nuclei(where))
        return menu

    def find_nuclei(self, where: Where) -> None:
        """Find nuclei and have them scored; the table then begins with the most abnormal."""
        table = self.frame.result.table
        if not table.isSortingEnabled() or table.horizontalHeader().sortIndicatorSection() < 0:
            table.sortByColumn(SCORE_COLUMN, Qt.SortOrder.DescendingOrder)
        self.search.find(where)

    def _find_settings(self) -> QWidget:
        """Smallest and largest diameter and contrast of what is searched for."""
        settings = FindSettings(self.search.smallest, self.search.largest, self.search.contrast)
        settings.changed.connect(self.search.set_nuclei)
        return settings

    def _offer_labels(self) -> None:
        layers = self.session.layers_with_centres()
        if not layers:
            self._tell("info", "There is no labels layer to take nuclei from; open one first.")
        elif len(layers) == 1:
            self.session.add_from(layers[0])
        else:
            self._menu.clear()
            for layer in layers:
                self._menu.addAction(layer.name, lambda layer=layer: self.session.add_from(layer))
            below = self.from_labels.rect().bottomLeft()
            self._menu.popup(self.from_labels.mapToGlobal(below))

    def _ask_where_to_export(self) -> None:
        path, _ = QFileDialog.getSaveFileName(
            self, "Export nuclei", self._suggested_csv(), "CSV (*.csv)"
        )
        if path:
            self.export_to(path)

    def export_to(self, path: str) -> None:
        """Write the nuclei as CSV; what goes wrong is told, not raised."""
        if not Path(path).suffix:
            path += ".csv"
        try:
            count = self.session.export_csv(path)
        except CellpathError as error:
            self._tell("error", str(error))
            return
        self._exported_to = path
        self._tell("info", f"{wording.nuclei(count)} written to {path}.")

    def copy_command(self) -> None:
        """Put the equivalent command line on the clipboard."""
        points = self._exported_to or self._suggested_csv()
        scores = str(Path(points).with_name(f"{Path(points).stem}-scores.csv"))
        try:
            command = self.session.command(points, scores)
        except CellpathError as error:
            self._tell("error", str(error))
            return
        clipboard = QGuiApplication.clipboard()
        if clipboard is not None:
            clipboard.setText(command)
        if self._exported_to:
            self._tell("info", "Command copied.")
        else:
            self._tell("info", f"Command copied; export the CSV to {points} before running it.")

    def _suggested_csv(self) -> str:
        image = self.session.image
        if image is None:
            return "nuclei.csv"
        path = Path(str(image.source.path or image.name))
        return str(path.with_name(f"{path.stem}-nuclei.csv"))

    def show_keys(self) -> None:
        """Show the key sheet."""
        KeySheet(self.session.method.classes, self).show()

    # The session's news.

    def _connect_session(self) -> None:
        session = self.session
        session.images_changed.connect(self._show_images)
        session.subject_changed.connect(self._show_subject)
        session.nuclei_changed.connect(self._show_nuclei)
        session.rows_added.connect(self._show_added)
        session.rows_changed.connect(self._show_rows)
        session.reading_changed.connect(self._show_reading)
        session.selection_changed.connect(self._show_selection)
        session.clicking_changed.connect(self._show_clicking)
        session.told.connect(self._tell)
        session.inquiry.changed.connect(self._show_jobs)
        session.inquiry.status_changed.connect(self.frame.job.set_status)

    def _show_everything(self) -> None:
        self._model_choices = [Choice(n, n, model_card.tip(e)) for n, e in self._models.items()]
        self.frame.method.set_presets(PRESETS, self.session.method.preset)
        self.frame.method.set_borders(BORDERS, self.session.method.border)
        self._show_images()
        self._show_subject()
        self._show_reading()
        self._show_nuclei()
        self._show_clicking(self.session.clicking)
        self._show_jobs()

    def _use_projects_model(self) -> None:
        """Offer the models of the project that was opened, and use its default."""
        project = self.session.keeper.project
        default = None if project is None else trained.default_model(project, System.DEEPPAP)
        self._use_model(default)

    def _use_model(self, folder: Path | None) -> None:
        """Look for models again and, where one is given, use that."""
        project = self.session.keeper.project
        first = [] if project is None else [project.folder / trained.MODELS]
        self._models = {e.name: e for e in self._list_models(first)}
        entry = next((e for e in self._models.values() if e.folder == folder), None)
        if folder is not None and entry is None:  # an older version of one that is listed
            entry = find_model(folder, System.DEEPPAP)
            self._models[entry.name] = entry
        self._model_choices = [Choice(n, n, model_card.tip(e)) for n, e in self._models.items()]
        if entry is not None:
            self.session.use(entry=entry)
        self._show_subject()

    def _show_images(self) -> None:
        choices = [Choice(image, image.name, image.name) for image in self.session.images]
        self.frame.subject.set_images(choices, self.session.image)

    def _show_subject(self) -> None:
        self._show_images()
        session = self.session
        source, method = session.source, session.method
        refused = session.inquiry.refusal(session.image)
        if source is not None:
            self.frame.subject.set_scale(source.mpp, source.origin)
        else:
            waiting = "cannot be read" if refused else "looking…" if session.image else ""
            self.frame.subject.set_scale(None, waiting)
        entry = method.entry
        self.frame.subject.set_models(self._model_choices, entry.name if entry else "")
        self.frame.subject.accuracy.setText(
            _sentence(model_card.measured(entry.info)) if entry else "Choose a model."
        )
        can_click = entry is not None and session.image is not None and not refused
        self.frame.action.primary.setEnabled(can_click)
        self.find.setEnabled(can_click)
        self._show_clicking(self.session.clicking)

    def _show_reading(self) -> None:
        method = self.session.method
        self.frame.method.set_reading(method.threshold, method.band)
        self.frame.result.scale.set_reading(method.threshold, method.band)
        self.frame.correct.set_classes(method.classes, method.colours)
        self._show_facts()

    @timed
    def _show_nuclei(self) -> None:
        nuclei = self.session.nuclei
        if nuclei is None:
            self.frame.result.table.reset_rows(0, ())
        else:
            self.frame.result.table.reset_rows(len(nuclei), nuclei.layer.selected_data)
        self._show_facts()

    @timed
    def _show_added(self) -> None:
        nuclei = self.session.nuclei
        if nuclei is not None:
            self.frame.result.table.append_rows(len(nuclei))
            self._show_facts()

    @timed
    def _show_rows(self, rows: Any) -> None:
        self.frame.result.table.columns.refresh(rows)
        self._show_facts()

    @timed
    def _show_selection(self) -> None:
        nuclei = self.session.nuclei
        if nuclei is not None:
            rows: Iterable[int] = [r for r in nuclei.layer.selected_data if r < len(nuclei)]
            self.frame.result.table.follow(rows)
        self._show_detail()

    def _show_facts(self) -> None:
        nuclei = self.session.nuclei
        frame = self.frame
        if nuclei is None:
            frame.result.set_summary("No nuclei yet.")
            frame.result.scale.set_scores(np.zeros(0))
            frame.correct.set_counts([0] * len(self.session.method.classes))
            self._label_score_all(0, 0)
            self._label_unseen(0)
            self._show_detail()
            return
        unscored, stale = len(nuclei.unscored()), len(nuclei.stale())
        frame.result.set_summary(wording.summary(nuclei, unscored, stale))
        frame.result.scale.set_scores(nuclei.table.features["score"])
        frame.correct.set_counts(nuclei.counts())
        self._label_score_all(unscored, stale)
        self._label_unseen(len(nuclei.unseen()))
        self._show_detail()

    def _label_unseen(self, count: int) -> None:
        text = f"Next unseen ({count:,})" if count else "Next unseen"
        if text != self.unseen.text():
            self.unseen.setText(text)
        self.unseen.setEnabled(count > 0)

    def _label_score_all(self, unscored: int, stale: int) -> None:
        button, key = self.score_all, shortcut_of("run")
        text, tip = "Score all", f"Score every nucleus that has no valid score. ({key})"
        if stale:
            text = f"Re-score ({unscored + stale})"
            tip = (
                f"{wording.nuclei(stale)} moved or were scored with other settings; their calls "
                f"are shown grayish until scored again. ({key})"
            )
        elif unscored:
            text = f"Score all ({unscored})"
        if text != button.text():  # a button lays itself out again even for the same text
            button.setText(text)
        button.setToolTip(tip)
        button.setEnabled(unscored + stale > 0)

    def _show_detail(self) -> None:
        nuclei = self.session.nuclei
        selected = nuclei.selected() if nuclei is not None else []
        self.frame.correct.set_active(bool(selected))
        self.why.setEnabled(len(selected) == 1)
        text = wording.detail(nuclei, selected, self.session.method.entry) if nuclei else ""
        self.frame.result.set_detail(text)

    @timed
    def _show_jobs(self) -> None:
        inquiry = self.session.inquiry
        count = inquiry.jobs.nuclei_under_way + inquiry.waiting
        errand = inquiry.errands.latest
        if not count and not len(inquiry.jobs) and errand is None:
            self.frame.job.set_idle()
            if self._running:
                self._running = False
                self.frame.result.table.sort_again()
            return
        if not self._running:  # what went wrong before is no news any more
            self._running = True
            self.frame.job.set_message("")
        if errand is not None:
            self.frame.job.set_running(errand.title, errand.progress, errand.seconds_left)
            return
        self.frame.job.set_running(
            f"Scoring {wording.nuclei(count)}", inquiry.jobs.progress, inquiry.jobs.seconds_left
        )

    def _show_clicking(self, on: bool) -> None:
        action, session = self.frame.action, self.session
        action.primary.setChecked(on)
        action.primary.setText(STOP if on else CLICK)
        hint = wording.hint(
            on,
            has_image=session.image is not None,
            has_model=session.method.entry is not None,
            has_nuclei=session.nuclei is not None and len(session.nuclei) > 0,
        )
        action.set_hint(hint)

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


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
