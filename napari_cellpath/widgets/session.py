"""What the user does to the objects of a dock: adding, looking, correcting."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from napari_cellpath.bridge import export
from napari_cellpath.widgets import keys
from napari_cellpath.widgets.layer_session import LayerSession

SMALLEST = 12.0  # an object jumped to is shown at least this many screen pixels wide


class ObjectSession(LayerSession):
    """State of one dock and everything that is done in it, whatever its objects are."""

    # Adding and scoring.

    @property
    def clicking(self) -> bool:
        """Whether a click on the canvas adds an object now."""
        if self.objects is None:
            return False
        active = self.viewer.layers.selection.active
        return active is self.objects.layer and str(self.objects.layer.mode) == "add"

    def set_clicking(self, on: bool) -> None:
        """Make a click on the canvas add an object, or select one."""
        if on:
            objects = self.ready()
            if objects is not None:
                self.viewer.layers.selection.active = objects.layer
                objects.layer.mode = "add"
        elif self.objects is not None:
            self.objects.layer.mode = "select"
        self.clicking_changed.emit(self.clicking)

    def score_all(self) -> int:
        """Have every object of the layer answered that has no valid answer; returns how many."""
        if self.objects is None:
            return 0
        uids = [*self.objects.unscored(), *self.objects.stale()]
        if uids:
            self.inquiry.ask(self.objects, uids)
        else:
            self.told.emit(
                "info", f"Every {self.kind.one} was {self.kind.done} with these settings."
            )
        return len(uids)

    # Looking and correcting.

    def select(self, uids: Iterable[str]) -> None:
        """Select objects on the layer."""
        if self.objects is not None:
            self.objects.select(uids)

    def show(self, row: int) -> None:
        """Bring an object to the middle of the canvas, large enough to be seen."""
        if self.objects is None or not 0 <= row < len(self.objects):
            return
        layer = self.objects.layer
        world = layer.data_to_world(tuple(self.objects.table.positions[row]))
        camera = self.viewer.scene.camera
        camera.center = (0.0, *(float(x) for x in world[-2:]))
        wide = float(layer.size[row]) * abs(float(layer.scale[-1]))
        if wide * camera.zoom < SMALLEST:
            camera.zoom = 2 * SMALLEST / wide

    def go_to_doubtful(self, step: int) -> None:
        """Select and show the next (+1) or previous (-1) doubtful object, going round."""
        self._go_to(None if self.objects is None else self.objects.next_doubtful(step),
                    f"No doubtful {self.kind.many} are left.")  # fmt: skip

    def go_to_unseen(self) -> None:
        """Select and show the most urgent object that nobody has looked at."""
        rows = [] if self.objects is None else self.objects.unseen()
        self._go_to(int(rows[0]) if len(rows) else None,
                    f"Every {self.kind.done} {self.kind.one} has been looked at.")  # fmt: skip

    def _go_to(self, row: int | None, otherwise: str) -> None:
        if self.objects is None:
            return
        if row is None:
            self.told.emit("info", otherwise)
            return
        self.objects.select([str(self.objects.table.uids[row])])
        self.show(row)

    def correct(self, label: str) -> None:
        """Write what the person says of the selected objects."""
        if self.objects is None:
            return
        selected = self.objects.selected()
        if selected:
            self.objects.correct(selected, label)
        else:
            self.told.emit("info", f"Select the {self.kind.many} to correct first.")

    def accept(self) -> None:
        """Take the calls of the selected objects as the person's own word."""
        if self.objects is not None and not self.objects.accept(self.objects.selected()):
            self.told.emit("info", f"Select {self.kind.done} {self.kind.many} to accept first.")

    # Out.

    def image_name(self) -> str:
        """What a table calls the image of the current objects."""
        if self.source is None and self.objects is not None:
            return export.layer_name(self.objects.image)
        return super().image_name()

    def _key_actions(self) -> dict[str, Callable[[], None]]:
        def run() -> None:
            self.score_all()

        actions: dict[str, Callable[[], None]] = {
            "run": run,
            "accept": self.accept,
            "next_doubtful": lambda: self.go_to_doubtful(1),
            "previous_doubtful": lambda: self.go_to_doubtful(-1),
            "next_unseen": self.go_to_unseen,
            "undo": self.keeper.undo,
            "redo": self.keeper.redo,
        }
        for number in range(keys.MOST_CLASSES):
            actions[f"class_{number + 1}"] = lambda n=number: self._correct_to(n)
        return actions

    def _correct_to(self, number: int) -> None:
        if number < len(self.method.classes):
            self.correct(self.method.classes[number])
