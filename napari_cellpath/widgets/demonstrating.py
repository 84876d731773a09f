"""How a demonstration works the window: wait, settle, run the copied command."""

from __future__ import annotations

import csv
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from qtpy.QtWidgets import QApplication

from napari_cellpath.core.errors import BackendError

PATIENCE = 180.0  # seconds; the first answer includes starting the process and loading torch


def settle(seconds: float) -> None:
    """Let Qt work for a while."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        QApplication.processEvents()
        time.sleep(0.005)


def until(done: Callable[[], bool], what: str) -> None:
    """Let Qt work until something is so.

    Raises
    ------
    BackendError
        It is not so after `PATIENCE` seconds.
    """
    end = time.perf_counter() + PATIENCE
    while not done():
        if time.perf_counter() > end:
            raise BackendError(f"The demonstration waited {PATIENCE:.0f} s in vain for {what}.")
        settle(0.02)


def rows_by_command(command: str, table: Path) -> list[dict[str, str]]:
    """Run a copied command in a process of its own; the rows of the table it wrote.

    Raises
    ------
    BackendError
        The command failed.
    """
    words = shlex.split(command)
    done = subprocess.run(
        [sys.executable, "-m", "napari_cellpath.cli", *words[1:]],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BackendError(f"'{command}' failed: {done.stderr.strip()}")
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
