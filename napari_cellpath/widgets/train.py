"""The Train dock: from what people corrected to a better model, with proof.

It writes no model itself: it starts the command line's own run and follows it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from napari.utils.notifications import show_error, show_info, show_warning
from qtpy.QtCore import QEvent, QProcess, QSize, Qt
from qtpy.QtGui import QGuiApplication
from qtpy.QtWidgets import (
    QComboBox,
    QFileDialog,
    QFrame,
    QHBoxLayout,
    QLineEdit,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QVBoxLayout,
    QWidget,
)

from napari_cellpath.core.errors import CellpathError
from napari_cellpath.core.vocabulary import RESEARCH_ONLY, System
from napari_cellpath.models import ModelEntry, list_models
from napari_cellpath.models.registry import DEFAULT_MODELS
from napari_cellpath.project import Project, trained
from napari_cellpath.project.images import all_images
from napari_cellpath.widgets import train_run
from napari_cellpath.widgets.curves import Curves
from napari_cellpath.widgets.frame import Themed
from napari_cellpath.widgets.keeper import Keeper
from napari_cellpath.widgets.project_bar import ProjectBar
from napari_cellpath.widgets.sections import Choice, caption, fill, form, narrow, quiet
from napari_cellpath.widgets.train_report import ReportView
from napari_cellpath.widgets.train_run import CANCELLED, REPORT, TrainRun, Wanted, resuming
from napari_cellpath.widgets.train_words import (
    PRESETS,
    PRESETS_OF,
    RECIPE,
    SYSTEMS,
    duration,
    labelled_systems,
    summary,
)

MARGIN = 10


class TrainDock(Themed):
    """Fine-tune a model on the open project, watch it, and see whether it is better.

    Parameters
    ----------
    napari_viewer
        Given by napari.
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__()
        self.setWindowTitle("Train")
        self.viewer = getattr(napari_viewer, "__wrapped__", napari_viewer)
        self.keeper = Keeper.of(self.viewer)
        self.keeper.enter()
        self._docked = False
        self._recipe: Path | None = None
        self._system_chosen = False
        self._seen: Any = ()  # of no project yet, not even of none
        self._made: Path | None = None
        self.run = TrainRun(self)
        self._estimator: QProcess | None = None

        inner = QWidget()
        layout = QVBoxLayout(inner)
        layout.setContentsMargins(MARGIN, MARGIN, MARGIN, MARGIN // 2)
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(inner)
        outer = QVBoxLayout(self)
        outer.setContentsMargins(0, 0, 0, 0)
        outer.addWidget(scroll, 1)
        rows = form()
        layout.addLayout(rows)
        self.system = narrow(QComboBox())
        self.parent_model = narrow(QComboBox())
        self.preset = narrow(QComboBox())
        fill(self.preset, PRESETS, "fast")
        self.name = QLineEdit()
        self.name.setPlaceholderText("made from parent and project")
        self.name.setToolTip("Of the model that comes out.")
        rows.addRow(caption("System"), self.system)
        rows.addRow(caption("Parent"), self.parent_model)
        rows.addRow(caption("Preset"), self.preset)
        rows.addRow(caption("Name"), self.name)
        self.data = quiet()
        layout.addWidget(self.data)
        self.start = QPushButton("Train")
        self.start.setObjectName("cellpath-primary")
        self.start.setMinimumHeight(34)
        layout.addWidget(self.start)
        others = QHBoxLayout()
        self.cancel = QPushButton("Cancel")
        self.resume = QPushButton("Resume")
        self.estimate = QPushButton("How long?")
        self.copy = QPushButton("Copy command")
        for button, tip in (
            (self.cancel, "Stop; the checkpoint is kept."),
            (self.resume, "Go on with the run that was stopped last."),
            (self.estimate, "Measure a few steps and tell how long it will take."),
            (self.copy, "The command line that gives the same model."),
        ):
            button.setToolTip(tip)
            others.addWidget(button)
        layout.addLayout(others)
        self.bar = QProgressBar()
        self.bar.hide()
        layout.addWidget(self.bar)
        self.state = quiet()
        layout.addWidget(self.state)
        self.curves = Curves()
        layout.addWidget(self.curves)
        self.report = ReportView()
        layout.addWidget(self.report, 1)
        self.use = QPushButton("Use the new model")
        self.use.setToolTip("The docks turn to it; what was called before is offered again.")
        self.use.hide()
        layout.addWidget(self.use)
        layout.addStretch(0)
        self.project_bar = ProjectBar(self.viewer, self.keeper)
        self.project_bar.layout().setContentsMargins(MARGIN, 0, MARGIN, MARGIN // 2)
        outer.addWidget(self.project_bar)
        note = quiet(RESEARCH_ONLY)
        note.setAlignment(Qt.AlignmentFlag.AlignHCenter)
        outer.addWidget(note)

        self.start.clicked.connect(lambda: self.train())
        self.cancel.clicked.connect(self.run.cancel)
        self.resume.clicked.connect(self.go_on)
        self.estimate.clicked.connect(self.ask_how_long)
        self.copy.clicked.connect(self.copy_command)
        self.use.clicked.connect(self.use_model)
        self.system.activated.connect(self._on_system)
        self.preset.activated.connect(self._on_preset)
        self.run.progressed.connect(self._show_progress)
        self.run.ended.connect(self._on_ended)
        self.report.wanted.connect(self.go_to)
        self.keeper.changed.connect(self._on_project)
        self._on_project()

    def sizeHint(self) -> QSize:  # noqa: N802
        """Wide enough for the report's measures."""
        return QSize(400, 640)

    def minimumSizeHint(self) -> QSize:  # noqa: N802
        """Small: what does not fit is scrolled to."""
        return QSize(300, 160)

    # What there is to learn from.

    def _on_project(self) -> None:
        project = self.keeper.project
        now = None if project is None else (project.folder, project.events, project.unsaved == 0)
        if now == self._seen:
            return
        self._seen = now
        folders = [] if project is None else [project.folder / trained.MODELS]
        everything = list_models(None, folders)
        system = self._show_systems({m.info.system for m in everything}, project)
        models = [m for m in everything if m.info.system == system]
        default = None if project is None else trained.default_model(project, system)
        keep = self.parent_model.currentData()
        wanted = next((m.folder for m in models if m.folder == keep), None)
        wanted = wanted or next((m.folder for m in models if m.folder == default), None)
        starter = DEFAULT_MODELS.get(system)
        wanted = wanted or next((m.folder for m in models if m.name == starter), None)
        fill(self.parent_model, [_choice(m) for m in models], wanted)
        self._show_presets(self.preset.currentData() or "fast")
        self.data.setText(summary(project, system))
        self._show_buttons()

    def _show_systems(self, with_model: set[System], project: Project | None) -> System:
        """Offer the systems that have a model; returns the one in force.

        Until the user chooses, it is the one that most of the project's labels are of.
        """
        choices = [Choice(s, text) for s, text in SYSTEMS.items() if s in with_model]
        now = self.system.currentData()
        if project is not None and not self._system_chosen:
            labelled = labelled_systems(project)
            now = max(SYSTEMS, key=labelled.count) if labelled else now
        there = [choice.value for choice in choices]
        system = now if now in there else there[0] if there else System.DEEPPAP
        fill(self.system, choices or [Choice(system, SYSTEMS[system])], system)
        return System(system)

    def _show_presets(self, current: str) -> None:
        choices = PRESETS_OF.get(self.system.currentData(), PRESETS)
        there = any(choice.value == current for choice in choices)
        fill(self.preset, choices, current if there else "fast")

    def _on_system(self, _index: int) -> None:
        self._system_chosen = True
        self._seen = ()
        self._on_project()

    def _show_buttons(self) -> None:
        ready = self.keeper.project is not None and not self.run.running
        self.start.setEnabled(ready and self.parent_model.currentData() is not None)
        self.copy.setEnabled(self.keeper.project is not None)
        self.estimate.setEnabled(ready and self._estimator is None)
        self.cancel.setEnabled(self.run.running)
        self.resume.setEnabled(ready and self.unfinished() is not None)

    def _on_preset(self, index: int) -> None:
        if self.preset.itemData(index) != RECIPE:
            self._recipe = None
            return
        path, _ = QFileDialog.getOpenFileName(self, "Recipe", "", "Recipe (*.yaml *.yml)")
        self._recipe = Path(path) if path else None
        if self._recipe is None:
            self._show_presets("fast")
        else:
            self.state.setText(f"Recipe: {self._recipe}")

    def wanted(self) -> Wanted | None:
        """What the dock is set to; None without a project or a model."""
        project, parent = self.keeper.project, self.parent_model.currentData()
        if project is None or parent is None:
            return None
        return Wanted(
            self.system.currentData(), project.folder, str(parent),
            "fast" if self._recipe else self.preset.currentData(), self.name.text().strip(),
            self._recipe,
        )  # fmt: skip

    # Running.

    def train(self) -> None:
        """Start a run with these settings."""
        wanted = self.wanted()
        if wanted is None or self.run.running or not self._flushed():
            return
        out = trained.new_run_folder(wanted.project, self.preset.currentData())
        self._begin(wanted.command(out), out)

    def go_on(self) -> None:
        """Go on with the latest run that has not ended."""
        out = self.unfinished()
        if out is not None and not self.run.running:
            self._begin(resuming(self.system.currentData(), out), out)

    def unfinished(self) -> Path | None:
        """Folder of the latest run of the project that was begun and not ended."""
        project = self.keeper.project
        if project is None:
            return None
        runs = project.folder / trained.RUNS
        found = sorted(runs.glob(f"*/{train_run.RECIPE}")) if runs.is_dir() else []
        if not found or (found[-1].parent / REPORT).is_file():
            return None
        return found[-1].parent

    def _begin(self, words: list[str], out: Path) -> None:
        self.curves.clear()
        self.report.hide()
        self.use.hide()
        self.state.setText("Starting…")
        self.bar.setRange(0, 0)
        self.bar.show()
        self.run.start(words, out)
        self._show_buttons()

    def _flushed(self) -> bool:
        """Whether what the run will read is on disk."""
        try:
            self.keeper.project.flush()
        except CellpathError as error:
            self._tell("error", str(error))
            return False
        return True

    def _show_progress(self, line: dict[str, Any]) -> None:
        stage, epoch, epochs = line.get("stage", ""), line.get("epoch", 0), line.get("epochs", 0)
        seconds, left = line.get("seconds") or 0.0, line.get("seconds_left")
        if left is not None:
            self.bar.setRange(0, 1000)
            self.bar.setValue(round(1000 * seconds / max(seconds + left, 1e-6)))
        of = f" {epoch} of {epochs}" if epochs else ""
        rest = f" · about {duration(left)} left" if left is not None else ""
        self.state.setText(f"{str(stage).capitalize()}{of}{rest}")
        self.curves.add(line)

    def _on_ended(self, code: int, said: str) -> None:
        self.bar.hide()
        out = self.run.out
        if code == 0 and out is not None:
            self.state.setText(f"Done: run {out.name}.")
            self.state.setToolTip(str(out))
            self.show_run(out)
        elif code == CANCELLED:
            kept = out is not None and out == self.unfinished()
            self.state.setText("Stopped. Resume goes on where it was." if kept else "Stopped.")
        else:
            self.state.setText(said or f"The run failed (exit code {code}).")
            self._tell("error", said or f"The training run failed with exit code {code}.")
        self._seen = ()
        self._on_project()

    def show_run(self, out: Path) -> None:
        """Show the report of a finished run."""
        try:
            report = json.loads((out / REPORT).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            self._tell("warning", f"{out} has no readable report.")
            return
        self.report.show_report(report, out)
        self._made = out
        passed = bool(report.get("gate", {}).get("passed"))
        self.use.setText("Use the new model" if passed else "Try the new model all the same")
        self.use.show()

    def use_model(self) -> None:
        """Have the docks use the model of the run that is shown."""
        project = self.keeper.project
        if project is None or self._made is None:
            return
        model = project.state.runs.get(self._made.name, {}).get("model")
        if model is None:
            self._tell("warning", "The new model is not in the project yet; try again.")
            return
        folder = project.folder / trained.MODELS / model["name"] / model["version"]
        self.keeper.model_wanted.emit(folder)
        self._tell("info", f"{model['name']} is used from now on.")

    # How long, the command, and the changed cells.

    def ask_how_long(self) -> None:
        """Estimate the time in a process of its own; the answer comes by and by."""
        wanted = self.wanted()
        if wanted is None or self._estimator is not None or not self._flushed():
            return
        process = self._estimator = QProcess(self)
        words = wanted.command(wanted.project / trained.RUNS / "estimate")
        process.setProgram(train_run.sys.executable)
        process.setArguments([*train_run.MODULE, *words[1:], "--estimate"])
        process.finished.connect(self._on_estimate)
        self.state.setText("Measuring a few steps…")
        process.start()
        self._show_buttons()

    def _on_estimate(self, code: int, _status: Any) -> None:
        process, self._estimator = self._estimator, None
        if process is None:
            return
        out = bytes(process.readAllStandardOutput()).decode("utf-8", "replace").strip()
        errors = bytes(process.readAllStandardError()).decode("utf-8", "replace").strip()
        process.deleteLater()
        if not self.run.running:
            last = errors.splitlines()[-1].removeprefix("cellpath: ") if errors else ""
            self.state.setText(out.splitlines()[-1] if code == 0 and out else last)
        self._show_buttons()

    def copy_command(self) -> None:
        """Put the command line of these settings on the clipboard."""
        wanted = self.wanted()
        clipboard = QGuiApplication.clipboard()
        if wanted is not None and clipboard is not None:
            out = trained.new_run_folder(wanted.project, self.preset.currentData())
            clipboard.setText(train_run.shown(wanted.command(out)))
            self._tell("info", "Command copied.")

    def go_to(self, cell: dict[str, Any]) -> None:
        """Open the image of a changed cell, if need be, and bring the cell to the middle."""
        project = self.keeper.project
        if project is not None:
            for image in all_images(project):
                if image.path == cell["image"]:
                    self.project_bar.open_image(image)
        layers = [x for x in self.viewer.layers if str(x.source.path or "") == cell["image"]]
        if not layers:
            self._tell("warning", f"{cell['image']} is not open and could not be opened.")
            return
        world = layers[0].data_to_world((float(cell["row"]), float(cell["col"])))
        self.viewer.scene.camera.center = (0.0, *(float(x) for x in world[-2:]))

    def _tell(self, severity: str, sentence: str) -> None:
        {"error": show_error, "warning": show_warning}.get(severity, show_info)(sentence)

    # Coming and going.

    def close_run(self) -> None:
        """Let go of everything; a run under way is stopped and can be resumed."""
        self.run.close()
        if self._estimator is not None:
            self._estimator.kill()
        self.project_bar.let_go()
        self.keeper.changed.disconnect(self._on_project, missing_ok=True)
        self.keeper.leave()

    def event(self, event: QEvent) -> bool:
        """A widget that napari takes out of its dock is closed."""
        if event.type() == QEvent.Type.ParentChange:
            if self.parent() is not None:
                self._docked = True
            elif self._docked:
                self._docked = False
                self.close_run()
        return super().event(event)


def _choice(model: ModelEntry) -> Choice:
    version = f" · {model.folder.name}" if model.folder.name != model.name else ""
    return Choice(model.folder, f"{model.name}{version}", f"{model.label}\n{model.folder}")
