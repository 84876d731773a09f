"""The HEp-2 dock: find the cells of a fluorescence field, tell patterns, read the specimen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtWidgets import QComboBox, QDoubleSpinBox, QHBoxLayout, QSizePolicy, QWidget

from napari_cellpath.backend import Backend, shared_backend
from napari_cellpath.bridge.appearance import compile_label_colours
from napari_cellpath.bridge.timing import timed
from napari_cellpath.core.vocabulary import Average, Channel, System
from napari_cellpath.models import ModelEntry, list_models
from napari_cellpath.widgets import cell_words
from napari_cellpath.widgets.cell_session import CellSession
from napari_cellpath.widgets.cells_table import MARGIN_COLUMN, cell_table_columns
from napari_cellpath.widgets.method import CellMethod
from napari_cellpath.widgets.search import FindSettings, Where, number_box
from napari_cellpath.widgets.sections import SPACING, Choice, fill, narrow
from napari_cellpath.widgets.specimen_panel import SpecimenSection
from napari_cellpath.widgets.summed_dock import AVERAGES, SummedDock

if TYPE_CHECKING:
    import napari

CHANNELS = (
    Choice(Channel.GREEN, "green (fluorescein)"),
    Choice(Channel.RED, "red"),
    Choice(Channel.BLUE, "blue"),
    Choice(Channel.MEAN, "mean of the planes"),
)
PLACES = (
    Choice(Where.IMAGE, "in image", "All cells of the image."),
    Choice(Where.VIEW, "in view", "What of the image is on the canvas now."),
    Choice(Where.DRAWN, "in shapes", "Inside the shapes of a shapes layer."),
)
FIND = "Find and classify"
TAKE = "Take over and classify"
CLICK, STOP = "Click cells", "Stop clicking"
FOUND = 0.3
"""Share of the progress bar that finding takes, where cells are found and classified in one go."""


class Hep2Dock(SummedDock):
    """Find or mark HEp-2 cells on an image and have their patterns told.

    Parameters
    ----------
    napari_viewer
        Given by napari.
    backend
        Where to compute; by default the one backend that all docks share.
    models
        Gives the models to choose from; by default the registry's.
    """

    session: CellSession
    answers = "patterns"

    def __init__(
        self,
        napari_viewer: napari.viewer.Viewer,
        *,
        backend: Backend | None = None,
        models: Callable[[], list[ModelEntry]] | None = None,
    ) -> None:
        def lister(first: Sequence[Path]) -> list[ModelEntry]:
            return models() if models else list_models(System.HEP2, first)

        method = CellMethod(self.first_model(lister, System.HEP2))
        session = CellSession(
            napari_viewer, (lambda: backend) if backend is not None else shared_backend, method
        )
        columns = cell_table_columns(lambda: session.cells)
        super().__init__(session, lister, "HEp-2", FIND, columns)
        self._lay_out()
        self._connect_own()
        self.show_everything()
        self._show_sources()
        session.inquiry.warm_up()
        session.inquiry.in_background(lambda: compile_label_colours(np.int32), lambda _ready: None)

    def _lay_out(self) -> None:
        frame, session = self.frame, self.session
        self.channel = narrow(QComboBox())
        self.source = narrow(QComboBox())
        self.where = narrow(QComboBox())
        fill(self.where, PLACES, session.where)
        frame.subject.add_row("Channel", self.channel)
        for combo in (self.source, self.where):
            combo.setMinimumContentsLength(4)
            combo.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        cells = QWidget()
        row = QHBoxLayout(cells)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(SPACING)
        row.addWidget(self.source, 6)
        row.addWidget(self.where, 5)
        frame.subject.add_row("Cells", cells)
        action = frame.action
        action.primary.setCheckable(False)
        self.classify = action.add_secondary("Classify all", "", share=12)
        self.click = action.add_secondary(
            CLICK, "Every click on the image adds a cell and classifies it.", share=10
        )
        self.click.setCheckable(True)
        method = frame.method
        method.leave_out(method.threshold, method.border, method.seed)
        method.call_band("Doubtful <", "Patterns that lead the next by no more are shown as rings.")
        method.set_presets(AVERAGES, session.method.average)
        method.set_band(session.method.band)
        self.sizes = FindSettings(
            session.smallest, session.largest, session.sensitivity, "sens.",
            "Sensitivity: above 1 dimmer cells are found too",
        )  # fmt: skip
        method.add_setting("Find, µm", self.sizes)
        self.click_um = self._click_field()
        method.add_setting("Click, µm", self.click_um)
        frame.result.scale.hide()
        self.specimen = SpecimenSection()
        self.add_summary(self.specimen)

    def _click_field(self) -> QDoubleSpinBox:
        return number_box(
            self.session.click_um, 2.0, 100.0, 1, "Diameter of cells that are clicked, µm"
        )

    def _connect_own(self) -> None:
        frame, session = self.frame, self.session
        frame.action.primary_toggled.connect(lambda _on: self.find_and_classify())
        self.classify.clicked.connect(lambda: session.score_all())
        self.click.clicked.connect(session.set_clicking)
        frame.method.preset_chosen.connect(lambda value: session.use(average=Average(value)))
        self.sizes.changed.connect(self._set_sizes)
        self.click_um.valueChanged.connect(self._set_click)
        self.channel.activated.connect(
            lambda i: session.use(channel=Channel(self.channel.itemData(i)))
        )
        self.source.activated.connect(lambda i: session.choose_source(self.source.itemData(i)))
        self.where.activated.connect(lambda i: self._set_where(self.where.itemData(i)))
        self.specimen.intensity_chosen.connect(self._set_intensity)
        session.sources_changed.connect(self._show_sources)
        session.subject_changed.connect(self._show_sources)
        self.project.leave_out_areas()

    # The frame's wishes.

    def find_and_classify(self) -> None:
        """Find the cells, or take those of a layer, and classify them; the least certain first."""
        table = self.frame.result.table
        if table.horizontalHeader().sortIndicatorSection() < 0:
            table.sort_by(MARGIN_COLUMN)
        self.session.run()

    def _set_sizes(self, smallest: float, largest: float, sensitivity: float) -> None:
        session = self.session
        session.smallest, session.largest, session.sensitivity = smallest, largest, sensitivity

    def _set_click(self, um: float) -> None:
        self.session.click_um = um
        self.session.size_clicks()

    def _set_where(self, where: Any) -> None:
        self.session.where = Where(where)

    def _set_intensity(self, intensity: str) -> None:
        self.session.set_intensity(intensity)
        self.sum_up_soon()

    # The session's news.

    def _show_sources(self) -> None:
        session = self.session
        layers = session.sources()
        choices = [Choice(None, "find them")]
        if session.image is not None:
            choices.append(Choice(session.image, "the image is one"))
        choices += [Choice(layer, f"from ‘{layer.name}’") for layer in layers]
        fill(self.source, choices, session.given)
        self.where.setEnabled(session.given is None)
        self.frame.action.primary.setText(FIND if session.given is None else TAKE)

    def show_subject(self) -> None:
        """Show image, model, pixel size and channel, and what can be done with them."""
        super().show_subject()
        session = self.session
        image, method = session.image, session.method
        fill(self.channel, CHANNELS, method.channel)
        self.frame.subject.show_row(self.channel, session.colour)
        self.frame.action.primary.setEnabled(self.can_work)
        self.click.setEnabled(image is not None)
        self.specimen.set_intensity(session.intensity)

    @property
    def without_model(self) -> str:
        """What to say where there is no model."""
        return cell_words.NO_MODEL

    def summary(self, objects: Any, waiting: int, stale: int) -> str:
        """All cells in one line."""
        return cell_words.summary(objects, waiting, stale)

    def detail(self, objects: Any, selected: Sequence[str]) -> str:
        """The selected cell in words."""
        return cell_words.detail(objects, selected, self.session.method.entry)

    @timed
    def show_facts(self) -> None:
        """Show what is known of all cells, and of their specimen."""
        super().show_facts()
        cells, method = self.session.cells, self.session.method
        counts = [0] * len(method.classes) if cells is None else cells.counts()
        self.specimen.set_bars(method.classes, method.colours, counts)

    @timed
    def read_summary(self) -> None:
        """Have the cells summed up on a thread of its own."""
        session = self.session
        if session.cells is None:
            self.specimen.set_reading(None, "")
            return
        name = session.specimen_name()

        def done(reading: dict[str, Any]) -> None:
            self.specimen.set_reading(reading, name)

        session.inquiry.in_background(session.specimen_reader(), done)

    def running(self, count: int) -> tuple[str, float, float | None]:
        """What runs; finding and classifying make one progress."""
        session = self.session
        inquiry, errand = session.inquiry, session.inquiry.errands.latest
        if errand is not None:
            share = FOUND if session.staged else 1.0
            return errand.title, share * errand.progress, errand.seconds_left
        if session.busy and not count:
            return "Placing cells", FOUND if session.staged else 0.0, None
        done = inquiry.jobs.progress
        whole = FOUND + (1 - FOUND) * done if session.staged else done
        return self.working_on(count), whole, inquiry.jobs.seconds_left

    def on_idle(self) -> None:
        """Everything that ran has ended."""
        self.session.staged = False
        self.session.recolour_now()
        super().on_idle()

    def show_clicking(self, on: bool) -> None:
        """Show whether a click on the canvas adds a cell."""
        session = self.session
        self.click.setChecked(on)
        self.click.setText(STOP if on else CLICK)
        hint = cell_words.hint(
            on,
            has_image=session.image is not None,
            has_model=session.method.entry is not None,
            has_cells=session.cells is not None and len(session.cells) > 0,
        )
        self.frame.action.set_hint(hint)
