"""A training run as a process of its own: the command line's, followed through its files."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qtpy.QtCore import QObject, QProcess, QProcessEnvironment, QTimer, Signal

LOOK_EVERY = 400  # ms
PROGRESS, RECIPE, REPORT = "progress.jsonl", "recipe.yaml", "report.json"
CANCELLED = 130
MODULE = ["-m", "napari_cellpath.cli"]
"""What the interpreter is to run: the command line, wherever it is installed."""


@dataclass(frozen=True)
class Wanted:
    """What is to be trained.

    ``recipe`` is a file that says it all; without one, ``parent`` goes on from what people
    labelled in ``project``, by a ``preset``, as a model called ``name``.
    """

    system: str
    project: Path
    parent: str = ""
    preset: str = "fast"
    name: str = ""
    recipe: Path | None = None

    def command(self, out: Path) -> list[str]:
        """The command line of the run, as a user would type it."""
        words = ["cellpath", "train", self.system]
        if self.recipe is not None:
            words.append(str(self.recipe))
        else:
            words += ["--parent", self.parent, "--data", str(self.project)]
            words += ["--preset", self.preset]
            words += ["--name", self.name] if self.name else []
        return [*words, "--out", str(out)]


def resuming(system: str, out: Path) -> list[str]:
    """The command line that goes on with a run that was stopped."""
    return ["cellpath", "train", system, str(out / RECIPE), "--out", str(out), "--resume"]


def shown(words: list[str]) -> str:
    """A command quoted for a POSIX shell."""
    return shlex.join(words)


class TrainRun(QObject):
    """Starts ``cellpath train``, follows it, and stops it.

    The run writes everything into its folder; this object only looks. Stopping asks as Ctrl-C
    does, so that the checkpoint is kept, and kills what does not listen.
    """

    progressed = Signal(dict)
    """A new line of the run's progress file."""
    ended = Signal(int, str)
    """Exit code (130: cancelled) and the last line said on standard error."""

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self.out: Path | None = None
        self._process: QProcess | None = None
        self._read = 0
        self._rest = ""
        self._errors = ""
        self._cancelled = self._begun = False
        self._timer = QTimer(self)
        self._timer.setInterval(LOOK_EVERY)
        self._timer.timeout.connect(self._look)

    @property
    def running(self) -> bool:
        """Whether a run is under way."""
        return self._process is not None

    def start(self, words: list[str], out: Path) -> None:
        """Start a command of `Wanted` or `resuming`; its folder is ``out``."""
        if self._process is not None:
            raise RuntimeError("a run is under way")
        self.out, self._errors, self._rest = out, "", ""
        self._cancelled = self._begun = False
        progress = out / PROGRESS
        self._read = progress.stat().st_size if progress.is_file() else 0
        process = self._process = QProcess(self)
        environment = QProcessEnvironment.systemEnvironment()
        environment.insert("PYTHONUNBUFFERED", "1")
        process.setProcessEnvironment(environment)
        process.setProgram(sys.executable)
        process.setArguments([*MODULE, *words[1:]])
        process.readyReadStandardError.connect(self._hear)
        process.readyReadStandardOutput.connect(lambda: process.readAllStandardOutput())
        process.finished.connect(self._on_finished)
        process.errorOccurred.connect(self._on_error)
        process.start()
        self._timer.start()

    def cancel(self) -> None:
        """Ask the run to stop; its checkpoint is kept."""
        process = self._process
        if process is None:
            return
        self._cancelled = True
        self._look()
        if not self._begun:  # still importing: nothing to keep, and it may be deaf to Ctrl-C
            process.kill()
            return
        pid = int(process.processId())
        if os.name == "posix" and pid:
            os.kill(pid, signal.SIGINT)
        else:
            process.terminate()
        # One batch may take a while on a slow machine; a run that is deaf is killed.
        QTimer.singleShot(15_000, lambda: self._kill(process))

    def close(self) -> None:
        """Stop following; the run is stopped too, and can be resumed."""
        self._timer.stop()
        process, self._process = self._process, None
        if process is not None:
            process.finished.disconnect()
            process.errorOccurred.disconnect()
            process.kill()
            process.waitForFinished(2000)

    def _kill(self, process: QProcess) -> None:
        if process is self._process:
            process.kill()

    def _hear(self) -> None:
        if self._process is not None:
            said = bytes(self._process.readAllStandardError()).decode("utf-8", "replace")
            self._errors = (self._errors + said)[-4000:]

    def _look(self) -> None:
        if self.out is None:
            return
        path = self.out / PROGRESS
        if not path.is_file():
            return
        with path.open(encoding="utf-8") as stream:
            stream.seek(self._read)
            text = self._rest + stream.read()
            self._read = stream.tell()
        *lines, self._rest = text.split("\n")
        for line in lines:
            try:
                said = dict(json.loads(line))
            except ValueError:  # a line cut by a killed run
                continue
            self._begun = True
            self.progressed.emit(said)

    def _on_finished(self, code: int, _status: Any) -> None:
        self._hear()
        self._end(CANCELLED if self._cancelled else code)

    def _on_error(self, error: Any) -> None:
        if error == QProcess.ProcessError.FailedToStart:
            self._errors = "The training process could not be started."
            self._end(1)

    def _end(self, code: int) -> None:
        if self._process is None:
            return
        self._timer.stop()
        self._look()
        process, self._process = self._process, None
        process.deleteLater()
        lines = [line.strip() for line in self._errors.splitlines() if line.strip()]
        self.ended.emit(code, lines[-1].removeprefix("cellpath: ") if lines else "")
