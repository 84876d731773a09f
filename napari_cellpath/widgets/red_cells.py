"""The red-cell dock: draw or detect regions, see what each holds, flip what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Layer
from qtpy.QtWidgets import QComboBox, QPushButton, QWidget
from superqt.utils import signals_blocked

from napari_cellpath.backend import Backend, shared_backend
from napari_cellpath.bridge.timing import timed
from napari_cellpath.core.requests import DETECTION_FLOOR
from napari_cellpath.core.vocabulary import Average, Fit, System
from napari_cellpath.models import ModelEntry, list_models
from napari_cellpath.widgets import region_words
from napari_cellpath.widgets.method import RegionMethod
from napari_cellpath.widgets.region_session import OWN_WORD, RegionSession
from napari_cellpath.widgets.region_summary_panel import RegionSummarySection
from napari_cellpath.widgets.regions_table import ABNORMAL_COLUMN, region_table_columns
from napari_cellpath.widgets.search import Where
from napari_cellpath.widgets.sections import (
    SPACING,
    Choice,
    caption,
    fill,
    form,
    narrow,
    quiet,
    slider,
)
from napari_cellpath.widgets.summed_dock import AVERAGES, SummedDock
from napari_cellpath.widgets.type_bars import TypeBars

if TYPE_CHECKING:
    import napari

FITS = (
    Choice(Fit.MODEL, "as the model was trained", "What the numbers of its card are of."),
    Choice(Fit.STRETCH, "stretch", "Sides are scaled apart to a square, as published."),
    Choice(
        Fit.LETTERBOX, "letterbox",
        "Proportions are kept; the rest of the square is filled with the box's own border.",
    ),
)  # fmt: skip
PLACES = (
    Choice(Where.IMAGE, "of the image", "The whole image."),
    Choice(Where.VIEW, "in view", "What of the image is on the canvas now."),
)
DETECT = "Detect and classify"
TAKE = "Take over and classify"
DRAW, STOP = "Draw boxes", "Stop drawing"
LARGEST_OVERLAP = 0.95


class RedCellDock(SummedDock):
    """Find or mark regions of red cells on an image and have told what they hold.

    Parameters
    ----------
    napari_viewer
        Given by napari.
    backend
        Where to compute; by default the one backend that all docks share.
    models
        Gives the models to choose from; by default the registry's.
    """

    session: RegionSession
    answers = "answers"

    def __init__(
        self,
        napari_viewer: napari.viewer.Viewer,
        *,
        backend: Backend | None = None,
        models: Callable[[], list[ModelEntry]] | None = None,
    ) -> None:
        def lister(first: Sequence[Path]) -> list[ModelEntry]:
            return models() if models else list_models(System.RBC, first)

        method = RegionMethod().with_changes(entry=self.first_model(lister, System.RBC))
        session = RegionSession(
            napari_viewer, (lambda: backend) if backend is not None else shared_backend, method
        )
        columns = region_table_columns(lambda: session.cells)
        super().__init__(session, lister, "Red cells", DETECT, columns)
        self._lay_out()
        self._connect_own()
        self.show_everything()
        self._show_sources()
        self._show_sliders()
        session.inquiry.warm_up()

    def _lay_out(self) -> None:
        frame, session = self.frame, self.session
        self.where = narrow(QComboBox())
        fill(self.where, PLACES, session.where)
        frame.subject.add_row("Regions", self.where)
        action = frame.action
        action.primary.setCheckable(False)
        self.classify = action.add_secondary("Classify all", "", share=12)
        self.draw = action.add_secondary(
            DRAW, "Every drag on the image draws a box and classifies it.", share=10
        )
        self.draw.setCheckable(True)
        self.sliders = QWidget()
        rows = form()
        self.sliders.setLayout(rows)
        self.score = slider(DETECTION_FLOOR, 0.99)
        self.score.setToolTip(
            "Detections that score less are not shown. Moving it asks nobody: what was found down "
            f"to {DETECTION_FLOOR:g} is kept."
        )
        self.most = slider(0.0, LARGEST_OVERLAP)
        self.most.setToolTip(
            "Of two detections that share more than this of their area, the weaker is not shown."
        )
        rows.addRow(caption("Score ≥"), self.score)
        rows.addRow(caption("Overlap ≤"), self.most)
        action.layout().addWidget(self.sliders)
        method = frame.method
        method.leave_out(method.threshold, method.border, method.seed)
        method.call_band(
            "Doubtful <",
            "Regions whose verdict, or one of whose types, is as near its threshold are shown as "
            "rings.",
        )
        method.set_presets(FITS, session.method.fit)
        method.set_band(session.method.band)
        self.average = narrow(QComboBox())
        fill(self.average, AVERAGES, session.method.average)
        self.average.setToolTip("How many ways round each box is looked at.")
        method.add_setting("Ways", self.average)
        self.truth = narrow(QComboBox())
        self.truth.setToolTip(
            "Show regions beside what is known: blue missed, green right, red wrong."
        )
        method.add_setting("Truth", self.truth)
        frame.result.scale.hide()
        self.beside = quiet()
        self.beside.hide()
        self.bars = TypeBars()
        self.take_back = QPushButton("Take back what I said")
        self.take_back.setToolTip("The selected regions are again as the model says.")
        frame.add_section(self.beside)
        frame.add_section(self.bars)
        self.summary_section = RegionSummarySection()
        frame.correct.layout().addWidget(self.take_back)
        frame.correct.layout().setSpacing(SPACING)
        self.add_summary(self.summary_section)

    def _connect_own(self) -> None:
        frame, session = self.frame, self.session
        frame.action.primary_toggled.connect(lambda _on: self.detect())
        self.classify.clicked.connect(lambda: session.score_all())
        self.draw.clicked.connect(session.set_clicking)
        self.score.valueChanged.connect(self._slide)
        self.most.valueChanged.connect(self._slide)
        self.where.activated.connect(lambda i: self._set_where(self.where.itemData(i)))
        self.average.activated.connect(
            lambda i: session.use(average=Average(self.average.itemData(i)))
        )
        self.truth.activated.connect(lambda i: session.choose_truth(self.truth.itemData(i)))
        self.bars.flipped.connect(session.correct)
        self.take_back.clicked.connect(lambda: session.correct(""))
        frame.method.preset_chosen.connect(lambda value: session.use(fit=Fit(value)))
        session.sources_changed.connect(self._show_sources)
        session.judged.connect(self._show_judged)
        session.sliders_changed.connect(self._show_sliders)
        self.project.complete_wanted.connect(self._mark_complete)

    # The frame's wishes.

    def _mark_complete(self) -> None:
        """Rectangles in which every region has its box: a detector learns from them alone."""
        session = self.session
        if session.image is not None:
            session.keeper.mark_complete(
                session.viewer, session.image, session.source, session.kind
            )

    def detect(self) -> None:
        """Find the regions, or take those of a layer, and classify them; most abnormal first."""
        table = self.frame.result.table
        if table.horizontalHeader().sortIndicatorSection() < 0:
            table.sort_by(ABNORMAL_COLUMN, descending=True)
        where = self.session.where
        if isinstance(where, Layer):
            self.session.take_over(where)
        else:
            self.session.detect()

    def _slide(self) -> None:
        self.session.slide_to(round(self.score.value(), 2), round(self.most.value(), 2))

    def _set_where(self, where: Any) -> None:
        self.session.where = where if isinstance(where, Layer) else Where(where)
        self._show_primary()

    # The session's news.

    def _show_sliders(self) -> None:
        for widget, value in ((self.score, self.session.score), (self.most, self.session.most)):
            with signals_blocked(widget):
                widget.setValue(value)

    def _show_sources(self) -> None:
        layers: list[Layer] = self.session.sources()
        given = [Choice(layer, f"from ‘{layer.name}’", "The regions it marks.") for layer in layers]
        fill(self.where, [*PLACES, *given], self.session.where)
        self._show_primary()
        choices = [Choice(None, "not known"), Choice(OWN_WORD, "what you said")]
        choices += [Choice(layer, f"from ‘{layer.name}’") for layer in layers]
        fill(self.truth, choices, self.session.truth)

    def _show_judged(self, sentence: str) -> None:
        text = f"Beside the truth: {sentence}." if sentence else ""
        if text != self.beside.text():
            self.beside.setText(text)
            self.beside.setVisible(bool(text))

    def show_subject(self) -> None:
        """Show image, model and pixel size, and what can be done with them."""
        super().show_subject()
        session = self.session
        self._show_primary()
        self.draw.setEnabled(session.image is not None)
        self.sliders.setVisible(session.can_detect)
        self.frame.method.set_band(session.method.band)

    def _show_primary(self) -> None:
        session, primary = self.session, self.frame.action.primary
        given = isinstance(session.where, Layer)
        primary.setText(TAKE if given else DETECT)
        able = session.image is not None if given else self.can_work and session.can_detect
        primary.setEnabled(able)

    def show_reading(self) -> None:
        """Show how answers are read; the bars stand for the buttons of other docks."""
        self.show_facts()

    @property
    def without_model(self) -> str:
        """What to say where there is no model."""
        return region_words.NO_MODEL

    def summary(self, objects: Any, waiting: int, stale: int) -> str:
        """All regions in one line."""
        return region_words.summary(objects, waiting, stale)

    def detail(self, objects: Any, selected: Sequence[str]) -> str:
        """The selected region in words."""
        return region_words.detail(objects, selected, self.session.method.entry)

    def show_detail(self) -> None:
        """Show the selected regions in words and bars."""
        super().show_detail()
        session, method = self.session, self.session.method
        regions = session.cells
        selected = regions.selected() if regions is not None else []
        shown = region_words.lines(regions, selected, method.classes, method.colours)
        self.bars.show_types(shown, active=bool(selected))
        self.take_back.setEnabled(bool(selected))

    @timed
    def read_summary(self) -> None:
        """Have the regions summed up on a thread of its own."""
        session = self.session
        if session.cells is None or not len(session.cells):
            self.summary_section.show_summary(None, ())
            return
        colours = session.method.colours

        def done(summary: Any) -> None:
            self.summary_section.show_summary(summary, colours)

        session.inquiry.in_background(session.summary_reader(), done)

    def on_idle(self) -> None:
        """Everything that ran has ended."""
        if self.session.shown is not None:
            self.session.shown.draw_now()
        super().on_idle()

    def show_clicking(self, on: bool) -> None:
        """Show whether a drag on the canvas draws a box."""
        session = self.session
        self.draw.setChecked(on)
        self.draw.setText(STOP if on else DRAW)
        self.frame.action.set_hint(
            region_words.hint(
                on,
                has_image=session.image is not None,
                has_model=session.method.entry is not None,
                has_regions=session.cells is not None and len(session.cells) > 0,
            )
        )
