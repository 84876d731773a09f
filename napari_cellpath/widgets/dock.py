"""What the docks about objects share: a table of them, corrections, and a CSV."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from qtpy.QtWidgets import QFileDialog, QPushButton

from napari_cellpath.bridge.objects import ObjectLayer
from napari_cellpath.bridge.timing import timed
from napari_cellpath.core.errors import CellpathError
from napari_cellpath.widgets.frame_dock import FrameDock, ModelLister
from napari_cellpath.widgets.keys import shortcut_of
from napari_cellpath.widgets.session import ObjectSession
from napari_cellpath.widgets.table import Column


class ObjectDock(FrameDock):
    """A dock about the objects of one image; see `FrameDock`."""

    session: ObjectSession
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
        super().__init__(session, models, title, primary, columns)
        self._running = False
        self._connect()

    # The frame's wishes.

    def _connect(self) -> None:
        frame, session = self.frame, self.session
        frame.method.band_moved.connect(lambda v: session.use(band=round(v, 4)))
        frame.result.table.selection_made.connect(self._select_rows)
        frame.result.table.row_entered.connect(session.show)
        frame.correct.class_chosen.connect(session.correct)
        frame.correct.accept_requested.connect(session.accept)
        frame.out.export_requested.connect(self._ask_where_to_export)
        session.objects_changed.connect(self._show_objects)
        session.rows_added.connect(self._show_added)
        session.rows_changed.connect(self._show_rows)
        session.selection_changed.connect(self._show_selection)
        session.clicking_changed.connect(self.show_clicking)
        session.inquiry.changed.connect(self._show_jobs)

    def _select_rows(self, rows: list[int]) -> None:
        objects = self.session.objects
        if objects is not None:
            self.session.select([str(objects.table.uids[r]) for r in rows if r < len(objects)])

    def _offer(self, layers: Sequence[Any], take: Callable[[Any], None], button: Any) -> None:
        """Let the user choose one of several layers, below a button."""
        self._menu.clear()
        for layer in layers:
            self._menu.addAction(layer.name, lambda layer=layer: take(layer))
        self._menu.popup(button.mapToGlobal(button.rect().bottomLeft()))

    def _ask_where_to_export(self) -> None:
        path, _ = QFileDialog.getSaveFileName(
            self, f"Export {self.session.kind.many}", self.suggested_export(), "CSV (*.csv)"
        )
        if path:
            self.export_to(path)

    def export_to(self, path: str) -> None:
        """Write the objects as CSV; what goes wrong is told, not raised."""
        if not Path(path).suffix:
            path += ".csv"
        try:
            self.check_export(Path(path), (".csv",))
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

    def copied(self, exported: str) -> str:
        """What is said once a command was copied."""
        if self._exported_to:
            return "Command copied."
        return f"Command copied; export the CSV to {exported} before running it."

    def suggested_export(self) -> str:
        """Where the CSV would be exported to."""
        image, many = self.session.image, self.session.kind.many
        if image is None:
            return f"{many}.csv"
        path = Path(str(image.source.path or image.name))
        return str(path.with_name(f"{path.stem}-{many}.csv"))

    def show_keys(self) -> None:
        """Show the key sheet."""
        self.open_sheet(self.session.kind)

    # The session's news.

    def show_everything(self) -> None:
        """Show what there is, once the dock is built."""
        self._show_images()
        self.show_subject()
        self.show_reading()
        self._show_objects()
        self.show_clicking(self.session.clicking)
        self._show_jobs()

    def show_subject(self) -> None:
        """Show image, model and pixel size."""
        super().show_subject()
        self.show_clicking(self.session.clicking)

    def show_reading(self) -> None:
        """Show how calls are read."""
        super().show_reading()
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
        frame.out.export.setEnabled(objects is not None and len(objects) > 0)
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
