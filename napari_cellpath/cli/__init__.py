"""The command line: ``cellpath``. Thin: it builds requests, waits, writes files.

One line of error and exit code 2 for what a user can mend, 1 for our fault, 130 when
cancelled; a traceback only with ``--debug``.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Annotated

import typer
from typer.exceptions import Abort, TyperException

from napari_cellpath import __version__
from napari_cellpath.core.errors import CellpathError, JobCancelledError
from napari_cellpath.core.vocabulary import RESEARCH_ONLY

app = typer.Typer(
    name="cellpath",
    help=f"Cells scored by deep networks, here and in napari alike. {RESEARCH_ONLY}",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,  # see main
) -> None:
    """Cells scored by deep networks, in napari and here with the same numbers."""


@cache
def _add_commands() -> None:
    from napari_cellpath.cli import demo, models, predict, project, reproduce, train

    app.add_typer(predict.app, name="predict")
    app.add_typer(models.app, name="models")
    app.add_typer(project.app, name="project")
    app.command("train")(train.train)
    app.command("evaluate")(train.evaluate)
    app.command("reproduce")(reproduce.reproduce)
    app.command("demo")(demo.demo)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code (the console script passes it on)."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    # Accepted anywhere on the line, because nobody remembers that it belongs in front.
    debug = "--debug" in arguments
    arguments = [a for a in arguments if a != "--debug"]
    try:
        _add_commands()
        code = app(arguments, standalone_mode=False)
    except CellpathError as error:
        if debug:
            raise
        typer.echo(f"cellpath: {error}", err=True)
        return error.exit_code
    except (KeyboardInterrupt, Abort):
        typer.echo("cellpath: cancelled.", err=True)
        return JobCancelledError.exit_code
    except TyperException as error:  # an option is missing, unknown or out of range
        if not error.format_message():  # no argument at all: the help has just been shown
            return 2
        said = error.format_message().replace("Value error, ", "")  # typer's own two words
        typer.echo(f"cellpath: {said} ('cellpath --help' lists all.)", err=True)
        return 2
    except BrokenPipeError:  # "cellpath ... | head": the reader has what it wanted
        return 0
    except Exception as error:
        if debug:
            raise
        typer.echo(
            f"cellpath: unexpected {type(error).__name__}: {error} "
            "(this is our fault; --debug shows where).",
            err=True,
        )
        return 1
    return int(code or 0)
