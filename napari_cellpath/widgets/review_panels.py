"""The review dock's upper and lower parts: what is listed, how far one is, the classes. Views."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QComboBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QSlider,
    QToolButton,
    QVBoxLayout,
    QWidget,
)
from superqt.utils import signals_blocked

from napari_cellpath.core.doubt import Order, Show
from napari_cellpath.widgets.class_button import ClassButton
from napari_cellpath.widgets.keys import MOST_CLASSES, SHEET_KEY
from napari_cellpath.widgets.sections import SPACING, Choice, caption, fill, form, narrow, quiet

SIDES = (64, 96, 220)  # smallest, usual and largest picture, pixels
ORDERS = (
    Choice(Order.DOUBT, "doubt", "Least certain first: near the threshold, or of small margin."),
    Choice(Order.SPREAD, "spread over views", "Where the views of one cell differ most first."),
    Choice(Order.DISAGREEMENT, "disagreement with neighbours",
           "Calls unlike those of the most similar ones first."),
    Choice(Order.HIGH, "highest score", "The most abnormal first."),
    Choice(Order.LOW, "lowest score", "The most normal first."),
    Choice(Order.UNSEEN, "unseen", "What nobody has looked at first."),
    Choice(Order.SPECIMEN, "by specimen",
           "One specimen or slide after the other, the most doubtful of each first."),
)  # fmt: skip
SHOWN = (
    Choice((Show.ALL, ""), "all"),
    Choice((Show.UNLABELLED, ""), "unlabelled", "What nobody has given a class yet."),
    Choice((Show.DOUBTFUL, ""), "doubtful", "In the review band and not labelled."),
    Choice((Show.FLAGGED, ""), "flagged", "Unlike the training cells, or not assessable."),
)
FIELDS = (
    Choice(1.0, "close", "The cell alone: 26 µm."),
    Choice(2.0, "wider", "Twice as wide: 52 µm."),
    Choice(4.0, "widest", "Four times as wide: 104 µm."),
)


class ListSection(QWidget):
    """Whose items, in which order, which of them, and how large."""

    pile_chosen = Signal(object)
    started = Signal(object, object, str)
    """Order, what to show, and the class meant."""
    side_moved = Signal(int)
    field_chosen = Signal(float)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(SPACING)
        rows = form()
        column.addLayout(rows)
        self._classes: tuple[str, ...] = ()
        self.pile = narrow(QComboBox())
        self.order = narrow(QComboBox())
        self.show_only = narrow(QComboBox())
        self.field = QComboBox()
        self.side = QSlider(Qt.Orientation.Horizontal)
        self.side.setRange(SIDES[0], SIDES[2])
        self.side.setValue(SIDES[1])
        self.side.setToolTip("Size of the pictures.")
        self.again = QPushButton("Start anew")
        self.again.setToolTip(
            "List and sort anew. Until then everything stays where it is, whatever you label."
        )
        fill(self.order, ORDERS, Order.DOUBT)
        fill(self.show_only, SHOWN, (Show.ALL, ""))
        fill(self.field, FIELDS, 1.0)
        order = QHBoxLayout()
        order.setSpacing(SPACING)
        order.addWidget(self.order, 1)
        order.addWidget(self.again)
        size = QHBoxLayout()
        size.setSpacing(SPACING)
        size.addWidget(self.side, 1)
        size.addWidget(self.field)
        rows.addRow(caption("Items"), self.pile)
        rows.addRow(caption("First"), order)
        rows.addRow(caption("Show"), self.show_only)
        rows.addRow(caption("Pictures"), size)
        self.pile.activated.connect(lambda i: self.pile_chosen.emit(self.pile.itemData(i)))
        self.order.activated.connect(self._start)
        self.show_only.activated.connect(self._start)
        self.again.clicked.connect(self._start)
        self.side.valueChanged.connect(self.side_moved)
        self.field.activated.connect(lambda i: self.field_chosen.emit(self.field.itemData(i)))

    @property
    def wish(self) -> tuple[Order, Show, str]:
        """Order, what to show, and the class meant, as chosen."""
        show, name = self.show_only.currentData() or (Show.ALL, "")
        return Order(self.order.currentData() or Order.DOUBT), Show(show), name

    def set_piles(self, choices: Sequence[Choice], current: object) -> None:
        """Show the layers there are."""
        fill(self.pile, choices or [Choice(None, "nothing to review yet")], current)
        self.pile.setEnabled(len(choices) > 1)

    def set_classes(self, names: Sequence[str]) -> None:
        """Offer every class to be shown alone."""
        if tuple(names) == self._classes:  # else an open list would close under the pointer
            return
        self._classes = tuple(names)
        now = self.show_only.currentData()
        choices = [*SHOWN, *(Choice((Show.CLASS, n), n, f"Called or labelled “{n}”.")
                             for n in names)]  # fmt: skip
        there = any(choice.value == now for choice in choices)
        fill(self.show_only, choices, now if there else (Show.ALL, ""))

    def set_open(self, is_open: bool) -> None:
        """Let the user choose what is listed, or not; how large it is shown always."""
        for widget in (self.order, self.show_only, self.again):
            widget.setEnabled(is_open)
        self.pile.setEnabled(is_open and self.pile.count() > 1)

    def set_order(self, order: Order) -> None:
        """Show the order that is in force."""
        with signals_blocked(self.order):
            self.order.setCurrentIndex(self.order.findData(order))

    def _start(self, *_: object) -> None:
        self.started.emit(*self.wish)


class ProgressLine(QWidget):
    """How far the round is, and what is left on this page."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(3)
        self.text = QLabel()
        self.text.setWordWrap(True)
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setFixedHeight(5)
        self.bar.setObjectName("cellpath-progress")
        column.addWidget(self.text)
        column.addWidget(self.bar)

    def set_progress(self, done: int, total: int, text: str) -> None:
        """Show so many of so many, in these words."""
        if text != self.text.text():
            self.text.setText(text)
        # See JobSection: a bar repaints the whole window at once, unless it may not.
        self.bar.setUpdatesEnabled(False)
        self.bar.setRange(0, max(1, total))
        self.bar.setValue(done)
        self.bar.setUpdatesEnabled(True)


class LabelSection(QWidget):
    """A button a class with its key and counts; agree, take back, and the keys."""

    class_chosen = Signal(str)
    agreed = Signal()
    taken_back = Signal()
    keys_wanted = Signal()

    COLUMNS = 2

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(SPACING)
        self.legend = quiet()
        column.addWidget(self.legend)
        self._grid = QGridLayout()
        self._grid.setSpacing(SPACING)
        column.addLayout(self._grid)
        self.agree = QPushButton()
        self.agree.setObjectName("cellpath-primary")
        self.agree.setMinimumHeight(32)
        self.agree.setToolTip(
            "Take the calls of all unlabelled ones that are to be seen whole as your own word. "
            "(Shift+A)"
        )
        row = QHBoxLayout()
        row.setSpacing(SPACING)
        self.take_back = QPushButton("Take back   0")
        self.take_back.setToolTip("Take the label of the selected ones back. (0 or Backspace)")
        self.keys = QToolButton()
        self.keys.setText(SHEET_KEY)
        self.keys.setToolTip("Keys")
        self.keys.setObjectName("cellpath-keys")
        row.addWidget(self.agree, 1)
        row.addWidget(self.take_back)
        row.addWidget(self.keys)
        column.addLayout(row)
        self.buttons: list[ClassButton] = []
        self._names: tuple[str, ...] = ()
        self._several = False
        self._shown: object = None
        for button in (self.agree, self.take_back, self.keys):
            button.setFocusPolicy(Qt.FocusPolicy.NoFocus)  # the gallery keeps the keyboard
        self.agree.clicked.connect(self.agreed)
        self.take_back.clicked.connect(self.taken_back)
        self.keys.clicked.connect(self.keys_wanted)

    def set_classes(
        self, names: Sequence[str], colours: Sequence[str], *, several: bool = False
    ) -> None:
        """Make a button for each class, in the model's order; ``several`` may hold at once."""
        if (tuple(names), several) == (self._names, self._several):
            return
        self._several = several
        for button in self.buttons:
            self._grid.removeWidget(button)
            button.hide()  # it lives on until Qt comes round to it
            button.deleteLater()
        self.buttons, self._names, self._shown = [], tuple(names), None
        for number, (name, colour) in enumerate(zip(names, colours, strict=True)):
            button = ClassButton(colour)
            button.setFocusPolicy(Qt.FocusPolicy.NoFocus)
            button.clicked.connect(lambda _=False, name=name: self.class_chosen.emit(name))
            self._grid.addWidget(button, number // self.COLUMNS, number % self.COLUMNS)
            self.buttons.append(button)

    def set_counts(self, counts: Sequence[tuple[int, int]] | None, on_page: int) -> None:
        """Show (called, labelled) of each class, None to hide them, and what can be agreed with."""
        shown = (None if counts is None else tuple(counts), on_page)
        if shown == self._shown:
            return
        self._shown = shown
        blind = counts is None
        self.legend.setText(
            "Your reading of the selected · number key"
            if blind
            else "Flip a type of the selected · number key · called / labelled"
            if self._several
            else "Label the selected · number key · called / labelled"
        )
        for number, (button, name) in enumerate(zip(self.buttons, self._names, strict=True)):
            key = f"{number + 1}  " if number < MOST_CLASSES else ""
            if counts is None:
                button.set_parts(key, name, "")
                button.setToolTip(f"Read the selected ones as “{name}”.")
                continue
            called, labelled = counts[number]
            button.set_parts(key, name, f" · {called:,} / {labelled:,}")
            button.setToolTip(
                f"{'Flip' if self._several else 'Label the selected ones'} “{name}”"
                f"{' of the selected ones' if self._several else ''}. {called:,} are called so, "
                f"{labelled:,} were labelled so."
            )
        self.agree.setVisible(not blind)
        self.agree.setText(
            f"Agree with this page ({on_page})" if on_page else "Agree with this page"
        )
        self.agree.setEnabled(on_page > 0)

    def set_active(self, active: bool) -> None:
        """Buttons act on a selection; without one they are off."""
        for button in (*self.buttons, self.take_back):
            button.setEnabled(active)
