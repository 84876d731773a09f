"""The nuclei dock (DeepPap): click a nucleus, see a score, how sure it is, and whose it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QMenu, QWidget

from napari_cellpath.backend import Backend, shared_backend
from napari_cellpath.core.vocabulary import Border, Preset, System
from napari_cellpath.models import ModelEntry, list_models
from napari_cellpath.widgets import wording
from napari_cellpath.widgets.dock import ObjectDock
from napari_cellpath.widgets.keys import shortcut_of
from napari_cellpath.widgets.method import Method
from napari_cellpath.widgets.nuclei_session import NucleiSession
from napari_cellpath.widgets.nuclei_table import SCORE_COLUMN, nucleus_table_columns
from napari_cellpath.widgets.search import FindSettings, NucleusSearch, Where
from napari_cellpath.widgets.sections import Choice
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
CLICK, STOP = "Click nuclei", "Clicking nuclei · stop"


class NucleiDock(ObjectDock):
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

    session: NucleiSession

    def __init__(
        self,
        napari_viewer: napari.viewer.Viewer,
        *,
        backend: Backend | None = None,
        models: Callable[[], list[ModelEntry]] | None = None,
    ) -> None:
        def lister(first: Sequence[Path]) -> list[ModelEntry]:
            return models() if models else list_models(System.DEEPPAP, first)

        defaults = nuclei_defaults()
        method = Method(preset=defaults.preset, band_of_user=defaults.review_band)
        method = method.with_changes(entry=self.first_model(lister, System.DEEPPAP, defaults.model))
        session = NucleiSession(
            napari_viewer, (lambda: backend) if backend is not None else shared_backend, method
        )
        columns = nucleus_table_columns(lambda: session.nuclei)
        super().__init__(session, lister, "Nuclei", CLICK, columns)
        action = self.frame.action
        action.primary.setToolTip("Every click on the image adds a nucleus and scores it.")
        self.search = NucleusSearch(session)
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
        self.frame.method.set_presets(PRESETS, method.preset)
        self.frame.method.set_borders(BORDERS, method.border)
        self._connect_own()
        if defaults.model and method.entry is None:
            self._tell(
                "warning",
                f"The default model '{defaults.model}' of Preferences is not on this machine; "
                "choose one.",
            )
        self.show_everything()
        session.inquiry.warm_up()

    # The frame's wishes.

    def _connect_own(self) -> None:
        frame, session = self.frame, self.session
        frame.action.primary_toggled.connect(session.set_clicking)
        self.score_all.clicked.connect(lambda: session.score_all())
        self.from_labels.clicked.connect(self._offer_labels)
        frame.method.preset_chosen.connect(lambda value: session.use(preset=Preset(value)))
        frame.method.border_chosen.connect(lambda value: session.use(border=Border(value)))
        frame.method.seed_chosen.connect(lambda value: session.use(seed=value))
        frame.method.threshold_moved.connect(lambda v: session.use(threshold=round(v, 4)))
        self.unseen.clicked.connect(lambda: session.go_to_unseen())
        self.why.clicked.connect(lambda: self.search.explain())
        self.project.complete_wanted.connect(self._mark_complete)

    def _mark_complete(self) -> None:
        session = self.session
        if session.image is not None:
            session.keeper.mark_complete(session.viewer, session.image, session.source)

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
            self._offer(layers, self.session.add_from, self.from_labels)

    # The session's news.

    def show_subject(self) -> None:
        """Show image, model and pixel size, and what can be done with them."""
        super().show_subject()
        self.frame.action.primary.setEnabled(self.can_work)
        self.find.setEnabled(self.can_work)

    def show_reading(self) -> None:
        """Show threshold and review band."""
        method = self.session.method
        self.frame.method.set_reading(method.threshold, method.band)
        self.frame.result.scale.set_reading(method.threshold, method.band)
        super().show_reading()

    def summary(self, objects: Any, waiting: int, stale: int) -> str:
        """All nuclei in one line."""
        return wording.summary(objects, waiting, stale)

    def detail(self, objects: Any, selected: Sequence[str]) -> str:
        """The selected nucleus in words."""
        return wording.detail(objects, selected, self.session.method.entry)

    def show_facts(self) -> None:
        """Show what is known of all nuclei."""
        nuclei = self.session.nuclei
        scores = np.zeros(0) if nuclei is None else nuclei.table.features["score"]
        self.frame.result.scale.set_scores(scores)
        unseen = 0 if nuclei is None else len(nuclei.unseen())
        text = f"Next unseen ({unseen:,})" if unseen else "Next unseen"
        if text != self.unseen.text():
            self.unseen.setText(text)
        self.unseen.setEnabled(unseen > 0)
        super().show_facts()

    def show_left(self, unscored: int, stale: int) -> None:
        """Show how many nuclei have no valid score."""
        self.label_run(self.score_all, "Score", "Re-score", unscored, stale)

    def show_detail(self) -> None:
        """Show the selected nucleus in words."""
        super().show_detail()
        nuclei = self.session.nuclei
        self.why.setEnabled(nuclei is not None and len(nuclei.selected()) == 1)

    def working_on(self, count: int) -> str:
        """What is said while so many nuclei are under way."""
        return f"Scoring {wording.nuclei(count)}"

    def show_clicking(self, on: bool) -> None:
        """Show whether a click on the canvas adds a nucleus."""
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
