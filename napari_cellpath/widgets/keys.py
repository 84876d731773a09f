"""One table of shortcuts, bound on our layers and shown on ``?``.

They live on the layer because napari asks the active layer before the viewer: they work
exactly while one of our layers is the active one and leave every other layer's keys alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from napari.layers import Layer
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QDialog, QGridLayout, QLabel, QVBoxLayout, QWidget

from napari_cellpath.bridge.kinds import Kind

MOST_CLASSES = 9


@dataclass(frozen=True)
class Shortcut:
    """A key in napari's notation, the action it stands for, and what it does in words."""

    key: str
    action: str
    does: str

    @property
    def shown(self) -> str:
        """As people write it."""
        return self.key.replace("Control", "Ctrl").replace("-", "+")


SHORTCUTS: tuple[Shortcut, ...] = (
    Shortcut("Shift-S", "run", "Answer everything that has no valid answer"),
    Shortcut("N", "next_doubtful", "Go to the next doubtful one"),
    Shortcut("Shift-N", "previous_doubtful", "Go to the previous doubtful one"),
    Shortcut("U", "next_unseen", "Go to the most urgent one nobody has looked at"),
    Shortcut("Control-Z", "undo", "Take the last edit back"),
    Shortcut("Control-Shift-Z", "redo", "Make the edit that was undone again"),
    Shortcut("Shift-C", "accept", "Accept the calls of the selected"),
    *(
        Shortcut(f"Alt-{n}", f"class_{n}", f"The selected are class {n}")
        for n in range(1, MOST_CLASSES + 1)
    ),
)
SHEET_KEY = "?"
"""Not a layer key: napari's keymap cannot hold '?', so the dock has it as a Qt shortcut."""


def shortcut_of(action: str) -> str:
    """How the key of an action is shown on buttons and in tooltips; empty without one."""
    return next((s.shown for s in SHORTCUTS if s.action == action), "")


def bind(layer: Layer, actions: Mapping[str, Callable[[], None]]) -> Callable[[], None]:
    """Bind every shortcut that has an action to a layer; returns a function that undoes it."""
    bound = []
    for shortcut in SHORTCUTS:
        if shortcut.action in actions:
            layer.bind_key(shortcut.key, _ignoring_layer(actions[shortcut.action]), overwrite=True)
            bound.append(shortcut.key)

    def unbind() -> None:
        for key in bound:
            layer.bind_key(key, None)

    return unbind


def _ignoring_layer(action: Callable[[], None]) -> Callable[[Layer], None]:
    def on_key(_layer: Layer) -> None:
        action()

    return on_key


class KeySheet(QDialog):
    """The shortcuts on one sheet, with the classes by name."""

    def __init__(
        self,
        classes: Sequence[str],
        kind: Kind | None = None,
        parent: QWidget | None = None,
        *,
        several: bool = False,
    ) -> None:
        super().__init__(parent)
        several |= kind is not None and kind.several
        title, note_text = self.words(kind)
        self.setWindowTitle(title)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(18, 16, 18, 16)
        grid = QGridLayout()
        grid.setHorizontalSpacing(18)
        grid.setVerticalSpacing(6)
        layout.addLayout(grid)
        for row, (key, does) in enumerate(self.lines(classes, several)):
            shown = QLabel(f"<b>{key}</b>")
            shown.setTextFormat(Qt.TextFormat.RichText)
            grid.addWidget(shown, row, 0)
            grid.addWidget(QLabel(does), row, 1)
        note = QLabel(note_text)
        note.setEnabled(False)
        layout.addSpacing(6)
        layout.addWidget(note)

    @staticmethod
    def words(kind: Kind | None) -> tuple[str, str]:
        """Title, and when the keys work."""
        many = "objects" if kind is None else kind.many
        return f"Keys on the {many} layer", f"They work while a {many} layer is the active layer."

    @staticmethod
    def lines(classes: Sequence[str], several: bool = False) -> list[tuple[str, str]]:
        """Key and meaning of every shortcut that does something with these classes."""
        lines = []
        for shortcut in SHORTCUTS:
            if shortcut.action.startswith("class_"):
                number = int(shortcut.action.removeprefix("class_"))
                if number <= len(classes):
                    name = classes[number - 1]
                    does = f"Flip “{name}” of the selected" if several else ""
                    lines.append((shortcut.shown, does or f"The selected are “{name}”"))
            else:
                lines.append((shortcut.shown, shortcut.does))
        return [*lines, ("Delete", "Forget the selected"), (SHEET_KEY, "This sheet")]


class PaintKeySheet(KeySheet):
    """The keys of tissue layers and of what is painted on them."""

    @staticmethod
    def words(_kind: Kind | None) -> tuple[str, str]:
        """Title, and when the keys work."""
        return "Keys on tissue", "They work while a tissue or painted layer is the active layer."

    @staticmethod
    def lines(classes: Sequence[str], several: bool = False) -> list[tuple[str, str]]:
        """Key and meaning of every shortcut."""
        return [
            (shortcut_of("run"), "Segment what is chosen"),
            *((f"Alt+{n}", f"Take the brush with “{c}”") for n, c in _numbered(classes)),
            (shortcut_of("accept"), "What the model says of what is in view becomes your word"),
            (shortcut_of("undo"), "Take the last stroke back"),
            (shortcut_of("redo"), "Make the stroke that was undone again"),
            ("[ and ]", "Smaller and larger brush"),
            ("Space", "Held: move the image"),
            (SHEET_KEY, "This sheet"),
        ]


class GalleryKeySheet(KeySheet):
    """The keys of the review's gallery."""

    @staticmethod
    def words(_kind: Kind | None) -> tuple[str, str]:
        """Title, and when the keys work."""
        return "Keys in the gallery", "They work while the gallery has the keyboard: click a tile."

    @staticmethod
    def lines(classes: Sequence[str], several: bool = False) -> list[tuple[str, str]]:
        """Key and meaning of everything the gallery listens to."""
        does = "Flip “%s” of the selected ones" if several else "Selected ones are “%s”"
        return [
            *((str(n), does % c) for n, c in _numbered(classes)),
            ("0, Backspace", "Take the label of the selected ones back"),
            ("Shift+A", "Agree with all calls on this page"),
            ("Ctrl+Z, Ctrl+Shift+Z", "Take the last edit back; make it again"),
            ("Enter", "Go to the place in the image"),
            ("Arrows", "Walk; with Shift select"),
            ("Page Up, Page Down", "Turn the page"),
            ("Ctrl+A", "Select all"),
        ]


def _numbered(classes: Sequence[str]) -> list[tuple[int, str]]:
    return list(enumerate(classes[:MOST_CLASSES], start=1))
