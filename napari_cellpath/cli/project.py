"""``cellpath project``: projects without a window."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from napari_cellpath.cli import options as o
from napari_cellpath.core.annotations import ImageFacts
from napari_cellpath.core.annotations import Part as Side
from napari_cellpath.core.errors import ProjectError
from napari_cellpath.core.requests import FileImage
from napari_cellpath.core.vocabulary import System
from napari_cellpath.project import Event, Kind, Project, ledger
from napari_cellpath.project import images as known_images
from napari_cellpath.project import replay as again
from napari_cellpath.slides.windows import image_mpp, image_shape

app = typer.Typer(help="Make, fill, read and rebuild projects.", no_args_is_help=True)

ProjectArgument = Annotated[Path, typer.Argument(help="Project folder, NAME.cellpath.")]
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
    if not path.exists():
        return known_images.find_image(project, name)
    file = FileImage(str(path), mpp)
    return known_images.add_image(
        project, known_images.key_of_file(path), path.name, image_shape(file),
        path=path, mpp=mpp or image_mpp(file), group=group,
    )  # fmt: skip


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
            facts = image_of(into, str(image), group, mpp)
            side = ledger.parts(into)[facts.group]
            added.append({"image": facts.name, "group": facts.group, "side": str(side)})
    if as_json:
        typer.echo(json.dumps({"images": added}))
    for line in [] if as_json else added:
        typer.echo(f"{line['image']}: {line['group']}, {line['side']}")


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
