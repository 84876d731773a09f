"""What the predict commands share: images by name, one job run to its end."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import typer

from napari_cellpath.backend.job import Backend, Job, JobEvent
from napari_cellpath.core.errors import JobCancelledError, TableError
from napari_cellpath.core.requests import FileImage


class _OfImage(Protocol):
    @property
    def image(self) -> str | None: ...

    @property
    def line(self) -> int: ...


Row = TypeVar("Row", bound=_OfImage)


def check_names(files: Sequence[Path]) -> None:
    """Tables name images by file name: two of one name could not be told apart."""
    names = [file.name for file in files]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise TableError(
            f"Two of the images are called {twice}, and tables name images by file name; "
            "score them with two commands."
        )


def rows_of_images(
    rows: Sequence[Row], files: Sequence[Path], table: Path
) -> dict[Path, list[Row]]:
    """Assign each row to its image by file name; one image needs no image column."""
    by_name = {file.name: file for file in files}
    found: dict[Path, list[Row]] = {file: [] for file in files}
    for row in rows:
        if row.image is None:
            if len(files) > 1:
                raise TableError(
                    f"{table} has no 'image' column, but {len(files)} images were given. "
                    "Add a column with each image's file name."
                )
            found[files[0]].append(row)
            continue
        name = Path(row.image.replace("\\", "/")).name
        if name not in by_name:
            raise TableError(
                f"{table} line {row.line}: the image '{row.image}' is not among those given."
            )
        found[by_name[name]].append(row)
    return found


def run(connection: Backend, request: Any, quiet: bool) -> Sequence[Any]:
    """Submit, show progress on a terminal, wait; Ctrl-C cancels the job."""
    shown = sys.stderr.isatty() and not quiet

    def show(event: JobEvent) -> None:
        if shown:
            name = Path(request.image.path).name if isinstance(request.image, FileImage) else ""
            left = "" if event.seconds_left is None else f", {event.seconds_left:.0f} s left"
            typer.echo(f"\r{name}: {event.progress:4.0%}{left}   ", nl=False, err=True)

    job: Job | None = None
    try:
        job = connection.submit(request, listener=show)
        results: Sequence[Any] = job.result()
    except KeyboardInterrupt:
        if job is not None:
            job.cancel()
        raise JobCancelledError("cancelled; nothing was written.") from None
    finally:
        if shown:
            typer.echo("", err=True)
    return results
