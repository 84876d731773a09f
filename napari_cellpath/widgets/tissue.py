"""The tissue dock: segment a region of a slide, watch it grow, paint what is wrong, report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QCheckBox, QComboBox, QFileDialog, QSpinBox

from napari_cellpath.backend import Backend, shared_backend
from napari_cellpath.bridge import tissue_export
from napari_cellpath.bridge.appearance import compile_label_colours
from napari_cellpath.bridge.timing import timed
from napari_cellpath.core.errors import CellpathError
from napari_cellpath.core.vocabulary import Blend, RegionMode, System
from napari_cellpath.models import ModelEntry, list_models
from napari_cellpath.widgets import tissue_words
from napari_cellpath.widgets.frame_dock import FrameDock
from napari_cellpath.widgets.keys import PaintKeySheet
from napari_cellpath.widgets.method import TissueMethod
from napari_cellpath.widgets.search import Where, number_box
from napari_cellpath.widgets.sections import Choice, fill, narrow
from napari_cellpath.widgets.tissue_session import TissueSession
from napari_cellpath.widgets.tissue_summary import TissueSummary, area_columns

if TYPE_CHECKING:
    import napari

PLACES = (
    Choice(Where.VIEW, "what is in view", "The part of the image that is on the canvas now."),
    Choice(Where.DRAWN, "a drawn shape", "A rectangle or polygon on a shapes layer: the selected "
           "one, else the last."),
    Choice(Where.IMAGE, "the whole image", "Everything; of a slide that may take hours."),
)  # fmt: skip
MODES = (
    Choice(RegionMode.EXACT, "exact · overlapping tiles", "Tiles overlap and their probabilities "
           "are averaged, as published."),
    Choice(RegionMode.PREVIEW, "preview · one pass", "One pass over large tiles: several times "
           "faster, and other numbers."),
)  # fmt: skip
BLENDS = (
    Choice(Blend.RBF, "rbf · Gauss", "A tile counts most at its middle."),
    Choice(Blend.EXP, "exp"),
    Choice(Blend.COS, "cos"),
    Choice(Blend.NONE, "none · side by side", "No overlap: fast, with seams."),
)
SEGMENT, PAINT, STOP = "Segment", "Paint", "Stop painting"
PAINTED_EVERY = 300  # ms


class TissueDock(FrameDock):
    """Segment regions of tissue and paint corrections.

    Parameters
    ----------
    napari_viewer
        Given by napari.
    backend
        Where to compute; by default the one backend that all docks share.
    models
        Gives the models to choose from; by default the registry's.
    """

    session: TissueSession

    def __init__(
        self,
        napari_viewer: napari.viewer.Viewer,
        *,
        backend: Backend | None = None,
        models: Callable[[], list[ModelEntry]] | None = None,
    ) -> None:
        def lister(first: Sequence[Path]) -> list[ModelEntry]:
            return models() if models else list_models(System.HSPNET, first)

        method = TissueMethod(self.first_model(lister, System.HSPNET))
        session = TissueSession(
            napari_viewer, (lambda: backend) if backend is not None else shared_backend, method
        )
        self.summary = TissueSummary(session)
        super().__init__(session, lister, "Tissue", SEGMENT, area_columns(self.summary))
        self._running = False
        self._lay_out()
        self._connect_own()
        self.show_subject()
        self.show_reading()
        self._show_jobs()
        self._show_region()
        session.inquiry.warm_up()
        session.inquiry.in_background(_get_ready, lambda _ready: None)

    def _lay_out(self) -> None:
        frame, session = self.frame, self.session
        self.where = narrow(QComboBox())
        fill(self.where, PLACES, session.where)
        frame.subject.add_row("Region", self.where)
        action = frame.action
        action.primary.setCheckable(False)
        self.go_on = action.add_secondary("Go on", "Go on with the region that was stopped.")
        self.paint = action.add_secondary(
            PAINT, "Take the brush: paint the classes that the model has wrong."
        )
        self.paint.setCheckable(True)
        self._lay_out_method()
        frame.result.scale.hide()
        self.maps = frame.result.add_way(
            "Maps…", "Show the probability of a class, or where the model is undecided."
        )
        self.report = frame.result.add_way("Report…", "One page on this region, as HTML or PDF.")
        frame.correct.for_painting(
            "Paint with · Alt + number", "Take the brush with “{}” on it",
            "Accept in view", "What the model says of what is in view becomes your word.",
        )  # fmt: skip
        self.rub_out = frame.correct.add_button("Rub out", "Take painted pixels back.")
        self.rub_out.setCheckable(True)
        frame.out.export.setText("Export…")
        frame.out.export.setToolTip(
            "Write the region as polygons, labels or a table; what was painted counts for what "
            "the model said."
        )
        self._painted_timer = QTimer(self)
        self._painted_timer.setSingleShot(True)
        self._painted_timer.setInterval(PAINTED_EVERY)
        self._painted_timer.timeout.connect(self._count_painted)

    def _lay_out_method(self) -> None:
        method, now = self.frame.method, self.session.method
        method.leave_out(method.threshold, method.band, method.border, method.seed)
        method.set_presets(MODES, now.mode)
        self.blend = narrow(QComboBox())
        fill(self.blend, BLENDS, now.blend)
        method.add_setting("Blend", self.blend)
        self.stride = QSpinBox()
        self.stride.setRange(0, 4096)
        self.stride.setSpecialValueText("the model's")
        self.stride.setKeyboardTracking(False)
        self.stride.setToolTip("Pixels from tile to tile at the model's scale; 0: the model's own.")
        method.add_setting("Stride", self.stride)
        self.probabilities = QCheckBox("Keep probabilities")
        self.probabilities.setToolTip(
            "Needed for maps; the review then puts the undecided tiles first."
        )
        self.probabilities.setChecked(now.probabilities)
        self.empty = QCheckBox("Skip empty glass")
        self.empty.setToolTip(
            "Leave tiles out that show no tissue on the thumbnail; how much is left out is said."
        )
        method.add_setting("", self.probabilities)
        method.add_setting("", self.empty)
        self.smallest = number_box(now.smallest, 0.0, 100.0, 3, "")
        self.smallest.setToolTip(
            "Lesions smaller than this, in mm² (at 1 µm per pixel where the scale is not known), "
            "do not make their class the worst grade."
        )
        self.smallest.setFixedWidth(74)
        method.add_setting("Lesion, mm²", self.smallest)

    def _connect_own(self) -> None:
        frame, session = self.frame, self.session
        frame.action.primary_toggled.connect(lambda _on: self.segment())
        self.go_on.clicked.connect(lambda: session.go_on())
        self.paint.clicked.connect(session.set_painting)
        self.where.activated.connect(lambda i: self.choose_region(self.where.itemData(i)))
        frame.method.preset_chosen.connect(lambda value: session.use(mode=RegionMode(value)))
        self.blend.activated.connect(lambda i: session.use(blend=Blend(self.blend.itemData(i))))
        self.stride.valueChanged.connect(lambda n: session.use(stride=n or None))
        self.probabilities.toggled.connect(lambda on: session.use(probabilities=on))
        self.empty.toggled.connect(lambda on: session.use(skip_empty=on))
        self.smallest.valueChanged.connect(self._set_smallest)
        self.maps.clicked.connect(lambda: self._offer_maps())
        self.report.clicked.connect(lambda: self._ask_where_to("Report", tissue_export.REPORTS))
        frame.correct.class_chosen.connect(session.choose_class)
        frame.correct.accept_requested.connect(session.accept)
        self.rub_out.clicked.connect(lambda: session.choose_class(""))
        frame.out.export_requested.connect(
            lambda: self._ask_where_to("Export", tissue_export.FORMATS)
        )
        frame.result.table.row_entered.connect(self._go_to_class)
        self.project.complete_wanted.connect(session.mark_complete)
        session.inquiry.changed.connect(self._show_jobs)
        session.region_changed.connect(self._show_region)
        session.grew.connect(self._show_growth)
        session.painting_changed.connect(self._show_painting)
        session.keeper.changed.connect(self._painted_soon)
        self.summary.changed.connect(self._show_summary)

    def let_go(self) -> None:
        """Hear no more of anybody, and end the session."""
        self._painted_timer.stop()
        self.session.keeper.changed.disconnect(self._painted_soon, missing_ok=True)
        super().let_go()

    # The frame's wishes.

    def segment(self) -> None:
        """Segment what is chosen; an image that states no scale is asked for it first."""
        session = self.session
        if session.needs_scale:
            self.frame.subject.mpp.setFocus()
        session.segment()
        self._show_hint()

    def choose_region(self, where: Where) -> None:
        """Say what of the image is to be segmented."""
        self.session.where = Where(where)
        fill(self.where, PLACES, self.session.where)
        self._show_hint()

    def _set_smallest(self, area: float) -> None:
        self.session.use(smallest=area)
        self.summary.read_soon()

    def _go_to_class(self, row: int) -> None:
        self.summary.go_to(row)

    def _offer_maps(self) -> None:
        session, menu = self.session, self._menu
        menu.clear()
        menu.addAction("Where it is undecided", lambda: session.show_map(None))
        names = () if session.region is None else session.region.facts.class_names
        for number, name in enumerate(names):
            menu.addAction(f"Probability of {name}", lambda n=number: session.show_map(n))
        menu.popup(self.maps.mapToGlobal(self.maps.rect().bottomLeft()))

    def _ask_where_to(self, title: str, formats: Any) -> None:
        filters = ";;".join(f"{text} (*{ending})" for ending, text in formats.items())
        suggested = self.suggested_export().removesuffix(".ome.zarr") + next(iter(formats))
        path, chosen = QFileDialog.getSaveFileName(self, f"{title} region", suggested, filters)
        if path:
            ending = next((e for e in formats if f"(*{e})" in chosen), next(iter(formats)))
            known = {**tissue_export.FORMATS, **tissue_export.REPORTS}
            if not any(path.endswith(e) for e in known):
                path += ending
            self.export_to(path)

    def export_to(self, path: str) -> None:
        """Write the region to a file, as its ending says; what goes wrong is told, not raised."""
        try:
            self.check_export(Path(path), (*tissue_export.FORMATS, *tissue_export.REPORTS))
            work = self.summary.writer(Path(path))
        except CellpathError as error:
            self._tell("error", str(error))
            return

        def done(said: str) -> None:
            self._exported_to = path
            self._tell("info", said)

        self.session.inquiry.in_background(work, done)

    def suggested_export(self) -> str:
        """Where the region would be exported to."""
        image = self.session.image
        path = Path(str(image.source.path or image.name)) if image is not None else Path("region")
        return str(path.with_name(f"{path.name.split('.')[0]}-tissue.ome.zarr"))

    def command(self, exported: str) -> str:
        """The command line that segments the current region as it was segmented here.

        Raises
        ------
        CellpathError
            There is none.
        """
        file = Path(exported)
        stem = file.name.partition(".")[0]
        ending = ".ome.tif" if exported.endswith(".ome.tif") else ".ome.zarr"
        # Another file than the window's: what stands there is not to be written over.
        named = f"{stem}-command" if self._exported_to else stem
        return self.session.command(str(file.with_name(f"{named}{ending}")))

    def copied(self, exported: str) -> str:
        """What is said once a command was copied."""
        return "Command copied; painted corrections are not part of it."

    def show_keys(self) -> None:
        """Show the key sheet."""
        PaintKeySheet(self.session.method.classes, None, self).show()

    def _import(self, path: Path) -> None:
        session = self.session
        if session.image is not None:
            keeper, classes = session.keeper, session.method.classes
            keeper.import_file(path, session.image, session.source, session.system, classes)
            keeper.show_areas(session.viewer, session.image, session.source, session.system)

    # The session's news.

    def show_subject(self) -> None:
        """Show image, model and pixel size, and what can be done with them."""
        super().show_subject()
        fill(self.where, PLACES, self.session.where)
        self.frame.action.primary.setEnabled(self.can_work)
        self._painted_soon()
        self._show_painting()
        self._show_hint()

    def show_reading(self) -> None:
        """Show the classes and the settings in force."""
        super().show_reading()
        method = self.session.method
        self.frame.method.set_presets(MODES, method.mode)
        fill(self.blend, BLENDS, method.blend)
        if self.stride.value() != (method.stride or 0):
            self.stride.setValue(method.stride or 0)
        self.stride.setEnabled(method.mode is RegionMode.EXACT and method.blend is not Blend.NONE)
        self.blend.setEnabled(method.mode is RegionMode.EXACT)
        self._painted_soon()
        self._show_painting()

    @property
    def without_model(self) -> str:
        """What to say where there is no model."""
        return tissue_words.NO_MODEL

    def _show_hint(self) -> None:
        session = self.session
        self.frame.action.set_hint(
            tissue_words.hint(
                session.missing(),
                painting=session.painting,
                brush=session.brush,
                region=session.region is not None,
                where=session.where,
            )
        )

    @timed
    def _show_jobs(self) -> None:
        inquiry = self.session.inquiry
        errand = inquiry.errands.latest
        self.go_on.setEnabled(self.session.unfinished)
        if errand is None:
            self.frame.job.set_idle()
            if self._running:
                self._running = False
                self._show_region()  # what could not be exported meanwhile can be now
            return
        if not self._running:  # what went wrong before is no news any more
            self._running = True
            self.frame.job.set_message("")
        self.frame.job.set_running(errand.title, errand.progress, errand.seconds_left)

    def _show_region(self) -> None:
        session, region = self.session, self.session.region
        self.go_on.setEnabled(session.unfinished)
        self.maps.setEnabled(region is not None)
        self.report.setEnabled(region is not None and not session.running)
        self.frame.out.export.setEnabled(region is not None and not session.running)
        self.summary.read_soon()
        self._show_hint()

    @timed
    def _show_growth(self) -> None:
        self.frame.result.set_summary(tissue_words.growing(self.session.region))

    @timed
    def _show_summary(self) -> None:
        summary, result = self.summary, self.frame.result
        table = result.table
        if len(summary.names) != table.columns.rowCount():
            table.reset_rows(len(summary.names), ())
        else:
            table.columns.refresh(summary.rows)
        result.set_summary(tissue_words.summary(summary.reading, self.session.region))
        result.set_detail(tissue_words.provenance(self.session.region))

    def _show_painting(self) -> None:
        session, correct = self.session, self.frame.correct
        on = session.painting
        self.paint.setChecked(on)
        self.paint.setText(STOP if on else PAINT)
        self.paint.setEnabled(session.image is not None and session.method.entry is not None)
        correct.set_active(session.image is not None)
        correct.accept.setEnabled(session.region is not None)
        correct.set_chosen(session.brush if on else "")
        self.rub_out.setEnabled(session.painted is not None)
        self.rub_out.setChecked(on and not session.brush)
        self._show_hint()

    def _painted_soon(self) -> None:
        if not self._painted_timer.isActive():
            self._painted_timer.start()

    @timed
    def _count_painted(self) -> None:
        """Have what was painted counted on a thread of its own."""
        session = self.session
        mpp = session.source.mpp if session.source is not None else None

        def done(counts: list[int]) -> None:
            self.frame.correct.set_counts([tissue_words.painted(n, mpp) for n in counts])
            self.summary.painted(counts)

        session.inquiry.in_background(session.painted_counter(), done)


def _get_ready() -> None:
    """Seconds that would else be spent, standing still, when the first rows are to be shown."""
    import_module("zarr")
    compile_label_colours(np.uint8)
