"""``cellpath models``: what models there are, what they are made of, whether they are intact."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from napari_cellpath.cli import options as o
from napari_cellpath.core.errors import CellpathError, ModelError, OutputError, UnknownNameError
from napari_cellpath.core.vocabulary import CLASS_COLOURS, System
from napari_cellpath.models import ClassInfo, ModelInfo, find_model, list_models, save_model, verify
from napari_cellpath.models.registry import search_folders, user_models_folder
from napari_cellpath.systems import catalogue

MOST_LISTED = 12
MOST_NESTED = 2

app = typer.Typer(no_args_is_help=True, help="List, show, verify, import and export models.")


@app.command("list")
def list_command(as_json: o.JsonOption = False) -> None:
    """List the models that can be used by name, and the architectures."""
    entries = list_models()
    if as_json:
        typer.echo(
            json.dumps(
                {
                    "models": [_facts(e.folder, e.info) for e in entries],
                    "architectures": catalogue.architecture_names(),
                }
            )
        )
        return
    for entry in entries:
        typer.echo(f"{entry.name:24} {entry.info.system:8} {entry.label:34} {entry.folder}")
    typer.echo(f"architectures: {', '.join(catalogue.architecture_names())}")


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="An architecture, a model's name or its folder.")],
    classes: Annotated[
        int | None,
        typer.Option(min=2, help="Classes of an architecture; default what its paper tells apart."),
    ] = None,
    as_json: o.JsonOption = False,
) -> None:
    """Show parameters, classes, input and card."""
    if name in catalogue.architecture_names():
        system = catalogue.system_of(name)
        row = catalogue.SYSTEMS[system]
        n_classes = classes or row.classes_of.get(name, row.n_classes)
        facts: dict[str, Any] = {
            "architecture": name,
            "system": system,
            "classes": n_classes,
            "parameters": _parameters(name, n_classes),
            "input": dict(row.input),
        }
        card = ""
    else:
        try:
            entry = find_model(name)
        except UnknownNameError as error:
            raise UnknownNameError(
                f"{error} Architectures: {', '.join(catalogue.architecture_names())}."
            ) from None
        verify(entry.folder)  # facts about other bytes than these are no facts
        facts, card = _facts(entry.folder, entry.info), entry.card
    if as_json:
        typer.echo(json.dumps(facts, indent=1, ensure_ascii=False))
        return
    for key, value in facts.items():
        if isinstance(value, dict | list):
            value = json.dumps(_shortened(value), ensure_ascii=False)
        typer.echo(f"{key:14} {value}")
    if card:
        typer.echo("\n" + card.strip())


def _shortened(value: Any, depth: int = 0) -> Any:
    """Facts without what nobody reads in a line: long lists, and tables within tables."""
    if isinstance(value, dict):
        if depth == MOST_NESTED:
            return f"{len(value)} measures (the card, --json)"
        return {key: _shortened(inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, list) and len(value) > MOST_LISTED:
        return f"{len(value)} entries (--json lists them)"
    return value


def _facts(folder: Path, info: ModelInfo) -> dict[str, Any]:
    return {
        "name": info.name,
        "version": info.version,
        "system": info.system,
        "architecture": info.architecture,
        "parameters": _parameters(info.architecture, len(info.classes), **info.arguments),
        "classes": list(info.class_names),
        "threshold": info.threshold,
        "mpp": info.mpp,
        "input": info.input,
        "parent": info.parent,
        "data": info.data,
        "reserve": list(info.reserve),
        "metrics": info.metrics,
        "sha256": info.sha256,
        "folder": str(folder),
    }


def _parameters(architecture: str, n_classes: int, **arguments: Any) -> int:
    network = catalogue.build(architecture, n_classes=n_classes, **arguments)
    return sum(p.numel() for p in network.parameters())


@app.command("verify")
def verify_command(
    names: Annotated[
        list[str] | None, typer.Argument(help="Names or folders; all that are found by default.")
    ] = None,
) -> None:
    """Check every file of every model against its SHA-256; exit 2 if one is damaged."""
    if names:
        folders = [find_model(name).folder for name in names]
    else:
        folders = [
            info.parent for root in search_folders() for info in sorted(root.glob("**/model.json"))
        ]
    damaged = []
    for folder in folders:
        try:
            info = verify(folder)
            typer.echo(f"ok       {info.name}@{info.sha256[:8]}  {folder}")
        except CellpathError as error:
            damaged.append(folder)
            typer.echo(f"DAMAGED  {error}")
    if damaged:
        raise ModelError(f"{len(damaged)} of {len(folders)} models are damaged, see above.")
    if not folders:
        typer.echo("No models found.")


@app.command("import")
def import_command(
    source: Annotated[
        Path, typer.Argument(help="A model folder, or CaffeNet weights (.pth, .safetensors).")
    ],
    name: Annotated[str | None, typer.Option(help="Name of the imported model.")] = None,
    classes: Annotated[
        str, typer.Option(help="For weights: class names in order, normal first.")
    ] = "normal,abnormal",
    mpp: o.MppOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder to write; default the user's models.")
    ] = None,
) -> None:
    """Take in a model folder, or turn CaffeNet weights into an untrained ConvNet-T to fine-tune."""
    if source.is_dir():
        info = verify(source)
        if name is not None and name != info.name:
            raise ModelError(
                f"{source} is called '{info.name}', and its name is under its SHA-256: it cannot "
                "be renamed on import. Leave --name out."
            )
        target = out or user_models_folder() / info.name
        _copy(source, target)
        typer.echo(f"Imported {info.name}@{info.sha256[:8]} to {target}.")
        return
    info = _import_caffenet(source, name or source.stem, classes.split(","), mpp, out)
    typer.echo(
        f"Imported {info.name}@{info.sha256[:8]}; its head is untrained: train it before use."
    )


def _import_caffenet(
    source: Path, name: str, classes: list[str], mpp: float | None, out: Path | None
) -> ModelInfo:
    from napari_cellpath.systems.deeppap import caffenet

    trunk = caffenet.trunk_from_caffenet(caffenet.read_state_dict(source), str(source))
    arguments = {"mean": list(caffenet.CAFFE_MEAN_RGB)}
    network = catalogue.build("convnet-t", n_classes=len(classes), **arguments)
    tensors = {k: v.numpy() for k, v in network.state_dict().items()} | trunk
    info = ModelInfo(
        name=name,
        system=System.DEEPPAP,
        architecture="convnet-t",
        arguments=arguments,
        classes=tuple(
            ClassInfo(name=c.strip(), colour=CLASS_COLOURS[i % 8], abnormal=i > 0)
            for i, c in enumerate(classes)
        ),
        mpp=mpp,
        training={"imported_from": source.name, "head": "untrained"},
    )
    card = (
        f"# {name}\n\nConvNet-T with the convolutions of `{source.name}` (CaffeNet, input "
        "channels reversed from BGR to RGB). fc6-fc8 are random: **train it before use**.\n"
    )
    return save_model(out or user_models_folder() / name, info, tensors, card)


@app.command("export")
def export_command(
    name: Annotated[str, typer.Argument(help="A model's name or folder.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write.")],
) -> None:
    """Copy a verified model folder, e.g. for another machine."""
    entry = find_model(name)
    verify(entry.folder)
    _copy(entry.folder, out)
    typer.echo(f"Exported {entry.label} to {out}..")


def _copy(source: Path, target: Path) -> None:
    """Copy a model's own files; complete or not at all."""
    if target.exists():
        raise OutputError(f"{target} exists already; a model is never overwritten. Choose another.")
    staging = target.with_name(f".{target.name}-copying")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(staging, ignore_errors=True)
        shutil.copytree(source, staging)
        verify(staging)
        staging.rename(target)
    except OSError as error:
        shutil.rmtree(staging, ignore_errors=True)
        raise OutputError(f"{target} cannot be written ({error.strerror}).") from None
