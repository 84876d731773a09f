"""``cellpath project``: projects without a window."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from napari_cellpath.cli import options as o
from napari_cellpath.core.annotations import ImageFacts
from napari_cellpath.core.annotations import Part as Side
from napari_cellpath.core.errors import ProjectError
from napari_cellpath.core.vocabulary import System
from napari_cellpath.project import Event, Kind, Project, exchange, ledger
from napari_cellpath.project import images as known_images
from napari_cellpath.project import replay as again

app = typer.Typer(help="Make, fill, read and rebuild projects.", no_args_is_help=True)

ProjectArgument = Annotated[Path, typer.Argument(help="Project folder, NAME.cellpath.")]


class Unit(StrEnum):
    """Units of coordinates."""

    px = "px"
    um = "um"


AuthorOption = Annotated[
    str | None, typer.Option("--author", help="Whose name goes with it; default: the account's.")
]
SystemOption = Annotated[System, typer.Option("--system", help="Whose objects.")]
GroupOption = Annotated[
    str, typer.Option("--group", help="Slide, patient or specimen; default: the file's name.")
]


@contextmanager
def opened(
    folder: Path, author: str | None = None, *, read_only: bool = False
) -> Iterator[Project]:
    """A project that is on disk when the block ends."""
    with Project.open(folder, author, read_only=read_only) as project:
        yield project
        project.flush()


def image_of(project: Project, name: str, group: str = "", mpp: float | None = None) -> ImageFacts:
    """An image of the project by path, name or key; a path that is not known yet is added."""
    path = Path(name)
    if path.exists():
        return exchange.image_of_file(project, path, group=group, mpp=mpp)
    return known_images.find_image(project, name)


@app.command()
def create(
    project: ProjectArgument,
    classes: Annotated[
        str, typer.Option(help="Class names in order, separated by commas; others are refused.")
    ] = "",
    system: SystemOption = System.DEEPPAP,
    author: AuthorOption = None,
    as_json: o.JsonOption = False,
) -> None:
    """Make an empty project."""
    names = [name.strip() for name in classes.split(",") if name.strip()]
    if classes and not names:
        raise ProjectError("--classes names no class; leave it out where any is welcome.")
    if len(set(names)) < len(names):
        raise ProjectError("--classes names one class twice.")
    with Project.create(project, author=author) as made:
        if names:
            made.record(Kind.SETTING, {"settings": {f"classes/{system}": {"names": names}}})
            made.flush()
        folder = made.folder
    typer.echo(json.dumps({"project": str(folder)}) if as_json else f"{folder} made.")


@app.command()
def add(
    project: ProjectArgument,
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    group: GroupOption = "",
    mpp: o.MppOption = None,
    author: AuthorOption = None,
    as_json: o.JsonOption = False,
) -> None:
    """Make images known to a project; each slide gets its side of the split."""
    with opened(project, author) as into:
        added = []
        for image in images:
            facts = exchange.image_of_file(into, image, group=group, mpp=mpp)
            side = ledger.parts(into)[facts.group]
            added.append({"image": facts.name, "group": facts.group, "side": str(side)})
    if as_json:
        typer.echo(json.dumps({"images": added}))
    for line in [] if as_json else added:
        typer.echo(f"{line['image']}: {line['group']}, {line['side']}")


@app.command("import")
def import_(
    project: ProjectArgument,
    file: Annotated[
        Path, typer.Argument(help="GeoJSON, COCO, CSV, label TIFF, or a folder of class folders.")
    ],
    image: Annotated[
        str, typer.Option(help="The image it is of: a file, or a name the project knows.")
    ] = "",
    group: GroupOption = "",
    mpp: o.MppOption = None,
    unit: Annotated[Unit, typer.Option(help="Of the coordinates in the file.")] = Unit.px,
    skip_bad: Annotated[
        bool, typer.Option(help="Take the rest where some objects are refused; they are named.")
    ] = False,
    system: SystemOption = System.DEEPPAP,
    author: AuthorOption = None,
    as_json: o.JsonOption = False,
) -> None:
    """Take annotations into a project, told by content; all of a file, or nothing."""
    with opened(project, author) as into:
        if file.is_dir():
            taken = exchange.import_folder(into, file, system=system, skip_bad=skip_bad)
        else:
            of = image_of(into, image, group, mpp) if image else None
            taken = exchange.import_file(
                into, file, image=of, system=system, unit=unit.value, skip_bad=skip_bad
            )
    if as_json:
        typer.echo(json.dumps(asdict(taken)))
        return
    for line in taken.refused:
        typer.echo(f"refused: {line}", err=True)
    typer.echo(
        f"{file} ({taken.format}): {taken.added} added, {taken.changed} changed, "
        f"{taken.same} as they were"
        + (f", {len(taken.refused)} refused." if taken.refused else ".")
    )


@app.command()
def export(
    project: ProjectArgument,
    form: Annotated[exchange.Format, typer.Option("--format", help="What to write.")],
    out: Annotated[Path, typer.Option("--out", help="File to write.")],
    image: Annotated[str, typer.Option(help="One image; GeoJSON and labels hold one.")] = "",
    system: SystemOption = System.DEEPPAP,
    as_json: o.JsonOption = False,
) -> None:
    """Write annotations of a project for other programs."""
    with opened(project, read_only=True) as of:
        chosen = known_images.find_image(of, image) if image else None
        count = exchange.export_file(of, out, form, image=chosen, system=system)
    report = {"objects": count, "out": str(out)}
    typer.echo(json.dumps(report) if as_json else f"{count} objects written to {out}.")


@app.command()
def log(project: ProjectArgument, as_json: o.JsonOption = False) -> None:
    """Print every event of the journal, oldest first."""
    for event in again.log(project):
        typer.echo(json.dumps(again.as_json(event)) if as_json else line_of(event))


def line_of(event: Event) -> str:
    """One event on one line."""
    tables: dict[str, int] = {}
    for change in event.changes:
        tables[change.table] = tables.get(change.table, 0) + 1
    what = [f"{n} {table if n > 1 else table.removesuffix('s')}" for table, n in tables.items()]
    if event.strokes:
        pixels = sum(int((s.before != s.after).sum()) for s in event.strokes)
        what.append(f"{pixels} pixels")
    said = {str(c.now["labels"]) for c in event.changes if c.now and c.now.get("labels")}
    models = {
        str(c.now["prediction"].get("model", ""))
        for c in event.changes
        if c.now and c.now.get("prediction")
    }
    extra = f" {', '.join(sorted(said | models))}" if said | models else ""
    return (
        f"{event.seq:>6}  {event.at}  {event.author:<12} {event.kind:<8} {', '.join(what)}{extra}"
    )


@app.command()
def replay(
    project: ProjectArgument,
    out: Annotated[Path, typer.Option("--out", help="The project to be made.")],
    as_json: o.JsonOption = False,
) -> None:
    """Rebuild a project from its journal, event by event, as far as the journal is whole."""
    count, state, damage = again.replay(project, out)
    if as_json:
        report = {"events": count, "objects": len(state.objects), "damage": damage}
        typer.echo(json.dumps(report))
    else:
        typer.echo(f"{count} events replayed: {len(state.objects)} objects.")
    if damage:
        raise ProjectError(f"{damage} Those {count} were rebuilt.")


class Move(StrEnum):
    """Sides a slide may be put on."""

    train = "train"
    validation = "validation"
    frozen = "frozen"


@app.command()
def split(
    project: ProjectArgument,
    group: Annotated[str, typer.Option(help="Slide, patient or specimen to move.")] = "",
    to: Annotated[Move | None, typer.Option(help="Where to; only while nothing used it.")] = None,
    as_json: o.JsonOption = False,
) -> None:
    """Show on which side each slide, patient or specimen stands; or move one."""
    if bool(group) != (to is not None):
        raise ProjectError("--group and --to go together.")
    with opened(project, read_only=to is None) as of:
        if to is not None:
            ledger.move(of, group, Side(to.value))
        rows = list(groups_of(of))
    if as_json:
        typer.echo(json.dumps({"groups": rows}))
        return
    for row in rows:
        used = f"; {row['used']}" if row["used"] else ""
        typer.echo(f"{row['side']:<11} {row['group']}: {row['images']} images{used}")


def groups_of(project: Project) -> Iterable[dict[str, object]]:
    """Every group with its side, its number of images, and what has used it."""
    counts: dict[str, int] = {}
    for image in known_images.all_images(project):
        counts[image.group] = counts.get(image.group, 0) + 1
    for name, side in ledger.parts(project).items():
        yield {
            "group": name, "side": str(side), "images": counts.get(name, 0),
            "used": ledger.used_by(project, name),
        }  # fmt: skip
