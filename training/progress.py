"""What a run is doing, one JSON object a line, for whoever watches it: ``progress.jsonl``."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napari_cellpath.core.errors import OutputError

PROGRESS = "progress.jsonl"


@dataclass
class ProgressLog:
    """Appends to a run's progress file; every line is flushed, so that it can be followed.

    Keys of a line: ``stage``, ``epoch`` and ``epochs`` (or cells done and to be done; 0 of 0
    where a stage has no parts), ``loss``, ``validation`` (mapping), ``seconds`` since the run was
    started or resumed, and ``seconds_left`` (null where nothing is known).

    Parameters
    ----------
    folder
        Of the run; None writes nothing.
    planned
        Seconds each stage is expected to take. From them and the time taken so far comes
        ``seconds_left``; a plan that is wrong by a factor is mended by the first stages.
    """

    folder: Path | None = None
    planned: Mapping[str, float] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic, init=False)
    _done: dict[str, float] = field(default_factory=dict, init=False)
    _skipped: float = field(default=0.0, init=False)

    def write(
        self,
        stage: str,
        epoch: int = 0,
        epochs: int = 0,
        loss: float | None = None,
        validation: Mapping[str, float] | None = None,
    ) -> None:
        """Append a line.

        Raises
        ------
        OutputError
            The file cannot be written.
        """
        planned = self.planned.get(stage, 0.0)
        self._done[stage] = planned * (epoch / epochs if epochs else 1.0)
        line: dict[str, Any] = {
            "stage": stage, "epoch": epoch, "epochs": epochs, "loss": loss,
            "validation": dict(validation or {}),
            "seconds": round(time.monotonic() - self.started, 2),
            "seconds_left": self._left(),
        }  # fmt: skip
        if self.folder is None:
            return
        path = self.folder / PROGRESS
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise OutputError(f"{path} cannot be written ({error.strerror}).") from None

    def skip(self, stage: str) -> None:
        """Count a stage, or its part before a resumed epoch, that was done in an earlier start."""
        planned = self.planned.get(stage, 0.0)
        self._skipped += planned - self._done.get(stage, 0.0)
        self._done[stage] = planned

    def _left(self) -> float | None:
        total, done = sum(self.planned.values()), sum(self._done.values())
        worked = done - self._skipped
        if total <= 0 or worked <= 0:
            return round(total - done, 1) if total > 0 else None
        pace = (time.monotonic() - self.started) / worked
        return round(max(total - done, 0.0) * pace, 1)


def read_progress(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run so far; one that is still being written is left out."""
    path = folder / PROGRESS
    if not path.is_file():
        return []
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found
