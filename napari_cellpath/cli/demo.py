"""``cellpath demo``: the main job from start to end, in a real napari window."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from napari_cellpath.core.errors import CellpathError, OutputError


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for screenshots and results.")] = Path(
        "demo-output"
    ),
    headless: Annotated[
        bool,
        typer.Option(
            "--headless", help="Save screenshots and results, then quit; no screen needed."
        ),
    ] = False,
    generated: Annotated[
        bool, typer.Option("--generated", help="Use the generated field, not real cells.")
    ] = False,
    cells: Annotated[int, typer.Option(min=1, max=60, help="How many cells to click.")] = 12,
) -> None:
    """Click nuclei in napari: real cells if there are any, else a generated field."""
    if sys.platform == "linux" and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    ):
        raise typer.Exit(_again_under_xvfb())
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out} cannot be written ({error.strerror}).") from None
    from napari_cellpath.widgets.demonstration import run_demonstration

    started = time.perf_counter()
    report = run_demonstration(out, n_cells=cells, keep_open=not headless, generated=generated)
    report["seconds"] = round(time.perf_counter() - started, 1)
    (out / "report.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    for line in report["lines"]:
        typer.echo(line)


def _again_under_xvfb() -> int:
    """Run the same command on a virtual screen."""
    runner = shutil.which("xvfb-run")
    if runner is None:
        raise CellpathError(
            "There is no display, and xvfb-run is not installed. Install it "
            "(Debian: apt-get install xvfb xauth) or run 'make demo', which does."
        )
    arguments = sys.argv[1:] if "--headless" in sys.argv else [*sys.argv[1:], "--headless"]
    command = [runner, "-a", "-s", "-screen 0 1600x1000x24", sys.executable, "-m",
               "napari_cellpath.cli", *arguments]  # fmt: skip
    return subprocess.run(command, check=False).returncode
