"""The model folder: ``model.safetensors``, ``model.json``, ``card.md``, ``features.safetensors``.

Nothing in it can run code. ``model.json`` holds the SHA-256 of every other file and of itself,
so one changed bit anywhere is an error, never a slightly different diagnosis. Classes travel
with weights: names, order and colours come from here, not from the paper.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from napari_cellpath.core.errors import MissingFileError, ModelError, OutputError, UnsafeModelError
from napari_cellpath.core.vocabulary import System
from napari_cellpath.models.calibration import Calibration

FORMAT = 2
"""1: without calibration. A model that has none is still written as 1, for older programs."""
WEIGHTS, INFO, CARD = "model.safetensors", "model.json", "card.md"
FEATURES = "features.safetensors"
STANDS_FOR, OUT_OF_FOLD = "stands_for", "out_of_fold"
"""Of a row of features: how many training cells it stands for; what heads that never saw it say."""
MAX_INFO_BYTES = 4 * 2**20
MAX_WEIGHTS_BYTES = 2 * 2**30
MAX_FEATURES_BYTES = 3 * 2**20
MAX_HEADER_BYTES = 4 * 2**20
"""300,000 empty tensors make a 30 MB header that takes seconds to open; real ones take 10 kB."""


class ClassInfo(BaseModel):
    """One class: its name, its colour on screen, and whether it counts as abnormal."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=80)
    colour: str = Field(pattern=r"^#[0-9a-fA-F]{6}$")
    abnormal: bool = False


class ModelInfo(BaseModel):
    """What ``model.json`` says; see docs/model-format.md for every field."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = FORMAT
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")
    version: str = Field(default="1", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,39}$")
    system: System
    architecture: str
    arguments: dict[str, Any] = {}
    classes: tuple[ClassInfo, ...] = Field(min_length=2)
    input: dict[str, Any] = {}
    mpp: float | None = Field(default=None, gt=0.0, lt=1000.0)
    threshold: float = Field(default=0.5, gt=0.0, lt=1.0)
    review_band: float = Field(default=0.15, ge=0.0, le=0.5)
    calibration: Calibration | None = None
    parent: str | None = None
    data: dict[str, Any] = {}
    reserve: tuple[str, ...] = ()
    seed: int | None = None
    licence: str = ""
    versions: dict[str, str] = {}
    training: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    files: dict[str, str] = {}
    sha256: str = ""

    @model_validator(mode="after")
    def _classes_differ(self) -> ModelInfo:
        names = [c.name for c in self.classes]
        if len(set(names)) != len(names):
            raise ValueError(f"two classes share a name: {names}")
        return self

    def digest(self) -> str:
        """SHA-256 over the canonical JSON of everything but the field ``sha256`` itself."""
        content = self.content()
        del content["sha256"]
        return hashlib.sha256(_canonical(content)).hexdigest()

    def content(self) -> dict[str, Any]:
        """What ``model.json`` holds; a model without calibration has no such field."""
        unset = {"calibration"} if self.calibration is None else None
        return self.model_dump(mode="json", exclude=unset)

    @property
    def passed_gate(self) -> bool:
        """False of a fine-tuned model that was not shown to be as good as its parent.

        Such a model can be used by name and is never made a default.
        """
        return bool(self.training.get("gate", {}).get("passed", True))

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names in the order of the network's outputs."""
        return tuple(c.name for c in self.classes)


def _canonical(content: Any) -> bytes:
    return json.dumps(
        content, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False
    ).encode()


def read_info(folder: Path | str) -> ModelInfo:
    """Read and check ``model.json``.

    Raises
    ------
    MissingFileError
        No such folder, or no ``model.json`` in it.
    ModelError
        Not JSON, fields missing or wrong, changed since it was written, newer format.
    """
    folder = Path(folder)
    path = folder / INFO
    if folder.is_file():
        raise _refuse_file(folder)
    if not path.is_file():
        raise MissingFileError(
            f"{folder} is not a model folder (it has no {INFO}). "
            "'cellpath models list' shows the models that can be used by name."
        )
    if path.stat().st_size > MAX_INFO_BYTES:
        raise ModelError(f"{path} is larger than {MAX_INFO_BYTES // 2**20} MB; it was not read.")
    try:
        content = json.loads(path.read_bytes().decode("utf-8"))
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not readable JSON ({error}). Copy the folder again.") from None
    version = content.get("format") if isinstance(content, dict) else None
    if isinstance(version, int) and version > FORMAT:
        raise ModelError(
            f"{path} was made by a newer version of napari-cellpath (format {version}, this one "
            f"reads up to {FORMAT}). Upgrade napari-cellpath."
        )
    try:
        info = ModelInfo.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise ModelError(f"{path} is damaged: {where}: {first['msg']}.") from None
    except RecursionError:
        raise ModelError(f"{path} is damaged: nested too deeply.") from None
    if info.sha256 != info.digest():
        raise ModelError(
            f"{path} has changed since it was written (its SHA-256 does not fit). "
            "Copy the folder again from its source."
        )
    return info


def _refuse_file(path: Path) -> ModelError:
    if path.suffix.lower() in {".pt", ".pth", ".pkl", ".ckpt", ".pt2", ".jit", ".tar", ".joblib"}:
        return UnsafeModelError(
            f"{path} can run code when opened and is not opened as a model. Convert it with "
            "'cellpath models import' on a machine you trust."
        )
    return ModelError(f"{path} is a file; a model is a folder with {INFO} and {WEIGHTS}.")


def read_card(folder: Path | str) -> str:
    """The model's card (Markdown), or an empty string where it has none."""
    path = Path(folder) / CARD
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def verify(folder: Path | str) -> ModelInfo:
    """Check every file of a model folder against ``model.json``.

    Raises
    ------
    ModelError
        A file is missing or differs; the sentence names it.
    """
    folder = Path(folder)
    info = read_info(folder)
    if WEIGHTS not in info.files:
        raise ModelError(f"{folder / INFO} names no {WEIGHTS}.")
    for name, expected in info.files.items():
        if Path(name).name != name:
            raise ModelError(f"{folder / INFO} names a file outside its folder: '{name}'.")
        path = folder / name
        if path.is_symlink() or not path.is_file():
            raise ModelError(f"{path} is missing or a link. Copy the model folder again.")
        if _sha256_of(path) != expected:
            raise ModelError(
                f"{path} is damaged: its SHA-256 differs from {INFO}. Copy the folder again."
            )
    if FEATURES in info.files:
        _features_from(folder / FEATURES, len(info.classes))
    return info


def read_tensors(folder: Path | str) -> dict[str, NDArray[Any]]:
    """Read the weights after verifying the whole folder.

    Returns
    -------
    dict
        Tensor name to array, in the stored data type (fp16 for our starters).

    Raises
    ------
    ModelError
        Missing, damaged, hash differs, a header too large, or weights that are not finite.
    """
    verify(folder)
    path = Path(folder) / WEIGHTS
    tensors = tensors_from_file(path)
    for name, tensor in tensors.items():
        if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
            raise ModelError(f"{path}: the weights of '{name}' contain NaN or infinity.")
    return tensors


def read_features(folder: Path | str) -> dict[str, NDArray[Any]] | None:
    """Read the trunk features a model carries of its training cells, after verifying the folder.

    Returns
    -------
    dict or None
        ``features`` (n, d) float16, ``targets``, ``fine`` and ``groups`` (n,) whole numbers;
        of several labels ``targets`` (n, n_classes) and ``verdicts`` (n,) int8 (see
        docs/model-format.md). Where they are there, ``stands_for`` (n,) float32 says how many
        training cells a row stands for, and ``out_of_fold`` (n, n_classes) float16 the
        probabilities by heads that never saw it (NaN: no fold held it). None where the model
        carries none.

    Raises
    ------
    ModelError
        The folder is damaged, or the features are too large or misshapen.
    """
    info = verify(folder)
    if FEATURES not in info.files:
        return None
    return _features_from(Path(folder) / FEATURES, len(info.classes))


def _features_from(path: Path, n_classes: int) -> dict[str, NDArray[Any]]:
    if path.stat().st_size > MAX_FEATURES_BYTES:
        raise ModelError(f"{path} is larger than {MAX_FEATURES_BYTES // 2**20} MB.")
    arrays = tensors_from_file(path)
    check_features(arrays, n_classes, str(path))
    return arrays


def check_features(arrays: Mapping[str, NDArray[Any]], n_classes: int, where: str) -> None:
    """Raise `ModelError` unless the arrays are trunk features as `read_features` gives them."""
    several = "verdicts" in arrays
    further = {"verdicts", STANDS_FOR, OUT_OF_FOLD}
    if set(arrays) - further != {"features", "targets", "fine", "groups"}:
        raise ModelError(
            f"{where} must hold features, targets, fine and groups, not {', '.join(arrays)}."
        )
    features = arrays["features"]
    if features.ndim != 2 or features.dtype != np.float16 or features.size == 0:
        raise ModelError(f"{where}: features must be float16 of n x d, not {features.shape}.")
    if not np.isfinite(features).all():
        raise ModelError(f"{where}: the features contain NaN or infinity.")
    if several:
        _check_label_vectors(arrays, n_classes, where)
    for name in ("fine", "groups") if several else ("targets", "fine", "groups"):
        values = arrays[name]
        if values.shape != features.shape[:1] or values.dtype.kind not in "iu":
            raise ModelError(f"{where}: {name} must be one whole number a row of features.")
        if values.min() < 0:
            raise ModelError(f"{where}: {name} must not be negative.")
    share = arrays.get(STANDS_FOR, np.ones(len(features), np.float32))
    if share.shape != features.shape[:1] or share.dtype != np.float32:
        raise ModelError(f"{where}: {STANDS_FOR} must be one float32 a row of features.")
    if not (np.isfinite(share) & (share > 0)).all():
        raise ModelError(f"{where}: {STANDS_FOR} must be finite and above nought.")
    said = arrays.get(OUT_OF_FOLD, np.zeros((len(features), n_classes), np.float16))
    if said.shape != (len(features), n_classes) or said.dtype != np.float16:
        raise ModelError(f"{where}: {OUT_OF_FOLD} must be float16 of rows x classes.")
    if bool(((said < 0) | (said > 1)).any()):
        raise ModelError(f"{where}: {OUT_OF_FOLD} must lie between 0 and 1.")
    if not several and arrays["targets"].max() >= n_classes:
        raise ModelError(f"{where}: a target is not among the model's {n_classes} classes.")


def _check_label_vectors(arrays: Mapping[str, NDArray[Any]], n_classes: int, where: str) -> None:
    """Several labels a row: 1, 0 or, not known, -1 of each class, and the same of *abnormal*."""
    rows = len(arrays["features"])
    for name, shape in (("targets", (rows, n_classes)), ("verdicts", (rows,))):
        values = arrays[name]
        if values.shape != shape or values.dtype != np.int8:
            raise ModelError(f"{where}: {name} must be int8 of {shape}, not {values.shape}.")
        if values.min() < -1 or values.max() > 1:
            raise ModelError(f"{where}: {name} must be 1, 0 or, where it is not known, -1.")


def tensors_from_file(path: Path) -> dict[str, NDArray[Any]]:
    """Read one safetensors file within our limits."""
    size = path.stat().st_size
    if size > MAX_WEIGHTS_BYTES:
        raise ModelError(f"{path} is larger than {MAX_WEIGHTS_BYTES // 2**30} GB.")
    with path.open("rb") as file:
        start = file.read(8)
        if len(start) < 8 or not 2 <= struct.unpack("<Q", start)[0] <= MAX_HEADER_BYTES:
            raise ModelError(f"{path} is not a safetensors file of a plausible header size.")
        content = start + file.read()
    try:
        return load_safetensors(content)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} is not a readable safetensors file ({error}).") from None


def save_model(
    folder: Path | str,
    info: ModelInfo,
    tensors: Mapping[str, NDArray[Any]],
    card: str,
    features: Mapping[str, NDArray[Any]] | None = None,
) -> ModelInfo:
    """Write a model folder; it appears complete or not at all.

    Parameters
    ----------
    folder
        Must not exist yet: models are never overwritten.
    info
        ``files``, ``format`` and ``sha256`` are filled in here.
    tensors
        Weights and buffers by name.
    card
        Markdown.
    features
        Trunk features of training cells, as `read_features` gives them, or None.

    Returns
    -------
    ModelInfo
        As written.

    Raises
    ------
    ModelError
        The features are too large or misshapen.
    OutputError
        The folder exists, or cannot be written.
    """
    folder = Path(folder)
    if folder.exists():
        raise OutputError(f"{folder} exists already; a model is never overwritten. Choose another.")
    contents = {
        WEIGHTS: save_safetensors({k: np.asarray(v, order="C") for k, v in tensors.items()}),
        CARD: card.encode(),
    }
    if features is not None:
        check_features(features, len(info.classes), str(folder / FEATURES))
        contents[FEATURES] = save_safetensors(
            {k: np.asarray(v, order="C") for k, v in features.items()}
        )
        if len(contents[FEATURES]) > MAX_FEATURES_BYTES:
            raise ModelError(
                f"{folder / FEATURES} would be larger than {MAX_FEATURES_BYTES // 2**20} MB."
            )
    files = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    number = 1 if info.calibration is None else FORMAT
    info = info.model_copy(update={"format": number, "files": files, "sha256": ""})
    # Round trip first, so that the digest is of what a reader will see.
    info = ModelInfo.model_validate_json(info.model_dump_json())
    info = info.model_copy(update={"sha256": info.digest()})
    contents[INFO] = json.dumps(info.content(), indent=1, ensure_ascii=False).encode()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise OutputError(f"{folder} cannot be written ({error.strerror}).") from None
    try:
        for name, data in contents.items():
            with (staging / name).open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        staging.chmod(0o755)  # mkdtemp makes it private; a model is meant to be shared
        staging.rename(folder)
    except OSError as error:
        shutil.rmtree(staging, ignore_errors=True)
        raise OutputError(f"{folder} cannot be written ({error.strerror}).") from None
    return info


def _sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
