"""Public sample files by address and SHA-256: found in the data folder, else downloaded once.

Over HTTPS only, at most as many bytes as the file has, and kept only if the hash fits. Nothing
is downloaded before somebody opens a sample.
"""

from __future__ import annotations

import hashlib
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_cellpath.core.errors import MissingFileError, UnreadableImageError
from napari_cellpath.samples.data import DATA_VARIABLE, HerlevCell, data_folder

_TIMEOUT_S = 20.0
_CHUNK = 1 << 16

Fetch = Callable[[str, int], bytes]
"""Bytes behind an address, at most so many; raises OSError."""


@dataclass(frozen=True)
class PublicFile:
    """A file that anybody may download.

    Attributes
    ----------
    name
        File name in the cache.
    url
        Where it is published; a fixed commit where it is a repository.
    sha256, size
        What it must be.
    local
        Where a copy lies inside the data folder.
    licence
        As its source states it.
    """

    name: str
    url: str
    sha256: str
    size: int
    local: str
    licence: str


SMALL_SLIDE = PublicFile(
    name="CMU-1-Small-Region.svs",
    url="https://openslide.cs.cmu.edu/download/openslide-testdata/Aperio/CMU-1-Small-Region.svs",
    sha256="ed92d5a9f2e86df67640d6f92ce3e231419ce127131697fbbce42ad5e002c8a7",
    size=1_938_955,
    local="wsi_small/CMU-1-Small-Region.svs",
    licence="CC0 (OpenSlide test data)",
)

_PAP_SMEAR = (
    "https://raw.githubusercontent.com/kmezhoud/papSmear/"
    "1e75e74e71add31b5e0458ccc280400ff49cb590/inst/extdata/"
)
_PREDICTION = "imgForPrediction/"
_LIGHT = "imgForTraining/light_dysplastic_org_182_jpeg/"
_HERLEV_LICENCE = "repository AGPL-3; data: cite Jantzen et al. 2005"


@dataclass(frozen=True)
class PublicCell:
    """One Herlev cell among the public files: what ``labels.csv`` says of it, and the file."""

    file: PublicFile
    row: float
    col: float
    class_name: str
    class_id: int
    slide_group: str

    def at(self, image: Path) -> HerlevCell:
        """The cell as a record, its image being ``image``."""
        return HerlevCell(
            image=image,
            mask=None,
            row=self.row,
            col=self.col,
            class_name=self.class_name,
            class_id=self.class_id,
            abnormal=self.class_id >= 4,
            slide_group=self.slide_group,
        )


def _herlev(
    published: str,
    stem: str,
    class_id: int,
    class_name: str,
    centre: tuple[float, float],
    size: int,
    sha256: str,
) -> PublicCell:
    file = PublicFile(
        name=f"{stem}.jpg",
        url=_PAP_SMEAR + published,
        sha256=sha256,
        size=size,
        local=f"herlev/images/{class_name}/{stem}.jpg",
        licence=_HERLEV_LICENCE,
    )
    return PublicCell(file, *centre, class_name, class_id, stem.partition("-")[0])


HERLEV_CELLS = (
    _herlev(
        _PREDICTION + "normal_superficiel_1.jpeg",
        "157185054-157185079-001",
        1,
        "normal_superficiel",
        (139.78, 163.67),
        75_340,
        "1adb2f9e7cfce92708b137b60f8701ce6e51e915d4a20a120f377269b19c2a1e",
    ),
    _herlev(
        _PREDICTION + "normal_intermediate_2.jpeg",
        "209307421-209307504-001",
        2,
        "normal_intermediate",
        (116.89, 98.52),
        33_079,
        "298f616ea8bddb720e2c5d41b28b1a5b3fb767229517b04e6e4c888394d3457d",
    ),
    _herlev(
        _PREDICTION + "normal_columnar1.jpeg",
        "153956444-153956458-004",
        3,
        "normal_columnar",
        (60.68, 23.13),
        7_574,
        "e8f6f378be1243568367f8a075a3e6c7b01cc6932425bdb0a17891179dc1a264",
    ),
    _herlev(
        _LIGHT + "148497788-148497836-002.jpeg",
        "148497788-148497836-002",
        4,
        "light_dysplastic",
        (72.75, 72.88),
        11_432,
        "f44a96b2bbe17c23c3ee43311da8b280dd8dd4e1ffd964a4b66fbb750981b969",
    ),
    _herlev(
        _PREDICTION + "moderate_dysplastic2.jpeg",
        "149014631-149014646-001",
        5,
        "moderate_dysplastic",
        (34.32, 44.33),
        7_655,
        "b71a82ae211d0f414541843903df717f0f08947f0f3672b38d06cbf666758da5",
    ),
    _herlev(
        _PREDICTION + "severe_dysplastic6.jpeg",
        "149056933-149056982-002",
        6,
        "severe_dysplastic",
        (59.74, 23.97),
        4_654,
        "e723816cafcb1618f1d01dd373ba00eb033eb2955c22be10d712665fc4dc163c",
    ),
    _herlev(
        _PREDICTION + "carcinoma_1.jpeg",
        "149146837-149146854-001",
        7,
        "carcinoma_in_situ",
        (50.28, 30.82),
        7_025,
        "08ec9a3d18dbe33c56b6147d0a29bd79c42d0f8f8c400f31ae91e9e9129e29f4",
    ),
)
"""One cell a class, each of another slide group."""


def get(file: PublicFile, *, cache: Path | None = None, fetch: Fetch | None = None) -> Path:
    """Path of a public file on this machine; downloads it the first time.

    Parameters
    ----------
    file
        What is wanted.
    cache
        Where downloads are kept; by default the user's cache folder.
    fetch
        How bytes are got, for tests.

    Raises
    ------
    MissingFileError
        It is not here and cannot be downloaded; the message says how else to get it.
    UnreadableImageError
        The address delivered other bytes than expected. What was kept before is untouched.
    """
    folder = data_folder()
    if folder is not None:
        local = folder / file.local
        if local.is_file() and _sha256(local) == file.sha256:
            return local
    if not file.url.startswith("https://"):
        raise MissingFileError(f"{file.name} is published at {file.url}, which is not HTTPS.")

    import pooch
    from platformdirs import user_cache_path

    def download(url: str, output: Any, _: Any) -> None:
        data = (fetch or _fetch)(url, file.size)
        if hashlib.sha256(data).hexdigest() != file.sha256:
            raise UnreadableImageError(
                f"{url} delivered other bytes than expected (SHA-256 differs); nothing was kept."
            )
        Path(output).write_bytes(data)

    try:
        return Path(
            pooch.retrieve(
                file.url,
                known_hash=f"sha256:{file.sha256}",
                fname=file.name,
                path=cache or user_cache_path("napari-cellpath") / "samples",
                downloader=download,
            )
        )
    except UnreadableImageError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise MissingFileError(
            f"{file.name} is not on this machine and could not be downloaded ({reason}). "
            f"Download {file.url} and put it into the folder that {DATA_VARIABLE} names, "
            f"as {file.local}."
        ) from error


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _fetch(url: str, limit: int) -> bytes:
    """Read an HTTPS address, refusing more than ``limit`` bytes and any step down to HTTP."""
    request = urllib.request.Request(url, headers={"User-Agent": "napari-cellpath"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310
        if not answer.geturl().startswith("https://"):
            raise OSError(f"redirected to {answer.geturl()}, which is not HTTPS")
        parts: list[bytes] = []
        received = 0
        while part := answer.read(_CHUNK):
            parts.append(part)
            received += len(part)
            if received > limit:
                raise OSError(f"more than the expected {limit} bytes")
    return b"".join(parts)
