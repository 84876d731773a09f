"""Options that several commands share, written once so that they mean the same everywhere."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from napari_cellpath.core.errors import MissingFileError, OutputError
from napari_cellpath.core.vocabulary import Average, Border, Channel, Intensity, Preset


class Device(StrEnum):
    """Where to compute."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


class Precision(StrEnum):
    """What the network computes in."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"


Images = Annotated[list[Path], typer.Argument(help="Images, or folders of images.")]
ModelOption = Annotated[str, typer.Option("--model", help="A model's name or folder.")]
DeviceOption = Annotated[Device, typer.Option(help="auto takes a GPU where there is one.")]
PrecisionOption = Annotated[
    Precision, typer.Option(help="auto is bf16 where the processor computes it natively.")
]
SeedOption = Annotated[int, typer.Option(min=0, help="Base seed of the random views.")]
ViewsOption = Annotated[
    Preset,
    typer.Option(help="fast 10, balanced 100, paper 1000 inputs a cell; adaptive stops early."),
]
BorderOption = Annotated[
    Border, typer.Option(help="What stands where a patch leaves the image; zero is the paper's.")
]
ThresholdOption = Annotated[
    float | None,
    typer.Option(min=0.0, max=1.0, help="Abnormal above this score; default is the model's own."),
]
ReviewBandOption = Annotated[
    float | None,
    typer.Option(min=0.0, max=0.5, help="Scores this near the threshold are counted as doubtful."),
]
ChannelOption = Annotated[
    Channel, typer.Option(help="Plane of a colour image that shows the fluorescence.")
]
AverageOption = Annotated[
    Average,
    typer.Option(
        help="d4 averages the eight ways round a cell or box; none is the paper's; model: what the "
        "model was measured with."
    ),
]
IntensityOption = Annotated[
    Intensity | None, typer.Option(help="How brightly the specimen fluoresces; written down.")
]
MppOption = Annotated[
    float | None, typer.Option("--mpp", help="Micrometres per pixel; overrides the file's own.")
]
BackendOption = Annotated[
    str | None, typer.Option("--backend", help="Address of a running worker, tls://HOST:PORT.")
]
CredentialsOption = Annotated[
    Path | None,
    typer.Option(
        "--credentials", help="Folder of ca.pem, cert.pem and key.pem, needed with --backend."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]

IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".svs"}


def image_files(paths: list[Path]) -> list[Path]:
    """Files as given; folders give the images directly inside them, sorted by name.

    Raises
    ------
    MissingFileError
        A path does not exist, or a folder holds no image.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
            if not inside:
                raise MissingFileError(f"{path} holds no image ({', '.join(IMAGE_SUFFIXES)}).")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise MissingFileError(f"{path} does not exist.")
    return found


def check_output(out: Path, inputs: list[Path]) -> None:
    """Refuse what cannot be written, an input, and anything that is not an ordinary file.

    Raises
    ------
    OutputError
        Before anything is computed; nothing has been changed.
    """
    if not out.parent.is_dir():
        raise OutputError(
            f"{out} cannot be written: its folder does not exist; make {out.parent} first."
        )
    if not os.access(out if out.exists() else out.parent, os.W_OK):
        raise OutputError(f"{out} cannot be written: permission denied; choose another --out.")
    if not out.exists():
        return
    if not out.is_file():
        raise OutputError(f"{out} is not an ordinary file; choose another --out.")
    for given in inputs:
        if given.exists() and out.samefile(given):
            raise OutputError(f"{out} is an input of this command; choose another --out.")
