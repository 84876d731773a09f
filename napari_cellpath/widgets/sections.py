"""The frame's upper sections: what is analysed, what to do, and how.

Views only: they tell the user's wishes by signal and show what they are told.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QIcon
from qtpy.QtWidgets import (
    QComboBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QSizePolicy,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible, QLabeledDoubleSlider
from superqt.utils import signals_blocked

from napari_cellpath.core.geometry import plausible_mpp

SPACING = 6
_FOLDED, _OPEN = "▸  ", "▾  "


@dataclass(frozen=True)
class Choice:
    """One entry of a combo box: what it stands for, what is shown, and its tooltip."""

    value: Any
    text: str
    tip: str = ""


def fill(combo: QComboBox, choices: Sequence[Choice], current: Any) -> None:
    """Show these choices and this one chosen, without telling anybody."""
    with signals_blocked(combo):
        combo.clear()
        for choice in choices:
            combo.addItem(choice.text, choice.value)
            combo.setItemData(combo.count() - 1, choice.tip, Qt.ItemDataRole.ToolTipRole)
        values = [choice.value for choice in choices]
        combo.setCurrentIndex(values.index(current) if current in values else -1)
    combo.setToolTip(combo.currentData(Qt.ItemDataRole.ToolTipRole) or "")


def form() -> QFormLayout:
    """A two-column layout that lines up across sections."""
    layout = QFormLayout()
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(SPACING)
    layout.setLabelAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
    layout.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
    return layout


def caption(text: str) -> QLabel:
    """The label of a form row, wide enough that fields of all sections start in one line."""
    label = QLabel(text)
    label.setFixedWidth(76)
    return label


def quiet(text: str = "") -> QLabel:
    """A wrapped, dimmed sentence."""
    label = QLabel(text)
    label.setWordWrap(True)
    label.setObjectName("cellpath-quiet")
    return label


def narrow(combo: QComboBox) -> QComboBox:
    """Let a combo box shrink below its longest entry: docks are small."""
    combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    combo.setMinimumContentsLength(8)
    combo.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    return combo


class SubjectSection(QWidget):
    """Image, model, and the size of a pixel."""

    image_chosen = Signal(object)
    model_chosen = Signal(str)
    mpp_edited = Signal(object)
    mpp_refused = Signal(str)
    """float, or None when the field was cleared: take the image's own again."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(SPACING)
        layout = self._rows = form()
        column.addLayout(layout)
        self.image = narrow(QComboBox())
        self.model = narrow(QComboBox())
        self.mpp = QLineEdit()
        self._scale = ""  # what is in effect, whatever is being typed
        self.mpp.setFixedWidth(74)
        self.mpp.setPlaceholderText("?")
        self.mpp.setToolTip(
            "Micrometres per pixel. Type a value to override the image's own; clear the field "
            "to take that again."
        )
        self.mpp_origin = quiet()
        scale = QHBoxLayout()
        scale.setSpacing(SPACING)
        scale.addWidget(self.mpp)
        scale.addWidget(self.mpp_origin, 1)
        layout.addRow(caption("Image"), self.image)
        layout.addRow(caption("Model"), self.model)
        layout.addRow(caption("µm / pixel"), scale)
        self.accuracy = quiet()
        column.addWidget(self.accuracy)  # not a form row: those clip wrapped text
        self.image.activated.connect(lambda i: self.image_chosen.emit(self.image.itemData(i)))
        self.model.activated.connect(self._on_model)
        self.mpp.editingFinished.connect(self._on_mpp)

    def add_row(self, name: str, widget: QWidget) -> None:
        """Add a row of the dock's own."""
        self._rows.addRow(caption(name), widget)

    def show_row(self, widget: QWidget, visible: bool) -> None:
        """Show or hide a row of the dock's own."""
        self._rows.setRowVisible(widget, visible)

    def set_images(self, choices: Sequence[Choice], current: Any) -> None:
        """Show the images there are; none is a state of its own."""
        fill(self.image, choices or [Choice(None, "no image open")], current)
        self.image.setEnabled(bool(choices))

    def set_models(self, choices: Sequence[Choice], current: str) -> None:
        """Show the models there are."""
        fill(self.model, choices or [Choice("", "no model found")], current)
        self.model.setEnabled(bool(choices))

    def set_scale(self, mpp: float | None, origin: str) -> None:
        """Show the pixel size in effect and who says so."""
        self._scale = "" if mpp is None else f"{mpp:.4g}"
        if not self.mpp.hasFocus():
            self.mpp.setText(self._scale)
        self.mpp_origin.setText(origin)

    def _on_model(self, index: int) -> None:
        self.model.setToolTip(self.model.itemData(index, Qt.ItemDataRole.ToolTipRole) or "")
        self.model_chosen.emit(str(self.model.itemData(index)))

    def _on_mpp(self) -> None:
        if not self.mpp.isModified():
            return
        self.mpp.setModified(False)
        text = self.mpp.text().replace(",", ".").strip()
        try:
            value = float(text) if text else None
        except ValueError:
            value = math.nan
        if value is not None and plausible_mpp(value) is None:
            # refused aloud: a validator that swallows keys would make 1 of a typed -1
            self.mpp_refused.emit(
                f"‘{text}’ is no pixel size; give micrometres per pixel between 0.01 and 100."
            )
            self.mpp.setText(self._scale)
        else:
            self.mpp_edited.emit(value)


class ActionSection(QWidget):
    """One primary button, secondary ones beside it, and a sentence on what comes next."""

    primary_toggled = Signal(bool)

    def __init__(self, primary: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(SPACING)
        self.primary = QPushButton(primary)
        self.primary.setCheckable(True)
        self.primary.setObjectName("cellpath-primary")
        self.primary.setMinimumHeight(34)
        layout.addWidget(self.primary)
        self._others = QHBoxLayout()
        self._others.setSpacing(SPACING)
        layout.addLayout(self._others)
        self.hint = quiet()
        layout.addWidget(self.hint)
        # clicked, not toggled: only the user's own press is a wish.
        self.primary.clicked.connect(self.primary_toggled)

    def add_secondary(self, text: str, tip: str, share: int = 1) -> QPushButton:
        """Add a button beside the others, which takes its share of the dock's width."""
        button = QPushButton(text)
        button.setToolTip(tip)
        # Three buttons with a count on one must not widen the dock.
        button.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        button.setObjectName("cellpath-secondary")
        self._others.addWidget(button, share)
        return button

    def set_hint(self, text: str) -> None:
        """Say what to do next."""
        self.hint.setText(text)
        self.hint.setVisible(bool(text))


class MethodSection(QWidget):
    """A preset; thresholds, border and seed folded away."""

    preset_chosen = Signal(str)
    threshold_moved = Signal(float)
    band_moved = Signal(float)
    border_chosen = Signal(str)
    seed_chosen = Signal(int)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(SPACING)
        top = form()
        layout.addLayout(top)
        self.preset = narrow(QComboBox())
        top.addRow(caption("Preset"), self.preset)

        inner = QWidget()
        rows = form()
        rows.setContentsMargins(0, 4, 0, 2)
        inner.setLayout(rows)
        self.threshold = slider(0.01, 0.99)
        self.band = slider(0.0, 0.5)
        self.border = narrow(QComboBox())
        self.seed = QSpinBox()
        self.seed.setRange(0, 2**31 - 1)
        self.seed.setToolTip("Base of the random views: the same seed gives the same numbers.")
        self.threshold.setToolTip("Scores above it are called abnormal. Moving it scores nothing.")
        self.band.setToolTip("Scores this near the threshold are doubtful and shown as rings.")
        rows.addRow(caption("Threshold"), self.threshold)
        rows.addRow(caption("Review ±"), self.band)
        rows.addRow(caption("Border"), self.border)
        rows.addRow(caption("Seed"), self.seed)
        # The arrow is text: as an icon superqt would draw it black on napari's dark theme.
        self._rows = rows
        self.more = QCollapsible(f"{_FOLDED}More settings", None, QIcon(), QIcon())
        self.more.setObjectName("cellpath-more")
        self.more.setDuration(0)
        self.more.layout().setContentsMargins(0, 0, 0, 0)
        self.more.addWidget(inner)
        self.more.collapse(animate=False)
        layout.addWidget(self.more)

        self.more.toggled.connect(
            lambda open_: self.more.setText(f"{_OPEN if open_ else _FOLDED}More settings")
        )
        self.preset.activated.connect(self._on_preset)
        self.border.activated.connect(lambda i: self.border_chosen.emit(self.border.itemData(i)))
        self.threshold.valueChanged.connect(self.threshold_moved)
        self.band.valueChanged.connect(self.band_moved)
        self.seed.setKeyboardTracking(False)  # a seed typed digit by digit is one seed
        self.seed.valueChanged.connect(self.seed_chosen)

    def add_setting(self, name: str, widget: QWidget) -> None:
        """Add a setting of the dock's own to the folded ones."""
        self._rows.addRow(caption(name), widget)

    def leave_out(self, *widgets: QWidget) -> None:
        """Hide settings that the dock has no use for."""
        for widget in widgets:
            self._rows.setRowVisible(widget, False)

    def call_band(self, name: str, tip: str) -> None:
        """Say what the review band is of."""
        label = self._rows.labelForField(self.band)
        if isinstance(label, QLabel):
            label.setText(name)
        self.band.setToolTip(tip)

    def set_presets(self, choices: Sequence[Choice], current: str) -> None:
        """Show the presets there are."""
        fill(self.preset, choices, current)

    def set_borders(self, choices: Sequence[Choice], current: str) -> None:
        """Show what may stand where a patch leaves the image."""
        fill(self.border, choices, current)

    def set_band(self, band: float) -> None:
        """Show a review band that was set elsewhere."""
        with signals_blocked(self.band):
            self.band.setValue(band)

    def set_reading(self, threshold: float, band: float) -> None:
        """Show a threshold and band that were set elsewhere."""
        self.set_band(band)
        with signals_blocked(self.threshold):
            self.threshold.setValue(threshold)

    def _on_preset(self, index: int) -> None:
        self.preset.setToolTip(self.preset.itemData(index, Qt.ItemDataRole.ToolTipRole) or "")
        self.preset_chosen.emit(str(self.preset.itemData(index)))


def slider(low: float, high: float) -> QLabeledDoubleSlider:
    """A slider for a number of two decimals, with a field to type it."""
    made = QLabeledDoubleSlider(Qt.Orientation.Horizontal)
    made.setRange(low, high)
    made.setSingleStep(0.01)
    made.setDecimals(2)
    return made
